"""FP16 and INT8 graphs: the types they store, and that they still compute what the FP32 graph computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.data.sampling import sample_windows
from edpct.data.scenes import SCENE_TASK
from edpct.errors import QuantisationError
from edpct.export.fp16 import convert_fp16, overflowing
from edpct.export.int8 import quantise_int8
from edpct.export.layers import int8_share, layers_of
from edpct.runtimes.artefact import read_card

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
QDQ = ("QuantizeLinear", "DequantizeLinear")


def feed(image: np.ndarray) -> np.ndarray:
    return ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)


def logits(path: Path, images: list[np.ndarray]) -> np.ndarray:
    """On ONNX Runtime itself: (N, C, H, W)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"image": feed(image)})[0] for image in images])


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.fixture(scope="module")
def windows(scenes: Path) -> list[np.ndarray]:
    dataset = open_dataset(scenes)
    return [*sample_windows(dataset, "val", 2, 128, 128, 0), *sample_windows(dataset, "train", 3, 128, 128, 0)]


@pytest.fixture(scope="module")
def fp32(compressed_run: Path, windows: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher's graph, its classes balanced: untrained it says one class everywhere, which any graph agrees to."""
    path = tmp_path_factory.mktemp("precision") / "fp32.onnx"
    model = onnx.load(compressed_run / "teacher.onnx")
    (bias,) = [t for t in model.graph.initializer if t.name == "classifier.bias"]
    mean = logits(compressed_run / "teacher.onnx", windows).mean(axis=(0, 2, 3))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - mean, bias.name))
    onnx.save(model, path)
    classes = np.bincount(logits(path, windows).argmax(1).ravel(), minlength=7)
    assert (classes > 0.02 * classes.sum()).sum() >= 4
    return path


@pytest.fixture(scope="module")
def card(compressed_run: Path) -> Card:
    found = read_card(compressed_run / "teacher.onnx")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fp16(fp32: Path, card: Card) -> Path:
    path = fp32.with_name("fp16.onnx")
    convert_fp16(fp32, path, card)
    return path


@pytest.fixture(scope="module")
def int8(fp32: Path, card: Card, windows: list[np.ndarray]) -> Path:
    path = fp32.with_name("int8.onnx")
    quantise_int8(fp32, path, card, windows[2:])
    return path


# ---- FP16


def types_of(path: Path) -> dict[str, int]:
    """Element type of every tensor in a graph, as shape inference finds it."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    graph = model.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def test_fp16_stores_weights_in_half_precision(fp16: Path, fp32: Path) -> None:
    types = types_of(fp16)
    weights = [n.input[1] for n in onnx.load(fp16).graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(weights) > 30
    assert {types[name] for name in weights} == {TensorProto.FLOAT16}
    assert fp16.stat().st_size < 0.6 * fp32.stat().st_size


def test_fp16_keeps_what_overflows_in_single_precision(fp16: Path) -> None:
    types = types_of(fp16)
    seen = set()
    for node in onnx.load(fp16).graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "ReduceMean"):
            seen.add(node.op_type)
            assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT, node.name
    assert seen == {"Softmax", "LayerNormalization", "ReduceMean"}


def test_fp16_takes_and_gives_float32(fp16: Path) -> None:
    graph = onnx.load(fp16).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert types == {"image": TensorProto.FLOAT, "logits": TensorProto.FLOAT}


def test_fp16_computes_nearly_the_same(fp16: Path, fp32: Path, windows: list[np.ndarray]) -> None:
    expected, found = logits(fp32, windows), logits(fp16, windows)
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98


def test_fp16_says_what_it_is(fp16: Path, card: Card) -> None:
    onnx.checker.check_model(str(fp16))
    assert read_card(fp16) == card.model_copy(update={"precision": "fp16"})


@pytest.mark.parametrize("value", [65505.0, -70000.0])
def test_fp16_refuses_a_weight_beyond_its_range(fp32: Path, card: Card, tmp_path: Path, value: float) -> None:
    model = onnx.load(fp32)
    (tensor,) = [t for t in model.graph.initializer if t.name == "classifier.weight"]
    weight = numpy_helper.to_array(tensor).copy()
    weight[0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(QuantisationError) as caught:
        convert_fp16(tmp_path / "large.onnx", tmp_path / "half.onnx", card)
    assert caught.value.what == "The weight 'classifier.weight' of large.onnx is beyond the range of FP16."
    assert not (tmp_path / "half.onnx").exists()


def test_fp16_of_a_constant_that_two_single_precision_operators_share(tmp_path: Path) -> None:
    """As in the graph that torch exports, before onnxsim: one cast back to float32, not one for each reader."""
    helper, value, shape = onnx.helper, onnx.helper.make_tensor_value_info, [1, 3, 128, 128]
    scales = numpy_helper.from_array(np.array([1, 1, 1, 1], np.float32), "scales")
    nodes = [
        helper.make_node("Constant", [], ["shared"], value=scales, name="the_constant"),
        helper.make_node("Resize", ["image", "", "shared"], ["a"], mode="linear", name="first"),
        helper.make_node("Resize", ["a", "", "shared"], ["logits"], mode="linear", name="second"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("image", TensorProto.FLOAT, shape)], [value("logits", TensorProto.FLOAT, shape)]
    )
    source, target = tmp_path / "fp32.onnx", tmp_path / "fp16.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), source)
    convert_fp16(source, target, Card(network="Toy", task=SCENE_TASK.at_size(128, 128), parameters=128, macs=0))
    image = [np.arange(128 * 128 * 3, dtype=np.uint8).reshape(128, 128, 3)]
    assert np.abs(logits(target, image) - logits(source, image)).max() < 1e-2


# ---- INT8


def test_int8_is_symmetric_and_signed(int8: Path) -> None:
    """TensorRT takes zero points of int8 zero only; a uint8 one it reads as int8, and clips at half the range."""
    graph = onnx.load(int8).graph
    values = constants(graph)
    nodes = [node for node in graph.node if node.op_type in QDQ]
    assert len(nodes) > 50
    wrong = [
        f"{node.op_type} of {node.input[0]}: {values[node.input[2]].dtype} {values[node.input[2]].ravel()[0]}"
        for node in nodes
        if values[node.input[2]].dtype != np.int8 or values[node.input[2]].any()
    ]
    assert wrong == []


def test_int8_weights_have_a_scale_per_output_channel(int8: Path) -> None:
    graph = onnx.load(int8).graph
    values = constants(graph)
    made_by = {output: node for node in graph.node for output in node.output}
    quantised = 0
    for node in (node for node in graph.node if node.op_type == "Conv"):
        producer = made_by.get(node.input[1])
        if producer is None:
            continue  # see the next test
        quantised += 1
        assert producer.op_type == "DequantizeLinear", node.name
        weight, scale = values[producer.input[0]], values[producer.input[1]]
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0],)
        assert [a.i for a in producer.attribute if a.name == "axis"] == [0]
        assert np.abs(weight.astype(int)).max() <= 127
    assert quantised > 20


def test_int8_leaves_only_the_channel_gates_in_floating_point(int8: Path) -> None:
    """NNCF keeps gates of the squeeze-and-excite kind; they work on maps of one pixel and cost nothing."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(int8)).graph
    shapes = {v.name: [a.dim_value for a in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    values = constants(inferred)
    left = [n for n in inferred.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in values]
    assert left
    assert [node.name for node in left if shapes[node.output[0]][2:] != [1, 1]] == []


def test_int8_has_no_integer_bias(int8: Path) -> None:
    """What TensorRT refuses in ONNX Runtime's own quantised graphs."""
    graph = onnx.load(int8).graph
    assert {t.data_type for t in graph.initializer} & {TensorProto.INT32, TensorProto.UINT32} == set()
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    biases = [n.input[2] for n in graph.node if n.op_type in ("Conv", "Gemm") and len(n.input) == 3]
    assert biases
    assert [name for name in biases if made_by.get(name) == "DequantizeLinear"] == []


def test_int8_sees_mostly_what_fp32_sees(int8: Path, fp32: Path, windows: list[np.ndarray]) -> None:
    expected, found = logits(fp32, windows), logits(int8, windows)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
    assert not np.array_equal(found, expected)


def test_int8_says_what_it_is_and_is_smaller(int8: Path, fp32: Path, card: Card) -> None:
    onnx.checker.check_model(str(int8))
    assert read_card(int8) == card.model_copy(update={"precision": "int8"})
    assert int8.stat().st_size < 0.45 * fp32.stat().st_size


def test_nearly_all_of_the_arithmetic_is_int8(int8: Path, fp32: Path) -> None:
    assert int8_share(layers_of(onnx.load(fp32))) == 0.0
    assert 0.9 < int8_share(layers_of(onnx.load(int8))) <= 1.0


def test_int8_without_images_is_refused(fp32: Path, card: Card, tmp_path: Path) -> None:
    with pytest.raises(QuantisationError) as caught:
        quantise_int8(fp32, tmp_path / "int8.onnx", card, [])
    assert caught.value.what == "INT8 calibration needs at least one image."
    assert caught.value.hint == "Give training images with --data."
    assert list(tmp_path.iterdir()) == []


def test_calibration_looks_at_the_images_it_is_given(fp32: Path, card: Card, int8: Path, tmp_path: Path) -> None:
    """Ranges come from the images: black ones alone give another scale for the input."""
    black = [np.zeros((128, 128, 3), np.uint8)]
    quantise_int8(fp32, tmp_path / "black.onnx", card, black)

    def input_scale(path: Path) -> float:
        graph = onnx.load(path).graph
        (node,) = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "image"][:1]
        return float(constants(graph)[node.input[1]].ravel()[0])

    darkest = float(np.max(MEAN / STD))  # |normalised black|, the largest there is
    assert input_scale(tmp_path / "black.onnx") == pytest.approx(darkest / 127, rel=0.02)
    assert input_scale(int8) > 1.05 * input_scale(tmp_path / "black.onnx")


def test_fp16_leaves_what_would_overflow_in_fp32(card: Card, tmp_path: Path) -> None:
    """Activations of 1e5 between two convolutions: infinite in half precision, and nothing is left of the answer."""
    side, classes = card.task.preprocessing.height, card.task.num_classes
    value, tensor = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Conv", ["image", "up"], ["huge"], name="up"),
        onnx.helper.make_node("Abs", ["huge"], ["positive"], name="abs"),
        onnx.helper.make_node("Conv", ["positive", "down"], ["small"], name="down"),
        onnx.helper.make_node("Conv", ["small", "last"], ["logits"], name="last"),
    ]
    weights = {
        "up": 3e4 * rng.uniform(1, 2, (4, 3, 1, 1)), "down": 1e-4 * rng.normal(size=(8, 4, 1, 1)),
        "last": rng.normal(size=(classes, 8, 1, 1)),
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "huge", [value("image", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [value("logits", onnx.TensorProto.FLOAT, [1, classes, side, side])],
        [tensor(weight.astype(np.float32), name) for name, weight in weights.items()],
    )  # fmt: skip
    source, blind, seeing = (tmp_path / f"{name}.onnx" for name in ("source", "blind", "seeing"))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), source)
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    assert overflowing(onnx.load(source), [card.task.preprocessing.apply(image)]) == {"up", "abs", "down"}
    convert_fp16(source, blind, card)
    convert_fp16(source, seeing, card, [image])
    feed = {"image": card.task.preprocessing.apply(image)}
    # ONNX's reference computes in half what is half; ONNX Runtime's CPU provider would go through FP32.
    expected, wrong, right = (ReferenceEvaluator(str(path)).run(None, feed)[0] for path in (source, blind, seeing))
    assert not np.isfinite(wrong).all()
    assert np.abs(right - expected).max() < 0.01 * np.ptp(expected)
