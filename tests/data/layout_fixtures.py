"""Data sets in the layouts and colours that they are distributed in: every class occurs in every mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Names and colours as the data sets' own pages have them; not read from edpct.
ISPRS = {
    "impervious surfaces": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
UAVID = {
    "building": (128, 0, 0),
    "road": (128, 64, 128),
    "static car": (192, 0, 192),
    "tree": (0, 128, 0),
    "low vegetation": (128, 128, 0),
    "human": (64, 64, 0),
    "moving car": (64, 0, 128),
    "background clutter": (0, 0, 0),
}
LOVEDA = ("background", "building", "road", "water", "barren", "forest", "agriculture")
VAIHINGEN_TRAIN = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
VAIHINGEN_TEST = (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)
POTSDAM_TRAIN = [f"{r}_{c}" for r in range(2, 6) for c in (10, 11, 12)]
POTSDAM_TRAIN += [f"{r}_{c}" for r in (6, 7) for c in range(7, 13)]
POTSDAM_TEST = (
    "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
)  # fmt: skip
COLUMNS = 12  # of every image, whose height is 4


def colour_mask(colours: dict[str, tuple[int, int, int]], eroded: bool = False) -> NDArray[np.uint8]:
    """(4, 12, 3): the colours in turn along every row; with a black last row where eroded."""
    rows = np.array([list(colours.values())[column % len(colours)] for column in range(COLUMNS)], np.uint8)
    mask = np.repeat(rows[None], 4, axis=0)
    if eroded:
        mask[-1] = 0
    return mask


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_image(path: Path) -> None:
    save(path, np.random.default_rng(0).integers(0, 256, (4, COLUMNS, 3), dtype=np.uint8))


def make_vaihingen(root: Path, complete: bool = True) -> Path:
    """As ISPRS_semantic_labeling_Vaihingen.zip unpacks, with the complete ground truth's archives beside it."""
    for area in VAIHINGEN_TRAIN + VAIHINGEN_TEST:
        name = f"top_mosaic_09cm_area{area}"
        save_image(root / f"top/{name}.tif")
        if area in VAIHINGEN_TRAIN:
            save(root / f"gts_for_participants/{name}.tif", colour_mask(ISPRS))
        if complete:
            folder = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth"
            save(folder.with_name(f"{folder.name}_COMPLETE") / f"{name}.tif", colour_mask(ISPRS))
            eroded = folder.with_name(f"{folder.name}_eroded_COMPLETE") / f"{name}_noBoundary.tif"
            save(eroded, colour_mask(ISPRS, eroded=True))
    return root


def make_potsdam(root: Path) -> Path:
    """As 2_Ortho_RGB.zip, 5_Labels_all.zip and 5_Labels_all_noBoundary.zip unpack."""
    for tile in [*POTSDAM_TRAIN, *POTSDAM_TEST]:
        save_image(root / f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif")
        save(root / f"5_Labels_all/top_potsdam_{tile}_label.tif", colour_mask(ISPRS))
        eroded = root / f"5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif"
        save(eroded, colour_mask(ISPRS, eroded=True))
    return root


def make_loveda(root: Path, nested: bool = False) -> Path:
    """Train and Val with masks of 0 (no data) to 7; Test has images only."""
    mask = np.tile(np.arange(COLUMNS, dtype=np.uint8) % 8, (4, 1))
    for split, number in (("Train", 0), ("Val", 2522), ("Test", 4191)):
        top = root / split / split if nested else root / split
        for region in ("Rural", "Urban"):
            save_image(top / f"{region}/images_png/{number}.png")
            if split != "Test":
                save(top / f"{region}/masks_png/{number}.png", mask)
            number += 1
    return root


def make_uavid(root: Path) -> Path:
    """Sequences of frames that are numbered alike; the test's have no labels."""
    for split, sequences in (("train", (1, 2)), ("val", (16, 36)), ("test", (21,))):
        for sequence in sequences:
            for frame in ("000000", "000100"):
                folder = root / f"uavid_{split}/seq{sequence}"
                save_image(folder / f"Images/{frame}.png")
                if split != "test":
                    save(folder / f"Labels/{frame}.png", colour_mask(UAVID))
    return root


def write_class_table(root: Path, names: tuple[str, ...] = ("land", "sea")) -> None:
    """``classes.json`` with the colours (10, 0, 0), (20, 0, 0) and so on."""
    root.mkdir(parents=True, exist_ok=True)
    classes = [{"name": name, "colour": [10 * number, 0, 0]} for number, name in enumerate(names, 1)]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
