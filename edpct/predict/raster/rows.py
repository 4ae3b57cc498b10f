"""Finished rows of a map, appended to a file as they come, so that what was predicted outlives a kill.

Rows are raw bytes behind each other; GDAL reads such a file with an ENVI header beside it
(https://gdal.org/drivers/raster/envi.html). Nothing is written twice; a row that is only partly there is made again.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.errors import RunError
from edpct.predict.part import is_text, part_of

HEADER = (
    "ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
    "data type = 1\ninterleave = bil\nbyte order = 0\n"
)
STATE = "job.json"
LEAST = 16  # bytes; GDAL does not look at a file that is shorter


class Rows:
    """A growing file of rows: (height, bands, width), uint8, row by row.

    Args:
        path: of the file; the header goes beside it.
        begin: row to go on at; what the file has beyond it is dropped.
    """

    def __init__(self, path: Path, width: int, bands: int = 1, begin: int = 0) -> None:
        self.path, self._width, self._bands = path, width, bands
        self.count = begin
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(begin * self._stride)
        self._file.seek(0, os.SEEK_END)

    @property
    def _stride(self) -> int:
        return self._width * self._bands

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Rows (n, width), or (n, bands, width)."""
        data = np.ascontiguousarray(rows).reshape(-1).data
        while data:  # an unbuffered file may take less than it is given
            data = data[self._file.write(data) :]
        self.count += len(rows)

    def finish(self) -> None:
        """Write the header and close."""
        header = HEADER.format(width=self._width, height=self.count, bands=self._bands)
        self.path.with_suffix(".hdr").write_text(header, encoding="ascii")
        if self.count * self._stride < LEAST:
            self._file.write(bytes(LEAST))
        self.close()

    def close(self) -> None:
        self._file.close()


def rows_in(path: Path, width: int, bands: int = 1) -> int:
    """How many whole rows a file of :class:`Rows` has; 0 without a file."""
    return path.stat().st_size // (width * bands) if path.exists() else 0


class Workspace:
    """The hidden folder beside a result in which it grows; another process is kept out.

    Args:
        out: of the result.
        facts: what the result depends on, plain JSON values; where others were written down, all is begun anew.

    Attributes:
        resumed: whether there is something of the same facts.

    Raises:
        RunError: it cannot be made, or another process works in it.
    """

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        self.folder = part_of(out)
        if not is_text(str(self.folder)):
            raise RunError(f"The name of {out.parent} is not UTF-8, and GDAL cannot write there.", "Rename it.")
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise RunError(f"{out.parent} cannot be written: {error.strerror}.", "Choose another --out.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RunError(f"Another edpct is making {out}.", "Wait for it, or choose another --out.") from error
        self.resumed = self._facts() == facts
        if not self.resumed:
            self._empty()
            (self.folder / STATE).write_text(json.dumps(facts), encoding="utf-8")

    def _facts(self) -> Any:
        try:
            return json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.name != ".lock":
                path.unlink()

    def remove(self) -> None:
        """It is not needed any more: the result is in its place."""
        self._empty()
        (self.folder / ".lock").unlink()
        self.folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()
