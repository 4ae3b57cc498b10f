"""Memory of this process, as Linux counts it in /proc/self (proc(5)); 0 where it does not say."""

from __future__ import annotations

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_bytes() -> int:
    """What lies in memory now (VmRSS)."""
    return _field("VmRSS")


def peak_bytes() -> int:
    """The most that lay in memory since the start or the last :func:`reset_peak` (VmHWM)."""
    return _field("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew; where the kernel does not let us, it stays that of the whole process."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _field(name: str) -> int:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
