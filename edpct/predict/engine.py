"""An engine opened to predict: as many requests as may be in flight, each taken by one thread at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.errors import EngineError
from edpct.predict.stitch import Blend, Middle, Stitcher
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import Ports, ports_of
from edpct.runtimes.session import Options, Session
from edpct.runtimes.table import RUNTIMES, Runtime, open_session, runtimes_for
from edpct.task import Task

Answer = NDArray[Any]
Key = TypeVar("Key")


class Engine:
    """An opened engine; safe to use from several threads. Leaving its ``with`` block closes it.

    Args:
        path: the engine: .onnx, .plan, .engine, or a checkpoint where torch is installed.
        runtime: row of :data:`edpct.runtimes.table.RUNTIMES`; empty: the first that opens such files and is installed.
        device: one of that row's; empty: its first.
        options: threads, requests in flight (``streams``), CUDA graph.

    Raises:
        EngineError, MissingPackageError, CheckpointError: it cannot be opened, or does not say what it is.
    """

    def __init__(self, path: Path, *, runtime: str = "", device: str = "", options: Options | None = None) -> None:
        options = options or Options()
        self.path = path
        self.card = card_of(path)
        row = runtime or runtime_of(path).name
        known = RUNTIMES[row].options if row in RUNTIMES else ()
        if "streams" not in known:
            options = Options(threads=options.threads, cuda_graph=options.cuda_graph)
        self._session = open_session(path, row, device=device, options=options)
        self._closed = False
        try:
            self.ports: Ports = ports_of(self._session, self.card.task, path.name)
            self._requests = [self._session, *(self._session.fork() for _ in range(options.streams - 1))]
        except BaseException:
            self._session.close()
            raise
        self._free: SimpleQueue[Session] = SimpleQueue()
        for request in self._requests:
            self._free.put(request)
        self._threads = ThreadPoolExecutor(len(self._requests), thread_name_prefix="edpct-predict")

    @property
    def task(self) -> Task:
        return self.card.task

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its input, pixels."""
        return self.task.preprocessing.height, self.task.preprocessing.width

    @property
    def batch(self) -> int:
        """Images an inference; 1 where that is open."""
        return self.ports.image.shape[0] or 1

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of what it gives for one image: logits (C, h, w), or classes (h, w)."""
        channels = () if self.ports.gives_classes else (self.task.num_classes,)
        return (*channels, *self.size)

    @property
    def runtime(self) -> str:
        return self._session.runtime

    @property
    def streams(self) -> int:
        """Requests that may be in flight."""
        return len(self._requests)

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        """Logits (B, C, h, w), or classes (B, h, w), of images (B, h, w, 3), uint8 RGB, of its input size.

        Any number of images: an engine of a fixed batch is run as often as it takes.

        Raises:
            EngineError: the runtime failed, or the engine is closed.
        """
        fixed = self.ports.image.shape[0]
        if fixed is None or len(images) == fixed:
            return self._once(images)
        parts = []
        for start in range(0, len(images), fixed):
            part = images[start : start + fixed]
            filled = np.concatenate((part, np.repeat(part[-1:], fixed - len(part), axis=0)))
            parts.append(self._once(filled)[: len(part)])
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _once(self, images: NDArray[np.uint8]) -> Answer:
        feeds = self.ports.feed(images)
        with self._request() as request:
            return request.run(feeds)[self.ports.answer.name]

    @contextmanager
    def _request(self) -> Iterator[Session]:
        if self._closed:
            raise EngineError(f"{self.path.name} is closed.", "Open it again.")
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)

    def submit(self, images: NDArray[np.uint8]) -> Future[Answer]:
        """The same as :meth:`infer`, in a thread of its own."""
        if self._closed:
            raise EngineError(f"{self.path.name} is closed.", "Open it again.")
        return self._threads.submit(self.infer, images)

    def map(self, windows: Iterable[tuple[Key, NDArray[np.uint8]]]) -> Iterator[tuple[Key, Answer]]:
        """Windows (h, w, 3) with a key each, to answers (C, h, w) or (h, w) with the same keys, in the same order.

        One batch more than there are requests is in flight, so that preparing and taking up answers costs no waiting.
        """
        pending: deque[tuple[list[Key], Future[Answer]]] = deque()
        for keys, images in _batches(windows, self.batch):
            pending.append((keys, self.submit(images)))
            if len(pending) > self.streams:
                keys, answer = pending.popleft()
                yield from zip(keys, answer.result(), strict=True)
        for keys, answer in pending:
            yield from zip(keys, answer.result(), strict=True)

    def stitcher(self, width: int, probabilities: bool = False) -> Stitcher:
        """What puts its answers together over an image of this width in pixels.

        Raises:
            EngineError: probabilities are wanted of an engine that gives classes.
        """
        if not self.ports.gives_classes:
            return Blend(self.task.num_classes, width, probabilities)
        if probabilities:
            raise EngineError(
                f"{self.path.name} gives classes and no probabilities: the argmax is part of it.",
                "Use the engine without '-fused' in its name.",
            )
        return Middle(width)

    def close(self) -> None:
        """Wait for what is in flight, then free all; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        for request in reversed(self._requests):
            request.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def runtime_of(path: Path) -> Runtime:
    """The first runtime that opens such a file and is installed.

    Raises:
        EngineError: no runtime opens such files.
        MissingPackageError: none of those that do is installed.
    """
    fitting = [row for row in runtimes_for(path) if not row.on_request]
    if not fitting:
        raise EngineError(f"{path} is no engine that edpct knows.", "Engines are .onnx, .plan, .pt or .safetensors.")
    missing = [row.missing_package() for row in fitting]
    for row, error in zip(fitting, missing, strict=True):
        if error is None:
            return row
    assert missing[0] is not None
    raise missing[0]


def _batches(
    windows: Iterable[tuple[Key, NDArray[np.uint8]]], size: int
) -> Iterator[tuple[list[Key], NDArray[np.uint8]]]:
    keys, images = list[Key](), list[NDArray[np.uint8]]()
    for key, image in windows:
        keys.append(key)
        images.append(image)
        if len(keys) == size:
            yield keys, np.stack(images)
            keys, images = [], []
    if keys:
        yield keys, np.stack(images)
