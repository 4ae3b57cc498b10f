"""What a prediction on a video is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from edpct.errors import RecipeError
from edpct.predict.draw import View
from edpct.predict.mosaic import OVERLAP

Fit = Literal["auto", "windows", "resize"]


@dataclass(frozen=True)
class VideoSettings:
    """How frames are taken, predicted and shown.

    Attributes:
        view: "overlay": the classes' colours over the frame; "side-by-side": the frame, and the colours beside it;
            "mask": the colours alone; "classes": the indices themselves, grey, without loss, for programs to read.
        fit: "windows": a frame larger than the engine's input is cut into overlapping windows: full detail, and one
            inference for each window. "resize": the frame is scaled to fit the input, its proportions kept, and the
            classes are scaled back: one inference a frame; what is small is lost. "auto": windows for files, where
            nobody waits, and resize for live sources, where a late picture is of no use to a pilot.
        overlap: pixels that windows share.
        opacity: of the colours over the frame, 0 (the frame alone) to 1.
        hud: write FPS, latency, dropped frames and the classes' names on the picture (overlay and side-by-side).
        show: show the pictures in a window; q or Esc stops.
        realtime: read a file at its own frame rate and drop what the engine is too slow for, as with a camera.
        seconds: of the source to predict; 0: to its end, or until stopped.
        frames: to predict; 0: to the end, or until stopped.
        rate: frames a second of the file that is written, from a live source; 0: as the source says, 30 if it does not.
            Pictures are repeated or left out so that playing the file takes as long as the flight did.
        codec: four characters that FFmpeg knows, such as avc1; empty: what the container usually holds.

    Raises:
        RecipeError: a value out of its range.
    """

    view: View = "overlay"
    fit: Fit = "auto"
    overlap: int = OVERLAP
    opacity: float = 0.5
    hud: bool = True
    show: bool = False
    realtime: bool = False
    seconds: float = 0.0
    frames: int = 0
    rate: float = 0.0
    codec: str = ""

    def __post_init__(self) -> None:
        _one_of("view", self.view, get_args(View))
        _one_of("fit", self.fit, get_args(Fit))
        _within("opacity", self.opacity, 0, 1, "Give a share from 0 to 1.")
        _within("seconds", self.seconds, 0, math.inf, "Give a number of seconds, or 0 for no limit.")
        _within("frames", self.frames, 0, math.inf, "Give a number of frames, or 0 for no limit.")
        _within("overlap", self.overlap, 0, math.inf, "Give a number of pixels.")
        if self.rate != 0:
            _within("rate", self.rate, 0.1, 240, "Give frames a second from 0.1 to 240, or 0 for the source's own.")
        if self.codec and not (len(self.codec) == 4 and self.codec.isascii()):
            raise RecipeError(f"A codec has four characters, and '{self.codec}' is none.", "Give mp4v, avc1 or MJPG.")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"There is no {name} '{value}'.", f"Choose from: {', '.join(choices)}.")


def _within(name: str, value: float, least: float, most: float, hint: str) -> None:
    if not (least <= value <= most and math.isfinite(value)):
        raise RecipeError(f"{name} is {value:g}.", hint)
