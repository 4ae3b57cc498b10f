"""Memory of this process, against what it allocates."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edpct.bench import memory
from edpct.bench.memory import peak_bytes, reset_peak, resident_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, on Linux")
MEGABYTE = 1_000_000


def test_memory_that_is_filled_shows_and_memory_that_is_freed_stays_in_the_peak() -> None:
    """In a process of its own, whose memory nothing else touches."""
    code = (
        "from edpct.bench.memory import *\n"
        "before = resident_bytes()\n"
        "filled = bytearray(b'1') * 200_000_000\n"
        "during = resident_bytes()\n"
        "del filled\n"
        "print(before, during, resident_bytes(), peak_bytes())\n"
        "reset_peak()\n"
        "print(peak_bytes(), resident_bytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    first, second = (list(map(int, line.split())) for line in done.stdout.splitlines())
    before, during, after, peak = first
    assert 195 * MEGABYTE < during - before < 205 * MEGABYTE
    assert after < before + 5 * MEGABYTE
    assert peak > during - 2 * MEGABYTE  # the kernel's counts may lag by some pages
    if second[0] != peak:  # where the kernel lets the peak begin anew
        assert second[0] < before + 10 * MEGABYTE


def test_the_peak_is_the_one_that_the_kernel_counts() -> None:
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < resident_bytes() <= peak_bytes() + 2 * MEGABYTE  # the kernel's counts may lag by some pages
    assert peak_bytes() <= 1.05 * counted


def test_where_nothing_tells_there_is_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nowhere" / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "nowhere" / "clear_refs")
    reset_peak()
    assert (resident_bytes(), peak_bytes()) == (0, 0)
