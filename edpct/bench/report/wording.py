"""How numbers are written in tables, charts and sentences: about three digits, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN = "–"


def points(low: float, high: float) -> str:
    """An interval of a difference in points."""
    return f"{low:+.2f} to {high:+.2f}"


def times(value: float) -> str:
    """A ratio with about three digits."""
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def join(parts: Iterable[str]) -> str:
    """a, b and c."""
    *most, last = list(parts) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def fps(value: float) -> str:
    """Frames a second with about three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def ms(value: float) -> str:
    """Milliseconds with about three digits."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.1f}"
