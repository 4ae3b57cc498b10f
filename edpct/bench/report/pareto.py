"""Accuracy over speed: the chart on which engines are chosen."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

from edpct.bench.report.charts import NARROW, WIDE, both, engines_of, shapes_of
from edpct.bench.report.claim import SCOPE_TITLES, accuracy_of, label_of, main_scope, variant_of
from edpct.bench.report.schema import AccuracyReport, LatencyReport, Report, RowReport
from edpct.bench.report.svg import LETTER, Scale, Space, around, drawing, line, mark, number, shortened, tag, words
from edpct.bench.report.wording import fps

SIZE = 13.0  # of the letters, in the pixels of the drawing
LOG_ABOVE = 10.0  # fastest over slowest from which the axis is logarithmic
HOPELESS = 0.5  # of the best mIoU
FOOT, STRIP = 44.0, 28.0  # pixels for what is written under the axis, and for engines that lie below it

Points: TypeAlias = list[tuple[RowReport, LatencyReport, AccuracyReport]]
Spots: TypeAlias = list[tuple[float, float]]


def pareto_chart(report: Report) -> str:
    """mIoU over FPS, a point a row; empty where accuracy or speed is missing."""
    scope = main_scope(report)
    points = [
        (row, row.latency[scope], score)
        for row in report.rows
        if scope in row.latency and (score := accuracy_of(row, report)) is not None
    ]
    return both("pareto", lambda key, width: _draw(key, width, points, report)) if points else ""


def _draw(key: str, width: float, points: Points, report: Report) -> str:
    height = 400.0 if width == WIDE else 340.0
    x, y = _axes(points, width, height - FOOT)
    title = f"FPS ({SCOPE_TITLES[main_scope(report)]}{', logarithmic' if x.log else ''}) →"
    parts = [_grid(x, y, width, height - FOOT), words(width - 22, height - 6, title, "axis", "end")]
    parts.append(words(4, 10, "mIoU %", "axis"))
    spots = [
        (x(latency.fps), height - FOOT - STRIP / 2 if _hopeless(score, points) else y(100 * score.miou))
        for _, latency, score in points
    ]
    colours, shapes, space = engines_of(report), shapes_of(report), Space(x.start, width, height - FOOT + 4)
    parts.append(_frontier(spots))
    for (row, latency, score), (px, py) in zip(points, spots, strict=True):
        hue, (low, high) = colours[row.name], (x(edge) for edge in _speeds(latency))
        parts.append(line(low, py, high, py, f"error {hue}"))
        if not _hopeless(score, points):
            bottom, top = (y(100 * edge) for edge in score.interval)
            parts.append(line(px, bottom, px, top, f"error {hue}"))
        text = f"{label_of(row, report)}: {fps(latency.fps)} FPS, {100 * score.miou:.2f} % mIoU"
        parts.append(mark(shapes[variant_of(row, report)], px, py, hue, text))
        space.take(px, py, 7)
    parts += _labels(points, spots, space, colours, 14 if width == NARROW else 28)
    return drawing(key, width, height, "mIoU over FPS", _told(points, report), "".join(parts))


def _axes(points: Points, width: float, bottom: float) -> tuple[Scale, Scale]:
    """FPS and mIoU; with a strip under the latter where an engine is below its axis."""
    speeds = [edge for _, latency, _ in points for edge in (*_speeds(latency), latency.fps)]
    shares = [100 * edge for _, _, score in points if not _hopeless(score, points) for edge in score.interval]
    strip = STRIP if any(_hopeless(score, points) for _, _, score in points) else 0.0
    x = around(speeds, 46.0, width - 22, log=max(speeds) / min(speeds) > LOG_ABOVE)
    return x, around(shares, bottom - strip, 14.0, floor_at=0.0)


def _hopeless(score: AccuracyReport, points: Points) -> bool:
    """Whether an engine is drawn at the lower edge with its value: to scale, it would squeeze those to choose from."""
    return score.miou < HOPELESS * max(other.miou for _, _, other in points)


def _speeds(latency: LatencyReport) -> tuple[float, float]:
    """The interval of the median as FPS, slow end first."""
    frames = latency.fps * latency.p50  # batch * 1000
    low, high = latency.interval
    return (frames / high, frames / low) if low > 0 else (latency.fps, latency.fps)


def _labels(points: Points, spots: Spots, space: Space, colours: dict[str, str], letters: int) -> list[str]:
    """An engine's name once, at its fastest point; a thin line joins the points of one engine."""
    parts = []
    for name in dict.fromkeys(row.name for row, _, _ in points):
        own = sorted(spot for (row, _, _), spot in zip(points, spots, strict=True) if row.name == name)
        parts += [line(*a, *b, f"join {colours[name]}") for a, b in pairwise(own)]
        text, (px, py) = shortened(name, letters), own[-1]
        score = next(score for row, _, score in points if row.name == name)
        text += f" ↓ {100 * score.miou:.1f} %" if _hopeless(score, points) else ""
        left, base, far = space.place(px, py, text, SIZE)
        if far:
            nearest = min(max(px, left), left + len(text) * SIZE * LETTER)
            parts.append(line(px, py, round(nearest, 2), base - 4 if base < py else base - SIZE, "leader"))
        parts.append(words(left, base, text, f"name {colours[name]}"))
    return parts


def _told(points: Points, report: Report) -> str:
    return "; ".join(
        f"{label_of(row, report)}: {fps(latency.fps)} FPS, {100 * score.miou:.1f} %" for row, latency, score in points
    )


def _frontier(spots: Spots) -> str:
    """A staircase through the points that no other one beats in both.

    It goes down before it goes right: at a speed between two points, only the faster one's accuracy can be had.
    """
    best = [(x, y) for x, y in spots if not any(u >= x and v <= y and (u, v) != (x, y) for u, v in spots)]
    best = sorted(set(best))
    if len(best) < 2:
        return ""
    path = f"M{best[0][0]:g},{best[0][1]:g}"
    for (before, _), (x, y) in pairwise(best):
        path += f"L{before:g},{y:g}L{x:g},{y:g}"
    return tag("path", d=path, class_="frontier")


def _grid(x: Scale, y: Scale, width: float, bottom: float) -> str:
    """Lines at round values, and what they are."""
    left, right, top = x.start, x.end, y.end
    parts = []
    for value in y.ticks(5):
        parts.append(
            line(left, y(value), right, y(value), "grid") + words(left - 8, y(value) + 4, number(value), "tick", "end")
        )
    for value in x.ticks(8 if width == WIDE else 4):
        parts.append(
            line(x(value), bottom, x(value), top, "grid")
            + words(x(value), bottom + 16, number(value), "tick", "middle")
        )
    return "".join(parts)
