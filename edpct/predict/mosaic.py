"""An image of any size through an engine: windows out of it, one map of classes together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edpct.predict.engine import Engine
from edpct.predict.stitch import Classes, Grid, Shares, Span

OVERLAP = 32  # pixels that neighbouring windows share

ReadRows = Callable[[int, int], NDArray[np.uint8]]
"""From the first row of an image, up to and without the last: (rows, width, 3), uint8, RGB."""


Empty = Callable[[int, int, int, int], bool]
"""Whether a part of an image, whose rows were read, has nothing to see: first row, end, first column, end."""


def mosaic(
    engine: Engine,
    grid: Grid,
    read: ReadRows,
    first: int = 0,
    probabilities: bool = False,
    empty: Empty = lambda *part: False,
) -> Iterator[tuple[Classes, Shares | None]]:
    """The map of classes of an image, from its top to its bottom, some rows at a time.

    Rows are read in a thread of its own, one row of windows ahead of those that the engine is at.

    Args:
        grid: the windows over the image, of the engine's input size.
        first: row of windows to begin with. The ramp above it lacks the row before: begin one row early, and drop it.
        probabilities: see :meth:`edpct.predict.engine.Engine.stitcher`.
        empty: windows that the engine need not see; what comes out there means nothing.

    Yields:
        As :meth:`edpct.predict.stitch.Stitcher.finish`, for each row of windows.

    Raises:
        EngineError: the engine failed, or gives no probabilities and they are asked for.
        DataError: of ``read``.
    """
    stitcher = engine.stitcher(grid.width, probabilities)
    rows, (height, width) = grid.rows[first:], engine.size
    waiting: deque[tuple[Span, Span, bool]] = deque()  # windows cut, in order; whether the engine sees them
    nothing = np.zeros(engine.answer_shape, np.uint8)

    with ThreadPoolExecutor(1, thread_name_prefix="edpct-read") as reader:

        def windows() -> Iterator[tuple[None, NDArray[np.uint8]]]:
            ahead = reader.submit(_strip, grid, rows[0], height, read)
            for index, row in enumerate(rows):
                strip = ahead.result()
                if index + 1 < len(rows):
                    ahead = reader.submit(_strip, grid, rows[index + 1], height, read)
                top, bottom = max(row.start, 0), min(row.start + height, grid.height)
                for column in grid.columns:
                    left, right = max(column.start, 0), min(column.start + width, grid.width)
                    seen = not empty(top, bottom, left, right)
                    waiting.append((row, column, seen))
                    if seen:
                        yield None, _cut(strip, column.start, width)

        def answers() -> Iterator[tuple[Span, Span, NDArray[np.generic]]]:
            """One a window, in their order."""
            for _, answer in engine.map(windows()):
                while not waiting[0][2]:
                    yield (*waiting.popleft()[:2], nothing)
                yield (*waiting.popleft()[:2], answer)
            while waiting:
                yield (*waiting.popleft()[:2], nothing)

        last = grid.columns[-1]
        for row, column, answer in answers():
            stitcher.add(answer, row, column)
            if column is last:
                yield stitcher.finish(row)


def _strip(grid: Grid, row: Span, height: int, read: ReadRows) -> NDArray[np.uint8]:
    """The rows of an image that a row of windows covers, (height, width, 3), mirrored beyond the image's ends."""
    rows = read(max(row.start, 0), min(row.start + height, grid.height))
    return _mirrored(rows, row.start, height, 0)


def _cut(strip: NDArray[np.uint8], start: int, width: int) -> NDArray[np.uint8]:
    """A window (h, w, 3) of a strip, mirrored beyond the strip's ends."""
    return _mirrored(strip[:, max(start, 0) : start + width], start, width, 1)


def _mirrored(part: NDArray[np.uint8], start: int, length: int, axis: int) -> NDArray[np.uint8]:
    """What there is of a window that begins at ``start``, filled up to ``length`` along an axis."""
    if part.shape[axis] == length:
        return part
    before = max(-start, 0)
    ends = [(0, 0)] * part.ndim
    ends[axis] = (before, length - before - part.shape[axis])
    return np.pad(part, ends, mode="symmetric")
