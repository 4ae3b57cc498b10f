"""Timing one opened session: what is timed in each scope, the warm-up until the rate is steady, turns.

Runs in the engine's own process; who takes turns with whom is decided by :mod:`edpct.bench.crew`.

What the scopes include:

- ``compute``: the engine alone, inputs and outputs where it wants them (on a GPU by CUDA events, in its memory);
- ``transfer``: from what the engine takes in host memory to what it gives in host memory, copies to and from a GPU
  included: normalised arrays and logits, or images and classes where normalisation and argmax are fused into the graph;
- ``end_to_end``: from an encoded image in host memory to a map of classes: decode, preprocess, infer (with the
  upsampling, which is part of the graph), argmax.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

import numpy as np

from edpct.bench.frames import Frames, decode
from edpct.bench.report.schema import Scope
from edpct.runtimes.session import Session

PHASES = ("decode", "preprocess", "infer", "argmax")
STEADY = 0.03  # an engine that still gains more than this is not warm
_CALM = 2  # stretches in a row without such a gain
_STRETCH_RUNS, _STRETCH_SECONDS = 5, 0.15
_SETTLE = 0.2  # seconds

Clock = Callable[[], float]


@dataclass(frozen=True)
class Turn:
    """Times of one turn in one scope, milliseconds, in order; end to end also the times of its phases."""

    times: list[float]
    phases: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class WarmUp:
    """What ran before anything was timed.

    Attributes:
        steady: the rate had stopped to rise: two stretches in a row were at most :data:`STEADY` faster than those
            before them; False: the limit came first.
    """

    seconds: float
    runs: int
    steady: bool


def warm_up(session: Session, frames: Frames, limit: float, clock: Clock = time.perf_counter) -> WarmUp:
    """Infer until the rate is steady, or for ``limit`` seconds."""
    began, runs, medians = clock(), 0, list[float]()
    while clock() - began < limit:
        times = _repeat(lambda i: _transfer(session, frames, i, clock), _STRETCH_SECONDS, _STRETCH_RUNS, clock)
        runs += len(times)
        medians.append(float(np.median(times)))
        if len(medians) > _CALM and min(medians[-_CALM:]) > (1 - STEADY) * min(medians[:-_CALM]):
            return WarmUp(clock() - began, runs, True)
    return WarmUp(clock() - began, runs, False)


def take_turn(
    session: Session, frames: Frames, scope: Scope, seconds: float, least: int, settle: bool,
    clock: Clock = time.perf_counter,
) -> Turn:  # fmt: skip
    """Time one scope for at least ``seconds`` and ``least`` inferences.

    Args:
        settle: infer a little before, uncounted: caches and thread pools went cold while others had their turn.
    """
    with _undisturbed():
        if settle:
            _repeat(lambda i: _transfer(session, frames, i, clock), min(_SETTLE, seconds), 2, clock)
        return _MEASURE[scope](session, frames, seconds, least, clock)


def _compute(session: Session, frames: Frames, seconds: float, least: int, clock: Clock) -> Turn:
    def once(index: int) -> float:
        session.bind(frames.feeds[index % len(frames.feeds)])
        began = clock()
        session.execute()
        took = 1000 * (clock() - began)
        return took if session.device_ms is None else session.device_ms

    return Turn(_repeat(once, seconds, least, clock))


def _transfers(session: Session, frames: Frames, seconds: float, least: int, clock: Clock) -> Turn:
    return Turn(_repeat(lambda i: _transfer(session, frames, i, clock), seconds, least, clock))


def _transfer(session: Session, frames: Frames, index: int, clock: Clock) -> float:
    feed = frames.feeds[index % len(frames.feeds)]
    began = clock()
    session.run(feed)
    return 1000 * (clock() - began)


def _end_to_end(session: Session, frames: Frames, seconds: float, least: int, clock: Clock) -> Turn:
    ports = frames.ports
    phases: dict[str, list[float]] = {name: [] for name in PHASES}

    def once(index: int) -> float:
        marks = [clock()]
        images = decode(frames.groups[index % len(frames.groups)])
        marks.append(clock())
        feed = ports.feed(images)
        marks.append(clock())
        answers = session.run(feed)
        marks.append(clock())
        ports.classes(answers)
        marks.append(clock())
        for name, start, stop in zip(PHASES, marks, marks[1:], strict=False):
            phases[name].append(1000 * (stop - start))
        return 1000 * (marks[-1] - marks[0])

    return Turn(_repeat(once, seconds, least, clock), phases)


_MEASURE: dict[Scope, Callable[[Session, Frames, float, int, Clock], Turn]] = {
    "compute": _compute,
    "transfer": _transfers,
    "end_to_end": _end_to_end,
}


def _repeat(once: Callable[[int], float], seconds: float, least: int, clock: Clock) -> list[float]:
    found: list[float] = []
    began = clock()
    while clock() - began < seconds or len(found) < least:
        found.append(once(len(found)))
    return found


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Python's garbage collector, as timeit does it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class Flow:
    """Several requests in flight for a while: inferences finished, seconds, and the latencies of all in ms."""

    runs: int
    seconds: float
    times: list[float]


def take_flow(lanes: Sequence[Session], frames: Frames, seconds: float) -> Flow:
    """Run every lane (a session and its forks) in a thread of its own for ``seconds``; scope ``transfer``.

    Raises:
        EngineError: the first lane's error.
    """
    times: list[list[float]] = [[] for _ in lanes]
    errors: list[Exception] = []
    began = time.perf_counter()

    def work(index: int) -> None:
        try:
            while time.perf_counter() - began < seconds:
                times[index].append(_transfer(lanes[index], frames, index + len(times[index]), time.perf_counter))
        except Exception as error:
            errors.append(error)

    threads = [Thread(target=work, args=(index,)) for index in range(len(lanes))]
    with _undisturbed():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return Flow(sum(map(len, times)), time.perf_counter() - began, [value for lane in times for value in lane])
