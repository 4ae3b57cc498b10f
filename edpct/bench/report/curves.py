"""The curves of a training, as SVG: validation and loss over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edpct.bench.report.charts import WIDE, both
from edpct.bench.report.document import figure, swatch
from edpct.bench.report.svg import Scale, around, colour, drawing, line, mark, number, tag, words

FOOT = 44.0  # pixels for what is written under the axis
MARKED = 40  # more points than this are a line without marks


@dataclass(frozen=True)
class Course:
    """One line of a chart: steps and values, two or more; ``faint`` where others matter more."""

    name: str
    spots: tuple[tuple[float, float], ...]
    faint: bool = False


def validation_figure(key: str, measures: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """mIoU and the IoU of every class over the steps; empty with fewer than two validations.

    Args:
        key: unique within the page.
        measures: each with "step", "miou" and "iou" (one per class or None), shares in 0..1.
        classes: names, in the order of "iou"; where there are none, only mIoU is drawn.
    """
    courses = [Course("mIoU", tuple((m["step"], 100 * m["miou"]) for m in measures))]
    for index, name in enumerate(classes):
        spots = tuple((m["step"], 100 * m["iou"][index]) for m in measures if m["iou"][index] is not None)
        courses.append(Course(name, spots, faint=True))
    caption = "IoU on the val split over optimiser steps; the strong line is the mean over the classes."
    return _figure(key, "Validation over the steps", "IoU %", courses, caption)


def loss_figure(key: str, rows: Sequence[Mapping[str, float]]) -> str:
    """The loss and its weighted terms over the steps; empty with fewer than two rows.

    Args:
        rows: each with "step", "loss" and terms by name; a term may be missing.
    """
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    courses = [
        Course(name, tuple((row["step"], row[name]) for row in rows if name in row), faint=name != "loss")
        for name in sorted(names, key=lambda name: name != "loss")
    ]
    caption = "What is minimised and its weighted terms, each the mean over the steps since the point before."
    return _figure(key, "Loss over the steps", "loss", courses, caption)


def _figure(key: str, title: str, unit: str, courses: Sequence[Course], caption: str) -> str:
    shown = [course for course in courses if len(course.spots) >= 2]
    if not shown:
        return ""
    legend = "".join(f"<li>{swatch(colour(i))}{escape(course.name)}</li>" for i, course in enumerate(shown))
    chart = both(key, lambda inner, width: _chart(inner, width, title, unit, shown))
    return figure(chart, caption, f'<ul class="legend">{legend}</ul>')


def _chart(key: str, width: float, title: str, unit: str, courses: Sequence[Course]) -> str:
    wide = width == WIDE
    height = 380.0 if wide else 300.0
    spots = [spot for course in courses for spot in course.spots]
    steps = [step for step, _ in spots]
    x = Scale(min(steps), max(steps), 46.0, width - 16)
    y = around([value for _, value in spots], height - FOOT, 18.0, floor_at=0.0)
    parts = [words(4, 10, unit, "axis"), words(x.end, height - 6, "step", "axis", "end")]
    for value in y.ticks(6):
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(words(x.start - 8, y(value) + 4, number(value), "tick", "end"))
    for value in x.ticks(8 if wide else 4):
        parts.append(line(x(value), y.start, x(value), y.end, "grid"))
        parts.append(words(x(value), y.start + 16, number(value), "tick", "middle"))
    for index, course in reversed(list(enumerate(courses))):  # the strong line last, over the others
        parts.append(_line(x, y, course, colour(index)))
    told = "; ".join(f"{c.name}: {c.spots[0][1]:.3g} at first, {c.spots[-1][1]:.3g} at last" for c in courses)
    return drawing(key, width, height, title, told, "".join(parts))


def _line(x: Scale, y: Scale, course: Course, hue: str) -> str:
    path = "M" + "L".join(f"{x(step):g},{y(value):g}" for step, value in course.spots)
    style = f"course {'faint ' if course.faint else ''}{hue}"
    parts = [tag("path", tag("title", escape(course.name)), d=path, class_=style)]
    if len(course.spots) <= MARKED:
        parts += [
            mark("circle", x(step), y(value), hue, f"{course.name}: {value:.3g} at step {step:,.0f}", 3.0)
            for step, value in course.spots
        ]
    return "".join(parts)
