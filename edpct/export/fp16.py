"""FP16 as a typed ONNX graph: weights and most operators in half precision, casts where they meet the rest.

TensorRT 11 takes precision from the graph alone; TensorRT 10 does so in its strongly typed mode.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx

from edpct.card import Card
from edpct.errors import QuantisationError
from edpct.export.onnx_export import write_onnx

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


def convert_fp16(source: Path, target: Path, card: Card) -> None:
    """Write the FP16 version of an FP32 ONNX file; inputs and outputs stay float32.

    Raises:
        QuantisationError: a weight is beyond the range of half precision.
    """
    # ONNX Runtime ships the converter of onnxconverter-common, mended.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    graph = onnx.load(source)
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.size and abs(values).max() > 65504:
            raise QuantisationError(f"The weight '{tensor.name}' of {source.name} is beyond the range of FP16.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiny constants become the smallest half: the converter says so for each
        half = convert_float_to_float16(graph, keep_io_types=True, op_block_list=list(KEEP_FP32))
    _drop_repeated_casts(half)
    OnnxModel(half).topological_sort()  # the converter appends the casts of the inputs at the end
    write_onnx(half, card.model_copy(update={"precision": "fp16"}), target)


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
