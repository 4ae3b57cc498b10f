"""The run folder: what a stage wrote counts once one rename has put it in place, with a manifest that can be verified.

::

    out/
      stages/prune-1f3a9c02b7/     artefacts and manifest.json; the name ends in the stage's key
      work/distil-…/               unfinished stage; survives a kill, so that training can go on
      student.onnx, report.md, …   copies of what a user wants, made last
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpct.errors import EngineError, RunError
from edpct.runtimes.artefact import sha256_of

MANIFEST = "manifest.json"
RESUME_POINT = "resume.pt"
KEY_LENGTH = 10


@dataclass(frozen=True)
class Committed:
    """A finished stage.

    Attributes:
        directory: where its artefacts lie.
        files: sha256 by file name.
        facts: what the stage reported, plain JSON values.
        seconds: how long it took, interrupted attempts of a training included.
    """

    directory: Path
    files: dict[str, str]
    facts: dict[str, Any]
    seconds: float


class RunFolder:
    """A folder of committed stages.

    Args:
        root: made if it is not there.

    Raises:
        RunError: it cannot be written, or is a file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            (root / "stages").mkdir(parents=True, exist_ok=True)
            (root / "work").mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(
                f"The run folder {root} cannot be made: {error.strerror}.", "Choose another --out."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, where the file system has locks; the lock goes with the process, however it ends.

        Raises:
            RunError: another process holds it.
        """
        with (self.root / "work" / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):  # else the file system has no locks
                    raise RunError(
                        f"Another edpct is working in {self.root}.", "Wait for it, or choose another --out."
                    ) from error
            yield

    def find(self, stage: str, key: str) -> tuple[Committed | None, str]:
        """A committed stage of this key, and why it may or may not be used (a half sentence)."""
        directory = self._stage(stage, key)
        if not directory.is_dir():
            others = any(self.root.glob(f"stages/{stage}-*"))
            return None, "settings or inputs changed" if others else "not done yet"
        reading = MANIFEST
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, str] = manifest["files"]
            done = Committed(directory, files, manifest["facts"], manifest["seconds"])
            reason = f"done {manifest['finished']}, {len(files)} files verified"
            for reading, digest in files.items():
                if sha256_of(directory / reading) != digest:
                    return self._discard(directory, f"{reading} was changed since")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EngineError):
            return self._discard(directory, f"{reading} is missing or damaged")
        return done, reason

    def workspace(self, stage: str, key: str) -> Path:
        """The folder a stage works in until it is committed; what an interrupted attempt left is still there."""
        directory = self.root / "work" / f"{stage}-{key[:KEY_LENGTH]}"
        directory.mkdir(exist_ok=True)
        return directory

    def commit(
        self, stage: str, key: str, manifest: dict[str, Any], facts: dict[str, Any], seconds: float
    ) -> Committed:
        """Turn a workspace into a committed stage: manifest written and flushed, then one rename.

        What has a name that begins with a dot, and the resume point of a training, are no artefacts and go.
        """
        workspace = self.workspace(stage, key)
        for path in workspace.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        names = sorted({path.name for path in workspace.iterdir()} - {MANIFEST, RESUME_POINT})
        files = {name: sha256_of(workspace / name) for name in names}
        content = {
            "stage": stage,
            "key": key,
            **manifest,
            "files": files,
            "facts": facts,
            "seconds": round(seconds, 2),
        }
        with (workspace / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        directory = self._stage(stage, key)
        workspace.rename(directory)
        (directory / RESUME_POINT).unlink(missing_ok=True)  # only now: a kill before the rename still needs it
        return Committed(directory, files, facts, seconds)

    def publish(self, source: Path, name: str) -> Path:
        """Put a copy of an artefact where the user looks for it."""
        target = self.root / name
        partial = target.with_name(f".{name}.partial")
        shutil.copyfile(source, partial)
        partial.replace(target)
        return target

    def _stage(self, stage: str, key: str) -> Path:
        return self.root / "stages" / f"{stage}-{key[:KEY_LENGTH]}"

    def _discard(self, directory: Path, why: str) -> tuple[None, str]:
        """Set a damaged stage aside, so that it can be made anew; nothing is deleted."""
        number = 1
        while (aside := self.root / "work" / f"damaged-{number}-{directory.name}").exists():
            number += 1
        directory.rename(aside)
        return None, why


@contextmanager
def full_disk_explained(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one sentence.

    Raises:
        RunError: the operating system could not write under ``root``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"The disk of {root} is full.", "Free some space and run the same command again.") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RunError(f"{error.filename or root} cannot be written.", "Choose another --out.") from error
        raise
