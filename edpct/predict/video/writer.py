"""The video file that is written: under a hidden name until it can be played."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct.errors import RecipeError, RunError
from edpct.predict.video.opencv import opencv
from edpct.predict.video.settings import VideoSettings

LOSSLESS = "FFV1"
CODECS = {
    ".mp4": "mp4v",
    ".m4v": "mp4v",
    ".mov": "mp4v",
    ".mkv": "mp4v",
    ".avi": "MJPG",
}  # that containers usually hold
LOSSLESS_CONTAINERS = (".mkv", ".avi")
RESERVE = 32 * 2**20  # bytes left on the disk, for the index that goes to the end of a file
SPARE = 0.02  # share of the frames by which a container may misjudge its own number


class VideoFile:
    """A video file that grows frame by frame, and is there as a whole or not at all.

    OpenCV says nothing when a disk is full. So free space is watched, and the finished file is opened again.

    Args:
        path: .mp4, .m4v, .mov, .mkv or .avi; an older file is replaced. For the view "classes" .mkv or .avi.
        rate: frames a second.
        clocked: frames come at their own times: repeat and leave out some, so that playing takes as long.

    Attributes:
        written: frames that are in it.

    Raises:
        RecipeError: another suffix.
        RunError: it cannot be written there.
    """

    def __init__(self, path: Path, settings: VideoSettings, rate: float, clocked: bool) -> None:
        check_target(path, settings)
        self.path, self.written = path, 0
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")  # OpenCV reads the container off the name
        self._codec = settings.codec or (LOSSLESS if settings.view == "classes" else CODECS[path.suffix.lower()])
        self._rate = round(rate, 3 if rate < 65 else 2)  # MPEG-4 counts time in 16 bits
        self._clocked = clocked
        self._device: Any = None
        self._last: NDArray[np.uint8] | None = None
        self._folder = path.resolve().parent
        try:
            self._partial.touch()
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}.", "Choose another --out.") from error

    def write(self, picture: NDArray[np.uint8], at: float) -> None:
        """Add a picture.

        Args:
            picture: (H, W, 3), uint8, BGR, or (H, W) grey; of the same size every time. An odd side gets one pixel
                more, since codecs halve it: its neighbour's colour or class.
            at: seconds since the first; looked at where frames come at their own times.

        Raises:
            RunError: the codec or the size is none that this OpenCV writes; the disk is full.
        """
        self._look_at_disk()
        even = _even(picture)
        if self._device is None:
            self._device = self._opened(even)
        if self._clocked:
            due, before, self._last = at * self._rate, self._last, even
            while before is not None and due - self.written > 1:
                self._look_at_disk()
                self._add(before)
            if self.written - due > 1:  # more than a frame ahead of the clock
                return
        self._add(even)

    def finish(self) -> None:
        """Give the file its name; where nothing was written, there is no file.

        Raises:
            RunError: it cannot be played; the message says where it lies.
        """
        if self._device is not None:
            self._device.release()
            self._device = None
        if not self.written:
            self._partial.unlink(missing_ok=True)
            return
        readable = _frames_in(self._partial)
        if abs(readable - self.written) > max(2, SPARE * self.written):
            raise RunError(
                f"{self.path} could not be finished: {self.written} frames were written, and {max(readable, 0)} can be "
                f"read; what there is lies in {self._partial}.",
                "Is the disk full? Free some space; .mkv can be played even when it was cut off.",
            )
        try:
            self._partial.replace(self.path)
        except OSError as error:
            what = f"{self.path} cannot be written: {error.strerror}; the video lies in {self._partial}."
            raise RunError(what, "Choose another --out.") from error

    def _add(self, picture: NDArray[np.uint8]) -> None:
        self._device.write(picture)
        self.written += 1

    def _look_at_disk(self) -> None:
        if shutil.disk_usage(self._folder).free < RESERVE:
            raise RunError(f"The disk of {self.path} is full.", "Free some space.")

    def _opened(self, picture: NDArray[np.uint8]) -> Any:
        cv2 = opencv()
        (height, width), colour = picture.shape[:2], picture.ndim == 3
        code = cv2.VideoWriter_fourcc(*self._codec)
        device = cv2.VideoWriter(str(self._partial.absolute()), code, self._rate, (width, height), colour)
        if not device.isOpened():
            suffix = self.path.suffix
            raise RunError(
                f"This OpenCV cannot write {self._codec} of {width}x{height} pixels into {suffix}.",
                f"Leave out --codec; {suffix} usually holds {CODECS[suffix.lower()]}.",
            )
        return device


def check_target(path: Path, settings: VideoSettings) -> None:
    """Refuse what cannot be written, before anything is opened.

    Raises:
        RecipeError: another suffix, or one that would change the classes.
        RunError: no such folder.
    """
    suffix = path.suffix.lower()
    if suffix not in CODECS:
        raise RecipeError(f"{path.name} is no video that edpct writes.", f"Choose from: {', '.join(CODECS)}.")
    if settings.view == "classes":
        if suffix not in LOSSLESS_CONTAINERS:
            raise RecipeError(
                f"{path.name} would change the classes: {suffix} is written with loss.",
                f"Name a file in {' or '.join(LOSSLESS_CONTAINERS)} for the view classes.",
            )
        if settings.codec not in ("", LOSSLESS):
            raise RecipeError(f"{settings.codec} would change the classes.", f"Leave out --codec; it is {LOSSLESS}.")
    if not path.resolve().parent.is_dir():
        raise RunError(f"There is no folder {path.parent} for {path.name}.", "Make it first.")
    if path.is_dir():
        raise RunError(f"{path} is a folder.", "Name a file in it.")


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    odd = [(0, side % 2) for side in picture.shape[:2]]
    if not any(more for _, more in odd):
        return picture
    return np.pad(picture, odd + [(0, 0)] * (picture.ndim - 2), mode="edge")


def _frames_in(path: Path) -> int:
    """Frames that a file says it has; 0 where the first cannot be read."""
    cv2 = opencv()
    device = cv2.VideoCapture(str(path.absolute()))
    count = device.get(cv2.CAP_PROP_FRAME_COUNT) if device.isOpened() and device.grab() else 0
    device.release()
    return int(count) if math.isfinite(count) else 0
