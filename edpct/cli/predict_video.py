"""``edpct predict`` on a video or a camera."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from edpct.predict.engine import Engine
    from edpct.predict.video import Flown, VideoSettings


def run_video(engine: Engine, source: str, out: Path | None, settings: VideoSettings) -> None:
    """Predict, and print what became of it.

    Raises:
        typer.Exit: code 2, where a file was stopped before its end, or a live source was lost, so that systemd starts
            it again. Stopping a camera is its usual end.
        EdpctError: see :func:`edpct.predict.video.predict_video`.
    """
    from edpct.cli.screen import screen
    from edpct.predict.video import is_live, predict_video

    with terminated_as_interrupted():
        flown = predict_video(engine, source, out, settings, screen())
    typer.echo(closing_line(flown, source))
    cut = flown.ended == "stopped" and not is_live(source) and not settings.show
    if cut or flown.ended == "lost":
        raise typer.Exit(2)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which systemd and Docker stop a service, ends the work in good order as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def closing_line(flown: Flown, source: str) -> str:
    """How many frames, how fast, how late, and where they are."""
    began = {"stopped": "Stopped: ", "lost": f"{source} gave no more frames: "}.get(flown.ended, "")
    frames = f"{flown.frames} {'frame' if flown.frames == 1 else 'frames'}"
    line = (
        f"{began}{frames} in {flown.seconds:.1f} s ({flown.fps:.1f} FPS), {flown.dropped} dropped; "
        f"glass to glass {flown.latency_ms:.0f} ms, 95 % under {flown.latency_p95_ms:.0f} ms"
    )
    if flown.path is None:
        return f"{line}."
    held = f" with {flown.written} frames" if flown.written != flown.frames else ""
    return f"{line}; wrote {flown.path}{held}."
