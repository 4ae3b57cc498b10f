"""What finished rows grow into while the next are predicted: their file, the overviews, the census."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.predict.raster.ground import Census
from edpct.predict.raster.overviews import Overviews
from edpct.predict.raster.rows import Rows, rows_in

CLASSES, SHARES = "classes.u8", "shares.u8"
CHUNK = 512  # rows that are read back at a time


class Growing:
    """Takes rows from the top to the bottom, in a thread of its own. To be left with :meth:`close`.

    Args:
        folder: where the files are; rows of an earlier attempt up to ``begin`` are kept, and counted now.
        height, width: of the map, pixels.
        planes: probabilities a pixel; 0: none are kept.
        begin: row to go on at.
        census: counts every row once.

    Attributes:
        classes, shares: files of all rows; ``shares`` is None without probabilities.
    """

    def __init__(self, folder: Path, height: int, width: int, planes: int, begin: int, census: Census) -> None:
        self._classes = Rows(folder / CLASSES, width, begin=begin)
        self._shares = Rows(folder / SHARES, width, planes, begin=begin) if planes else None
        self.classes = self._classes.path
        self.shares = None if self._shares is None else self._shares.path
        self._overviews, self._census = Overviews(folder, height, width), census
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edpct-write")
        self._last: Future[None] = self._thread.submit(self._count_kept, begin, width)

    def _count_kept(self, rows: int, width: int) -> None:
        with self.classes.open("rb") as file:
            for first in range(0, rows, CHUNK):
                count = min(CHUNK, rows - first)
                self._take(np.frombuffer(file.read(count * width), np.uint8).reshape(count, width))

    def _take(self, rows: NDArray[np.uint8]) -> None:
        self._census.append(rows)
        self._overviews.append(rows)

    def append(self, rows: NDArray[np.uint8], shares: NDArray[np.uint8] | None) -> None:
        """Classes (n, width), not to be changed any more, and probabilities (C, n, width).

        Waits for the rows before, so that no more than these are in flight.

        Raises:
            OSError: of the rows before: the disk is full, or gone.
        """
        self._last.result()
        self._last = self._thread.submit(self._append, rows, shares)

    def _append(self, rows: NDArray[np.uint8], shares: NDArray[np.uint8] | None) -> None:
        if self._shares is not None and shares is not None:
            self._shares.append(shares.transpose(1, 0, 2))
        self._classes.append(rows)
        self._take(rows)

    def finish(self) -> list[Path]:
        """All rows are there; the files of the overviews, the largest first."""
        self._last.result()
        self._classes.finish()
        if self._shares is not None:
            self._shares.finish()
        return self._overviews.finish()

    def close(self) -> None:
        """Let go of the files, whatever they hold."""
        self._thread.shutdown(wait=True)
        self._classes.close()
        if self._shares is not None:
            self._shares.close()
        self._overviews.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def kept_rows(folder: Path, width: int, planes: int) -> int:
    """How many whole rows an earlier attempt left."""
    have = rows_in(folder / CLASSES, width)
    return min(have, rows_in(folder / SHARES, width, planes)) if planes else have
