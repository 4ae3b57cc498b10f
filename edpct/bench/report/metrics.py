"""The numbers of a row by name, each with its uncertainty: what reports are compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edpct.bench.report.schema import LatencyReport, Report, RowReport, Scope
from edpct.errors import RecipeError

Value: TypeAlias = tuple[float, float | None] | None  # a number and half of its 95 % interval; None: not known
Reading: TypeAlias = Callable[[RowReport], Value]


@dataclass(frozen=True)
class Metric:
    """One number of a row.

    Attributes:
        unit: of the number and of absolute differences; "points" for shares, which are given in percent.
        more: whether more is better.
        read: the number with half of its interval; an interval of 0 is that of what does not vary, None is unknown.
    """

    unit: str
    more: bool
    read: Reading


def _latency(scope: Scope, value: Callable[[LatencyReport], Value]) -> Reading:
    return lambda row: value(row.latency[scope]) if scope in row.latency else None


def _fps(found: LatencyReport) -> Value:
    return found.fps, found.fps * (found.interval[1] - found.interval[0]) / 2 / found.p50


def _p50(found: LatencyReport) -> Value:
    return found.p50, (found.interval[1] - found.interval[0]) / 2


def _throughput(row: RowReport) -> Value:
    """No interval is stored; the turns' range takes its place, which is rather wider."""
    if (found := row.throughput) is None:
        return None
    return found.fps, (max(found.rounds) - min(found.rounds)) / 2 if len(found.rounds) > 1 else None


def _miou(row: RowReport) -> Value:
    if (found := row.accuracy) is None:
        return None
    return 100 * found.miou, 50 * (found.interval[1] - found.interval[0])


def _plain(read: Callable[[RowReport], float | None], factor: float = 1.0) -> Reading:
    """A number without a known interval."""

    def reading(row: RowReport) -> Value:
        value = read(row)
        return None if value is None else (factor * value, None)

    return reading


METRICS: dict[str, Metric] = {
    "fps": Metric("FPS", True, _latency("transfer", _fps)),
    "fps_compute": Metric("FPS", True, _latency("compute", _fps)),
    "fps_end_to_end": Metric("FPS", True, _latency("end_to_end", _fps)),
    "throughput": Metric("FPS", True, _throughput),
    "p50": Metric("ms", False, _latency("transfer", _p50)),
    "p99": Metric("ms", False, _latency("transfer", lambda found: (found.p99, None))),
    "miou": Metric("points", True, _miou),
    "boundary_miou": Metric("points", True, _plain(lambda r: r.accuracy.boundary_miou if r.accuracy else None, 100)),
    "overall": Metric("points", True, _plain(lambda r: r.accuracy.overall if r.accuracy else None, 100)),
    "memory": Metric("MB", False, _plain(lambda row: row.memory.peak, 1e-6)),
    "device_memory": Metric("MB", False, _plain(lambda row: row.memory.device, 1e-6)),
    "file": Metric("MB", False, lambda row: (row.file_bytes / 1e6, 0.0)),
    "watts": Metric("W", False, _plain(lambda row: row.state.watts)),
    "joules": Metric("J", False, _plain(lambda row: row.state.joules_per_frame)),
}
PER_CLASS = ("iou", "f1")


def metric_of(name: str, reports: Sequence[Report]) -> Metric:
    """A metric by its name; ``iou:CLASS`` and ``f1:CLASS`` too.

    Raises:
        RecipeError: there is no such metric, or no report knows the class.
    """
    if name in METRICS:
        return METRICS[name]
    kind, colon, class_ = name.partition(":")
    if kind not in PER_CLASS or not colon:
        names = ", ".join([*METRICS, *(f"{kind}:CLASS" for kind in PER_CLASS)])
        raise RecipeError(f"There is no metric {name!r}.", f"There are: {names}.")
    classes = classes_in(reports)
    if classes and class_ not in classes:
        raise RecipeError(f"No report knows a class {class_!r}.", f"They know: {', '.join(classes)}.")
    return Metric("points", True, _plain(lambda row: _share(row, kind, class_), 100))


def classes_in(reports: Iterable[Report]) -> list[str]:
    """All classes, in the order in which they first occur."""
    rows = [row for report in reports for row in report.rows]
    return list(dict.fromkeys(name for row in rows if row.accuracy for name in row.accuracy.iou))


def _share(row: RowReport, kind: str, class_: str) -> float | None:
    shares: dict[str, float | None] = getattr(row.accuracy, kind) if row.accuracy else {}
    return shares.get(class_)
