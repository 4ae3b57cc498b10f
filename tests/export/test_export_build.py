"""ONNX to a plan: a real TensorRT for RTX parses and builds every graph this project makes, without a GPU."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edpct.card import CARD_KEY, Card
from edpct.errors import BuildError, EdpctError, EngineError, MissingPackageError
from edpct.export import build
from edpct.export.build import build_plan, choose_target
from edpct.progress import Silent
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.task import ClassInfo, Preprocessing, Task

GPU = GpuState(True, "", "12.6", (GpuDevice("Orin", "8.7", 8 << 30),))
NO_GPU = GpuState(False, "libcuda.so.1 is not there")


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def pretend(monkeypatch: pytest.MonkeyPatch, gpu: GpuState, *installed: str) -> None:
    monkeypatch.setattr(build, "probe_gpu", lambda: gpu)
    monkeypatch.setattr(build, "_installed", lambda target: target in installed)


@pytest.fixture(scope="module")
def card() -> Card:
    classes = tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate(("land", "road")))
    task = Task(classes=classes, preprocessing=Preprocessing(height=32, width=32))
    return Card(network="Toy", task=task, parameters=8, macs=8192)


def write_toy(path: Path, card: Card | None, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> Path:
    """A graph from image (1, 3, 32, 32) to logits (1, 2, 32, 32) with a card."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "toy", [value("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [value("logits", TensorProto.FLOAT, [1, 2, 32, 32])], tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card is not None:
        helper.set_model_props(model, {CARD_KEY: card.model_dump_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


WEIGHT = numpy_helper.from_array(np.full((2, 3, 1, 1), 0.1, np.float32), "w")


@pytest.fixture
def toy(tmp_path: Path, card: Card) -> Path:
    return write_toy(tmp_path / "toy.onnx", card, [helper.make_node("Conv", ["image", "w"], ["logits"])], [WEIGHT])


# ---- real builds


@pytest.mark.parametrize(
    ("name", "precision"), [("student.onnx", "fp32"), ("student-fp16.onnx", "fp16"), ("student-int8.onnx", "int8")]
)
def test_tensorrt_builds_what_we_write(compressed_run: Path, tmp_path: Path, name: str, precision: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    source, plan = compressed_run / name, tmp_path / f"{precision}.plan"
    build_plan(source, plan, "rtx", Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == [plan.name, f"{plan.name}.json"]
    assert plan.stat().st_size > 100_000
    said = json.loads((tmp_path / f"{plan.name}.json").read_text())
    assert said["plan_sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert said["onnx_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert said["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 3, 128, 128]}]
    assert said["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [1, 7, 128, 128]}]
    assert said["precision"] == said["card"]["precision"] == precision
    assert (said["builder"], said["builder_version"]) == ("tensorrt-rtx", trt.__version__)
    assert said["compute_capabilities"] == []
    assert said["command"] == f"edpct build --onnx {name} --target rtx"
    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    assert said["card"] == json.loads(metadata[CARD_KEY])


def test_a_graph_that_tensorrt_refuses_names_the_node(tmp_path: Path, card: Card) -> None:
    """The int32 bias that ONNX Runtime's own quantisation writes."""
    pytest.importorskip("tensorrt_rtx")
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["bias"], name="the_integer_bias"),
        helper.make_node("Conv", ["image", "w", "bias"], ["logits"]),
    ]
    tensors = [
        WEIGHT,
        numpy_helper.from_array(np.array([3, 4], np.int32), "b"),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.int32(0), "z"),
    ]
    source = write_toy(tmp_path / "bias.onnx", card, nodes, tensors)
    with pytest.raises(BuildError) as caught:
        build_plan(source, tmp_path / "bias.plan", "rtx", Silent())
    assert caught.value.what.startswith("TensorRT cannot read bias.onnx at the node 'the_integer_bias': ")
    assert [path.name for path in tmp_path.iterdir()] == ["bias.onnx"]


def test_an_operator_that_tensorrt_does_not_have_names_the_node(tmp_path: Path, card: Card) -> None:
    pytest.importorskip("tensorrt_rtx")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["sums"]),
        helper.make_node("Bernoulli", ["sums"], ["logits"], name="the_coin", dtype=TensorProto.FLOAT),
    ]
    source = write_toy(tmp_path / "coin.onnx", card, nodes, [WEIGHT])
    with pytest.raises(BuildError) as caught:
        build_plan(source, tmp_path / "coin.plan", "rtx", Silent())
    assert caught.value.what.startswith("TensorRT cannot read coin.onnx at the node 'the_coin': ")


# ---- refusals


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_one_sentence(compressed_run: Path, tmp_path: Path, share: float) -> None:
    whole = (compressed_run / "student.onnx").read_bytes()
    source = tmp_path / "cut.onnx"
    source.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(EngineError) as caught:
        build_plan(source, tmp_path / "cut.plan", "rtx", Silent())
    assert str(caught.value) == "cut.onnx is not an ONNX model, or only part of one. Copy or export it again."
    assert [path.name for path in tmp_path.iterdir()] == ["cut.onnx"]


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"])]
    source = write_toy(tmp_path / "stranger.onnx", None, nodes, [WEIGHT])
    with pytest.raises(BuildError) as caught:
        build_plan(source, tmp_path / "stranger.plan", "rtx", Silent())
    assert caught.value.what == "stranger.onnx does not say what it is (no edpct metadata)."


def test_a_tensorrt_that_is_not_installed(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, GPU)
    for target, package, extra in (("tensorrt", "tensorrt", "tensorrt"), ("rtx", "tensorrt_rtx", "rtx")):
        with pytest.raises(MissingPackageError) as caught:
            build_plan(toy, toy.with_suffix(".plan"), target, Silent())
        assert caught.value.package == package
        assert caught.value.hint == f"Install it with: pip install 'edpct[{extra}]'"


def test_tensorrt_needs_a_gpu_and_says_so(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, NO_GPU, "tensorrt")
    with pytest.raises(BuildError) as caught:
        build_plan(toy, toy.with_suffix(".plan"), "tensorrt", Silent())
    assert caught.value.what == (
        "TensorRT builds on the GPU it builds for, and this machine has none (libcuda.so.1 is not there)."
    )
    assert caught.value.hint.endswith("--target rtx")


def test_a_full_disk_leaves_nothing_half_written(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    old = toy.with_suffix(".plan")
    old.write_bytes(b"the former plan")
    real = Path.write_bytes

    def fill_up(self: Path, content: bytes) -> int:
        real(self, content[:1000])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(EdpctError) as caught:
        build_plan(toy, old, "rtx", Silent())
    assert caught.value.what == f"{old} cannot be written: No space left on device."
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.onnx", "toy.plan"]
    assert old.read_bytes() == b"the former plan"


def test_a_folder_that_is_not_there(toy: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError) as caught:
        build_plan(toy, toy.parent / "nowhere" / "toy.plan", "rtx", Silent())
    assert caught.value.what.endswith("toy.plan cannot be written: No such file or directory.")


# ---- which TensorRT


@pytest.mark.parametrize(
    ("gpu", "installed", "chosen"),
    [
        (GPU, ("tensorrt", "rtx"), "tensorrt"),
        (GPU, ("rtx",), "rtx"),
        (NO_GPU, ("tensorrt", "rtx"), "rtx"),
        (NO_GPU, ("rtx",), "rtx"),
    ],
)
def test_the_target_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch, gpu: GpuState, installed: tuple[str, ...], chosen: str
) -> None:
    pretend(monkeypatch, gpu, *installed)
    heard = Heard()
    assert choose_target(heard) == chosen
    assert heard.lines == []


@pytest.mark.parametrize(("gpu", "installed"), [(GPU, ()), (NO_GPU, ()), (NO_GPU, ("tensorrt",))])
def test_where_nothing_can_build_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, gpu: GpuState, installed: tuple[str, ...]
) -> None:
    pretend(monkeypatch, gpu, *installed)
    heard = Heard()
    assert choose_target(heard) is None
    assert len(heard.lines) == 1
    assert "pip install 'edpct[rtx]'" in heard.lines[0]
