"""ISPRS 2D Semantic Labeling, Vaihingen: 33 areas, 9 cm; the three channels are near infrared, red and green.

The areas whose labels the participants of the challenge had are train, those it was scored on are val: the split of
nearly every paper (UNetFormer, arXiv 2109.08937, among them). Papers choose their checkpoint on area 30 or take the
last; here area 30 is train, and what is chosen on val is scored on val, too.
"""

from __future__ import annotations

from pathlib import Path

from edpct.data.layouts.isprs import TASK, Tiles, find_tiles, pairs, read_mask
from edpct.data.samples import Dataset

TRAIN = ("1", "3", "5", "7", "11", "13", "15", "17", "21", "23", "26", "28", "30", "32", "34", "37")
VAL = ("2", "4", "6", "8", "10", "12", "14", "16", "20", "22", "24", "27", "29", "31", "33", "35", "38")
NAME = r"top_mosaic_09cm_area(\d+)"


def open_layout(root: Path) -> Dataset:
    """Validation on the full labels."""
    images, labels = _find(root)
    return Dataset(
        root, "vaihingen", TASK, pairs("train", TRAIN, images, labels), pairs("val", VAL, images, labels), read_mask
    )


def open_eroded(root: Path) -> Dataset:
    """Validation on the eroded labels, training on the full ones."""
    images, labels = _find(root)
    eroded = find_tiles(root, NAME + r"_noBoundary\.tif")
    train, val = pairs("train", TRAIN, images, labels), pairs("val", VAL, images, eroded)
    return Dataset(root, "vaihingen-eroded", TASK, train, val, read_mask)


def recognise(root: Path) -> bool:
    """Whether there is an area's image."""
    return bool(_find(root)[0])


def _find(root: Path) -> tuple[Tiles, Tiles]:
    """Images and full labels have the same names; images lie in a folder ``top``."""
    images = find_tiles(root, NAME + r"\.tif", lambda folder: folder.name == "top")
    labels = find_tiles(root, NAME + r"\.tif", lambda folder: folder.name != "top")
    return images, labels
