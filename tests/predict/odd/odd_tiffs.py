"""Sound GeoTIFFs of every make: sizes, bands, types, layouts, compressions; what they show is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odd_cases import Case, Cases, Meant, seen
from odd_images import calm, stretched
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasters import planes, rgb, write_raster

SIZES = (
    (1, 1), (1, 2), (2, 1), (1, 31), (31, 1), (1, 33), (33, 1), (31, 31), (32, 32), (33, 33), (31, 33), (33, 31),
    (63, 65), (64, 64), (96, 97), (1, 5000), (5000, 1), (3, 700), (700, 3), (2, 1025), (513, 2), (520, 530),
)  # fmt: skip
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 64}
LAYOUTS: dict[str, dict[str, Any]] = {
    "bigtiff": {"BIGTIFF": "YES"},
    "a-row-a-strip": {"blockysize": 1},
    "7-rows-a-strip": {"blockysize": 7},
    "one-strip": {"blockysize": 1000},
    "tiles-of-16": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "tiles-of-512": {"tiled": True, "blockxsize": 512, "blockysize": 512},
    "tiles-not-square": {"tiled": True, "blockxsize": 16, "blockysize": 256},
    "planar": {"interleave": "band"},
    "planar-tiled": {"interleave": "band", **TILED},
    "planar-bigtiff-deflate": {"interleave": "band", "BIGTIFF": "YES", "compress": "deflate", **TILED},
    "big-endian": {"ENDIANNESS": "BIG"},
    "big-endian-tiled": {"ENDIANNESS": "BIG", **TILED},
    "baseline": {"PROFILE": "BASELINE"},
    "world-file": {"TFW": "YES", "PROFILE": "BASELINE"},
    "ycbcr": {"compress": "jpeg", "photometric": "YCBCR", **TILED},
    "copy-sources": {"COPY_SRC_OVERVIEWS": "YES"},
}
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "deflate": {}, "deflate-2": {"compress": "deflate", "predictor": 2}, "lzw": {},
    "lzw-2": {"compress": "lzw", "predictor": 2}, "zstd": {}, "zstd-2": {"compress": "zstd", "predictor": 2},
    "packbits": {}, "lzma": {}, "lerc": {}, "lerc_deflate": {}, "lerc_zstd": {}, "jpeg": {"JPEG_QUALITY": 90},
    "webp": {"WEBP_LEVEL": 100}, "webp-lossless": {"compress": "webp", "WEBP_LOSSLESS": "YES"},
}  # fmt: skip
TYPES = (
    "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
)  # fmt: skip
COLOURS = "red green blue"
INTERPRETATIONS = {
    "bgr": "blue green red", "gbr-nir": "green blue red undefined", "nir-rgb": f"undefined {COLOURS}",
    "alpha-first": f"alpha {COLOURS}", "alpha-middle": "red alpha green blue", "alpha-last": f"{COLOURS} alpha",
    "undefined": "undefined undefined undefined", "undefined-alpha": "undefined undefined undefined alpha",
    "alpha-undefined": "alpha undefined undefined undefined", "gray-undefined": "gray undefined undefined",
    "seven": f"gray undefined {COLOURS} alpha undefined",
}  # fmt: skip


def tiff_cases() -> Cases:
    for height, width in SIZES:
        yield Case("size", f"{height}x{width}", partial(_plain, rgb(height, width, height), {}))
    for name, profile in LAYOUTS.items():
        yield Case("layout", name, partial(_plain, calm(100, 70, 3), profile))
    for name, profile in COMPRESSIONS.items():
        for tiling in ("striped", "tiled"):
            more = {"compress": name, **profile, **(TILED if tiling == "tiled" else {"blockysize": 32})}
            image = np.repeat(calm(128, 1, 4)[::32], 64, axis=0) if name == "webp" else calm(100, 70, 4)
            yield Case("compression", f"{name}-{tiling}", partial(_plain, image.repeat(70 // image.shape[1], 1), more))
    for count in (1, 2, 3, 4, 5, 7, 12):
        for kind in ("uint8", "uint16"):
            yield Case("bands", f"{count}-{kind}", partial(_bands, count, kind))
    for numbers in ("3,2,1", "2", "5,1,4", "1,1,1", "7,7,1", "1,2,1"):
        yield Case("bands", f"chosen-{numbers}", partial(_chosen, numbers))
    for numbers in ("0", "8", "1,2", "-1", "1,2,3,4", "1,2,8"):
        yield Case("bands", f"refused-{numbers}", partial(_chosen, numbers))
    for name, meaning in INTERPRETATIONS.items():
        yield Case("colours", name, partial(_interpreted, meaning.split()))
    for kind in TYPES:
        yield Case("type", f"{kind}-percentiles", partial(_scaled, kind, 1, 0, ()))
        yield Case("type", f"{kind}-none", partial(_plain_values, kind))
        factor, offset = (1, -128) if kind == "int8" else (100, 2000)
        numbers = f"{offset},{255 * factor + offset}"
        yield Case("type", f"{kind}-scaled", partial(_scaled, kind, factor, offset, ("--scale", numbers)))
    for kind, offset in (("uint32", 4 * 10**9), ("int64", -(10**12)), ("float64", 10**12), ("int32", 2 * 10**9)):
        yield Case("type", f"{kind}-far-off", partial(_scaled, kind, 1, offset, ()))
    for kind in ("complex64", "complex128", "complex_int16"):
        yield Case("type", kind, partial(_complex, kind))
    for bits, kind in ((1, "uint8"), (2, "uint8"), (4, "uint8"), (7, "uint8"), (12, "uint16"), (16, "float32")):
        for tiling in ("striped", "tiled"):
            yield Case("bits", f"{bits}-{tiling}", partial(_few_bits, bits, kind, tiling))
    for compress in ("ccittrle", "ccittfax3", "ccittfax4", "packbits"):
        yield Case("bits", f"1-{compress}", partial(_few_bits, 1, "uint8", "striped", compress=compress))
    for kind in ("uint8", "uint16"):
        yield Case("bits", f"white-is-zero-{kind}", partial(_white_is_zero, kind))
        yield Case("palette", kind, partial(_palette, kind, {}))
    yield Case("bits", "white-is-zero-1", partial(_few_bits, 1, "uint8", "striped", photometric="MINISWHITE"))
    for bits in (1, 2, 4):
        yield Case("palette", f"{bits}-bits", partial(_palette, "uint8", {"nbits": bits}))
    yield Case("palette", "nodata", partial(_palette, "uint8", {"nodata": 1}))
    yield Case("colours", "cmyk", _cmyk)
    for driver, suffix in (("ENVI", "img"), ("HFA", "img"), ("PCIDSK", "pix"), ("ERS", "ers"), ("JP2OpenJPEG", "jp2")):
        yield Case("format", driver, partial(_format, driver, suffix))
    for driver in ("PNG", "JPEG", "BMP", "GIF", "VRT"):
        yield Case("format", f"{driver}-as-tif", partial(_format, driver, "tif"))


def _plain(image: NDArray[np.uint8], profile: dict[str, Any], folder: Path) -> Meant:
    return Meant(write_raster(folder / "a.tif", planes(image), **profile), seen(image))


def _grey(band: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(band[..., None], 3, axis=2)


def _bands(count: int, kind: str, folder: Path) -> Meant:
    """One or two bands are grey, of more the first three are looked at."""
    image = stretched(70, 60, count)
    bands = stretched(70, 60 * count, 9).reshape(70, 60, -1).transpose(2, 0, 1)[:count].copy()
    bands[:3] = planes(image)[: min(count, 3)]
    values = bands if kind == "uint8" else bands.astype(kind) * 40 + 300
    shown = image if count > 2 else _grey(image[..., 0])
    return Meant(write_raster(folder / "a.tif", values, photometric="MINISBLACK"), seen(shown))


def _chosen(numbers: str, folder: Path) -> Meant:
    bands = stretched(70, 60 * 7, 2).reshape(70, 60, -1).transpose(2, 0, 1)[:7].copy()
    source, more = write_raster(folder / "a.tif", bands, photometric="MINISBLACK"), ("--bands", numbers)
    chosen = [int(number) for number in numbers.split(",")]
    if len(chosen) not in (1, 3) or not all(1 <= number <= 7 for number in chosen):
        return Meant(source, said="There are no such bands", more=more)
    image = bands[[number - 1 for number in (chosen * 3)[:3]]].transpose(1, 2, 0)
    return Meant(source, seen(image), more=more)


def _interpreted(meaning: list[str], folder: Path) -> Meant:
    image, nothing = rgb(60, 70, 5), np.zeros((60, 70), bool)
    alpha = np.full((60, 70), 255, np.uint8)
    if "alpha" in meaning:
        nothing[20:50, :33] = True
        alpha[nothing] = 0
    spare = iter(planes(image) if "red" not in meaning else ())
    named = dict(zip(COLOURS.split(), planes(image), strict=True), alpha=alpha)
    other = rgb(60, 70, 6)[..., 0]
    bands = [named[name] if name in named else next(spare, other) for name in meaning]
    source = write_raster(folder / "a.tif", np.stack(bands), photometric="MINISBLACK")
    with rasterio.open(source, "r+") as file:
        file.colorinterp = [ColorInterp[name] for name in meaning]
    return Meant(source, seen(image, nothing))


def _scaled(kind: str, factor: int, offset: int, more: tuple[str, ...], folder: Path) -> Meant:
    image = stretched(64, 70, 7)
    if kind == "int8" and not offset:
        offset = -128
    values = (planes(image).astype(object) * factor + offset).astype(np.dtype(kind))
    return Meant(write_raster(folder / "a.tif", values), seen(image), more=more)


def _plain_values(kind: str, folder: Path) -> Meant:
    """--scale none: what lies in 0..255 stays, the rest is cut."""
    image = stretched(64, 70, 8)
    most = 127 if kind == "int8" else 255
    values = np.minimum(planes(image), most).astype(kind)
    if kind != "int8":
        values[values == 255] = np.dtype(kind).type(30000)
    return Meant(write_raster(folder / "a.tif", values), seen(np.minimum(image, most)), more=("--scale", "none"))


def _complex(kind: str, folder: Path) -> Meant:
    path = folder / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, width=40, height=40, dtype=kind, crs="EPSG:32640") as file:
        file.write(np.ones((3, 40, 40), np.complex64 if kind == "complex_int16" else kind))
    return Meant(path, said="holds complex values")


def _few_bits(bits: int, kind: str, tiling: str, folder: Path, **profile: Any) -> Meant:
    """Black is 0 and white is what so many bits can hold; 12 and 16 of them go by percentiles."""
    grey = stretched(64, 70, 11)[..., 0]
    most = 2**bits - 1
    values = (grey // (256 >> bits) if bits < 8 else grey * np.uint16(16)).astype(kind)
    shown = np.rint(values / most * 255).astype(np.uint8) if bits < 8 else grey
    if profile.get("photometric") == "MINISWHITE":
        shown = 255 - shown
    profile |= {"nbits": bits, **(TILED if tiling == "tiled" else {})}
    return Meant(write_raster(folder / "a.tif", values[None], **profile), seen(_grey(shown)))


def _white_is_zero(kind: str, folder: Path) -> Meant:
    grey = stretched(64, 70, 12)[..., 0]
    values = (255 - grey).astype(kind) * (1 if kind == "uint8" else 100)
    return Meant(write_raster(folder / "a.tif", values[None], photometric="MINISWHITE"), seen(_grey(grey)))


def _palette(kind: str, profile: dict[str, Any], folder: Path) -> Meant:
    bits = profile.get("nbits", 8 if kind == "uint8" else 16)
    rng = np.random.default_rng(13)
    table = rng.integers(0, 256, (2**bits, 3), np.uint8)
    index = rng.integers(0, 2**bits, (60, 50)).astype(kind)
    source = write_raster(folder / "a.tif", index[None], photometric="palette", **profile)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {number: (*map(int, colour), 255) for number, colour in enumerate(table)})
    return Meant(source, seen(table[index], index == profile.get("nodata", -1)))


def _cmyk(folder: Path) -> Meant:
    """GDAL turns it into red, green and blue."""
    image = rgb(64, 64, 14)
    bands = np.concatenate((255 - planes(image), np.zeros((1, 64, 64), np.uint8)))
    return Meant(write_raster(folder / "a.tif", bands, photometric="CMYK"), seen(image))


def _format(driver: str, suffix: str, folder: Path) -> Meant:
    """What GDAL opens will do, whatever it is called."""
    image = calm(64, 80, 15)
    plain = write_raster(folder / "plain.tif", planes(image))
    more = {"QUALITY": 100, "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    if driver == "GIF":  # of one band, which is grey
        write_raster(plain, planes(image)[:1])
        image = _grey(image[..., 0])
    path = folder / f"a.{suffix}"
    copy(plain, path, driver=driver, **more)
    return Meant(path, seen(image))
