"""Latency: medians of sessions whose speed is known, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from edpct.bench import latency
from edpct.bench.latency import Latency, measure_latency
from edpct.progress import Silent
from edpct.runtimes.session import Arrays


class Clock:
    """Stands still until a session takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: self.now))


class FakeSession:
    """Takes the time it is told to; notes its calls."""

    runtime = "fake"

    def __init__(self, name: str, take: Callable[[], None], calls: list[tuple[str, int]]) -> None:
        self.name, self.take, self.calls = name, take, calls

    def run(self, feeds: Arrays) -> Arrays:
        self.calls.append((self.name, int(feeds["image"])))
        self.take()
        return {}


FEEDS = [{"image": np.array(index)} for index in range(3)]


def test_the_median_of_a_session_of_known_speed() -> None:
    """Against the real clock: sleep is never short, and on a busy machine it may be long, but its median is not."""
    session = FakeSession("a", lambda: time.sleep(0.02), [])
    (found,) = measure_latency([session], [FEEDS], 0.6, 2, Silent())
    assert found.p50 == pytest.approx(20, rel=0.1)
    assert found.p50 <= found.p90 <= found.p95 <= found.p99
    assert found.fps == pytest.approx(1000 / found.p50)
    assert found.runs >= 20


def test_sessions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls: list[tuple[str, int]] = []

    def taking(seconds: float) -> Callable[[], None]:
        def take() -> None:
            clock.now += seconds

        return take

    sessions = [FakeSession("a", taking(0.010), calls), FakeSession("b", taking(0.100), calls)]
    found = measure_latency(sessions, [FEEDS, FEEDS], 3.0, 3, Silent())
    order = [name for name, _ in calls]
    turns = [name for index, name in enumerate(order) if index == 0 or order[index - 1] != name]
    assert turns == ["a", "b"] * 3
    assert [session.p50 for session in found] == pytest.approx([10, 100])
    assert [session.fps for session in found] == pytest.approx([100, 10])
    assert all(len(session.rounds) == 3 for session in found)
    # A second of each turn is timed, after half a second that is not.
    assert found[0].runs == pytest.approx(300, abs=6)
    assert order.count("a") == pytest.approx(450, abs=9)
    assert found[1].runs == pytest.approx(30, abs=3)


def test_the_first_inferences_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls: list[tuple[str, int]] = []

    def cold_start() -> None:
        clock.now += 5.0 if len(calls) == 1 else 0.001

    (found,) = measure_latency([FakeSession("a", cold_start, calls)], [FEEDS], 1.0, 1, Silent())
    assert found.p99 == pytest.approx(1.0)


def test_a_slow_engine_is_timed_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def slow() -> None:
        clock.now += 7.0

    (found,) = measure_latency([FakeSession("a", slow, [])], [FEEDS], 1.0, 2, Silent())
    assert found.runs == 2 * latency.LEAST_RUNS
    assert found.p50 == pytest.approx(7000)


def test_inputs_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls: list[tuple[str, int]] = []

    def take() -> None:
        clock.now += 0.1

    measure_latency([FakeSession("a", take, calls)], [FEEDS], 1.0, 1, Silent())
    timed = [index for _, index in calls[-10:]]
    assert set(timed) == {0, 1, 2}
    assert all((after - before) % 3 == 1 for before, after in pairwise(timed))


def test_percentiles_are_over_all_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down in the second turn shows in the percentiles and in the turns' medians."""
    clock = Clock(monkeypatch)

    def slower_later() -> None:
        clock.now += 0.010 if clock.now < 10.75 else 0.030

    (found,) = measure_latency([FakeSession("a", slower_later, [])], [FEEDS], 20.0, 2, Silent())
    assert found.rounds == pytest.approx((10, 30))
    assert found.p50 == pytest.approx(10)  # 1,000 runs of 10 ms, 333 of 30 ms
    assert found.p90 == pytest.approx(30)


def test_fps_is_of_the_median() -> None:
    assert Latency(p50=4.0, p90=8.0, p95=9.0, p99=10.0, runs=5, rounds=(4.0,)).fps == 250
