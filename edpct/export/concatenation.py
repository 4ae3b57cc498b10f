"""Convolutions of a concatenation as a sum of convolutions of its parts: W * [a, b] = Wa * a + Wb * b.

In INT8, OpenVINO 2026.4 computes a convolution right behind a concatenation of signed codes wrongly (off by a sixth of
the output's size and more, where ONNX Runtime is not). Split up there is no concatenation: nothing is copied together,
and each part keeps a step of its own instead of the coarsest.
"""

from __future__ import annotations

import numpy as np
import onnx

AXIS_OF_CHANNELS = 1
PART = ".part"


def split_convolutions(graph: onnx.ModelProto) -> dict[str, list[str]]:
    """Split every ungrouped convolution that reads a concatenation of channels, in place.

    Returns:
        The names of its parts by the name of each convolution that was split; those of grouped ones, which cannot be,
        with an empty list.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    made_by = {name: node for node in graph.graph.node for name in node.output}
    channels = _channels(graph)
    nodes: list[onnx.NodeProto] = []
    done: dict[str, list[str]] = {}
    for node in graph.graph.node:
        joined = made_by.get(node.input[0]) if node.op_type == "Conv" else None
        if joined is None or not _joins_channels(joined) or node.input[1] not in tensors:
            nodes.append(node)
        elif _groups(node) > 1 or not all(channels.get(name) for name in joined.input):
            nodes.append(node)
            done[node.name] = []
        else:
            widths = [channels[name] for name in joined.input]
            made = _split(node, list(joined.input), widths, onnx.numpy_helper.to_array(tensors[node.input[1]]), graph)
            nodes += made
            done[node.name] = [part.name for part in made if part.op_type == "Conv"]
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.graph.output}
    kept = [node for node in nodes if any(name in read for name in node.output)]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in read]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(constants)
    return done


def _split(
    node: onnx.NodeProto, sources: list[str], widths: list[int], weight: np.ndarray, graph: onnx.ModelProto
) -> list[onnx.NodeProto]:
    """The convolutions of the parts, the first with the bias, and the additions of what they give."""
    stem, _, kind = node.input[1].rpartition(".")  # "fuse.weight" becomes "fuse.part0.weight": still of "fuse"
    made: list[onnx.NodeProto] = []
    sums = ""
    begins = np.cumsum([0, *widths])
    for place, source in enumerate(sources):
        name = f"{stem or node.name}{PART}{place}.{kind}"
        values = np.ascontiguousarray(weight[:, begins[place] : begins[place + 1]])
        graph.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        part = onnx.NodeProto()
        part.CopyFrom(node)
        part.name = f"{node.name}{PART}{place}"
        del part.input[:]
        part.input.extend([source, name, *(node.input[2:] if place == 0 else [])])
        part.output[0] = f"{node.output[0]}{PART}{place}"
        made.append(part)
        if place:
            last = place == len(sources) - 1
            total = node.output[0] if last else f"{node.output[0]}.sum{place}"
            added = [sums, part.output[0]]
            made.append(onnx.helper.make_node("Add", added, [total], name=f"{node.name}.sum{place}"))
        sums = made[-1].output[0]
    return made


def _joins_channels(node: onnx.NodeProto) -> bool:
    axes = [entry.i for entry in node.attribute if entry.name == "axis"]
    return node.op_type == "Concat" and axes == [AXIS_OF_CHANNELS] and len(node.input) > 1


def _groups(node: onnx.NodeProto) -> int:
    return next((entry.i for entry in node.attribute if entry.name == "group"), 1)


def _channels(graph: onnx.ModelProto) -> dict[str, int]:
    """The length of axis 1 of every tensor; 0 where it is open."""
    inner = onnx.shape_inference.infer_shapes(graph).graph
    found = {}
    for value in (*inner.input, *inner.value_info):
        dims = value.type.tensor_type.shape.dim
        found[value.name] = dims[AXIS_OF_CHANNELS].dim_value if len(dims) > AXIS_OF_CHANNELS else 0
    return found
