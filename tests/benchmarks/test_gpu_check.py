"""benchmarks/gpu_check.py: every step of it that needs no GPU, on the run folder of a small compression."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edpct.bench.report.schema import Report
from edpct.data.layouts import open_dataset
from edpct.progress import Silent
from edpct.runtimes.gpu import GpuState
from edpct.runtimes.sidecar import read_sidecar

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
PRECISIONS = ("fp32", "fp16", "int8")
GRAPHS = [f"{network} {precision}" for network in ("teacher", "student") for precision in PRECISIONS]


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def job(gpu_check, compressed_run: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory):
    work = tmp_path_factory.mktemp("gpu")
    return gpu_check.Check(compressed_run, work, "cpu", open_dataset(scenes), Silent())


@pytest.fixture(scope="module")
def graphs(gpu_check, job):
    return gpu_check.make_graphs(job)


def test_three_graphs_of_each_network(gpu_check, job, graphs) -> None:
    assert list(graphs) == GRAPHS
    assert [gpu_check.card_of(path).precision for path in graphs.values()] == list(PRECISIONS) * 2
    assert graphs["student int8"].parent == job.run and graphs["teacher int8"].parent == job.work
    assert job.failures == []


def test_plans_of_all_graphs(gpu_check, job, graphs) -> None:
    pytest.importorskip("tensorrt_rtx")
    plans = gpu_check.build_plans(job, graphs)
    assert list(plans) == [(name, "tensorrt-rtx") for name in GRAPHS]
    assert [read_sidecar(plan).precision for plan in plans.values()] == list(PRECISIONS) * 2


def test_rows_with_a_gpu(gpu_check, job, graphs) -> None:
    """Plans with and without CUDA graph, ONNX Runtime's CUDA provider, torch both ways: nothing is opened for it."""
    on_gpu = gpu_check.Check(job.run, job.work, "cuda", None, Silent())
    plans = {("teacher int8", "tensorrt-rtx"): job.work / "teacher-int8-rtx.plan"}
    rows = gpu_check.rows(on_gpu, graphs, plans, compiled=True)
    named = [(row.name, row.runtime, row.device, row.options.cuda_graph) for row in rows]
    assert named == [
        ("teacher int8", "tensorrt-rtx", "", False),
        ("teacher int8", "tensorrt-rtx", "", True),
        *((name, "onnxruntime", "cuda", False) for name in GRAPHS),
        ("teacher fp32", "torch", "cuda", False),
        ("teacher fp32", "torch-compile", "cuda", False),
        ("student fp32", "torch", "cuda", False),
        ("student fp32", "torch-compile", "cuda", False),
    ]


def test_parity_equals_a_plain_computation(gpu_check, job, graphs, scenes: Path) -> None:
    rows = [r for r in gpu_check.rows(job, graphs, {}, compiled=False) if r.name in ("student fp32", "student int8")]
    found = {row["row"]: row for row in gpu_check.compare_all(job, graphs, rows)}
    assert list(found) == ["student fp32 on onnxruntime", "student int8 on onnxruntime"]
    assert found["student fp32 on onnxruntime"]["largest"] < 1e-5
    feeds = graphs_input(gpu_check, graphs["student fp32"], job)
    plain, int8 = (
        onnxruntime.InferenceSession(str(graphs[f"student {p}"]), providers=["CPUExecutionProvider"])
        for p in ("fp32", "int8")
    )
    worst = 0.0
    for feed in feeds:
        expected, answer = (session.run(None, {"image": feed})[0] for session in (plain, int8))
        worst = max(worst, float(np.abs(answer - expected).max() / (expected.max() - expected.min())))
    assert found["student int8 on onnxruntime"]["largest"] == pytest.approx(worst, rel=1e-3)


def graphs_input(gpu_check, path: Path, job) -> list[np.ndarray]:
    size = gpu_check.card_of(path).task.preprocessing
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (size.mean, size.std))
    images = gpu_check._images(job, size.height, size.width)
    return [((image.transpose(2, 0, 1) / np.float32(255) - mean) / std)[None].astype(np.float32) for image in images]


def test_the_whole_of_it_without_a_gpu(
    gpu_check, compressed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--run", str(compressed_run), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    quick = ["--seconds", "0.05", "--rounds", "1", "--without-gpu", "--no-compile"]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments, *quick])
    assert gpu_check.main() == 0
    record = json.loads((tmp_path / "out" / "cpu.json").read_text())
    report = Report.model_validate(record["report"])
    assert [(row.name, row.runtime) for row in report.rows] == [
        *((name, "onnxruntime") for name in GRAPHS), ("teacher fp32", "torch"), ("student fp32", "torch"),
    ]  # fmt: skip
    assert all(row.accuracy is not None for row in report.rows)
    assert len(record["parity"]) == 6 and record["failures"] == [] and not record["gpu"]["available"]
    assert "same class, % of pixels" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(
    gpu_check, compressed_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(gpu_check, "probe_gpu", lambda: GpuState(False, "libcuda.so.1 is not there"))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--run", str(compressed_run)])
    assert gpu_check.main() == 2
    error = capsys.readouterr().err
    assert "no NVIDIA GPU (libcuda.so.1 is not there)" in error and error.count("\n") == 1


def test_a_step_that_fails_is_noted_and_the_others_go_on(gpu_check, job, graphs, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(graphs["student fp32"].read_bytes()[:-500])
    other = gpu_check.Check(job.run, tmp_path, "cpu", None, Silent())
    requests = [
        gpu_check.Request("student fp32", path, "onnxruntime", "cpu") for path in (graphs["student fp32"], damaged)
    ]
    found = []
    for request in requests:
        found += gpu_check.compare_all(other, graphs, [request])
    assert len(found) == 1
    assert [failure["step"] for failure in other.failures] == ["parity of student fp32 on onnxruntime"]
    assert "damaged.onnx" in other.failures[0]["reason"]
