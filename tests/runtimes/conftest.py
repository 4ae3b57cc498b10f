"""One small network as an ONNX file, its card, and plans with their sidecars."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conv_relu_network import SIDE, ConvRelu

from edpct.card import Card
from edpct.runtimes.gpu import GpuState
from edpct.runtimes.sidecar import Sidecar, TensorInfo, write_sidecar
from edpct.task import ClassInfo, Preprocessing, Task


@pytest.fixture(scope="session")
def card() -> Card:
    classes = tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate(("land", "road")))
    task = Task(classes=classes, preprocessing=Preprocessing(height=SIDE, width=SIDE))
    return Card(network="Test net", task=task, parameters=56, macs=55_296)


@pytest.fixture(scope="session")
def conv_relu(tmp_path_factory: pytest.TempPathFactory) -> ConvRelu:
    pytest.importorskip("onnx")
    rng = np.random.default_rng(7)
    weight = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(2).astype(np.float32)
    network = ConvRelu(tmp_path_factory.mktemp("onnx") / "conv_relu.onnx", weight, bias)
    network.save(network.path)
    return network


PlanWriter = Callable[..., Path]


@pytest.fixture
def write_plan(tmp_path: Path, card: Card) -> PlanWriter:
    """Write ``student.plan`` with a sidecar; keyword arguments replace fields of the sidecar."""

    def write(content: bytes = b"a plan", **fields: object) -> Path:
        plan = tmp_path / "student.plan"
        plan.write_bytes(content)
        values: dict[str, object] = {
            "card": card,
            "builder": "tensorrt",
            "builder_version": "10.3.0",
            "precision": "fp16",
            "inputs": (TensorInfo(name="image", dtype="float32", shape=(1, 3, SIDE, SIDE)),),
            "outputs": (TensorInfo(name="logits", dtype="float32", shape=(1, 2, SIDE, SIDE)),),
            "onnx_sha256": "0" * 64,
            "plan_sha256": hashlib.sha256(content).hexdigest(),
            "compute_capabilities": ("8.7",),
            "created": "2026-11-05T12:00:00+00:00",
            "command": "edpct build student.onnx",
        }
        write_sidecar(plan, Sidecar.model_validate({**values, **fields}))
        return plan

    return write


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's driver, whatever this one has."""
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: GpuState(False, "libcuda.so.1 is not there"))
