"""Latency of one or more sessions, taking turns so that a machine that slows down slows them all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.progress import Progress
from edpct.runtimes.session import Session

WARM_UP_SECONDS = 0.5
LEAST_RUNS = 5  # in a turn: the percentiles of a slow engine need some samples too

Feeds = Mapping[str, NDArray]


@dataclass(frozen=True)
class Latency:
    """Time of one inference at batch 1, from arrays in host memory to arrays in host memory, in milliseconds.

    Attributes:
        p50, p90, p95, p99: percentiles over all inferences.
        runs: how many were timed.
        rounds: the median of every turn, in order; their spread shows how steady the machine was.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    runs: int
    rounds: tuple[float, ...]

    @property
    def fps(self) -> float:
        """Frames a second, one after another: 1000 / median."""
        return 1000 / self.p50


def measure_latency(
    sessions: Sequence[Session],
    feeds: Sequence[Sequence[Feeds]],
    seconds: float,
    rounds: int,
    progress: Progress,
) -> list[Latency]:
    """Time sessions in turns: A B C, A B C, ...

    Args:
        feeds: for each session some inputs to go through in order; real images, since zeros run faster on some CPUs.
        seconds: least time for each session, over all its turns.
        rounds: number of turns.

    Returns:
        One :class:`Latency` a session, in their order.
    """
    times: list[list[list[float]]] = [[] for _ in sessions]
    total = rounds * len(sessions)
    with progress.task("Timing", total) as update:
        for turn in range(rounds):
            for index, session in enumerate(sessions):
                times[index].append(_one_turn(session, feeds[index], seconds / rounds))
                note = f"{session.runtime} {np.median(times[index][-1]):.1f} ms"
                update(turn * len(sessions) + index + 1, note)
    return [_summary(turns) for turns in times]


def _one_turn(session: Session, feeds: Sequence[Feeds], seconds: float) -> list[float]:
    """Latencies in milliseconds over at least ``seconds``, after a warm-up that is not counted."""
    _run_for(session, feeds, min(WARM_UP_SECONDS, seconds), least=1)
    return _run_for(session, feeds, seconds, LEAST_RUNS)


def _run_for(session: Session, feeds: Sequence[Feeds], seconds: float, least: int) -> list[float]:
    found: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(found) < least:
        feed = dict(feeds[len(found) % len(feeds)])
        start = time.perf_counter()
        session.run(feed)
        found.append(1000 * (time.perf_counter() - start))
    return found


def _summary(turns: list[list[float]]) -> Latency:
    p50, p90, p95, p99 = np.percentile(np.concatenate(turns), [50, 90, 95, 99])
    medians = tuple(round(float(np.median(turn)), 4) for turn in turns)
    return Latency(float(p50), float(p90), float(p95), float(p99), sum(map(len, turns)), medians)
