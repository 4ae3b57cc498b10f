"""Runs of a comparison: what is tuned, what is made once only, and what the page says of it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from study import Run, Study, by_seed, mean_and_spread, written

from edpct.progress import Silent

VALUES = (0.1, 0.2, 0.4)
Key = tuple[str, float, int, int, int, int]
# mIoU by variant, value and seed: the best value on seed 0 is 0.2 for "a" and 0.4 for "b".
SCORES = {"a": {0.1: 40.0, 0.2: 50.0, 0.4: 45.0}, "b": {0.1: 10.0, 0.2: 20.0, 0.4: 30.0}}


def _key(variant: str, value: float, seed: int) -> Key:
    return variant, value, seed, 400, 8, 256


def _maker(made: list[tuple[str, float, int]]) -> Callable[[str, float, int], Run]:
    def make(variant: str, value: float, seed: int) -> Run:
        made.append((variant, value, seed))
        miou = SCORES[variant][value] - 4 * seed
        return Run(*_key(variant, value, seed), miou=miou, iou={"road": miou}, loss=1.0, seconds=0.0)

    return make


def _tuned(path: Path, made: list[tuple[str, float, int]], stop_after: int = 1000) -> dict[str, list[Run]]:
    make = _maker(made)

    def stopping(variant: str, value: float, seed: int) -> Run:
        if len(made) == stop_after:
            raise KeyboardInterrupt
        return make(variant, value, seed)

    return Study(path, Silent()).tuned(["a", "b"], lambda _: VALUES, 3, stopping, _key)


def test_each_variant_is_tuned_on_the_first_seed_and_repeated_at_its_best(tmp_path: Path) -> None:
    made: list[tuple[str, float, int]] = []
    found = _tuned(tmp_path / "study.json", made)
    assert [(run.value, run.seed) for run in found["a"]] == [(0.2, 0), (0.2, 1), (0.2, 2)]
    assert [run.miou for run in found["b"]] == [30.0, 26.0, 22.0]
    assert len(made) == len(set(made)) == 2 * (3 + 2)
    assert made[:2] == [("a", 0.1, 0), ("b", 0.1, 0)]  # in turns: stopped early, it has as much of each


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_a_stopped_study_goes_on_without_making_a_run_twice(tmp_path: Path, stop_after: int) -> None:
    path, made, rest = tmp_path / "study.json", list[tuple[str, float, int]](), list[tuple[str, float, int]]()
    with pytest.raises(KeyboardInterrupt):
        _tuned(path, made, stop_after)
    assert len(json.loads(path.read_text())["runs"]) == stop_after
    found = _tuned(path, rest)
    assert not set(made) & set(rest) and len(made) + len(rest) == 10
    assert {name: [run.miou for run in runs] for name, runs in found.items()} == {
        "a": [50.0, 46.0, 42.0],
        "b": [30.0, 26.0, 22.0],
    }
    assert by_seed("a", Study(path, Silent()).runs) == found["a"]


def test_mean_and_spread_are_those_of_the_statistics_module(tmp_path: Path) -> None:
    runs = _tuned(tmp_path / "study.json", [])["a"]
    assert mean_and_spread(runs) == (46.0, pytest.approx(statistics.stdev([50.0, 46.0, 42.0])))
    assert written(runs) == "46.00 ± 4.00"
    assert mean_and_spread(runs[:1]) == (50.0, 0.0)
