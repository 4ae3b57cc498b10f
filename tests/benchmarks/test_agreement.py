"""The agreement script: its verdict on given numbers, what it reads from the other programs, the harness's own cost."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edpct.data.scenes import SCENE_TASK
from edpct.errors import EngineError

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
LOG = """\
[ INFO ]   NUM_STREAMS: 1
[ INFO ]   INFERENCE_NUM_THREADS: 2
[ INFO ]   INFERENCE_PRECISION_HINT: <Type: 'float32'>
[ INFO ]   ENABLE_CPU_PINNING: True
"""


@pytest.fixture()
def agreement(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("agreement")


@pytest.fixture()
def programs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("other_programs")


def _rounds(agreement: ModuleType, *ratios: float) -> list[Any]:
    """Rounds whose other median rises from 10 ms on, as on a machine that slows down; edpct's goes along."""
    return [
        agreement.Round(edpct_ms=ratio * (10 + i), other_ms=10.0 + i, beside_ms=12.0, ratio=ratio)
        for i, ratio in enumerate(ratios)
    ]


def test_ratio_is_paired_by_round_and_not_that_of_the_pooled_medians(agreement: ModuleType) -> None:
    verdict = agreement.judge(_rounds(agreement, 1.01, 1.02, 1.00, 1.01, 1.02, 1.01))
    assert verdict.ratio == pytest.approx(1.01)
    assert (verdict.least, verdict.most) == (pytest.approx(1.00), pytest.approx(1.02))
    assert verdict.least <= verdict.low <= verdict.ratio <= verdict.high <= verdict.most
    assert verdict.within and verdict.sure
    assert verdict.other_ms == pytest.approx(12.5)


@pytest.mark.parametrize("ratio", [0.96, 1.04])
def test_more_than_three_percent_either_way_is_no_agreement(agreement: ModuleType, ratio: float) -> None:
    verdict = agreement.judge(_rounds(agreement, *[ratio] * 6))
    assert not verdict.within and not verdict.sure


def test_rounds_that_scatter_agree_without_being_sure(agreement: ModuleType) -> None:
    verdict = agreement.judge(_rounds(agreement, 0.90, 0.95, 1.00, 1.01, 1.06, 1.12))
    assert verdict.within and not verdict.sure


def _record(agreement: ModuleType, ratio: float = 1.0, wall: float = 5.0) -> dict[str, Any]:
    rounds = _rounds(agreement, *[ratio] * 4)
    facts = {"engine": "a.onnx", "runtime": "openvino", "other": "benchmark_app", "scope": "compute"}
    verdict = agreement.asdict(agreement.judge(rounds))
    return {
        "machine": {"cpu": "A CPU", "cores": 2, "system": "Linux"}, "versions": {"edpct": "1"}, "date": "2026-01-02",
        "load_before": 0.1, "command": "python benchmarks/agreement.py", "threads": 2,
        "overhead": {"compute": {"wall": wall, "reported": 0.2}},
        "results": [{**facts, "beside": "transfer", **verdict, "rounds": rounds}],
    }  # fmt: skip


def test_a_dear_harness_fails_even_where_the_ratios_agree(agreement: ModuleType) -> None:
    assert agreement.passed(_record(agreement))
    assert not agreement.passed(_record(agreement, wall=51.0))
    assert not agreement.passed(_record(agreement, ratio=1.05))


def test_page_says_the_verdict(agreement: ModuleType) -> None:
    assert "Agreement: yes." in agreement.page(_record(agreement))
    text = agreement.page(_record(agreement, ratio=1.05))
    assert "Agreement: no." in text and "| 1.050 |" in text and "| no |" in text


def test_what_benchmark_app_says_is_read(programs: ModuleType) -> None:
    found, settings = programs.parse_benchmark_app({"execution_results": {"latency (ms)": "12.34"}}, LOG)
    assert found == 12.34
    assert settings == {"precision": "f32", "threads": "2", "streams": "1", "pinning": "True"}


@pytest.mark.parametrize(
    ("report", "log", "reason"),
    [
        ({"execution_results": {"error": "no such file"}}, LOG, "no such file"),
        ({"execution_results": {"latency (ms)": "1.0"}}, LOG + "Fill input 'image' with random values", "frames"),
    ],
)
def test_a_benchmark_app_that_failed_or_made_its_own_input_is_refused(
    programs: ModuleType, report: dict[str, Any], log: str, reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        programs.parse_benchmark_app(report, log)


def test_missing_benchmark_app_is_a_sentence(programs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.shutil, "which", lambda *_, **__: None)
    with pytest.raises(EngineError, match="no benchmark_app"):
        programs.find_benchmark_app()


class Scripted:
    """A program whose turns take 2 ms, and that says what it is told to."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *error: object) -> None: ...

    def turn(self, seconds: float) -> float:
        return 2.0


class Worker(Scripted):
    """In place of edpct's worker process: turns of 3 ms."""

    def open(self) -> SimpleNamespace:
        return SimpleNamespace(details={"threads": "2", "version": "1"})

    def warm_up(self, limit: float) -> None: ...

    def turn(self, *_: object, **__: object) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(times=[3.0, 3.0, 9.0])


def test_a_round_and_settings_that_differ(agreement: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "Member", lambda job: Worker({}))
    setup = SimpleNamespace(engine=None, threads=2, task=None, images=())
    same, other = ({"threads": threads, "pinning": "True"} for threads in ("2", "4"))
    rival = agreement.Rival("it", "openvino", "compute", "transfer", 3, 0.1, lambda _: Scripted(same))
    found, settings = agreement.play(setup, rival)
    assert (found.edpct_ms, found.other_ms, found.ratio) == (3.0, 2.0, 1.5) and settings["it"] == same
    rival = agreement.Rival("it", "openvino", "compute", "transfer", 3, 0.1, lambda _: Scripted(other))
    with pytest.raises(EngineError, match="threads 4, edpct with 2"):
        agreement.play(setup, rival)


def test_who_goes_first_alternates(agreement: ModuleType) -> None:
    calls: list[str] = []

    def taking(name: str, value: float) -> Any:
        return lambda: calls.append(name) or value

    assert agreement.take_turns(taking("a", 1.0), taking("b", 2.0), 3) == ([1.0] * 3, [2.0] * 3)
    assert "".join(calls) == "abbaab"


def test_bare_loop_times_a_file(programs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shape, kind = [1, 3, 8, 8], onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("image", "logits")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["image"], ["logits"])], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "a.onnx")
    np.save(tmp_path / "00.npy", np.zeros(shape, np.float32))
    monkeypatch.setattr(programs, "BARE_WARM_UP", 0.0)
    setup = programs.Setup("a.onnx", tmp_path / "a.onnx", SCENE_TASK, 1, (), tmp_path)
    with programs.BareLoop(setup) as loop:
        medians = [loop.turn(0.05) for _ in range(2)]
    assert all(0 < median < 1000 for median in medians) and loop.settings == {"threads": "1"}


def test_bare_loop_that_fails_is_a_sentence(programs: ModuleType, tmp_path: Path) -> None:
    setup = programs.Setup("a.onnx", tmp_path / "a.onnx", SCENE_TASK, 1, (), tmp_path)
    with programs.BareLoop(setup) as loop, pytest.raises(EngineError, match="bare loop failed"):
        loop.turn(0.05)


def test_output_of_the_bare_loop_is_its_last_line(programs: ModuleType) -> None:
    assert programs.parse_bare_loop("a warning\n[3.0, 1.0, 2.0]\n") == 2.0


@pytest.mark.parametrize("scope", ["transfer", "compute"])
def test_harness_with_an_idle_engine(agreement: ModuleType, scope: str) -> None:
    found = agreement.harness_overhead(scope, seconds=0.01, repeats=3)
    assert 0 <= found.reported < found.wall < 5000


def test_help() -> None:
    done = subprocess.run([sys.executable, SCRIPTS / "agreement.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--rounds" in done.stdout
