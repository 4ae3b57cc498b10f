"""Rasters that lie oddly, or nowhere, and rasters with holes: nodata, masks, NaN."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odd_cases import Case, Cases, Meant, seen
from odd_images import islands, stretched, without
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasters import HERE, UTM, planes, rgb, write_raster

LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
SYSTEMS: dict[str, str | None] = {
    "none": None, "degrees": "EPSG:4326", "web": "EPSG:3857", "utm": UTM, "feet": "EPSG:2263", "local": LOCAL,
    "compound": "EPSG:32640+5773", "earth-centred": "EPSG:4978", "polar": "EPSG:3031", "height": "EPSG:5773",
    "albers": "ESRI:102003",
}  # fmt: skip
TRANSFORMS = {
    "rotated": HERE @ Affine.rotation(30),
    "half-turn": HERE @ Affine.rotation(180),
    "quarter-turn": HERE @ Affine.rotation(90),
    "flipped": Affine(0.3, 0, 325000.1, 0, 0.3, 2780000.2),
    "mirrored": Affine(-0.3, 0, 325000.1, 0, -0.3, 2780000.2),
    "sheared": HERE @ Affine.shear(20, 0),
    "long-pixels": Affine(3, 0, 325000.1, 0, -0.01, 2780000.2),
    "tiny-pixels": Affine(1e-12, 0, 10, 0, -1e-12, 10),
    "huge-pixels": Affine(1e9, 0, 0, 0, -1e9, 0),
    "far-off": Affine(1, 0, 1e300, 0, -1, -1e300),
    "no-size": Affine(0, 0, 325000.1, 0, 0, 2780000.2),
    "no-numbers": Affine(math.nan, 0, 325000.1, 0, -0.3, math.nan),
    "nan-across": Affine(1, 0, math.nan, 0, -1, 5),
    "infinite": Affine(math.inf, 0, 0, 0, -math.inf, 0),
    "identity": Affine.identity(),
}
NOTHINGS = ("islands", "border", "one-pixel", "all", "none", "all-but-one", "stripes")
FLOATS = {
    "nan": math.nan, "inf": math.inf, "minus-inf": -math.inf,
}  # fmt: skip


def place_cases() -> Cases:
    for name, system in SYSTEMS.items():
        for turned in ("straight", "rotated"):
            transform = HERE if turned == "straight" else TRANSFORMS["rotated"]
            yield Case("crs", f"{name}-{turned}", partial(_placed, system, transform))
    for name, transform in TRANSFORMS.items():
        for system in ("none", "utm", "degrees"):
            yield Case("transform", f"{name}-{system}", partial(_placed, SYSTEMS[system], transform))
    for count in (1, 4, 12):
        for system in ("none", "degrees"):
            yield Case("gcps", f"{count}-{system}", partial(_points, count, SYSTEMS[system]))
    yield Case("rpcs", "alone", _rpcs)
    for shape in NOTHINGS:
        for value in (0, 255, 7):
            yield Case("nodata", f"{shape}-{value}", partial(_nodata, shape, value))
        for how in ("internal-mask", "msk", "alpha", "grey-alpha", "five-and-alpha", "16-bit-alpha"):
            yield Case("mask", f"{shape}-{how}", partial(_masked, shape, how))
        for name, value in FLOATS.items():
            yield Case("float", f"{shape}-{name}", partial(_float, shape, value, None))
        yield Case("float", f"{shape}-nodata", partial(_float, shape, -9999.0, -9999.0))
        yield Case("float", f"{shape}-lowest", partial(_float, shape, float(np.finfo("float32").min), -3.4028235e38))
        yield Case("float", f"{shape}-nan-nodata", partial(_float, shape, math.nan, math.nan))
    for kind in ("uint16", "int16", "float64"):
        yield Case("nodata", f"islands-{kind}", partial(_deep_nodata, kind))
    yield Case("nodata", "out-of-range", _out_of_range)
    for value in (1e38, -1e38, 1e308, 1e-310):
        yield Case("float", f"size-{value}", partial(_large, value))


def shape_of(name: str, height: int, width: int) -> NDArray[np.bool_]:
    """Where there is nothing, (H, W)."""
    nothing = np.zeros((height, width), bool)
    if name == "islands":
        return islands(height, width)
    if name == "border":
        nothing[:5] = nothing[-40:] = nothing[:, :33] = True
    elif name == "stripes":
        nothing[::2] = True
    elif name == "one-pixel":
        nothing[height // 2, 0] = True
    elif name.startswith("all"):
        nothing[:] = True
        nothing[7, 50] = name == "all"
    return nothing


def _placed(system: str | None, transform: Affine, folder: Path) -> Meant:
    image = rgb(70, 66, 21)
    return Meant(write_raster(folder / "a.tif", planes(image), system, transform), seen(image))


def _points(count: int, system: str | None, folder: Path) -> Meant:
    image = rgb(70, 66, 22)
    source = write_raster(folder / "a.tif", planes(image), None, Affine.identity())
    rng = np.random.default_rng(count)
    points = [GroundControlPoint(*map(float, rng.integers(0, 60, 2)), *rng.random(2).tolist()) for _ in range(count)]
    with rasterio.open(source, "r+") as file:
        file.gcps = (points, CRS.from_user_input(system) if system else CRS())
    return Meant(source, seen(image))


def _rpcs(folder: Path) -> Meant:
    image = rgb(70, 66, 23)
    source = write_raster(folder / "a.tif", planes(image), None, Affine.identity())
    coefficients = [1.0, *([0.001] * 19)]
    with rasterio.open(source, "r+") as file:
        file.rpcs = RPC(
            height_off=10, height_scale=100, lat_off=25, lat_scale=0.1, line_den_coeff=coefficients,
            line_num_coeff=coefficients, line_off=35, line_scale=35, long_off=55, long_scale=0.1,
            samp_den_coeff=coefficients, samp_num_coeff=coefficients, samp_off=33, samp_scale=33,
        )  # fmt: skip
    return Meant(source, seen(image))


def _nodata(shape: str, value: int, folder: Path) -> Meant:
    nothing = shape_of(shape, 90, 80)
    image = without(rgb(90, 80, 24), value)
    image[nothing] = value
    return Meant(write_raster(folder / "a.tif", planes(image), nodata=value), seen(image, nothing))


def _deep_nodata(kind: str, folder: Path) -> Meant:
    nothing, image = shape_of("border", 90, 80), stretched(90, 80, 25)
    flat = image[~nothing]
    flat[::9], flat[1::9] = 0, 255
    image[~nothing] = flat
    values = (image.astype(np.int64) * 50 + 100).astype(kind)
    values[nothing] = 65535 if kind == "uint16" else -9999
    source = write_raster(folder / "a.tif", values.transpose(2, 0, 1), nodata=int(values[0, 0, 0]))
    return Meant(source, seen(image, nothing))


def _out_of_range(folder: Path) -> Meant:
    """A value that 8 bits cannot hold, as some tools write: it is nowhere."""
    image = rgb(60, 60, 26)
    source = write_raster(folder / "a.tif", planes(image), nodata=111)
    content = source.read_bytes()
    assert content.count(b"111\0") == 1
    source.write_bytes(content.replace(b"111\0", b"-99\0"))
    return Meant(source, seen(image))


def _masked(shape: str, how: str, folder: Path) -> Meant:
    nothing, image = shape_of(shape, 90, 80), rgb(90, 80, 27)
    mask = np.where(nothing, 0, 255).astype(np.uint8)
    bands: NDArray[Any] = planes(image)
    more: tuple[str, ...] = ()
    path = folder / "a.tif"
    if how in ("internal-mask", "msk"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how != "msk"):
            write_raster(path, bands)
            with rasterio.open(path, "r+") as file:
                file.write_mask(mask)
        assert (folder / "a.tif.msk").exists() == (how == "msk")
        return Meant(path, seen(image, nothing))
    if how == "grey-alpha":
        image = np.repeat(image[..., :1], 3, 2)
        bands = bands[:1]
    elif how == "five-and-alpha":
        bands = np.concatenate((bands, bands[:2]))
    layers = np.concatenate((bands, mask[None])).astype(np.uint16 if how == "16-bit-alpha" else np.uint8)
    if how == "16-bit-alpha":
        layers[-1] *= 257
        more = ("--scale", "0,255")
    photometric = "MINISBLACK" if how == "grey-alpha" else "RGB"
    write_raster(path, layers, photometric=photometric, alpha="yes")
    if how == "five-and-alpha":
        with rasterio.open(path, "r+") as file:
            names = ("red", "green", "blue", "undefined", "undefined", "alpha")
            file.colorinterp = [ColorInterp[name] for name in names]
    return Meant(path, seen(image, nothing), more=more)


def _float(shape: str, value: float, nodata: float | None, folder: Path) -> Meant:
    """What is no number in one band has no data."""
    nothing, image = shape_of(shape, 90, 80), rgb(90, 80, 28)
    values = planes(image).astype(np.float32)
    values[nothing.sum() % 3][nothing] = value
    if nodata is not None:
        values[:, nothing] = value
    return Meant(write_raster(folder / "a.tif", values, nodata=nodata), seen(image, nothing), more=("--scale", "none"))


def _large(value: float, folder: Path) -> Meant:
    """Values whose differences leave the range of their type, or hardly have any."""
    kind = np.float32 if 1e-40 < abs(value) < 1e39 else np.float64
    values = np.zeros((3, 64, 64), kind)
    values[:, ::2], values[:, 1::2] = value, -value
    image = np.where(np.arange(64) % 2 == (value < 0), 255, 0).astype(np.uint8)
    image = np.broadcast_to(image[:, None, None], (64, 64, 3))
    return Meant(write_raster(folder / "a.tif", values), seen(image))
