"""Where a file grows before it appears, whole, under its own name."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

LONGEST = 255  # bytes of a name, on nearly every file system


def part_of(out: Path, suffix: str = "") -> Path:
    """The hidden neighbour of a file in which it grows, ``.NAME.part``.

    Args:
        suffix: of the neighbour, where what writes it goes by that.
    """
    name = f".{out.name}.part{suffix}"
    if len(os.fsencode(name)) > LONGEST or not is_text(name):
        name = f".{sha256(os.fsencode(out.name)).hexdigest()}.part{suffix}"
    return out.with_name(name)


def is_text(name: str) -> bool:
    """Whether a path can be written in UTF-8, as GDAL wants it; on Linux, names may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
