"""Boundary IoU, against erosion by SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from edpct.data.boundary import BoundaryCounts, band, boundary_distance
from edpct.errors import DataError

IGNORE = 255
CASES = 300
SQUARE = np.ones((3, 3), bool)


def _blobs(rng: np.random.Generator, shape: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """A label map of rounded regions: which of some smoothed noises is the highest."""
    noise = rng.normal(size=(classes, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, *rng.uniform(0.5, 4, 2)))
    return smooth.argmax(0).astype(np.uint8)


def _case(seed: int) -> tuple[int, int, NDArray[np.uint8], NDArray[np.int64]]:
    """Classes, distance, truth with ignored blobs and specks, and a prediction: the truth moved, with some noise."""
    rng = np.random.default_rng(seed)
    classes, distance = int(rng.integers(2, 6)), int(rng.integers(1, 9))
    shape = (int(rng.integers(3, 48)), int(rng.integers(3, 48)))
    truth = _blobs(rng, shape, int(rng.integers(1, classes + 1)))  # may lack the last classes
    prediction = np.roll(truth, rng.integers(-3, 4, 2), (0, 1)).astype(np.int64)
    noisy = rng.random(shape) < rng.choice([0.0, 0.01])
    prediction[noisy] = rng.integers(0, classes, noisy.sum())
    if seed % 3:
        truth[_blobs(rng, shape, 4) == 0] = IGNORE
        truth[rng.random(shape) < 0.01] = IGNORE
    prediction[truth == IGNORE] = rng.integers(-1, 300, (truth == IGNORE).sum())  # which must not matter
    return classes, distance, truth, prediction


def _eroded(mask: NDArray[np.bool_], distance: int, edge: bool) -> NDArray[np.bool_]:
    return ndimage.binary_erosion(mask, SQUARE, iterations=distance, border_value=0 if edge else 1)


def _reference(
    classes: int, distance: int, truth: NDArray[np.uint8], prediction: NDArray[np.int64], edge: bool
) -> list[list[int]]:
    """Pixels in both bands, in truth's and in prediction's, class by class: the mask less the eroded mask."""
    ignored = truth == IGNORE
    rows = []
    for label in range(classes):
        bands = []
        for labels in (truth, prediction):
            mask = (labels == label) | ignored
            bands.append(mask & ~_eroded(mask, distance, edge) & ~ignored)
        rows.append([int((bands[0] & bands[1]).sum()), int(bands[0].sum()), int(bands[1].sum())])
    return np.array(rows).T.tolist()


@pytest.mark.parametrize("edge", [False, True])
def test_random_blobs_count_as_erosion_by_scipy_says(edge: bool) -> None:
    for seed in range(CASES):
        classes, distance, truth, prediction = _case(seed)
        counts = BoundaryCounts(classes, IGNORE, distance, edge)
        counts.add(truth, prediction)
        both, true, said = expected = _reference(classes, distance, truth, prediction, edge)
        assert counts.counts.tolist() == expected, seed
        union = [t + s - b for b, t, s in zip(both, true, said, strict=True)]
        assert counts.iou() == tuple(b / u if u else None for b, u in zip(both, union, strict=True)), seed


def test_the_random_blobs_do_hold_the_hard_cases() -> None:
    cases = [_case(seed) for seed in range(CASES)]
    assert sum((truth == IGNORE).any() for _, _, truth, _ in cases) > CASES // 2
    assert sum(min(truth.shape) <= distance for _, distance, truth, _ in cases) > 5  # a square larger than the map
    counts = [_reference(*case, edge=False) for case in cases]
    assert sum(0 in true for _, true, _ in counts) > 30  # a class without a band
    shares = [b / t for both, true, _ in counts for b, t in zip(both, true, strict=True) if t]
    assert sum(0.1 < share < 0.9 for share in shares) > CASES  # bands that overlap in part


def test_with_edges_it_is_the_authors_definition() -> None:
    """Their code pads one line of zeros around the mask, erodes with no border effect and cuts the line off again."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(30, 160)), int(rng.integers(30, 160)))
        labels, distance = _blobs(rng, shape, 3), boundary_distance(*shape)
        found = band(labels, np.ones(shape, bool), distance, edge_is_boundary=True)
        for label in range(3):
            mask = labels == label
            padded = ndimage.binary_erosion(np.pad(mask, 1), SQUARE, iterations=distance, border_value=1)
            assert np.array_equal(found & mask, mask & ~padded[1:-1, 1:-1]), (seed, label)


@pytest.mark.parametrize(
    ("height", "width", "distance"),
    [(512, 512, 14), (1024, 1024, 29), (480, 640, 16), (1080, 1920, 44), (100, 100, 3), (30, 40, 1), (8, 8, 1)],
)
def test_the_distance_is_two_percent_of_the_diagonal(height: int, width: int, distance: int) -> None:
    """Diagonals 724.1, 1448.2, 800, 2202.9, 141.4, 50 and 11.3."""
    assert boundary_distance(height, width) == distance


def _square(left: int) -> NDArray[np.uint8]:
    labels = np.zeros((60, 60), np.uint8)
    labels[20:40, left : left + 20] = 1
    return labels


def test_a_square_moved_by_two_pixels() -> None:
    """Side 20, distance 3, moved by 2: half of the bands, where IoU says 0.82 and 0.97.

    The square's band is 20² - 14² = 204. Both squares share 20 x 18, the first one's core lies in the second square
    and the other way round, the cores share 14 x 12: both bands are 360 - 2 · 196 + 168 = 136, of 2 · 204 - 136 = 272.

    The background's band is 26² - 20² = 276. The grown squares share 26 x 24, and both squares, together 440, lie in
    that: both bands are 624 - 440 = 184, of 2 · 276 - 184 = 368.
    """
    counts = BoundaryCounts(2, IGNORE, distance=3)
    counts.add(_square(20), _square(22))
    assert counts.counts.tolist() == [[184, 136], [276, 204], [276, 204]]
    assert counts.iou() == (0.5, 0.5)


@pytest.mark.parametrize("moved", [0, 1, 3, 5, 8])
def test_a_straight_contour_moved(moved: int) -> None:
    """Distance 5, moved by k: bands of 5 columns share 5 - k of 5 + k; the ends at the map's edge are no contour."""
    columns = np.arange(40)[None] * np.ones((30, 1), int)
    counts = BoundaryCounts(2, IGNORE, distance=5)
    counts.add((columns >= 20).astype(np.uint8), (columns >= 20 + moved).astype(np.int64))
    share = max(0, 5 - moved) / (10 - max(0, 5 - moved))
    assert counts.iou() == (share, share)
    assert counts.counts.tolist() == [[30 * max(0, 5 - moved)] * 2, [150] * 2, [150] * 2]


@pytest.mark.parametrize(("gap", "columns"), [(1, 3), (2, 2), (3, 1), (4, 0)])
def test_ignored_pixels_between_two_classes_belong_to_no_band_and_make_none(gap: int, columns: int) -> None:
    """Distance 4: a strip of g ignored columns leaves 4 - g columns on either side that see the other class."""
    truth = np.zeros((10, 30), np.uint8)
    truth[:, 15:] = 1
    truth[:, 15 : 15 + gap] = IGNORE
    prediction = np.where(truth == IGNORE, 2, truth)  # a class that is nowhere else
    counts = BoundaryCounts(3, IGNORE, distance=4)
    counts.add(truth, prediction)
    assert counts.counts.tolist() == [[10 * columns, 10 * columns, 0]] * 3
    assert counts.iou() == ((1.0, 1.0, None) if columns else (None, None, None))


def test_one_class_has_a_contour_only_if_the_edge_is_one() -> None:
    whole = np.full((20, 30), 2, np.uint8)
    for edge, pixels in ((False, 0), (True, 20 * 30 - 14 * 24)):
        counts = BoundaryCounts(4, IGNORE, distance=3, edge_is_boundary=edge)
        counts.add(whole, whole)
        assert counts.counts.tolist() == [[0, 0, pixels, 0]] * 3
        assert counts.iou() == (None, None, 1.0 if edge else None, None)


def test_a_contour_that_is_only_predicted_counts_as_zero() -> None:
    truth, prediction = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    prediction[:, 5:] = 1
    counts = BoundaryCounts(3, IGNORE, distance=2)
    counts.add(truth, prediction)
    assert counts.counts.tolist() == [[0, 0, 0], [0, 0, 0], [20, 20, 0]] and counts.iou() == (0.0, 0.0, None)


def test_maps_are_summed_and_divided_once() -> None:
    """Truth's square three times, predicted rightly twice: 2 · 204 + 136 of 2 · 204 + 272."""
    counts = BoundaryCounts(2, IGNORE, distance=3)
    for left in (20, 22, 20):
        counts.add(_square(20), _square(left))
    assert counts.iou()[1] == pytest.approx((2 * 204 + 136) / (2 * 204 + 272))
    counts.counts[:] = 3_000_000_000
    counts.add(_square(20), _square(20))
    assert counts.counts[1, 1] == 3_000_000_204


def test_the_highest_label_that_a_task_allows_has_a_contour() -> None:
    labels = np.full((9, 9), 253, np.uint8)
    labels[:, 4:] = 254
    for given, width in ((None, 1), (2, 2)):
        counts = BoundaryCounts(255, IGNORE, given)
        counts.add(labels, labels.astype(np.int32))
        assert counts.counts[:, 253:].tolist() == [[9 * width] * 2] * 3 and counts.counts.sum() == 54 * width


def test_maps_that_cannot_be_counted_are_refused() -> None:
    counts = BoundaryCounts(2, IGNORE, distance=1)
    truth = np.zeros((4, 4), np.uint8)
    with pytest.raises(DataError, match=r"shape \(4, 5\)"):
        counts.add(truth, np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match="the label 257"):  # which is 1 in eight bits
        counts.add(truth, np.full((4, 4), 257))
    assert not counts.counts.any()
