"""Layouts: which files are train and val, and how their masks become labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.card import DataSource
from edpct.data.layouts import LAYOUTS, open_dataset, open_source
from edpct.errors import DataError

CLASSES = [{"name": "land", "colour": [10, 20, 30]}, {"name": "sea", "colour": [0, 0, 255]}]
LABELS = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
COLOURS = np.array([[10, 20, 30], [0, 0, 255]], np.uint8)
# What the masks of the Dubai set hold, read off the published masks.
DUBAI = {
    "building": (0x3C, 0x10, 0x98),
    "land": (0x84, 0x29, 0xF6),
    "road": (0x6E, 0xC1, 0xE4),
    "vegetation": (0xFE, 0xDD, 0x3A),
    "water": (0xE2, 0xA9, 0x29),
}
GREY, BLACK = (0x9B, 0x9B, 0x9B), (0, 0, 0)


def _folder(root: Path, mask: Image.Image, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """A data set in the folder layout, one image a split."""
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    for split in splits:
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((*mask.size[::-1], 3), np.uint8)).save(root / split / "images" / "a.png")
        mask.save(root / split / "masks" / "a.png")
    return root


def _palette_mask() -> Image.Image:
    mask = Image.fromarray(LABELS).convert("L")
    coloured = Image.new("P", mask.size)
    coloured.putdata(LABELS.ravel().tolist())
    coloured.putpalette([200, 0, 0, 0, 200, 0] + [0] * 756)  # colours that are no class's: only for looking
    return coloured


def _refusal(root: Path, layout: str | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(root, layout)
    assert "\n" not in str(caught.value) and (layout or str(root)) in caught.value.what
    return caught.value


# ---- folder


@pytest.mark.parametrize(
    "mask",
    [
        _palette_mask(),
        Image.fromarray(LABELS),
        Image.fromarray(COLOURS[LABELS]),
        Image.fromarray(COLOURS[LABELS]).convert("RGBA"),
    ],
    ids=["palette", "grey", "rgb", "rgba"],
)
def test_masks_of_indices_and_of_colours_give_the_same_labels(tmp_path: Path, mask: Image.Image) -> None:
    dataset = open_dataset(_folder(tmp_path, mask))
    for split in ("train", "val"):
        image, labels = dataset.read(dataset.split(split)[0])
        assert image.shape == (2, 3, 3) and labels.dtype == np.uint8
        assert np.array_equal(labels, LABELS)
    assert dataset.layout == "folder" and dataset.task.names == ("land", "sea") and dataset.task.ignore_index == 255


def test_the_class_table_may_name_another_ignore_index(tmp_path: Path) -> None:
    mask = LABELS.copy()
    mask[0, 0] = 9
    root = _folder(tmp_path, Image.fromarray(mask))
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 9}))
    dataset = open_dataset(root)
    assert dataset.task.ignore_index == 9
    assert np.array_equal(dataset.read(dataset.train[0])[1], mask)


def test_a_folder_without_val_opens_and_refuses_only_val(tmp_path: Path) -> None:
    dataset = open_dataset(_folder(tmp_path, Image.fromarray(LABELS), ("train",)))
    assert len(dataset.split("train")) == 1
    with pytest.raises(DataError, match=r"has no val images in the layout 'folder'\."):
        dataset.split("val")


def test_a_source_named_by_a_card_is_opened_again(tmp_path: Path) -> None:
    source = DataSource(directory=str(_folder(tmp_path, Image.fromarray(LABELS))), layout="folder")
    assert open_source(source).train[0].image == tmp_path / "train/images/a.png"
    with pytest.raises(DataError, match="There is no data folder"):
        open_source(source.model_copy(update={"directory": str(tmp_path / "moved")}))


def test_an_unknown_colour_is_refused_when_its_mask_is_read(tmp_path: Path) -> None:
    wrong = COLOURS[LABELS]
    wrong[1, 2] = (1, 2, 3)
    dataset = open_dataset(_folder(tmp_path, Image.fromarray(wrong)))
    with pytest.raises(DataError) as caught:
        dataset.read(dataset.val[0])
    mask = tmp_path / "val/masks/a.png"
    assert str(caught.value) == (
        f"The mask {mask} holds the colour #010203, which is no class's. Complete the class table."
    )


def test_classes_of_one_colour_are_refused_in_masks_of_colours_only(tmp_path: Path) -> None:
    for name in ("indices", "colours"):
        (tmp_path / name).mkdir()
    table = json.dumps({"classes": [*CLASSES, {"name": "lake", "colour": [0, 0, 255]}]})
    indices = _folder(tmp_path / "indices", Image.fromarray(2 * LABELS))
    colours = _folder(tmp_path / "colours", Image.fromarray(COLOURS[LABELS]))
    for root in (indices, colours):
        (root / "classes.json").write_text(table)
    dataset = open_dataset(indices)
    assert np.array_equal(dataset.read(dataset.train[0])[1], 2 * LABELS)
    dataset = open_dataset(colours)
    with pytest.raises(DataError) as caught:
        dataset.read(dataset.train[0])
    assert caught.value.what == (
        "The classes 'sea' and 'lake' have the same colour #0000FF, so that a mask of colours does not tell them apart."
    )


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_masks_of_other_pixel_formats_are_refused(tmp_path: Path, mode: str) -> None:
    mask = Image.fromarray(LABELS.astype(bool)) if mode == "1" else Image.fromarray(LABELS.astype(np.uint16))
    dataset = open_dataset(_folder(tmp_path, mask))
    with pytest.raises(DataError, match=r"a\.png has the pixel format .*\. Save it as 8-bit indices or RGB\.$"):
        dataset.read(dataset.train[0])


def test_a_missing_mask_is_refused_on_opening(tmp_path: Path) -> None:
    root = _folder(tmp_path, Image.fromarray(LABELS))
    (root / "val/masks/a.png").unlink()
    assert _refusal(root).what == f"The image {root / 'val/images/a.png'} has no mask in {root / 'val/masks'}."


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path / "none")
    assert str(refusal) == f"There is no data folder {tmp_path / 'none'}. Make one with: edpct data scenes --out DIR"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "There is no data folder" in _refusal(tmp_path / "file").what


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path)
    assert refusal.what == f"{tmp_path} is in no layout that edpct recognises." and "train/images" in refusal.hint


def test_a_class_table_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    assert _refusal(tmp_path).what == f"{tmp_path} has no images in the layout 'folder'."
    (tmp_path / "train/images").mkdir(parents=True)
    assert _refusal(tmp_path).what == f"{tmp_path} has no images in the layout 'folder'."


def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, "cityscapes")
    assert str(refusal) == "The layout 'cityscapes' is unknown. Known are: " + ", ".join(LAYOUTS) + "."


def test_the_folder_layout_asked_for_without_a_class_table_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, "folder").what == f"There is no class table {tmp_path / 'classes.json'}."


@pytest.mark.parametrize(
    "table",
    [
        "",
        "{",
        "[]",
        '{"classes": []}',
        json.dumps({"classes": CLASSES[:1]}),
        json.dumps({"classes": [CLASSES[0], CLASSES[0]]}),
        json.dumps({"classes": CLASSES, "ignore_index": 1}),
        json.dumps({"classes": CLASSES, "colour": 1}),
        json.dumps({"classes": [{"name": "a", "colour": [0, 0, 256]}, CLASSES[1]]}),
    ],
)
def test_a_class_table_that_cannot_be_used_is_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / "classes.json").write_text(table)
    assert _refusal(tmp_path).what.startswith(f"The class table {tmp_path / 'classes.json'} cannot be used: ")


def test_a_class_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_bytes(b"\xff\xfe\x00\x80")
    assert "cannot be used" in _refusal(tmp_path).what


# ---- Dubai


def _dubai(root: Path, tiles: tuple[int, ...] = (1, 2, 4, 6, 8)) -> Path:
    """Every tile has an image whose mask shows each class, grey and black once; images are jpg and masks png."""
    row = [*DUBAI.values(), GREY, BLACK]
    mask = Image.fromarray(np.array([row, row[::-1]], np.uint8))
    for tile in tiles:
        for kind in ("images", "masks"):
            (root / f"Tile {tile}" / kind).mkdir(parents=True)
        Image.new("RGB", mask.size).save(root / f"Tile {tile}/images/image_part_001.jpg")
        mask.save(root / f"Tile {tile}/masks/image_part_001.png")
    (root / "classes.json").write_text('{"classes": [{"title": "Water", "color": "#50E3C2"}]}')  # the set's own: wrong
    return root


def test_dubai_is_recognised_and_split_by_tiles(tmp_path: Path) -> None:
    dataset = open_dataset(_dubai(tmp_path))
    assert dataset.layout == "dubai" and set(dataset.task.names) == set(DUBAI)
    assert [s.image.parent.parent.name for s in dataset.train] == ["Tile 1", "Tile 4", "Tile 8"]
    assert [s.image.parent.parent.name for s in dataset.val] == ["Tile 2", "Tile 6"]


def test_dubai_colours_become_classes_and_grey_and_black_are_ignored(tmp_path: Path) -> None:
    dataset = open_dataset(_dubai(tmp_path))
    _, labels = dataset.read(dataset.train[0])
    said = [dataset.task.names[label] if label != 255 else None for label in labels[0]]
    assert said == [*DUBAI, None, None]
    assert np.array_equal(labels[1], labels[0][::-1])
    for name, colour in DUBAI.items():
        assert tuple(dataset.task.palette[dataset.task.names.index(name)]) == colour


def test_a_dubai_mask_with_another_colour_is_refused(tmp_path: Path) -> None:
    root = _dubai(tmp_path)
    Image.new("RGB", (7, 2), (0x50, 0xE3, 0xC2)).save(root / "Tile 4/masks/image_part_001.png")
    dataset = open_dataset(root)
    with pytest.raises(DataError, match=r"Tile 4.*image_part_001\.png holds the colour #50E3C2, which is no class's\."):
        dataset.read(dataset.train[1])


def test_folders_beside_the_tiles_are_left_out(tmp_path: Path) -> None:
    root = _dubai(tmp_path)
    for name in ("Tile 9 copy/images", "old/images", "Tile 7"):
        (root / name).mkdir(parents=True)
        (root / name / "a.jpg").touch()
    assert len(open_dataset(root).train) == 3
