"""Does one form of a network compute what another does? Shown on real images, logit by logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edpct.errors import ExportError
from edpct.runtimes.session import Session
from edpct.runtimes.table import open_session
from edpct.task import Preprocessing

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """How far one form of a network is from another.

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
    model.eval()

    def network(feed: Logits) -> Logits:
        with torch.no_grad():
            logits: Logits = model(torch.from_numpy(feed)).numpy()
        return logits

    with open_session(path, "onnxruntime") as session:
        parity = compare_logits(network, infer(session), [preprocessing.apply(image) for image in images])
    if not parity.largest <= tolerance:
        raise ExportError(
            f"{path.name} is off the torch network by {parity.largest:.2e} of the logits' range "
            f"(limit {tolerance:.0e}).",
            "Try another [export] opset, or simplify = false.",
        )
    return parity


def infer(session: Session) -> Callable[[Logits], Logits]:
    """An engine as a function from its image to its logits."""
    image, logits = session.inputs[0].name, session.outputs[0].name
    return lambda feed: session.run({image: feed})[logits]


def compare_logits(
    reference: Callable[[Logits], Logits], other: Callable[[Logits], Logits], feeds: Sequence[Logits]
) -> Parity:
    """How far ``other`` is from ``reference``, both from (1, 3, H, W) to (1, C, H, W), float32."""
    largest, agreement = 0.0, 0.0
    for feed in feeds:
        expected, found = reference(feed), other(feed)
        spread = max(float(np.ptp(expected)), 1e-12)
        # np.maximum hands NaN on; max() would lose it.
        largest = float(np.maximum(largest, np.abs(found - expected).max() / spread))
        agreement += float((found.argmax(1) == expected.argmax(1)).mean()) / len(feeds)
    return Parity(largest, agreement, len(feeds))
