"""The process of one row: opens one engine, and does what :mod:`edpct.bench.crew` asks of it.

A process of its own, because runtimes share thread pools, allocators and GPU contexts with their neighbours, because
memory can then be told apart, and because an engine that dies takes only itself along.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edpct.bench.frames import Frames
from edpct.bench.latency import Flow, Turn, WarmUp, take_flow, take_turn, warm_up
from edpct.bench.memory import peak_bytes, reset_peak, resident_bytes
from edpct.bench.report.schema import Scope
from edpct.bench.scoring import Scores, score_windows
from edpct.data.samples import Dataset
from edpct.data.tiling import windows
from edpct.errors import DataError, EdpctError, EngineError
from edpct.runtimes.ports import ports_of, predictor
from edpct.runtimes.session import Options, Session
from edpct.runtimes.table import open_session
from edpct.task import Task


@dataclass(frozen=True)
class Job:
    """What a worker is for.

    Attributes:
        images: encoded, at the engine's input size; what is fed while timing.
    """

    path: Path
    runtime: str
    device: str
    options: Options
    batch: int
    task: Task
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class Opened:
    """What opening showed: device and details as the session names them, seconds it took, memory before it."""

    device: str
    details: dict[str, str]
    seconds: float
    memory_before: int


class Worker:
    """The orders that a worker knows, one method each."""

    def __init__(self, job: Job, connection: Connection) -> None:
        self._job = job
        self._connection = connection
        self._session: Session
        self._frames: Frames
        self._lanes: list[Session] = []

    def open(self) -> Opened:
        job = self._job
        before = resident_bytes()
        reset_peak()
        began = time.perf_counter()
        self._session = open_session(job.path, job.runtime, device=job.device, options=job.options)
        seconds = time.perf_counter() - began
        ports = ports_of(self._session, job.task, job.path.name)
        spec = ports.image
        if spec.shape[0] not in (None, job.batch):
            raise EngineError(
                f"{job.path.name} takes batches of {spec.shape[0]}, and {job.batch} was asked for.",
                "Leave --batch out, or give a checkpoint, or an ONNX file exported with export.open_batch = true.",
            )
        self._frames = Frames(job.images, ports, job.batch)
        self._lanes = [self._session] + [self._session.fork() for _ in range(job.options.streams - 1)]
        return Opened(self._session.device, {**self._session.details, **ports.describe()}, seconds, before)

    def warm_up(self, limit: float) -> WarmUp:
        return warm_up(self._session, self._frames, limit)

    def turn(self, scope: Scope, seconds: float, least: int, settle: bool) -> Turn:
        return take_turn(self._session, self._frames, scope, seconds, least, settle)

    def flow(self, seconds: float) -> Flow:
        return take_flow(self._lanes, self._frames, seconds)

    def peak(self) -> int:
        return peak_bytes()

    def score(self, dataset: Dataset) -> Scores:
        """Accuracy over the val split; tells after every window how many are done.

        Raises:
            DataError: an image or mask cannot be read, or every pixel is ignored.
        """
        task = self._job.task
        size = task.preprocessing
        scores = score_windows(
            predictor(self._session, task, self._job.path.name), windows(dataset, "val", size.height, size.width),
            task.num_classes, task.ignore_index, lambda done: self._connection.send(("progress", done)),
        )  # fmt: skip
        if not scores.images:
            raise DataError(
                f"There is nothing to score on in {dataset.root}: every pixel of the val masks is ignored.",
                "Check the masks, the class table and its ignore index.",
            )
        return scores

    def close(self) -> None:
        for lane in reversed(self._lanes):
            lane.close()


def serve(descriptor: int) -> None:
    """Do what comes over the connection with this file descriptor, until it closes."""
    connection = Connection(descriptor)
    try:
        worker = Worker(connection.recv(), connection)
        while (order := connection.recv()) is not None:
            connection.send(_answer(worker, *order))
        worker.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone


def _answer(worker: Worker, order: str, settings: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "done", getattr(worker, order)(**settings)
    except EdpctError as error:
        return "refused", (error.what, error.hint)
    except MemoryError:
        return "refused", ("Memory ran out.", "Measure fewer engines at once.")
    except Exception:
        return "bug", traceback.format_exc()
