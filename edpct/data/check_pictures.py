"""A sheet of pictures of a data set: some images of each split, the same with their masks over them, shared ground."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edpct.data.check import SPLITS, Box, DataCheck, SharedGround
from edpct.data.samples import Dataset, Labels, Split
from edpct.task import Task

PER_SPLIT, PAIRS = 4, 2
CELL, GAP, LINE = 300, 8, 26
PAPER, INK, BORDER = (250, 250, 248), (40, 40, 40), (230, 30, 60)
COVER = 0.55  # how much of a class's colour lies over the image
NOT_COUNTED = (150, 150, 150)


class PictureSheet:
    """Keeps small copies of samples while a data set is read, and draws them at the end.

    :meth:`show` is what :func:`edpct.data.check.check_dataset` calls.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._kept: dict[Split, list[tuple[str, Image.Image, Image.Image]]] = {"train": [], "val": []}

    def show(self, split: Split, index: int, image: NDArray[np.uint8], labels: Labels) -> None:
        """Keep a sample if one from this part of its split is still missing."""
        samples = self.dataset.train if split == "train" else self.dataset.val
        kept = self._kept[split]
        if len(kept) < PER_SPLIT and index >= len(kept) * len(samples) // PER_SPLIT:
            small = _fitted(Image.fromarray(image), Image.Resampling.BILINEAR)
            mask = _fitted(Image.fromarray(labels), Image.Resampling.NEAREST)
            name = samples[index].image.relative_to(self.dataset.root).as_posix()
            kept.append((name, small, _covered(small, np.asarray(mask), self.dataset.task)))

    def draw(self, check: DataCheck) -> bytes:
        """The sheet as PNG."""
        blocks = [_row(f"{split}: {check.split(split).images} images", self._kept[split]) for split in SPLITS]
        if check.overlaps:
            cells = [cell for overlap in check.overlaps[:PAIRS] for cell in self._pair(overlap)]
            blocks.append(_row("in both splits: the whole images, and below them the ground that both show", cells))
        blocks.append(_legend(self.dataset.task))
        sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks) + GAP), PAPER)
        top = 0
        for block in blocks:
            sheet.paste(block, (0, top))
            top += block.height
        file = BytesIO()
        sheet.save(file, "PNG", optimize=True)
        return file.getvalue()

    def _pair(self, overlap: SharedGround) -> list[tuple[str, Image.Image, Image.Image]]:
        """The two images with their common ground outlined, and that ground cut out of both."""
        cells = []
        for split, name, box in (("train", overlap.train, overlap.train_box), ("val", overlap.val, overlap.val_box)):
            picture = Image.fromarray(self.dataset.decode_image(self.dataset.root / name))
            cut = _fitted(picture.crop(box), Image.Resampling.BILINEAR)
            cells.append((f"{split}: {name}", _outlined(picture, box), cut))
        return cells


def _row(title: str, cells: list[tuple[str, Image.Image, Image.Image]]) -> Image.Image:
    """A title, and for each cell its name, the upper and the lower picture."""
    height = max((above.height + below.height for _, above, below in cells), default=0)
    block = Image.new("RGB", (PER_SPLIT * (CELL + GAP) + GAP, 2 * LINE + height + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((GAP, 5), title, INK, ImageFont.load_default(16))
    font = ImageFont.load_default(12)
    for column, (name, above, below) in enumerate(cells):
        left = GAP + column * (CELL + GAP)
        while draw.textlength(name, font) > CELL:
            name = f"…{name[2:]}"
        draw.text((left, LINE + 5), name, INK, font)
        block.paste(above, (left, 2 * LINE))
        block.paste(below, (left, 2 * LINE + above.height + GAP))
    return block


def _legend(task: Task) -> Image.Image:
    """Colours and names of the classes, in as many lines as it takes."""
    width = PER_SPLIT * (CELL + GAP) + GAP
    font = ImageFont.load_default(15)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    places, left, line = [], GAP, 0
    for name, colour in [*((c.name, c.colour) for c in task.classes), ("ignored", NOT_COUNTED)]:
        needed = 20 + round(measure.textlength(name, font)) + 18
        if left + needed > width and left > GAP:
            left, line = GAP, line + 1
        places.append((left, line * LINE + 4, name, colour))
        left += needed
    block = Image.new("RGB", (width, (line + 1) * LINE + 4), PAPER)
    draw = ImageDraw.Draw(block)
    for x, y, name, colour in places:
        draw.rectangle((x, y + 1, x + 14, y + 15), colour, outline=INK)  # white is a class's colour, too
        draw.text((x + 20, y), name, INK, font)
    return block


def _fitted(picture: Image.Image, resample: Image.Resampling) -> Image.Image:
    """The picture in a square of CELL, its proportions kept."""
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, resample)


def _covered(image: Image.Image, labels: Labels, task: Task) -> Image.Image:
    """An image in grey under the colours of its classes; ignored pixels are plain grey."""
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    colours = task.palette.astype(np.float32)
    colours[task.ignore_index] = NOT_COUNTED
    mixed = COVER * colours[labels] + (1 - COVER) * grey
    return Image.fromarray(mixed.astype(np.uint8))


def _outlined(picture: Image.Image, box: Box) -> Image.Image:
    """The fitted picture with a frame around a box of its own pixels."""
    small = _fitted(picture, Image.Resampling.BILINEAR)
    scale = small.width / picture.width
    left, top, right, bottom = (round(edge * scale) for edge in box)
    ImageDraw.Draw(small).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=BORDER, width=3)
    return small
