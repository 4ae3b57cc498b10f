"""Finished rows of a map, appended to a file as they come, so that what was predicted outlives a kill.

The rows lie behind each other, as raw bytes, and nothing is written twice; a row that is only partly there is made
again. Once all are there, a directory at the end makes a BigTIFF of the file, whose strips are hundreds of rows each
(TIFF 6.0, section 2; https://libtiff.gitlab.io/libtiff/specification/bigtiff.html). GDAL cuts tiles out of such strips
in a fifth of the time that it needs for raw rows.
"""

from __future__ import annotations

import errno
import fcntl
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.errors import RunError
from edpct.predict.part import is_text, part_of

STATE = "job.json"
STRIP = 512  # rows; as high as the tiles that are cut out of it
SHORT, LONG, LONG8 = 3, 4, 16  # types of TIFF
HEADER = struct.Struct("<2sHHHQ")


class Rows:
    """A growing file of rows of one band, uint8.

    Args:
        path: of the file.
        width: pixels of a row.
        begin: row to go on at; what the file has beyond it is dropped.
    """

    def __init__(self, path: Path, width: int, begin: int = 0) -> None:
        self.path, self._width, self.count = path, width, begin
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._write(_header(0))
        self._file.truncate(self._end)
        self._file.seek(self._end)

    @property
    def _end(self) -> int:
        return HEADER.size + self.count * self._width

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Rows (n, width)."""
        self._write(np.ascontiguousarray(rows).reshape(-1).data)
        self.count += len(rows)

    def finish(self) -> None:
        """Make a TIFF of it and close."""
        room = -self._end % 8  # a directory lies at an even place
        place = self._end + room
        self._write(bytes(room) + _directory(self._width, self.count, place))
        self._file.seek(0)
        self._write(_header(place))
        self.close()

    def _write(self, data: bytes | memoryview) -> None:
        while data:  # an unbuffered file may take less than it is given
            data = data[self._file.write(data) :]

    def close(self) -> None:
        self._file.close()


def _header(directory: int) -> bytes:
    """The first bytes of a BigTIFF, which say where its directory is."""
    return HEADER.pack(b"II", 43, 8, 0, directory)


def _directory(width: int, height: int, place: int) -> bytes:
    """The directory of a BigTIFF of one band, uint8, not compressed, whose rows begin behind the header."""
    starts = range(0, height, STRIP)
    offsets = [HEADER.size + start * width for start in starts]
    sizes = [(min(start + STRIP, height) - start) * width for start in starts]
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8]),  # bits
        259: (SHORT, [1]),  # not compressed
        262: (SHORT, [1]),  # 0 is black
        273: (LONG8, offsets),
        277: (SHORT, [1]),  # band
        278: (LONG, [STRIP]),
        279: (LONG8, sizes),
    }
    beyond = place + 8 + 20 * len(tags) + 8  # where lists go that are longer than an entry has room for
    entries, lists = struct.pack("<Q", len(tags)), b""
    for tag, (kind, values) in tags.items():
        value = values[0]
        if len(values) > 1:
            value = beyond + len(lists)
            lists += struct.pack(f"<{len(values)}Q", *values)
        entries += struct.pack("<HHQQ", tag, kind, len(values), value)
    return entries + struct.pack("<Q", 0) + lists


def rows_in(path: Path, width: int) -> int:
    """How many whole rows a file of :class:`Rows` has, or more if it was finished; 0 without a file."""
    return max(path.stat().st_size - HEADER.size, 0) // width if path.exists() else 0


class Workspace:
    """The hidden folder beside a result in which it grows; another process is kept out where files can be locked.

    Args:
        out: of the result.
        state: what the result depends on, plain JSON values; where another was written down, all is begun anew.

    Attributes:
        resumed: whether there is something of the same state.

    Raises:
        RunError: it cannot be made, or another process works in it.
    """

    def __init__(self, out: Path, state: dict[str, Any]) -> None:
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
            if error.errno in (errno.EAGAIN, errno.EACCES):  # else the file system has no locks
                self._lock.close()
                raise RunError(f"Another edpct is making {out}.", "Wait for it, or choose another --out.") from error
        self.resumed = state_of(out) == state
        if not self.resumed:
            self._empty()
            (self.folder / STATE).write_text(json.dumps(state), encoding="utf-8")

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


def state_of(out: Path) -> Any:
    """What an unfinished result depends on, as its :class:`Workspace` has it; None where there is none."""
    try:
        return json.loads((part_of(out) / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
