"""From times to what a report says: percentiles, and the interval of the median, against NumPy, SciPy and by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from edpct.bench.latency import PHASES, Flow, Turn
from edpct.bench.statistics import median_interval, summarise, summarise_flow


def shuffled(values: range, seed: int = 0) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).permutation(values)]


# ---- percentiles


def test_percentiles_of_known_times() -> None:
    """1 to 101 ms: the n-th percentile is n + 1."""
    times = shuffled(range(1, 102))
    found = summarise([Turn(times[:20]), Turn(times[20:])], 1)
    assert (found.p50, found.p90, found.p95, found.p99) == (51, 91, 96, 100)
    assert found.quantiles == tuple(range(1, 102))
    assert found.runs == 101
    assert found.rounds == (float(np.median(times[:20])), float(np.median(times[20:])))
    assert found.fps == pytest.approx(1000 / 51) and found.phases == {}


def test_percentiles_of_any_times() -> None:
    rng = np.random.default_rng(3)
    turns = [list(rng.gamma(4, 2.5, size)) for size in (7, 30, 18)]
    found, times = summarise([Turn(turn) for turn in turns], 4), np.concatenate(turns)
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(np.percentile(times, [50, 90, 95, 99]))
    assert found.quantiles == pytest.approx(np.quantile(times, np.linspace(0, 1, 101)), abs=1e-5)
    assert (found.quantiles[0], found.quantiles[-1]) == pytest.approx((times.min(), times.max()), abs=1e-5)
    assert found.rounds == pytest.approx([np.median(turn) for turn in turns], abs=1e-5)
    assert found.fps == pytest.approx(4000 / np.median(times))  # four images an inference


def test_phases_are_medians_over_all_turns() -> None:
    turns = [
        Turn([10.0, 12.0], {name: [2.0 + i, 2.5 + i] for i, name in enumerate(PHASES)}),
        Turn([11.0], {name: [9.0 + i] for i, name in enumerate(PHASES)}),
    ]
    assert summarise(turns, 1).phases == {"decode": 2.5, "preprocess": 3.5, "infer": 4.5, "argmax": 5.5}


def test_a_slow_turn_shows_in_the_percentiles_and_in_the_rounds() -> None:
    found = summarise([Turn([10.0] * 30), Turn([30.0] * 10)], 1)
    assert (found.p50, found.p90, found.rounds) == (10, 30, (10, 30))


def test_throughput_is_frames_over_seconds_of_all_turns() -> None:
    flows = [Flow(3, 0.5, [100.0, 200.0, 300.0]), Flow(5, 1.5, [400.0] * 5)]
    found = summarise_flow(flows, streams=2, batch=4)
    assert (found.fps, found.frames, found.streams, found.p50) == (16.0, 32, 2, 400.0)
    assert found.rounds == pytest.approx((24.0, 13.3333))


# ---- the interval, one turn


def test_the_interval_of_ten_times_by_hand() -> None:
    """Heads in ten throws: P(at most 1) = 11/1024 = 1.1 %, P(at most 2) = 56/1024 = 5.5 %.

    So the second and the ninth of the ordered times enclose the median with 97.9 %, and the third and the eighth with
    89 % only.
    """
    assert median_interval([shuffled(range(1, 11))]) == (2.0, 9.0)


@pytest.mark.parametrize("count", [6, 9, 12, 20, 24, 50, 99, 100, 500, 1000])
def test_the_interval_is_the_narrowest_of_95_percent(count: int) -> None:
    low, high = (int(value) for value in median_interval([shuffled(range(1, count + 1))]))  # values are ranks

    def coverage(first: int, last: int) -> float:
        """Probability that the median lies between these two of the ordered times."""
        return float(binom.cdf(last - 1, count, 0.5) - binom.cdf(first - 1, count, 0.5))

    assert low + high == count + 1
    assert coverage(low, high) >= 0.95
    assert coverage(low + 1, high - 1) < 0.95


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_times_enclose_what_they_can(count: int) -> None:
    """Up to five times, not even the first and the last enclose the median with 95 %."""
    assert median_interval([shuffled(range(1, count + 1))]) == (1.0, float(count))


# ---- the interval, several turns


def medians_of_all_draws(turns: list[list[float]]) -> list[float]:
    """Sorted, one for every way to draw as many whole turns as there are, with replacement."""
    return sorted(float(np.median(np.concatenate(drawn))) for drawn in product(turns, repeat=len(turns)))


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_all_draws_of_whole_turns(seed: int) -> None:
    """Of four turns there are 256 draws; a thousand random ones find their 2.5 % and 97.5 % points to 1.5 %."""
    rng = np.random.default_rng(seed)
    turns = [list(rng.normal(10 + 5 * rng.random(), 0.5, size)) for size in (4, 9, 6, 7)]
    low, high = median_interval(turns)
    medians = medians_of_all_draws(turns)
    assert medians[int(0.010 * 256)] - 1e-9 <= low <= medians[int(0.040 * 256)] + 1e-9
    assert medians[-1 - int(0.040 * 256)] - 1e-9 <= high <= medians[-1 - int(0.010 * 256)] + 1e-9


def test_the_interval_of_two_turns_is_between_their_medians() -> None:
    """A quarter of the draws is the one alone, and a quarter the other."""
    assert median_interval([[9.0, 10.0, 30.0], [12.0, 14.0, 1.0, 15.0]]) == (10.0, 13.0)


def test_identical_turns_leave_a_point() -> None:
    assert median_interval([[9.0, 10.0, 12.0, 10.0]] * 6) == (10.0, 10.0)


def test_turns_that_differ_leave_a_wide_interval() -> None:
    """Times within a turn resemble each other; taken singly, 300 times would seem to tell the median to 1 %."""
    rng = np.random.default_rng(0)
    turns = [list(rng.normal(centre, 0.05, 50)) for centre in (8.0, 9.0, 10.0, 11.0, 12.0, 13.0)]
    low, high = median_interval(turns)
    assert low < 9.2 and high > 11.8
    alone_low, alone_high = median_interval([[value for turn in turns for value in turn]])
    assert high - low > 2 * (alone_high - alone_low)


def test_the_interval_contains_the_median() -> None:
    rng = np.random.default_rng(5)
    for _ in range(12):
        turns = [list(rng.gamma(9, rng.uniform(0.9, 1.1), rng.integers(4, 30))) for _ in range(rng.integers(2, 9))]
        low, high = median_interval(turns)
        assert low <= np.median(np.concatenate(turns)) <= high


def test_more_of_a_turn_weighs_more() -> None:
    """In most draws the long turn holds more than half of all times."""
    low, high = median_interval([[10.0] * 100, [20.0]])
    assert low == 10.0 and high == 20.0  # a quarter of the draws has the short one only
    low, high = median_interval([[10.0] * 100, *([[20.0]] * 5)])
    assert low == 10.0


def test_the_same_turns_give_the_same_interval() -> None:
    rng = np.random.default_rng(6)
    turns = [list(rng.normal(10, 1, 20)) for _ in range(6)]
    assert median_interval(turns) == median_interval(turns)


def test_the_interval_covers_the_truth() -> None:
    """Machines whose turns differ: about nine times in ten with ten turns, far more than single times would."""
    rng = np.random.default_rng(1)
    hits = naive = 0
    for _ in range(60):
        turns = [list(10 + rng.normal(0, 1) + rng.normal(0, 0.2, 5)) for _ in range(10)]
        low, high = median_interval(turns)
        hits += low <= 10 <= high
        low, high = median_interval([[value for turn in turns for value in turn]])
        naive += low <= 10 <= high
    assert hits >= 0.8 * 60
    assert naive < hits
