"""What should make the reader of a report careful, a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edpct.bench.report.claim import label_of, main_scope
from edpct.bench.report.schema import Report, RowReport

UNSTEADY = 1.3  # slowest over fastest turn of one row, above which the reader is told
FEW_RUNS = 100  # below it, no inference lies beyond p99


def cautions_of(report: Report) -> list[str]:
    """Sentences about what makes the numbers less sure; none for a quiet, settled, cool machine."""
    found = [*cautions_of_machine(report), *_unknown_throttling(report)]
    if hasty := [label_of(row, report) for row in report.rows if not row.warm_up.steady]:
        found.append(f"Warm-up had not settled when timing began: {_some(hasty, report)}.")
    if report.sittings > 1:
        found.append(
            f"Measured in {report.sittings} sittings: the machine may have been in another state in each of them."
        )
    if few := [label_of(row, report) for row in report.rows if 0 < _runs(row, report) < FEW_RUNS]:
        found.append(f"Fewer than {FEW_RUNS} runs, so that p99 is hardly less than the slowest: {_some(few, report)}.")
    if report.failures:
        found.append(f"Not measured, with the reasons in the list of failures: {len(report.failures)}.")
    return found


def cautions_of_machine(report: Report) -> list[str]:
    """What the machine did meanwhile that another run may not see again: drift, throttling, other work."""
    found = [*_unsteady(report), *_throttled(report)]
    load, cores = report.machine.load, report.machine.cores
    if load is not None and load > cores / 2:
        found.append(f"The machine had been busy: the load average before was {load:.1f} on {cores} cores.")
    return found


def _runs(row: RowReport, report: Report) -> int:
    latency = row.latency.get(main_scope(report))
    return latency.runs if latency else 0


def drift_of(row: RowReport) -> float:
    """Slowest over fastest turn with copies, or in the only scope there is; 1 where there was one turn."""
    latency = row.latency.get("transfer") or next(iter(row.latency.values()), None)
    rounds = latency.rounds if latency is not None else ()
    return max(rounds) / min(rounds) if rounds and min(rounds) > 0 else 1.0


def _unsteady(report: Report) -> Iterable[str]:
    worst = max(report.rows, key=drift_of)
    if drift_of(worst) > UNSTEADY:
        yield (
            f"The machine was not steady: the median of {label_of(worst, report)} changed by up to "
            f"{drift_of(worst):.1f} times from turn to turn. Something else may have been running; compare engines "
            "within this report only."
        )


def _throttled(report: Report) -> Iterable[str]:
    slowed = [label_of(row, report) for row in report.rows if row.state.throttled == "yes"]
    if slowed:
        yield f"The machine slowed itself down (throttled) during: {_some(slowed, report)}."


def _unknown_throttling(report: Report) -> Iterable[str]:
    unknown = [label_of(row, report) for row in report.rows if row.state.throttled == "unknown"]
    if unknown:
        of = "" if len(unknown) == len(report.rows) else f" for: {_some(unknown, report)}"
        yield f"Whether the machine slowed itself down (throttled) is not known{of}."


def _some(labels: Sequence[str], report: Report) -> str:
    if len(labels) == len(report.rows):
        return "all rows" if len(labels) > 1 else "the only row"
    more = f" and {len(labels) - 3} more" if len(labels) > 4 else ""
    return "; ".join(labels[:3] if more else labels) + more
