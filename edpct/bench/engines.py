"""Measuring engines: FPS and mIoU of the files themselves, whatever made them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edpct.bench.latency import Latency, measure_latency
from edpct.card import Card
from edpct.data.accuracy import Accuracy, Predict, measure_accuracy
from edpct.data.layouts import open_source
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_windows
from edpct.data.tiling import windows
from edpct.errors import DataError, EngineError, MissingPackageError
from edpct.progress import Progress
from edpct.recipe import BenchSettings
from edpct.runtimes.artefact import read_card
from edpct.runtimes.session import Session
from edpct.runtimes.table import open_session, runtimes_for
from edpct.task import Task

TIMING_IMAGES = 8


@dataclass(frozen=True)
class Request:
    """One row asked for: an engine on a runtime, and whether its mIoU is wanted."""

    name: str
    path: Path
    runtime: str
    accuracy: bool
    device: str = ""


@dataclass(frozen=True)
class Row:
    """One row measured.

    Attributes:
        details: what the runtime says it did (version, provider, inference precision, threads).
        accuracy: None where no data was given, or another row of the same engine has it.
    """

    name: str
    path: Path
    runtime: str
    device: str
    card: Card
    details: dict[str, str]
    file_bytes: int
    latency: Latency
    accuracy: Accuracy | None


def plan_rows(paths: Sequence[Path], runtime: str | None, device: str, progress: Progress) -> list[Request]:
    """The rows that a set of engines gives: every runtime that fits and opens, or the one asked for.

    Raises:
        EngineError, MissingPackageError: no runtime here can open an engine; the first fitting one's reason.
    """
    requests = []
    for path in dict.fromkeys(paths):
        title = path.name if sum(other.name == path.name for other in set(paths)) == 1 else str(path)
        names = [runtime] if runtime else [row.name for row in runtimes_for(path)]
        if not names:
            raise EngineError(
                f"{path} is no engine that edpct knows.", "Engines are .onnx, .plan, .pt or .safetensors."
            )
        opened, refused = [], []
        for name in names:
            try:
                open_session(path, name, device=device).close()
                opened.append(name)
            except (EngineError, MissingPackageError) as error:
                refused.append(error)
        if not opened:
            raise refused[0]
        for reason in refused:
            progress.say(f"Left out: {reason}")
        requests += [Request(title, path, name, name == opened[0], device) for name in opened]
    return requests


def find_dataset(cards: Sequence[Card], given: Dataset | None, progress: Progress) -> Dataset | None:
    """The data to measure on: what was given, else what the first card names if it still lies there, else None."""
    if given is not None:
        return given
    for card in cards:
        if card.data is not None and Path(card.data.directory).is_dir():
            return open_source(card.data)
        if card.data is not None:
            progress.say(f"The data of {card.network} no longer lies in {card.data.directory}.")
    progress.say(
        "No data is known for these engines, so mIoU is not measured and images are noise. Give it with --data DIR"
    )
    return None


def bench(
    requests: Sequence[Request], dataset: Dataset | None, settings: BenchSettings, progress: Progress
) -> list[Row]:
    """Measure rows: mIoU over the val split first, then latency with all sessions in turns.

    Raises:
        DataError: the data has other classes than an engine.
        EngineError, MissingPackageError: an engine that cannot be opened or carries no card.
    """
    cards = [card_of(request.path) for request in requests]
    if dataset is not None:
        for request, card in zip(requests, cards, strict=True):
            check_classes(card.task, dataset, request.path)
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(open_session(r.path, r.runtime, device=r.device, threads=settings.threads))
            for r in requests
        ]
        scores = [
            _accuracy(request, session, card, dataset, progress) if dataset and request.accuracy else None
            for request, session, card in zip(requests, sessions, cards, strict=True)
        ]
        feeds = [_timing_feeds(session, card, dataset) for session, card in zip(sessions, cards, strict=True)]
        latencies = measure_latency(sessions, feeds, settings.seconds, settings.rounds, progress)
        return [
            Row(r.name, r.path, r.runtime, s.device, c, s.details, _size(r.path), latency, score)
            for r, s, c, latency, score in zip(requests, sessions, cards, latencies, scores, strict=True)
        ]


def card_of(path: Path) -> Card:
    """The card of an engine.

    Raises:
        EngineError: it carries none.
    """
    card = read_card(path)
    if card is None:
        raise EngineError(
            f"{path.name} does not say what it is (no edpct metadata), so its input cannot be prepared.",
            "Export it with edpct.",
        )
    return card


def check_classes(task: Task, dataset: Dataset, path: Path) -> None:
    """Refuse data whose classes are not the engine's.

    Raises:
        DataError: another number of classes, or other names.
    """
    if task.names != dataset.task.names:
        raise DataError(
            f"{dataset.root} has the classes {', '.join(dataset.task.names)}, but {path.name} was made for "
            f"{', '.join(task.names)}.",
            "Give the data it was made for.",
        )


def predictor(session: Session, task: Task) -> Predict:
    """Image (H, W, 3) uint8 at the engine's input size to labels (H, W)."""
    name = session.inputs[0].name
    out = session.outputs[0].name

    def predict(image: NDArray[np.uint8]) -> NDArray[np.integer]:
        logits = session.run({name: task.preprocessing.apply(image)})[out]
        labels: NDArray[np.integer] = logits[0].argmax(0)
        return labels

    return predict


def _accuracy(request: Request, session: Session, card: Card, dataset: Dataset, progress: Progress) -> Accuracy:
    size = card.task.preprocessing
    cut = list(windows(dataset, "val", size.height, size.width))
    with progress.task(f"mIoU of {request.name}", len(cut)) as update:
        return measure_accuracy(
            predictor(session, card.task), cut, card.task.num_classes, card.task.ignore_index,
            lambda done: update(done, ""),
        )  # fmt: skip


def _timing_feeds(session: Session, card: Card, dataset: Dataset | None) -> list[dict[str, NDArray]]:
    size = card.task.preprocessing
    if dataset is not None:
        images = sample_windows(dataset, "val", TIMING_IMAGES, size.height, size.width, seed=0)
    else:
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8) for _ in range(TIMING_IMAGES)]
    return [{session.inputs[0].name: size.apply(image)} for image in images]


def _size(path: Path) -> int:
    return path.stat().st_size
