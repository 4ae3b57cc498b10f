"""Scores of a set: whole, by image, and the bootstrap over images, against SciPy and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from edpct.bench.report.schema import AccuracyReport
from edpct.bench.scoring import Scores, accuracy_report, difference_interval, score_windows
from edpct.data.accuracy import measure_accuracy
from edpct.data.boundary import BoundaryCounts
from edpct.data.tiling import Window, windows_of
from edpct.errors import DataError

IGNORE = 255
NO_BOUNDARY = np.zeros((3, 2), np.int64)


def _of(*confusions: list[list[int]]) -> Scores:
    """Scores of images with these confusion matrices of two classes."""
    return Scores(tuple(range(len(confusions))), np.array(confusions, np.int64), NO_BOUNDARY)


def _population(rng: np.random.Generator, images: int, skill: float = 0.0) -> NDArray[np.int64]:
    """Confusion matrices (images, 3, 3) whose mix of classes and share of errors differ from image to image."""
    found = []
    for mix, errors in zip(rng.dirichlet([1, 1, 1], images), rng.beta(2, 6, images), strict=True):
        right = np.eye(3) * (1 - errors + skill * errors) + (1 - np.eye(3)) * errors * (1 - skill) / 2
        found.append(rng.multinomial(4000, (mix[:, None] * right).ravel()).reshape(3, 3))
    return np.array(found)


def _miou(counts: NDArray[np.int64]) -> float:
    hit = np.diag(counts)
    return float(np.mean(hit / (counts.sum(0) + counts.sum(1) - hit)))


def _scores(confusions: NDArray[np.int64]) -> Scores:
    return Scores(tuple(range(len(confusions))), confusions, np.zeros((3, 3), np.int64))


# ---- windows to scores


def _cut(seed: int = 0) -> list[Window]:
    """Windows of five images of many sizes, one of them ignored throughout, in an order that mixes the images."""
    rng = np.random.default_rng(seed)
    cut: list[Window] = []
    for source, (rows, columns) in enumerate([(40, 70), (64, 64), (32, 32), (20, 90), (33, 31)]):
        labels = np.kron(rng.integers(0, 4, (rows // 8 + 1, columns // 8 + 1)), np.ones((8, 8), int))
        labels = labels[:rows, :columns].astype(np.uint8)
        labels[rng.random(labels.shape) < 0.03] = IGNORE
        image = np.repeat(np.where(labels == IGNORE, 1, labels)[..., None], 3, axis=2).astype(np.uint8)
        image[rng.random((rows, columns)) < 0.1] = 3
        cut += windows_of(image, labels if source != 2 else np.full_like(labels, IGNORE), 32, 32, IGNORE, source)
    return [cut[index] for index in rng.permutation(len(cut))]


def _predict(image: NDArray[np.uint8]) -> NDArray[np.integer]:
    return np.roll(image[..., 0], 1, axis=0).astype(np.int64)


def test_the_whole_is_what_is_measured_without_images() -> None:
    cut, done = _cut(), []
    scores = score_windows(_predict, cut, 5, IGNORE, done.append)
    whole = measure_accuracy(_predict, cut, 5, IGNORE)
    assert scores.accuracy == whole and 0.2 < whole.miou < 0.9 and whole.iou[4] is None
    assert done == list(range(1, len(cut) + 1))
    boundary = BoundaryCounts(5, IGNORE)
    for window in cut:
        boundary.add(window.labels, _predict(window.image))
    assert scores.boundary_iou == boundary.iou() and scores.boundary_iou[4] is None
    seen = [value for value in scores.boundary_iou if value is not None]
    assert scores.boundary_miou == pytest.approx(sum(seen) / 4) and 0 < scores.boundary_miou < whole.miou


def test_every_image_keeps_its_own_counts_and_ignored_ones_do_not_count() -> None:
    cut = _cut()
    scores = score_windows(_predict, cut, 4, IGNORE)
    assert scores.sources == (0, 1, 3, 4) and scores.images == 4 and scores.confusions.dtype == np.int64
    for source, confusion in zip(scores.sources, scores.confusions, strict=True):
        alone = score_windows(_predict, [w for w in cut if w.source == source], 4, IGNORE)
        assert np.array_equal(alone.confusions, confusion[None])
        labelled = [(w.labels != IGNORE).sum() for w in cut if w.source == source]
        assert confusion.sum() == sum(labelled)


def test_nothing_to_count_gives_zeros() -> None:
    for cut in ([], [w for w in _cut() if w.source == 2]):
        scores = score_windows(_predict, cut, 4, IGNORE)
        assert scores.images == 0 and scores.interval() == (0.0, 0.0) and scores.accuracy.pixels == 0
        assert Scores.from_dict(scores.to_dict()).to_dict() == scores.to_dict()


def test_a_prediction_of_a_class_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="the label 3, but there are 3 classes"):
        score_windows(_predict, _cut(), 3, IGNORE)


# ---- the interval


def test_equal_images_leave_no_doubt() -> None:
    scores = _of(*[[[50, 3], [7, 40]]] * 9)
    miou = (50 / 60 + 40 / 50) / 2
    assert scores.accuracy.miou == pytest.approx(miou)
    assert scores.interval() == pytest.approx((miou, miou)) and scores.interval()[0] == scores.interval()[1]


def test_one_image_gives_its_own_miou_twice() -> None:
    scores = _of([[50, 3], [7, 40]])
    assert scores.interval() == (scores.accuracy.miou, scores.accuracy.miou)


def test_two_images_by_hand() -> None:
    """Drawn: AA (1/4), AB (1/2), BB (1/4), so that 2.5 % and 97.5 % are the lowest and the highest of three.

    AA has class 0 only, all right: 1, class 1 being left out. BB: (2 / 6 + 4 / 8) / 2 = 5 / 12.
    AB: 12 / 16 and 4 / 8, which lies between.
    """
    scores = _of([[10, 0], [0, 0]], [[2, 2], [2, 4]])
    assert scores.accuracy.miou == pytest.approx((12 / 16 + 4 / 8) / 2)
    assert scores.interval() == pytest.approx((5 / 12, 1.0))


def test_the_interval_is_the_one_that_scipy_finds() -> None:
    confusions = _population(np.random.default_rng(1), 25)
    found = _scores(confusions).interval()
    expected = stats.bootstrap(
        (np.arange(25),), lambda drawn: _miou(confusions[drawn].sum(0)), vectorized=False, n_resamples=4000,
        method="percentile", confidence_level=0.95, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    width = expected.high - expected.low
    assert width > 0.04
    assert found == pytest.approx((expected.low, expected.high), abs=0.08 * width)  # two independent draws


def test_the_interval_holds_the_true_miou_as_often_as_it_says() -> None:
    """200 sets of 40 images: 95 % are 190; the percentile bootstrap is known to fall a little short on small sets."""
    rng = np.random.default_rng(3)
    truth = _miou(_population(rng, 20_000).sum(0))
    inside = 0
    for _ in range(200):
        low, high = _scores(_population(rng, 40)).interval()
        inside += low <= truth <= high
    assert 178 <= inside <= 198


def test_the_interval_is_the_same_every_time() -> None:
    scores = _scores(_population(np.random.default_rng(4), 12))
    assert scores.interval() == scores.interval() == Scores.from_dict(scores.to_dict()).interval()


def test_counts_beyond_32_bits_keep_their_digits() -> None:
    small, large = ([[50, 3], [7, 40]], [[20, 9], [1, 30]]), 10**11
    scores, scaled = _of(*small), _of(*(np.multiply(image, large).tolist() for image in small))
    assert scaled.interval() == pytest.approx(scores.interval(), abs=1e-12)
    assert scaled.accuracy.pixels == scores.accuracy.pixels * large


# ---- two engines


def test_an_engine_does_not_differ_from_itself() -> None:
    scores = _scores(_population(np.random.default_rng(5), 20))
    assert difference_interval(scores, scores) == (0.0, 0.0)


def _half_wrong(*wrong: int) -> Scores:
    """Images of 50 + 50 pixels of two classes, w of each wrong: the IoU of both is (50 - w) / (50 + w)."""
    return _of(*([[50 - w, w], [w, 50 - w]] for w in wrong))


def test_a_difference_of_two_images_by_hand() -> None:
    """AA: 1 - 2/3 = 1/3. AB: 90/110 - 60/140 = 30/77. BB: 2/3 - 1/4 = 5/12. Drawn apart: from 0 to 3/4."""
    first, second = _half_wrong(0, 10), _half_wrong(10, 30)
    assert first.interval() == pytest.approx((2 / 3, 1)) and second.interval() == pytest.approx((1 / 4, 2 / 3))
    assert difference_interval(first, second) == pytest.approx((1 / 3, 5 / 12))
    assert difference_interval(second, first) == pytest.approx((-5 / 12, -1 / 3))
    assert difference_interval(_half_wrong(0), _half_wrong(10)) == pytest.approx((1 / 3, 1 / 3))  # one image


def test_a_small_difference_shows_though_the_intervals_overlap() -> None:
    rng = np.random.default_rng(6)
    better = _population(rng, 30)
    worse = better.copy()
    moved = better[:, 0, 0] // 20  # of class 0's right pixels, in every image
    worse[:, 0, 0] -= moved
    worse[:, 0, 1] += moved
    a, b = _scores(better), _scores(worse)
    low, high = difference_interval(a, b)
    assert 0 < low < a.accuracy.miou - b.accuracy.miou < high
    assert b.interval()[1] > a.interval()[0] and high - low < 0.3 * (a.interval()[1] - a.interval()[0])


@pytest.mark.parametrize(
    "other",
    [
        _half_wrong(0, 10, 20),
        Scores((0, 2), _half_wrong(0, 10).confusions, NO_BOUNDARY),
        _of([[50, 0], [0, 50]], [[50, 9], [1, 40]]),  # the truth of the second image is another
        Scores((0, 1), np.ones((2, 3, 3), np.int64), np.zeros((3, 3), np.int64)),
    ],
)
def test_engines_scored_on_different_images_are_not_compared(other: Scores) -> None:
    with pytest.raises(DataError, match="not scored on the same images"):
        difference_interval(_half_wrong(0, 10), other)


# ---- plain data


def test_scores_come_back_from_json() -> None:
    scores = score_windows(_predict, _cut(), 5, IGNORE)
    scores.confusions[0, 0, 0] += 2**53 + 1
    again = Scores.from_dict(json.loads(json.dumps(scores.to_dict())))
    assert again.to_dict() == scores.to_dict() and again.accuracy == scores.accuracy
    assert again.confusions.dtype == again.boundary.dtype == np.int64
    assert again.boundary_iou == scores.boundary_iou and again.sources == scores.sources


@pytest.mark.parametrize(
    "change",
    [{"sources": [0]}, {"boundary": [[1, 2]]}, {"boundary": 3}, {"confusions": [[1, 2], [3]]}, {"sources": "x"}],
)
def test_counts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="incomplete"):
        Scores.from_dict({**_half_wrong(0, 10).to_dict(), **change})
    with pytest.raises(DataError, match="incomplete"):
        Scores.from_dict({})


def test_the_report_names_the_values() -> None:
    scores = score_windows(_predict, _cut(), 5, IGNORE)
    names = ("roof", "tree", "road", "car", "pool")
    report = accuracy_report(scores, names)
    accuracy = scores.accuracy
    assert report.miou == accuracy.miou and report.overall == accuracy.overall
    assert report.pixels == accuracy.pixels and report.images == 4
    assert tuple(report.iou) == tuple(report.f1) == tuple(report.boundary_iou) == names
    assert tuple(report.iou.values()) == accuracy.iou and tuple(report.f1.values()) == accuracy.f1
    assert tuple(report.boundary_iou.values()) == scores.boundary_iou and report.boundary_iou["pool"] is None
    assert report.boundary_miou == scores.boundary_miou and report.interval == scores.interval()
    assert AccuracyReport.model_validate_json(report.model_dump_json()) == report
    with pytest.raises(ValueError):
        accuracy_report(scores, names[:4])
