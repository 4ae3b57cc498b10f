"""How much faster one engine is than another, on a machine whose pace wanders.

A machine that others use, or that grows hot, may run a quarter slower for some seconds. Times taken within a fraction
of a second are slowed alike, so engines take very short turns, and what counts is the ratio within a round. Where the
slow spells hit one engine harder than the other (their memory traffic differs), ratios have two heaps: a mean tells the
mix, while a median would jump from one heap to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edpct.bench.crew import Member
from edpct.bench.frames import encoded_windows
from edpct.bench.requests import Request
from edpct.bench.statistics import RESAMPLES
from edpct.bench.worker import Job
from edpct.data.samples import Dataset
from edpct.runtimes.artefact import card_of

TURN = 0.1  # seconds
TRIMMED = 0.1  # of the ratios, at either end: turns that were disturbed
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Pace:
    """One engine against the first.

    Attributes:
        fps: images a second of its median turn, scope ``transfer``.
        ratio: of its rate by that of the first engine in the same round, the trimmed mean over the rounds; the first's
            own is 1.
        interval: 95 % confidence interval of ``ratio``, rounds drawn with replacement (bootstrap).
        runs: inferences behind it.
    """

    fps: float
    ratio: float
    interval: tuple[float, float]
    runs: int


def compare_pace(requests: Sequence[Request], dataset: Dataset | None, seconds: float, warm_up: float) -> list[Pace]:
    """Time engines in very short turns.

    Args:
        requests: the first is what the others are compared with; all of batch 1.
        dataset: whose val images are timed with; None: noise.
        seconds: of timing for each engine, at least; settling before each turn comes on top.
        warm_up: seconds that an engine may take to reach a steady rate.

    Raises:
        EngineError, MissingPackageError: an engine carries no card, or does not open or run.
    """
    times: list[list[float]] = [[] for _ in requests]  # medians of the turns, ms
    runs, spent = [0] * len(requests), [0.0] * len(requests)
    with ExitStack() as stack:
        members = [stack.enter_context(Member(_job(request, dataset))) for request in requests]
        for member in members:
            member.open()
            member.warm_up(warm_up)
        while len(times[0]) < LEAST_ROUNDS or min(spent) < seconds:
            order = list(range(len(members)))
            for index in order if len(times[0]) % 2 == 0 else reversed(order):  # a steady drift cancels
                turn = members[index].turn("transfer", min(TURN, seconds), 1, settle=True)
                times[index].append(median(turn.times))
                runs[index] += len(turn.times)
                spent[index] += sum(turn.times) / 1000
    return [_pace(times[0], own, count) for own, count in zip(times, runs, strict=True)]


def _pace(first: Sequence[float], own: Sequence[float], runs: int) -> Pace:
    ratio, interval = mean_ratio(first, own)
    return Pace(1000 / median(own), ratio, interval, runs)


def mean_ratio(first: Sequence[float], own: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Trimmed mean over the rounds of how many times faster ``own`` is than ``first``, and its 95 % interval.

    Args:
        first, own: milliseconds, one for each round.
    """
    ratios = np.asarray(first, np.float64) / np.asarray(own, np.float64)
    draws = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.percentile(_trimmed(draws), [2.5, 97.5])
    return float(_trimmed(ratios)), (float(low), float(high))


def _trimmed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along the last axis, without the share :data:`TRIMMED` at either end."""
    count = values.shape[-1]
    cut = int(TRIMMED * count)
    mean: NDArray[np.float64] = np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return mean


def _job(request: Request, dataset: Dataset | None) -> Job:
    task = card_of(request.path).task
    images = encoded_windows(task, dataset)
    return Job(request.path, request.runtime, request.device, request.options, 1, task, images)
