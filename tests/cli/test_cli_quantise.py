"""``edpct quantise`` through the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from PIL import Image

from edpct.export.fuse import fuse
from edpct.recipe import FuseSettings
from edpct.runtimes.artefact import card_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cli_environment: dict[str, str], tmp_path: Path) -> Run:
    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edpct", "quantise", *map(str, arguments)], cwd=tmp_path, env=cli_environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return start


def test_int8_with_its_price_on_val(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    done = run(
        "--onnx", compressed_run / "student.onnx", "--out", "int8.onnx", "--images", 2, "--guard-images", 1,
        "--max-miou-drop", 50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout and "points" in done.stdout and "multiply-accumulates are INT8" in done.stdout
    assert card_of(tmp_path / "int8.onnx").precision == "int8"
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node
    }
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


@pytest.mark.parametrize("calibration", ["percentile", "mse", "entropy"])
def test_another_calibration(run: Run, compressed_run: Path, tmp_path: Path, calibration: str) -> None:
    asked = ("--calibration", calibration, "--guard-images", "0", "--images", "2")
    done = run("--onnx", compressed_run / "student.onnx", "--out", "int8.onnx", *asked)
    assert done.returncode == 0, done.stderr
    assert steps_of(tmp_path / "int8.onnx") != steps_of(compressed_run / "student-int8.onnx")


def steps_of(path: Path) -> dict[str, bytes]:
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor.raw_data for tensor in graph.initializer}
    return {node.name: tensors[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}


def test_fp16(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    done = run("--onnx", compressed_run / "student.onnx", "--precision", "fp16", "--out", "half.onnx")
    assert done.returncode == 0, done.stderr
    assert card_of(tmp_path / "half.onnx").precision == "fp16"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--onnx", "student-int8.onnx"), "student-int8.onnx is INT8 already. Give the FP32 file."),
        (("--onnx", "student.onnx", "--precision", "int4"), "There is no precision 'int4'. Choose int8 or fp16."),
        (("--onnx", "student.onnx", "--out", "x.onnx", "--images", "0"), "setting 'quantise.calibration_images'"),
        (("--onnx", "student.onnx", "--out", "x.onnx", "--data", "empty"), "empty"),
        (("--onnx", "none.onnx"), "none.onnx"),
        (("--onnx", "student.onnx", "--out", "x.onnx", "--calibration", "best"), "setting 'quantise.calibration'"),
        (("--onnx", "student.onnx", "--out", "x.onnx", "--data", "small"), "has 60x60 pixels, fewer than the 128x128"),
    ],
)
def test_refused_in_one_sentence(
    run: Run, compressed_run: Path, scenes: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(scenes, tmp_path / "small")
    for image in (tmp_path / "small").rglob("*.png"):
        Image.open(image).crop((0, 0, 60, 60)).save(image)
    student = compressed_run / "student.onnx"
    for name in ("student.onnx", "student-int8.onnx"):
        (tmp_path / name).symlink_to(compressed_run / name)
    fuse(student, tmp_path / "fused.onnx", card_of(student), FuseSettings())
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run(*arguments)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
