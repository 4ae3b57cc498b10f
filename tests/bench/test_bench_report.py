"""The report: its fields, its tables, and that its numbers are those of an independent computation."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from edpct.bench.engines import Request, bench, card_of, check_classes, find_dataset, plan_rows
from edpct.bench.report import class_table_of, machine_line, markdown_table, method_of, report_data, table_of
from edpct.data.layouts import open_dataset
from edpct.errors import DataError, EngineError
from edpct.progress import Silent
from edpct.recipe import BenchSettings
from edpct.runtimes.gpu import GpuState

QUICK = BenchSettings(seconds=0.02, rounds=1, threads=1)


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def report(compressed_run: Path) -> dict[str, Any]:
    return json.loads((compressed_run / "report.json").read_text())


def rows_of(report: dict[str, Any], runtime: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in report["rows"] if row["runtime"] == runtime}


# ---- the report of a whole run


def test_a_row_for_every_stage_on_every_runtime(report: dict[str, Any]) -> None:
    stages = ["teacher", "pruned", "distilled", "FP16", "INT8"]
    assert [(row["name"], row["runtime"]) for row in report["rows"]] == [
        (name, runtime) for name in stages for runtime in ("openvino", "onnxruntime")
    ]
    precisions = {row["name"]: row["precision"] for row in report["rows"]}
    assert precisions == dict(zip(stages, ["fp32", "fp32", "fp32", "fp16", "int8"], strict=True))


def test_a_row_is_consistent_within_itself(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        times = row["latency_ms"]
        assert row["fps"] == pytest.approx(1000 / times["p50"])
        assert 0 < times["p50"] <= times["p90"] <= times["p95"] <= times["p99"]
        assert times["runs"] >= 5 and len(times["rounds"]) == 1
        assert row["input"] == [128, 128]
        assert (row["miou"] is None) == (row["runtime"] != "openvino")
        if row["miou"] is not None:
            seen = [value for value in row["iou"].values() if value is not None]
            assert row["miou"] == pytest.approx(math.fsum(seen) / len(seen))


def test_the_student_is_smaller_and_within_its_budget(report: dict[str, Any], compressed_run: Path) -> None:
    rows = rows_of(report, "openvino")
    assert rows["INT8"]["macs"] <= 0.3 * rows["teacher"]["macs"]
    assert rows["INT8"]["parameters"] < 0.5 * rows["teacher"]["parameters"]
    assert {rows[name]["macs"] for name in ("pruned", "distilled", "FP16", "INT8")} == {rows["INT8"]["macs"]}
    assert rows["INT8"]["file_bytes"] == (compressed_run / "student-int8.onnx").stat().st_size
    # Counted again from the graph: everything learnable is an initializer of the FP32 file (batch norms are folded).
    graph = onnx.load(compressed_run / "student.onnx").graph
    stored = sum(math.prod(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    assert stored == pytest.approx(rows["distilled"]["parameters"], rel=0.02)


def test_the_report_says_where_and_with_what(report: dict[str, Any]) -> None:
    assert date.fromisoformat(report["date"]) <= date.today()
    assert report["machine"]["cores"] >= 1 and report["machine"]["cpu"]
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    assert report["settings"]["threads"] == 1 and report["seed"] == 0
    assert report["recipe"]["prune"]["macs"] == 0.3
    assert [stage["name"] for stage in report["stages"]] == [
        "teacher", "prune", "distil", "export", "quantise", "build", "bench", "pictures",
    ]  # fmt: skip
    assert all(row["details"]["threads"] == "1" for row in report["rows"])


def test_the_page_shows_the_numbers_of_the_report(report: dict[str, Any], compressed_run: Path) -> None:
    page = (compressed_run / "report.md").read_text()
    rows = rows_of(report, "openvino")
    ours, theirs = rows["INT8"], rows["teacher"]
    assert f"{ours['macs'] / theirs['macs']:.1%} of the teacher's MACs" in page
    assert f"{ours['fps'] / theirs['fps']:.1f} times its FPS on openvino" in page
    assert f"{100 * (ours['miou'] - theirs['miou']):+.2f} points of mIoU" in page
    for name, row in rows.items():
        other = rows_of(report, "onnxruntime")[name]
        (line,) = [text for text in page.splitlines() if text.startswith(f"| {name} | {row['precision']}")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells == [
            name, row["precision"], f"{row['parameters'] / 1e6:.2f}", f"{row['macs'] / 1e9:.2f}",
            f"{100 * row['miou']:.2f}", f"{row['fps']:.1f}", f"{other['fps']:.1f}",
            f"{row['latency_ms']['p99']:.1f}", f"{row['file_bytes'] / 1e6:.2f}",
        ]  # fmt: skip
    assert "](pictures.png)" in page and (compressed_run / "pictures.png").is_file()


# ---- accuracy


def test_miou_equals_an_independent_one(compressed_run: Path, scenes: Path) -> None:
    """From PNG to mIoU without a line of ours: Pillow, ONNX Runtime, scikit-learn."""
    metrics = pytest.importorskip("sklearn.metrics")
    dataset = open_dataset(scenes)
    for name in ("teacher.onnx", "student-int8.onnx"):
        path = compressed_run / name
        (row,) = bench([Request(name, path, "onnxruntime", accuracy=True)], dataset, QUICK, Silent())
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        truths, answers = [], []
        for image in sorted((scenes / "val" / "images").iterdir()):
            (mask,) = (scenes / "val" / "masks").glob(f"{image.stem}.*")
            pixels = np.asarray(Image.open(image).convert("RGB")) / 255
            feed = ((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None]
            answers.append(session.run(None, {"image": feed.astype(np.float32)})[0][0].argmax(0).ravel())
            truths.append(np.asarray(Image.open(mask)).ravel())
        truth, answer = np.concatenate(truths), np.concatenate(answers)
        counted = truth != 255
        truth, answer = truth[counted], answer[counted]
        labels = sorted({*truth.tolist(), *answer.tolist()})
        each = metrics.jaccard_score(truth, answer, labels=labels, average=None)
        assert row.accuracy is not None
        # A pixel or two may fall to the other class by the rounding of the normalisation.
        assert row.accuracy.miou == pytest.approx(each.mean(), abs=2e-3)
        assert [row.accuracy.iou[label] for label in labels] == pytest.approx(list(each), abs=2e-3)
        assert [v for label, v in enumerate(row.accuracy.iou) if label not in labels] == [None] * (7 - len(labels))
        assert row.accuracy.overall == pytest.approx(metrics.accuracy_score(truth, answer), abs=2e-3)
        assert row.accuracy.pixels == truth.size


def test_without_data_there_is_latency_alone(compressed_run: Path) -> None:
    request = Request("a", compressed_run / "student.onnx", "onnxruntime", accuracy=True)
    (row,) = bench([request], None, QUICK, Silent())
    assert row.accuracy is None and row.latency.p50 > 0
    data = report_data([row])
    assert class_table_of(data) == ([], [])
    assert table_of(data)[1][0][4] == "–"


# ---- refusals


def test_data_of_other_classes_is_refused(compressed_run: Path, scenes: Path, tmp_path: Path) -> None:
    table = json.loads((scenes / "classes.json").read_text())
    table["classes"][0]["name"] = "ground"
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(scenes / split)
    (tmp_path / "classes.json").write_text(json.dumps(table))
    path = compressed_run / "student.onnx"
    with pytest.raises(DataError) as caught:
        bench([Request("a", path, "onnxruntime", True)], open_dataset(tmp_path), QUICK, Silent())
    assert caught.value.what == (
        f"{tmp_path} has the classes ground, field, road, building, vegetation, water, vehicle, but student.onnx was "
        "made for land, field, road, building, vegetation, water, vehicle."
    )
    check_classes(card_of(path).task, open_dataset(scenes), path)  # its own data passes


def test_an_engine_without_a_card_is_refused(compressed_run: Path, tmp_path: Path) -> None:
    model = onnx.load(compressed_run / "student.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(EngineError) as caught:
        card_of(tmp_path / "stranger.onnx")
    assert caught.value.what.startswith("stranger.onnx does not say what it is (no edpct metadata)")


def test_every_runtime_that_fits_gives_a_row_and_the_first_the_accuracy(compressed_run: Path) -> None:
    path = compressed_run / "student.onnx"
    rows = plan_rows([path], None, "", Silent())
    assert [(row.runtime, row.accuracy) for row in rows] == [("openvino", True), ("onnxruntime", False)]
    assert [row.runtime for row in plan_rows([path], "openvino", "", Silent())] == ["openvino"]


def test_engines_of_one_file_name_keep_rows_of_their_own(compressed_run: Path) -> None:
    """The same student of two runs, say."""
    paths = [
        next((compressed_run / "stages").glob("export-*")) / "student.onnx",
        compressed_run / "student.onnx",
    ]
    rows = plan_rows(paths, "onnxruntime", "", Silent())
    assert len({row.name for row in rows}) == 2


def test_a_runtime_that_cannot_open_is_left_out_and_said(compressed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edpct.runtimes import open_vino

    def broken(*_: object, **__: object) -> None:
        raise EngineError("OpenVINO is unwell today.")

    monkeypatch.setattr(open_vino, "open_session", broken)
    heard = Heard()
    rows = plan_rows([compressed_run / "student.onnx"], None, "", heard)
    assert [row.runtime for row in rows] == ["onnxruntime"]
    assert heard.lines == ["Left out: OpenVINO is unwell today."]


def test_a_plan_without_a_gpu_is_refused(compressed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: GpuState(False, "libcuda.so.1 is not there"))
    with pytest.raises(EngineError) as caught:
        plan_rows([compressed_run / "student-int8.plan"], None, "", Silent())
    assert caught.value.hint.endswith(f"edpct bench --engine {compressed_run / 'student-int8.onnx'}")


def test_a_file_that_is_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes")
    with pytest.raises(EngineError) as caught:
        plan_rows([path], None, "", Silent())
    assert caught.value.what == f"{path} is no engine that edpct knows."


def test_data_is_found_where_the_card_says(compressed_run: Path, scenes: Path) -> None:
    card = card_of(compressed_run / "student.onnx")
    assert card.data is not None
    found = find_dataset([card], None, Silent())
    assert found is not None and str(found.root) == card.data.directory
    gone = card.model_copy(update={"data": card.data.model_copy(update={"directory": "/nowhere"})})
    heard = Heard()
    assert find_dataset([gone], None, heard) is None
    assert "no longer lies in /nowhere" in heard.lines[0] and "--data" in heard.lines[1]
    given = open_dataset(scenes)
    assert find_dataset([card], given, Silent()) is given


# ---- tables


def test_a_table_has_a_line_an_engine_and_a_column_a_runtime() -> None:
    def row(name: str, runtime: str, fps: float, miou: float | None) -> dict[str, Any]:
        return {
            "name": name, "runtime": runtime, "precision": "fp32", "parameters": 1_250_000, "macs": 2_500_000_000,
            "miou": miou, "fps": fps, "latency_ms": {"p99": 12.34}, "file_bytes": 5_000_000,
            "iou": None if miou is None else {"land": miou, "road": None}, "details": {},
        }  # fmt: skip

    report = {"rows": [row("a", "x", 10, None), row("a", "y", 20.04, 0.5), row("b", "y", 30, 0.25)]}
    header, lines = table_of(report)
    assert header == ["", "precision", "M params", "GMACs", "mIoU %", "FPS x", "FPS y", "p99 ms", "file MB"]
    assert lines == [
        ["a", "fp32", "1.25", "2.50", "50.00", "10.0", "20.0", "12.3", "5.00"],
        ["b", "fp32", "1.25", "2.50", "25.00", "–", "30.0", "12.3", "5.00"],
    ]
    assert class_table_of(report) == (["IoU %", "land", "road"], [["a", "50.0", "–"], ["b", "25.0", "–"]])


def test_markdown() -> None:
    assert markdown_table(["", "x"], [["a", "1"]]) == "|  | x |\n| --- | --: |\n| a | 1 |"


def test_the_machine_in_a_line(report: dict[str, Any]) -> None:
    line = machine_line(report)
    assert report["machine"]["cpu"] in line and f"onnxruntime {onnxruntime.__version__}" in line
    assert ", 1 threads, " in line


@pytest.mark.parametrize(("rounds", "steady"), [([10.0, 11.0, 12.0], True), ([10.0, 25.0], False)])
def test_a_machine_that_was_not_steady_is_named(rounds: list[float], steady: bool) -> None:
    rows = [{"input": [256, 512], "runtime": "openvino", "latency_ms": {"rounds": rounds}}]
    text = method_of({"rows": rows})
    assert "256x512" in text and ("2.5 times" in text) is not steady
