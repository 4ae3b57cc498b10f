"""A sheet of pictures: image, truth, two engines, and where these two disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edpct.bench.report.claim import most_compressed
from edpct.bench.report.schema import Report
from edpct.bench.requests import Request
from edpct.data.samples import Dataset
from edpct.data.tiling import Window, windows
from edpct.progress import Progress
from edpct.runtimes.artefact import card_of
from edpct.runtimes.ports import predictor
from edpct.runtimes.table import open_session
from edpct.task import Task

CELL, GAP, HEAD = 256, 6, 30
PAPER, INK = (250, 250, 248), (40, 40, 40)
DISAGREE = np.array((230, 30, 60), np.uint8)


@dataclass(frozen=True)
class Shown:
    """An engine on the sheet: the title of its column, its file, the runtime and device that run it."""

    title: str
    path: Path
    runtime: str
    device: str = ""


def picture_sheet(reference: Shown, other: Shown, dataset: Dataset, progress: Progress, count: int = 5) -> bytes:
    """A PNG with a row per picture and a legend of the classes.

    Args:
        reference, other: engines that carry cards of the same task.
        count: rows; the val windows with the most classes, each from another image.
    """
    task = card_of(reference.path).task
    size = task.preprocessing
    chosen = choose_windows(windows(dataset, "val", size.height, size.width), task, count)
    rows = []
    with (
        progress.task("Drawing pictures", len(chosen)) as update,
        open_session(reference.path, reference.runtime, device=reference.device) as theirs,
        open_session(other.path, other.runtime, device=other.device) as ours,
    ):
        predicts = [predictor(theirs, task, reference.path.name), predictor(ours, task, other.path.name)]
        for done, window in enumerate(chosen, 1):
            labels = [predict(window.image) for predict in predicts]
            rows.append(_row(window, labels[0], labels[1], task))
            update(done, "")
    titles = ("image", "truth", reference.title, other.title, "where they differ")
    file = BytesIO()
    _sheet(rows, titles, task).save(file, format="PNG", optimize=True)
    return file.getvalue()


def pictures_of(report: Report, requests: Sequence[Request], dataset: Dataset, progress: Progress) -> bytes | None:
    """The sheet of a bench's reference engine and its most compressed one, on the runtimes that measured them.

    None where there is only one engine, or two that take images of different sizes.
    """
    files = {(request.name, request.runtime): request.path for request in requests}
    first = report.reference_row()
    others = [row for row in report.rows if row.name == most_compressed(report) and row.input == first.input]
    if not others:
        return None
    last = next((row for row in reversed(others) if row.runtime == first.runtime), others[-1])
    shown = [Shown(row.name, files[row.name, row.runtime], row.runtime, row.device) for row in (first, last)]
    return picture_sheet(shown[0], shown[1], dataset, progress)


def choose_windows(found: Iterable[Window], task: Task, count: int) -> list[Window]:
    """The windows that show most: many classes, evenly shared, few ignored pixels; at most one of an image at first."""
    first: dict[int, tuple[float, int, Window]] = {}  # of each image the best; no more of them than are wanted
    rest: list[tuple[float, int, Window]] = []
    for number, window in enumerate(found):
        one = -_telling(window, task), number, replace(window, image=window.image.copy())  # else the whole image stays
        former = first.get(window.source)
        if former is None or one < former:
            first[window.source] = one
        if former is not None:
            rest = sorted((*rest, max(one, former)))[:count]
        if len(first) > count:
            del first[max(first, key=first.__getitem__)]
    return [window for *_, window in (*sorted(first.values()), *rest)][:count]


def _telling(window: Window, task: Task) -> float:
    """Entropy of the classes times the labelled share: an evenly mixed, fully labelled window is the most telling."""
    shares = np.bincount(window.labels.ravel(), minlength=256)[: task.num_classes] / window.labels.size
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum() * shares.sum())


def _row(window: Window, teacher: NDArray, student: NDArray, task: Task) -> list[NDArray[np.uint8]]:
    palette = task.palette
    faded = (window.image.mean(axis=2, keepdims=True) * 0.4 + 140).astype(np.uint8).repeat(3, axis=2)
    faded[teacher != student] = DISAGREE
    return [window.image, palette[window.labels], palette[teacher], palette[student], faded]


def _sheet(rows: list[list[NDArray[np.uint8]]], titles: tuple[str, ...], task: Task) -> Image.Image:
    width = len(titles) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (CELL + GAP) + HEAD), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), 7), _fitting(title, draw, font), INK, font)
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


def _fitting(title: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """A title that does not run into the next column."""
    if draw.textlength(title, font) <= CELL:
        return title
    while draw.textlength(f"{title}…", font) > CELL:
        title = title[:-1]
    return f"{title}…"
