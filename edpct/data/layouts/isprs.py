"""What ISPRS Vaihingen and Potsdam share: classes, colours, and how files are found by their names.

Names tell images, labels and eroded labels (``noBoundary``) apart, so that it does not matter what the folders are
called: those of the participants' packages, of the complete ground truth and of mirrors differ. Eroded labels are black
within three pixels of a boundary, and the benchmark leaves these pixels out of its scores.

Clutter is a class here. Papers often leave it out of the mean over classes, so compare class by class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edpct.data.layouts.masks import colours_of, read_coloured
from edpct.data.samples import Sample, Split
from edpct.errors import DataError
from edpct.task import IGNORE_INDEX, ClassInfo, Task

TASK = Task(
    classes=(
        ClassInfo(name="impervious surfaces", colour=(255, 255, 255)),
        ClassInfo(name="building", colour=(0, 0, 255)),
        ClassInfo(name="low vegetation", colour=(0, 255, 255)),
        ClassInfo(name="tree", colour=(0, 255, 0)),
        ClassInfo(name="car", colour=(255, 255, 0)),
        ClassInfo(name="clutter", colour=(255, 0, 0)),
    )
)
COLOURS = colours_of(TASK)
ERODED_COLOURS = COLOURS | {(0, 0, 0): IGNORE_INDEX}
DEPTH = 3  # folders below the root: archives unpack to 2_Ortho_RGB/2_Ortho_RGB
read_mask = partial(read_coloured, ERODED_COLOURS)

Tiles = dict[str, Path]
"""Files by the name of their tile."""


def find_tiles(root: Path, pattern: str, wanted_in: Callable[[Path], bool] = lambda folder: True) -> Tiles:
    """Files whose name matches, by what its first group says; the first by path where a tile is there twice.

    Args:
        wanted_in: whether files of a folder count.
    """
    wanted = re.compile(pattern, re.IGNORECASE)
    found: Tiles = {}
    for depth in range(1, DEPTH + 2):
        for path in sorted(root.glob("/".join(["*"] * depth))):
            match = wanted.fullmatch(path.name)
            if match and wanted_in(path.parent) and path.is_file():
                found.setdefault(match[1], path)
    return found


def pairs(split: Split, names: tuple[str, ...], images: Tiles, labels: Tiles) -> tuple[Sample, ...]:
    """Samples of those tiles that are there.

    Labels of val tiles are not in the participants' packages, so that val may be empty; but not have a gap.

    Raises:
        DataError: a tile without labels.
    """
    there = [name for name in names if name in images]
    alone = [name for name in there if name not in labels]
    if split == "val" and len(alone) == len(there):
        return ()
    if alone:
        others = f", nor have {len(alone) - 1} others" if len(alone) > 1 else ""
        raise DataError(
            f"The {split} image {images[alone[0]]} has no labels{others}.",
            "Unpack the labels beside the images, under the names that they have.",
        )
    return tuple(Sample(images[name], labels[name]) for name in there)
