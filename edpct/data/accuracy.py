"""Accuracy from one confusion matrix over a whole set.

Averaging mIoU over batches or images gives another number; this one follows Everingham et al. (Pascal VOC): counts are
summed over the set, then divided once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.data.tiling import Window


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs, int64, shape (classes, classes), rows are truth."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        self.ignore_index = ignore_index

    def add(self, truth: NDArray[np.uint8], prediction: NDArray[np.integer]) -> None:
        """Count pixels of two label maps of equal shape; those whose truth is the ignore index are left out."""
        size = self.counts.shape[0]
        counted = truth != self.ignore_index
        pairs = truth[counted].astype(np.int64) * size + prediction[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def score(self) -> Accuracy:
        """IoU of every class, their mean, and the share of pixels that are right."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        iou = [float(h / u) if u else None for h, u in zip(hit, union, strict=True)]
        seen = [value for value in iou if value is not None]
        total = int(self.counts.sum())
        return Accuracy(
            miou=float(np.mean(seen)) if seen else 0.0,
            iou=tuple(iou),
            overall=float(hit.sum() / total) if total else 0.0,
            pixels=total,
        )


@dataclass(frozen=True)
class Accuracy:
    """Accuracy over a set, all shares in 0..1.

    Attributes:
        miou: mean over the classes that occur in truth or prediction.
        iou: per class; None where a class is in neither (it is left out of the mean).
        overall: pixels that are right over pixels counted.
        pixels: how many were counted.
    """

    miou: float
    iou: tuple[float | None, ...]
    overall: float
    pixels: int


Predict = Callable[[NDArray[np.uint8]], NDArray[np.integer]]


def measure_accuracy(
    predict: Predict,
    windows: Iterable[Window],
    num_classes: int,
    ignore_index: int,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Accuracy of a predictor over windows.

    Args:
        predict: image (H, W, 3), uint8, to labels (H, W).
        progress: called with the number of windows done.
    """
    matrix = ConfusionMatrix(num_classes, ignore_index)
    for done, window in enumerate(windows, 1):
        matrix.add(window.labels, predict(window.image))
        if progress is not None:
            progress(done)
    return matrix.score()
