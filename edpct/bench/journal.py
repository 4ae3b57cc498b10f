"""What a bench has measured so far, line by line in a file, so that one that is stopped goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edpct.errors import RunError

_START = "start"


class Journal:
    """JSON lines: a start for every sitting, then one entry for everything that was measured.

    Args:
        path: the file; None: nothing is kept.
        key: what identifies the bench; a journal of another bench is begun anew.

    Raises:
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._entries = list(_read(path)) if path is not None else []
        if not self._entries or self._entries[0].get("key") != key:
            self._entries = []
        self._entries.append({"kind": _START, "key": key})
        if path is not None:
            _replace(path, self._entries)

    @property
    def sittings(self) -> int:
        """How often the bench was begun or gone on with, this time included."""
        return len(self.found(_START))

    def found(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a kind, in order."""
        return [entry for entry in self._entries if entry["kind"] == kind]

    def add(self, kind: str, **data: Any) -> None:
        """Keep one entry; on the disk when this returns."""
        self._entries.append({"kind": kind, **data})
        if self._path is not None:
            _write(self._path, "a", self._entries[-1:])

    def finish(self) -> None:
        """Remove the file: everything stands in the report."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _write(path: Path, mode: str, entries: list[dict[str, Any]]) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write the file anew, so that a torn line at its end is gone."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        _write(partial, "w", entries)
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone, or never made
            partial.unlink()


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written: {error.strerror}.", "Check space and permissions.")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal; what follows a torn one (power went) does not count."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict) or "kind" not in entry:
            return
        yield entry
