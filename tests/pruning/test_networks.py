"""Networks of several packages: pruned, then loaded, exported and built where torch-pruning cannot be imported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.data.sampling import sample_windows
from edpct.data.scenes import SCENE_TASK
from edpct.models.adopt import adopt
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.checkpoint import save_checkpoint
from edpct.models.dpctnet import dpctnet
from edpct.models.zoo import SMP
from edpct.progress import Silent
from edpct.pruning.prune import Budget, Pruned, Pruner
from edpct.pruning.widths import output_widths, widths_of_paths
from edpct.recipe import PruneSettings

OF_SMP = ("Unet-resnet18", "Segformer-mit_b0")
NETWORKS = ("DP-CTNet tiny", "lraspp_mobilenet_v3_large", *OF_SMP)
SIZE = 128
TASK = SCENE_TASK.at_size(SIZE, SIZE)
SHARE, MARGIN, TOLERANCE = 0.3, 0.02, 1e-3
# One process for all networks, since its imports take longer than a network. What fails there is this network's result.
FRESH = """
import json, sys, traceback
sys.modules["torch_pruning"] = None  # whoever imports it gets an ImportError
from pathlib import Path
import numpy as np, torch
from edpct.export.build import build_plan
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import check_parity
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ExportSettings

def deploy(home, tolerance, build):
    kept, found = np.load(home / "compared.npz"), load_checkpoint(home / "pruned.safetensors")
    task, images = found.card.task, list(kept["images"])
    with torch.no_grad():
        logits = found.model(torch.from_numpy(task.preprocessing.apply(np.stack(images)))).numpy()
    loaded = np.abs(logits - kept["logits"]).max() / np.ptp(kept["logits"])
    export_onnx(found.model, found.card, home / "pruned.onnx", ExportSettings(simplify=False), Silent())
    parity = check_parity(found.model, home / "pruned.onnx", task, images, tolerance)
    result = {"loaded": float(loaded), "parity": parity.largest, "images": parity.images}
    if build:
        build_plan(home / "pruned.onnx", home / "pruned.plan", "rtx", Silent())
    return result

root, tolerance, build = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "build"
for home in sorted(file.parent for file in root.glob("*/pruned.safetensors")):
    try:
        result = deploy(home, tolerance, build)
    except Exception:
        result = {"failed": traceback.format_exc()}
    (home / "result.json").write_text(json.dumps(result))
"""

Found = dict[str, tuple[Pruner, Pruned]]


@pytest.fixture(scope="module")
def pruned() -> Found:
    """Every network that its package is here for, whole (in its pruner) and pruned."""
    found: Found = {}
    for name in NETWORKS:
        if name in OF_SMP and not importlib.util.find_spec(SMP):
            continue
        torch.manual_seed(0)
        ours = name.startswith("DP-CTNet ")
        model = dpctnet(name.split()[1], TASK.num_classes).eval() if ours else adopt(name, None, TASK, None)[0]
        pruner = Pruner(model, PruneSettings(macs=SHARE), (SIZE, SIZE), Silent())
        found[name] = pruner, pruner.to(Budget("macs", SHARE))
    return found


@pytest.fixture(scope="module")
def deployed(pruned: Found, scenes: Path, cli_environment: dict[str, str], tmp_path_factory: Any) -> Path:
    """A folder for each network: checkpoint, ONNX file and plan, and what the process without torch-pruning found."""
    root: Path = tmp_path_factory.mktemp("networks")
    images = np.stack(sample_windows(open_dataset(scenes), "val", 2, SIZE, SIZE, 0))
    for name, (_, made) in pruned.items():
        home = root / name
        home.mkdir()
        save_checkpoint(home / "pruned.safetensors", made.model, card_of(name, made))
        np.savez(home / "compared.npz", images=images, logits=logits_of(made.model, images))
    build = "build" if importlib.util.find_spec("tensorrt_rtx") else "no"
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(root), str(TOLERANCE), build],
        env=cli_environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


def card_of(name: str, made: Pruned) -> Card:
    return Card(network=name, task=TASK, parameters=made.parameters, macs=made.macs)


def logits_of(model: nn.Module, images: Any) -> Any:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TASK.preprocessing.apply(images))).numpy()


def of(name: str, found: Found) -> tuple[Pruner, Pruned]:
    if name not in found:
        pytest.skip(f"{SMP} is not installed")
    return found[name]


def result_of(name: str, pruned: Found, deployed: Path) -> dict[str, Any]:
    of(name, pruned)
    result: dict[str, Any] = json.loads((deployed / name / "result.json").read_text())
    assert "failed" not in result, result["failed"]
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_the_budget_is_met_within_two_points(pruned: Found, name: str) -> None:
    pruner, made = of(name, pruned)
    macs, whole = count_macs(made.model, SIZE, SIZE), count_macs(pruner.model, SIZE, SIZE)
    assert (made.macs, made.teacher_macs) == (macs, whole)
    assert SHARE - MARGIN <= macs / whole <= SHARE
    assert (made.parameters, made.teacher_parameters) == (count_parameters(made.model), count_parameters(pruner.model))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_that_was_to_shrink_did_and_no_other(pruned: Found, name: str) -> None:
    pruner, made = of(name, pruned)
    before, after = output_widths(pruner.model), output_widths(made.model)
    assert {row.layer: (row.before, row.after) for row in made.widths} == {k: (before[k], after[k]) for k in before}
    asked = {
        layer for group in pruner.graph.groups if made.kept[group.name] < group.width for layer in group.layers
    }  # fmt: skip
    assert {layer for layer in before if after[layer] < before[layer]} == asked
    # Not all: what is about as wide as a step, such as a gate's 16 channels, may stay.
    assert len(asked) > 0.9 * (len(before) - len(pruner.graph.outputs)), set(before) - asked
    assert all(after[layer] == before[layer] for layer in pruner.graph.outputs)
    for path, (was, now) in widths_of_paths(made.widths).items():
        assert now < 0.85 * was or path in pruner.graph.outputs or "head" in path, (path, was, now)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_loaded_and_exported_without_torch_pruning(pruned: Found, deployed: Path, name: str) -> None:
    result = result_of(name, pruned, deployed)
    assert result["images"] == 2
    assert result["loaded"] < 1e-4
    assert result["parity"] < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_tensorrt_builds_it(pruned: Found, deployed: Path, name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    result_of(name, pruned, deployed)
    assert (deployed / name / "pruned.plan").stat().st_size > 100_000
