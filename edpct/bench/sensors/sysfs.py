"""Files of one value below /sys and /proc, read as fast as Python can.

A read is about 5 µs where the kernel holds the value in memory; a rail of a power monitor on an I2C bus takes the bus
about 0.5 ms, during which Python runs on.
"""

from __future__ import annotations

import os
from pathlib import Path

LONGEST = 4096  # bytes; sysfs hands out at most a page


def read_text(path: Path | str) -> str | None:
    """The file's text without white space around it and without the device tree's zero byte; None if unreadable."""
    try:
        return _read(path).decode(errors="replace").strip("\0 \t\n")
    except OSError:
        return None


def read_number(path: Path | str) -> int:
    """The whole number in a file.

    Raises:
        OSError: the file is not there, may not be read, or the device behind it does not answer.
        ValueError: it holds no whole number.
    """
    return int(_read(path))


def number_or_none(path: Path | str) -> int | None:
    """The whole number in a file; None where :func:`read_number` raises."""
    try:
        return read_number(path)
    except (OSError, ValueError):
        return None


def _read(path: Path | str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LONGEST)
    finally:
        os.close(descriptor)
