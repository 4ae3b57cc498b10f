"""Files that are cut short, have other bytes than they should, or claim what they are not."""

from __future__ import annotations

import random
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
from odd_cases import Case, Cases, Meant
from odd_images import calm
from PIL import Image
from rasters import planes, rgb, write_raster

TIFFS: dict[str, dict[str, Any]] = {
    "striped": {},
    "deflate": {"compress": "deflate", "predictor": 2},
    "tiled": {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "lzw"},
    "bigtiff": {"BIGTIFF": "YES", "compress": "zstd"},
    "planar": {"interleave": "band"},
    "jpeg": {"compress": "jpeg", "photometric": "YCBCR", "tiled": True, "blockxsize": 16, "blockysize": 16},
}
PICTURES: dict[str, dict[str, Any]] = {
    "png": {}, "jpg": {"quality": 90}, "bmp": {}, "webp": {"lossless": True},
}  # fmt: skip
LOSSLESS = {*TIFFS, *PICTURES} - {"jpeg", "jpg"}
CUTS = (1, 4, 7, 8, 9, 20, 60, 140, 250, 400, 0.3, 0.5, 0.7, 0.9, -100, -8, -2, -1)


def damage_cases() -> Cases:
    for layout in TIFFS:
        for cut in CUTS:
            yield Case("truncated-tiff", f"{layout}-{cut}", partial(_cut, layout, cut))
        for seed in range(14):
            yield Case("flipped-tiff", f"{layout}-{seed}", partial(_flipped, layout, seed))
    for suffix in PICTURES:
        for cut in CUTS:
            yield Case("truncated-image", f"{suffix}{cut}", partial(_cut, suffix, cut))
        for seed in range(20, 34):
            yield Case("flipped-image", f"{suffix}-{seed}", partial(_flipped, suffix, seed))
    for name, size in SIZES.items():
        yield Case("png-bomb", name, partial(_png_claim, size))
    yield Case("png-bomb", "text", _text_bomb)
    for name, (old, new) in TAGS.items():
        yield Case("tiff-claim", name, partial(_tiff_claim, old, new))
    for name, (width, height, profile) in SPARSE.items():
        yield Case("tiff-claim", name, partial(_sparse, width, height, profile))


def _written(folder: Path, kind: str) -> Path:
    image = rgb(90, 80, 1) if kind in LOSSLESS else calm(90, 80, 1)
    if kind in TIFFS:
        return write_raster(folder / "a.tif", planes(image), **TIFFS[kind])
    path = folder / f"a.{kind}"
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 1, "scene"
    more = {} if kind == "bmp" else {"exif": exif}
    Image.fromarray(image).save(path, **PICTURES[kind], **more)
    return path


def _cut(kind: str, cut: float, folder: Path) -> Meant:
    """What is left may still be all that matters: the last bytes of some files are padding."""
    path = _written(folder, kind)
    content = path.read_bytes()
    kept = int(len(content) * cut) if isinstance(cut, float) else cut
    assert kept < len(content)
    path.write_bytes(content[:kept])
    return Meant(path, either=cut in (-1, -2, -8, -100))


def _flipped(kind: str, seed: int, folder: Path) -> Meant:
    """A few bytes are others; half of the damage goes to the beginning, or in a TIFF to its tags."""
    path, rng = _written(folder, kind), random.Random(seed)
    content = bytearray(path.read_bytes())
    tags = struct.unpack("<I", content[4:8])[0] if kind in TIFFS and kind != "bigtiff" else 0
    for _ in range(rng.choice((1, 1, 2, 8))):
        near = min(len(content) - 1, tags + rng.randrange(300))
        content[near if rng.random() < 0.6 else rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
    path.write_bytes(content)
    return Meant(path, either=True)


# ---- claims

SIZES = {
    "50000": (50_000, 50_000), "2-31": (2**31 - 1, 2**31 - 1), "wide": (2**31 - 1, 1), "high": (1, 2**31 - 1),
    "over": (2**32 - 1, 5), "zero": (0, 0), "no-width": (0, 10), "no-height": (10, 0), "9000": (9000, 9000),
    "tiny": (100, 100),
}  # fmt: skip


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(chunks) + _chunk(b"IEND", b"")


def _png_claim(size: tuple[int, int], folder: Path) -> Meant:
    path = folder / "a.png"
    path.write_bytes(_png(*size, _chunk(b"IDAT", zlib.compress(bytes(3000)))))
    return Meant(path)


def _text_bomb(folder: Path) -> Meant:
    path = folder / "a.png"
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    rows = zlib.compress(b"".join(b"\0" + bytes(30) for _ in range(10)))
    path.write_bytes(_png(10, 10, _chunk(b"zTXt", text), _chunk(b"IDAT", rows)))
    return Meant(path)


# Of a classic little-endian TIFF of 80 x 90 pixels: an entry, and what it is made.
TAGS = {
    "no-width": ((256, 3, 80), (256, 3, 0)),
    "no-height": ((257, 3, 90), (257, 3, 0)),
    "width-2-31": ((256, 3, 80), (256, 4, 2**31 - 1)),
    "height-2-31": ((257, 3, 90), (257, 4, 2**31 - 1)),
    "width-2-32": ((256, 3, 80), (256, 4, 2**32 - 1)),
    "height-million": ((257, 3, 90), (257, 4, 1_000_000)),
    "no-such-compression": ((259, 3, 1), (259, 3, 777)),
    "no-such-photometric": ((262, 3, 2), (262, 3, 999)),
    "no-samples": ((277, 3, 3), (277, 3, 0)),
    "65535-samples": ((277, 3, 3), (277, 3, 65535)),
    "no-rows-a-strip": ((278, 3, 34), (278, 3, 0)),
}


def _tiff_claim(old: tuple[int, int, int], new: tuple[int, int, int], folder: Path) -> Meant:
    path = write_raster(folder / "a.tif", planes(rgb(90, 80)))
    content = path.read_bytes()

    def entry(tag: int, kind: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, 1, value)

    assert content.count(entry(*old)) == 1
    path.write_bytes(content.replace(entry(*old), entry(*new)))
    return Meant(path, either=old[0] == 262)


SPARSE: dict[str, tuple[int, int, dict[str, Any]]] = {
    "sparse-million-square": (1_000_000, 1_000_000, {"tiled": True, "dtype": "uint8"}),
    "sparse-million-16-bit": (1_000_000, 1_000_000, {"tiled": True, "dtype": "uint16"}),
    "sparse-billion-wide": (2**31 - 1, 1, {"dtype": "uint8"}),
    "sparse-billion-wide-64": (2**31 - 1, 64, {"tiled": True, "dtype": "uint8"}),
    "sparse-billion-high": (10_000, 2**31 - 1, {"blockysize": 100_000, "dtype": "uint8"}),
}


def _sparse(width: int, height: int, profile: dict[str, Any], folder: Path) -> Meant:
    """A file of a few bytes, or megabytes of tags, whose pixels would fill any disk or memory."""
    path = folder / "a.tif"
    options: dict[str, Any] = {"blockxsize": 16384, "blockysize": 16384} if profile.get("tiled") else {}
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, SPARSE_OK="TRUE", BIGTIFF="YES",
        **options | profile,
    ):  # fmt: skip
        pass
    return Meant(path)
