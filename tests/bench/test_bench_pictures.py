"""The sheet of pictures: its size, and red exactly where teacher and student differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.bench import pictures
from edpct.bench.pictures import CELL, COLUMNS, DISAGREE, GAP, HEAD, choose_windows, picture_sheet
from edpct.data.layouts import open_dataset
from edpct.data.scenes import SCENE_TASK
from edpct.data.tiling import Window, windows
from edpct.progress import Silent

TASK = SCENE_TASK.at_size(128, 128)


def cell(sheet: np.ndarray, line: int, column: str) -> np.ndarray:
    """One picture of the sheet, brought back to the size of its window (nearest, as labels were drawn)."""
    top, left = HEAD + line * (CELL + GAP), GAP + COLUMNS.index(column) * (CELL + GAP)
    picture = sheet[top : top + CELL, left : left + CELL]
    return picture[::2, ::2]  # windows of 128 pixels in cells of 256


def window(labels: np.ndarray, source: int = 0) -> Window:
    return Window(np.zeros((*labels.shape, 3), np.uint8), labels.astype(np.uint8), source, 0, 0)


def test_red_is_exactly_where_they_disagree(
    compressed_run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two predictors whose difference is known: the student errs on a disc that moves with the image's first pixel."""
    y, x = np.mgrid[:128, :128]

    def teacher(image: np.ndarray) -> np.ndarray:
        return (x // 32).astype(np.int64)

    def disc(image: np.ndarray) -> np.ndarray:
        return (y - 40) ** 2 + (x - 30 - int(image[0, 0, 0]) % 60) ** 2 < 400

    def student(image: np.ndarray) -> np.ndarray:
        return np.where(disc(image), 6, teacher(image))

    given = iter([teacher, student] * 10)
    monkeypatch.setattr(pictures, "predictor", lambda session, task: next(given))
    dataset = open_dataset(scenes)
    engine, target = compressed_run / "student.onnx", tmp_path / "pictures.png"
    picture_sheet(engine, engine, dataset, target, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["pictures.png"]
    with Image.open(target) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * HEAD + 2 * (CELL + GAP), len(COLUMNS) * (CELL + GAP) + GAP, 3)
    chosen = choose_windows(windows(dataset, "val", 128, 128), TASK, 5)
    assert len(chosen) == 2
    colours = np.array([c.colour for c in TASK.classes])
    for line, seen in enumerate(chosen):
        differs = disc(seen.image)
        assert differs.any() and not differs.all()
        red = (cell(sheet, line, "teacher ≠ student") == DISAGREE).all(axis=-1)
        assert np.array_equal(red, differs)
        assert np.array_equal(cell(sheet, line, "truth"), colours[seen.labels])
        assert np.array_equal(cell(sheet, line, "teacher"), colours[teacher(seen.image)])
        assert np.array_equal(cell(sheet, line, "student INT8"), colours[student(seen.image)])


def test_agreement_is_grey(compressed_run: Path, scenes: Path, tmp_path: Path) -> None:
    """The same engine on both sides: nothing is red, and nothing has a colour."""
    engine, target = compressed_run / "student.onnx", tmp_path / "pictures.png"
    picture_sheet(engine, engine, open_dataset(scenes), target, Silent(), count=1)
    sheet = np.asarray(Image.open(target))
    assert sheet.shape[0] == 2 * HEAD + CELL + GAP
    grey = cell(sheet, 0, "teacher ≠ student").astype(int)
    assert np.ptp(grey, axis=-1).max() == 0


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
