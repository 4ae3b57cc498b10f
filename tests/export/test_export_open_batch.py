"""An ONNX file whose batch axis is open: a batch computes what its images compute one by one, and TensorRT takes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edpct.export.build import build_plan
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ExportSettings
from edpct.runtimes.sidecar import read_sidecar


@pytest.fixture(scope="module")
def opened(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    teacher = load_checkpoint(tiny_teacher)
    path = tmp_path_factory.mktemp("open") / "teacher.onnx"
    export_onnx(teacher.model, teacher.card, path, ExportSettings(open_batch=True), Silent())
    return path


def infer(path: Path, feed: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": feed})[0]


def test_a_batch_computes_what_its_images_compute(opened: Path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, 128, 128)).astype(np.float32)
    together = infer(opened, images)
    assert together.shape == (3, 7, 128, 128)
    for index, image in enumerate(images):
        np.testing.assert_allclose(together[index : index + 1], infer(opened, image[None]), rtol=1e-4, atol=1e-5)


def test_int8_keeps_the_batch_open(opened: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    card = load_checkpoint(tiny_teacher).card
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    quantise_int8(opened, tmp_path / "int8.onnx", card, list(pixels))
    assert infer(tmp_path / "int8.onnx", np.zeros((2, 3, 128, 128), np.float32)).shape == (2, 7, 128, 128)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_tensorrt_builds_a_plan_of_many_batches(opened: Path, tmp_path: Path) -> None:
    build_plan(opened, tmp_path / "teacher.plan", "rtx", Silent())
    sidecar = read_sidecar(tmp_path / "teacher.plan")
    assert [tensor.shape for tensor in (*sidecar.inputs, *sidecar.outputs)] == [
        (None, 3, 128, 128),
        (None, 7, 128, 128),
    ]
