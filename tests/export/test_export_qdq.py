"""Q/DQ graphs mended: smoothing without quantisers is taken back, and quantised weights get quantised inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edpct.export.int8 import quantise_int8
from edpct.export.layers import groups_of, layers_of
from edpct.export.qdq import SMOOTHING, feed_products, unsmooth
from edpct.runtimes.artefact import card_of
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
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


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


# ---- quantisers in front of products


def joined(*between: tuple[str, dict[str, object]], quantised: bool = True) -> onnx.ModelProto:
    """Two quantised maps (1, 2, 4, 4), of steps .1 and .2, joined and passed on to a convolution of INT8 weights."""
    tensors = [
        numpy_helper.from_array(np.float32(0.1), "a_step"), numpy_helper.from_array(np.float32(0.2), "b_step"),
        numpy_helper.from_array(np.int8(0), "zero"), numpy_helper.from_array(np.float32(0.01), "w_step"),
        numpy_helper.from_array(RNG.integers(-99, 99, (3, 4, 1, 1), dtype=np.int8), "w_codes"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
    ]  # fmt: skip
    nodes = []
    for name in "ab" if quantised else "":
        nodes += [
            helper.make_node("QuantizeLinear", [name, f"{name}_step", "zero"], [f"{name}_codes"]),
            helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_step", "zero"], [f"{name}_values"]),
        ]
    last = "joined"
    nodes.append(helper.make_node("Concat", ["a_values", "b_values"] if quantised else ["a", "b"], [last], axis=1))
    for place, (kind, attributes) in enumerate(between):
        inputs = [last, "", "twice"] if kind == "Resize" else [last]
        last = f"between{place}"
        nodes.append(helper.make_node(kind, inputs, [last], **attributes))
    nodes.append(helper.make_node("DequantizeLinear", ["w_codes", "w_step", "zero"], ["w"]))
    nodes.append(helper.make_node("Conv", [last, "w"], ["out"], name="the_conv"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "joined", [value(name, TensorProto.FLOAT, [1, 2, 4, 4]) for name in "ab"],
        [value("out", TensorProto.FLOAT, [None] * 4)], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


MAPS = {name: RNG.uniform(-9, 9, (1, 2, 4, 4)).astype(np.float32) for name in "ab"}
POOL = ("MaxPool", {"kernel_shape": [2, 2]})
UP = ("Resize", {"mode": "linear", "coordinate_transformation_mode": "half_pixel"})


@pytest.mark.parametrize("between", [(), (POOL,), (UP,)], ids=["concat", "pool", "resize"])
def test_a_joined_map_is_quantised_again_by_the_coarsest_step(
    between: tuple[tuple[str, dict[str, object]], ...],
) -> None:
    model = joined(*between)
    (before,) = ReferenceEvaluator(model).run(None, MAPS)
    feed_products(model)
    onnx.checker.check_model(model)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    (dequantise,) = [node for node in model.graph.node if node.output[0] == conv.input[0]]
    assert dequantise.op_type == "DequantizeLinear"
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert float(values[dequantise.input[1]]) == pytest.approx(0.2)
    (after,) = ReferenceEvaluator(model).run(None, MAPS)
    weights = np.abs(values["w_codes"] * 0.01).sum((1, 2, 3)).max()
    assert 0 < np.abs(after - before).max() <= 0.1 * weights * 1.01  # half a step on each input, at most
    text = model.SerializeToString()
    feed_products(model)
    assert model.SerializeToString() == text, "once is enough"


def test_what_is_not_quantised_stays_as_it_is() -> None:
    for model in (joined(quantised=False), joined(("Resize", {"mode": "cubic"})), joined(("Sigmoid", {}))):
        text = model.SerializeToString()
        feed_products(model)
        assert model.SerializeToString() == text
