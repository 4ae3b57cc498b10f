"""The report: what it says of machine and bench, its comparisons, and that of a whole run."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from report_factory import make_row

from edpct.bench.measure import Measured
from edpct.bench.report.make import command, load_average, make_report, reference_of
from edpct.bench.report.schema import SCOPES, FailureReport, Report, RowReport, read_report
from edpct.bench.scoring import Scores, accuracy_report
from edpct.data.layouts import open_dataset
from edpct.recipe import BenchSettings

NAMES = ("land", "road")


def scores(seed: int, sources: int = 4) -> Scores:
    """Counts of two classes; the truth is the same for every seed."""
    truth = np.random.default_rng(99).integers(500, 900, (sources, 2))
    right = np.random.default_rng(seed).uniform(0.4, 0.9, (sources, 2))
    hits = (truth * right).astype(np.int64)
    confusions = np.stack([np.diag(h) + np.fliplr(np.diag(t - h)) for h, t in zip(hits, truth, strict=True)])
    return Scores(tuple(range(sources)), confusions, np.ones((3, 2), np.int64))


def row(name: str, runtime: str, found: Scores | None, **more: object) -> RowReport:
    return make_row(name, runtime, accuracy=None if found is None else accuracy_report(found, NAMES), **more)


def report_of(pairs: list[tuple[RowReport, Scores | None]], **more: object) -> Report:
    rows, found = zip(*pairs, strict=True)
    return make_report(Measured(rows, found, (), 1), None, BenchSettings(), None, **more)


# ---- the reference


def test_the_heaviest_engine_is_the_reference_and_of_equals_the_finest() -> None:
    rows = [
        make_row("student", macs=10), make_row("teacher INT8", macs=50, precision="int8"),
        make_row("teacher FP16", macs=50, precision="fp16"), make_row("teacher", macs=50),
        make_row("twin", macs=50),
    ]  # fmt: skip
    assert reference_of(rows) == "teacher"
    assert reference_of(rows[:3]) == "teacher FP16"
    assert reference_of([rows[4], rows[3]]) == "twin"  # of equals the first
    assert report_of([(row, None) for row in rows]).reference == "teacher"
    assert report_of([(row, None) for row in rows], reference="student").reference == "student"


def test_the_others_are_compared_with_the_reference_on_the_same_runtime() -> None:
    found = {(name, runtime): scores(seed) for seed, (name, runtime) in enumerate(
        (name, runtime) for name in ("teacher", "student") for runtime in ("openvino", "onnxruntime")
    )}  # fmt: skip
    pairs = [(row(name, runtime, each), each) for (name, runtime), each in found.items()]
    report = report_of(pairs, reference="teacher")
    for reported in report.rows:
        assert reported.accuracy is not None
        if reported.name == "teacher":
            assert reported.accuracy.difference is None
            continue
        # The bootstrap over images, done again with other draws: whole images, the same for both engines.
        ours, theirs = found["student", reported.runtime], found["teacher", reported.runtime]
        rng = np.random.default_rng(7)
        differences = []
        for _ in range(4000):
            draw = rng.integers(0, 4, 4)
            both = []
            for each in (ours, theirs):
                counts = each.confusions[draw].sum(0)
                hit = np.diag(counts)
                both.append(np.mean(hit / (counts.sum(0) + counts.sum(1) - hit)))
            differences.append(both[0] - both[1])
        assert reported.accuracy.difference == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=0.02)
        assert reported.accuracy.model_copy(update={"difference": None}) == accuracy_report(ours, NAMES)


def test_there_is_no_difference_where_there_is_nothing_to_compare_with() -> None:
    one, other = scores(1), scores(2)
    pairs = [(row("teacher", "openvino", None), None), (row("b", "openvino", one), one)]
    report = report_of(pairs, reference="teacher")
    assert report.rows[1].accuracy is not None and report.rows[1].accuracy.difference is None
    # Scored at another input size: other pixels, so that images cannot be paired.
    cut = replace(other, confusions=other.confusions // 2)
    report = report_of([(row("teacher", "openvino", one), one), (row("b", "openvino", cut), cut)], reference="teacher")
    assert report.rows[1].accuracy is not None and report.rows[1].accuracy.difference is None


def test_a_reference_of_another_runtime_is_better_than_none() -> None:
    one, other = scores(1), scores(2)
    pairs = [(row("teacher.pt", "torch", one), one), (row("student", "openvino", other), other)]
    student = report_of(pairs, reference="teacher.pt").rows[1]
    assert student.accuracy is not None and student.accuracy.difference is not None
    low, high = student.accuracy.difference
    assert low <= other.accuracy.miou - one.accuracy.miou <= high


# ---- machine and bench


def test_a_report_says_where_with_what_and_how(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/edpct", "bench", "--engine", "my engine.onnx"])
    failure = FailureReport(name="a.onnx", runtime="openvino", reason="It is cut short.")
    earlier = FailureReport(name="a.plan", runtime="tensorrt", reason="No GPU.")
    measured = Measured((make_row("a"),), (None,), (failure,), 3)
    settings = BenchSettings(seconds=1.5, batch=(1, 2))
    report = make_report(measured, open_dataset(scenes), settings, 0.25, seed=4, failures=[earlier])
    assert date.fromisoformat(report.date) <= date.today()
    assert report.command == "edpct bench --engine 'my engine.onnx'"
    assert (report.machine.load, report.sittings, report.seed) == (0.25, 3, 4)
    assert report.machine.cores == (os.cpu_count() or 1) or report.machine.cores >= 1
    assert report.machine.cpu and report.machine.system == platform.platform()
    total = int(next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemTotal")).split()[1])
    assert 0 < report.machine.memory_bytes <= total * 1024
    assert report.versions["onnxruntime"] == onnxruntime.__version__
    assert report.versions["numpy"] == np.__version__ and report.versions["python"] == platform.python_version()
    assert report.settings["seconds"] == 1.5 and report.settings["batch"] == [1, 2]
    assert report.failures == (earlier, failure)
    assert report.data is not None
    assert (report.data.layout, report.data.split, report.data.images) == ("folder", "val", 2)
    assert report.data.classes[0] == "land" and len(report.data.colours) == 7
    (tmp_path / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == report


def test_the_command_of_a_module_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/edpct/__main__.py", "doctor"])
    assert command() == "edpct doctor"


def test_the_load_is_that_of_the_minute_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.238, 9.0, 9.0))
    assert load_average() == 1.24

    def unknown() -> None:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert load_average() is None


# ---- the report of a whole run


STAGES = ["teacher", "pruned", "distilled", "FP16", "INT8", "INT8, fused"]


@pytest.fixture(scope="module")
def report(compressed_run: Path) -> Report:
    return read_report(compressed_run / "report.json")


def rows_of(report: Report, runtime: str) -> dict[str, RowReport]:
    return {row.name: row for row in report.rows if row.runtime == runtime}


def test_a_row_for_every_stage_on_every_runtime(report: Report) -> None:
    assert [(row.name, row.runtime) for row in report.rows] == [
        (name, runtime) for name in STAGES for runtime in ("openvino", "onnxruntime")
    ]
    precisions = {row.name: row.precision for row in report.rows}
    assert precisions == dict(zip(STAGES, ["fp32", "fp32", "fp32", "fp16", "int8", "int8"], strict=True))
    assert report.reference == "teacher" and report.failures == () and report.sittings == 1


def test_a_row_is_consistent_within_itself(report: Report) -> None:
    for row in report.rows:
        assert set(row.latency) == set(SCOPES) and row.input == (128, 128)
        for times in row.latency.values():
            assert times.fps == pytest.approx(1000 / times.p50)
            assert 0 < times.p50 <= times.p90 <= times.p95 <= times.p99
            assert times.interval[0] <= times.p50 <= times.interval[1]
            assert times.runs >= 2 and len(times.rounds) == 1 and len(times.quantiles) == 101
        found = row.accuracy
        assert found is not None
        seen = [value for value in found.iou.values() if value is not None]
        assert found.miou == pytest.approx(math.fsum(seen) / len(seen))
        assert found.interval[0] <= found.miou <= found.interval[1]
        assert (found.difference is None) == (row.name == "teacher")
        assert row.details["threads"] == "1" and row.options == {"threads": 1}
        assert row.memory.peak > row.memory.before > 0


def test_the_student_is_smaller_and_within_its_budget(report: Report, compressed_run: Path) -> None:
    rows = rows_of(report, "openvino")
    assert rows["INT8"].macs <= 0.3 * rows["teacher"].macs
    assert rows["INT8"].parameters < 0.5 * rows["teacher"].parameters
    assert {rows[name].macs for name in ("pruned", "distilled", "FP16", "INT8")} == {rows["INT8"].macs}
    assert rows["INT8, fused"].macs == rows["INT8"].macs
    assert rows["INT8"].file_bytes == (compressed_run / "student-int8.onnx").stat().st_size
    # Counted again from the graph: everything learnable is an initializer of the FP32 file (batch norms are folded).
    graph = onnx.load(compressed_run / "student.onnx").graph
    stored = sum(math.prod(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    assert stored == pytest.approx(rows["distilled"].parameters, rel=0.02)


def test_the_report_of_a_run_says_what_was_asked_and_what_each_stage_did(report: Report) -> None:
    assert report.settings["threads"] == 1 and report.seed == 0
    assert report.recipe is not None and report.recipe["prune"]["macs"] == 0.3
    assert [stage.name for stage in report.stages] == [
        "teacher", "prune", "distil", "export", "quantise", "fuse", "build", "bench", "pictures",
    ]  # fmt: skip
    assert all(stage.seconds >= 0 for stage in report.stages)
    assert report.command.startswith("edpct compress --teacher ")
    assert report.data is not None and report.data.images == 2
    assert report.pictures == "pictures.png"


def test_a_fused_engine_sees_what_the_plain_one_sees_and_says_so(report: Report) -> None:
    for runtime in ("openvino", "onnxruntime"):
        plain, fused = (rows_of(report, runtime)[name] for name in ("INT8", "INT8, fused"))
        assert (fused.details["takes"], fused.details["gives"]) == ("uint8 images", "classes")
        assert "takes" not in plain.details and "gives" not in plain.details
        assert plain.accuracy is not None and fused.accuracy is not None
        assert fused.accuracy.miou == pytest.approx(plain.accuracy.miou, abs=1e-3)


def test_the_page_shows_the_numbers_of_the_report(report: Report, compressed_run: Path) -> None:
    page = (compressed_run / "report.md").read_text(encoding="utf-8")
    rows, others = rows_of(report, "openvino"), rows_of(report, "onnxruntime")
    share = f"{100 * rows['INT8'].macs / rows['teacher'].macs:.1f}".replace(".", r"\.")
    assert re.search(rf"\b{share} ?% of the teacher's MACs", page)
    for name, row in rows.items():
        assert row.accuracy is not None
        (line,) = [text for text in page.splitlines() if text.startswith(f"| {name} | {row.precision}")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        half = (row.accuracy.interval[1] - row.accuracy.interval[0]) / 2
        here, there = row.latency["transfer"], others[name].latency["transfer"]
        assert cells[2:6] == [
            f"{row.parameters / 1e6:.2f}", f"{row.macs / 1e9:.2f}",
            f"{100 * row.accuracy.miou:.2f} ± {100 * half:.2f}", f"{100 * row.accuracy.boundary_miou:.2f}",
        ]  # fmt: skip
        assert [float(cell) for cell in cells[6:10]] == pytest.approx(
            [here.fps, there.fps, here.p99, there.p99], rel=0.02
        )
        assert cells[-1] == f"{row.file_bytes / 1e6:.2f}"
    assert "](<pictures.png>)" in page and (compressed_run / "pictures.png").is_file()
