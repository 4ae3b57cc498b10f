"""From the times of the turns to what a report says: percentiles, and an interval that admits the machine's moods."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import comb, floor, sqrt

import numpy as np
from numpy.typing import NDArray

from edpct.bench.latency import Flow, Turn
from edpct.bench.report.schema import LatencyReport, ThroughputReport

RESAMPLES = 1000
_Z = 1.96  # of the normal distribution, for 95 %


def summarise(turns: Sequence[Turn], batch: int) -> LatencyReport:
    """The latency of one scope over all turns."""
    times = np.array(list(chain.from_iterable(turn.times for turn in turns)))
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    phases = {
        name: float(np.median(list(chain.from_iterable(turn.phases[name] for turn in turns))))
        for name in turns[0].phases
    }
    return LatencyReport(
        p50=p50, p90=p90, p95=p95, p99=p99,
        interval=median_interval([turn.times for turn in turns]),
        runs=len(times),
        rounds=tuple(round(float(np.median(turn.times)), 5) for turn in turns),
        quantiles=tuple(round(float(value), 5) for value in np.percentile(times, range(101))),
        phases=phases,
        fps=1000 * batch / p50,
    )  # fmt: skip


def summarise_flow(flows: Sequence[Flow], streams: int, batch: int) -> ThroughputReport:
    """The throughput over all turns."""
    runs, seconds = sum(flow.runs for flow in flows), sum(flow.seconds for flow in flows)
    times = list(chain.from_iterable(flow.times for flow in flows))
    return ThroughputReport(
        streams=streams,
        fps=runs * batch / seconds,
        p50=float(np.median(times)),
        frames=runs * batch,
        rounds=tuple(round(flow.runs * batch / flow.seconds, 4) for flow in flows),
    )


def median_interval(turns: Sequence[Sequence[float]]) -> tuple[float, float]:
    """A 95 % confidence interval of the median.

    Times within a turn resemble each other more than those of another turn, so turns are drawn with replacement, not
    single times (cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
    3.8). With few turns it is somewhat too narrow, as every bootstrap of few is. With one turn there is nothing to
    draw, and the order statistics of its times are taken (the binomial interval: David and Nagaraja, "Order
    Statistics", 2003, section 7.1), which knows nothing of slow drift.
    """
    if len(turns) == 1:
        return _order_interval(np.sort(np.asarray(turns[0], dtype=np.float64)))
    values = np.concatenate([np.asarray(turn, dtype=np.float64) for turn in turns])
    owner = np.repeat(np.arange(len(turns)), [len(turn) for turn in turns])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(turns), np.full(len(turns), 1 / len(turns)), size=RESAMPLES)
    medians = [_weighted_median(values, weights[owner]) for weights in draws]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """The median of sorted values, each repeated as often as its weight says."""
    upto = np.cumsum(weights)
    half = upto[-1] / 2
    first = int(np.searchsorted(upto, half))  # the first at which at least half lies below or at it
    if upto[first] > half:
        return float(values[first])
    after = int(np.searchsorted(upto, half, side="right"))
    return float((values[first] + values[after]) / 2)


def _order_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The narrowest two of the ordered values, one from either end, that enclose the median with 95 %; exact.

    The first and the last where there are too few.
    """
    count = len(values)
    if count > 500:  # the normal approximation, right to a rank
        skipped = floor(count / 2 - _Z * sqrt(count) / 2) - 1
        return float(values[skipped]), float(values[-1 - skipped])
    skipped, outside = 0, 2 / 2**count  # the median lies outside the first and the last
    while (outside := outside + 2 * comb(count, skipped + 1) / 2**count) <= 0.05:
        skipped += 1
    return float(values[skipped]), float(values[-1 - skipped])
