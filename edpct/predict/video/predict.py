"""Prediction on a video or a camera, from its source to its file."""

from __future__ import annotations

from pathlib import Path

from edpct.errors import RecipeError
from edpct.predict.engine import Engine
from edpct.predict.video.flight import Flight, Flown
from edpct.predict.video.settings import VideoSettings
from edpct.predict.video.sources import Source, open_source
from edpct.predict.video.window import Window
from edpct.predict.video.writer import VideoFile, check_target
from edpct.progress import Progress


def predict_video(engine: Engine, source: str, out: Path | None, settings: VideoSettings, progress: Progress) -> Flown:
    """Predict every frame of a video file, or the newest frames of a live source as fast as the engine can.

    Ctrl-C (KeyboardInterrupt) ends it in good order: the file is finished, and the answer says how many frames it has.
    To be called from the main thread where ``settings.show`` is set.

    Args:
        engine: opened; stays open. Frames in flight at once: its ``streams``.
        source: path of a video file; ``camera:0`` or ``/dev/video0``; an address (``rtsp://…``, ``http://…``); or a
            GStreamer pipeline that ends in ``appsink``, recognised by its " ! ".
        out: the video file to write: .mp4, .mov, .mkv, .avi; None: only shown. At the source's frame rate.

    Raises:
        RecipeError: settings that contradict each other.
        DataError: the source cannot be opened or read to its end; frames before the damage are in the file.
        EngineError: the engine failed.
        RunError: the file cannot be written, or no window can be shown.
        MissingPackageError: OpenCV is not installed.
    """
    if out is None and not settings.show:
        raise RecipeError("There is nowhere to put the pictures.", "Give --out FILE, --show or both.")
    if out is not None:
        check_target(out, settings)
        if Path(source).exists() and out.exists() and out.samefile(source):
            raise RecipeError(f"{out} is the video that is read.", "Choose another --out.")
    return fly(engine, open_source(source, settings.realtime), out, settings, progress)


def fly(engine: Engine, source: Source, out: Path | None, settings: VideoSettings, progress: Progress) -> Flown:
    """The same for a source that is open; it is closed at the end."""
    window, file = None, None
    try:
        window = Window(source.name) if settings.show else None
        rate = (settings.rate if source.live else 0) or source.rate
        file = VideoFile(out, settings, rate, clocked=source.live) if out is not None else None
        flight = Flight(engine, source, file, settings)
    except BaseException:
        source.close()
        if file is not None:
            file.finish()
        raise
    try:
        return flight.run(progress, window)
    finally:
        if window is not None:
            window.close()
