"""Accuracy of an engine over a set, with the range in which other images of the kind would put it.

Counts are kept for every image, so that images can be drawn anew: the interval is the percentile bootstrap (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) over images, not over pixels or windows, which are
alike within an image and would make the interval far too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct.bench.report.schema import AccuracyReport
from edpct.data.accuracy import Accuracy, ConfusionMatrix, Predict, accuracy_of, mean_of
from edpct.data.boundary import BoundaryCounts, boundary_iou
from edpct.data.tiling import Window
from edpct.errors import DataError

RESAMPLES = 1000
SEED = 0  # the same draws for every engine, so that two of them can be compared image by image
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Scores:
    """Counts of one predictor over a set; equal scores have equal :meth:`to_dict`.

    Attributes:
        sources: index in its split of every image of which a pixel was counted, (images,), ascending.
        confusions: (images, classes, classes), int64; rows are truth.
        boundary: (3, classes), int64, over the whole set; see :class:`edpct.data.boundary.BoundaryCounts`.
    """

    sources: tuple[int, ...]
    confusions: NDArray[np.int64]
    boundary: NDArray[np.int64]

    @property
    def images(self) -> int:
        """How many images were counted."""
        return len(self.sources)

    @property
    def accuracy(self) -> Accuracy:
        """mIoU, IoU, F1 and overall accuracy over the whole set."""
        return accuracy_of(self.confusions.sum(0))

    @property
    def boundary_iou(self) -> tuple[float | None, ...]:
        """Boundary IoU of every class, 0..1; None for a class without a contour in truth and prediction."""
        return boundary_iou(self.boundary)

    @property
    def boundary_miou(self) -> float:
        """Mean of :attr:`boundary_iou` over the classes that have one; 0.0 where none has."""
        return mean_of(self.boundary_iou)

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mIoU, low and high: images drawn with replacement, :data:`RESAMPLES` times.

        A class that a resample lacks, in truth and prediction, is left out of its mean. One image, which leaves nothing
        to draw from, gives its mIoU twice.
        """
        if self.images < 2:
            return self.accuracy.miou, self.accuracy.miou
        return _range_of(_resampled_miou(self.confusions))

    def to_dict(self) -> dict[str, Any]:
        """The counts as lists of integers, for JSON."""
        return {
            "sources": list(self.sources),
            "confusions": self.confusions.tolist(),
            "boundary": self.boundary.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scores:
        """What :meth:`to_dict` gave.

        Raises:
            DataError: it is something else.
        """
        try:
            sources = tuple(map(int, data["sources"]))
            boundary = np.array(data["boundary"], np.int64)
            classes = boundary.shape[-1]
            confusions = np.array(data["confusions"], np.int64).reshape(len(sources), classes, classes)
            return cls(sources, confusions, boundary.reshape(3, classes))
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise DataError("The counts of an accuracy are incomplete.", "Measure it again.") from error


def score_windows(
    predict: Predict,
    windows: Iterable[Window],
    num_classes: int,
    ignore_index: int,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Scores of a predictor over windows; those of one image may come in any order.

    Args:
        predict: image (H, W, 3), uint8, to labels (H, W), integers.
        progress: called with the number of windows done.

    Raises:
        DataError: a prediction of another shape than its window, or with a label that is no class.
    """
    matrices: dict[int, ConfusionMatrix] = {}
    boundary = BoundaryCounts(num_classes, ignore_index)
    for done, window in enumerate(windows, 1):
        prediction = predict(window.image)
        matrix = matrices.setdefault(window.source, ConfusionMatrix(num_classes, ignore_index))
        matrix.add(window.labels, prediction)
        boundary.add(window.labels, prediction)
        if progress is not None:
            progress(done)
    # An image that is ignored throughout says nothing, and a resample of nothing else would have no mIoU.
    counted = {source: matrix.counts for source, matrix in sorted(matrices.items()) if matrix.counts.any()}
    confusions = np.array(list(counted.values()), np.int64).reshape(len(counted), num_classes, num_classes)
    return Scores(tuple(counted), confusions, boundary.counts)


def difference_interval(a: Scores, b: Scores) -> tuple[float, float]:
    """95 % interval of the mIoU of ``a`` less that of ``b``, low and high: both on the same resamples.

    Narrower than two intervals side by side, since an image that is hard for one is mostly hard for the other.

    Raises:
        DataError: they were not scored on the same labelled images.
    """
    same = a.sources == b.sources and a.confusions.shape == b.confusions.shape
    if not same or not np.array_equal(a.confusions.sum(2), b.confusions.sum(2)):
        raise DataError("Two engines were not scored on the same images.", "Measure both on the same data.")
    if a.images < 2:
        difference = a.accuracy.miou - b.accuracy.miou
        return difference, difference
    return _range_of(_resampled_miou(a.confusions) - _resampled_miou(b.confusions))


def accuracy_report(scores: Scores, names: Sequence[str]) -> AccuracyReport:
    """What the report says of scores; ``names`` are the classes', in their order.

    Raises:
        ValueError: another number of names than of classes.
    """
    found = scores.accuracy
    return AccuracyReport(
        miou=found.miou,
        interval=scores.interval(),
        iou=dict(zip(names, found.iou, strict=True)),
        f1=dict(zip(names, found.f1, strict=True)),
        boundary_miou=scores.boundary_miou,
        boundary_iou=dict(zip(names, scores.boundary_iou, strict=True)),
        overall=found.overall,
        pixels=found.pixels,
        images=scores.images,
    )


def _resampled_miou(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """mIoU of every resample of the images, (resamples,), from (images, classes, classes)."""
    # mIoU needs these three of every class only; in float64, where BLAS is, counts are exact below 2**53.
    hit = np.diagonal(confusions, axis1=1, axis2=2)
    parts = np.stack([hit, confusions.sum(2), confusions.sum(1)], axis=1).astype(np.float64)
    sums = (_weights(len(confusions)) @ parts.reshape(len(parts), -1)).reshape(RESAMPLES, 3, -1)
    union = sums[:, 1] + sums[:, 2] - sums[:, 0]
    iou = np.divide(sums[:, 0], union, out=np.zeros_like(union), where=union > 0)
    mean: NDArray[np.float64] = iou.sum(1) / (union > 0).sum(1)
    return mean


def _weights(images: int) -> NDArray[np.float64]:
    """How often every image is in every resample, (resamples, images); always the same for a number of images."""
    rng = np.random.default_rng(SEED)
    draws = [np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(RESAMPLES)]
    return np.stack(draws).astype(np.float64)


def _range_of(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)
