"""Images of every mode and make, images that are something else, and names that are no image's."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odd_cases import Case, Cases, Meant, seen
from odd_images import calm, stretched
from PIL import Image
from rasters import planes, rgb, write_raster

PNG_MODES = ("1", "L", "LA", "P", "P-transparent", "PA", "RGB", "RGBA", "I;16", "L-transparent", "RGB-transparent")
JPEGS: dict[str, dict[str, Any]] = {
    "plain": {}, "progressive": {"progressive": True}, "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1}, "4-2-0": {"subsampling": 2}, "4-4-4": {"subsampling": 0},
}  # fmt: skip
WEBPS: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True}, "exact": {"lossless": True, "exact": True}, "animated": {"lossless": True},
}  # fmt: skip
DISGUISED = ("gif", "tiff", "jpg", "webp", "bmp", "png")
NO_IMAGES: dict[str, bytes] = {
    "empty": b"",
    "text": b"This is no image.\n" * 40,
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "zeros": bytes(5000),
    "json": b'{"error": "not found"}',
    "pdf": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="9" height="9"/></svg>',
    "zip": b"PK\x05\x06" + bytes(18),
    "png-signature": b"\x89PNG\r\n\x1a\n",
    "jpeg-signature": b"\xff\xd8\xff\xe0",
    "tiff-signature": b"II*\0",
    "tiff-loop": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "vrt-of-nothing": b'<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>',
    "vrt-of-itself": b'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
    b'<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
    b"</VRTRasterBand></VRTDataset>",
}
SUFFIXES = (".png", ".jpg", ".tif")
NO_FILES = ("missing", "folder", "pipe", "broken-link", "link-loop", "in-a-file", "long-name", "socket-like-device")


def picture_cases() -> Cases:
    for mode in PNG_MODES:
        for size in ((40, 50), (33, 31)):
            yield Case("png", f"{mode}-{size[0]}", partial(_png, mode, size))
    yield Case("png", "16-bit-rgb", _deep_rgb)
    yield Case("png", "animated", partial(_animated, "png"))
    yield Case("png", "mpo-jpeg", partial(_animated, "mpo"))
    for name, options in JPEGS.items():
        for mode in ("RGB", "L"):
            yield Case("jpeg", f"{name}-{mode}", partial(_jpeg, mode, options, b""))
    yield Case("jpeg", "cmyk", partial(_jpeg, "CMYK", {}, b""))
    yield Case("jpeg", "trailing-garbage", partial(_jpeg, "RGB", {}, b"garbage" * 999))
    yield Case("jpeg", "two-images", partial(_jpeg, "RGB", {}, b"\xff\xd8\xff\xe0\0\x10JFIF"))
    yield Case("jpeg", "bad-exif", partial(_jpeg, "RGB", {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}, b""))
    yield Case("jpeg", "exif-of-text", partial(_jpeg, "RGB", {"exif": b"Exif\0\0nonsense"}, b""))
    for orientation in range(10):
        yield Case("exif", str(orientation), partial(_turned, orientation))
    for name, options in WEBPS.items():
        yield Case("webp", name, partial(_webp, name, options))
    for mode in ("1", "L", "P", "RGB"):
        yield Case("bmp", mode, partial(_bmp, mode))
    for kind in DISGUISED:
        yield Case("disguised", f"{kind}-as-png", partial(_disguised, kind))
    for name in NO_IMAGES:
        for suffix in SUFFIXES:
            yield Case("no-image", f"{name}{suffix}", partial(_no_image, name, suffix))
    for name in NO_FILES:
        for suffix in SUFFIXES:
            yield Case("no-file", f"{name}{suffix}", partial(_no_file, name, suffix))


def _png(mode: str, size: tuple[int, int], folder: Path) -> Meant:
    path, image = folder / "a.png", stretched(*size, 31)
    grey, nothing = image[..., 0], rgb(*size, 32)[..., 0] < 100
    alpha = np.where(nothing, 0, 200).astype(np.uint8)
    shown, holes = np.repeat(grey[..., None], 3, 2), nothing if "A" in mode else None
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    more: dict[str, Any] = {}
    if mode == "1":
        made = Image.fromarray(grey > 127)
        shown = np.where(shown > 127, 255, 0).astype(np.uint8)
    elif mode == "L":
        made = Image.fromarray(grey)
    elif mode == "LA":
        made = Image.fromarray(np.dstack((grey, alpha)), "LA")
    elif mode.startswith("P"):
        made = Image.fromarray(grey)
        made.putpalette(palette.tobytes())
        shown = palette[grey]
        if mode != "P":
            clear = bytes(0 if index in (0, 255) else 255 for index in range(256))
            more, holes = {"transparency": clear}, np.isin(grey, (0, 255))
    elif mode == "I;16":
        made = Image.fromarray(grey.astype(np.uint16) * 100 + 7)
    elif mode == "L-transparent":
        made, more, holes = Image.fromarray(grey), {"transparency": 255}, grey == 255
    elif mode == "RGB-transparent":
        colour = tuple(map(int, image[3, 3]))
        made, more, holes, shown = Image.fromarray(image), {"transparency": colour}, (image == colour).all(2), image
    else:
        made = Image.fromarray(np.dstack((image, alpha)) if mode == "RGBA" else image)
        shown = image
    made.save(path, **more)
    return Meant(path, seen(shown, holes))


def _deep_rgb(folder: Path) -> Meant:
    """16 bits a channel in colour: the upper 8 are looked at."""
    import rasterio

    image = rgb(40, 50, 33)
    with rasterio.open(folder / "a.png", "w", driver="PNG", width=50, height=40, count=3, dtype="uint16") as file:
        file.write(planes(image).astype(np.uint16) * 256 + 99)
    (folder / "a.png.aux.xml").unlink(missing_ok=True)
    return Meant(folder / "a.png", seen(image))


def _animated(kind: str, folder: Path) -> Meant:
    """The first image counts."""
    path, frames = folder / ("a.png" if kind == "png" else "a.jpg"), [calm(48, 64, seed) for seed in (34, 35)]
    first, second = (Image.fromarray(frame) for frame in frames)
    first.save(path, "PNG" if kind == "png" else "MPO", save_all=True, append_images=[second])
    return Meant(path, seen(frames[0]))


def _jpeg(mode: str, options: dict[str, Any], after: bytes, folder: Path) -> Meant:
    path, image = folder / "a.jpg", calm(64, 80, 36)
    made = Image.fromarray(image)
    if mode == "L":
        image = np.repeat(image[..., :1], 3, 2)
        made = made.getchannel(0)
    elif mode == "CMYK":
        made = Image.merge("CMYK", [*Image.fromarray(255 - image).split(), Image.new("L", made.size)])
    made.save(path, quality=95, **options)
    path.write_bytes(path.read_bytes() + after)
    return Meant(path, seen(image))


def _turned(orientation: int, folder: Path) -> Meant:
    """0 and 9 mean nothing."""
    path, image = folder / "a.jpg", calm(48, 80, 37)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(path, quality=95, exif=exif)
    flat = image.transpose(1, 0, 2)
    shown = {
        2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1], 5: flat, 6: flat[:, ::-1], 7: flat[::-1, ::-1],
        8: flat[::-1],
    }.get(orientation, image)  # fmt: skip
    return Meant(path, seen(shown))


def _webp(name: str, options: dict[str, Any], folder: Path) -> Meant:
    path, image = folder / "a.webp", rgb(50, 60, 38)
    nothing = np.zeros((50, 60), bool)
    made = Image.fromarray(image)
    if name == "exact":
        nothing[:20] = True
        made.putalpha(Image.fromarray(np.where(nothing, 0, 255).astype(np.uint8)))
    if name == "animated":
        options = {**options, "save_all": True, "append_images": [Image.fromarray(rgb(50, 60, 39))]}
    made.save(path, **options)
    return Meant(path, seen(image, nothing))


def _bmp(mode: str, folder: Path) -> Meant:
    made = Image.fromarray(rgb(41, 51, 40)).convert(mode)
    made.save(folder / "a.bmp")
    return Meant(folder / "a.bmp", seen(np.asarray(made.convert("RGB"))))


def _disguised(kind: str, folder: Path) -> Meant:
    """What an image is, its bytes say, not its name."""
    image: NDArray[np.uint8] = calm(48, 64, 41)
    Image.fromarray(image).save(folder / f"b.{kind}", **({"lossless": True} if kind == "webp" else {}))
    return Meant((folder / f"b.{kind}").rename(folder / "a.png"), seen(image))


def _no_image(name: str, suffix: str, folder: Path) -> Meant:
    path = folder / f"a{suffix}"
    path.write_bytes(NO_IMAGES[name])
    return Meant(path, said=str(path))


def _no_file(name: str, suffix: str, folder: Path) -> Meant:
    path = folder / f"a{suffix}"
    if name == "folder":
        path.mkdir()
        return Meant(path, said=f"There is no image in {path}", out="map")
    if name == "pipe":
        os.mkfifo(path)
    elif name == "broken-link":
        path.symlink_to("nowhere.tif")
        return Meant(path, said=f"There is no {path}")
    elif name == "link-loop":
        path.symlink_to(path.name)
    elif name == "in-a-file":
        write_raster(path.with_suffix(".tif"), planes(rgb(9, 9)))
        return Meant(path.with_suffix(".tif") / f"b{suffix}")
    elif name == "long-name":
        return Meant(folder / ("a" * 300 + suffix))
    elif name == "socket-like-device":
        path.symlink_to("/dev/zero")
    return Meant(path, said=str(path))
