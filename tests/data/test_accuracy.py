"""mIoU, IoU, F1 and overall accuracy from one confusion matrix, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score

from edpct.data.accuracy import Accuracy, ConfusionMatrix, measure_accuracy
from edpct.data.tiling import Window
from edpct.errors import DataError

IGNORE = 255
CASES = 1000


def _case(seed: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and predictions that favour some classes and may lack others, some pixels ignored."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    shape = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    truth = rng.integers(0, rng.integers(1, classes + 1), shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, rng.integers(1, classes + 1), shape))
    truth[rng.random(shape) < rng.choice([0.0, 0.2])] = IGNORE
    return classes, truth, prediction.astype(np.uint8)


def _as_scikit_learn(classes: int, true: NDArray[np.uint8], said: NDArray[np.uint8]) -> Accuracy:
    """The same definitions, from scikit-learn, over pixels that count; at least one."""
    labels = list(range(classes))
    matrix = confusion_matrix(true, said, labels=labels)
    occurs = (matrix.sum(0) + matrix.sum(1) > 0).tolist()
    present = [label for label in labels if occurs[label]]
    iou = jaccard_score(true, said, labels=labels, average=None, zero_division=0.0)
    f1 = f1_score(true, said, labels=labels, average=None, zero_division=0.0)
    return Accuracy(
        miou=float(jaccard_score(true, said, labels=present, average="macro", zero_division=0.0)),
        iou=tuple(float(v) if there else None for v, there in zip(iou, occurs, strict=True)),
        f1=tuple(float(v) if there else None for v, there in zip(f1, occurs, strict=True)),
        overall=float(accuracy_score(true, said)),
        pixels=len(true),
    )


def _plain(values: tuple[float | None, ...]) -> list[float]:
    """-1 for None, so that approx can compare them."""
    return [-1.0 if value is None else value for value in values]


@pytest.mark.parametrize("block", range(CASES // 100))
def test_random_maps_score_as_scikit_learn_says(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        classes, truth, prediction = _case(seed)
        matrix = ConfusionMatrix(classes, IGNORE)
        for row in range(truth.shape[0]):  # in pieces, as windows come
            matrix.add(truth[row], prediction[row])
        score = matrix.score()
        true, said = truth[truth != IGNORE], prediction[truth != IGNORE]
        if true.size == 0:
            nothing = (None,) * classes
            assert score == Accuracy(miou=0.0, iou=nothing, f1=nothing, overall=0.0, pixels=0), seed
            continue
        expected = _as_scikit_learn(classes, true, said)
        assert np.array_equal(matrix.counts, confusion_matrix(true, said, labels=list(range(classes)))), seed
        assert _plain(score.iou) == pytest.approx(_plain(expected.iou), abs=1e-12), seed
        assert _plain(score.f1) == pytest.approx(_plain(expected.f1), abs=1e-12), seed
        assert score.miou == pytest.approx(expected.miou, abs=1e-12), seed
        assert score.overall == pytest.approx(expected.overall, abs=1e-12) and score.pixels == expected.pixels, seed


def test_the_random_maps_do_hold_the_hard_cases() -> None:
    cases = [_case(seed) for seed in range(CASES)]
    assert sum((truth == IGNORE).any() for _, truth, _ in cases) > CASES // 6
    absent = [n for n, truth, said in cases if len(np.union1d(truth[truth != IGNORE], said[truth != IGNORE])) < n]
    assert len(absent) > CASES // 6


def test_a_class_in_neither_map_is_left_out_and_one_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(4, IGNORE)
    matrix.add(np.array([0, 0, 1, 1], np.uint8), np.array([0, 0, 1, 2]))
    score = matrix.score()
    assert score.iou == (1.0, 0.5, 0.0, None)
    assert score.f1 == (1.0, 2 / 3, 0.0, None)
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
    matrix.add(np.array([IGNORE], np.uint8), np.array([-1]))
    assert np.array_equal(matrix.counts, before) and before.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (np.array([0, 1, 2]), "A prediction holds the label 2, but there are 2 classes (0 to 1)."),
        (np.array([-1, 1, 0]), "A prediction holds the label -1, but there are 2 classes (0 to 1)."),
        (np.array([0, 1, 256], np.uint16), "A prediction holds the label 256, but there are 2 classes (0 to 1)."),
        (np.array([0, 1]), "A prediction has the shape (2,), but its labels have (3,)."),
        (np.array([[0, 1, 0]]), "A prediction has the shape (1, 3), but its labels have (3,)."),
        (np.array([0.0, 1.0, 0.7]), "A prediction holds float64 values where integers are needed."),
    ],
)
def test_a_prediction_that_cannot_be_counted_is_refused_and_leaves_no_count(prediction: NDArray, sentence: str) -> None:
    """Unchecked, truth 0 and prediction 2 of two classes would be counted as truth 1 and prediction 0."""
    matrix = ConfusionMatrix(2, IGNORE)
    with pytest.raises(DataError) as raised:
        matrix.add(np.array([0, 1, 1], np.uint8), prediction)
    assert raised.value.what == sentence and not matrix.counts.any()


def test_labels_that_are_no_class_are_refused() -> None:
    with pytest.raises(DataError, match="A label map holds the label 2"):
        ConfusionMatrix(2, IGNORE).add(np.array([2, IGNORE], np.uint8), np.array([0, 0]))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.int64, np.uint64])
def test_predictions_count_alike_in_every_integer_type(kind: type) -> None:
    matrix = ConfusionMatrix(3, IGNORE)
    matrix.add(np.array([0, 2, 2, IGNORE], np.uint8), np.array([0, 1, 2, 2]).astype(kind))
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


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
