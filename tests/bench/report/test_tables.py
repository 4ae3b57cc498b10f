"""Tables, sentences and the Markdown page, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from report_factory import make_accuracy, make_data, make_latency, make_pair, make_report, make_row

from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import (
    claim_of,
    explanation_of,
    headline,
    machine_line,
    most_compressed,
    speed_ratio,
)
from edpct.bench.report.schema import (
    FailureReport,
    MachineReport,
    MemoryReport,
    Report,
    StageReport,
    StateReport,
    ThroughputReport,
    WarmUpReport,
)
from edpct.bench.report.tables import (
    class_difference_of,
    class_table_of,
    detail_table_of,
    failure_table_of,
    known,
    markdown,
    markdown_table,
    scopes_table_of,
    stage_table_of,
    state_table_of,
    table_of,
    throughput_table_of,
)

# ---- the main table


def test_the_main_table_has_a_line_per_engine_and_speed_per_runtime() -> None:
    score = make_accuracy({"land": 0.6, "water": 0.8})
    header, lines = table_of(
        make_report(make_row(accuracy=score), make_row(runtime="onnxruntime", p50=20.0), make_row("INT8", p50=2.5))
    )
    assert header == [
        "", "precision", "M params", "GMACs", "mIoU %", "boundary mIoU %",
        "FPS openvino", "FPS onnxruntime", "p99 ms openvino", "p99 ms onnxruntime", "file MB",
    ]  # fmt: skip
    # mIoU (60 + 80) / 2 with an interval of 68 to 72; 1000 / 10 and 1000 / 20 FPS; p99 is 1.8 times the median.
    teacher = ["teacher", "fp32", "2.00", "4.00", "70.00 ± 2.00", "35.00", "100.0", "50.0", "18.00", "36.00", "8.00"]
    assert lines[0] == teacher
    assert lines[1] == ["INT8", "fp32", "2.00", "4.00", "–", "–", "400.0", "–", "4.50", "–", "8.00"]


def test_columns_in_which_nothing_is_known_are_left_out() -> None:
    header, lines = table_of(make_report())
    assert header == ["", "precision", "M params", "GMACs", "FPS openvino", "p99 ms openvino", "file MB"]
    assert len(lines) == 1 and len(lines[0]) == len(header)
    assert known(["", "a", "b"], [["–", "–", "1"], ["x", "–", "–"]]) == (["", "b"], [["–", "1"], ["x", "–"]])


def test_an_engine_in_two_files_shows_both_sizes() -> None:
    rows = [make_row(), make_row(runtime="tensorrt", device="cuda", file_bytes=9_500_000)]
    assert table_of(make_report(*rows))[1][0][-1] == "8.00 / 9.50"


def test_options_tell_rows_apart_where_they_differ() -> None:
    plain = make_row(runtime="tensorrt", device="cuda", options={"cuda_graph": False, "streams": 1})
    graph = make_row(runtime="tensorrt", device="cuda", batch=8, options={"cuda_graph": True, "streams": 2})
    header, _ = table_of(make_report(plain, graph))
    assert header[4:6] == ["FPS tensorrt cuda, streams 1", "FPS tensorrt cuda, batch 8, CUDA graph, streams 2"]


def test_where_copies_were_not_timed_the_title_says_what_was() -> None:
    header, _ = table_of(make_report(make_row(latency={"compute": make_latency()})))
    assert "FPS openvino compute only" in header


# ---- scopes, throughput, state


def test_scopes_stand_side_by_side_and_are_never_mixed() -> None:
    both = {"compute": make_latency(8.0), "transfer": make_latency(10.0), "end_to_end": make_latency(16.0, runs=90)}
    full = make_row(latency=both, state=StateReport(watts=12.34, joules_per_frame=0.1234, throttled="yes"))
    lean = make_row("INT8", latency={"transfer": make_latency(2.0)}, memory=MemoryReport(before=1, peak=2, device=3))
    header, lines = scopes_table_of(make_report(full, lean))
    cells = dict(zip(header, lines[0], strict=True))
    assert cells[""] == "teacher, openvino"
    assert [cells[f"{scope} ms"] for scope in ("compute only", "with copies", "end to end")] == [
        "8.00",
        "10.00",
        "16.00",
    ]
    assert [cells[f"{scope} FPS"] for scope in ("compute only", "with copies", "end to end")] == [
        "125.0",
        "100.0",
        "62.5",
    ]
    assert cells["compute only 95 % ms"] == "7.92–8.08"
    assert cells["runs"] == "200 / 90"
    assert (cells["peak memory MB"], cells["watts"], cells["J/frame"], cells["throttled"]) == (
        "150",
        "12.3",
        "0.123",
        "yes",
    )
    other = dict(zip(header, lines[1], strict=True))
    assert other["compute only ms"] == other["end to end FPS"] == other["watts"] == "–"
    assert (other["with copies ms"], other["GPU memory MB"]) == ("2.00", "0")


def test_a_scope_that_no_row_has_gets_no_column() -> None:
    header, _ = scopes_table_of(make_report(make_row(state=StateReport())))
    assert header == ["", "with copies ms", "with copies 95 % ms", "with copies FPS", "runs", "peak memory MB"]


def test_throughput_has_a_table_only_where_it_was_measured() -> None:
    assert throughput_table_of(make_report()) == ([], [])
    many = ThroughputReport(streams=4, fps=250.0, p50=15.5, frames=1000, rounds=(240.0, 260.0))
    _, lines = throughput_table_of(make_report(make_row(), make_row("INT8", throughput=many)))
    assert lines == [["INT8, openvino", "4", "250.0", "240.0–260.0", "15.50", "1000"]]


def test_state_details_failures_and_stages() -> None:
    state = StateReport(
        temperature=71.4, clocks={"cpu": (800.0, 3600.0)}, sources=("RAPL",), settings={"governor": "x"}
    )
    assert state_table_of(make_report(make_row(state=state)))[1] == [
        ["teacher, openvino", "71", "cpu 800–3600", "RAPL", "governor x"]
    ]
    header, lines = detail_table_of(make_report())
    assert dict(zip(header, lines[0], strict=True))["threads"] == "2"
    report = make_report(
        failures=(FailureReport(name="INT8", runtime="tensorrt", reason="It is not here."),),
        stages=(StageReport(name="prune", seconds=4.34),),
    )
    assert failure_table_of(report)[1] == [["INT8", "tensorrt", "It is not here."]]
    assert stage_table_of(report) == (["stage", "seconds"], [["prune", "4.3"]])
    facts = {"asked": {"target_fps": 30.0}, "macs_share": 0.213, "speed": {"fps": 30.4, "engine": "openvino int8"}}
    report = make_report(stages=(StageReport(name="prune", seconds=4.34, facts=facts),))
    assert stage_table_of(report)[1][0][2] == "asked target_fps 30; 21.3 % of the MACs, 30.4 FPS on openvino int8"
    groups = [{"name": "neck", "loss": 0.81, "int8": False}, {"name": "head", "loss": 0.1, "int8": True}]
    guarded = {"loss": 0.24, "loss_of_all": 1.5, "windows": 32, "groups": groups, "faster": 1.13}
    facts = {"int8_macs": 0.911, "guarded": guarded}
    report = make_report(stages=(StageReport(name="quantise", seconds=4.34, facts=facts),))
    assert stage_table_of(report)[1][0][2] == (
        "91.1 % of the MACs in INT8; 0.24 points lost on 32 training windows (all in INT8: 1.50); FP32: neck "
        "(0.81 alone); all in INT8 would be 1.13 times as fast"
    )
    assert failure_table_of(make_report()) == stage_table_of(make_report()) == ([], [])


# ---- classes


def test_classes_in_percent_and_in_points_against_the_reference() -> None:
    report = make_pair()
    assert class_table_of(report) == (
        ["IoU %", "land", "water"],
        [["teacher", "60.0", "80.0"], ["INT8", "64.0", "70.0"]],
    )
    assert class_difference_of(report) == (
        ["IoU, points against teacher", "land", "water"],
        [["INT8", "+4.0", "-10.0"]],
    )
    assert class_difference_of(report, "boundary_iou")[1] == [["INT8", "+2.0", "-5.0"]]
    # F1 = 2 IoU / (1 + IoU): 1.2 / 1.6 = 75 %, 1.6 / 1.8 = 88.9 %
    assert class_table_of(report, "f1")[1][0] == ["teacher", "75.0", "88.9"]


def test_the_paired_interval_of_the_difference_is_said_where_it_is_known() -> None:
    teacher, student = make_accuracy({"land": 0.6}), make_accuracy({"land": 0.57}, difference=(-0.041, -0.019))
    report = make_report(make_row(accuracy=teacher), make_row("B", accuracy=student))
    header = ["IoU, points against teacher", "mIoU", "mIoU 95 %", "land"]
    assert class_difference_of(report) == (header, [["B", "-3.00", "-4.10 to -1.90", "-3.0"]])
    assert class_difference_of(report, "f1")[0] == ["F1, points against teacher", "land"]
    assert "-3.00 points of mIoU (95 % interval -4.10 to -1.90); most is lost on land" in headline(report)
    assert "the same images drawn for both" in explanation_of(report)
    assert "the same images" not in explanation_of(make_pair())


def test_classes_that_do_not_occur_have_a_dash() -> None:
    rows = [make_row(accuracy=make_accuracy({"land": 0.6, "water": None})), make_row("B")]
    report = make_report(*rows)
    assert class_table_of(report)[1] == [["teacher", "60.0", "–"]]
    assert class_difference_of(report) == class_table_of(make_report()) == ([], [])


# ---- sentences


def test_the_headline_of_two_engines() -> None:
    assert headline(make_pair()) == (
        "INT8 has 25.0 % of the teacher's MACs, 4.0 times its FPS on openvino (4.0 to 4.0 in 4 turns; int8 against "
        "fp32) and -3.00 points of mIoU; most is lost on water, -10.0 points of IoU."
    )


def test_the_headline_compares_on_the_runtime_where_the_last_engine_is_fastest() -> None:
    names = [
        ("teacher", "openvino", 10.0),
        ("teacher", "onnxruntime", 9.0),
        ("B", "openvino", 5.0),
        ("B", "onnxruntime", 3.0),
    ]
    claim = claim_of(make_report(*(make_row(name, runtime, p50) for name, runtime, p50 in names)))
    assert claim is not None and claim.same
    assert (claim.other.runtime, claim.reference.runtime) == ("onnxruntime", "onnxruntime")
    assert claim.speed is not None and claim.speed.value == pytest.approx(3.0)


def test_the_headline_names_both_runtimes_where_they_differ() -> None:
    text = headline(make_report(make_row(), make_row("B", "tensorrt", 5.0, device="cuda")))
    assert "2.0 times its FPS (tensorrt cuda against openvino; 2.0 to 2.0 in 4 turns)" in text
    assert text.endswith("; accuracy was not measured on both.")


def test_the_headline_of_one_engine() -> None:
    assert headline(make_report()) == (
        "teacher runs at 100.0 FPS on openvino (with copies, 95 % interval 99.0 to 101.0) and its accuracy was not "
        "measured."
    )


def test_no_class_is_named_where_none_lost() -> None:
    better = make_row("B", accuracy=make_accuracy({"land": 0.7}))
    assert "lost" not in headline(make_report(make_row(accuracy=make_accuracy({"land": 0.6})), better))


def test_speed_is_compared_turn_by_turn() -> None:
    # A machine that halves its speed in the third turn does so for both, and the ratio stays.
    slow, fast = make_latency(10.0, rounds=(10.0, 10.0, 20.0)), make_latency(5.0, rounds=(5.0, 4.0, 10.0))
    ratio = speed_ratio(slow, fast)
    assert (ratio.value, ratio.low, ratio.high, ratio.turns, ratio.sure) == (2.0, 2.0, 2.5, 3, False)


def test_six_turns_make_an_interval_and_nine_leave_one_out_at_either_end() -> None:
    # Sign test: 2 / 2**6 = 3.1 % for the whole range; (2 + 2 * 9) / 2**9 = 3.9 % without the ends; five make 6.25 %.
    one = make_latency(1.0, rounds=(1.0,) * 6)
    ratio = speed_ratio(make_latency(1.0, rounds=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)), one)
    assert (ratio.value, ratio.low, ratio.high, ratio.sure) == (3.5, 1.0, 6.0, True)
    nine = make_latency(1.0, rounds=tuple(float(i) for i in range(1, 10)))
    ratio = speed_ratio(nine, make_latency(1.0, rounds=(1.0,) * 9))
    assert (ratio.value, ratio.low, ratio.high, ratio.sure) == (5.0, 2.0, 8.0, True)
    five = speed_ratio(make_latency(rounds=(1.0,) * 5), make_latency(rounds=(1.0,) * 5))
    assert not five.sure


def test_unpaired_turns_fall_back_on_the_intervals_of_the_medians() -> None:
    # 1 % on both sides of each: sqrt(2) % of the ratio 2.
    ratio = speed_ratio(make_latency(10.0, rounds=(10.0,)), make_latency(5.0))
    assert (ratio.value, ratio.turns) == (2.0, 0)
    assert ratio.high - ratio.value == pytest.approx(0.02 * 2**0.5)


def test_batches_count_in_the_ratio() -> None:
    assert speed_ratio(make_latency(10.0), make_latency(20.0, batch=8)).value == pytest.approx(4.0)


def test_a_quiet_machine_gives_no_cautions() -> None:
    assert cautions_of(make_report()) == []


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (make_report(make_row(latency={"transfer": make_latency(rounds=(10.0, 14.0))})), "by up to 1.4 times"),
        (
            make_report(make_row(state=StateReport(throttled="yes"))),
            "(throttled) during: the only row",
        ),
        (
            make_report(make_row(state=StateReport())),
            "itself down (throttled) is not known.",
        ),
        (make_report(make_row(state=StateReport()), make_row("B")), "is not known for: teacher, openvino."),
        (make_report(make_row(warm_up=WarmUpReport(seconds=1, runs=9, steady=False))), "Warm-up had not settled"),
        (make_report(sittings=3), "Measured in 3 sittings"),
        (make_report(make_row(latency={"transfer": make_latency(runs=99)})), "Fewer than 100 runs"),
        (make_report(failures=(FailureReport(name="x", runtime="y", reason="z"),)), "list of failures: 1."),
        (
            make_report(machine=MachineReport(cpu="A", cores=4, memory_bytes=1, system="L", load=2.1)),
            "the load average before was 2.1 on 4 cores",
        ),
    ],
)
def test_what_makes_numbers_less_sure_is_said(report: Report, said: str) -> None:
    (text,) = cautions_of(report)
    assert said in text


def test_the_limits_of_the_cautions() -> None:
    steady = make_report(
        make_row(latency={"transfer": make_latency(rounds=(10.0, 13.0))}),
        machine=MachineReport(cpu="A", cores=4, memory_bytes=1, system="L", load=2.0),
    )
    assert cautions_of(steady) == []


def test_the_method_says_what_is_included() -> None:
    text = explanation_of(make_pair(data=make_data("land", "water")))
    assert text.startswith("Batch 1 at 512x512; the engines take turns. FPS = batch * 1000 / median latency in ms: ")
    assert "with copies goes from normalised image to logits at full size (of a fused engine: " in text
    assert "from image to classes), both in host memory" in text
    assert "end to end" not in text and "compute only is" not in text
    assert "mIoU over the val split of fields (3 images)" in text
    assert "Accuracy was not measured." in explanation_of(make_report())


def test_the_machine_in_one_line() -> None:
    assert machine_line(make_report()) == (
        "2026-01-02, A CPU, 4 cores, 2 threads, 8 GiB, Linux; edpct 0.2.0, numpy 2.0."
    )


# ---- Markdown


def test_cells_cannot_end_their_cell_nor_begin_a_tag() -> None:
    assert markdown_table(["", "n"], [["a|b\nc<i>", "1"]]) == "|  | n |\n| --- | --: |\n| a\\|b c\\<i> | 1 |"
    assert markdown_table(["a", "b"], [], numbers=False) == "| a | b |\n| --- | --- |"


def test_the_page_has_everything_once_and_nothing_empty() -> None:
    page = markdown(make_pair(data=make_data("land", "water"), pictures="pictures.png"))
    assert page.startswith("# DP-CTNet tiny, measured\n\nINT8 has 25.0 % of the teacher's MACs")
    assert page.count("| IoU % | land | water |") == page.count("| F1 % | land | water |") == 1
    assert "(<pictures.png>)" in page and page.endswith("    edpct bench --engine teacher.onnx\n")
    poor = markdown(make_report())
    assert "IoU" not in poor and "![" not in poor and "kept in mind" not in poor


def test_the_headline_is_about_the_most_compressed_engine_wherever_it_stands() -> None:
    small = {"macs": 1_000_000_000}
    rows = [
        make_row("int8", p50=2.0, precision="int8", **small),
        make_row("fp32", p50=1.0, **small),
        make_row("teacher"),
    ]
    assert most_compressed(make_report(*rows, reference="teacher")) == "int8"
    assert most_compressed(make_report(*rows[1:], reference="teacher")) == "fp32"
    assert most_compressed(make_report(rows[2], reference="teacher")) is None
