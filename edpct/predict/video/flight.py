"""Reading, predicting, and drawing with writing, each in its own thread; the main thread waits, and shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edpct.errors import DataError, EdpctError
from edpct.predict.engine import Engine
from edpct.predict.stitch import Classes
from edpct.predict.video.classes import predictor
from edpct.predict.video.inbox import Inbox
from edpct.predict.video.interrupt import Asked, interrupts_ask
from edpct.predict.video.meter import Meter
from edpct.predict.video.settings import VideoSettings
from edpct.predict.video.sources import Frame, Pixels, Source
from edpct.predict.video.view import View
from edpct.predict.video.window import Window
from edpct.predict.video.writer import VideoFile
from edpct.progress import Progress

Ended = Literal["end", "limit", "stopped", "lost"]
AHEAD = 2  # frames of a file that are read while one is predicted
PATIENCE = 1.0  # seconds that a live source gets to end; one that hangs is left behind
SECONDS_BETWEEN_LINES = 15.0  # where nobody knows how many frames will come


@dataclass(frozen=True)
class Flown:
    """What became of a video.

    Attributes:
        frames: predicted and drawn.
        dropped: frames of a live source that a newer one replaced before the engine was free; 0 for files.
        written: frames in the file; with a live source some are repeated or left out, to keep its time.
        seconds: from the first frame taken to the last picture done.
        latency_ms, latency_p95_ms: glass to glass, median and 95th percentile: from the moment that OpenCV had a frame
            to that at which its picture went to the file and the screen. Not in it: the sensor's exposure, the driver's
            buffers, a stream's way through the network and its decoder, and the display's own delay. For files it
            holds the waiting in the queues.
        path: the file; None where there is none.
        ended: "end" of a file, at the "limit" asked for, "stopped" by a person, or "lost": a live source gave no more.
    """

    frames: int
    dropped: int
    written: int
    seconds: float
    latency_ms: float
    latency_p95_ms: float
    path: Path | None
    ended: Ended

    @property
    def fps(self) -> float:
        """Frames predicted a second."""
        return self.frames / self.seconds if self.seconds else 0.0


class Flight:
    """One prediction on one source.

    Threads: ``read`` takes frames; ``feed`` gives them to the engine as soon as a request is free; ``draw`` makes the
    pictures in the frames' order and writes them. The source and the file are each touched by one thread only.
    """

    def __init__(self, engine: Engine, source: Source, file: VideoFile | None, settings: VideoSettings) -> None:
        self.meter = Meter()
        self._source, self._file, self._settings = source, file, settings
        self._predict = predictor(engine, settings, source.live)
        self._view = View(engine.task, settings)
        self._frames: Inbox[Frame] = Inbox(1 if source.live else AHEAD, newest=source.live)
        self._pending: Inbox[tuple[Frame, Future[Classes]]] = Inbox(1)
        self._pictures: Inbox[Pixels] = Inbox(1, newest=True)
        self._free = threading.Semaphore(engine.streams)
        self._workers = ThreadPoolExecutor(engine.streams, thread_name_prefix="edpct-video")
        self._ended: Ended | None = None
        self._problem: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"edpct-video-{work.__name__}", daemon=True)
            for work in (self._read, self._feed, self._draw)
        ]

    @property
    def dropped(self) -> int:
        return self._frames.dropped

    def run(self, progress: Progress, window: Window | None) -> Flown:
        """Fly until the source ends, a limit is reached, or somebody stops it; then finish the file.

        Raises:
            DataError, EngineError, RunError: the source, the engine or the disk failed; what was done before is kept.
        """
        with interrupts_ask() as asked:
            for thread in self._threads:
                thread.start()
            try:
                self._watch(progress, window, asked)
            except BaseException as error:
                self._fail(error)
            self._join()
            return self._landed()

    def stop(self, why: Ended) -> None:
        """End soon: what is not predicted yet is left."""
        self._ended = self._ended or why
        self._frames.abandon()
        self._pending.abandon()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._problem = self._problem or error
        self.stop("stopped")

    # ---- the threads

    def _read(self) -> None:
        taken, first, size = 0, 0.0, (0, 0)
        try:
            while (frame := self._source.read()) is not None:
                shape = frame.pixels.shape[:2]
                if not taken:
                    first, size = frame.stamp, shape
                if shape != size:
                    raise DataError(
                        f"{self._source.name} changes its size after {taken} frames, from {size[1]}x{size[0]} to "
                        f"{shape[1]}x{shape[0]} pixels.",
                        "Predict its parts one by one.",
                    )
                played = frame.stamp - first if self._source.live else taken / self._source.rate
                if self._settings.seconds and played >= self._settings.seconds:
                    self._ended = self._ended or "limit"
                    return
                taken += 1
                if not self._frames.put(frame):
                    return
            self._check_end(taken)
        except EdpctError as error:
            self._problem = self._problem or error  # what was read before is predicted still
        finally:
            self._frames.close()
            self._source.close()

    def _check_end(self, taken: int) -> None:
        if not taken:
            raise DataError(f"{self._source.name} gives no frames.", "Check that it plays in another program.")
        complaint = self._source.complaint(taken)
        if complaint:
            raise DataError(complaint, "Copy it again from the drone, if it is whole there.")
        self._ended = self._ended or ("end" if self._source.finite else "lost")

    def _feed(self) -> None:
        given, most = 0, self._settings.frames
        try:
            while not (most and given == most):
                self._free.acquire()  # before a frame is taken, so that it is the newest
                frame = self._frames.take()
                if frame is None:
                    return
                answer = self._workers.submit(self._predict, frame.pixels)
                answer.add_done_callback(lambda _: self._free.release())
                if not self._pending.put((frame, answer)):
                    return
                given += 1
            self._ended = self._ended or "limit"
            self._frames.abandon()
        finally:
            self._pending.close()

    def _draw(self) -> None:
        first: float | None = None
        try:
            while (item := self._pending.take()) is not None:
                frame, answer = item
                classes = answer.result()
                line = self.meter.line(self.dropped, time.perf_counter())
                picture = self._view.draw(frame.pixels, classes, line)
                first = frame.stamp if first is None else first
                self.meter.add(frame.stamp, time.perf_counter())
                self._pictures.put(picture)
                if self._file is not None:
                    self._file.write(picture, frame.stamp - first)
        finally:
            self._pictures.close()

    # ---- the main thread

    def _watch(self, progress: Progress, window: Window | None, asked: Asked) -> None:
        total = self._total()
        if not total:
            said = time.monotonic()
            while self._wait(window, asked):
                if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    progress.say(f"  {self.meter.frames} frames, {self.meter.numbers(self.dropped)}")
            return
        with progress.task(self._source.name, total) as update:
            while self._wait(window, asked):
                update(min(self.meter.frames + self.dropped, total - 1), self.meter.numbers(self.dropped))
            update(min(self.meter.frames + self.dropped, total), self.meter.numbers(self.dropped))

    def _wait(self, window: Window | None, asked: Asked) -> bool:
        """Show the next picture, or wait a little for it; False once all is drawn."""
        picture = self._pictures.take(timeout=0.02 if window else 0.2)
        if asked.to_end or (window is not None and not window.show(picture)):
            self.stop("stopped")
        drawer = self._threads[-1]
        if picture is None and drawer.is_alive():
            drawer.join(0.01)
        return drawer.is_alive()

    def _total(self) -> int:
        """Frames that will come; 0 where nobody knows."""
        counts = [self._source.count, self._settings.frames, round(self._settings.seconds * self._source.rate)]
        return min((count for count in counts if count), default=0)

    def _join(self) -> None:
        for thread in self._threads[1:]:
            thread.join()
        self._threads[0].join(PATIENCE if self._source.live else None)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _landed(self) -> Flown:
        if self._file is not None:
            self._file.finish()
        if self._problem is not None:
            raise self._told(self._problem) from self._problem
        path = self._file.path if self._file is not None and self._file.written else None
        return Flown(
            self.meter.frames, self.dropped, self._file.written if self._file is not None else 0, self.meter.seconds,
            self.meter.percentile(50), self.meter.percentile(95), path, self._ended or "end",
        )  # fmt: skip

    def _told(self, problem: BaseException) -> BaseException:
        """The error, with what was kept before it."""
        if self._file is None or not self._file.written or not isinstance(problem, EdpctError):
            return problem
        return type(problem)(f"{problem.what} {self._file.path} holds the {self._file.written} before.", problem.hint)
