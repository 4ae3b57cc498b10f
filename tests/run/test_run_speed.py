"""Pruning toward frames per second: the search on made speeds, and one search with engines that are really built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.data.scenes import SCENE_TASK
from edpct.errors import EngineError, PruningError, RecipeError
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.dpctnet import dpctnet
from edpct.progress import Silent
from edpct.pruning.prune import Pruned, Pruner
from edpct.recipe import BenchSettings, ExportSettings, PruneSettings
from edpct.run import fps
from edpct.run import speed as module
from edpct.run.fps import MOST, prune_to_fps
from edpct.run.speed import JOURNAL, EngineSpeed, Probe, parse_target, plan_key

SIDE = 128  # pixels: as large as the scenes of the tests
FIXED, PER_SHARE = 5.0, 20.0  # ms: made latency = fixed + per share of the MACs; 40 FPS unpruned


class MadeSpeed:
    """Latency from a formula; ``factor`` is given the number of the timing, for noise and drift."""

    def __init__(self, latency: Callable[[float], float], factor: Callable[[int], float] = lambda number: 1.0) -> None:
        self.title, self.spent, self.drift = "made", 0.0, 1.0
        self.latency, self.factor = latency, factor
        self.known: dict[str, Probe] = {}
        self.count = 0
        self.kept: set[str] | None = None

    def measure(self, pruned: Pruned) -> Probe:
        return self._timed(pruned, 50)

    def again(self, pruned: Sequence[Pruned]) -> list[Probe]:
        return [self._timed(each, 150) for each in pruned]

    def keep(self, keys: Collection[str]) -> None:
        self.kept = set(keys)

    def _timed(self, pruned: Pruned, runs: int) -> Probe:
        key, macs = plan_key(pruned.kept), pruned.macs / pruned.teacher_macs
        fps = 1000 / (self.latency(macs) * self.factor(self.count))
        self.count += 1
        probe = Probe(key, macs, fps, (0.99 * fps, 1.01 * fps), runs)
        self.known[key] = self.known[key].joined(probe) if key in self.known else probe
        return self.known[key]


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def linear(share: float) -> float:
    return FIXED + PER_SHARE * share


@pytest.fixture(scope="module")
def pruner() -> Pruner:
    torch.manual_seed(0)
    model = dpctnet("tiny", SCENE_TASK.num_classes).eval()
    return Pruner(model, PruneSettings(round_to=4), (SIDE, SIDE), Silent())


# ---- the search


@pytest.mark.parametrize(
    ("power", "target"), [(1.0, 80.0), (0.6, 55.0), (0.6, 120.0), (1.6, 80.0)], ids=["linear", "up", "up far", "down"]
)
def test_the_target_is_met(pruner: Pruner, power: float, target: float) -> None:
    def latency(share: float) -> float:
        return FIXED + PER_SHARE * share**power

    speed, progress = MadeSpeed(latency), Listening()
    found = prune_to_fps(pruner, speed, target, progress)
    assert abs(found.fps / target - 1) <= 0.05
    assert found.fps == pytest.approx(1000 / latency(found.pruned.macs / found.pruned.teacher_macs))
    assert len(found.probes) <= MOST and len({probe.key for probe in found.probes}) == len(found.probes)
    assert speed.kept == set(), "no files are left"
    assert next(probe for probe in found.probes if probe.key == plan_key(found.pruned.kept)).timings == 2
    assert progress.said[0] == f"  100.0 % of the MACs: 40.0 FPS on made (target {target:g})"


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_drift_are_survived(pruner: Pruner, seed: int) -> None:
    """1 % of noise on every timing, and the machine becomes 10 % slower for good after the third."""
    noise = np.random.default_rng(seed).normal(1, 0.01, 100)
    speed = MadeSpeed(linear, lambda number: float(noise[number]) * (1.1 if number >= 3 else 1.0))
    found = prune_to_fps(pruner, speed, 80.0, Silent())
    true = 1000 / (1.1 * linear(found.pruned.macs / found.pruned.teacher_macs))
    assert abs(true / 80 - 1) <= 0.05 and len(found.probes) <= MOST


def test_after_a_jump_the_neighbours_are_timed_again(pruner: Pruner) -> None:
    steady = MadeSpeed(linear)
    prune_to_fps(pruner, steady, 80.0, Silent())
    last = steady.count - 1  # the confirmation
    speed, progress = MadeSpeed(linear, lambda number: 1.2 if number >= last else 1.0), Listening()
    found = prune_to_fps(pruner, speed, 80.0, progress)
    assert any("has changed" in line for line in progress.said)
    assert sum(probe.drifted for probe in found.probes) == 3
    assert abs(1000 / (1.2 * linear(found.pruned.macs / found.pruned.teacher_macs)) / 80 - 1) <= 0.05


def test_a_target_that_no_width_reaches_is_refused(pruner: Pruner) -> None:
    with pytest.raises(PruningError) as caught:
        prune_to_fps(pruner, MadeSpeed(linear), 500.0, Silent())
    text = str(caught.value)
    assert "No pruning reaches 500 FPS" in text and "on made" in text and "% of the MACs" in text
    assert "--size" in caught.value.hint


def test_what_is_fast_enough_is_left_as_it_is(pruner: Pruner) -> None:
    found = prune_to_fps(pruner, MadeSpeed(linear), 30.0, Silent())
    assert found.pruned.macs == found.pruned.teacher_macs and len(found.probes) == 1
    assert "nothing was pruned" in found.note


def test_where_widths_are_too_coarse_the_next_faster_network_is_taken() -> None:
    torch.manual_seed(0)
    model = dpctnet("small", SCENE_TASK.num_classes).eval()
    coarse = Pruner(model, PruneSettings(round_to=64), (SIDE, SIDE), Silent())
    shares = sorted({coarse.cost("macs", coarse.planner.at(keep)) / coarse.cost("macs", {}) for keep in (0.0, 1.0)})
    target = 1000 / linear(shares[0]) * 0.9  # a tenth under the narrowest network
    found = prune_to_fps(coarse, MadeSpeed(linear), target, Silent())
    assert found.fps >= target or abs(found.fps / target - 1) <= 0.05
    assert bool(found.note) == (abs(found.fps / target - 1) > 0.05)


# ---- timings


def test_timings_that_agree_are_joined_and_else_the_later_counts() -> None:
    old = Probe("k", 0.5, 100.0, (98.0, 101.0), 50, seconds=2.0)
    joined = old.joined(replace(old, fps=103.0, interval=(102.0, 104.0), runs=150, seconds=3.0))
    assert 102 < joined.fps < 103 and joined.interval == (98.0, 104.0) and not joined.drifted
    assert (joined.timings, joined.runs, joined.seconds) == (2, 200, 5.0)
    later = old.joined(replace(old, fps=90.0, interval=(89.0, 91.0)))
    assert later.fps == 90.0 and later.interval == (89.0, 91.0) and later.drifted and later.timings == 2


def test_runtime_and_device() -> None:
    assert parse_target("openvino") == ("openvino", None)
    assert parse_target("onnxruntime:cuda") == ("onnxruntime", "cuda")
    for wrong, said in (("torch", "checkpoints"), ("tflite", "unknown"), ("openvino:npu", "no device 'npu'")):
        with pytest.raises(RecipeError, match=said) as caught:
            parse_target(wrong)
        assert caught.value.hint.startswith("Choose from: ")


# ---- engines


@pytest.fixture(scope="module")
def card(pruner: Pruner) -> Card:
    macs, parameters = count_macs(pruner.model, SIDE, SIDE), count_parameters(pruner.model)
    return Card(network="DP-CTNet tiny", task=SCENE_TASK.at_size(SIDE, SIDE), parameters=parameters, macs=macs)


def engine_speed(
    card: Card, scenes: Path, workspace: Path, precision: str = "fp32", seconds: float = 0.2
) -> EngineSpeed:
    images = [np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 128, 255)]
    pruning = PruneSettings.model_validate({"on": "openvino:cpu", "precision": precision})
    timing = BenchSettings(seconds=seconds, runs=4, rounds=2, warm_up=0.3, threads=1)
    dataset = open_dataset(scenes, "folder")
    return EngineSpeed(card, images, dataset, pruning, ExportSettings(simplify=False), timing, workspace, Silent())


def test_a_search_with_real_engines(
    pruner: Pruner, card: Card, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def seen(model: object, card: Card, path: Path, *rest: object) -> None:
        built.append(path.parent.name.removeprefix("probe-"))
        export(model, card, path, *rest)

    export = module.export_onnx
    monkeypatch.setattr(module, "export_onnx", seen)
    monkeypatch.setattr(fps, "MOST", 3)
    speed = engine_speed(card, scenes, tmp_path)
    whole = speed.measure(pruner.by({group.name: group.width for group in pruner.planner.groups}))
    target = 1.2 * whole.fps
    found = prune_to_fps(pruner, speed, target, Silent())
    assert found.probes[0].key == whole.key and found.probes[0].macs == 1
    assert sorted(set(built)) == sorted(probe.key for probe in found.probes)
    low, high = found.interval
    assert 0 < low <= found.fps <= high and len(found.probes) <= MOST
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]

    built.clear()
    later = engine_speed(card, scenes, tmp_path)
    assert later.spent == pytest.approx(sum(probe.seconds for probe in found.probes))
    again = prune_to_fps(pruner, later, target, Silent())
    assert built == [], "what was timed is not built again"
    assert again.probes == found.probes and again.pruned.kept == found.pruned.kept
    other = engine_speed(card, scenes, tmp_path, seconds=0.3)
    assert other.spent == 0, "timings under other settings do not count"


def test_an_int8_engine_is_timed(pruner: Pruner, card: Card, scenes: Path, tmp_path: Path) -> None:
    speed = engine_speed(card, scenes, tmp_path, "int8")
    narrow = pruner.by(pruner.planner.narrowest())
    probe = speed.measure(narrow)
    assert speed.title == "openvino:cpu int8" and probe.macs < 0.2 and probe.fps > 0
    assert [path.name for path in tmp_path.glob("probe-*/int8.onnx")] == ["int8.onnx"]
    (twice,) = speed.again([narrow])
    assert twice.timings == 2
    speed.keep([probe.key])
    assert list(tmp_path.glob("probe-*"))
    speed.keep(())
    assert not list(tmp_path.glob("probe-*"))


def test_a_gpu_that_is_not_there_is_said_at_once(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(engine: Path) -> None:
        raise EngineError(f"{engine.name} needs an NVIDIA GPU.")

    monkeypatch.setattr(module, "require_gpu", none)
    pruning = PruneSettings(on="tensorrt")
    with pytest.raises(EngineError, match="an engine for TensorRT needs"):
        EngineSpeed(card, [], None, pruning, ExportSettings(), BenchSettings(), tmp_path, Silent())
