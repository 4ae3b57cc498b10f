"""FP16 as a typed ONNX graph: weights and most operators in half precision, casts where they meet the rest.

TensorRT 11 takes precision from the graph alone; TensorRT 10 does so in its strongly typed mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edpct.card import Card
from edpct.errors import QuantisationError
from edpct.export.graph import read_graph
from edpct.export.onnx_export import write_onnx

LARGEST = 65504  # that half precision holds
# What overflows or loses its small terms in half precision stays in FP32: normalisation (sums of squares), softmax
# (exponentials), means over whole maps.
KEEP_FP32 = (
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Softmax",
    "ReduceMean",
    "Resize",
)


def convert_fp16(source: Path, target: Path, card: Card, images: Sequence[NDArray[np.uint8]] = ()) -> None:
    """Write the FP16 version of an FP32 ONNX file; inputs and outputs stay float32.

    Args:
        images: (H, W, 3), uint8, at the card's input size; operators whose activations come near the range of half
            precision on them stay in FP32 too.

    Raises:
        QuantisationError: a weight is beyond the range of half precision.
    """
    # ONNX Runtime ships the converter of onnxconverter-common, mended.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    graph = read_graph(source)
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.size and abs(values).max() > LARGEST:
            raise QuantisationError(f"The weight '{tensor.name}' of {source.name} is beyond the range of FP16.")
    wide = overflowing(graph, [card.task.preprocessing.apply(image) for image in images])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiny constants become the smallest half: the converter says so for each
        half = convert_float_to_float16(
            graph, keep_io_types=True, op_block_list=list(KEEP_FP32), node_block_list=sorted(wide)
        )
    _drop_repeated_casts(half)
    _drop_round_trips(half)
    OnnxModel(half).topological_sort()  # the converter appends the casts of the inputs at the end
    write_onnx(half, card.model_copy(update={"precision": "fp16"}), target)


def overflowing(graph: onnx.ModelProto, feeds: Sequence[NDArray[np.float32]]) -> set[str]:
    """Names of the nodes that write, or read, activations beyond half of what FP16 holds.

    Args:
        feeds: normalised images (1, 3, H, W).
    """
    if not feeds:
        return set()
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    known = {output.name for output in graph.graph.output}
    names = [name for node in graph.graph.node for name in node.output if name and name not in known]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    large: set[str] = set()
    for feed in feeds:
        found = session.run(None, {session.get_inputs()[0].name: feed})
        for output, values in zip(session.get_outputs(), found, strict=True):
            if values.dtype == np.float32 and values.size and np.abs(values).max() > LARGEST / 2:
                large.add(output.name)
    return {node.name for node in graph.graph.node if large.intersection((*node.input, *node.output))}


def _drop_repeated_casts(graph: onnx.ModelProto) -> None:
    """Keep one Cast per output name: the converter adds one for every reader of a constant that stays in FP32."""
    seen: set[str] = set()
    kept = []
    for node in graph.graph.node:
        if node.op_type == "Cast" and node.output[0] in seen:
            continue
        seen.update(node.output)
        kept.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(kept)


def _drop_round_trips(graph: onnx.ModelProto) -> None:
    """Where one operator in FP32 feeds another, take out the two casts that the converter puts between them.

    By way of half precision, what the first one was kept in FP32 for would be lost: out of range is infinite.
    """
    casts = {node.output[0]: node for node in graph.graph.node if node.op_type == "Cast"}
    instead: dict[str, str] = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before is not None and _to(node) == onnx.TensorProto.FLOAT and _to(before) == onnx.TensorProto.FLOAT16:
            instead[name] = before.input[0]
    outputs = {output.name for output in graph.graph.output}
    for node in graph.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    read = {name for node in graph.graph.node for name in node.input} | outputs
    while unread := [n for n in graph.graph.node if n.op_type == "Cast" and n.output[0] not in read]:
        for node in unread:
            graph.graph.node.remove(node)
        read = {name for node in graph.graph.node for name in node.input} | outputs


def _to(cast: onnx.NodeProto) -> int:
    return next(attribute.i for attribute in cast.attribute if attribute.name == "to")
