"""A sheet of pictures: image, truth, teacher, student, and where teacher and student disagree."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edpct.bench.engines import card_of, predictor
from edpct.data.samples import Dataset
from edpct.data.tiling import Window, windows
from edpct.progress import Progress
from edpct.runtimes.table import open_session
from edpct.task import Task

CELL, GAP, HEAD = 256, 6, 30
COLUMNS = ("image", "truth", "teacher", "student INT8", "teacher ≠ student")
PAPER, INK = (250, 250, 248), (40, 40, 40)
DISAGREE = np.array((230, 30, 60), np.uint8)


def picture_sheet(
    teacher: Path,
    student: Path,
    dataset: Dataset,
    target: Path,
    progress: Progress,
    count: int = 5,
    runtime: str = "onnxruntime",
) -> None:
    """Write a PNG with a row per picture and a legend of the classes.

    Args:
        teacher, student: engines that carry cards of the same task.
        count: rows; the val windows with the most classes, each from another image.
    """
    task = card_of(teacher).task
    size = task.preprocessing
    chosen = choose_windows(windows(dataset, "val", size.height, size.width), task, count)
    rows = []
    with (
        progress.task("Drawing pictures", len(chosen)) as update,
        open_session(teacher, runtime) as theirs,
        open_session(student, runtime) as ours,
    ):
        for done, window in enumerate(chosen, 1):
            labels = [predictor(session, task)(window.image) for session in (theirs, ours)]
            rows.append(_row(window, labels[0], labels[1], task))
            update(done, "")
    partial = target.with_name(f".{target.name}.partial")
    _sheet(rows, task).save(partial, format="PNG", optimize=True)
    partial.replace(target)


def choose_windows(found: Iterable[Window], task: Task, count: int) -> list[Window]:
    """The windows that show most: many classes, evenly shared, few ignored pixels; at most one of an image at first."""
    scored = []
    for window in found:
        shares = np.bincount(window.labels.ravel(), minlength=256)[: task.num_classes] / window.labels.size
        present = shares[shares > 0]
        # Entropy times the labelled share: an evenly mixed, fully labelled window is the most telling.
        scored.append((float(-(present * np.log(present)).sum() * shares.sum()), window))
    scored.sort(key=lambda pair: -pair[0])
    seen: set[int] = set()
    first: list[Window] = []
    rest: list[Window] = []
    for _, window in scored:
        (rest if window.source in seen else first).append(window)
        seen.add(window.source)
    return (first + rest)[:count]


def _row(window: Window, teacher: NDArray, student: NDArray, task: Task) -> list[NDArray[np.uint8]]:
    palette = task.palette
    faded = (window.image.mean(axis=2, keepdims=True) * 0.4 + 140).astype(np.uint8).repeat(3, axis=2)
    faded[teacher != student] = DISAGREE
    return [window.image, palette[window.labels], palette[teacher], palette[student], faded]


def _sheet(rows: list[list[NDArray[np.uint8]]], task: Task) -> Image.Image:
    width = len(COLUMNS) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (CELL + GAP) + HEAD), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for column, title in enumerate(COLUMNS):
        draw.text((GAP + column * (CELL + GAP), 7), title, INK, font)
    for line, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            resample = Image.Resampling.BILINEAR if column == 0 else Image.Resampling.NEAREST
            picture = Image.fromarray(cell).resize((CELL, CELL), resample)
            sheet.paste(picture, (GAP + column * (CELL + GAP), HEAD + line * (CELL + GAP)))
    left, top = GAP, sheet.height - HEAD + 8
    legend = [(c.name, c.colour) for c in task.classes] + [("not counted", tuple(task.palette[task.ignore_index]))]
    for name, colour in legend:
        draw.rectangle((left, top + 1, left + 14, top + 15), tuple(int(v) for v in colour))
        draw.text((left + 20, top), name, INK, font)
        left += 20 + round(draw.textlength(name, font)) + 18
    return sheet
