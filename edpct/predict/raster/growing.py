"""What finished rows grow into while the next are predicted: their file, the overviews, the census."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.predict.raster.ground import Census
from edpct.predict.raster.overviews import Overviews
from edpct.predict.raster.rows import HEADER, Rows, rows_in

CLASSES = "classes.rows"
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
        classes: file of all rows.
        shares: of the probabilities, one file a class; none without probabilities.
    """

    def __init__(self, folder: Path, height: int, width: int, planes: int, begin: int, census: Census) -> None:
        self._classes = Rows(folder / CLASSES, width, begin)
        self._shares = [Rows(path, width, begin) for path in _shares(folder, planes)]
        self.classes = self._classes.path
        self.shares = [plane.path for plane in self._shares]
        self._overviews, self._census = Overviews(folder, height, width), census
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edpct-write")
        self._last: Future[None] = self._thread.submit(self._count_kept, begin, width)

    def _count_kept(self, rows: int, width: int) -> None:
        with self.classes.open("rb") as file:
            file.seek(HEADER.size)
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
        if shares is not None:
            for plane, share in zip(self._shares, shares, strict=True):
                plane.append(share)
        self._classes.append(rows)
        self._take(rows)

    def finish(self) -> list[Path]:
        """All rows are there; the files of the overviews, the largest first."""
        self._last.result()
        self._classes.finish()
        for plane in self._shares:
            plane.finish()
        return self._overviews.finish()

    def close(self) -> None:
        """Let go of the files, whatever they hold."""
        self._thread.shutdown(wait=True)
        self._classes.close()
        for plane in self._shares:
            plane.close()
        self._overviews.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def kept_rows(folder: Path, width: int, planes: int) -> int:
    """How many whole rows an earlier attempt left."""
    return min(rows_in(path, width) for path in (folder / CLASSES, *_shares(folder, planes)))


def _shares(folder: Path, planes: int) -> list[Path]:
    return [folder / f"share-{plane}.rows" for plane in range(planes)]
