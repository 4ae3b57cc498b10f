"""``edpct predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from edpct.cli import options as o

if TYPE_CHECKING:
    from edpct.predict.engine import Engine
    from edpct.predict.pictures import PictureSettings
    from edpct.predict.raster.job import Mapped, RasterSettings
    from edpct.progress import Progress

RASTER = "Rasters"
LOOK = "Images and video"


def predict_command(
    engine: o.Engine,
    source: str = typer.Option(
        ...,
        "--input",
        help="An image, a folder of images, a raster (GeoTIFF …), a video file, camera:0, an address (rtsp://…), or a "
        "GStreamer pipeline.",
    ),
    out: Path = typer.Option(None, "--out", help="File, or folder, to write."),
    runtime: str = typer.Option("", "--runtime", is_eager=True, help="The first that opens the engine if not given."),
    device: str = typer.Option("", "--device", help="cpu, cuda …, where the runtime has several."),
    threads: int = typer.Option(0, "--threads", help="CPU threads; 0: all cores."),
    streams: int = typer.Option(2, "--streams", help="Windows in flight at once, where the runtime can."),
    overlap: int = typer.Option(32, "--overlap", help="Pixels that neighbouring windows share."),
    view: str = typer.Option(
        None,
        "--view",
        help="classes (indices; images: a PNG with a palette), mask, overlay or side-by-side.  [default: classes of "
        "images, overlay of video]",
    ),
    opacity: float = typer.Option(0.5, "--opacity", help="Of the overlay, 0..1."),
    bands: str = typer.Option(
        None, "--bands", help="Bands for red, green and blue, such as 4,3,2, or one; what the raster says if not given."
    ),
    scale: str = typer.Option(
        None, "--scale", help="Values that become 0 and 255, such as 0,3000, or none; 8-bit values stay as they are."
    ),
    percentiles: str = typer.Option(
        None, "--percentiles", help="The same by percentiles of the raster.  [default: 2,98 if not 8 bits]"
    ),
    probabilities: bool = typer.Option(False, "--probabilities", help="Also OUT-probabilities.tif, a band a class."),
    polygons: Path = typer.Option(None, "--polygons", help="Also the areas as polygons, .geojson or .gpkg."),
    smallest: int = typer.Option(16, "--smallest", help="Pixels; smaller polygons go to their neighbours."),
    simplify: float = typer.Option(1.0, "--simplify", help="Pixels that a polygon's outline may move; 0: none."),
    json_file: Path = typer.Option(None, "--json", help="Write pixels and area per class to this file."),
    fit: str = typer.Option(
        "auto",
        "--fit",
        help="Of video: windows (all detail) or resize (one inference a frame); auto: resize where it is live.",
    ),
    show: bool = typer.Option(False, "--show", help="Show the video in a window; q or Esc stops."),
    hud: bool = typer.Option(True, "--hud/--no-hud", help="FPS, latency and classes on the video."),
    realtime: bool = typer.Option(False, "--realtime", help="Take a video file as if it were a camera."),
    seconds: float = typer.Option(0.0, "--seconds", help="Of the video; 0: all, or until it is stopped."),
    frames: int = typer.Option(0, "--frames", help="Of the video; 0: all, or until it is stopped."),
    rate: float = typer.Option(0.0, "--rate", help="Frames a second written of a live source; 0: as it says."),
    codec: str = typer.Option("", "--codec", help="Four characters, such as avc1.  [default: mp4v, MJPG or FFV1]"),
) -> None:
    """Classify every pixel of an image, a folder of images, a GeoTIFF of any size, a video or a camera.

    A folder or a raster that is stopped goes on where it was when the same command is run again.
    """
    from edpct.cli.predict_folder import run_folder
    from edpct.cli.predict_options import bands_of, only_of_many_bits, only_of_rasters, only_of_video
    from edpct.cli.predict_video import run_video
    from edpct.cli.screen import screen
    from edpct.errors import DataError, RunError
    from edpct.predict.draw import VIEWS
    from edpct.predict.engine import Engine
    from edpct.predict.pictures import PictureSettings
    from edpct.predict.raster.job import RasterSettings
    from edpct.predict.raster.polygons import Outlines, check_polygon_file
    from edpct.predict.video import VideoSettings, is_video
    from edpct.runtimes.session import Options

    if view is not None and view not in VIEWS:
        raise RunError(f"There is no view '{view}'.", f"Choose from: {', '.join(VIEWS)}.")
    if overlap < 0 or streams < 1 or not 0 <= opacity <= 1 or smallest < 0 or simplify < 0:
        raise RunError("--overlap, --smallest and --simplify begin at 0, --streams at 1, --opacity lies in 0..1.")
    chosen = bands_of(bands, scale, percentiles)
    shown = next((name for name in VIEWS if name == view), None)
    options = Options(threads=threads, streams=streams)
    video = VideoSettings(
        view=shown or "overlay", fit=cast(Any, fit), overlap=overlap, opacity=opacity, hud=hud, show=show,
        realtime=realtime, seconds=seconds, frames=frames, rate=rate, codec=codec,
    )  # fmt: skip
    if is_video(source):
        only_of_rasters(probabilities, polygons)
        only_of_many_bits(chosen, ())
        if json_file is not None:
            raise RunError("--json is for images and rasters.")
        with Engine(engine, runtime=runtime, device=device, options=options) as opened:
            run_video(opened, source, out, video)
        return
    given = Path(source)
    if not given.exists():
        raise DataError(f"There is no {source}.", "Check --input.")
    only_of_video(video)
    if out is None:
        raise RunError("There is nowhere to put the result.", "Give --out FILE, or --out FOLDER for a folder.")
    if polygons is not None:
        check_polygon_file(polygons)
    for option, beside in (("--json", json_file), ("--polygons", polygons)):
        if beside is not None:
            _check_output(beside, given, option)
    maps = RasterSettings(chosen, overlap, probabilities, polygons, Outlines(smallest, simplify))
    pictures = PictureSettings(shown or "classes", opacity, overlap, chosen)
    with Engine(engine, runtime=runtime, device=device, options=options) as opened:
        if given.is_dir():
            run_folder(opened, given, out, pictures, maps, json_file, screen())
        elif _is_picture(given):
            only_of_rasters(probabilities, polygons)
            only_of_many_bits(chosen, [given])
            _picture(opened, given, out, pictures, json_file)
        elif shown not in (None, "classes"):
            raise RunError(f"--view {shown} is for images and video; of a raster comes a map of classes.")
        else:
            _raster(opened, given, out, maps, json_file, screen())


def _is_picture(path: Path) -> bool:
    from edpct.predict.pictures import SUFFIXES

    return path.suffix.lower() in SUFFIXES


def _picture(engine: Engine, source: Path, out: Path, settings: PictureSettings, json_file: Path | None) -> None:
    from edpct.cli.predict_report import report
    from edpct.predict.pictures import check_picture_file, counts, predict_picture, read_picture, write_picture

    target = out / f"{source.stem}.png" if out.is_dir() else out
    _check_output(target, source)
    check_picture_file(target, settings.view)
    picture = read_picture(source, settings.bands)
    classes = predict_picture(engine, picture, settings)
    write_picture(target, picture, classes, engine, settings)
    report(engine.task, counts(classes, engine.task.num_classes), None, "", json_file)
    typer.echo(f"Wrote {target}.")


def _raster(
    engine: Engine, source: Path, out: Path, settings: RasterSettings, json_file: Path | None, progress: Progress
) -> None:
    from edpct.cli.predict_report import report
    from edpct.errors import RunError
    from edpct.predict.raster.job import predict_raster, probabilities_file

    target = out / f"{source.stem}.tif" if out.is_dir() else out
    _check_output(target, source)
    if settings.probabilities:
        _check_output(probabilities_file(target), source, probabilities_file(target).name)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise RunError(f"The map of a raster is written as .tif, and {target.name} is none.", "Give --out NAME.tif.")
    found = predict_raster(engine, source, target, settings, progress)
    report(engine.task, found.pixels, found.square_metres, found.measured_on, json_file)
    for line in _closing(found):
        typer.echo(line)


def _closing(found: Mapped) -> list[str]:
    pixels = (found.height - found.resumed_at) * found.width
    took = f"{found.seconds[0]:.1f} s ({pixels / max(found.seconds[0], 1e-3) / 1e6:.1f} megapixels a second)"
    lines = [] if found.kept else [f"Predicted in {took}, written in {found.seconds[1]:.1f} s."]
    if found.polygons is not None:
        lines.append(f"{found.polygons} polygons.")
    if found.kept:
        lines.append(f"{found.files[0]} was there; to make it anew, remove it.")
    return [*lines, *(f"Wrote {path}." for path in found.written)]


def _check_output(target: Path, source: Path, option: str = "--out") -> None:
    from edpct.errors import RunError

    if not target.parent.is_dir():
        raise RunError(f"There is no folder {target.parent} for {target.name}.", "Make it first.")
    if target.is_dir():
        raise RunError(f"{target} is a folder.", "Name a file in it.")
    if target.exists() and target.samefile(source):
        raise RunError(f"{option} is the file of --input.", "Choose another.")
