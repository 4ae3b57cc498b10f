"""An image of any size through an engine: windows out of it, one map of classes together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edpct.predict.engine import Engine
from edpct.predict.stitch import Classes, Grid, Shares, Span

OVERLAP = 64  # pixels that neighbouring windows share

ReadRows = Callable[[int, int], NDArray[np.uint8]]
"""From the first row of an image, up to and without the last: (rows, width, 3), uint8, RGB."""


def mosaic(
    engine: Engine, grid: Grid, read: ReadRows, first: int = 0, probabilities: bool = False
) -> Iterator[tuple[Classes, Shares | None]]:
    """The map of classes of an image, from its top to its bottom, some rows at a time.

    Rows are read in a thread of its own, one row of windows ahead of those that the engine is at.

    Args:
        grid: the windows over the image, of the engine's input size.
        first: row of windows to begin with. The ramp above it lacks the row before: begin one row early, and drop it.
        probabilities: see :meth:`edpct.predict.engine.Engine.stitcher`.

    Yields:
        As :meth:`edpct.predict.stitch.Stitcher.finish`, for each row of windows.

    Raises:
        EngineError: the engine failed, or gives no probabilities and they are asked for.
        DataError: of ``read``.
    """
    stitcher = engine.stitcher(grid.width, probabilities)
    rows, (height, width) = grid.rows[first:], engine.size
    with ThreadPoolExecutor(1, thread_name_prefix="edpct-read") as reader:

        def windows() -> Iterator[tuple[tuple[Span, Span], NDArray[np.uint8]]]:
            ahead = reader.submit(_strip, grid, rows[0], height, read)
            for index, row in enumerate(rows):
                strip = ahead.result()
                if index + 1 < len(rows):
                    ahead = reader.submit(_strip, grid, rows[index + 1], height, read)
                for column in grid.columns:
                    yield (row, column), _cut(strip, column.start, width)

        last = grid.columns[-1]
        for (row, column), answer in engine.map(windows()):
            stitcher.add(answer, row, column)
            if column is last:
                yield stitcher.finish(row)


def _strip(grid: Grid, row: Span, height: int, read: ReadRows) -> NDArray[np.uint8]:
    """The rows of an image that a row of windows covers, (height, width, 3), mirrored where the image is lower."""
    rows = read(row.start, min(row.start + height, grid.height))
    missing = height - len(rows)
    return np.pad(rows, ((0, missing), (0, 0), (0, 0)), mode="symmetric") if missing else rows


def _cut(strip: NDArray[np.uint8], start: int, width: int) -> NDArray[np.uint8]:
    """A window (h, w, 3) of a strip, mirrored where the strip is narrower."""
    window = strip[:, start : start + width]
    missing = width - window.shape[1]
    return np.pad(window, ((0, 0), (0, missing), (0, 0)), mode="symmetric") if missing else window
