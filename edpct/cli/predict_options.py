"""Options of ``edpct predict`` that are not for all that it predicts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edpct.predict.raster.read import Bands
    from edpct.predict.video import VideoSettings


def bands_of(bands: str | None, scale: str | None, percentiles: str | None) -> Bands:
    from edpct.errors import RunError
    from edpct.predict.raster.read import Bands

    def pair(text: str, option: str) -> tuple[float, float]:
        try:
            low, high = (float(part) for part in text.split(","))
        except ValueError:
            raise RunError(f"{option} is two numbers, such as 0,3000, and not '{text}'.") from None
        if not low < high:
            raise RunError(f"{option} {text}: the first is to be less than the second.")
        return low, high

    if scale is not None and percentiles is not None:
        raise RunError("--scale and --percentiles say the same thing twice.", "Give one of them.")
    try:
        numbers = tuple(int(part) for part in bands.split(",")) if bands else ()
    except ValueError:
        raise RunError(f"--bands are numbers such as 4,3,2, and not '{bands}'.") from None
    percent = pair(percentiles, "--percentiles") if percentiles else None
    if percent and not 0 <= percent[0] < percent[1] <= 100:
        raise RunError("--percentiles lie between 0 and 100.")
    if scale is None or scale == "auto":
        return Bands(numbers, "auto", percent)
    return Bands(numbers, "none" if scale == "none" else pair(scale, "--scale"))


def only_of_rasters(probabilities: bool, polygons: Path | None) -> None:
    from edpct.errors import RunError

    if probabilities or polygons is not None:
        raise RunError(
            "--probabilities and --polygons are for rasters.", "An image becomes one with: gdal_translate IN OUT.tif"
        )


def only_of_video(settings: VideoSettings) -> None:
    """Refuse what says how frames are taken, where the input is an image, a folder or a raster."""
    from edpct.errors import RunError
    from edpct.predict.video import VideoSettings

    usual, given = VideoSettings(), []
    for name in ("fit", "show", "hud", "realtime", "seconds", "frames", "rate", "codec"):
        if getattr(settings, name) != getattr(usual, name):
            given.append("--no-hud" if name == "hud" else f"--{name}")
    if given:
        raise RunError(f"{' and '.join(given)} {'are' if len(given) > 1 else 'is'} for video and cameras.")


def only_of_many_bits(bands: Bands, images: Iterable[Path]) -> None:
    """Refuse ``--bands``, ``--scale`` and ``--percentiles`` where none of the images has a use for them."""
    from edpct.errors import RunError
    from edpct.predict.pictures import may_have_many_bits
    from edpct.predict.raster.read import Bands

    if bands != Bands() and not any(may_have_many_bits(path) for path in images):
        raise RunError(
            "--bands, --scale and --percentiles are for rasters, and for grey images of more than 8 bits.",
            "An image becomes a raster with: gdal_translate IN OUT.tif",
        )
