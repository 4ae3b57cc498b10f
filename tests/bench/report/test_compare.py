"""Two reports against each other: differences and uncertainties by hand, the conditions, and the exit codes for CI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from report_factory import make_accuracy, make_latency, make_report, make_row
from typer.testing import CliRunner, Result

from edpct.bench.report.compare import (
    Change,
    class_change_table,
    compare,
    comparison_data,
    comparison_markdown,
    comparison_table,
    parse_condition,
    sentences_of,
)
from edpct.bench.report.metrics import METRICS
from edpct.bench.report.schema import MachineReport, MemoryReport, Report, StateReport, ThroughputReport
from edpct.cli.boundary import GuardedGroup
from edpct.cli.compare import compare_command
from edpct.errors import EdpctError, RecipeError, RunError

app = typer.Typer(cls=GuardedGroup, pretty_exceptions_enable=False)
app.command("compare")(compare_command)
app.command("other")(lambda: None)


def change(a: Report, b: Report, metric: str) -> Change:
    (found,) = [c for c in compare(a, b).changes if c.metric == metric]
    return found


def scored(p50: float = 10.0, land: float = 0.6, water: float = 0.8) -> Report:
    return make_report(make_row(p50=p50, accuracy=make_accuracy({"land": land, "water": water})))


# ---- differences


def test_speed_changes_by_percent_with_both_intervals_in_quadrature() -> None:
    found = change(scored(10.0), scored(12.5), "fps")
    assert (found.before, found.after, found.difference) == (100.0, 80.0, -20.0)
    assert found.percent == pytest.approx(-20.0)
    # 1 % and 1 %, times the ratio 0.8; absolute: 1 FPS and 0.8 FPS.
    assert found.half_percent == pytest.approx(0.8 * 2**0.5)
    assert found.half == pytest.approx((1 + 0.64) ** 0.5)
    assert (found.clear, found.verdict) == (True, "worse")
    assert change(scored(10.0), scored(10.1), "fps").verdict == "within uncertainty"
    assert change(scored(10.0), scored(5.0), "p50").verdict == "better"


def test_shares_change_by_points() -> None:
    # mIoU 70 to 69: 2 points to either side each, 2.83 together.
    found = change(scored(), scored(water=0.78), "miou")
    assert found.difference == pytest.approx(-1.0) and found.half == pytest.approx(8**0.5)
    assert found.verdict == "within uncertainty"
    assert change(scored(), scored(water=0.70), "miou").verdict == "worse"
    water = change(scored(), scored(water=0.7), "iou:water")
    assert water.difference == pytest.approx(-10.0) and water.half is None and water.verdict == "worse?"


def test_a_file_does_not_vary() -> None:
    found = change(make_report(), make_report(make_row(file_bytes=8_000_001)), "file")
    assert (found.half, found.clear, found.verdict) == (0.0, True, "worse")


def test_every_metric_reads_its_own_number() -> None:
    row = make_row(
        latency={"compute": make_latency(8.0), "transfer": make_latency(10.0), "end_to_end": make_latency(16.0)},
        throughput=ThroughputReport(streams=2, fps=150.0, p50=13.0, frames=9, rounds=(140.0, 160.0)),
        accuracy=make_accuracy({"land": 0.6, "water": 0.8}),
        memory=MemoryReport(before=1, peak=150_000_000, device=30_000_000),
        state=StateReport(watts=12.0, joules_per_frame=0.5),
    )
    found = {name: metric.read(row) for name, metric in METRICS.items()}
    assert {name: round(value[0], 6) for name, value in found.items() if value} == {
        "fps": 100.0, "fps_compute": 125.0, "fps_end_to_end": 62.5, "throughput": 150.0, "p50": 10.0, "p99": 18.0,
        "miou": 70.0, "boundary_miou": 35.0, "overall": 80.0, "memory": 150.0, "device_memory": 30.0, "file": 8.0,
        "watts": 12.0, "joules": 0.5,
    }  # fmt: skip
    assert found["throughput"] == (150.0, 10.0)


def test_rows_are_matched_by_what_they_are_and_not_by_their_place() -> None:
    a = make_report(make_row(), make_row("B"), make_row("B", batch=8), make_row("C", options={"cuda_graph": True}))
    b = make_report(make_row("C", options={"cuda_graph": False}), make_row("B"), make_row(p50=5.0))
    found = compare(a, b)
    assert {c.row for c in found.changes} == {"teacher, openvino", "B, openvino"}
    assert found.only_a == ("B, openvino, batch 8", "C, openvino, CUDA graph")
    assert found.only_b == ("C, openvino",)
    assert found.failures == ()


def test_another_machine_or_version_is_said() -> None:
    other = MachineReport(cpu="B CPU", cores=4, memory_bytes=8 * 2**30, system="Linux", load=3.0)
    notes = compare(make_report(), make_report(machine=other, versions={"edpct": "0.3.0"})).notes
    assert notes[0] == "The machines differ (cpu A CPU → B CPU), so differences in speed may not be the engines'."
    assert notes[1].startswith("The versions differ (edpct 0.2.0 → 0.3.0, numpy 2.0 → –)")
    assert compare(make_report(), make_report()).notes == ()


# ---- tables


def test_the_table_leaves_out_what_did_not_change() -> None:
    header, lines = comparison_table(compare(scored(10.0), scored(12.5, water=0.7)))
    assert header == ["", "metric", "first", "second", "change", "± (95 %)", "verdict"]
    cells = {line[1]: line[2:] for line in lines}
    assert cells["fps"] == ["100", "80", "-20.0 %", "1.1 %", "worse"]
    assert cells["miou %"] == ["70", "65", "-5.00 points", "2.8", "worse"]
    assert cells["p99 ms"] == ["18", "22.5", "+25.0 %", "–", "worse?"]
    assert "file MB" not in cells and "iou:water %" not in cells
    assert class_change_table(compare(scored(), scored(water=0.7))) == (
        ["IoU, points", "land", "water"],
        [["teacher, openvino", "+0.0", "-10.0"]],
    )


def test_equal_reports_say_so() -> None:
    found = compare(scored(), scored())
    assert comparison_table(found) == class_change_table(found) == ([], [])
    assert sentences_of(found) == ["All numbers are the same in both reports."]
    apart = sentences_of(compare(make_report(), make_report(make_row("B"))))
    assert apart[0] == "No row is in both reports: rows are matched by engine name, runtime, device, batch and options."


def test_a_machine_that_was_not_steady_is_named_again() -> None:
    """What a report warns of, a comparison of it must not hide."""
    shaky = make_row(latency={"transfer": make_latency(rounds=(10.0, 10.0, 20.0))})
    notes = compare(make_report(), make_report(shaky)).notes
    assert [note for note in notes if note.startswith("Of the second report: The machine was not steady")]
    assert not [note for note in notes if note.startswith("Of the first report")]


def test_markdown_begins_with_the_failures_and_json_is_plain() -> None:
    found = compare(scored(), scored(12.5), ["fps<-5%"])
    assert comparison_markdown(found).startswith("**1 not good enough**\n\n- teacher, openvino: fps 100 → 80, -20.0 %")
    zero = compare(scored(land=0.0), scored())
    (land,) = [c for c in json.loads(json.dumps(comparison_data(zero)))["changes"] if c["metric"] == "iou:land"]
    assert (land["percent"], land["verdict"]) == (None, "better?")
    assert land["difference"] == pytest.approx(60.0)


# ---- conditions


@pytest.mark.parametrize(
    ("text", "metric", "below", "limit", "relative"),
    [
        ("fps<-5%", "fps", True, -5.0, True),
        (" miou < -0.5 ", "miou", True, -0.5, False),
        ("p99>+2", "p99", False, 2.0, False),
        ("memory>10 %", "memory", False, 10.0, True),
        ("iou:<b>&<-1", "iou:<b>&", True, -1.0, False),
        ("iou:bare soil < -1.5", "iou:bare soil", True, -1.5, False),
    ],
)
def test_conditions_are_read(text: str, metric: str, below: bool, limit: float, relative: bool) -> None:
    found = parse_condition(text)
    assert (found.metric, found.below, found.limit, found.relative) == (metric, below, limit, relative)


@pytest.mark.parametrize("text", ["", "fps", "fps<", "fps<=-5%", "fps<-5%%", "<-5", "fps=-5", "fps<nan", "fps<-5% now"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"is no condition.*METRIC, < or >"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("condition", "failures"),
    [
        ("fps<-5%", 1), ("fps<-20%", 0), ("fps<-19", 1), ("fps>-5%", 0), ("p99>4", 1), ("p99>5", 0),
        ("miou<-4.9", 1), ("miou<-5.1", 0), ("iou:water<-9", 1), ("f1:water<-9", 0), ("file>0", 0),
    ],
)  # fmt: skip
def test_conditions_are_met_or_not(condition: str, failures: int) -> None:
    # 100 to 80 FPS, p99 18 to 22.5 ms, mIoU 70 to 65; F1 of water 2 * .8 / 1.8 = 88.9 to 2 * .7 / 1.7 = 82.4.
    assert len(compare(scored(), scored(12.5, water=0.7), [condition]).failures) == failures


def test_a_row_or_a_number_that_went_missing_fails() -> None:
    a = make_report(make_row(accuracy=make_accuracy({"land": 0.6})), make_row("B"))
    found = compare(a, make_report(), ["miou<-0.5"])
    assert found.failures == (
        "B, openvino: is in the first report and not in the second, so that no condition can be checked on it.",
        "teacher, openvino: miou was measured in the first report and not in the second.",
    )


@pytest.mark.parametrize(
    ("condition", "error", "said"),
    [
        ("speed<-5%", RecipeError, "There is no metric 'speed'"),
        ("iou<-5", RecipeError, "There is no metric 'iou'"),
        ("iou:sea<-5", RecipeError, "No report knows a class 'sea'. They know: land, water."),
        ("watts>5", RunError, "No row of the first report has watts"),
    ],
)
def test_conditions_on_what_does_not_exist(condition: str, error: type[EdpctError], said: str) -> None:
    with pytest.raises(error, match=said):
        compare(scored(), scored(), [condition])


# ---- the command


def run(folder: Path, a: Report, b: Report, *arguments: str) -> Result:
    for name, report in (("a.json", a), ("b.json", b)):
        (folder / name).write_text(report.model_dump_json())
    return CliRunner().invoke(app, ["compare", str(folder / "a.json"), str(folder / "b.json"), *arguments])


def test_the_command_ends_with_0_or_with_1_and_a_line_per_failure(tmp_path: Path) -> None:
    good = run(tmp_path, scored(), scored(9.0), "--fail-if", "fps<-5%")
    assert (good.exit_code, good.stderr) == (0, "")
    assert "| teacher, openvino | fps | 100 | 111.1 | +11.1 % |" in good.stdout
    bad = run(
        tmp_path, scored(), scored(12.5), "--fail-if", "fps<-5%", "--fail-if", "p99>2", "--json", str(tmp_path / "c")
    )
    assert bad.exit_code == 1
    assert bad.stderr.splitlines() == [
        "edpct: teacher, openvino: fps 100 → 80, -20.0 %, which meets fps<-5%.",
        "edpct: teacher, openvino: p99 18 → 22.5, +4.5 ms, which meets p99>2.",
    ]
    assert len(json.loads((tmp_path / "c").read_text())["failures"]) == 2


def test_the_command_prints_one_markdown_text(tmp_path: Path) -> None:
    found = run(tmp_path, scored(), scored(12.5), "--markdown", "--json", str(tmp_path / "c.json"))
    assert found.exit_code == 0 and found.stdout.startswith("|  | metric | first |") and "Wrote" not in found.stdout


@pytest.mark.parametrize("condition", ["fps<", "speed<1", "watts>1", "iou:sea<1"])
def test_the_command_refuses_a_wrong_condition_with_2(tmp_path: Path, condition: str) -> None:
    found = run(tmp_path, scored(), scored(), "--fail-if", condition)
    assert found.exit_code == 2
    assert found.stderr.startswith("edpct: ") and "Traceback" not in found.stderr


def test_the_command_refuses_what_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    found = CliRunner().invoke(app, ["compare", str(tmp_path / "x.json"), str(tmp_path / "none.json")])
    assert found.exit_code == 2 and "x.json is no report of this version" in found.stderr
