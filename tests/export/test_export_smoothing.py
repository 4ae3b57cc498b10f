"""Smoothing for quantisers that are not there: taken back exactly, and left where it is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edpct.bench.requests import card_of
from edpct.export.int8 import SMOOTHING, quantise_int8, unsmooth
from edpct.export.layers import groups_of, layers_of
from edpct.runtimes.table import open_session

RNG = np.random.default_rng(0)
SCALE = np.array([[0.5, 2.0, 4.0]], np.float32)
WEIGHT = RNG.standard_normal((3, 5)).astype(np.float32)
IMAGE = RNG.standard_normal((7, 3)).astype(np.float32)


def smoothed(kind: str, readers: int = 1, quantised: bool = False) -> onnx.ModelProto:
    """A product of weights that were divided by the scale with an input that is multiplied by it: image @ WEIGHT."""
    divided = WEIGHT / SCALE.T
    tensors = [
        numpy_helper.from_array(SCALE, "scale"),
        numpy_helper.from_array(divided.T.copy() if kind == "Gemm, transB" else divided, "weight"),
        numpy_helper.from_array(np.float32(0.05), "step"), numpy_helper.from_array(np.int8(0), "zero"),
    ]  # fmt: skip
    nodes = [helper.make_node("Mul", ["image", "scale"], ["scaled"], name=f"a{SMOOTHING}")]
    fed = "scaled"
    if quantised:
        nodes += [
            helper.make_node("QuantizeLinear", ["scaled", "step", "zero"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["rounded"]),
        ]
        fed = "rounded"
    attributes = {"transB": 1} if kind == "Gemm, transB" else {}
    for index in range(readers):
        nodes.append(helper.make_node(kind.split(",")[0], [fed, "weight"], [f"out{index}"], **attributes))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "smoothed", [value("image", TensorProto.FLOAT, [7, 3])],
        [value(f"out{index}", TensorProto.FLOAT, [7, 5]) for index in range(readers)], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm, transB"])
def test_the_product_is_as_before_the_smoothing(kind: str) -> None:
    model = smoothed(kind)
    unsmooth(model)
    assert [node.op_type for node in model.graph.node] == [kind.split(",")[0]]
    (found,) = ReferenceEvaluator(model).run(None, {"image": IMAGE})
    np.testing.assert_allclose(found, IMAGE @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_weights_that_two_products_share_are_left_alone() -> None:
    model = smoothed("MatMul", readers=2)
    before = model.SerializeToString()
    unsmooth(model)
    assert model.SerializeToString() == before


def test_smoothing_for_quantisers_stays() -> None:
    model = smoothed("MatMul", quantised=True)
    before = model.SerializeToString()
    unsmooth(model)
    assert model.SerializeToString() == before


def test_a_transformer_left_out_computes_the_same_on_openvino(compressed_run: Path, tmp_path: Path) -> None:
    """Smoothed products without quantisers come out wrong there."""
    pytest.importorskip("openvino")
    source, target = compressed_run / "student.onnx", tmp_path / "part.onnx"
    card = card_of(source)
    groups = groups_of(layers_of(onnx.load(source)))
    left_out = [layer.name for name, group in groups.items() if name != "classifier" for layer in group]
    image = RNG.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    quantise_int8(source, target, card, [image], leave=left_out)
    assert not [node.name for node in onnx.load(target).graph.node if node.name.endswith(SMOOTHING)]
    feed, answers = {"image": card.task.preprocessing.apply(image)}, []
    for path in (source, target):
        with open_session(path, "openvino") as session:
            answers.append(session.run(feed)["logits"])
    assert np.abs(answers[1] - answers[0]).max() < 0.05 * np.ptp(answers[0])
