"""Boundary IoU: how well a prediction follows the contours, which the IoU of large regions hides.

After Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021,
arXiv 2103.16562. For a class, the band of a label map are the pixels of the class within a distance d of its contour;
Boundary IoU is the IoU of the two bands, truth's and prediction's. The distance is counted as in the authors' code,
which erodes with a 3 x 3 square d times: a pixel is in the band where the square of 2 d + 1 pixels around it holds
another class. Here, other than there:

- Pixels are summed over the whole set and divided once, as for IoU (:mod:`edpct.data.accuracy`).
- What lies beyond a window's edge is unknown, not another class. Windows are cut out of larger images, and where the
  cut runs no object ends; the authors' images are whole, and their edge is a contour (``edge_is_boundary``).
- Ignored pixels are of every class at once: next to them is no contour, and they are in no band. The prediction is seen
  through the same mask as the truth, so that one which is right on all counted pixels scores 1 whatever it says on the
  others. An already counted pixel of an overlapping window is such an ignored one, too.
- d follows from the diagonal of the window, so that engines with different input sizes have different bands.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edpct.data.accuracy import check_maps, ratios
from edpct.data.sliding import over_square

DISTANCE_SHARE = 0.02  # of the diagonal: the authors' default
# Labels are 0..254 at most (:class:`edpct.task.Task`), so 255 is never the least of a square that holds a label.
NEVER_LEAST, NEVER_GREATEST = 255, 0


class BoundaryCounts:
    """Pixels of the bands of every class, summed over the label maps added.

    Attributes:
        counts: (3, classes), int64; rows are pixels in both bands, in truth's, in prediction's.
    """

    def __init__(
        self, num_classes: int, ignore_index: int, distance: int | None = None, edge_is_boundary: bool = False
    ) -> None:
        """Start at 0.

        Args:
            distance: of the band, in pixels, at least 1; None for :func:`boundary_distance` of each map.
            edge_is_boundary: whether the edge of a map is a contour, as in the authors' code.
        """
        self.counts: NDArray[np.int64] = np.zeros((3, num_classes), np.int64)
        self.ignore_index = ignore_index
        self.distance = distance
        self.edge_is_boundary = edge_is_boundary

    def add(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Count pixels of two label maps, both (H, W).

        Raises:
            DataError: see :func:`edpct.data.accuracy.check_maps`.
        """
        classes = self.counts.shape[1]
        check_maps(truth, prediction, classes, self.ignore_index)
        distance = self.distance or boundary_distance(*truth.shape)
        counted = truth != self.ignore_index
        true, said = truth.astype(np.uint8, copy=False), prediction.astype(np.uint8, copy=False)
        in_true, in_said = (band(labels, counted, distance, self.edge_is_boundary) for labels in (true, said))
        in_both = in_true & in_said & (true == said)
        for row, (labels, where) in enumerate(((true, in_both), (true, in_true), (said, in_said))):
            self.counts[row] += np.bincount(labels[where], minlength=classes)

    def iou(self) -> tuple[float | None, ...]:
        """Boundary IoU of every class, 0..1; None for a class without a contour in truth and prediction."""
        return boundary_iou(self.counts)


def boundary_iou(counts: NDArray[np.int64]) -> tuple[float | None, ...]:
    """Boundary IoU of every class, 0..1, from :attr:`BoundaryCounts.counts`, (3, classes).

    None for a class without a contour: it is in neither map, or nothing else was ever beside it in a window.
    """
    both, true, said = counts
    return ratios(both, true + said - both)


def boundary_distance(height: int, width: int) -> int:
    """Width of the band in pixels: 2 % of the diagonal, rounded, at least 1."""
    return max(1, round(DISTANCE_SHARE * math.hypot(height, width)))


def band(
    labels: NDArray[np.uint8], counted: NDArray[np.bool_], distance: int, edge_is_boundary: bool = False
) -> NDArray[np.bool_]:
    """Which counted pixels have a counted pixel of another class within ``distance``, in the maximum norm.

    Args:
        labels: (H, W), uint8, below 255 where counted.
        counted: (H, W), bool.

    Returns:
        (H, W), bool.
    """
    least = over_square(np.where(counted, labels, np.uint8(NEVER_LEAST)), np.minimum, NEVER_LEAST, distance)
    greatest = over_square(np.where(counted, labels, np.uint8(NEVER_GREATEST)), np.maximum, NEVER_GREATEST, distance)
    found: NDArray[np.bool_] = least != greatest
    if edge_is_boundary:
        for lines in (found, found.T):
            lines[:distance] = lines[-distance:] = True
    found &= counted
    return found
