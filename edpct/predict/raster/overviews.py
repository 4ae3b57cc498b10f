"""A map of classes at half its size, again and again: what a viewer shows from afar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edpct.predict.raster.rows import Rows

SMALLEST = 512  # pixels of the longer side; below it a viewer needs no smaller one


class Overviews:
    """Overviews of rows that come from the top to the bottom, each in a file of :class:`Rows`.

    The class of a pixel is the most frequent of its four, and of several such the first. (GDAL's own resampling by mode
    gives the same, at several times the cost.)

    Args:
        folder: where their files go.
        height, width: of the map, pixels.
    """

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self.levels: list[Rows] = []
        self._left: list[NDArray[np.uint8]] = []  # a row that waits for its neighbour below
        while max(height, width) > SMALLEST and min(height, width) > 1:
            self._left.append(np.empty((0, width), np.uint8))
            height, width = (height + 1) // 2, (width + 1) // 2
            self.levels.append(Rows(folder / f"half-{len(self.levels) + 1}.rows", width))

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Rows (n, width) of the map itself."""
        for index, level in enumerate(self.levels):
            rows = np.concatenate((self._left[index], rows)) if len(self._left[index]) else rows
            even = len(rows) // 2 * 2
            self._left[index] = rows[even:].copy()
            rows = half(rows[:even])
            level.append(rows)

    def finish(self) -> list[Path]:
        """Take up what is left, and close the files; their paths, the largest first."""
        rows: NDArray[np.uint8] | None = None
        for index, level in enumerate(self.levels):
            waiting = self._left[index] if rows is None else np.concatenate((self._left[index], rows))
            if len(waiting) % 2:
                waiting = np.concatenate((waiting, waiting[-1:]))
            rows = half(waiting)
            level.append(rows)
            level.finish()
        return [level.path for level in self.levels]

    def close(self) -> None:
        """Let go of the files, whatever they hold."""
        for level in self.levels:
            level.close()


def half(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A map (2n, w) at half its size, (n, (w + 1) // 2)."""
    if rows.shape[1] % 2:
        rows = np.concatenate((rows, rows[:, -1:]), axis=1)
    a, b, c, d = rows[::2, ::2], rows[::2, 1::2], rows[1::2, ::2], rows[1::2, 1::2]
    result = a.copy()
    alone = (a != b) & (a != c) & (a != d)
    np.copyto(result, b, where=alone & ((b == c) | (b == d)))
    np.copyto(result, c, where=alone & (c == d))  # where b agrees with one of them, this cannot be as well
    return result
