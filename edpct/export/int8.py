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
from numpy.typing import NDArray

from edpct.card import Card
from edpct.errors import QuantisationError
from edpct.export.calibration import recalibrate
from edpct.export.concatenation import split_convolutions
from edpct.export.graph import read_graph
from edpct.export.onnx_export import INPUT, write_onnx
from edpct.export.qdq import feed_products, make_signed, unsmooth
from edpct.recipe import Calibration


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
    parts = split_convolutions(graph)
    # A grouped convolution cannot be split, and its INT8 would come out wrong on OpenVINO.
    left = {name for node in leave for name in parts.get(node, [node])} | {name for name, of in parts.items() if not of}
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
                ignored_scope=nncf.IgnoredScope(names=sorted(left)) if left else None,
            )
        except (RuntimeError, ValueError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
            raise QuantisationError(f"NNCF cannot quantise {source.name}: {str(error).splitlines()[0]}") from error
    make_signed(quantised)
    unsmooth(quantised)
    feed_products(quantised)
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
