"""For tests that start workers: which child processes there are, ended or not."""

from __future__ import annotations

import os
import time
from pathlib import Path


def children() -> set[int]:
    """The child processes of this one, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(after_name[1]) == os.getpid():
                found.add(int(entry.name))
    return found


def is_alive(process: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def all_gone(processes: set[int], seconds: float = 10.0) -> bool:
    """Whether they have ended, or do so within some seconds."""
    end = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(is_alive, processes))
