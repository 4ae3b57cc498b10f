"""ISPRS 2D Semantic Labeling, Potsdam: 38 tiles of 6000 x 6000 pixels, 5 cm, RGB.

The tiles whose labels the participants of the challenge had are train, those it was scored on are val: the split of
nearly every paper (UNetFormer, arXiv 2109.08937, among them). As there, 7_10 is left out, whose labels are wrong.
Papers choose their checkpoint on 2_10 or take the last; here 2_10 is train, and what is chosen on val is scored on val,
too.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edpct.data.layouts.isprs import ERODED_COLOURS, TASK, find_tiles, pairs
from edpct.data.layouts.isprs import read_mask as read_exactly
from edpct.data.samples import Dataset, Labels, decode_colours
from edpct.data.samples import read_mask as read_picture

TRAIN = (
    "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12",
    "6_7", "6_8", "6_9", "6_10", "6_11", "6_12", "7_7", "7_8", "7_9", "7_11", "7_12",
)  # fmt: skip
VAL = (
    "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
)  # fmt: skip
NAME = r"top_potsdam_(\d+_\d+)_"
# As distributed, the labels of 4_12 were compressed with loss, and 6_7 has cars of (252, 255, 0). Every class is a
# corner of the colour cube, so that rounding each channel mends both; in no other tile is a colour guessed.
MISCOLOURED = re.compile(r"top_potsdam_(4_12|6_7)_label(_noBoundary)?\.tif", re.IGNORECASE)


def open_layout(root: Path) -> Dataset:
    """Validation on the full labels."""
    return _open(root, "potsdam", r"label\.tif")


def open_eroded(root: Path) -> Dataset:
    """Validation on the eroded labels, training on the full ones."""
    return _open(root, "potsdam-eroded", r"label_noBoundary\.tif")


def recognise(root: Path) -> bool:
    """Whether there is a tile's image."""
    return bool(find_tiles(root, NAME + r"RGB\.tif"))


def _open(root: Path, layout: str, scored_on: str) -> Dataset:
    images, labels = find_tiles(root, NAME + r"RGB\.tif"), find_tiles(root, NAME + r"label\.tif")
    train = pairs("train", TRAIN, images, labels)
    return Dataset(root, layout, TASK, train, pairs("val", VAL, images, find_tiles(root, NAME + scored_on)), read_mask)


def read_mask(path: Path) -> Labels:
    """Labels (H, W), uint8; DataError where a colour is no class's."""
    if not MISCOLOURED.fullmatch(path.name):
        return read_exactly(path)
    rounded = np.where(np.asarray(read_picture(path).convert("RGB")) >= 128, np.uint8(255), np.uint8(0))
    return decode_colours(rounded, ERODED_COLOURS, path)
