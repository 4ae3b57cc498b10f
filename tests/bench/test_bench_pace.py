"""Which of two engines is faster, on a machine whose pace wanders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typing_extensions import Self

from edpct.bench import pace
from edpct.bench.latency import Turn
from edpct.bench.pace import compare_pace, mean_ratio
from edpct.bench.requests import Request
from edpct.errors import EngineError

TOOK = {"slow.onnx": 10.0, "fast.onnx": 4.0}  # ms


class Machine:
    """Hands out made times; ``factor`` says how slow the machine is, given the number of turns that were taken."""

    def __init__(self, factor: Callable[[int], float]) -> None:
        self.factor, self.turns = factor, list[str]()

    def member(self, job: str) -> Member:
        return Member(self, job)


class Member:
    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name

    def open(self) -> None:
        pass

    def warm_up(self, limit: float) -> None:
        pass

    def turn(self, scope: str, seconds: float, least: int, settle: bool) -> Turn:
        assert scope == "transfer" and settle
        took = TOOK[self.name] * self.machine.factor(len(self.machine.turns))
        self.machine.turns.append(self.name)
        return Turn([took] * least)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def compared(
    monkeypatch: pytest.MonkeyPatch, factor: Callable[[int], float], seconds: float
) -> tuple[Machine, list[pace.Pace]]:
    machine = Machine(factor)
    monkeypatch.setattr(pace, "Member", machine.member)
    monkeypatch.setattr(pace, "_job", lambda request, dataset: request.path.name)
    requests = [Request(name, Path(name), "openvino") for name in TOOK]
    return machine, compare_pace(requests, None, seconds, 1.0)


ROUND = 0.003999  # seconds: the fast one's turn, a little less


def test_engines_take_turns_and_the_order_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, (slow, fast) = compared(monkeypatch, lambda number: 1.0, 4 * ROUND)
    assert machine.turns == ["slow.onnx", "fast.onnx", "fast.onnx", "slow.onnx"] * 2
    assert slow.ratio == 1 and slow.interval == (1, 1) and slow.fps == 100
    assert fast.ratio == pytest.approx(2.5) and fast.interval == pytest.approx((2.5, 2.5))
    assert fast.fps == 250 and fast.runs == slow.runs == 4


def test_a_machine_that_turns_slow_changes_the_rates_and_not_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, (slow, fast) = compared(monkeypatch, lambda number: 2.0 if number >= 8 else 1.0, (4 + 2 * 8) * ROUND)
    assert len(machine.turns) == 2 * 12
    assert slow.fps == 50 and fast.fps == 125
    assert fast.ratio == pytest.approx(2.5) and fast.interval == pytest.approx((2.5, 2.5))


def test_a_steady_drift_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, fast) = compared(monkeypatch, lambda number: 1 + 0.02 * number, 60 * ROUND)
    assert fast.ratio == pytest.approx(2.5, rel=2e-3)
    assert fast.interval[0] < fast.ratio < fast.interval[1]


def test_a_few_turns_that_were_disturbed_do_not_move_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    hit = {4, 9, 30, 55, 61, 78}
    _, (_, fast) = compared(monkeypatch, lambda number: 3.0 if number in hit else 1.0, 46 * ROUND)
    assert fast.ratio == pytest.approx(2.5, abs=1e-12)


def test_of_two_heaps_the_mix_is_told() -> None:
    """Half of the rounds at ratio 2, half at 3, one more or less: the mean hardly moves, as a median would."""
    for slow in (19, 20, 21):
        ratio, (low, high) = mean_ratio([6.0] * 40, [3.0] * slow + [2.0] * (40 - slow))
        assert ratio == pytest.approx(2.5, abs=0.05)
        assert 2.2 < low < ratio < high < 2.8
    assert mean_ratio([10.0], [4.0]) == (2.5, (2.5, 2.5))


def test_real_engines(compressed_run: Path) -> None:
    requests = [Request(name, compressed_run / name, "onnxruntime") for name in ("teacher.onnx", "student.onnx")]
    teacher, student = compare_pace(requests, None, 0.1, 0.1)
    assert teacher.ratio == 1 and teacher.runs >= 3 and teacher.fps > 0
    assert 0 < student.interval[0] <= student.ratio <= student.interval[1]


def test_an_engine_that_does_not_open_is_said(compressed_run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((compressed_run / "student.onnx").read_bytes()[:-1000])
    with pytest.raises(EngineError):
        compare_pace([Request("broken", broken, "onnxruntime")], None, 0.1, 0.1)
