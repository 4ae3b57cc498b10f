"""A file as bytes: that it is there, and what it hashes to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edpct import weights
from edpct.errors import EngineError

_CHUNK = 1 << 20


def require_file(path: Path) -> None:
    """Refuse a path that is missing, a directory, or empty.

    Raises:
        EngineError: naming which of the three.
    """
    if not path.exists():
        raise EngineError(f"There is no file {path}.", weights.names_like(path) or "Check the path.")
    if not path.is_file():
        raise EngineError(f"{path} is a directory, not an engine.", "Name a file inside it.")
    if path.stat().st_size == 0:
        raise EngineError(f"{path.name} is empty.", "Its export or copy was cut short: make it again.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        EngineError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from error
    return digest.hexdigest()
