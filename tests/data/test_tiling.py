"""Windows cover an image, count every labelled pixel once, and can be put together again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from edpct.data.layouts import open_dataset
from edpct.data.tiling import starts, windows, windows_of

IGNORE = 255
SIZES = [1, 3, 8, 9, 15, 16, 17, 31]


def _picture(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image whose pixels tell their row, column and label; one in ten pixels is ignored."""
    rng = np.random.default_rng((seed, height, width))
    labels = rng.integers(0, 5, (height, width)).astype(np.uint8)
    labels[rng.random((height, width)) < 0.1] = IGNORE
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, labels], axis=2).astype(np.uint8), labels


@pytest.mark.parametrize("length", range(1, 40))
def test_windows_start_inside_and_leave_no_gap(length: int) -> None:
    begin = starts(length, 8)
    covered = np.zeros(length, int)
    for start in begin:
        assert start >= 0 and (start + 8 <= length or length < 8)
        covered[start : start + 8] += 1
    assert (covered >= 1).all() and begin == sorted(set(begin))
    assert len(begin) == -(-length // 8)  # no more windows than needed


@pytest.mark.parametrize(("height", "width"), list(itertools.product(SIZES, SIZES)))
def test_every_labelled_pixel_is_counted_exactly_once(height: int, width: int) -> None:
    image, labels = _picture(height, width)
    counted = np.zeros((height, width), int)
    rebuilt = np.full((height, width), IGNORE, np.uint8)
    for window in windows_of(image, labels, 8, 16, IGNORE):
        assert window.image.shape == (8, 16, 3) and window.labels.shape == (8, 16)
        assert window.image.dtype == window.labels.dtype == np.uint8
        ys, xs = np.nonzero(window.labels != IGNORE)
        counted[ys + window.top, xs + window.left] += 1
        rebuilt[ys + window.top, xs + window.left] = window.labels[ys, xs]
        # What the window shows there is the image's pixel of that place.
        assert np.array_equal(window.image[ys, xs], image[ys + window.top, xs + window.left])
    assert np.array_equal(counted, (labels != IGNORE).astype(int))
    assert np.array_equal(rebuilt, labels)


def test_the_image_is_put_together_again_from_its_windows() -> None:
    image, labels = _picture(37, 50)
    whole = np.zeros_like(image)
    for window in windows_of(image, labels, 16, 16, IGNORE):
        whole[window.top : window.top + 16, window.left : window.left + 16] = window.image
    assert np.array_equal(whole, image)


def test_a_small_image_is_padded_with_its_mirrored_edge_and_ignored_labels() -> None:
    image, labels = _picture(3, 5)
    (window,) = windows_of(image, labels, 6, 8, IGNORE, source=4)
    assert (window.source, window.top, window.left) == (4, 0, 0)
    assert np.array_equal(window.image[:3, :5], image) and np.array_equal(window.labels[:3, :5], labels)
    assert np.array_equal(window.image[3:6, :5], image[::-1]) and np.array_equal(window.image[:3, 5:], image[:, :1:-1])
    assert (window.labels[3:] == IGNORE).all() and (window.labels[:, 5:] == IGNORE).all()


def test_the_labels_that_were_given_are_left_as_they_were() -> None:
    image, labels = _picture(20, 20)
    kept = labels.copy()
    cut = list(windows_of(image, labels, 8, 8, IGNORE))
    assert len(cut) == 9 and np.array_equal(labels, kept)


def test_windows_of_a_split_come_image_by_image(scenes) -> None:  # type: ignore[no-untyped-def]
    dataset = open_dataset(scenes)
    cut = list(windows(dataset, "val", 96, 96))
    assert [w.source for w in cut] == [0] * 4 + [1] * 4
    assert sum(int((w.labels != IGNORE).sum()) for w in cut) == 2 * 128 * 128
    assert [(w.top, w.left) for w in cut[:4]] == [(0, 0), (0, 32), (32, 0), (32, 32)]
