"""Images that fit into memory, one or a folder of them: decoded, predicted and encoded side by side."""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edpct import __version__
from edpct.data.samples import MAX_PIXELS
from edpct.errors import DataError, EdpctError, RunError
from edpct.predict.draw import View, overlay, side_by_side
from edpct.predict.engine import Engine
from edpct.predict.kept import Kept
from edpct.predict.mosaic import OVERLAP, mosaic
from edpct.predict.part import part_of
from edpct.predict.raster.read import Bands, Raster
from edpct.predict.stitch import Grid
from edpct.progress import Progress
from edpct.runtimes.artefact import sha256_of
from edpct.task import Task

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# What an image is, its bytes say. Others that Pillow knows are left out: of PostScript, it would start a program.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
MANY_BITS = ("I", "F")  # as the modes of images begin whose values a raster's reader scales
QUALITY = 92  # of JPEG
IN_WINDOWS = "As a GeoTIFF it is read in windows: gdal_translate -co TILED=YES IN OUT.tif"


@dataclass(frozen=True)
class PictureSettings:
    """How images are predicted.

    Attributes:
        view: what is written: "classes", a PNG of class indices whose palette are the classes' colours; "mask", the
            same as RGB; "overlay", over the image; "side-by-side", beside it.
        opacity: of the overlay, 0..1.
        overlap: pixels that windows share.
        bands: for images of more than 8 bits a channel.
    """

    view: View = "classes"
    opacity: float = 0.5
    overlap: int = OVERLAP
    bands: Bands = field(default_factory=Bands)


@dataclass
class Seen:
    """What came out of a folder.

    Attributes:
        pixels: of each class, (C,), over all images, those that were there included.
        written: files, in the order of their images.
        kept: how many were there already.
        failed: image and what is wrong with it.
    """

    pixels: NDArray[np.int64]
    written: list[Path] = field(default_factory=list)
    kept: int = 0
    failed: list[tuple[Path, EdpctError]] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """An image as the eye sees it: turned as its EXIF data says.

    Attributes:
        pixels: (H, W, 3), uint8, RGB.
        valid: (H, W), bool, where it is not transparent; None: everywhere.
    """

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None


def read_picture(path: Path, bands: Bands) -> Picture:
    """An image file, decoded.

    Raises:
        DataError: missing, damaged or too large.
        MissingPackageError: it has more than 8 bits a channel, and rasterio is not installed.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path} is no file.", "Name an image.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF data that is skipped; the limit in pixels is said below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path} has {image.width * image.height / 1e6:.0f} megapixels, and images may have "
                        f"{MAX_PIXELS // 1_000_000}.",
                        IN_WINDOWS,
                    )
                if not image.mode.startswith(MANY_BITS):
                    return _picture(image)
    except FileNotFoundError as error:
        raise DataError(f"There is no image {path}.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be read whole.", IN_WINDOWS) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: damaged, cut short, or no image.") from error
    with Raster(path, bands) as raster:
        pixels = raster.read(0, raster.height)
        return Picture(pixels, raster.valid(0, raster.height))


def may_have_many_bits(path: Path) -> bool:
    """Whether an image has bands to choose and to scale; also where it cannot be opened, which reading it will say."""
    if not path.is_file():
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return image.mode.startswith(MANY_BITS)
    except (Image.DecompressionBombError, UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        return True


def _picture(image: Image.Image) -> Picture:
    turned = ImageOps.exif_transpose(image)
    valid = None
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        valid = np.asarray(turned.getchannel("A")) > 0
    return Picture(np.asarray(turned.convert("RGB")), None if valid is None or valid.all() else valid)


def predict_picture(engine: Engine, picture: Picture, settings: PictureSettings) -> NDArray[np.uint8]:
    """The class of every pixel, (H, W), uint8; the task's ignore index where the image is transparent."""
    image = picture.pixels
    grid = Grid.over((image.shape[0], image.shape[1]), engine.size, settings.overlap)
    classes = np.concatenate([rows for rows, _ in mosaic(engine, grid, lambda first, last: image[first:last])])
    if picture.valid is not None:
        classes[~picture.valid] = engine.task.ignore_index
    return classes


def write_picture(
    path: Path, picture: Picture, classes: NDArray[np.uint8], engine: Engine, settings: PictureSettings
) -> None:
    """What the view asks for; the file appears at once, when it is whole.

    Raises:
        RunError: the suffix does not fit the view, or the file cannot be written.
    """
    palette = engine.task.palette
    if settings.view == "classes":
        drawn = Image.fromarray(classes)
        drawn.putpalette(palette.tobytes())
    else:
        colours = palette[classes]
        shown = {
            "mask": lambda: colours,
            "overlay": lambda: overlay(picture.pixels, colours, settings.opacity),
            "side-by-side": lambda: side_by_side(picture.pixels, colours),
        }[settings.view]()
        drawn = Image.fromarray(shown)
    grown = part_of(path)
    try:
        drawn.save(grown, Image.registered_extensions()[path.suffix.lower()], quality=QUALITY)
        grown.replace(path)
    except (OSError, ValueError) as error:  # the latter: larger than its format can be
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise RunError(f"{path} cannot be written: {reason}.", "Choose another --out.") from error
    finally:
        with suppress(OSError):
            grown.unlink()


def check_picture_file(path: Path, view: View) -> None:
    """Whether a view can be written to such a file.

    Raises:
        RunError: a suffix that is no image's, or one that would change the class indices.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RunError(f"An image is written as {', '.join(SUFFIXES)}, and {path.name} is none of these.")
    if view == "classes" and path.suffix.lower() != ".png":
        raise RunError(f"{path.suffix} would not keep the class indices as they are.", "Write a .png, or use --view.")


def predict_folder(
    engine: Engine, images: Sequence[tuple[Path, Path]], out: Path, settings: PictureSettings, progress: Progress
) -> Seen:
    """All images of a folder. What is there from the same engine and settings is kept; bad images do not stop the rest.

    What is kept is counted, too; where a kill came between a result and its count, the image is predicted anew.

    Args:
        images: files, and where each result goes.
        out: the folder of all results; made if it is not there.

    Raises:
        RunError: the folder cannot be written, or has results of something else.
    """
    seen = Seen(np.zeros(engine.task.num_classes, np.int64))
    kept = Kept(out, _facts(engine, settings), engine.task.num_classes)
    missing = _missing(engine, images, kept, settings, seen)
    kept.write()
    if seen.kept:
        progress.say(f"{seen.kept} are there already and are kept")
    try:
        _predict_all(engine, missing, kept, settings, seen, progress)
    finally:
        kept.write()
    return seen


def _missing(
    engine: Engine, images: Sequence[tuple[Path, Path]], kept: Kept, settings: PictureSettings, seen: Seen
) -> list[tuple[Path, Path]]:
    """Those images whose results are not there, or hold nobody knows how much of what; the others are counted."""
    missing = []
    for source, target in images:
        pixels = None
        if target.exists():
            pixels = _counted(target, engine.task) if settings.view == "classes" else kept.pixels(target)
            if pixels is None and not kept.begun:
                raise RunError(f"{target} is there already, and is no result of this.", "Choose another --out.")
        if pixels is None:
            missing.append((source, target))
        else:
            seen.pixels += pixels
            seen.kept += 1
    return missing


def _predict_all(
    engine: Engine, missing: Sequence[tuple[Path, Path]], kept: Kept, settings: PictureSettings, seen: Seen,
    progress: Progress,
) -> None:  # fmt: skip
    with progress.task("Predicting", seen.kept + len(missing), seen.kept) as update, ThreadPoolExecutor(1) as writer:
        writing = deque[tuple[Path, NDArray[np.int64], Future[None]]]()

        def settle() -> None:
            target, pixels, written = writing.popleft()
            written.result()
            seen.written.append(target)
            seen.pixels += pixels
            if settings.view != "classes":  # which can be counted again
                kept.add(target, pixels)

        for done, (source, target, decoded) in enumerate(_ahead(missing, settings.bands), seen.kept + 1):
            try:
                picture = decoded.result()
            except EdpctError as error:
                seen.failed.append((source, error))
                update(done, source.name)
                continue
            classes = predict_picture(engine, picture, settings)
            pixels = counts(classes, engine.task.num_classes)
            target.parent.mkdir(parents=True, exist_ok=True)
            written = writer.submit(write_picture, target, picture, classes, engine, settings)
            writing.append((target, pixels, written))
            if len(writing) > 1:
                settle()
            update(done, source.name)
        while writing:
            settle()


def _ahead(pairs: Sequence[tuple[Path, Path]], bands: Bands) -> Iterator[tuple[Path, Path, Future[Picture]]]:
    """Images decoded in a thread of its own, one ahead of that which is being predicted."""
    with ThreadPoolExecutor(1, thread_name_prefix="edpct-read") as reader:
        ahead = [reader.submit(read_picture, source, bands) for source, _ in pairs[:1]]
        for index, (source, target) in enumerate(pairs):
            decoded = ahead.pop()
            if index + 1 < len(pairs):
                ahead.append(reader.submit(read_picture, pairs[index + 1][0], bands))
            yield source, target, decoded


def counts(classes: NDArray[np.uint8], number: int) -> NDArray[np.int64]:
    """Pixels of each class, (C,)."""
    return np.array([np.count_nonzero(classes == label) for label in range(number)], np.int64)


def _counted(path: Path, task: Task) -> NDArray[np.int64] | None:
    """Pixels of each class in a PNG of class indices, (C,); None where it is damaged, or something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is that of an image that was read before
            with Image.open(path, formats=("PNG",)) as image:
                palette = task.palette.tobytes()
                if image.mode != "P" or bytes(image.getpalette() or ())[: len(palette)] != palette:
                    return None
                return counts(np.asarray(image), task.num_classes)
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError):
        return None


def _facts(engine: Engine, settings: PictureSettings) -> dict[str, Any]:
    """What the results in a folder are of."""
    return {
        "edpct": __version__,
        "engine": sha256_of(engine.path),
        **json.loads(json.dumps(asdict(settings))),  # as they come back from a file
    }
