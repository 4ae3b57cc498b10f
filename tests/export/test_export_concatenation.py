"""Convolutions of concatenations, split up: the same function, and in INT8 the same on every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edpct.card import Card
from edpct.export.concatenation import split_convolutions
from edpct.export.int8 import quantise_int8
from edpct.export.layers import int8_share, layers_of
from edpct.export.onnx_export import write_onnx
from edpct.runtimes.table import open_session
from edpct.task import ClassInfo, Preprocessing, Task

RNG = np.random.default_rng(0)
SIDE = 32


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def joining(parts: int = 2, group: int = 1, read_twice: bool = False) -> onnx.ModelProto:
    """``parts`` maps of 8, 16, 24... channels made of the image, joined, and one 3x3 convolution of them."""
    tensors, nodes, maps, width = [], [], [], 0
    for index in range(parts):
        channels = 8 * (index + 1)
        width += channels
        tensors.append(numpy_helper.from_array(weights(channels, 3, 3, 3), f"first{index}.weight"))
        nodes += [
            helper.make_node("Conv", ["image", f"first{index}.weight"], [f"raw{index}"], pads=[1] * 4),
            helper.make_node("Relu", [f"raw{index}"], [f"map{index}"]),
        ]
        maps.append(f"map{index}")
    out = width if group > 1 else 4
    tensors += [
        numpy_helper.from_array(weights(out, width // (width if group > 1 else 1), 3, 3), "fuse.weight"),
        numpy_helper.from_array(weights(out, 1)[:, 0], "fuse.bias"),
        numpy_helper.from_array(weights(4, out, 1, 1), "last.weight"),
    ]
    nodes += [
        helper.make_node("Concat", maps, ["joined"], axis=1),
        helper.make_node(
            "Conv", ["joined", "fuse.weight", "fuse.bias"], ["fused"], name="fuse", pads=[1] * 4, strides=[2, 2],
            group=width if group > 1 else 1,
        ),
        helper.make_node("Relu", ["fused"], ["active"]),
        helper.make_node("Conv", ["active", "last.weight"], ["logits"], name="last"),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    outputs = [value("logits", TensorProto.FLOAT, [1, 4, SIDE // 2, SIDE // 2])]
    if read_twice:
        outputs.append(value("joined", TensorProto.FLOAT, [1, width, SIDE, SIDE]))
    graph = helper.make_graph(
        nodes, "joining", [value("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])], outputs, tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_the_sum_is_what_the_convolution_was(parts: int) -> None:
    model, image = joining(parts), RNG.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    (before,) = ReferenceEvaluator(model).run(None, {"image": image})
    macs = sum(layer.macs for layer in layers_of(model))
    assert split_convolutions(model) == {"fuse": [f"fuse.part{index}" for index in range(parts)]}
    onnx.checker.check_model(model, full_check=True)
    assert "Concat" not in kinds(model) and kinds(model).count("Add") == parts - 1
    assert "fuse.weight" not in {tensor.name for tensor in model.graph.initializer}
    (after,) = ReferenceEvaluator(model).run(None, {"image": image})
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    layers = layers_of(model)
    assert sum(layer.macs for layer in layers) == macs
    assert {layer.module.split(".")[0] for layer in layers} >= {"first0", "fuse", "last"}


def test_a_concatenation_that_something_else_reads_stays_beside_it() -> None:
    model = joining(read_twice=True)
    split_convolutions(model)
    onnx.checker.check_model(model, full_check=True)
    assert "Concat" in kinds(model) and kinds(model).count("Conv") == 5


def test_a_grouped_convolution_is_named_and_left() -> None:
    model = joining(group=2)
    text = model.SerializeToString()
    assert split_convolutions(model) == {"fuse": []}
    assert model.SerializeToString() == text


@pytest.mark.parametrize("group", [1, 2], ids=["split", "grouped"])
def test_int8_is_the_same_on_openvino_and_onnx_runtime(tmp_path: Path, group: int) -> None:
    classes = tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate("abcd"))
    card = Card(
        network="Joining", task=Task(classes=classes, preprocessing=Preprocessing(height=SIDE, width=SIDE)),
        parameters=1, macs=1,
    )  # fmt: skip
    write_onnx(joining(3, group), card, tmp_path / "fp32.onnx")
    pixels = RNG.integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    quantise_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", card, list(pixels))
    feed, answers = {"image": card.task.preprocessing.apply(pixels[0])}, {}
    for name, runtime in (("fp32", "onnxruntime"), ("int8", "onnxruntime"), ("int8", "openvino")):
        with open_session(tmp_path / f"{name}.onnx", runtime) as session:
            answers[name, runtime] = session.run(feed)["logits"]
    exact, here, there = answers.values()
    assert np.abs(here - exact).mean() < 0.05 * np.abs(exact).mean()
    assert np.abs(there - here).mean() < 0.01 * np.abs(here).mean()
    if group == 1:
        assert int8_share(layers_of(onnx.load(tmp_path / "int8.onnx"))) == 1


def test_what_is_left_out_stays_out_in_all_its_parts(tmp_path: Path) -> None:
    classes = tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate("abcd"))
    task = Task(classes=classes, preprocessing=Preprocessing(height=SIDE, width=SIDE))
    card = Card(network="Joining", task=task, parameters=1, macs=1)
    write_onnx(joining(2), card, tmp_path / "fp32.onnx")
    pixels = RNG.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    quantise_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", card, list(pixels), leave=["fuse"])
    found = {layer.name: layer.int8 for layer in layers_of(onnx.load(tmp_path / "int8.onnx"))}
    assert {name: int8 for name, int8 in found.items() if name.startswith("fuse")} == {
        "fuse.part0": False, "fuse.part1": False,
    }  # fmt: skip
    assert found["last"]
