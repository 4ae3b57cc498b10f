"""Windows over something larger than an engine's input, and one answer out of theirs that shows no seams.

Neighbouring windows overlap. In the middle of every overlap lies a ramp, over which the weight of the one window falls
from 1 to 0 while that of the other rises; the weights of all windows add up to 1 at every pixel. Logits are added with
these weights; classes, where an engine gives no logits, are taken from the window that weighs most. A network sees
least at its window's edge, so that no pixel is taken from there, unless it lies at the edge of the image.

Windows come row by row. Only what a later window still adds to is kept as logits: the ramp to the right of the last
window, and the ramp below the row. So memory grows with the width of the image by some bytes a pixel of one ramp.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edpct.runtimes.labels import labels_of

Classes = NDArray[np.uint8]
Shares = NDArray[np.uint8]
FULL = 255  # what stands for a probability of 1
LATTICE = 32  # pixels; a network's deepest stage has this stride, and sees the same ground alike only in steps of it


@dataclass(frozen=True)
class Span:
    """A window along one axis, in pixels of the image.

    Attributes:
        start: where the window begins; it may lie before 0, and the window may reach beyond the end of the image.
        first, last: what is used of it, from ``first`` up to and without ``last``.
        ramp_in, ramp_out: pixels at either end of that over which its weight rises from 0 to 1, and falls back.
    """

    start: int
    first: int
    last: int
    ramp_in: int
    ramp_out: int

    @property
    def used(self) -> slice:
        """What is used of it, within the window."""
        return slice(self.first - self.start, self.last - self.start)

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """Its weight at every pixel that is used, (last - first,), 0..1."""
        weight = np.ones(self.last - self.first, np.float32)
        weight[: self.ramp_in] = _ramp(self.ramp_in)
        weight[len(weight) - self.ramp_out :] = _ramp(self.ramp_out)[::-1]
        return weight

    @property
    def ramps(self) -> tuple[slice, ...]:
        """Those ends of what is used where its weight is under 1."""
        ends = (self.ramp_in, slice(None, self.ramp_in)), (self.ramp_out, slice(-self.ramp_out, None))
        return tuple(end for length, end in ends if length)

    @property
    def middle(self) -> tuple[int, int]:
        """From and up to where it weighs most of all windows."""
        return self.first + self.ramp_in // 2, self.last - self.ramp_out // 2


def _ramp(length: int) -> NDArray[np.float32]:
    """A rise in equal steps whose mirror image complements it to 1."""
    return ((np.arange(length) + 0.5) / max(length, 1)).astype(np.float32)


def spans(length: int, window: int, overlap: int, phase: int = 0) -> list[Span]:
    """Windows that cover an axis, each sharing ``overlap`` pixels or more with the next.

    They begin at the multiples of one stride, counted from the map's origin, so that two images that share ground are
    cut into the same windows there; only the first and the last are pushed inwards. All begin on a lattice of
    :data:`LATTICE` pixels, where the window is large enough for one. With windows that begin anywhere, several times as
    many pixels change their class when an image is cropped (benchmarks/raster.py).

    Args:
        length: of the image, in pixels, 1 or more.
        overlap: pixels, even, from 0 to a third of the window, so that no three ramps meet; ramps are as long.
        phase: where the image begins, pixels from the map's origin.

    Raises:
        ValueError: an overlap that is none of these.
    """
    if overlap % 2 or not 0 <= overlap <= window // 3:
        raise ValueError(f"an overlap of {overlap} pixels for windows of {window}")
    if length <= window:
        return [Span(0, 0, length, 0, 0)]
    step = LATTICE if window - overlap >= LATTICE else 1
    stride = (window - overlap) // step * step
    # On the map: the first window, the last, and between them those at multiples of the stride.
    first = phase // step * step
    last = math.ceil((phase + length - window) / step) * step
    between = range((first // stride + 1) * stride, last, stride) if last - first > stride else ()
    begins = [begin - phase for begin in (first, *between, last)]
    borders = [(following + begin + window) // 2 for begin, following in itertools.pairwise(begins)]
    half = overlap // 2
    return [
        Span(
            begin,
            borders[index - 1] - half if index else 0,
            borders[index] + half if index < len(borders) else length,
            overlap if index else 0,
            overlap if index < len(borders) else 0,
        )
        for index, begin in enumerate(begins)
    ]


@dataclass(frozen=True)
class Grid:
    """Windows over an image.

    Attributes:
        rows, columns: the windows along each axis; every pair of them is a window of the image.
        height, width: of the image, pixels.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    height: int
    width: int

    @classmethod
    def over(
        cls, size: tuple[int, int], window: tuple[int, int], overlap: int, phase: tuple[int, int] = (0, 0)
    ) -> Grid:
        """The windows over an image (height, width); the overlap is cut to a third of a window.

        Args:
            phase: (down, right) of the image on the map, pixels, see :func:`spans`.
        """
        most = min(window) // 3
        share = min(overlap, most) // 2 * 2
        down, right = (spans(size[axis], window[axis], share, phase[axis]) for axis in (0, 1))
        return cls(tuple(down), tuple(right), *size)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        """The windows, row by row."""
        return ((row, column) for row in self.rows for column in self.columns)


class Stitcher(Protocol):
    """Makes one answer out of those of the windows, which come row by row.

    It may begin with any row; then the ramp above that row is not to be used.
    """

    def add(self, answer: NDArray[np.generic], row: Span, column: Span) -> None:
        """Take what the engine gave for a window: logits (C, h, w), or classes (h, w)."""
        ...

    def finish(self, row: Span) -> tuple[Classes, Shares | None]:
        """What is certain once a row of windows is in: the rows from ``row.first`` to ``row.last - row.ramp_out``.

        Returns:
            Classes (rows, width), uint8; and probabilities (C, rows, width), uint8 of :data:`FULL`, or None.
        """
        ...


class Blend:
    """Logits, added with the weights of their windows.

    Args:
        channels: of the logits.
        width: of the image, pixels.
        probabilities: hand out the softmax of the blended logits as well.
    """

    def __init__(self, channels: int, width: int, probabilities: bool = False) -> None:
        self._channels, self._width, self._probabilities = channels, width, probabilities
        self._above = np.zeros((channels, 0, width), np.float32)  # ramp of the last row of windows, complete
        self._below = self._above  # the same of this one, growing
        self._beside = np.zeros((channels, 0, 0), np.float32)  # ramp of the last window of this row
        self._classes = np.zeros((0, width), np.uint8)
        self._shares: Shares | None = None

    def add(self, answer: NDArray[np.generic], row: Span, column: Span) -> None:
        part = answer[:, row.used, column.used].astype(np.float32)
        for end in column.ramps:
            part[:, :, end] *= column.weight[end]
        for end in row.ramps:
            part[:, end] *= row.weight[end, None]
        if column.first == 0:
            self._begin(row)
        # What is beside has had what is above it added already.
        part[:, : row.ramp_in, column.ramp_in :] += self._above[:, :, column.first + column.ramp_in : column.last]
        part[:, :, : column.ramp_in] += self._beside
        done_rows, done_columns = part.shape[1] - row.ramp_out, part.shape[2] - column.ramp_out
        self._beside = part[:, :, done_columns:]
        place = slice(column.first, column.first + done_columns)
        self._below[:, :, place] = part[:, done_rows:, :done_columns]
        done = part[:, :done_rows, :done_columns]
        self._classes[:, place] = labels_of(done[None])[0]
        if self._shares is not None:
            self._shares[:, :, place] = shares_of(done)

    def _begin(self, row: Span) -> None:
        count = row.last - row.first - row.ramp_out
        if self._above.shape[1] != row.ramp_in:  # begun in the middle of an image
            self._above = np.zeros((self._channels, row.ramp_in, self._width), np.float32)
        self._classes = np.empty((count, self._width), np.uint8)
        self._below = np.empty((self._channels, row.ramp_out, self._width), np.float32)
        self._beside = np.zeros((self._channels, row.last - row.first, 0), np.float32)
        if self._probabilities:
            self._shares = np.empty((self._channels, count, self._width), np.uint8)

    def finish(self, row: Span) -> tuple[Classes, Shares | None]:
        self._above = self._below
        return self._classes, self._shares


class Middle:
    """Classes, where an engine gives no logits: each pixel is of the window that weighs most there.

    Args:
        width: of the image, pixels.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._above = np.zeros((0, width), np.uint8)
        self._classes = self._above

    def add(self, answer: NDArray[np.generic], row: Span, column: Span) -> None:
        (top, bottom), (left, right) = row.middle, column.middle
        if column.first == 0:
            self._classes = np.empty((row.last - row.first, self._width), np.uint8)
            self._classes[: len(self._above)] = self._above
        inner = answer[top - row.start : bottom - row.start, left - column.start : right - column.start]
        self._classes[top - row.first : bottom - row.first, left:right] = inner

    def finish(self, row: Span) -> tuple[Classes, Shares | None]:
        done = row.last - row.first - row.ramp_out
        self._above = self._classes[done:]
        return self._classes[:done], None


def shares_of(logits: NDArray[np.float32]) -> Shares:
    """Probabilities (C, ...), uint8 with 255 for 1, from logits (C, ...): their softmax."""
    powers = np.exp(logits - logits.max(axis=0))
    powers *= FULL / powers.sum(axis=0)
    return np.rint(powers).astype(np.uint8)
