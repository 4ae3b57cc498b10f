"""Public data sets in the layouts they are distributed in: recognised, split as in papers, every colour right."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_fixtures import (
    COLUMNS,
    ISPRS,
    LOVEDA,
    POTSDAM_TEST,
    POTSDAM_TRAIN,
    UAVID,
    VAIHINGEN_TEST,
    VAIHINGEN_TRAIN,
    colour_mask,
    make_loveda,
    make_potsdam,
    make_uavid,
    make_vaihingen,
    save,
    save_image,
)

from edpct.data.layouts import LAYOUTS, open_dataset
from edpct.errors import DataError, UnknownLabelsError

MAKERS: dict[str, Callable[[Path], Path]] = {
    "loveda": make_loveda,
    "vaihingen": make_vaihingen,
    "potsdam": make_potsdam,
    "uavid": make_uavid,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_public_set_is_recognised_and_can_be_handed_to_another_process(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(MAKERS[name](tmp_path))
    assert dataset.layout == name and dataset.train and dataset.val
    sample = dataset.val[0]
    image, labels = pickle.loads(pickle.dumps(dataset)).read(sample)
    assert image.shape == (4, COLUMNS, 3) and labels.shape == (4, COLUMNS)


def test_a_folder_that_looks_like_two_layouts_is_refused_with_both(tmp_path: Path) -> None:
    make_uavid(make_loveda(tmp_path))
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} looks like more than one layout: loveda and uavid. Say which one it is with --layout."
    )
    assert open_dataset(tmp_path, "uavid").layout == "uavid"


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_refused_in_every_layout_with_what_it_looks_like(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, name)
    assert "\n" not in str(caught.value) and "The layout '" in caught.value.hint


# ---- LoveDA


@pytest.mark.parametrize("nested", [False, True])
def test_loveda_numbers_are_shifted_and_no_data_is_ignored(tmp_path: Path, nested: bool) -> None:
    dataset = open_dataset(make_loveda(tmp_path, nested))
    assert [sample.image.name for sample in dataset.train] == ["0.png", "1.png"]
    assert [sample.image.name for sample in dataset.val] == ["2522.png", "2523.png"]
    assert dataset.task.names == LOVEDA
    _, labels = dataset.read(dataset.train[0])
    assert labels[0].tolist() == [255, 0, 1, 2, 3, 4, 5, 6, 255, 0, 1, 2]


def test_a_loveda_number_beyond_the_classes_is_refused_as_the_file_has_it(tmp_path: Path) -> None:
    root = make_loveda(tmp_path)
    mask = root / "Val/Rural/masks_png/2522.png"
    save(mask, np.full((4, COLUMNS), 8, np.uint8))
    dataset = open_dataset(root)
    with pytest.raises(UnknownLabelsError) as caught:
        dataset.read(dataset.val[0])
    assert caught.value.what == f"The mask {mask} holds the number 8, but the data set has 0 to 7."
    assert caught.value.pixels == {"8": 4 * COLUMNS}


def test_loveda_masks_that_were_coloured_are_refused(tmp_path: Path) -> None:
    root = make_loveda(tmp_path)
    save(root / "Val/Rural/masks_png/2522.png", colour_mask(ISPRS))
    dataset = open_dataset(root)
    with pytest.raises(DataError, match="has the pixel format RGB, where LoveDA's are 8-bit numbers"):
        dataset.read(dataset.val[0])


def test_a_missing_folder_of_masks_is_refused_with_the_number_of_images(tmp_path: Path) -> None:
    root = make_loveda(tmp_path)
    save_image(root / "Train/Rural/images_png/7.png")
    masks = root / "Train/Rural/masks_png"
    (masks / "0.png").unlink()
    masks.rmdir()
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    image = root / "Train/Rural/images_png/0.png"
    assert caught.value.what == f"The image {image} has no mask in {masks}, nor have 1 others."


# ---- UAVid


def test_uavid_is_split_as_distributed_and_its_black_is_a_class(tmp_path: Path) -> None:
    dataset = open_dataset(make_uavid(tmp_path))
    assert [sample.image.relative_to(tmp_path).as_posix() for sample in dataset.train] == [
        f"uavid_train/seq{number}/Images/{frame}.png" for number in (1, 2) for frame in ("000000", "000100")
    ]
    assert {sample.image.parts[-3] for sample in dataset.val} == {"seq16", "seq36"}
    _, labels = dataset.read(dataset.train[3])
    assert [dataset.task.names[label] for label in labels[0, :8]] == list(UAVID)


# ---- ISPRS


def _areas(samples: tuple) -> list[int]:
    return [int(sample.image.stem.removeprefix("top_mosaic_09cm_area")) for sample in samples]


@pytest.mark.parametrize("layout", ["vaihingen", "vaihingen-eroded"])
def test_vaihingen_is_split_as_the_challenge_was(tmp_path: Path, layout: str) -> None:
    dataset = open_dataset(make_vaihingen(tmp_path), layout)
    assert _areas(dataset.train) == list(VAIHINGEN_TRAIN) and _areas(dataset.val) == list(VAIHINGEN_TEST)
    assert dataset.layout == layout  # which is what a checkpoint's card remembers
    for sample in (dataset.train[0], dataset.val[0]):
        _, labels = dataset.read(sample)
        assert [dataset.task.names[label] for label in labels[0, :6]] == list(ISPRS)
        eroded = layout.endswith("eroded") and sample in dataset.val
        assert (labels[-1] == 255).all() == eroded and not (labels[:-1] == 255).any()


def test_vaihingen_of_the_participants_has_no_val_and_says_what_it_needs(tmp_path: Path) -> None:
    dataset = open_dataset(make_vaihingen(tmp_path, complete=False))
    assert len(dataset.train) == 16
    with pytest.raises(DataError) as caught:
        dataset.split("val")
    assert caught.value.what == f"{tmp_path} has no val images in the layout 'vaihingen'."
    assert "the complete ground truth" in caught.value.hint


def test_a_vaihingen_area_without_labels_is_refused(tmp_path: Path) -> None:
    root = make_vaihingen(tmp_path)
    (root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area4.tif").unlink()
    with pytest.raises(DataError, match=r"The val image .*area4\.tif has no labels\. Unpack the labels"):
        open_dataset(root)
    assert len(open_dataset(root, "vaihingen-eroded").val) == 17


@pytest.mark.parametrize("layout", ["potsdam", "potsdam-eroded"])
def test_potsdam_is_split_as_the_challenge_was_without_the_tile_of_wrong_labels(tmp_path: Path, layout: str) -> None:
    dataset = open_dataset(make_potsdam(tmp_path), layout)
    names = [[sample.image.stem[12:-4] for sample in split] for split in (dataset.train, dataset.val)]
    assert sorted(names[0]) == sorted(set(POTSDAM_TRAIN) - {"7_10"}) and len(names[0]) == 23
    assert sorted(names[1]) == sorted(POTSDAM_TEST) and len(names[1]) == 14
    _, labels = dataset.read(dataset.val[0])
    assert (labels[-1] == 255).all() == layout.endswith("eroded")


def test_archives_that_unpack_one_folder_deeper_are_found(tmp_path: Path) -> None:
    make_potsdam(tmp_path / "Potsdam")
    assert len(open_dataset(tmp_path).val) == 14


@pytest.mark.parametrize(("tile", "mended"), [("4_12", True), ("6_7", True), ("6_8", False)])
def test_colours_are_rounded_only_in_the_two_tiles_known_to_be_off(tmp_path: Path, tile: str, mended: bool) -> None:
    """(252, 255, 0) for cars is in 6_7 as distributed, the other values in 4_12, which was compressed with loss."""
    root = make_potsdam(tmp_path)
    wrong = colour_mask(ISPRS)
    wrong[0, :5] = [(225, 227, 227), (3, 9, 240), (9, 222, 221), (12, 240, 3), (252, 255, 0)]
    save(root / f"5_Labels_all/top_potsdam_{tile}_label.tif", wrong)
    dataset = open_dataset(root)
    sample = next(sample for sample in dataset.train if f"_{tile}_" in sample.image.name)
    if mended:
        assert dataset.read(sample)[1][0, :6].tolist() == [0, 1, 2, 3, 4, 5]
        return
    with pytest.raises(UnknownLabelsError, match=r"is no class's, nor are 4 others in it\.") as caught:
        dataset.read(sample)
    assert set(caught.value.pixels) == {"#E1E3E3", "#0309F0", "#09DEDD", "#0CF003", "#FCFF00"}
