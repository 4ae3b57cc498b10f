"""mIoU from one confusion matrix, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from edpct.data.accuracy import ConfusionMatrix, measure_accuracy
from edpct.data.tiling import Window

IGNORE = 255


def _case(seed: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and predictions that favour some classes and may lack others, some pixels ignored."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    shape = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    truth = rng.integers(0, rng.integers(1, classes + 1), shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, rng.integers(1, classes + 1), shape))
    truth[rng.random(shape) < rng.choice([0.0, 0.2])] = IGNORE
    return classes, truth, prediction.astype(np.uint8)


@pytest.mark.parametrize("seed", range(200))
def test_random_maps_score_as_scikit_learn_says(seed: int) -> None:
    classes, truth, prediction = _case(seed)
    matrix = ConfusionMatrix(classes, IGNORE)
    for row in range(truth.shape[0]):  # in pieces, as windows come
        matrix.add(truth[row], prediction[row])
    score = matrix.score()
    true, said = truth[truth != IGNORE], prediction[truth != IGNORE]
    labels = list(range(classes))
    if true.size == 0:
        assert score.miou == score.overall == 0.0 and score.pixels == 0 and set(score.iou) == {None}
        return
    assert np.array_equal(matrix.counts, confusion_matrix(true, said, labels=labels))
    reference = jaccard_score(true, said, labels=labels, average=None, zero_division=0.0)
    occurs = np.isin(labels, np.union1d(true, said))
    for label in labels:
        if occurs[label]:
            assert score.iou[label] == pytest.approx(reference[label])
        else:
            assert score.iou[label] is None
    assert score.miou == pytest.approx(reference[occurs].mean())
    assert score.overall == pytest.approx(accuracy_score(true, said)) and score.pixels == true.size


def test_the_random_maps_do_hold_the_hard_cases() -> None:
    cases = [_case(seed) for seed in range(200)]
    assert sum((truth == IGNORE).any() for _, truth, _ in cases) > 30
    absent = [n for n, truth, said in cases if len(np.union1d(truth[truth != IGNORE], said[truth != IGNORE])) < n]
    assert len(absent) > 30


def test_a_class_in_neither_map_is_left_out_and_one_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(4, IGNORE)
    matrix.add(np.array([0, 0, 1, 1], np.uint8), np.array([0, 0, 1, 2]))
    score = matrix.score()
    assert score.iou == (1.0, 0.5, 0.0, None)
    assert score.miou == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_the_mean_over_the_set_is_not_the_mean_over_batches() -> None:
    """Class 1 is one pixel in the first batch and 99 in the second, where half are missed."""
    first = (np.array([0] * 99 + [1], np.uint8), np.array([0] * 100))
    second = (np.array([0] + [1] * 99, np.uint8), np.array([0] + [1] * 49 + [0] * 50))
    whole, means = ConfusionMatrix(2, IGNORE), []
    for batch in (first, second):
        alone = ConfusionMatrix(2, IGNORE)
        for matrix in (whole, alone):
            matrix.add(*batch)
        means.append(alone.score().miou)
    assert whole.score().miou == pytest.approx((100 / 151 + 49 / 100) / 2)
    assert np.mean(means) == pytest.approx(((99 / 100 + 0) / 2 + (1 / 51 + 49 / 99) / 2) / 2)
    assert abs(whole.score().miou - float(np.mean(means))) > 0.1


def test_predictions_on_ignored_pixels_do_not_count_whatever_they_are() -> None:
    matrix = ConfusionMatrix(2, IGNORE)
    matrix.add(np.array([0, IGNORE, 1], np.uint8), np.array([0, 1, 1]))
    before = matrix.counts.copy()
    matrix.add(np.array([IGNORE], np.uint8), np.array([77]))
    assert np.array_equal(matrix.counts, before) and before.tolist() == [[1, 0], [0, 1]]


def test_counts_larger_than_32_bits_are_summed() -> None:
    matrix = ConfusionMatrix(2, IGNORE)
    matrix.counts[:] = [[3_000_000_000, 0], [1_000_000_000, 0]]
    matrix.add(np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    score = matrix.score()
    assert score.pixels == 4_000_000_001 and score.iou == (3_000_000_001 / 4_000_000_001, 0.0)


def test_a_predictor_is_measured_over_windows_and_reports_progress() -> None:
    rng = np.random.default_rng(3)
    cut = []
    for source in range(4):
        labels = rng.integers(0, 3, (5, 6)).astype(np.uint8)
        image = np.repeat(labels[..., None], 3, axis=2)
        labels[0, 0] = IGNORE
        cut.append(Window(image, labels, source, 0, 0))
    done: list[int] = []
    score = measure_accuracy(lambda image: np.minimum(image[..., 0], 1), cut, 3, IGNORE, done.append)
    true = np.concatenate([w.labels.ravel() for w in cut])
    true = true[true != IGNORE]
    assert done == [1, 2, 3, 4] and score.pixels == 4 * 29
    assert score.iou[0] == 1.0 and score.iou[2] == 0.0
    assert score.iou[1] == pytest.approx((true == 1).sum() / (true > 0).sum())
