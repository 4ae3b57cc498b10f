"""A report in sentences: what it claims, and what its numbers include."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, hypot
from statistics import median

from edpct.bench.report.schema import AccuracyReport, LatencyReport, Report, RowReport, Scope
from edpct.bench.report.wording import UNKNOWN, fps, join, points, times

_COARSENESS = {"fp32": 0, "fp16": 1, "int8": 2}
SCOPE_TITLES: dict[Scope, str] = {"compute": "compute only", "transfer": "with copies", "end_to_end": "end to end"}
SCOPE_MEANINGS: dict[Scope, str] = {
    "compute": "compute only is the inference alone, with its input and output where the engine works",
    "transfer": "with copies goes from normalised image to logits at full size (of a fused engine: from image to "
    "classes), both in host memory",
    "end_to_end": "end to end goes from the encoded image to the map of classes (decode, preprocess, infer, argmax)",
}


def main_scope(report: Report) -> Scope:
    """The scope that FPS stands for where one number must do: "transfer", unless no row has it."""
    order: tuple[Scope, ...] = ("transfer", "end_to_end", "compute")
    return next((scope for scope in order if any(scope in row.latency for row in report.rows)), "transfer")


def variant_of(row: RowReport, report: Report) -> str:
    """What a row is besides its engine: runtime, device, batch, and the options in which the report's rows differ."""
    seen: dict[str, set[int | bool | None]] = {}
    for name in {name for other in report.rows for name in other.options}:
        seen[name] = {other.options.get(name) for other in report.rows}
    telling = [name for name in row.options if len(seen[name]) > 1 and name != "cuda_graph"]
    parts = [row.label.removeprefix(f"{row.name}, ")]
    for name in telling:
        value = row.options[name]
        parts += [f"{name} {value}"] if not isinstance(value, bool) else [name] if value else []
    return ", ".join(parts)


def label_of(row: RowReport, report: Report) -> str:
    """A row's name within its report."""
    return f"{row.name}, {variant_of(row, report)}"


def accuracy_of(row: RowReport, report: Report) -> AccuracyReport | None:
    """A row's accuracy, or that of the same engine on another runtime."""
    same = (other.accuracy for other in report.rows if other.name == row.name and other.accuracy is not None)
    return row.accuracy or next(same, None)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, and how sure that is.

    Attributes:
        turns: how many turns were paired; 0: not paired, the interval comes from those of the two medians.
        sure: whether ``low`` to ``high`` is a 95 % interval; otherwise the range of too few turns.
    """

    value: float
    low: float
    high: float
    turns: int
    sure: bool


def speed_ratio(reference: LatencyReport, other: LatencyReport) -> Ratio:
    """FPS of ``other`` over FPS of ``reference``, turn by turn, so that what slows both cancels.

    The interval is the sign test's, between two of the ordered ratios: exact for any distribution, nothing drawn.
    """
    batches = (other.fps * other.p50) / (reference.fps * reference.p50)
    pairs = list(zip(reference.rounds, other.rounds, strict=False))
    if len(reference.rounds) != len(other.rounds) or len(pairs) < 2 or min(map(min, pairs)) <= 0:
        value = other.fps / reference.fps
        half = value * hypot(_half(reference), _half(other))
        return Ratio(value, value - half, value + half, 0, True)
    ratios = sorted(batches * was / now for was, now in pairs)
    skipped = _sign_test(len(ratios))
    low, high = ratios[max(skipped, 0)], ratios[-1 - max(skipped, 0)]
    return Ratio(median(ratios), low, high, len(ratios), skipped >= 0)


def _half(latency: LatencyReport) -> float:
    return (latency.interval[1] - latency.interval[0]) / 2 / latency.p50


def _sign_test(count: int) -> int:
    """How many ordered values may be left out at either end and still enclose the median with 95 %; -1: too few."""
    outside, skipped = 0.0, -1
    while skipped + 1 < count / 2:
        outside += 2 * comb(count, skipped + 1) / 2**count
        if outside > 0.05:
            break
        skipped += 1
    return skipped


@dataclass(frozen=True)
class Claim:
    """One engine against the reference.

    Attributes:
        same: whether both ran with the same runtime and options.
        macs, file: shares of the reference's.
        miou: difference in points; None where one of them was not measured.
        between: its 95 % interval, the same images drawn for both; None where unknown.
        worst: the class that lost most and its difference in points; None where none lost.
    """

    reference: RowReport
    other: RowReport
    same: bool
    macs: float
    file: float
    speed: Ratio | None
    miou: float | None
    between: tuple[float, float] | None
    worst: tuple[str, float] | None


def claim_of(report: Report) -> Claim | None:
    """The most compressed engine against the reference, where it is fastest; None where there is one engine only."""
    scope = main_scope(report)
    name = most_compressed(report)
    if name is None:
        return None
    rows = [row for row in report.rows if row.name == name]
    rows.sort(key=lambda row: -row.latency[scope].fps if scope in row.latency else 0)
    mates = [(_mate(row, report), row) for row in rows]
    reference, other = next(((mate, row) for mate, row in mates if mate), (report.reference_row(), rows[0]))
    before, after = accuracy_of(reference, report), accuracy_of(other, report)
    both = scope in reference.latency and scope in other.latency
    return Claim(
        reference,
        other,
        any(mate for mate, _ in mates),
        other.macs / reference.macs if reference.macs else 1.0,
        other.file_bytes / reference.file_bytes if reference.file_bytes else 1.0,
        speed_ratio(reference.latency[scope], other.latency[scope]) if both else None,
        100 * (after.miou - before.miou) if before and after else None,
        between(after) if before and after else None,
        _worst(before, after) if before and after else None,
    )


def most_compressed(report: Report) -> str | None:
    """The engine that the report is about: coarsest precision, fewest MACs, plain before fused, the last.

    A fused engine does more within the same scope, so that its factor would not be one of speed alone.
    Not the fastest: a pruned engine that was not trained again is fast too, and useless. None where there is no other
    engine than the reference.
    """
    others = [row for row in report.rows if row.name != report.reference_row().name]
    if not others:
        return None
    return max(
        reversed(others), key=lambda row: (_COARSENESS.get(row.precision, 0), -row.macs, "takes" not in row.details)
    ).name


def between(score: AccuracyReport) -> tuple[float, float] | None:
    """The 95 % interval of the mIoU less the reference's, in points."""
    return None if score.difference is None else (100 * score.difference[0], 100 * score.difference[1])


def _mate(row: RowReport, report: Report) -> RowReport | None:
    """The reference engine's row that differs from ``row`` by the engine only."""
    name, variant = report.reference_row().name, variant_of(row, report)
    return next((r for r in report.rows if r.name == name and variant_of(r, report) == variant), None)


def _worst(before: AccuracyReport, after: AccuracyReport) -> tuple[str, float] | None:
    """A mean can hide a class that is gone."""
    change = {name: 100 * ((after.iou.get(name) or 0.0) - was) for name, was in before.iou.items() if was is not None}
    worst = min(change, key=lambda name: change[name], default=None)
    return (worst, change[worst]) if worst is not None and change[worst] < 0 else None


def headline(report: Report) -> str:
    """One sentence: the most compressed engine against the reference; of a single one, its speed and accuracy."""
    claim = claim_of(report)
    if claim is None:
        return _alone(report)
    theirs = f"the {claim.reference.name}'s"
    parts = [f"{100 * claim.macs:.1f} % of {theirs} MACs"]
    if claim.speed is not None:
        parts.append(f"{times(claim.speed.value)} times its FPS {_circumstances(claim, report)}")
    if claim.miou is not None:
        found = f" (95 % interval {points(*claim.between)})" if claim.between else ""
        parts.append(f"{claim.miou:+.2f} points of mIoU{found}")
    worst = f"; most is lost on {claim.worst[0]}, {claim.worst[1]:+.1f} points of IoU" if claim.worst else ""
    missing = "" if claim.miou is not None else "; accuracy was not measured on both"
    return f"{claim.other.name} has {join(parts)}{worst}{missing}."


def _circumstances(claim: Claim, report: Report) -> str:
    assert claim.speed is not None
    here = variant_of(claim.other, report)
    details = [spread(claim.speed)]
    if not claim.same:
        details.insert(0, f"{here} against {variant_of(claim.reference, report)}")
    if claim.other.precision != claim.reference.precision:
        details.append(f"{claim.other.precision} against {claim.reference.precision}")
    return f"{f'on {here} ' if claim.same else ''}({'; '.join(details)})"


def spread(ratio: Ratio) -> str:
    """The interval of a ratio, and what kind of interval it is."""
    between = f"{times(ratio.low)} to {times(ratio.high)}"
    if not ratio.turns:
        return f"95 % interval {between}"
    return f"95 % interval {between} over {ratio.turns} turns" if ratio.sure else f"{between} in {ratio.turns} turns"


def _alone(report: Report) -> str:
    scope = main_scope(report)
    row = max(report.rows, key=lambda row: row.latency[scope].fps if scope in row.latency else 0)
    score = accuracy_of(row, report)
    where = variant_of(row, report)
    parts = []
    if scope in row.latency:
        found = row.latency[scope]
        frames = found.fps * found.p50  # batch * 1000
        low, high = (fps(frames / edge) if edge else UNKNOWN for edge in reversed(found.interval))
        title = SCOPE_TITLES[scope]
        parts.append(f"runs at {fps(found.fps)} FPS on {where} ({title}, 95 % interval {low} to {high})")
    else:
        parts.append(f"was not timed on {where}")
    parts.append(f"has {100 * score.miou:.2f} % mIoU" if score else "its accuracy was not measured")
    return f"{row.name} {join(parts)}."


def explanation_of(report: Report) -> str:
    """What the numbers include."""
    scope = main_scope(report)
    sizes = join(dict.fromkeys("x".join(map(str, row.input)) for row in report.rows))
    batches = join(map(str, sorted({row.batch for row in report.rows})))
    scopes = [text for name, text in SCOPE_MEANINGS.items() if any(name in row.latency for row in report.rows)]
    text = [f"Batch {batches} at {sizes}; the engines take turns."]
    if scopes:
        text.append(f"FPS = batch * 1000 / median latency in ms: {'; '.join(scopes)}.")
        text.append(f"Where no scope is named, {SCOPE_TITLES[scope]} is meant. Intervals of latency are of the median.")
    text.append(_accuracy_sentence(report))
    text.append(
        "Precision is what the graph stores: on a CPU, FP16 graphs and what INT8 graphs leave in floating point are "
        "computed in FP32 unless the row's details say otherwise."
    )
    return " ".join(text)


def _accuracy_sentence(report: Report) -> str:
    scored = [(row, row.accuracy) for row in report.rows if row.accuracy is not None]
    if not scored:
        return "Accuracy was not measured."
    where = join(dict.fromkeys(variant_of(row, report) for row, _ in scored))
    split = f"the {report.data.split} split of {report.data.name}" if report.data else "the data"
    images = scored[0][1].images
    known = any(score.difference is not None for _, score in scored)
    paired = "; that of a difference has the same images drawn for both" if known else ""
    return (
        f"mIoU over {split} ({images} image{'s' * (images != 1)}) from one confusion matrix, measured on the engine "
        f"itself by {where}; ± is half of its 95 % interval, images drawn with replacement"
        f"{paired}."
    )


def machine_line(report: Report) -> str:
    """One line that says where and with what the numbers were measured."""
    host = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    threads = report.rows[0].details.get("threads", "")
    parts = [report.date, host.cpu, f"{host.cores} cores", *([f"{threads} threads"] if threads.isdigit() else [])]
    parts += [f"{host.memory_bytes / 2**30:.0f} GiB", *([host.gpu] if host.gpu else []), host.system]
    return f"{', '.join(parts)}; {versions}."
