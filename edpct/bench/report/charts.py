"""The charts of a report, as SVG without scripts.

Every chart is drawn twice, for a phone and for a desk, so that its letters are legible on both; the style sheet shows
one of them. An engine has one colour and a runtime one shape throughout; neither is the only thing that tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from edpct.bench.report.cautions import UNSTEADY, drift_of
from edpct.bench.report.claim import SCOPE_TITLES, accuracy_of, label_of, main_scope, variant_of
from edpct.bench.report.schema import AccuracyReport, LatencyReport, Report, RowReport
from edpct.bench.report.svg import (
    MARKS,
    Scale,
    around,
    box,
    colour,
    drawing,
    line,
    mark,
    number,
    shortened,
    tag,
    words,
)
from edpct.bench.report.tables import classes_of, scored_rows
from edpct.bench.report.wording import ms

NARROW, WIDE = 350.0, 920.0
BESIDE_LETTERS = 30  # longer names stand above their strips
BESIDE = 15.0  # where strips begin that have names beside them, at least
PHASES = ("decode", "preprocess", "infer", "argmax")

Scored: TypeAlias = list[tuple[str, AccuracyReport]]  # title and accuracy


def engines_of(report: Report) -> dict[str, str]:
    """The colour class of every engine; the reference has the first one, which is the colour of ink."""
    names = [report.reference_row().name, *(row.name for row in report.rows)]
    return {name: colour(index) for index, name in enumerate(dict.fromkeys(names))}


def shapes_of(report: Report) -> dict[str, str]:
    """The shape of every runtime with its options."""
    names = dict.fromkeys(variant_of(row, report) for row in report.rows)
    return {name: MARKS[index % len(MARKS)] for index, name in enumerate(names)}


def both(key: str, draw: Callable[[str, float], str]) -> str:
    """A drawing for a desk and one for a phone; ``draw`` takes a key and the width."""
    wide = tag("div", draw(f"{key}-wide", WIDE), class_="wide")
    return wide + tag("div", draw(f"{key}-narrow", NARROW), class_="narrow")


# ---- rows, one under the other


def _rows(
    key: str, width: float, x: Scale, report: Report, rows: list[RowReport], title: str, unit: str,
    draw: Callable[[RowReport, float], tuple[str, str]], note: str,
) -> str:  # fmt: skip
    """A labelled strip per row on a shared axis: the name beside it where there is room, above it where not.

    Args:
        draw: markup of a row whose middle is at the given height, and the text at its right end.
        note: of the whole chart, for those who cannot see it.
    """
    wide, beside = width == WIDE, x.start > BESIDE
    pitch, top = (30.0, 8.0) if beside else (46.0, 4.0)
    bottom = top + pitch * len(rows)
    ticks = x.ticks(8 if wide else 4)
    parts = [line(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    parts += [words(x(tick), bottom + 16, number(tick), "tick", "middle") for tick in ticks]
    parts.append(words(x.end, bottom + 34, unit, "axis", "end"))
    colours, told = engines_of(report), []
    for index, row in enumerate(rows):
        middle = top + pitch * index + (15 if beside else 32)
        markup, text = draw(row, middle)
        name = label_of(row, report)
        told.append(f"{name}: {text}")
        place = (x.start - 12, middle + 4.5, "end") if beside else (x.start, middle - 15, "start")
        letters = BESIDE_LETTERS if beside else 80 if wide else 24
        label = words(place[0], place[1], shortened(name, letters), f"label {colours[row.name]}", place[2])
        value = words(width - 2, middle + 4.5 if beside else middle - 15, text, "value", "end")
        parts.append(label + markup + value)
    return drawing(key, width, bottom + 42, title, f"{note} {'; '.join(told)}", "".join(parts))


def _span(width: float, report: Report) -> tuple[float, float]:
    """Where the strips begin and end: beside the names, or under them where these are long."""
    longest = max(len(label_of(row, report)) for row in report.rows)
    if width == WIDE and longest <= BESIDE_LETTERS:
        return 12 + 8 * longest, WIDE - 130.0
    return 14.0, width - 16


def latency_chart(report: Report) -> str:
    """The distribution of every row's latencies: whole range, 5 to 95 %, middle half, median, p99."""
    scope = main_scope(report)
    rows = [row for row in report.rows if scope in row.latency and len(row.latency[scope].quantiles) >= 2]
    if not rows:
        return ""
    values = [v for row in rows for v in (*row.latency[scope].quantiles, row.latency[scope].p99)]
    note = "Per row the whole range, 5 to 95 %, the middle half, the median and p99."

    def draw(key: str, width: float) -> str:
        x = around(values, *_span(width, report), log=min(values) > 0)
        unit = f"ms, {SCOPE_TITLES[scope]}{', logarithmic' if x.log else ''}"

        def strip(row: RowReport, y: float) -> tuple[str, str]:
            found = row.latency[scope]
            return _strip(x, y, found, engines_of(report)[row.name]), f"{ms(found.p50)} / {ms(found.p99)}"

        return _rows(key, width, x, report, rows, "Distribution of latency", unit, strip, note)

    return both("latency", draw)


def _strip(x: Scale, y: float, found: LatencyReport, hue: str) -> str:
    def at(share: float) -> float:
        """Quantiles may be 101 or fewer; between two of them the nearer one is taken."""
        return x(found.quantiles[round(share * (len(found.quantiles) - 1))])

    parts = [line(at(0), y, at(1), y, f"reach {hue}")]
    parts += [
        box(at(low), y - half, max(at(high) - at(low), 1.0), 2 * half, f"{name} {hue}")
        for low, high, half, name in ((0.05, 0.95, 4.0, "most"), (0.25, 0.75, 6.5, "half"))
    ]
    parts.append(line(x(found.p50), y - 9, x(found.p50), y + 9, "median"))
    parts.append(mark("diamond", x(found.p99), y, f"tail {hue}", size=4))
    return "".join(parts)


def phases_chart(report: Report) -> str:
    """What an end-to-end frame is made of, as a stacked bar per row; empty where that was not measured."""
    rows = [row for row in report.rows if "end_to_end" in row.latency and row.latency["end_to_end"].phases]
    if not rows:
        return ""
    most = max(sum(row.latency["end_to_end"].phases.values()) for row in rows)

    def draw(key: str, width: float) -> str:
        x = Scale(0.0, most * 1.02 or 1.0, *_span(width, report))

        def stack(row: RowReport, y: float) -> tuple[str, str]:
            parts, at = [], 0.0
            phases = row.latency["end_to_end"].phases
            for name in phases_of(report):
                if (took := phases.get(name, 0.0)) > 0:
                    style, told = f"phase {phase_class(name)}", f"{name} {ms(took)} ms"
                    parts.append(box(x(at), y - 8, x(at + took) - x(at), 16, style, told))
                    at += took
            return "".join(parts), f"{ms(at)} ms, {phases.get('infer', 0.0) / at:.0%}" if at else "–"

        note = "Per row the medians of the phases, added up; the share is that of the inference itself."
        return _rows(key, width, x, report, rows, "Phases of an end-to-end frame", "ms, medians added up", stack, note)

    return both("phases", draw)


def phases_of(report: Report) -> list[str]:
    """The phases that were measured, in the order in which they happen."""
    found = {name for row in report.rows if "end_to_end" in row.latency for name in row.latency["end_to_end"].phases}
    return [name for name in PHASES if name in found] + sorted(found.difference(PHASES))


def phase_class(phase: str) -> str:
    """The style of a phase; those that are not known share one."""
    return f"p-{phase}" if phase in PHASES else "p-other"


# ---- steadiness


def steadiness_charts(report: Report) -> list[tuple[str, str, str]]:
    """For every row with several turns: label, colour class, and a line of the turns' medians over the row's median."""
    scope = main_scope(report)
    rows = [row for row in report.rows if scope in row.latency and len(row.latency[scope].rounds) > 1]
    shares = {id(row): [turn / row.latency[scope].p50 for turn in row.latency[scope].rounds] for row in rows}
    # One range for all, and never a narrow one: a still machine must look still.
    reach = max([1.15, *(max(max(s), 1 / max(min(s), 1e-9)) for s in shares.values())], default=1.15)
    reach = min(reach, 10.0)
    return [
        (label_of(row, report), engines_of(report)[row.name], _spark(f"turns-{i}", row, shares[id(row)], reach, report))
        for i, row in enumerate(rows)
    ]


def _spark(key: str, row: RowReport, shares: list[float], reach: float, report: Report) -> str:
    width, height = 172.0, 56.0
    x = Scale(0, len(shares) - 1, 8, width - 58)
    y = Scale(1 / reach, reach, height - 8, 8, log=True)
    spots = [(x(i), y(share)) for i, share in enumerate(shares)]
    hue = engines_of(report)[row.name]
    path = "M" + "L".join(f"{px:g},{py:g}" for px, py in spots)
    parts = [line(8, y(1), width - 58, y(1), "grid"), tag("path", d=path, class_=f"turns {hue}")]
    parts += [
        mark("circle", px, py, hue, f"turn {i}: {share:.0%} of the median", 3)
        for i, ((px, py), share) in enumerate(zip(spots, shares, strict=True), 1)
    ]
    drift = max(shares) / min(shares) if min(shares) > 0 else drift_of(row)
    parts.append(words(width - 2, height / 2 + 4, f"×{drift:.2f}", "value bad" if drift > UNSTEADY else "value", "end"))
    told = "Medians of the turns over the row's median: " + ", ".join(f"{share:.2f}" for share in shares)
    return drawing(key, width, height, f"Turns of {label_of(row, report)}", told, "".join(parts))


# ---- classes


def class_chart(report: Report) -> str:
    """IoU per class: a point an engine, in the order of the legend; a rule at the reference's."""
    scored = scored_rows(report)
    if not scored:
        return ""
    colours = engines_of(report)
    hues = [colours[row.name] for row in report.rows if row.accuracy is not None]
    base = accuracy_of(report.reference_row(), report)
    classes = classes_of(scored)
    step, air = 13.0, 16.0

    def draw(key: str, width: float) -> str:
        wide = width == WIDE
        start, head = (140.0, 0.0) if wide else (14.0, 18.0)
        pitch = step * len(scored) + air + head
        bottom = 6 + pitch * len(classes)
        x = Scale(0, 100, start, width - 20)
        parts = [line(x(tick), 6, x(tick), bottom, "grid") for tick in x.ticks(10 if wide else 5)]
        parts += [words(x(tick), bottom + 16, number(tick), "tick", "middle") for tick in x.ticks(10 if wide else 5)]
        for index, name in enumerate(classes):
            top = 6 + pitch * index
            place = (start - 12, top + pitch / 2 + 4, "end") if wide else (start, top + 20, "start")
            parts.append(words(place[0], place[1], shortened(name, 17 if wide else 40), "label", place[2]))
            parts.append(_class_points(x, top + head + air / 2 + step / 2, step, name, scored, hues, base))
            parts.append(line(0, top + pitch, width, top + pitch, "grid"))
        parts.append(words(width - 20, bottom + 34, "IoU %", "axis", "end"))
        told = "; ".join(f"{name}: {', '.join(_told(name, scored))}" for name in classes)
        return drawing(key, width, bottom + 42, "IoU per class", told, "".join(parts))

    return both("classes", draw)


def _class_points(
    x: Scale, top: float, step: float, name: str, scored: Scored, hues: list[str], base: AccuracyReport | None
) -> str:
    parts = []
    against = base.iou.get(name) if base is not None else None
    if against is not None:
        parts.append(line(x(100 * against), top - step / 2, x(100 * against), top + step * (len(scored) - 0.5), "rule"))
    for index, (title, score) in enumerate(scored):
        value, y = score.iou.get(name), top + step * index
        if value is None:
            continue
        if against is not None:
            parts.append(line(x(100 * against), y, x(100 * value), y, f"join {hues[index]}"))
        parts.append(mark("circle", x(100 * value), y, hues[index], f"{title}, {name}: {100 * value:.1f} %", 4.5))
    return "".join(parts)


def _told(name: str, scored: Scored) -> list[str]:
    return [f"{title} {100 * value:.1f}" for title, score in scored if (value := score.iou.get(name)) is not None]


def mark_icon(kind: str) -> str:
    """A runtime's shape for the legend."""
    return tag("svg", mark(kind, 8, 8, "e-more", size=5), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")
