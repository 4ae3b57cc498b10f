"""Two reports against each other, row by row, and the conditions under which the second one is not good enough."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, isfinite
from typing import Any, TypeAlias

from edpct.bench.report.cautions import cautions_of_machine
from edpct.bench.report.claim import label_of
from edpct.bench.report.metrics import METRICS, PER_CLASS, Metric, classes_in, metric_of
from edpct.bench.report.schema import Report, RowReport
from edpct.bench.report.tables import Table, known, markdown_table
from edpct.bench.report.wording import UNKNOWN
from edpct.errors import RecipeError, RunError

Pairs: TypeAlias = Sequence[tuple[str, RowReport, RowReport]]  # label, the row before, the row after
Key: TypeAlias = tuple[str, str, str, int, tuple[tuple[str, int | bool], ...]]

CONDITION = re.compile(r"(?P<metric>.+?)\s*(?P<sign>[<>])\s*(?P<limit>[+-]?\d+(\.\d+)?)\s*(?P<percent>%?)")
HINT = 'Write METRIC, < or >, and a change: "fps<-5%" (relative), "miou<-0.5" (points), "p99>2" (ms).'


@dataclass(frozen=True)
class Condition:
    """``fps<-5%``: the change of a metric beyond which the second report is not good enough."""

    text: str
    metric: str
    below: bool
    limit: float
    relative: bool

    def met_by(self, change: Change) -> bool:
        found = change.percent if self.relative else change.difference
        return found < self.limit if self.below else found > self.limit


def parse_condition(text: str) -> Condition:
    """A condition from its text.

    Raises:
        RecipeError: it is none.
    """
    found = CONDITION.fullmatch(text.strip())
    if found is None:
        raise RecipeError(f"{text!r} is no condition.", HINT)
    return Condition(
        text.strip(), found["metric"].strip(), found["sign"] == "<", float(found["limit"]), found["percent"] == "%"
    )


@dataclass(frozen=True)
class Change:
    """One number of one row in both reports.

    Attributes:
        half: half of the 95 % interval of the difference, both intervals in quadrature; None where unknown.
        half_percent: the same of the relative change, from the relative half-widths.
    """

    row: str
    metric: str
    unit: str
    more: bool
    before: float
    after: float
    half: float | None
    half_percent: float | None

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def percent(self) -> float:
        if self.before:
            return 100 * (self.after / self.before - 1)
        return 0.0 if self.after == self.before else inf if self.after > 0 else -inf

    @property
    def clear(self) -> bool | None:
        """Whether the difference is larger than its uncertainty; None where that is unknown."""
        if self.half is None:
            return None
        if self.unit == "points" or self.half_percent is None:
            return abs(self.difference) > self.half
        return abs(self.percent) > self.half_percent

    @property
    def verdict(self) -> str:
        if self.difference == 0:
            return "same"
        if self.clear is False:
            return "within uncertainty"
        word = "better" if (self.difference > 0) == self.more else "worse"
        return word if self.clear else f"{word}?"


def change_of(name: str, metric: Metric, label: str, before: RowReport, after: RowReport) -> Change | None:
    """What became of one number; None where one of the rows does not have it."""
    was, now = metric.read(before), metric.read(after)
    if was is None or now is None:
        return None
    (a, half_a), (b, half_b) = was, now
    half = hypot(half_a, half_b) if half_a is not None and half_b is not None else None
    percent = None
    if half_a is not None and half_b is not None and a and b:
        percent = 100 * abs(b / a) * hypot(half_a / a, half_b / b)
    return Change(label, name, metric.unit, metric.more, a, b, half, percent)


@dataclass(frozen=True)
class Comparison:
    """Two reports, compared.

    Attributes:
        changes: of every row in both, every number that both have, in the order of the first report.
        only_a, only_b: labels of rows that are in one of them.
        notes: why differences may be of something else than the engines.
        failures: one sentence for every condition that a row met, and for every row that went missing.
    """

    changes: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]


def compare(a: Report, b: Report, conditions: Sequence[str] = ()) -> Comparison:
    """What became of the rows of ``a`` in ``b``, and which conditions that meets.

    Raises:
        RecipeError: a condition that is none, or names what does not exist.
        RunError: a condition on what no row of ``a`` has.
    """
    asked = [parse_condition(text) for text in conditions]
    metrics = {condition.metric: _measured(condition.metric, a, b) for condition in asked}
    theirs, ours = {_key(row): row for row in reversed(b.rows)}, {_key(row) for row in a.rows}
    pairs = [(label_of(row, a), row, theirs[_key(row)]) for row in a.rows if _key(row) in theirs]
    only_a = tuple(label_of(row, a) for row in a.rows if _key(row) not in theirs)
    only_b = tuple(label_of(row, b) for row in b.rows if _key(row) not in ours)
    failures = [
        f"{label}: is in the first report and not in the second, so that no condition can be checked on it."
        for label in only_a
        if asked
    ]
    for condition in asked:
        failures += _failures(condition, metrics[condition.metric], pairs)
    return Comparison(tuple(_changes(pairs, [a, b])), only_a, only_b, tuple(_notes(a, b)), tuple(failures))


def _measured(name: str, a: Report, b: Report) -> Metric:
    metric = metric_of(name, [a, b])
    if all(metric.read(row) is None for row in a.rows):
        raise RunError(f"No row of the first report has {name}, so there is nothing to compare with.", "Measure it.")
    return metric


def _changes(pairs: Pairs, reports: Sequence[Report]) -> Iterable[Change]:
    classes = [f"{kind}:{name}" for kind in PER_CLASS for name in classes_in(reports)]
    metrics = {**METRICS, **{name: metric_of(name, reports) for name in classes}}
    for label, before, after in pairs:
        for name, metric in metrics.items():
            if (change := change_of(name, metric, label, before, after)) is not None:
                yield change


def _key(row: RowReport) -> Key:
    return row.name, row.runtime, row.device, row.batch, tuple(sorted(row.options.items()))


def _failures(condition: Condition, metric: Metric, pairs: Pairs) -> Iterable[str]:
    for label, before, after in pairs:
        change = change_of(condition.metric, metric, label, before, after)
        if change is not None and condition.met_by(change):
            yield (
                f"{label}: {condition.metric} {_number(change.before)} → {_number(change.after)}, "
                f"{_difference(change, condition.relative)}, which meets {condition.text}."
            )
        if change is None and metric.read(before) is not None:
            yield f"{label}: {condition.metric} was measured in the first report and not in the second."


def _notes(a: Report, b: Report) -> Iterable[str]:
    """What else than the engines differs between two reports."""
    machine = _differing(a.machine.model_dump(exclude={"load"}), b.machine.model_dump(exclude={"load"}))
    if machine:
        yield f"The machines differ ({machine}), so differences in speed may not be the engines'."
    if versions := _differing(a.versions, b.versions):
        yield f"The versions differ ({versions}), so differences may not be the engines'."
    if a.data is not None and b.data is not None and a.data != b.data:
        yield "Accuracy was measured on other data, so differences in accuracy may not be the engines'."
    for which, report in (("first", a), ("second", b)):
        for caution in cautions_of_machine(report):
            yield f"Of the {which} report: {caution}"
    if settings := _differing(a.settings, b.settings):
        yield f"The settings of the bench differ ({settings})."


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return ", ".join(f"{name} {a.get(name, UNKNOWN)} → {b.get(name, UNKNOWN)}" for name in names)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _difference(change: Change, relative: bool) -> str:
    percent = f"{change.percent:+.1f} %" if isfinite(change.percent) else "from nothing"
    absolute = f"{change.difference:+.2f}" if change.unit == "points" else f"{change.difference:+.3g}"
    return percent if relative else f"{absolute} {change.unit}"


def comparison_table(found: Comparison) -> Table:
    """A line per row and number that is not the same in both; classes have a table of their own, p50 is FPS again."""
    header = ["", "metric", "first", "second", "change", "± (95 %)", "verdict"]
    lines = [
        [c.row, _title(c), _number(c.before), _number(c.after), *_cells(c)]
        for c in found.changes
        if ":" not in c.metric and c.metric != "p50" and c.difference != 0
    ]
    return known(header, lines) if lines else ([], [])


def _title(change: Change) -> str:
    unit = "%" if change.unit == "points" else change.unit
    return change.metric if change.metric.startswith(unit.lower()) else f"{change.metric} {unit}"


def _cells(change: Change) -> list[str]:
    """Shares change by points, everything else by percent."""
    points = change.unit == "points"
    half = change.half if points else change.half_percent
    width = UNKNOWN if half is None else "exact" if half == 0 else f"{half:.2g}{'' if points else ' %'}"
    return [_difference(change, relative=not points), width, change.verdict]


def class_change_table(found: Comparison) -> Table:
    """Points of IoU that each class won or lost, of the rows in which one did."""
    changes = [c for c in found.changes if c.metric.startswith("iou:")]
    if not any(c.difference for c in changes):
        return [], []
    classes = list(dict.fromkeys(c.metric.removeprefix("iou:") for c in changes))
    rows = dict.fromkeys(c.row for c in changes if c.difference)
    cells = {(c.row, c.metric.removeprefix("iou:")): f"{c.difference:+.1f}" for c in changes}
    return ["IoU, points", *classes], [[row, *(cells.get((row, name), UNKNOWN) for name in classes)] for row in rows]


def sentences_of(found: Comparison) -> list[str]:
    """What is to be said beside the tables."""
    text = []
    if not found.changes:
        text.append("No row is in both reports: rows are matched by engine name, runtime, device, batch and options.")
    elif all(c.difference == 0 for c in found.changes):
        text.append("All numbers are the same in both reports.")
    else:
        text.append(
            "± is half of the 95 % interval of the change, both reports' intervals in quadrature; a question mark "
            "stands where it is not known. It holds within a run: another run on a busy machine may differ by more. "
            "That of mIoU is about other images than those measured; on the same ones, any change is real. Numbers "
            "that are the same in both are left out."
        )
    text += [f"Only in the first report: {'; '.join(found.only_a)}."] if found.only_a else []
    text += [f"Only in the second report: {'; '.join(found.only_b)}."] if found.only_b else []
    return [*text, *found.notes]


def comparison_markdown(found: Comparison) -> str:
    """For a comment on a pull request: failures first."""
    failures = "\n".join(f"- {text}" for text in found.failures)
    tables = [markdown_table(*table) for table in (comparison_table(found), class_change_table(found)) if table[1]]
    head = [f"**{len(found.failures)} not good enough**\n\n{failures}"] if found.failures else []
    return "\n\n".join([*head, *tables, *sentences_of(found)]) + "\n"


def comparison_data(found: Comparison) -> dict[str, Any]:
    """As plain JSON values; a relative change from nothing is None."""
    changes = [
        {
            "row": c.row, "metric": c.metric, "unit": c.unit, "before": c.before, "after": c.after,
            "difference": c.difference, "half": c.half,
            "percent": c.percent if isfinite(c.percent) else None, "half_percent": c.half_percent,
            "verdict": c.verdict,
        }
        for c in found.changes
    ]  # fmt: skip
    lists = {"only_a": found.only_a, "only_b": found.only_b, "notes": found.notes, "failures": found.failures}
    return {"changes": changes, **{name: list(texts) for name, texts in lists.items()}}
