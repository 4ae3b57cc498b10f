"""Windows that are put together again: weights, ramps, and that rows come out whole in the order of the image."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edpct.predict.stitch import FULL, LATTICE, Blend, Grid, Middle, Span, shares_of, spans

WINDOW = 24
SIZES = [(24, 24), (10, 7), (25, 49), (40, 100), (47, 24), (1, 200)]
OVERLAPS = [0, 2, 8]


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("phase", [0, 5, 23])
@pytest.mark.parametrize("length", [1, 5, 24, 25, 31, 40, 47, 48, 49, 100, 1000])
def test_weights_add_up_to_one_at_every_pixel(length: int, overlap: int, phase: int) -> None:
    total = np.zeros(length)
    found = spans(length, WINDOW, overlap, phase)
    for span in found:
        assert span.start <= span.first < span.last <= span.start + WINDOW
        total[span.first : span.last] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert all(after.start - before.start <= WINDOW - overlap for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("overlap", [0, 32, 64, 170])
@pytest.mark.parametrize("phase", [0, 1, 31, 479, 480, 1_000_003, -5])
@pytest.mark.parametrize("length", [512, 513, 544, 900, 1024, 1500, 20000])
def test_large_windows_begin_on_a_lattice_of_32_pixels(length: int, phase: int, overlap: int) -> None:
    total = np.zeros(length)
    found = spans(length, 512, overlap, phase)
    for span in found:
        assert len(found) == 1 or (span.start + phase) % LATTICE == 0
        assert span.start <= span.first < span.last <= span.start + 512
        total[span.first : span.last] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert -LATTICE < found[0].start <= 0
    assert length <= found[-1].start + 512 < length + LATTICE or len(found) == 1
    for before, after in itertools.pairwise(found):
        assert after.start - before.start <= 512 - overlap


@pytest.mark.parametrize("overlap", [0, 32, 64, 170])
@pytest.mark.parametrize("begin", [0, 17, 480, 1000, 1999])
def test_a_crop_is_cut_into_the_windows_of_the_whole(begin: int, overlap: int) -> None:
    """All but the first and the last, wherever both lie on the map."""
    phase = 7
    whole = {span.start + phase for span in spans(9000, 512, overlap, phase)[1:-1]}
    inner = [span.start + phase + begin for span in spans(4000, 512, overlap, phase + begin)[1:-1]]
    assert len(inner) >= 4 and set(inner) <= whole
    assert {position % LATTICE for position in inner} == {0}


def test_no_pixel_is_taken_from_the_edge_of_a_window_but_at_the_edge_of_the_image() -> None:
    first, *inner, last = spans(200, WINDOW, 8)
    assert (first.first, last.last) == (0, 200)
    for span in inner:
        top, bottom = span.middle
        assert top - span.start >= 4 and span.start + WINDOW - bottom >= 4


@pytest.mark.parametrize("overlap", [-2, 3, 10])
def test_an_overlap_that_cannot_be(overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap of {overlap}"):
        spans(100, WINDOW, overlap)


def _stitched(
    grid: Grid, answers: dict[tuple[int, int], NDArray[Any]], stitcher: Any, first: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    classes, shares = [], []
    for row in grid.rows[first:]:
        for column in grid.columns:
            stitcher.add(answers[row.start, column.start], row, column)
        done, share = stitcher.finish(row)
        classes.append(done.copy())
        shares.append(share)
    return np.concatenate(classes), None if shares[0] is None else np.concatenate(shares, axis=1)


def _answers(grid: Grid, make: Callable[[], NDArray[Any]]) -> dict[tuple[int, int], NDArray[Any]]:
    """Windows that contradict each other wherever they overlap."""
    return {(row.start, column.start): make() for row, column in grid}


def _over_image(grid: Grid, row: Span, column: Span, window: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A window's values and weights at the size of the image, (..., height, width)."""
    values = np.zeros((*window.shape[:-2], grid.height, grid.width))
    weights = np.zeros((grid.height, grid.width))
    place = slice(row.first, row.last), slice(column.first, column.last)
    values[(..., *place)] = window[..., row.used, column.used]
    weights[place] = np.outer(row.weight, column.weight)
    return values, weights


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("size", SIZES)
def test_logits_are_added_with_their_weights(size: tuple[int, int], overlap: int) -> None:
    rng = np.random.default_rng(1)
    grid = Grid.over(size, (WINDOW, WINDOW), overlap)
    answers = _answers(grid, lambda: rng.normal(size=(3, WINDOW, WINDOW)).astype(np.float32))
    expected = np.zeros((3, *size))
    for row, column in grid:
        values, weights = _over_image(grid, row, column, answers[row.start, column.start])
        expected += values * weights
    classes, shares = _stitched(grid, answers, Blend(3, size[1], probabilities=True))
    assert (classes != expected.argmax(0)).mean() < 1e-3  # all but ties in float32
    softmax = np.exp(expected) / np.exp(expected).sum(0)
    assert shares is not None
    np.testing.assert_allclose(shares / FULL, softmax, atol=0.51 / FULL)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("size", SIZES)
def test_classes_are_of_the_window_that_weighs_most(size: tuple[int, int], overlap: int) -> None:
    grid = Grid.over(size, (WINDOW, WINDOW), overlap)
    number = iter(range(256))

    def whole() -> NDArray[np.uint8]:
        return np.full((WINDOW, WINDOW), next(number), np.uint8)

    answers = _answers(grid, whole)
    weights = np.stack([_over_image(grid, row, column, answers[row.start, column.start])[1] for row, column in grid])
    classes, shares = _stitched(grid, answers, Middle(size[1]))
    assert shares is None and classes.shape == size
    chosen = np.take_along_axis(weights, classes[None].astype(np.int64), 0)[0]
    np.testing.assert_array_equal(chosen, weights.max(0))


@pytest.mark.parametrize("kind", ["logits", "classes"])
def test_beginning_one_row_early_gives_the_rest_as_a_whole_run_does(kind: str) -> None:
    rng = np.random.default_rng(2)
    grid = Grid.over((100, 60), (WINDOW, WINDOW), 8)
    if kind == "logits":
        answers = _answers(grid, lambda: rng.normal(size=(3, WINDOW, WINDOW)).astype(np.float32))
    else:
        answers = _answers(grid, lambda: rng.integers(0, 3, (WINDOW, WINDOW), np.uint8))

    def stitcher() -> Any:
        return Blend(3, 60) if kind == "logits" else Middle(60)

    whole, _ = _stitched(grid, answers, stitcher())
    later, _ = _stitched(grid, answers, stitcher(), first=1)
    begun = grid.rows[2].first
    np.testing.assert_array_equal(later[begun - grid.rows[1].first :], whole[begun:])


def test_shares_are_the_softmax_however_large_the_logits() -> None:
    logits = np.array([[[1000.0, 0.0]], [[1000.0, np.log(3.0)]]], np.float32)
    np.testing.assert_array_equal(shares_of(logits)[:, 0].T, [[128, 128], [64, 191]])
