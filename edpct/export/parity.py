"""Does the graph compute what the network computes? Shown on real images, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edpct.errors import ExportError
from edpct.export.onnx_export import INPUT, OUTPUT
from edpct.runtimes.table import open_session
from edpct.task import Preprocessing


@dataclass(frozen=True)
class Parity:
    """How far an ONNX file is from the torch network it was made of.

    Attributes:
        largest: greatest |difference| of the logits over the images, as a share of the logits' range.
        agreement: share of pixels whose class is the same.
        images: how many images were compared.
    """

    largest: float
    agreement: float
    images: int


def check_parity(
    model: nn.Module,
    path: Path,
    preprocessing: Preprocessing,
    images: Sequence[NDArray[np.uint8]],
    tolerance: float,
) -> Parity:
    """Compare an ONNX file on ONNX Runtime with the network.

    Args:
        images: (H, W, 3), uint8, at the preprocessing's size.
        tolerance: the largest :attr:`Parity.largest` that is accepted.

    Raises:
        ExportError: the difference is larger.
    """
    largest, agreement = 0.0, 0.0
    model.eval()
    with open_session(path, "onnxruntime") as session:
        for image in images:
            feed = preprocessing.apply(image)
            with torch.no_grad():
                expected = model(torch.from_numpy(feed)).numpy()
            found = session.run({INPUT: feed})[OUTPUT]
            spread = max(float(np.ptp(expected)), 1e-12)
            # np.maximum hands NaN on; max() would lose it.
            largest = float(np.maximum(largest, np.abs(found - expected).max() / spread))
            agreement += float((found.argmax(1) == expected.argmax(1)).mean()) / len(images)
    if not largest <= tolerance:
        raise ExportError(
            f"{path.name} is off the torch network by {largest:.2e} of the logits' range (limit {tolerance:.0e}).",
            "Try another [export] opset, or simplify = false.",
        )
    return Parity(largest, agreement, len(images))
