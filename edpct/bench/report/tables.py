"""The tables of a report, and its Markdown page.

A table is a header and lines of cells, all text; a column in which nothing is known is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import (
    SCOPE_TITLES,
    accuracy_of,
    between,
    explanation_of,
    headline,
    label_of,
    machine_line,
    main_scope,
    variant_of,
)
from edpct.bench.report.schema import SCOPES, AccuracyReport, Report, RowReport, Scope
from edpct.bench.report.wording import UNKNOWN, fps, ms, points

Table: TypeAlias = tuple[list[str], list[list[str]]]
Measure = Literal["iou", "f1", "boundary_iou"]
MEASURES: dict[Measure, str] = {"iou": "IoU", "f1": "F1", "boundary_iou": "boundary IoU"}
NO_TABLE: Table = ([], [])


def table_of(report: Report) -> Table:
    """The main table: a line per engine; FPS and p99 per runtime, of one scope only."""
    scope = main_scope(report)
    suffix = "" if scope == "transfer" else f" {SCOPE_TITLES[scope]}"
    engines: dict[str, dict[str, RowReport]] = {}
    for row in report.rows:
        engines.setdefault(row.name, {}).setdefault(variant_of(row, report), row)
    variants = list(dict.fromkeys(variant_of(row, report) for row in report.rows))
    header = ["", "precision", "M params", "GMACs", "mIoU %", "boundary mIoU %"]
    header += [f"FPS {name}{suffix}" for name in variants] + [f"p99 ms {name}{suffix}" for name in variants]
    lines = []
    for name, rows in engines.items():
        first = next(iter(rows.values()))
        times = [rows[v].latency.get(scope) if v in rows else None for v in variants]
        lines.append(
            [name, first.precision, f"{first.parameters / 1e6:.2f}", f"{first.macs / 1e9:.2f}"]
            + _shares(accuracy_of(first, report))
            + [fps(found.fps) if found else UNKNOWN for found in times]
            + [ms(found.p99) if found else UNKNOWN for found in times]
            + [_sizes(list(rows.values()))]
        )
    return known([*header, "file MB"], lines)


def _shares(score: AccuracyReport | None) -> list[str]:
    if score is None:
        return [UNKNOWN, UNKNOWN]
    half = 50 * (score.interval[1] - score.interval[0])
    return [f"{100 * score.miou:.2f} ± {half:.2f}", f"{100 * score.boundary_miou:.2f}"]


def _sizes(rows: Sequence[RowReport]) -> str:
    """An engine may be one file for one runtime (ONNX) and another for the next (a plan)."""
    return " / ".join(dict.fromkeys(f"{row.file_bytes / 1e6:.2f}" for row in rows))


def scopes_table_of(report: Report) -> Table:
    """A line per row: the three scopes side by side, never mixed; then memory and power."""
    header = [""]
    for scope in SCOPES:
        header += [f"{SCOPE_TITLES[scope]} {what}" for what in ("ms", "95 % ms", "FPS")]
    header += ["runs", "peak memory MB", "GPU memory MB", "watts", "J/frame", "throttled"]
    return known(header, [_scopes_line(row, report) for row in report.rows])


def _scopes_line(row: RowReport, report: Report) -> list[str]:
    cells = [label_of(row, report)]
    for scope in SCOPES:
        cells += _scope_cells(row, scope)
    state, memory = row.state, row.memory
    runs = dict.fromkeys(str(row.latency[scope].runs) for scope in SCOPES if scope in row.latency)
    return [
        *cells,
        " / ".join(runs) or UNKNOWN,
        f"{memory.peak / 1e6:.0f}" if memory.peak > 0 else UNKNOWN,
        UNKNOWN if memory.device is None else f"{memory.device / 1e6:.0f}",
        UNKNOWN if state.watts is None else f"{state.watts:.1f}",
        UNKNOWN if state.joules_per_frame is None else f"{state.joules_per_frame:.3g}",
        UNKNOWN if state.throttled == "unknown" else state.throttled,
    ]


def _scope_cells(row: RowReport, scope: Scope) -> list[str]:
    found = row.latency.get(scope)
    if found is None:
        return [UNKNOWN] * 3
    low, high = found.interval
    return [ms(found.p50), f"{ms(low)}–{ms(high)}", fps(found.fps)]


def throughput_table_of(report: Report) -> Table:
    """A line per row that was timed with several requests in flight; empty where none was."""
    lines = []
    for row in report.rows:
        if (found := row.throughput) is not None:
            low, high = (fps(edge(found.rounds)) if found.rounds else UNKNOWN for edge in (min, max))
            cells = [str(found.streams), fps(found.fps), f"{low}–{high}", ms(found.p50), str(found.frames)]
            lines.append([label_of(row, report), *cells])
    header = ["", "requests in flight", "FPS of all", "FPS by turn", "ms of one (median)", "frames"]
    return known(header, lines) if lines else NO_TABLE


def scored_rows(report: Report) -> list[tuple[str, AccuracyReport]]:
    """Rows whose accuracy was measured, by the name of the engine where that tells them apart."""
    rows = [row for row in report.rows if row.accuracy is not None]
    names = [row.name for row in rows]
    titles = [row.name if names.count(row.name) == 1 else label_of(row, report) for row in rows]
    return [(title, row.accuracy) for title, row in zip(titles, rows, strict=True) if row.accuracy is not None]


def class_table_of(report: Report, measure: Measure = "iou") -> Table:
    """A measure per class, in percent; empty where no accuracy was measured."""
    scored = scored_rows(report)
    if not scored:
        return NO_TABLE
    classes = classes_of(scored)
    lines = []
    for title, score in scored:
        found: dict[str, float | None] = getattr(score, measure)
        values = [found.get(name) for name in classes]
        lines.append([title, *(UNKNOWN if value is None else f"{100 * value:.1f}" for value in values)])
    return [f"{MEASURES[measure]} %", *classes], lines


def class_difference_of(report: Report, measure: Measure = "iou") -> Table:
    """Points that each class won or lost against the reference engine; empty where there is nothing to compare."""
    scored = scored_rows(report)
    base = accuracy_of(report.reference_row(), report)
    others = [(title, score) for title, score in scored if score is not base]
    if base is None or not others:
        return NO_TABLE
    classes = classes_of(scored)
    theirs: dict[str, float | None] = getattr(base, measure)
    header, lines = [f"{MEASURES[measure]}, points against {report.reference_row().name}", *classes], []
    for title, score in others:
        ours: dict[str, float | None] = getattr(score, measure)
        lines.append([title, *(_points(theirs.get(name), ours.get(name)) for name in classes)])
    if measure == "iou" and any(score.difference for _, score in others):
        header[1:1] = ["mIoU", "mIoU 95 %"]
        for line, (_, score) in zip(lines, others, strict=True):
            interval = between(score)
            line[1:1] = [f"{100 * (score.miou - base.miou):+.2f}", points(*interval) if interval else UNKNOWN]
    return header, lines


def classes_of(scored: Sequence[tuple[str, AccuracyReport]]) -> list[str]:
    """All classes, in the order of the first row."""
    return list(dict.fromkeys(name for _, score in scored for name in score.iou))


def _points(before: float | None, after: float | None) -> str:
    return UNKNOWN if before is None or after is None else f"{100 * (after - before):+.1f}"


def stage_table_of(report: Report) -> Table:
    """The time of each stage of the compression, and what pruning was asked and gave; empty for a bench alone."""
    lines = [[stage.name, f"{stage.seconds:.1f}", _outcome(stage.facts)] for stage in report.stages]
    return known(["stage", "seconds", "outcome"], lines) if lines else NO_TABLE


def _outcome(facts: Mapping[str, Any]) -> str:
    if "int8_macs" in facts:
        return _precision(facts)
    if "asked" not in facts or "macs_share" not in facts:
        return UNKNOWN
    asked = ", ".join(f"{name} {value:g}" for name, value in facts["asked"].items())
    got = f"{100 * facts['macs_share']:.1f} % of the MACs"
    if speed := facts.get("speed"):
        got += f", {speed['fps']:.1f} FPS on {speed['engine']}"
    return f"asked {asked}; {got}" + ("; stopped by the bound on mIoU" if "stopped" in facts else "")


def _precision(facts: Mapping[str, Any]) -> str:
    """How much is INT8, and what was left out to hold the mIoU."""
    said = f"{100 * facts['int8_macs']:.1f} % of the MACs in INT8"
    if (guarded := facts.get("guarded")) is None:
        return said
    said += f"; {guarded['loss']:.2f} points lost on {guarded['windows']} training windows"
    left = [f"{g['name']} ({g['loss']:.2f} alone)" for g in guarded["groups"] if not g["int8"]]
    if not left:
        return said
    said += f" (all in INT8: {guarded['loss_of_all']:.2f}); FP32: {', '.join(left)}"
    faster = guarded.get("faster")
    return said if faster is None else f"{said}; all in INT8 would be {faster:.2f} times as fast"


def state_table_of(report: Report) -> Table:
    """Power, temperature, clocks and settings of the machine while each row was timed."""
    header = ["", "watts", "J/frame", "highest °C", "clocks MHz", "throttled", "sensors", "set to"]
    return known(header, [_state_line(row, report) for row in report.rows])


def _state_line(row: RowReport, report: Report) -> list[str]:
    state = row.state
    clocks = ", ".join(f"{name} {low:.0f}–{high:.0f}" for name, (low, high) in state.clocks.items())
    return [
        label_of(row, report),
        UNKNOWN if state.watts is None else f"{state.watts:.1f}",
        UNKNOWN if state.joules_per_frame is None else f"{state.joules_per_frame:.3g}",
        UNKNOWN if state.temperature is None else f"{state.temperature:.0f}",
        clocks or UNKNOWN,
        UNKNOWN if state.throttled == "unknown" else state.throttled,
        ", ".join(state.sources) or UNKNOWN,
        ", ".join(f"{name} {value}" for name, value in state.settings.items()) or UNKNOWN,
    ]


def detail_table_of(report: Report) -> Table:
    """Opening, warm-up, memory, file, and what the runtime says about itself."""
    header = [
        "",
        "opened in s",
        "warm-up s",
        "warm-up runs",
        "settled",
        "memory before MB",
        "peak MB",
        "file",
        "SHA-256",
    ]
    names = list(dict.fromkeys(name for row in report.rows for name in row.details))
    lines = []
    for row in report.rows:
        warm, memory = row.warm_up, row.memory
        cells = [label_of(row, report), f"{row.open_seconds:.2f}", f"{warm.seconds:.1f}", str(warm.runs)]
        cells += ["yes" if warm.steady else "no", *(f"{size / 1e6:.0f}" for size in (memory.before, memory.peak))]
        cells += [row.file, row.sha256[:12], *(row.details.get(name, UNKNOWN) for name in names)]
        lines.append(cells)
    return known([*header, *names], lines)


def failure_table_of(report: Report) -> Table:
    """What could not be measured, and why; words, no numbers."""
    lines = [[found.name, found.runtime, found.reason] for found in report.failures]
    return (["engine", "runtime", "why it was not measured"], lines) if lines else NO_TABLE


def known(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """The table without the columns in which nothing is known; the first column always stays."""
    keep = [i for i in range(len(header)) if i == 0 or any(line[i] != UNKNOWN for line in lines)]
    return [header[i] for i in keep], [[line[i] for i in keep] for line in lines]


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table; with ``numbers``, all columns but the first go to the right."""
    rule = ["---"] + ["--:" if numbers else "---"] * (len(header) - 1)
    rows = [[_cell(text) for text in line] for line in (header, *lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (rows[0], rule, *rows[1:]))


def _cell(text: str) -> str:
    """Names come from users: a bar would end the cell, an angle bracket might begin a tag."""
    return re.sub(r"([|<])", r"\\\1", " ".join(text.split()))


def markdown(report: Report) -> str:
    """The whole report as a Markdown page."""
    first = report.reference_row()
    title = f"# {_cell(first.network)}, {'compressed' if report.stages else 'measured'}"
    cautions = "\n".join(f"- {_cell(text)}" for text in cautions_of(report))
    picture = "![Sheet of pictures: image, truth, engines, and where they disagree]"
    parts = [title, _cell(headline(report)), *_number_tables([table_of(report)]), _cell(explanation_of(report))]
    parts += [f"To be kept in mind:\n\n{cautions}"] if cautions else []
    parts += _number_tables([scopes_table_of(report), throughput_table_of(report)])
    for measure in MEASURES:
        parts += _number_tables([class_table_of(report, measure), class_difference_of(report, measure)])
    parts += [f"{picture}(<{report.pictures}>)"] if report.pictures else []
    parts += _number_tables([stage_table_of(report)])
    parts += [markdown_table(*failure_table_of(report), numbers=False)] if report.failures else []
    parts += [machine_line(report), f"Made with:\n\n    {' '.join(report.command.split())}"]
    return "\n\n".join(parts) + "\n"


def _number_tables(tables: Sequence[Table]) -> list[str]:
    return [markdown_table(*table) for table in tables if table[1]]
