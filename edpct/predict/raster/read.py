"""A raster, opened to be predicted: any bands of it as 8-bit RGB, some rows at a time, and where it has data.

Everything that GDAL opens will do; it is read through rasterio.
"""

from __future__ import annotations

import math
import shlex
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.errors import DataError, MissingPackageError
from edpct.predict.part import is_text
from edpct.predict.raster.samples import Place, Valid, samples
from edpct.predict.raster.scale import Scale, percentiles

SPARE_CACHE = 64 << 20  # bytes of GDAL's cache beside the largest blocks
LATTICE_LIMIT = 2.0**52  # a pixel number beyond it is no whole number any more


@dataclass(frozen=True)
class Bands:
    """Which bands of a raster are looked at, and how they become 8 bits.

    Attributes:
        numbers: of red, green and blue, from 1; one number alone stands for all three. Empty: those whose colour
            interpretation says so, or else the first three, or the only one.
        scale: "auto": 8-bit values stay, others go from the 2nd to the 98th percentile; "none": values stay, cut to
            0..255; two numbers: from the one to the other.
        percent: the percentiles of "auto"; given, 8-bit values are scaled as well.
    """

    numbers: tuple[int, ...] = ()
    scale: Literal["auto", "none"] | tuple[float, float] = "auto"
    percent: tuple[float, float] | None = None


class Raster:
    """A raster opened to be predicted; one thread reads it at a time. Leaving its ``with`` block closes it.

    Attributes:
        height, width: pixels.
        crs, transform, gcps, rpcs: where it lies, as rasterio has it; None, identity, () and None where it does not
            say.
        bands: numbers of the bands that are looked at, three of them.
        palette: (256, 3) or (65536, 3), uint8, of a raster of palette indices, which are then looked up; else None.
        scale: how values become 8 bits; None: they are 8 bits.

    Raises:
        MissingPackageError: rasterio is not installed.
        DataError: missing, damaged, no raster, or without those bands.
    """

    def __init__(self, path: Path, bands: Bands, fill: Sequence[int] = (0, 0, 0)) -> None:
        rasterio = rasterio_module()
        if not path.is_file():
            raise DataError(f"There is no raster {path}." if not path.is_dir() else f"{path} is a folder.")
        if not is_text(str(path)):
            raise DataError(f"The name of {path} is not UTF-8, and GDAL cannot open it.", "Rename it.")
        self.path, self._fill, self._lock = path, np.asarray(fill, np.uint8), threading.Lock()
        self._seen: dict[int, Valid] = {}
        with rasterio.Env():  # or GDAL writes its warnings to stderr
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                    self._file = rasterio.open(path)
            except gdal_errors() as error:
                raise DataError(
                    f"{path} cannot be opened: damaged, cut short, or no raster.", _reason(error)
                ) from error
            try:
                self._look(bands)
            except BaseException:
                self._file.close()
                raise

    @property
    def dataset(self) -> Any:
        """What rasterio opened."""
        return self._file

    def _look(self, bands: Bands) -> None:
        file = self._file
        if not file.count:
            inside = "".join(f"gdal_translate {shlex.quote(name)} OUT.tif" for name in file.subdatasets[:1])
            hint = f"Take one of its rasters out with: {inside}" if inside else ""
            raise DataError(f"{self.path.name} has no bands of its own.", hint)
        self.height, self.width = int(file.height), int(file.width)
        self.crs, self.transform = file.crs, file.transform
        self.gcps = file.gcps if not file.crs else ((), None)
        self.rpcs = file.rpcs
        self.bands = bands_of(file, bands.numbers)
        kinds = {file.dtypes[band - 1] for band in self.bands}
        if any(kind.startswith("complex") for kind in kinds):
            raise DataError(f"{self.path.name} holds complex values, and networks here look at images.")
        self.palette = _palette(file, self.bands)
        self._negative = self.palette is None and file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        self._alpha = _lone_alpha(file)
        real = any(np.dtype(kind).kind == "f" for kind in kinds)
        self._mixed, self._masked = len(kinds) > 1, real or _has_mask(file, self.bands) or self._alpha is not None
        self.scale: Scale | None = None
        if self.palette is None:
            self.scale = self._scale(bands)

    def _scale(self, bands: Bands) -> Scale | None:
        eight = [self._file.dtypes[band - 1] == "uint8" for band in self.bands]
        if bands.scale == "none":
            return None if all(eight) else Scale((0.0,) * 3, (255.0,) * 3)
        if bands.scale != "auto":
            low, high = bands.scale
            return Scale((low,) * 3, (high,) * 3)
        if bands.percent is not None:
            return percentiles(self._samples(), *bands.percent)
        most = [float(_most(self._file, band)) for band in self.bands]
        if all(eight):
            return None if most == [255.0] * 3 else Scale((0.0,) * 3, tuple(most))
        found = percentiles(self._samples(), 2.0, 98.0)
        return Scale(
            tuple(0.0 if stays else low for stays, low in zip(eight, found.low, strict=True)),
            tuple(white if stays else high for stays, white, high in zip(eight, most, found.high, strict=True)),
        )

    def _samples(self) -> list[NDArray[Any]]:
        file, cache = self._file, SPARE_CACHE
        for band in set(self.bands):  # a block is decoded once, though it be the whole file
            cache += math.prod(file.block_shapes[band - 1]) * np.dtype(file.dtypes[band - 1]).itemsize
        with rasterio_module().Env(GDAL_CACHEMAX=cache):
            columns = max(int(file.block_shapes[band - 1][1]) for band in self.bands)
            return samples(self._read, self.height, self.width, (self.block_rows, columns))

    @property
    def phase(self) -> tuple[int, int]:
        """How many pixels (down, right) its first pixel lies from where the map's coordinates are 0.

        So a raster and a crop of it know the same lattice. (0, 0) where the raster is turned, or does not know where
        it lies.
        """
        t = self.transform
        if self.crs is None or t.b or t.d or not t.a or not t.e:
            return 0, 0
        down, right = t.f / t.e, t.c / t.a
        return (round(down), round(right)) if abs(down) < LATTICE_LIMIT and abs(right) < LATTICE_LIMIT else (0, 0)

    @property
    def block_rows(self) -> int:
        """Rows of a block of the file; whole blocks are decoded at a time."""
        return max(int(self._file.block_shapes[band - 1][0]) for band in self.bands)

    @property
    def value_bytes(self) -> int:
        """Of the largest value of its bands."""
        return max(np.dtype(self._file.dtypes[band - 1]).itemsize for band in self.bands)

    def read(self, first: int, last: int) -> NDArray[np.uint8]:
        """Rows as RGB (rows, width, 3), uint8; pixels without data have the colour ``fill``.

        Raises:
            DataError: the file is damaged there.
        """
        values, valid = self._read(((first, last), (0, self.width)))
        pixels = np.empty((*values[0].shape, 3), np.uint8)
        for channel in range(3):
            pixels[..., channel] = self._eight(values[channel], channel)
        if valid is not None:
            pixels[~valid] = self._fill
            with self._lock:
                self._seen[first] = valid
        return pixels

    def _eight(self, values: NDArray[Any], channel: int) -> NDArray[np.uint8]:
        if self.palette is not None:
            return self.palette[values, channel]
        eight = self.scale.apply(values, channel) if self.scale is not None else values
        return 255 - eight if self._negative else eight

    def _read(self, place: Place) -> tuple[list[NDArray[Any]], Valid | None]:
        """The three bands, each (rows, columns), and where they have data; None: everywhere."""
        chosen = sorted(set(self.bands))
        try:
            with rasterio_module().Env():  # of the thread that reads
                if self._mixed:  # which rasterio does not read at once
                    values = [self._file.read(band, window=place) for band in chosen]
                else:
                    values = list(self._file.read(chosen, window=place))
                valid = None
                if self._masked:
                    # As rasterio's dataset_mask: one band with data will do, or pure colours would have none.
                    valid = self._file.read_masks(chosen, window=place).max(axis=0) > 0
                    if self._alpha is not None:
                        valid &= self._file.read(self._alpha, window=place) > 0
            for band in values:
                if valid is not None and band.dtype.kind == "f":
                    valid &= np.isfinite(band)
        except gdal_errors() as error:
            rows = f"{place[0][0]} to {place[0][1]}"
            raise DataError(
                f"{self.path} cannot be read in rows {rows}: damaged or cut short.", _reason(error)
            ) from error
        three = [values[chosen.index(band)] for band in self.bands]
        return three, None if valid is None or valid.all() else valid

    def valid(self, first: int, last: int) -> Valid | None:
        """Where rows that were read have data, (rows, width); None: everywhere. Rows before ``first`` are forgotten."""
        if not self._masked:
            return None
        whole: Valid | None = None
        with self._lock:
            for start, valid in list(self._seen.items()):
                end = start + len(valid)
                if end <= first:
                    del self._seen[start]
                elif start < last:
                    whole = np.ones((last - first, self.width), np.bool_) if whole is None else whole
                    top, bottom = max(start, first), min(end, last)
                    whole[top - first : bottom - first] = valid[top - start : bottom - start]
        return whole

    def empty(self, top: int, bottom: int, left: int, right: int) -> bool:
        """Whether a part whose rows, from ``top`` on, were read at once has no data anywhere."""
        with self._lock:
            seen = self._seen.get(top)
        return seen is not None and len(seen) >= bottom - top and not seen[: bottom - top, left:right].any()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def rasterio_module() -> Any:
    """The package.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.shutil
    except ImportError as error:
        raise MissingPackageError("rasterio", "predicting rasters", "geo") from error
    return rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """What rasterio raises where GDAL fails; some of it comes through as it is."""
    rasterio_module()
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError


def bands_of(file: Any, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of the bands for red, green and blue, from 1.

    Raises:
        DataError: bands are asked for that the raster does not have.
    """
    if numbers:
        wrong = [number for number in numbers if not 1 <= number <= file.count]
        if wrong or len(numbers) not in (1, 3):
            raise DataError(
                f"There are no such bands {','.join(map(str, numbers))} in a raster of {file.count}.",
                "Name three, such as 4,3,2, or one.",
            )
        return numbers * 3 if len(numbers) == 1 else numbers
    meant = [band.name for band in file.colorinterp]
    if all(name in meant for name in ("red", "green", "blue")):
        return tuple(meant.index(name) + 1 for name in ("red", "green", "blue"))
    colours = [number for number, name in enumerate(meant, 1) if name != "alpha"] or [1]
    return (colours[0], colours[1], colours[2]) if len(colours) > 2 else (colours[0],) * 3


def _palette(file: Any, bands: tuple[int, ...]) -> NDArray[np.uint8] | None:
    kind = file.dtypes[bands[0] - 1]
    if len(set(bands)) != 1 or file.colorinterp[bands[0] - 1].name != "palette" or kind not in ("uint8", "uint16"):
        return None
    table = np.zeros((np.iinfo(kind).max + 1, 3), np.uint8)
    for index, colour in file.colormap(bands[0]).items():
        table[index] = colour[:3]
    return table


def _most(file: Any, band: int) -> int:
    """What is white in 8 bits or fewer."""
    bits = int(file.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    return 2 ** min(bits, 8) - 1


def _has_mask(file: Any, bands: tuple[int, ...]) -> bool:
    return any("all_valid" not in {flag.name for flag in file.mask_flag_enums[band - 1]} for band in bands)


def _lone_alpha(file: Any) -> int | None:
    """The alpha band where GDAL makes no mask of it: it does so of the last of two or four bands."""
    meant = [band.name for band in file.colorinterp]
    if "alpha" not in meant or any("alpha" in {flag.name for flag in flags} for flags in file.mask_flag_enums):
        return None
    return meant.index("alpha") + 1


def _reason(error: Exception) -> str:
    """What GDAL said, the first line of it."""
    said = (str(error.__cause__ or error).strip().splitlines() or [""])[0]
    return f"GDAL says: {said[:200]}" if said else ""
