"""The layers of an ONNX graph that carry its arithmetic: whose module they are, what they cost, which are INT8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import onnx

from edpct.card import CARD_KEY, Card

MOVES = ("MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FEWEST_GROUPS = 8
DEEPEST = 4  # components of a module's name


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product.

    Attributes:
        name: of its node.
        module: of the network it came from, as far as its parameters' names tell; a product without parameters
            (attention) is counted to the module before it.
        macs: multiply-accumulates of one image; 0 where a shape is open.
        int8: whether it reads what a DequantizeLinear wrote.
    """

    name: str
    module: str
    macs: int
    int8: bool


def layers_of(graph: onnx.ModelProto) -> list[Layer]:
    """All layers, in the order of the graph."""
    shapes = _shapes(graph)
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    made_by = {name: node for node in graph.graph.node for name in node.output}
    found: list[Layer] = []
    module = ""
    for node in graph.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        module = _module(node, made_by, constants) or module
        found.append(Layer(node.name, module, _macs(node, shapes, constants), _is_int8(node, made_by)))
    return found


def groups_of(layers: Sequence[Layer]) -> dict[str, tuple[Layer, ...]]:
    """Layers by the beginning of their module's name, as long as it takes to have :data:`FEWEST_GROUPS` of them."""
    groups: dict[str, list[Layer]] = {}
    for depth in range(1, DEEPEST + 1):
        groups = {}
        for layer in layers:
            groups.setdefault(".".join(layer.module.split(".")[:depth]), []).append(layer)
        if len(groups) >= FEWEST_GROUPS:
            break
    return {name: tuple(members) for name, members in groups.items()}


def int8_share(layers: Iterable[Layer]) -> float:
    """Share (0..1) of the multiply-accumulates that are INT8."""
    layers = list(layers)
    total = sum(layer.macs for layer in layers)
    return sum(layer.macs for layer in layers if layer.int8) / total if total else 0.0


def _shapes(graph: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors; an open axis is 0, an open batch 1, an open size that of the card."""
    inner = onnx.shape_inference.infer_shapes(_at_one_size(graph)).graph
    found = {}
    for value in (*inner.input, *inner.value_info, *inner.output):
        dims = value.type.tensor_type.shape.dim
        found[value.name] = tuple(d.dim_value or (1 if place == 0 else 0) for place, d in enumerate(dims))
    return found


def _at_one_size(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph itself, or a copy at the card's size where height and width are open."""
    cards = [entry.value for entry in graph.metadata_props if entry.key == CARD_KEY]
    sides = graph.graph.input[0].type.tensor_type.shape.dim[2:4]
    if not cards or len(sides) < 2 or all(side.dim_value for side in sides):
        return graph
    size = Card.from_json(cards[0], "the graph").task.preprocessing
    closed = onnx.ModelProto()
    closed.CopyFrom(graph)
    for side, length in zip(
        closed.graph.input[0].type.tensor_type.shape.dim[2:4], (size.height, size.width), strict=True
    ):
        side.dim_value = length
    del closed.graph.value_info[:]  # they name the open axes
    for side in closed.graph.output[0].type.tensor_type.shape.dim[2:4]:
        side.Clear()
    return closed


def _module(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto], constants: dict[str, tuple[int, ...]]) -> str:
    """By its parameters: ``cnn8.0.weight`` and ``cnn8.0.bias`` are of ``cnn8.0``; empty where no name is of that kind.

    A weight may have passed a transpose or a DequantizeLinear; folded ones lost their names, their biases mostly not.
    """
    for name in node.input[1:]:
        while name not in constants and name in made_by and made_by[name].input:
            name = made_by[name].input[0]
        stem = name.removesuffix("_quantized").removesuffix("_bias")
        if name in constants and stem.endswith((".weight", ".bias")):
            return stem.rpartition(".")[0]
    return ""


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], constants: dict[str, tuple[int, ...]]) -> int:
    out = shapes.get(node.output[0], ())
    weight = constants.get(node.input[1]) or shapes.get(node.input[1], ())
    first = shapes.get(node.input[0], ())
    if not out or not weight or not first:
        return 0
    if node.op_type == "Conv":
        return prod(out) * prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(weight[1:])
    flipped = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    return prod(out) * (first[-2] if flipped else first[-1])


def _is_int8(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> bool:
    """Both factors come from a DequantizeLinear, by way of what only moves values."""
    return all(_holds_codes(name, made_by) for name in node.input[:2])


def _holds_codes(name: str, made_by: dict[str, onnx.NodeProto]) -> bool:
    while name in made_by and made_by[name].op_type in MOVES:
        name = made_by[name].input[0]
    if name not in made_by:
        return False
    if made_by[name].op_type == "Concat":
        return all(_holds_codes(part, made_by) for part in made_by[name].input)
    return made_by[name].op_type == "DequantizeLinear"
