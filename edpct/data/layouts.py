"""Where a dataset keeps its images, masks and splits: one function a layout, one row a function."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edpct.card import DataSource
from edpct.data.samples import Dataset, Labels, Sample, Split, decode_colours, pair_up, read_mask
from edpct.errors import DataError
from edpct.task import IGNORE_INDEX, ClassInfo, Task

CLASS_FILE = "classes.json"


class ClassTable(BaseModel):
    """``classes.json`` of the folder layout: classes in the order of their labels, and the ignored label."""

    model_config = ConfigDict(extra="forbid")

    classes: tuple[ClassInfo, ...]
    ignore_index: int = IGNORE_INDEX


def open_dataset(root: Path, layout: str | None = None) -> Dataset:
    """Open the dataset in a folder.

    Args:
        root: its folder.
        layout: a key of :data:`LAYOUTS`; None: recognised from the folder.

    Raises:
        DataError: no such folder or layout, no images, no masks, or a class table that cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"There is no data folder {root}.", "Make one with: edpct data scenes --out DIR")
    name = layout or _recognise(root)
    if name not in LAYOUTS:
        raise DataError(f"The layout '{name}' is unknown.", f"Known are: {', '.join(LAYOUTS)}.")
    dataset = LAYOUTS[name](root)
    if not dataset.train and not dataset.val:
        raise DataError(f"{root} has no images in the layout '{name}'.", FOLDER_HINT if name == "folder" else "")
    return dataset


def open_source(source: DataSource) -> Dataset:
    """The dataset that a card names; :class:`DataError` where it no longer lies there."""
    return open_dataset(Path(source.directory), source.layout)


Colours = dict[tuple[int, int, int], int]
FOLDER_HINT = (
    f"The layout 'folder' is {CLASS_FILE}, train/images, train/masks, val/images, val/masks, "
    "a mask having the name of its image."
)


def _recognise(root: Path) -> str:
    if (root / "Tile 2").is_dir() or (root / "Tile 4").is_dir():
        return "dubai"
    if (root / CLASS_FILE).is_file():
        return "folder"
    raise DataError(f"{root} is in no layout that edpct recognises.", FOLDER_HINT)


def folder_layout(root: Path) -> Dataset:
    """``classes.json`` and train/ and val/, each with images/ and masks/; masks hold indices or colours."""
    task = _read_class_table(root / CLASS_FILE)
    colours = {c.colour: label for label, c in enumerate(task.classes)}

    def samples(split: Split) -> tuple[Sample, ...]:
        images = root / split / "images"
        return pair_up(images, root / split / "masks") if images.is_dir() else ()

    return Dataset(root, "folder", task, samples("train"), samples("val"), partial(_read_labels, colours))


def _read_labels(colours: Colours, path: Path) -> Labels:
    """A mask of class indices or of class colours."""
    mask = read_mask(path)
    if mask.mode in ("P", "L"):  # palette masks hold the index; the palette is only for looking
        return np.array(mask)
    if mask.mode == "1" or mask.mode.startswith(("I", "F")):
        raise DataError(f"The mask {path} has the pixel format {mask.mode}.", "Save it as 8-bit indices or RGB.")
    return decode_colours(np.asarray(mask.convert("RGB")), colours, path)


def _read_class_table(path: Path) -> Task:
    try:
        table = ClassTable.model_validate_json(path.read_text(encoding="utf-8"))
        return Task(classes=table.classes, ignore_index=table.ignore_index)
    except FileNotFoundError as error:
        raise DataError(f"There is no class table {path}.", FOLDER_HINT) from error
    except (ValidationError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DataError(f"The class table {path} cannot be used: {reason}.") from error


# The colours that the masks really hold; those in the set's own classes.json are wrong.
DUBAI_CLASSES = (
    ClassInfo(name="building", colour=(0x3C, 0x10, 0x98)),
    ClassInfo(name="land", colour=(0x84, 0x29, 0xF6)),
    ClassInfo(name="road", colour=(0x6E, 0xC1, 0xE4)),
    ClassInfo(name="vegetation", colour=(0xFE, 0xDD, 0x3A)),
    ClassInfo(name="water", colour=(0xE2, 0xA9, 0x29)),
)
# Tiles {4, 7, 8} show the same ground, so the split goes by tile, never by image.
DUBAI_VAL_TILES = frozenset({2, 6})


def dubai_layout(root: Path) -> Dataset:
    """Semantic segmentation of aerial imagery, Dubai (MBRSC and Humans in the Loop, CC0): ``Tile N/images``, ``masks``.

    Validation is tiles 2 and 6. Unlabelled and black pixels are ignored.
    """
    colours = {c.colour: label for label, c in enumerate(DUBAI_CLASSES)}
    colours |= {(0x9B, 0x9B, 0x9B): IGNORE_INDEX, (0, 0, 0): IGNORE_INDEX}
    train: list[Sample] = []
    val: list[Sample] = []
    for tile in sorted(root.iterdir()):
        match = re.fullmatch(r"Tile (\d+)", tile.name)
        if match and (tile / "images").is_dir():
            pairs = pair_up(tile / "images", tile / "masks")
            (val if int(match[1]) in DUBAI_VAL_TILES else train).extend(pairs)

    return Dataset(
        root, "dubai", Task(classes=DUBAI_CLASSES), tuple(train), tuple(val), partial(_read_colours, colours)
    )


def _read_colours(colours: Colours, path: Path) -> Labels:
    """A mask of class colours."""
    return decode_colours(np.asarray(read_mask(path).convert("RGB")), colours, path)


LAYOUTS: dict[str, Callable[[Path], Dataset]] = {"folder": folder_layout, "dubai": dubai_layout}
