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
from edpct.errors import DataError


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs, int64, shape (classes, classes), rows are truth."""

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        self.ignore_index = ignore_index

    def add(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Count pixels of two label maps of equal shape; those whose truth is the ignore index are left out.

        Raises:
            DataError: see :func:`check_maps`.
        """
        size = self.counts.shape[0]
        check_maps(truth, prediction, size, self.ignore_index)
        counted = truth != self.ignore_index
        pairs = truth[counted].astype(np.int64) * size + prediction[counted].astype(np.int64)
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def score(self) -> Accuracy:
        """IoU and F1 of every class, mean IoU, and the share of pixels that are right."""
        return accuracy_of(self.counts)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy over a set, all shares in 0..1.

    Attributes:
        miou: mean over the classes that occur in truth or prediction.
        iou: per class, TP / (TP + FP + FN); None where a class is in neither (it is left out of the mean).
        f1: per class, 2 TP / (2 TP + FP + FN), which is the Dice score; None as above.
        overall: pixels that are right over pixels counted.
        pixels: how many were counted.
    """

    miou: float
    iou: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    overall: float
    pixels: int


def accuracy_of(counts: NDArray[np.int64]) -> Accuracy:
    """Accuracy from the counts of a confusion matrix, (classes, classes), rows are truth; 0.0 where it is empty."""
    hit, both = np.diag(counts), counts.sum(0) + counts.sum(1)
    iou = ratios(hit, both - hit)
    total = int(counts.sum())
    return Accuracy(
        miou=mean_of(iou),
        iou=iou,
        f1=ratios(2 * hit, both),
        overall=float(hit.sum() / total) if total else 0.0,
        pixels=total,
    )


def ratios(part: NDArray[np.int64], whole: NDArray[np.int64]) -> tuple[float | None, ...]:
    """Part over whole of every class, both (classes,); None where the whole is 0."""
    return tuple(float(p / w) if w else None for p, w in zip(part, whole, strict=True))


def mean_of(values: tuple[float | None, ...]) -> float:
    """Mean over the classes that have a value; 0.0 where none has."""
    seen = [value for value in values if value is not None]
    return float(np.mean(seen)) if seen else 0.0


def check_maps(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int, ignore_index: int
) -> None:
    """Refuse label maps that cannot be counted; what a prediction says on ignored pixels is never looked at.

    Raises:
        DataError: different shapes, values that are no integers, or a counted label outside 0..num_classes - 1.
    """
    if prediction.shape != truth.shape:
        raise DataError(f"A prediction has the shape {prediction.shape}, but its labels have {truth.shape}.")
    for name, labels in (("prediction", prediction), ("label map", truth)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"A {name} holds {labels.dtype} values where integers are needed.")
        if _within(labels, num_classes):
            continue  # without a copy of the counted pixels, which takes several times as long
        counted = labels[truth != ignore_index]
        if not _within(counted, num_classes):
            wrong = int(counted[(counted < 0) | (counted >= num_classes)][0])
            raise DataError(
                f"A {name} holds the label {wrong}, but there are {num_classes} classes (0 to {num_classes - 1})."
            )


def _within(labels: NDArray[np.integer], num_classes: int) -> bool:
    return labels.size == 0 or (int(labels.min()) >= 0 and int(labels.max()) < num_classes)


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

    Raises:
        DataError: see :func:`check_maps`.
    """
    matrix = ConfusionMatrix(num_classes, ignore_index)
    for done, window in enumerate(windows, 1):
        matrix.add(window.labels, predict(window.image))
        if progress is not None:
            progress(done)
    return matrix.score()
