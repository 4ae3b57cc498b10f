"""The sheet of pictures: its size, and red exactly where teacher and student differ."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_factory import make_report, make_row

from edpct.bench.report import pictures
from edpct.bench.report.pictures import CELL, DISAGREE, GAP, HEAD, Shown, choose_windows, picture_sheet, pictures_of
from edpct.bench.requests import Request
from edpct.data.layouts import open_dataset
from edpct.data.scenes import SCENE_TASK
from edpct.data.tiling import Window, windows
from edpct.progress import Silent

TASK = SCENE_TASK.at_size(128, 128)
COLUMNS = 5  # image, truth, the reference, the other, where they differ


def pixels(png: bytes) -> np.ndarray:
    with Image.open(BytesIO(png)) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture)


def cell(sheet: np.ndarray, line: int, column: int) -> np.ndarray:
    """One picture of the sheet, brought back to the size of its window (nearest, as labels were drawn)."""
    top, left = HEAD + line * (CELL + GAP), GAP + column * (CELL + GAP)
    picture = sheet[top : top + CELL, left : left + CELL]
    return picture[::2, ::2]  # windows of 128 pixels in cells of 256


def window(labels: np.ndarray, source: int = 0) -> Window:
    return Window(np.zeros((*labels.shape, 3), np.uint8), labels.astype(np.uint8), source, 0, 0)


def test_red_is_exactly_where_they_disagree(
    compressed_run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two predictors whose difference is known: the student errs on a disc that moves with the image's first pixel."""
    y, x = np.mgrid[:128, :128]

    def teacher(image: np.ndarray) -> np.ndarray:
        return (x // 32).astype(np.int64)

    def disc(image: np.ndarray) -> np.ndarray:
        return (y - 40) ** 2 + (x - 30 - int(image[0, 0, 0]) % 60) ** 2 < 400

    def student(image: np.ndarray) -> np.ndarray:
        return np.where(disc(image), 6, teacher(image))

    given = iter([teacher, student])
    monkeypatch.setattr(pictures, "predictor", lambda session, task, engine: next(given))
    dataset, engine = open_dataset(scenes), compressed_run / "student.onnx"
    shown = [Shown(title, engine, "onnxruntime") for title in ("teacher", "student INT8")]
    sheet = pixels(picture_sheet(shown[0], shown[1], dataset, Silent()))
    assert sheet.shape == (2 * HEAD + 2 * (CELL + GAP), COLUMNS * (CELL + GAP) + GAP, 3)
    chosen = choose_windows(windows(dataset, "val", 128, 128), TASK, 5)
    assert len(chosen) == 2
    colours = np.array([c.colour for c in TASK.classes])
    for line, seen in enumerate(chosen):
        differs = disc(seen.image)
        assert differs.any() and not differs.all()
        red = (cell(sheet, line, 4) == DISAGREE).all(axis=-1)
        assert np.array_equal(red, differs)
        assert np.array_equal(cell(sheet, line, 1), colours[seen.labels])
        assert np.array_equal(cell(sheet, line, 2), colours[teacher(seen.image)])
        assert np.array_equal(cell(sheet, line, 3), colours[student(seen.image)])


def test_agreement_is_grey(compressed_run: Path, scenes: Path) -> None:
    """The same engine on both sides: nothing is red, and nothing has a colour."""
    shown = Shown("a", compressed_run / "student.onnx", "onnxruntime")
    sheet = pixels(picture_sheet(shown, shown, open_dataset(scenes), Silent(), count=1))
    assert sheet.shape[0] == 2 * HEAD + CELL + GAP
    grey = cell(sheet, 0, 4).astype(int)
    assert np.ptp(grey, axis=-1).max() == 0


def ink(sheet: np.ndarray, column: int) -> np.ndarray:
    """Which pixels of a column's title are drawn on, with the gap to the next column."""
    left = GAP + column * (CELL + GAP)
    return (sheet[: HEAD - 2, left : left + CELL + GAP] < 150).all(axis=-1)


def test_a_long_title_stays_in_its_column(compressed_run: Path, scenes: Path) -> None:
    """Names of files come from users."""
    engine = compressed_run / "student.onnx"
    names = ["a-checkpoint-with-a-name-that-nobody-can-remember-of-run-17.onnx", "b.onnx"]
    shown = [Shown(name, engine, "onnxruntime") for name in names]
    sheet = pixels(picture_sheet(shown[0], shown[1], open_dataset(scenes), Silent(), count=1))
    for column in range(COLUMNS):
        drawn = np.flatnonzero(ink(sheet, column).any(axis=0))
        assert len(drawn) > 0 and drawn[-1] < CELL
    assert np.flatnonzero(ink(sheet, 2).any(axis=0))[-1] > 0.8 * CELL  # as much of it as fits


# ---- which engines a bench shows


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Shown, Shown]]]:
    """What sheets were asked for; none is drawn."""
    found: list[tuple[Shown, Shown]] = []
    monkeypatch.setattr(pictures, "picture_sheet", lambda a, b, *_: found.append((a, b)) or b"a sheet")
    yield found


def requests(*names: str) -> list[Request]:
    return [Request(name, Path("/run") / name, runtime) for name in names for runtime in ("openvino", "onnxruntime")]


def test_a_bench_shows_the_reference_and_the_last_engine_on_the_same_runtime(
    asked: list[tuple[Shown, Shown]], scenes: Path
) -> None:
    given = requests("student", "teacher", "INT8")
    report = make_report(*(make_row(request.name, request.runtime) for request in given), reference="teacher")
    found = pictures_of(report, given, open_dataset(scenes), Silent())
    assert found == b"a sheet"
    assert asked == [
        (Shown("teacher", Path("/run/teacher"), "openvino", "cpu"), Shown("INT8", Path("/run/INT8"), "openvino", "cpu"))
    ]


def test_engines_of_different_runtimes_are_shown_all_the_same(asked: list[tuple[Shown, Shown]], scenes: Path) -> None:
    report = make_report(make_row("teacher", "torch"), make_row("INT8", "onnxruntime"), reference="teacher")
    given = [Request("teacher", Path("/t"), "torch"), Request("INT8", Path("/i"), "onnxruntime")]
    pictures_of(report, given, open_dataset(scenes), Silent())
    assert asked == [(Shown("teacher", Path("/t"), "torch", "cpu"), Shown("INT8", Path("/i"), "onnxruntime", "cpu"))]


def test_nothing_to_compare_is_no_sheet(asked: list[tuple[Shown, Shown]], scenes: Path) -> None:
    alone = make_report(make_row("teacher"), make_row("teacher", "onnxruntime"))
    other_size = make_report(make_row("teacher"), make_row("small", input=(256, 256)))
    for report in (alone, other_size):
        assert pictures_of(report, requests("teacher", "small"), open_dataset(scenes), Silent()) is None
    assert asked == []


def test_the_windows_that_show_most_come_first() -> None:
    one = np.zeros((8, 8))
    two = np.repeat([[0], [1]], 4, axis=0).repeat(8, axis=1)
    four = np.arange(4).repeat(16).reshape(8, 8)
    mostly_ignored = np.where(np.arange(64).reshape(8, 8) < 8, np.arange(8) % 4, 255)
    given = [window(one, 0), window(two, 1), window(mostly_ignored, 2), window(four, 3)]
    chosen = choose_windows(given, TASK, 3)
    assert [found.source for found in chosen] == [3, 1, 2]


def test_every_image_is_seen_before_one_is_seen_twice() -> None:
    rich, poor = np.arange(4).repeat(16).reshape(8, 8), np.repeat([[0], [1]], 4, axis=0).repeat(8, axis=1)
    given = [window(rich, 0), window(rich, 0), window(poor, 1)]
    assert [found.source for found in choose_windows(given, TASK, 2)] == [0, 1]
    assert [found.source for found in choose_windows(given, TASK, 3)] == [0, 1, 0]


def test_a_large_set_is_looked_through_without_being_held() -> None:
    """Only the arrays of windows that may be shown stay, and not the images that they were cut from."""
    rng, alive = np.random.default_rng(0), list[weakref.ref[np.ndarray]]()
    most = 0

    def given() -> Iterator[Window]:
        nonlocal most
        for source in range(40):
            image = rng.integers(0, 256, (8, 32, 3), dtype=np.uint8)
            alive.append(weakref.ref(image))
            for left in range(0, 32, 8):
                labels = rng.integers(0, rng.integers(1, 5), (8, 8), dtype=np.uint8)
                yield Window(image[:, left : left + 8], labels, source, 0, left)
            most = max(most, sum(one() is not None for one in alive))

    chosen = choose_windows(given(), TASK, 5)
    assert len({found.source for found in chosen}) == 5 and most <= 2
