"""Does one form of a network compute what another does? Shown on real images, logit by logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edpct.data.accuracy import ConfusionMatrix
from edpct.errors import ExportError
from edpct.runtimes.labels import labels_of
from edpct.runtimes.session import Session
from edpct.runtimes.table import open_session
from edpct.task import Task

Logits = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Parity:
    """How far one form of a network is from another.

    Attributes:
        largest: greatest |difference| of the logits over the images, as a share of the logits' range.
        agreement: share of pixels whose class is the same.
        images: how many images were compared.
        iou: points of IoU that each class wins over the reference, by name, where the truth is known.
    """

    largest: float
    agreement: float
    images: int
    iou: dict[str, float] = field(default_factory=dict)


def check_parity(
    model: nn.Module,
    path: Path,
    task: Task,
    images: Sequence[Image],
    tolerance: float,
    truth: Sequence[Image] = (),
) -> Parity:
    """Compare an ONNX file on ONNX Runtime with the network.

    Args:
        images: (H, W, 3), uint8, at the task's input size.
        tolerance: the largest :attr:`Parity.largest` that is accepted.
        truth: labels (H, W), uint8, of each image; none: :attr:`Parity.iou` stays empty.

    Raises:
        ExportError: the difference is larger.
    """
    model.eval()

    def network(feed: Logits) -> Logits:
        with torch.no_grad():
            logits: Logits = model(torch.from_numpy(feed)).numpy()
        return logits

    with open_session(path, "onnxruntime") as session:
        feeds = [task.preprocessing.apply(image) for image in images]
        parity = compare_logits(network, infer(session), feeds, task, truth)
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
    reference: Callable[[Logits], Logits],
    other: Callable[[Logits], Logits],
    feeds: Sequence[Logits],
    task: Task,
    truth: Sequence[Image] = (),
) -> Parity:
    """How far ``other`` is from ``reference``, both from (1, 3, H, W) to (1, C, H, W), float32.

    Args:
        truth: labels (H, W), uint8, of each feed; none: :attr:`Parity.iou` stays empty.
    """
    largest, agreement = 0.0, 0.0
    before, after = (ConfusionMatrix(task.num_classes, task.ignore_index) for _ in range(2))
    for feed, labels in zip_longest(feeds, truth):
        expected, found = reference(feed), other(feed)
        spread = max(float(np.ptp(expected)), 1e-12)
        # np.maximum hands NaN on; max() would lose it.
        largest = float(np.maximum(largest, np.abs(found - expected).max() / spread))
        classes = labels_of(expected)[0], labels_of(found)[0]
        agreement += float((classes[0] == classes[1]).mean()) / len(feeds)
        if labels is not None:
            before.add(labels, classes[0])
            after.add(labels, classes[1])
    pairs = zip(task.names, before.score().iou, after.score().iou, strict=True)
    iou = {name: 100 * (new - old) for name, old, new in pairs if old is not None and new is not None} if truth else {}
    return Parity(largest, agreement, len(feeds), iou)
