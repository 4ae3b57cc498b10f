"""INT8 as explicit Q/DQ nodes, by NNCF: symmetric, weights per channel, calibrated on training images.

NNCF's graphs are the ones that ONNX Runtime, OpenVINO and TensorRT take alike; ONNX Runtime's own static quantisation
writes int32 biases that TensorRT refuses.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edpct.card import Card
from edpct.errors import QuantisationError
from edpct.export.calibration import recalibrate
from edpct.export.graph import read_graph
from edpct.export.onnx_export import INPUT, write_onnx
from edpct.recipe import Calibration

SMOOTHING = "/nncf_smooth_quant"  # how NNCF ends the names of its multiplications


def quantise_int8(
    source: Path,
    target: Path,
    card: Card,
    images: Sequence[NDArray[np.uint8]],
    leave: Sequence[str] = (),
    calibration: Calibration = "minmax",
) -> None:
    """Write the INT8 version of an FP32 ONNX file.

    Args:
        images: calibration images (H, W, 3), uint8, at the card's input size; from the train split, never from val.
        leave: names of nodes that stay in FP32.
        calibration: how the ranges of activations are found, see :mod:`edpct.export.calibration`.

    Raises:
        ExportError: the file cannot be read.
        QuantisationError: no calibration images, or NNCF cannot quantise the graph.
    """
    if not images:
        raise QuantisationError("INT8 calibration needs at least one image.", "Give training images with --data.")
    graph = read_graph(source)
    preprocessing = card.task.preprocessing
    with quiet_nncf() as nncf:
        try:
            quantised = nncf.quantize(
                graph,
                nncf.Dataset(images, lambda image: {INPUT: preprocessing.apply(image)}),
                preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric activations: TensorRT has no zero points
                target_device=nncf.TargetDevice.ANY,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(images),
                fast_bias_correction=True,
                ignored_scope=nncf.IgnoredScope(names=list(leave)) if leave else None,
            )
        except (RuntimeError, ValueError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
            raise QuantisationError(f"NNCF cannot quantise {source.name}: {str(error).splitlines()[0]}") from error
    make_signed(quantised)
    unsmooth(quantised)
    if calibration != "minmax":
        recalibrate(quantised, ({INPUT: preprocessing.apply(image)} for image in images), calibration)
    write_onnx(quantised, card.model_copy(update={"precision": "int8"}), target)


@contextlib.contextmanager
def quiet_nncf() -> Iterator[Any]:
    """The package ``nncf``, without its warnings and its bars, which would go through ours."""
    # Importing it makes torch look for a CUDA compiler and complain.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield nncf


def make_signed(graph: onnx.ModelProto) -> None:
    """Turn uint8 activations into int8 ones, in place.

    NNCF quantises what a ReLU hands on to uint8. TensorRT knows int8 only (uint8 zero points are for DLA; elsewhere its
    parser reads them as int8 at the same scale, and all above half of the range is clipped), so the scale is stretched
    from 255 to 127 steps.

    Raises:
        QuantisationError: a zero point that is not 0.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    quantisers = [node for node in graph.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    unsigned = [n for n in quantisers if tensors[n.input[2]].data_type == onnx.TensorProto.UINT8]
    for name in sorted({node.input[2] for node in unsigned}):
        zero = onnx.numpy_helper.to_array(tensors[name])
        if zero.any():
            raise QuantisationError(f"The zero point '{name}' is not 0, which TensorRT does not take.")
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(zero.astype(np.int8), name))
    for name in sorted({node.input[1] for node in unsigned}):
        scale = onnx.numpy_helper.to_array(tensors[name]) * np.float32(255 / 127)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(scale.astype(np.float32), name))
    for value in graph.graph.value_info:  # codes, also where they pass a Reshape or Transpose before they are read
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            value.type.tensor_type.elem_type = onnx.TensorProto.INT8


def unsmooth(graph: onnx.ModelProto) -> None:
    """Take back NNCF's smoothing where the product behind it stays in floating point, in place.

    SmoothQuant (Xiao et al., arXiv 2211.10438) scales a product's input down and its weights up, for the quantisers
    between them. Without quantisers it is work for nothing, and OpenVINO 2026.4 computes such graphs wrongly.
    """
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [node for node in graph.graph.node if node.name.endswith(SMOOTHING)]:
        products = readers.get(node.output[0], [])
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]]).reshape(-1)
        if not all(
            _is_plain(product, node.output[0], tensors) and len(readers[product.input[1]]) == 1 for product in products
        ):
            continue
        for product in products:
            weight = tensors[product.input[1]]
            values = onnx.numpy_helper.to_array(weight)
            flipped = any(entry.name == "transB" and entry.i for entry in product.attribute)
            smoothed = values * (scale if flipped else scale[:, None])
            weight.CopyFrom(onnx.numpy_helper.from_array(smoothed.astype(values.dtype), weight.name))
            product.input[0] = node.input[0]
        graph.graph.node.remove(node)


def _is_plain(node: onnx.NodeProto, smoothed: str, tensors: dict[str, onnx.TensorProto]) -> bool:
    """Whether a product reads the smoothed tensor and constant weights, both in floating point."""
    return node.op_type in ("Gemm", "MatMul") and node.input[0] == smoothed and node.input[1] in tensors
