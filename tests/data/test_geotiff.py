"""GeoTIFF pairs: bands, nodata and georeferencing as rasterio writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from layout_fixtures import write_class_table
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from edpct.data.layouts import open_dataset
from edpct.data.tiling import count_windows
from edpct.errors import DataError, MissingPackageError

HEIGHT, WIDTH, METRES = 6, 9, 0.5
IMAGE = np.random.default_rng(0).integers(1, 256, (4, HEIGHT, WIDTH), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 2, (1, HEIGHT, WIDTH), dtype=np.uint8)


def _write(path: Path, bands: NDArray, east: float = 300_000.0, crs: str | None = "EPSG:32640", **profile: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    interpretation = profile.pop("colorinterp", None)
    place = {"crs": crs, "transform": from_origin(east, 2_700_000.0, METRES, METRES)} if crs else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=len(bands), dtype=bands.dtype, **place, **profile
    ) as file:
        file.write(bands)
        if interpretation:
            file.colorinterp = interpretation


def _pairs(root: Path) -> Path:
    """A pair in each split, of three bands and of indices."""
    write_class_table(root)
    for split in ("train", "val"):
        _write(root / split / "images/a.tif", IMAGE[:3])
        _write(root / split / "masks/a.tif", LABELS)
    return root


def _read(root: Path) -> tuple[NDArray, NDArray]:
    dataset = open_dataset(root)
    assert dataset.layout == "geotiff"
    return dataset.read(dataset.train[0])


def _refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        _read(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_georeferenced_pairs_are_recognised_and_read_pixel_by_pixel(tmp_path: Path) -> None:
    image, labels = _read(_pairs(tmp_path))
    assert np.array_equal(image, IMAGE[:3].transpose(1, 2, 0)) and np.array_equal(labels, LABELS[0])
    assert image.flags.c_contiguous and image.flags.writeable


def test_plain_tiff_files_are_the_layout_folder_still(tmp_path: Path) -> None:
    write_class_table(tmp_path)
    _write(tmp_path / "train/images/a.tif", IMAGE[:3], crs=None)
    _write(tmp_path / "train/masks/a.tif", LABELS, crs=None)
    assert open_dataset(tmp_path).layout == "folder"


def test_masks_of_class_colours_are_read(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    red = (10 * (LABELS + 1)).astype(np.uint8)
    _write(root / "train/masks/a.tif", np.concatenate([red, red * 0, red * 0]))
    assert np.array_equal(_read(root)[1], LABELS[0])


def test_classes_of_one_colour_are_refused_in_masks_of_colours_only(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    classes = [{"name": name, "colour": [10, 0, 0]} for name in ("land", "sea")]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    assert np.array_equal(_read(root)[1], LABELS[0])
    red = np.full_like(LABELS, 10)
    _write(root / "train/masks/a.tif", np.concatenate([red, red * 0, red * 0]))
    assert "The classes 'land' and 'sea' have the same colour #0A0000," in _refusal(root)


def test_near_infrared_is_left_out_and_bands_are_taken_by_their_meaning(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/images/a.tif", IMAGE, photometric="RGB", alpha="NO")
    assert np.array_equal(_read(root)[0], IMAGE[:3].transpose(1, 2, 0))
    swapped = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    _write(root / "train/images/a.tif", IMAGE, photometric="MINISBLACK", colorinterp=swapped)
    assert np.array_equal(_read(root)[0], IMAGE[[3, 2, 1]].transpose(1, 2, 0))


def test_the_size_of_an_image_that_pillow_cannot_open(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/images/a.tif", np.concatenate((IMAGE, IMAGE)))
    dataset = open_dataset(root)
    assert dataset.decode_size(dataset.train[0].image) == (HEIGHT, WIDTH) == dataset.read(dataset.train[0])[0].shape[:2]
    assert count_windows(dataset, "train", 4, 4) == 2 * 3


def test_pixels_without_data_are_ignored_in_images_and_in_masks(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    image, labels = IMAGE[:3].copy(), LABELS.copy()
    image[:, :, :2] = 0  # IMAGE has no 0
    labels[0, 5, :] = 99
    _write(root / "train/images/a.tif", image, nodata=0)
    _write(root / "train/masks/a.tif", labels, nodata=99)
    expected = LABELS[0].copy()
    expected[:, :2] = expected[5, :] = 255
    assert np.array_equal(_read(root)[1], expected)


def test_an_image_of_16_bits_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/images/a.tif", IMAGE[:3].astype(np.uint16) * 16)
    said = _refusal(root)
    assert said.startswith(f"The image {root / 'train/images/a.tif'} holds uint16 values, not 8 bits. Convert it")
    assert "gdal_translate -ot Byte -scale" in said


def test_an_image_of_one_band_is_refused(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/images/a.tif", IMAGE[:1])
    assert "has one band, where red, green and blue are needed." in _refusal(root)


def test_another_coordinate_reference_system_is_refused_with_both(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/masks/a.tif", LABELS, crs="EPSG:32639")
    assert "has the coordinate reference system EPSG:32639, but its image EPSG:32640." in _refusal(root)
    _write(root / "train/masks/a.tif", LABELS, crs=None)
    assert "has the coordinate reference system none, but its image EPSG:32640." in _refusal(root)


@pytest.mark.parametrize(("pixels", "fits"), [(0.0, True), (0.4, True), (-0.4, True), (0.7, False), (-20.0, False)])
def test_a_mask_may_lie_half_a_pixel_away_from_its_image(tmp_path: Path, pixels: float, fits: bool) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/masks/a.tif", LABELS, east=300_000.0 + pixels * METRES)
    if fits:
        assert np.array_equal(_read(root)[1], LABELS[0])
    else:
        assert f"lies up to {abs(pixels):.1f} pixels away from its image." in _refusal(root)


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_masks_of_no_indices_are_refused(tmp_path: Path, kind: type) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/masks/a.tif", LABELS.astype(kind) - 1)
    assert "values that are no class indices. Save it as 8-bit indices or RGB." in _refusal(root)


def test_indices_may_be_of_more_bits(tmp_path: Path) -> None:
    root = _pairs(tmp_path)
    _write(root / "train/masks/a.tif", LABELS.astype(np.int32))
    assert np.array_equal(_read(root)[1], LABELS[0])


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    root = _pairs(tmp_path)
    dataset = open_dataset(root)
    path = root / "train" / kind / "a.tif"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.tif cannot be read: damaged, cut short, or no GeoTIFF\."):
        dataset.read(dataset.train[0])


def test_without_rasterio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _pairs(tmp_path)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingPackageError) as caught:
        open_dataset(root)
    assert str(caught.value) == (
        "Reading GeoTIFF files needs the package rasterio, which is not installed. "
        "Install it with: pip install 'edpct[geo]'"
    )
