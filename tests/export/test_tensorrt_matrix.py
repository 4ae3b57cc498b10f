"""TensorRT for RTX builds what edpct makes: every preset, pruned or not, and networks of others, in FP32, FP16
and INT8, with a fixed and with an open batch.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edpct.card import Card
from edpct.data.scenes import SCENE_TASK
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.models.adopt import adopt
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.dpctnet import PRESETS, dpctnet
from edpct.models.zoo import SMP
from edpct.progress import Silent
from edpct.pruning.prune import Budget, Pruner
from edpct.recipe import BuildOptions, ExportSettings, PruneSettings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)

SIDE = 64
TASK = SCENE_TASK.at_size(SIDE, SIDE)
NETWORKS = [*PRESETS, *(f"{preset}, pruned" for preset in PRESETS), "Unet-resnet18", "Segformer-mit_b0"]
BATCHES = ["fixed batch", "open batch"]
# The largest preset has the operators of the others, and takes as long as all of them: each of its ways once.
ONCE = {("base", "open batch"), ("base, pruned", "fixed batch")}
CASES = [(name, batch) for name in NETWORKS for batch in BATCHES if (name, batch) not in ONCE]
COMPUTES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    preset, _, pruned = name.partition(", ")
    if preset not in PRESETS:
        if not importlib.util.find_spec(SMP):
            pytest.skip(f"{SMP} is not installed")
        return adopt(name, None, TASK, None)[0]
    model = dpctnet(preset, TASK.num_classes).eval()
    if pruned:
        model = Pruner(model, PruneSettings(macs=0.3), (SIDE, SIDE), Silent()).to(Budget("macs", 0.3)).model.eval()
    return model


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_it_builds_in_every_precision(name: str, batch: str, tmp_path: Path) -> None:
    model, opened = network(name), batch == "open batch"
    card = Card(network=name, task=TASK, parameters=count_parameters(model), macs=count_macs(model, SIDE, SIDE))
    files = {precision: tmp_path / f"{precision}.onnx" for precision in COMPUTES}
    # onnxsim takes as long as all the rest; the graphs that it made are built in the other tests.
    export_onnx(model, card, files["fp32"], ExportSettings(open_batch=opened, simplify=False), Silent())
    convert_fp16(files["fp32"], files["fp16"], card)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    quantise_int8(files["fp32"], files["int8"], card, list(pixels))
    for precision, path in files.items():
        said = build_plan(path, path.with_suffix(".plan"), "rtx", Silent(), BuildOptions(batch=(1, 2, 4)))
        assert path.with_suffix(".plan").stat().st_size > 0.5 * count_parameters(model)
        assert said.inputs[0].shape == (None if opened else 1, 3, SIDE, SIDE)
        assert said.outputs[0].shape == (None if opened else 1, 7, SIDE, SIDE)
        computes = Counter(said.layers.values())
        assert computes[COMPUTES[precision]] >= 0.8 * computes.total(), (precision, computes)
