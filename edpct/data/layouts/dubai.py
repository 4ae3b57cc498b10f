"""Semantic segmentation of aerial imagery, Dubai (MBRSC and Humans in the Loop, CC0): ``Tile N/images``, ``masks``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from edpct.data.layouts.masks import read_coloured
from edpct.data.samples import Dataset, Sample, pair_up
from edpct.task import IGNORE_INDEX, ClassInfo, Task

# The colours that the masks really hold; those in the set's own classes.json are wrong.
CLASSES = (
    ClassInfo(name="building", colour=(0x3C, 0x10, 0x98)),
    ClassInfo(name="land", colour=(0x84, 0x29, 0xF6)),
    ClassInfo(name="road", colour=(0x6E, 0xC1, 0xE4)),
    ClassInfo(name="vegetation", colour=(0xFE, 0xDD, 0x3A)),
    ClassInfo(name="water", colour=(0xE2, 0xA9, 0x29)),
)
UNLABELLED, BLACK = (0x9B, 0x9B, 0x9B), (0, 0, 0)
# Tiles 4 and 8 show the same ground, as do 7 and 8, so the split goes by tile, never by image.
VAL_TILES = frozenset({2, 6})


def open_layout(root: Path) -> Dataset:
    """Validation is tiles 2 and 6; unlabelled and black pixels are ignored."""
    colours = {c.colour: label for label, c in enumerate(CLASSES)} | {UNLABELLED: IGNORE_INDEX, BLACK: IGNORE_INDEX}
    train: list[Sample] = []
    val: list[Sample] = []
    for number, tile in _tiles(root):
        (val if number in VAL_TILES else train).extend(pair_up(tile / "images", tile / "masks"))
    return Dataset(root, "dubai", Task(classes=CLASSES), tuple(train), tuple(val), partial(read_coloured, colours))


def recognise(root: Path) -> bool:
    """Whether there is a tile."""
    return bool(_tiles(root))


def _tiles(root: Path) -> list[tuple[int, Path]]:
    """Number and folder of each tile that has images, by name."""
    matches = [(re.fullmatch(r"Tile (\d+)", path.name), path) for path in sorted(root.iterdir())]
    return [(int(match[1]), path) for match, path in matches if match and (path / "images").is_dir()]
