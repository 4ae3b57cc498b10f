"""Normalisation and argmax as part of the graph: decoded images in, maps of classes out.

On a small board the host's normalisation and argmax cost as much as the network, and logits are C x 4 times as many
bytes to copy as classes. Works on any graph of ours, FP32, FP16 or INT8, after quantisation, so that what was
calibrated stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edpct.card import Card
from edpct.errors import ExportError
from edpct.export.graph import read_graph
from edpct.export.onnx_export import write_onnx
from edpct.recipe import ArgmaxAt, FuseSettings
from edpct.task import Preprocessing

PREFIX = "edpct_"  # of the names of what is added
CLASSES = "classes"
MOST_COMPARED = 32  # classes; above, ArgMax
HALF = 2  # stride of the classes that are taken at "half"
FUSE_PLAIN = "Fuse the graph as it was exported."
ARGMAX_FULL = "Take the argmax at full size: --fuse-argmax full"


def fuse(source: Path, target: Path, card: Card, settings: FuseSettings) -> None:
    """Write an ONNX file with the normalisation, the argmax or both inside.

    The input ``image`` becomes uint8 (B, H, W, 3), RGB; the output becomes ``classes``, uint8 (B, H, W).

    Raises:
        ExportError: the file cannot be read, the graph is fused already, or has not the upsampling that
            ``settings.argmax`` needs.
    """
    graph = read_graph(source)
    if settings.preprocess:
        take_pixels(graph, card.task.preprocessing)
    if settings.argmax != "off":
        give_classes(graph, settings.argmax)
    read = {name for node in graph.graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.graph.initializer if tensor.name not in read]:
        graph.graph.initializer.remove(tensor)  # the sizes of an upsampling that was taken out
    write_onnx(graph, card, target)


def take_pixels(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Put ``(x / 255 - mean) / std`` and the transpose before the graph, in place; the input becomes uint8, NHWC.

    Raises:
        ExportError: the input is uint8 already.
    """
    image = model.graph.input[0]
    if image.type.tensor_type.elem_type == TensorProto.UINT8:
        raise ExportError("The graph normalises its image already.", FUSE_PLAIN)
    batch, _, height, width = image.type.tensor_type.shape.dim
    _require_size(height.dim_value, width.dim_value)
    inner = f"{PREFIX}normalised"
    for node in model.graph.node:
        node.input[:] = [inner if read == image.name else read for read in node.input]
    scale, shift = preprocessing.affine()
    pixels = _Chain(model, image.name, "pixels")
    pixels.add("Cast", to=TensorProto.FLOAT)
    pixels.add("Transpose", perm=[0, 3, 1, 2])
    pixels.add("Mul", scale.reshape(1, 3, 1, 1))
    pixels.add("Sub", shift.reshape(1, 3, 1, 1))
    for place, node in enumerate(pixels.ending_as(inner)):
        model.graph.node.insert(place, node)
    dims = [batch.dim_param or batch.dim_value, height.dim_value, width.dim_value, 3]
    image.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.UINT8, dims))


def _require_size(height: int, width: int) -> None:
    if not height or not width:
        raise ExportError(
            "Height and width of this graph are open, and normalisation and argmax are fused at one size.",
            "Export it at one size.",
        )


def give_classes(model: onnx.ModelProto, at: ArgmaxAt) -> None:
    """Put the argmax behind the graph, in place; the output becomes ``classes``, uint8 (B, H, W).

    Args:
        at: ``full``: of the logits at full size; ``half``: of logits that are upsampled to half of it; ``head``: of the
            head's own logits. The classes are then brought to full size by the nearest.

    Raises:
        ExportError: the output is uint8 already, or ``at`` needs an upsampling at the graph's end and there is none
            that multiplies height and width by one whole number.
    """
    output = model.graph.output[0]
    if output.type.tensor_type.elem_type == TensorProto.UINT8:
        raise ExportError("The graph gives classes already.", FUSE_PLAIN)
    batch, _, *sides = output.type.tensor_type.shape.dim
    height, width = (side.dim_value for side in sides)
    _require_size(height, width)
    logits, factor = (output.name, 1) if at == "full" else _smaller_logits(model, at)
    number = output.type.tensor_type.shape.dim[1].dim_value
    compared = 1 < number <= MOST_COMPARED
    classes = _Chain(model, _largest(model, logits, number) if compared else logits, "classes")
    if not compared:
        classes.add("ArgMax", axis=1, keepdims=1)
        classes.add("Cast", to=TensorProto.FLOAT)  # by way of float: TensorRT casts nothing else to uint8
    if factor > 1:
        classes.add("Reshape", np.array([-1, height // factor, 1, width // factor, 1], np.int64))
        classes.add("Expand", np.array([1, 1, factor, 1, factor], np.int64))
    classes.add("Reshape", np.array([-1, height, width], np.int64))
    classes.add("Cast", to=TensorProto.UINT8)
    model.graph.node.extend(classes.ending_as(CLASSES))
    dims = [batch.dim_param or batch.dim_value, height, width]
    output.CopyFrom(helper.make_tensor_value_info(CLASSES, TensorProto.UINT8, dims))


def _largest(model: onnx.ModelProto, logits: str, number: int) -> str:
    """Nodes that compare the planes of the logits one by one; name of the largest one's index, float (B, 1, H, W).

    The same answer as ArgMax, the lower class where two are equal, and quicker on OpenVINO, which sorts for ArgMax.
    """
    name = f"{PREFIX}plane"
    ones = numpy_helper.from_array(np.ones(number, np.int64), f"{name}_sizes")
    model.graph.initializer.append(ones)
    planes = [f"{name}_{index}" for index in range(number)]
    model.graph.node.append(helper.make_node("Split", [logits, ones.name], planes, name=f"{name}_split", axis=1))
    best, found = planes[0], f"{name}_index_0"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), found))
    for index, plane in enumerate(planes[1:], 1):
        own, higher, chosen, top = (f"{name}_{part}_{index}" for part in ("own", "higher", "index", "top"))
        model.graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), index, np.float32), own))
        model.graph.node.append(helper.make_node("Greater", [plane, best], [higher], name=higher))
        model.graph.node.append(helper.make_node("Where", [higher, own, found], [chosen], name=chosen))
        found = chosen
        if index < number - 1:
            model.graph.node.append(helper.make_node("Max", [best, plane], [top], name=top))
            best = top
    return found


def _smaller_logits(model: onnx.ModelProto, at: ArgmaxAt) -> tuple[str, int]:
    """Take the last upsampling out of the graph, or make it smaller: name of the logits, and how much is left to do."""
    resize, followers = _last_upsampling(model)
    small, large = _side_lengths(model, resize.input[0]), _side_lengths(model, model.graph.output[0].name)
    stride = large[0] // small[0] if small and large else 0
    if not small or (small[0] * stride, small[1] * stride) != large:
        raise ExportError("The last upsampling is not by one whole number both ways.", ARGMAX_FULL)
    for node in followers:
        model.graph.node.remove(node)
    if at == "half" and stride > HALF and stride % HALF == 0:
        scales = f"{PREFIX}scales"
        factors = np.array([1, 1, stride // HALF, stride // HALF], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(factors, scales))
        resize.input[:] = [resize.input[0], "", scales]
        resize.output[0] = f"{PREFIX}half"
        return resize.output[0], HALF
    logits = resize.input[0]
    model.graph.node.remove(resize)
    return logits, stride


def _last_upsampling(model: onnx.ModelProto) -> tuple[NodeProto, list[NodeProto]]:
    """The Resize that makes the graph's output, and the casts that follow it.

    Raises:
        ExportError: something else makes the output.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    node, followers = made_by.get(model.graph.output[0].name), list[NodeProto]()
    while node is not None and node.op_type in ("Cast", "Identity"):
        followers.append(node)
        node = made_by.get(node.input[0])
    if node is None or node.op_type != "Resize":
        raise ExportError("The graph does not end in an upsampling of its logits.", ARGMAX_FULL)
    return node, followers


def _side_lengths(model: onnx.ModelProto, name: str) -> tuple[int, int] | None:
    """Height and width of a tensor (B, C, H, W); None where they are open."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    for value in (*graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name == name and len(dims) == 4 and dims[2].dim_value and dims[3].dim_value:
            return dims[2].dim_value, dims[3].dim_value
    return None


class _Chain:
    """Nodes one behind the other; the constants they need go into the model."""

    def __init__(self, model: onnx.ModelProto, source: str, label: str) -> None:
        self._model, self._last, self._label = model, source, label
        self._nodes: list[NodeProto] = []

    def add(self, operator: str, constant: NDArray[Any] | None = None, **attributes: Any) -> None:
        name = f"{PREFIX}{self._label}_{len(self._nodes)}"
        inputs = [self._last]
        if constant is not None:
            inputs.append(f"{name}_constant")
            self._model.graph.initializer.append(numpy_helper.from_array(constant, inputs[1]))
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self._last = name

    def ending_as(self, name: str) -> list[NodeProto]:
        self._nodes[-1].output[0] = name
        return self._nodes
