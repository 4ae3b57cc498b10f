"""The HTML page: well-formed, self-contained, escaped, the same colours throughout, and nothing empty."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from itertools import combinations
from math import isfinite

import numpy as np
import pytest
from numpy.typing import NDArray
from report_factory import make_accuracy, make_data, make_latency, make_pair, make_report, make_row

from edpct.bench.report.charts import engines_of, latency_chart, phases_chart, shapes_of, steadiness_charts
from edpct.bench.report.curves import loss_figure
from edpct.bench.report.page import html_page
from edpct.bench.report.pareto import pareto_chart
from edpct.bench.report.schema import FailureReport, Report, StageReport, StateReport
from edpct.bench.report.svg import MARKS, Scale, Space, around, shortened

VOID = {"meta", "img", "br", "link", "hr", "input"}
NASTY = "<b>&\"'</b>"
# The head of a PNG of 640 x 320 pixels; a page shows it without reading further.
PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (640).to_bytes(4, "big") + (320).to_bytes(4, "big")


DISTILLED = {
    "measures": [
        {"step": 500, "loss": 2.0, "miou": 0.25, "iou": [0.2, 0.3]},
        {"step": 1000, "loss": 1.0, "miou": 0.5, "iou": [None, 0.5]},
        {"step": 1500, "loss": 1.0, "miou": 0.625, "iou": [0.5, 0.75]},
    ]
}


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps what the tests ask for."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing, or something else"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def full_report() -> Report:
    """Everything that a report may hold, with names that would break a page that does not escape."""
    phases = {"decode": 2.0, "preprocess": 1.0, "infer": 10.0, "argmax": 1.0, NASTY: 0.5}
    latency = {"transfer": make_latency(rounds=(10.0, 12.0, 14.0)), "end_to_end": make_latency(14.5, phases=phases)}
    state = StateReport(watts=10.0, settings={NASTY: NASTY}, notes=(NASTY,), throttled="yes")
    first = make_row(latency=latency, state=state, accuracy=make_accuracy({NASTY: 0.6, "water": 0.8}))
    second = make_row(NASTY, p50=0.5, accuracy=make_accuracy({NASTY: 0.5, "water": 0.8}), details={NASTY: NASTY})
    return make_report(
        first,
        second,
        make_row(NASTY, "onnxruntime", 0.7),
        make_row("bad", p50=1.0, accuracy=make_accuracy({NASTY: 0.0, "water": 0.1})),
        command=f"edpct bench --engine {NASTY}",
        data=make_data(NASTY, "water"),
        failures=(FailureReport(name=NASTY, runtime=NASTY, reason=NASTY),),
        stages=(StageReport(name=NASTY, seconds=1.0), StageReport(name="distil", seconds=9.0, facts=DISTILLED)),
        recipe={NASTY: [NASTY]},
        settings={NASTY: [NASTY]},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return html_page(full_report(), PICTURE)


REPORTS = {
    "full": full_report(),
    "pair": make_pair(),
    "poor": make_report(make_row(state=StateReport())),
    "no latency": make_report(make_row(latency={})),
    "one turn, one quantile": make_report(make_row(latency={"compute": make_latency(rounds=(1.0,), quantiles=(1.0,))})),
    "equal": make_report(*(make_row(n, accuracy=make_accuracy({"a": 0.0}, interval=(0.0, 0.0))) for n in "xyz")),
    "no occurring class": make_report(make_row(accuracy=make_accuracy({"a": None}))),
    "many": make_report(*(make_row(f"engine-{i}", p50=1.0 + i, accuracy=make_accuracy({"a": 0.5})) for i in range(12))),
    "empty quantiles": make_report(make_row(latency={"transfer": make_latency(quantiles=(), rounds=())})),
}


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_makes_a_balanced_page_with_finite_drawings(name: str) -> None:
    reader = read(html_page(REPORTS[name]))
    geometry = {"x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height", "viewBox", "points", "d"}
    for tag, attributes in reader.tags:
        for key in geometry & attributes.keys():
            for number in re.findall(r"[^\s,MLZ]+", attributes[key]):
                assert isfinite(float(number)), (tag, key, number)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"].removeprefix("#") for tag, a in reader.tags if tag == "a" and a["href"].startswith("#")}
    assert targets <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    reader = read(page)
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page and "@import" not in page
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_names_of_users_stay_text(page: str) -> None:
    reader = read(page)
    assert not any(tag == "b" for tag, _ in reader.tags)
    text = " ".join(reader.text)
    assert f"edpct bench --engine {NASTY}" in text
    assert text.count(NASTY) > 10


def test_charts_tell_in_words_what_they_show(page: str) -> None:
    reader = read(page)
    drawings = [attributes for tag, attributes in reader.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert drawings and all(a["role"] == "img" and len(a["aria-labelledby"].split()) == 2 for a in drawings)
    ids = {attributes.get("id") for _, attributes in reader.tags}
    assert all(set(a["aria-labelledby"].split()) <= ids for a in drawings)
    assert "teacher, openvino: 100.0 FPS, 70.0 %" in " ".join(reader.text)


def test_the_page_shows_how_the_student_learnt(page: str) -> None:
    text = " ".join(read(page).text)
    assert "Distillation" in text and 'href="#training"' in page
    assert "mIoU: 25 at first, 62.5 at last; " in text and "water: 30 at first, 75 at last" in text
    once = StageReport(name="distil", seconds=1.0, facts={"measures": DISTILLED["measures"][:1]})
    assert 'id="training"' not in html_page(make_report(make_row(), stages=(once,)))


def test_a_curve_goes_through_its_points_on_the_scale_of_its_axes() -> None:
    """Two lines, drawn straight: the points of the second lie as far apart as their values say."""
    rows = [{"step": step, "loss": 4.0 - step / 100, "ce": 1.0} for step in (100, 200, 300)]
    drawn = loss_figure("curve", rows)
    paths = re.findall(r'<path d="M([^"]+)" class="course (faint )?(e\d)"', drawn.split('class="narrow"')[0])
    spots = {hue: [tuple(map(float, spot.split(","))) for spot in path.split("L")] for path, _, hue in paths}
    assert [faint for _, faint, _ in paths] == ["faint ", ""]
    (x1, y1), (x2, y2), (x3, y3) = spots["e0"]
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.02) and y2 - y1 == pytest.approx(y3 - y2, abs=0.02)
    assert y3 > y1  # a falling loss goes down
    assert spots["e1"][0][1] == spots["e1"][2][1] == spots["e0"][2][1]  # 1.0 at the end, both
    assert loss_figure("curve", rows[:1]) == ""


def test_tables_say_what_their_heads_belong_to(page: str) -> None:
    reader = read(page)
    heads = [attributes for tag, attributes in reader.tags if tag == "th"]
    assert heads and {a["scope"] for a in heads} == {"col", "row", "colgroup"}
    regions = [a for tag, a in reader.tags if tag == "div" and a.get("class") == "scroll"]
    assert regions and all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def test_an_engine_has_one_colour_and_the_reference_the_first() -> None:
    report = full_report()
    assert engines_of(report) == {"teacher": "e0", NASTY: "e1", "bad": "e2"}
    assert engines_of(report.model_copy(update={"reference": NASTY}))[NASTY] == "e0"
    for chart in (pareto_chart(report), latency_chart(report)):
        shapes = re.findall(r'class="((?:tail )?e\d)"><title>(teacher|bad),', chart)
        assert all((hue.removeprefix("tail "), name) in {("e0", "teacher"), ("e2", "bad")} for hue, name in shapes)
    hues = {label.split(", ")[0]: hue for label, hue, _ in steadiness_charts(report)}
    assert hues == engines_of(report)
    assert engines_of(REPORTS["many"])["engine-11"] == "e-more"


def test_runtimes_have_shapes_of_their_own() -> None:
    assert list(shapes_of(full_report()).values()) == list(MARKS[:2])


def test_the_poor_report_has_no_empty_sections() -> None:
    text = html_page(make_report(make_row(state=StateReport())))
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    assert headings == [
        "To be kept in mind", "Accuracy and speed", "What a frame costs", "Distribution of latency", "Steadiness",
        "Method and machine",
    ]  # fmt: skip
    assert pareto_chart(make_report()) == phases_chart(make_report()) == ""
    assert "<img" not in text


def test_the_sheet_of_pictures_is_inside(page: str) -> None:
    (picture,) = [attributes for tag, attributes in read(page).tags if tag == "img"]
    assert picture["src"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert (picture["width"], picture["height"]) == ("640", "320") and picture["alt"]


def test_the_axis_of_speed_is_logarithmic_from_ten_times_on() -> None:
    def chart(fastest: float) -> str:
        rows = [make_row(n, p50=p, accuracy=make_accuracy({"a": 0.5})) for n, p in (("x", 10.0), ("y", fastest))]
        return pareto_chart(make_report(*rows))

    assert "logarithmic" not in chart(1.2) and "logarithmic" in chart(0.9)


def test_an_engine_that_is_no_good_is_named_below_the_axis() -> None:
    chart = pareto_chart(full_report())
    assert "bad ↓ 5.0 %" in chart and "teacher ↓" not in chart


def test_the_frontier_is_a_staircase_that_promises_nothing_between_points() -> None:
    rows = [make_row(n, p50=p, accuracy=make_accuracy({"a": v})) for n, p, v in (("x", 10.0, 0.6), ("y", 5.0, 0.5))]
    found = re.search(
        r'<path d="M([\d.]+),([\d.]+)L([\d.]+),([\d.]+)L([\d.]+),([\d.]+)"', pareto_chart(make_report(*rows))
    )
    assert found
    x1, y1, x2, y2, x3, y3 = map(float, found.groups())
    assert x1 == x2 < x3 and y1 < y2 == y3  # down at the slow one's speed, then right at the fast one's accuracy


# ---- parts of drawings


def test_scales() -> None:
    linear, log = Scale(0, 10, 100, 200), Scale(1, 100, 0, 100, log=True)
    assert [linear(value) for value in (0, 5, 10, 99)] == [100, 150, 200, 200]
    assert [log(value) for value in (1, 10, 100)] == [0, 50, 100]
    assert Scale(0, 9, 0, 1).ticks(5) == [0, 2, 4, 6, 8]
    assert log.ticks(8) == [1, 2, 5, 10, 20, 50, 100]
    assert log.ticks(3) == [1, 10, 100]
    assert len(Scale(11.2, 13.9, 0, 1, log=True).ticks(4)) >= 2
    assert around([5.0, 5.0], 0, 1).low < 5 < around([5.0, 5.0], 0, 1).high


def test_labels_keep_clear_of_points_and_of_each_other() -> None:
    space = Space(0, 400, 300)
    for _ in range(4):
        space.take(200, 150, 7)
    boxes = []
    for text in ("one", "two", "three", "four"):
        left, base, _ = space.place(200, 150, text, 13)
        boxes.append((left, base - 13, left + len(text) * 13 * 0.6, base))
    boxes.append((194, 144, 206, 156))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_long_names_keep_both_ends() -> None:
    assert shortened("student-int8", 20) == "student-int8"
    assert shortened("runs/field-0/student-int8.onnx", 13) == "runs/f…8.onnx"


def palettes() -> list[dict[str, str]]:
    css = resources.files("edpct.bench.report").joinpath("page.css").read_text(encoding="utf-8")
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", css.split(":root {")[part])) for part in (1, 2)]


def linear(colour: str) -> NDArray[np.float64]:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2: relative luminances."""
    low, high = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB of linear sRGB."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ rgb.clip(0, 1) / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_can_be_read_in_light_and_in_dark() -> None:
    for colours in palettes():
        engines = [name for name in colours if re.fullmatch(r"e(\d|-more)", name)]
        assert len(engines) == 8
        for name in [*engines, "ink", "soft", "link", "bad"]:
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours["warn"], colours["warn-paper"]) >= 4.5
        assert contrast(colours["soft"], colours["panel"]) >= 4.5
        assert all(contrast(colours[f"p{i}"], colours["paper"]) >= 3 for i in range(1, 6))


# Machado et al. 2009: what a linear colour looks like to those who lack one kind of cone.
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_engines_can_be_told_apart_by_the_colour_blind(kind: str) -> None:
    for colours in palettes():
        seen = [lab(np.array(BLINDNESS[kind]) @ linear(colours[f"e{i}"])) for i in range(7)]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 25
