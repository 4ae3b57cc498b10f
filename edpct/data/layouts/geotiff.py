"""``classes.json`` and train/ and val/, each with images/ and masks/ of GeoTIFF files, read by rasterio.

Images have three bands or more of 8 bits: those whose colour interpretation is red, green and blue, or else the first
three; near infrared and other further bands are left out. Pixels that the image has no data for (nodata value, mask
band, alpha) are ignored. Masks hold class indices in one band or class colours in three; their nodata value is ignored
too. Image and mask must have the same coordinate reference system and lie within half a pixel of each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edpct.data.layouts import CLASS_FILE
from edpct.data.layouts.masks import colours_of, read_class_table
from edpct.data.samples import MAX_PIXELS, Dataset, Labels, Sample, Split, decode_colours, list_images, pair_up
from edpct.errors import DataError, MissingPackageError
from edpct.task import Task

GEO_TAGS = (33550, 34264, 34735)  # pixel scale, transformation, key directory: TIFF tags of OGC GeoTIFF 1.1
SUFFIXES = (".tif", ".tiff")
CONVERT = "Convert it to 8 bits first, for instance with: gdal_translate -ot Byte -scale {0} OUT.tif"


def open_layout(root: Path) -> Dataset:
    """The splits are what the folders say.

    Raises:
        MissingPackageError: rasterio is not installed.
    """
    _rasterio()
    task = read_class_table(root)

    def samples(split: Split) -> tuple[Sample, ...]:
        images = root / split / "images"
        return pair_up(images, root / split / "masks") if images.is_dir() else ()

    return Dataset(
        root,
        "geotiff",
        task,
        samples("train"),
        samples("val"),
        decode_mask=partial(_read_mask, task),
        decode_image=_read_image,
        decode_size=_read_size,
        reconcile=partial(_reconcile, task.ignore_index),
    )


def recognise(root: Path) -> bool:
    """Whether there is a class table, and the first image is georeferenced or a TIFF that only GDAL may read."""
    folders = [root / split / "images" for split in ("train", "val")]
    images = [path for folder in folders if folder.is_dir() for path in list_images(folder)[:1]]
    if not images or not (root / CLASS_FILE).is_file() or images[0].suffix.lower() not in SUFFIXES:
        return False
    try:
        with Image.open(images[0]) as image:
            tags = getattr(image, "tag_v2", {})
            return any(tag in tags for tag in GEO_TAGS)
    except (OSError, SyntaxError, ValueError):
        return images[0].read_bytes()[:2] in (b"II", b"MM")  # a TIFF of bands that Pillow does not know


def _rasterio() -> Any:
    try:
        import rasterio
    except ImportError as error:
        raise MissingPackageError("rasterio", "reading GeoTIFF files", "geo") from error
    return rasterio


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Any]:
    """The file as rasterio's dataset; its errors become one sentence."""
    rasterio = _rasterio()
    if not path.is_file():
        raise DataError(f"There is no {what} {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # compared and said by _reconcile
            with rasterio.open(path) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise DataError(
                        f"The {what} {path} is larger than {MAX_PIXELS // 1_000_000} megapixels.",
                        "Cut it into tiles first.",
                    )
                yield file
    except rasterio.errors.RasterioError as error:
        raise DataError(f"The {what} {path} cannot be read: damaged, cut short, or no GeoTIFF.") from error


def _read_size(path: Path) -> tuple[int, int]:
    with _opened(path, "image") as file:
        return file.height, file.width


def _read_image(path: Path) -> NDArray[np.uint8]:
    with _opened(path, "image") as file:
        if file.count < 3:
            bands = "one band" if file.count == 1 else f"{file.count} bands"
            raise DataError(f"The image {path} has {bands}, where red, green and blue are needed.")
        chosen = _colour_bands(file)
        kinds = {file.dtypes[band - 1] for band in chosen}
        if kinds != {"uint8"}:
            raise DataError(f"The image {path} holds {kinds.pop()} values, not 8 bits.", CONVERT.format(path.name))
        bands = file.read(chosen)
        return np.ascontiguousarray(bands.transpose(1, 2, 0))


def _colour_bands(file: Any) -> list[int]:
    """Numbers of the red, green and blue bands, from 1."""
    meant = [band.name for band in file.colorinterp]
    if all(name in meant for name in ("red", "green", "blue")):
        return [meant.index(name) + 1 for name in ("red", "green", "blue")]
    return [1, 2, 3]


def _read_mask(task: Task, path: Path) -> Labels:
    with _opened(path, "mask") as file:
        valid = file.dataset_mask() > 0
        if file.count >= 3:
            rgb = file.read([1, 2, 3])
            if rgb.dtype != np.uint8:
                raise DataError(f"The mask {path} holds {rgb.dtype} values.", "Save it as 8-bit indices or RGB.")
            colours = colours_of(task)
            rgb[:, ~valid] = np.array(next(iter(colours)), np.uint8)[:, None]  # replaced below, whatever it was
            labels = decode_colours(rgb.transpose(1, 2, 0), colours, path)
        else:
            indices = file.read(1)
            indices[~valid] = 0
            if not np.issubdtype(indices.dtype, np.integer) or indices.min() < 0 or indices.max() > 255:
                raise DataError(
                    f"The mask {path} holds {indices.dtype} values that are no class indices.",
                    "Save it as 8-bit indices or RGB.",
                )
            labels = indices.astype(np.uint8)
    labels[~valid] = task.ignore_index
    return labels


def _reconcile(ignore_index: int, sample: Sample, labels: Labels) -> Labels:
    """Labels with those pixels ignored that the image has no data for, after comparing where both lie."""
    with _opened(sample.image, "image") as image, _opened(sample.mask, "mask") as mask:
        if image.crs != mask.crs:
            theirs, ours = (str(file.crs) if file.crs else "none" for file in (mask, image))
            raise DataError(
                f"The mask {sample.mask} has the coordinate reference system {theirs}, but its image {ours}.",
                "Reproject one of them, or use --layout folder to go by pixels alone.",
            )
        away = _pixels_apart(image, mask)
        if away > 0.5:
            raise DataError(
                f"The mask {sample.mask} lies up to {away:.1f} pixels away from its image.",
                "Give both the same grid, for instance with gdalwarp, or use --layout folder to go by pixels alone.",
            )
        labels[image.dataset_mask() == 0] = ignore_index
    return labels


def _pixels_apart(image: Any, mask: Any) -> float:
    """How far the same pixel of the two is apart at the worst corner, in pixels of the image."""
    corners = np.array([(x, y, 1.0) for x in (0, image.width) for y in (0, image.height)]).T
    seen = np.linalg.solve(_matrix(image.transform), _matrix(mask.transform) @ corners)
    return float(np.abs(seen - corners).max())


def _matrix(transform: Any) -> NDArray[np.float64]:
    """From pixel column and row to map coordinates, (3, 3)."""
    t = transform
    return np.array([[t.a, t.b, t.c], [t.d, t.e, t.f], [0.0, 0.0, 1.0]])
