"""What the charts are drawn with: scales, shapes, text, and labels that keep out of each other's way.

Colours are classes (``e0``, ``e1``, ...) that the page's style sheet gives a value for light and for dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

LETTER = 0.6  # width of a letter over the size of its font: rather too wide, so that labels keep clear
COLOURS = 7  # engines that get a colour of their own; further ones share a grey and are told apart by their labels
MARKS = ("circle", "square", "diamond", "triangle", "down", "bar")


@dataclass(frozen=True)
class Scale:
    """From values to pixels; ``low`` is drawn at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        share = log10(at / low) / log10(high / low) if self.log else (at - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, count: int) -> list[float]:
        """Round values, about ``count`` of them."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _step((self.high - self.low) / max(count, 1))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def _step(rough: float) -> float:
    unit = 10.0 ** floor(log10(rough))
    return float(next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999))


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 2, 5, 10, ... where that is not too many, else fewer; evenly spaced to the eye."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    found: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [round(f * 10.0**d, 10) for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) <= count + 1:
            break
    return found if len(found) >= 2 else Scale(low, high, 0, 1).ticks(count)


def around(
    values: Iterable[float], start: float, end: float, log: bool = False, floor_at: float | None = None
) -> Scale:
    """A scale with some air on both sides of the values."""
    found = [value for value in values if value > 0 or not log] or [1.0]
    low, high = min(found), max(found)
    if log:
        return Scale(low / 1.15, high * 1.15, start, end, True)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low = low - air if floor_at is None else max(low - air, floor_at)
    return Scale(low, high + air, start, end)


def number(value: float) -> str:
    """A tick's label."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def tag(name: str, content: str = "", **attributes: float | str) -> str:
    """An element; attributes and their values are escaped, ``content`` is markup."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:g}" if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{text}>{content}</{name}>"


def words(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> str:
    """A line of text; its baseline is at ``y``."""
    more = {"class_": class_} if class_ else {}
    return tag("text", escape(text), x=x, y=y, text_anchor=anchor, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, title: str = "") -> str:
    """A rectangle; ``title`` is shown under the pointer."""
    content = tag("title", escape(title)) if title else ""
    return tag("rect", content, x=x, y=y, width=round(max(width, 0.0), 2), height=height, class_=class_)


def mark(kind: str, x: float, y: float, class_: str, title: str = "", size: float = 5.5) -> str:
    """A point of a chart, in one of the shapes of :data:`MARKS`."""
    content = tag("title", escape(title)) if title else ""
    if kind == "circle":
        return tag("circle", content, cx=x, cy=y, r=size, class_=class_)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        "triangle": [(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "down": [(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)],
        "bar": [(-0.5, -1.3), (0.5, -1.3), (0.5, 1.3), (-0.5, 1.3)],
    }[kind]
    points = " ".join(f"{x + size * dx:.2f},{y + size * dy:.2f}" for dx, dy in corners)
    return tag("polygon", content, points=points, class_=class_)


def colour(index: int) -> str:
    """The class of the engine at ``index``; the same in every chart and table."""
    return f"e{index}" if index < COLOURS else "e-more"


def shortened(text: str, letters: int) -> str:
    """The text, or its two ends where it is too long for a chart."""
    if len(text) <= letters:
        return text
    tail = letters // 2
    return f"{text[: letters - tail - 1]}…{text[-tail:]}"


def drawing(key: str, width: float, height: float, title: str, description: str, content: str) -> str:
    """A whole SVG; ``key`` is unique within the page."""
    head = tag("title", escape(title), id=f"{key}-t") + tag("desc", escape(description), id=f"{key}-d")
    return tag(
        "svg",
        head + content,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
    )


@dataclass
class Space:
    """What is taken of a drawing, to find a free place for the next label."""

    left: float
    width: float
    height: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def take(self, x: float, y: float, half: float) -> None:
        """Keep labels off a point."""
        self.taken.append((x - half, y - half, x + half, y + half))

    def place(self, x: float, y: float, text: str, size: float) -> tuple[float, float, bool]:
        """Left end and baseline of a label near a point, and whether it lies so far off that a line must lead to it."""
        length = len(text) * size * LETTER
        best = min(self._places(x, y, length, size), key=lambda found: found[0])
        _, left, base, far = best
        self.taken.append((left - 2, base - size, left + length + 2, base + 4))
        return round(left, 2), round(base, 2), far

    def _places(self, x: float, y: float, length: float, size: float) -> list[tuple[float, float, float, bool]]:
        """Candidates with their costs: what they overlap, then how far off they are."""
        found = []
        for rank, away in enumerate((0.0, 14.0, 28.0, 44.0, 62.0, 84.0, 108.0)):
            right, middle, left_of = x + 10 + away / 3, x - length / 2, x - 10 - length - away / 3
            above, below = y + 4 - away, y + 4 + away
            sides = (
                (right, above), (middle, above - 15), (left_of, above),
                (middle, below + 16), (right, below), (left_of, below),
            )  # fmt: skip
            for side, (left, base) in enumerate(sides):
                cost = self._overlap(left - 2, base - size, left + length + 2, base + 4)
                found.append((cost + 30 * rank + side, left, base, rank > 0))
        return found

    def _overlap(self, left: float, top: float, right: float, bottom: float) -> float:
        outside = max(self.left - left, 0) + max(right - self.width, 0) + max(-top, 0) + max(bottom - self.height, 0)
        cost = 1e5 * (outside > 0) + 1e3 * outside
        for x1, y1, x2, y2 in self.taken:
            wide, high = min(right, x2) - max(left, x1), min(bottom, y2) - max(top, y1)
            cost += 1000 + 10 * wide * high if wide > 0 and high > 0 else 0
        return cost
