"""Measuring engines: one process for each row, all of them in turns, everything kept as soon as it is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edpct.bench.crew import Member
from edpct.bench.frames import encoded_windows
from edpct.bench.journal import Journal
from edpct.bench.latency import Flow, Turn, WarmUp
from edpct.bench.report.schema import (
    SCOPES,
    FailureReport,
    MemoryReport,
    RowReport,
    Scope,
    ThroughputReport,
    WarmUpReport,
)
from edpct.bench.requests import Request, check_classes, check_sizes
from edpct.bench.scoring import Scores, accuracy_report
from edpct.bench.sensors.monitor import Monitor
from edpct.bench.sensors.nvidia import device_memory_used
from edpct.bench.sensors.watched import Watched, state_of
from edpct.bench.statistics import summarise, summarise_flow
from edpct.bench.worker import Job, Opened
from edpct.card import Card
from edpct.data.samples import Dataset
from edpct.data.tiling import count_windows
from edpct.errors import EngineError
from edpct.progress import Progress
from edpct.recipe import BenchSettings
from edpct.runtimes.artefact import card_of, sha256_of
from edpct.runtimes.table import RUNTIMES, Runtime


@dataclass(frozen=True)
class Measured:
    """What a bench found.

    Attributes:
        scores: the counts behind every row's accuracy; None where it has none.
        failures: rows that could not be measured, and why.
        sittings: 1, or more where it was stopped and went on.
    """

    rows: tuple[RowReport, ...]
    scores: tuple[Scores | None, ...]
    failures: tuple[FailureReport, ...]
    sittings: int


@dataclass
class _Post:
    """One row while it is measured."""

    index: int
    request: Request
    card: Card
    member: Member
    opened: Opened
    warm_up: WarmUp
    device_memory: int | None
    peak: int = 0


def bench(
    requests: Sequence[Request],
    dataset: Dataset | None,
    settings: BenchSettings,
    progress: Progress,
    journal: Path | None = None,
    accuracy: bool = True,
) -> Measured:
    """Measure rows: accuracy over the val split first, then latency with all engines in turns, then throughput.

    Args:
        journal: where to keep what is measured; the same bench goes on from there. The caller removes it.
        accuracy: whether to measure mIoU; without, the data only gives the images to time with.

    Raises:
        DataError: the data has other classes than an engine, or smaller images.
        EngineError, MissingPackageError: an engine carries no card, or none of them opens.
    """
    cards = [card_of(request.path) for request in requests]
    if dataset is not None:
        for request, card in zip(requests, cards, strict=True):
            check_classes(card.task, dataset, request.path)
            check_sizes(card.task, dataset, request.path)
    hashes = {path: sha256_of(path) for path in {request.path for request in requests}}
    kept = Journal(journal, _key(requests, hashes, dataset, settings))
    if kept.sittings > 1:
        scored, done = len(kept.found("accuracy")), len(kept.found("round"))
        progress.say(
            f"Going on with a bench that was stopped: accuracy of {scored} rows and {done} of {settings.rounds} rounds "
            "are done."
        )
    images = {card.task: encoded_windows(card.task, dataset) for card in cards}
    jobs = [_job(request, card, images[card.task]) for request, card in zip(requests, cards, strict=True)]
    with ExitStack() as stack:
        posts, failures = _open(stack, requests, cards, jobs, settings, progress)
        if dataset is not None and accuracy:
            _score(posts, failures, dataset, kept, progress)
        _time(posts, failures, settings, kept, progress)
    flows: dict[int, ThroughputReport] = {}
    if settings.streams > 1:
        flows = _flows(posts, jobs, settings, kept, failures, progress)
    scores = tuple(_scores_of(kept).get(post.index) for post in posts)
    rows = tuple(
        _row(post, hashes[post.request.path], _rounds(kept, "round", posts), score, flows.get(post.index))
        for post, score in zip(posts, scores, strict=True)
    )
    return Measured(rows, scores, tuple(failures), kept.sittings)


def _key(requests: Sequence[Request], hashes: dict[Path, str], dataset: Dataset | None, settings: BenchSettings) -> str:
    """What must be the same for a bench to go on: rows, files, data, settings, versions."""
    facts = [
        [[r.name, hashes[r.path], r.runtime, r.device, r.batch, asdict(r.options)] for r in requests],
        [_marks(path) for sample in dataset.split("val") for path in (sample.image, sample.mask)] if dataset else None,
        settings.model_dump(mode="json"),
        sorted({(name, _version(RUNTIMES[name])) for name in (request.runtime for request in requests)}),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _version(row: Runtime) -> str:
    try:
        return metadata.version(row.packages[0].replace("_", "-"))
    except metadata.PackageNotFoundError:  # a Jetson's TensorRT comes with the system
        return "unknown"


def _marks(path: Path) -> list[str | int]:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _job(request: Request, card: Card, images: tuple[bytes, ...]) -> Job:
    return Job(request.path, request.runtime, request.device, request.options, request.batch, card.task, images)


def _open(
    stack: ExitStack,
    requests: Sequence[Request],
    cards: Sequence[Card],
    jobs: Sequence[Job],
    settings: BenchSettings,
    progress: Progress,
) -> tuple[list[_Post], list[FailureReport]]:
    """Open every engine in its process and warm it up; those that cannot be opened are left out, unless all are."""
    members = [stack.enter_context(Member(job)) for job in jobs]  # all start at once: each imports for a second
    posts: list[_Post] = []
    failures: list[FailureReport] = []
    first: EngineError | None = None
    with progress.task("Opening and warming up", len(jobs)) as update:
        for index, (request, card, member) in enumerate(zip(requests, cards, members, strict=True)):
            try:
                before = device_memory_used()
                opened, warm = member.open(), member.warm_up(settings.warm_up)
                grown = _growth(before, device_memory_used())
                posts.append(_Post(index, request, card, member, opened, warm, grown))
            except EngineError as error:
                first = first or error
                failures.append(_failure(request, error, progress))
            update(index + 1, f"{request.name} on {request.runtime}")
    if not posts:
        raise first or EngineError("There is no engine to measure.")
    return posts, failures


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _score(
    posts: list[_Post], failures: list[FailureReport], dataset: Dataset, kept: Journal, progress: Progress
) -> None:
    """Accuracy of every row that has none yet; in a sweep, at the smallest batch only, since all compute the same."""
    done = {entry["row"] for entry in kept.found("accuracy")}
    seen: set[tuple[Any, ...]] = set()
    for post in sorted(posts, key=lambda post: post.request.batch):
        request = post.request
        engine = (request.path, request.runtime, request.device, request.options)
        if engine in seen or post.index in done:
            seen.add(engine)
            continue
        seen.add(engine)
        with _or_left_out(post, posts, failures, progress):
            kept.add("accuracy", row=post.index, scores=_scored(post, dataset, progress).to_dict())


@contextmanager
def _or_left_out(post: _Post, posts: list[_Post], failures: list[FailureReport], progress: Progress) -> Iterator[None]:
    """Leave a row out that fails while it is measured, unless it is the last one."""
    try:
        yield
    except EngineError as error:
        if len(posts) == 1:
            raise
        posts.remove(post)
        failures.append(_failure(post.request, error, progress))


def _failure(request: Request, error: EngineError, progress: Progress, what: str = "Left out") -> FailureReport:
    progress.say(f"{what}: {request.name} on {request.runtime}. {error}")
    return FailureReport(name=request.name, runtime=request.runtime, reason=str(error))


def _scored(post: _Post, dataset: Dataset, progress: Progress) -> Scores:
    size = post.card.task.preprocessing
    total = count_windows(dataset, "val", size.height, size.width)
    with progress.task(f"mIoU of {post.request.name} on {post.request.runtime}", total) as update:
        return post.member.score(dataset, lambda count: update(count, ""))


def _time(
    posts: list[_Post], failures: list[FailureReport], settings: BenchSettings, kept: Journal, progress: Progress
) -> None:
    """All rounds that are not done yet. A round is kept whole or not at all, so that its turns lie side by side."""
    monitor = Monitor()
    seconds, least = settings.seconds / settings.rounds, -(-settings.runs // settings.rounds)
    done, rows = len(_rounds(kept, "round", posts)), len(posts)
    with progress.task("Timing in turns", settings.rounds * rows, start=done * rows) as update:
        for number in range(done, settings.rounds):
            turns = {}
            for place, post in enumerate(list(posts)):
                with _or_left_out(post, posts, failures, progress):
                    found, watched = _turn(post, monitor, seconds, least)
                    turns[str(post.index)] = {
                        "scopes": {scope: asdict(turn) for scope, turn in found.items()},
                        "watched": watched.model_dump(mode="json"),
                    }
                    median = float(np.median(found["transfer"].times))
                    note = f"{post.request.name} on {post.request.runtime}: {median:.1f} ms"
                    update(number * rows + place + 1, note)
            kept.add("round", turns=turns)
    for post in posts:
        post.peak = post.member.peak()


def _rounds(kept: Journal, kind: str, posts: Sequence[_Post]) -> list[dict[str, Any]]:
    """The rounds in which all of these rows took part; in an earlier sitting, one of them may not have opened."""
    return [entry["turns"] for entry in kept.found(kind) if all(str(post.index) in entry["turns"] for post in posts)]


def _turn(post: _Post, monitor: Monitor, seconds: float, least: int) -> tuple[dict[Scope, Turn], Watched]:
    """One turn of a row: its scopes one after another; power is watched in the scope whose frames it is divided by."""
    found: dict[Scope, Turn] = {}
    for scope in SCOPES:
        with monitor.watch() as watch:
            found[scope] = post.member.turn(scope, seconds, least, settle=scope == SCOPES[0])
        if scope == "transfer":
            watched = watch.watched(len(found[scope].times) * post.request.batch)
    return found, watched


def _flows(
    posts: Sequence[_Post],
    jobs: Sequence[Job],
    settings: BenchSettings,
    kept: Journal,
    failures: list[FailureReport],
    progress: Progress,
) -> dict[int, ThroughputReport]:
    """Throughput by row: engines opened anew for several streams, in turns; those that fail meanwhile have none."""
    total = settings.rounds * len(posts)
    with ExitStack() as stack, progress.task(f"Throughput, {settings.streams} streams", total) as update:
        opened: list[tuple[_Post, Member]] = []
        for post in posts:
            job = jobs[post.index]
            member = stack.enter_context(Member(replace(job, options=replace(job.options, streams=settings.streams))))
            try:
                member.open()
                member.warm_up(settings.warm_up)
            except EngineError as error:
                failures.append(_failure(post.request, error, progress, "No throughput"))
                continue
            opened.append((post, member))
        size = len(opened)
        for number in range(len(_rounds(kept, "flow", [post for post, _ in opened])), settings.rounds):
            turns = {}
            for place, (post, member) in enumerate(list(opened)):
                try:
                    turns[str(post.index)] = asdict(member.flow(settings.seconds / settings.rounds))
                except EngineError as error:
                    opened.remove((post, member))
                    failures.append(_failure(post.request, error, progress, "No throughput"))
                update(number * size + place + 1, "")
            if not opened:
                break
            kept.add("flow", turns=turns)
    counted = [post for post, _ in opened]
    rounds = _rounds(kept, "flow", counted)
    return {
        post.index: summarise_flow(
            [Flow(**turns[str(post.index)]) for turns in rounds], settings.streams, post.request.batch
        )
        for post in counted
    }


def _row(
    post: _Post, sha256: str, rounds: Sequence[dict[str, Any]], scores: Scores | None, flow: ThroughputReport | None
) -> RowReport:
    request, card, opened = post.request, post.card, post.opened
    size = card.task.preprocessing
    turns = [turns[str(post.index)] for turns in rounds]
    return RowReport(
        name=request.name,
        file=request.path.name,
        sha256=sha256,
        network=card.network,
        precision=card.precision,
        input=(size.height, size.width),
        parameters=card.parameters,
        macs=card.macs,
        file_bytes=request.path.stat().st_size,
        runtime=request.runtime,
        device=opened.device,
        batch=request.batch,
        options=request.options.changed(),
        details=opened.details,
        open_seconds=opened.seconds,
        warm_up=WarmUpReport(**asdict(post.warm_up)),
        latency={
            scope: summarise([Turn(**turn["scopes"][scope]) for turn in turns], request.batch) for scope in SCOPES
        },
        throughput=flow,
        memory=MemoryReport(before=opened.memory_before, peak=post.peak, device=post.device_memory),
        accuracy=accuracy_report(scores, card.task.names) if scores is not None else None,
        state=state_of([Watched.model_validate(turn["watched"]) for turn in turns]),
    )


def _scores_of(kept: Journal) -> dict[int, Scores]:
    return {entry["row"]: Scores.from_dict(entry["scores"]) for entry in kept.found("accuracy")}
