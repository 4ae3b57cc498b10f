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
from edpct.export.graph import read_graph
from edpct.export.onnx_export import INPUT, write_onnx


def quantise_int8(
    source: Path, target: Path, card: Card, images: Sequence[NDArray[np.uint8]], leave: Sequence[str] = ()
) -> None:
    """Write the INT8 version of an FP32 ONNX file.

    Args:
        images: calibration images (H, W, 3), uint8, at the card's input size; from the train split, never from val.
        leave: names of nodes that stay in FP32.

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
