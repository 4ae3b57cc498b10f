"""An ONNX file whose height and width are open: what torch computes, at any size, precision and runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edpct.card import Card
from edpct.errors import ExportError
from edpct.export.build import build_plan
from edpct.export.fp16 import convert_fp16
from edpct.export.fuse import fuse
from edpct.export.int8 import quantise_int8
from edpct.export.layers import int8_share, layers_of
from edpct.export.onnx_export import export_onnx
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ExportSettings, FuseSettings
from edpct.runtimes.table import open_session

SIZES = [(128, 128), (64, 192), (256, 96)]


@pytest.fixture(scope="module")
def card(tiny_teacher: Path) -> Card:
    return load_checkpoint(tiny_teacher).card


@pytest.fixture(scope="module")
def files(tiny_teacher: Path, card: Card, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The teacher at an open size, by precision."""
    folder = tmp_path_factory.mktemp("open")
    made = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    export_onnx(load_checkpoint(tiny_teacher).model, card, made["fp32"], ExportSettings(open_size=True), Silent())
    pixels = list(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8))
    convert_fp16(made["fp32"], made["fp16"], card, pixels)
    quantise_int8(made["fp32"], made["int8"], card, pixels)
    return made


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("fp16", 0.02), ("int8", 0.2)])
def test_it_computes_what_torch_computes_at_every_size(
    files: dict[str, Path], tiny_teacher: Path, precision: str, close: float, runtime: str
) -> None:
    model, rng = load_checkpoint(tiny_teacher).model.eval(), np.random.default_rng(1)
    with open_session(files[precision], runtime) as session:
        for height, width in SIZES:
            image = rng.standard_normal((1, 3, height, width)).astype(np.float32)
            with torch.no_grad():
                expected = model(torch.from_numpy(image)).numpy()
            found = session.run({"image": image})["logits"]
            assert found.shape == (1, 7, height, width)
            assert np.abs(found - expected).max() < close * np.ptp(expected), (height, width)


def test_its_layers_are_counted_at_the_cards_size(files: dict[str, Path], tiny_teacher: Path, tmp_path: Path) -> None:
    teacher = load_checkpoint(tiny_teacher)
    export_onnx(teacher.model, teacher.card, tmp_path / "fixed.onnx", ExportSettings(), Silent())
    fixed, opened = (layers_of(onnx.load(path)) for path in (tmp_path / "fixed.onnx", files["fp32"]))
    counted, all_of_it = (sum(layer.macs for layer in layers) for layers in (opened, fixed))
    assert 0.9 * all_of_it < counted <= all_of_it  # attention's shapes come from shapes, which ONNX does not follow
    assert int8_share(layers_of(onnx.load(files["int8"]))) > 0.9


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_of_it_has_the_cards_size(files: dict[str, Path], tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    said = build_plan(files[precision], tmp_path / "a.plan", "rtx", Silent())
    assert [tensor.shape for tensor in (*said.inputs, *said.outputs)] == [(1, 3, 128, 128), (1, 7, 128, 128)]


def test_fusing_asks_for_one_size(files: dict[str, Path], card: Card, tmp_path: Path) -> None:
    for settings in (FuseSettings(argmax="off"), FuseSettings(preprocess=False)):
        with pytest.raises(ExportError, match="Height and width of this graph are open"):
            fuse(files["fp32"], tmp_path / "fused.onnx", card, settings)
    assert not list(tmp_path.iterdir())


def test_from_the_command_line(tiny_teacher: Path, cli_environment: dict[str, str], tmp_path: Path) -> None:
    def edpct(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edpct", *map(str, arguments)], cwd=tmp_path, env=cli_environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    export = ("export", "--checkpoint", tiny_teacher, "--out", "open.onnx", "--open-size")
    refused = edpct(*export, "--fuse-preprocess")
    assert refused.returncode == 2 and "an open size (export.open_size) goes without" in " ".join(
        refused.stderr.split()
    )
    assert not list(tmp_path.iterdir())
    done = edpct(*export)
    assert done.returncode == 0, done.stderr
    dims = onnx.load(tmp_path / "open.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 0, 0]
    timing = ("--runtime", "openvino", "--seconds", "0.1", "--runs", "2", "--rounds", "1")
    bench = edpct("bench", "--engine", "open.onnx", *timing)
    assert bench.returncode == 0, bench.stderr
    assert "open.onnx" in bench.stdout
