"""Where frames come from: a file, a camera, a stream, a pipeline; all through OpenCV."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edpct.errors import DataError
from edpct.predict.video.kinds import CAMERA, is_address, is_live, is_pipeline
from edpct.predict.video.opencv import built_with, opencv

Pixels = NDArray[np.uint8]

USUAL_RATE = 30.0  # where a source says none that can be
LEAST_RATE, MOST_RATE = 0.1, 240.0
WAIT_MS = 10_000  # for a server to answer, and for its next frame
SPARE = 0.02  # share of the frames that a file may lack and be whole: some containers only estimate their number


class Frame(NamedTuple):
    """One picture of a source.

    Attributes:
        pixels: (H, W, 3), uint8, BGR.
        stamp: when it was taken from the source, seconds of ``time.perf_counter``.
    """

    pixels: Pixels
    stamp: float


class Source(Protocol):
    """What gives frames. It is read and closed by one thread.

    Attributes:
        name: for messages.
        live: frames come at their own time, and the newest is wanted; else all of them, in order.
        finite: it has an end, as a file has; a camera that ends is lost.
        rate: frames a second.
        count: frames that it says it has; 0 where nobody knows.
    """

    name: str
    live: bool
    finite: bool
    rate: float
    count: int

    def read(self) -> Frame | None:
        """The next frame; None where there are no more."""
        ...

    def complaint(self, taken: int) -> str:
        """What is wrong with a source that ended after so many frames, as a sentence; empty: nothing."""
        ...

    def close(self) -> None: ...


class Capture:
    """A source that OpenCV has opened.

    Raises:
        DataError: there is no such source, or it is none that this OpenCV can read.
        MissingPackageError: OpenCV is not installed.
    """

    def __init__(self, source: str) -> None:
        self.name = source if is_live(source) else Path(source).name
        self.live = is_live(source)
        self.finite = not self.live
        self._cv2 = opencv()
        self._device = _opened(source)
        rate = self._device.get(self._cv2.CAP_PROP_FPS)
        self.rate = rate if LEAST_RATE <= rate <= MOST_RATE else USUAL_RATE
        count = self._device.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if not self.live and math.isfinite(count) and count > 0 else 0
        self._seen = 0.0  # seconds of the file up to the last frame

    def read(self) -> Frame | None:
        try:
            if not self._device.grab():
                return None
            stamp = time.perf_counter()
            if not self.live:
                self._seen = self._device.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
            good, pixels = self._device.retrieve()
        except self._cv2.error as error:
            raise DataError(f"{self.name} cannot be read any further: {error.err}.") from error
        return Frame(self._bgr(pixels), stamp) if good else None

    def complaint(self, taken: int) -> str:
        if self.live:
            return ""
        # A number that is only an estimate is excused by the time of the last frame.
        spare = max(2, math.ceil(SPARE * self.count))
        if self.count - taken <= spare or self._seen >= (self.count - spare) / self.rate:
            return ""
        return f"{self.name} is damaged or cut off: it says that it has {self.count} frames, and gave {taken}."

    def close(self) -> None:
        self._device.release()

    def _bgr(self, pixels: Any) -> Pixels:
        if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
            return pixels
        if pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2] in (1, 4)):
            grey = pixels.ndim == 2 or pixels.shape[2] == 1
            return self._cv2.cvtColor(pixels, self._cv2.COLOR_GRAY2BGR if grey else self._cv2.COLOR_BGRA2BGR)
        raise DataError(
            f"{self.name} gives frames of {pixels.dtype} {pixels.shape}, and not of 8 bits in BGR.",
            "In a GStreamer pipeline, put before appsink: videoconvert ! video/x-raw,format=BGR",
        )


class Paced:
    """A file that is read at its own frame rate, as if it were a camera."""

    def __init__(self, file: Source) -> None:
        self._file = file
        self.name, self.rate, self.count = file.name, file.rate, file.count
        self.live, self.finite = True, True
        self._began: float | None = None
        self._taken = 0

    def read(self) -> Frame | None:
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        time.sleep(max(0.0, self._began + self._taken / self.rate - now))
        self._taken += 1
        return self._file.read()

    def complaint(self, taken: int) -> str:
        return self._file.complaint(taken)

    def close(self) -> None:
        self._file.close()


def open_source(source: str, realtime: bool = False) -> Source:
    """A video file, ``camera:0``, an address or a GStreamer pipeline.

    Args:
        realtime: a file behaves as a camera.

    Raises:
        DataError, MissingPackageError: see :class:`Capture`.
    """
    capture = Capture(source)
    return Paced(capture) if realtime and not capture.live else capture


def _opened(source: str) -> Any:
    """A cv2.VideoCapture that is open."""
    cv2 = opencv()
    if is_pipeline(source):
        return _pipeline(source)
    camera = CAMERA.fullmatch(source)
    if camera or source.startswith("/dev/video"):
        device = cv2.VideoCapture(int(camera[1]) if camera else source)
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver would only make frames old
        hint = "See which there are with: v4l2-ctl --list-devices"
        return _require(device, f"{source} cannot be opened: no such camera, or another program has it.", hint)
    if source.startswith("camera:"):
        raise DataError(f"{source} names no camera.", "The first is camera:0.")
    if is_address(source):
        wait = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, WAIT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, WAIT_MS]
        ffmpeg = built_with("FFMPEG")
        device = cv2.VideoCapture(source, cv2.CAP_FFMPEG, wait) if ffmpeg else cv2.VideoCapture(source)
        return _require(device, f"{source} cannot be opened: nobody answers, or it is no video.", "Check the address.")
    return _file(Path(source))


def _file(path: Path) -> Any:
    if path.is_dir():
        raise DataError(f"{path} is a folder.", "Name a video file in it.")
    if not path.exists():
        raise DataError(f"There is no file {path}.", "Check the path.")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read.", "Check its permissions.")
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty.", "Copy it again from the drone.")
    hint = "Copy it again from the drone; an .mp4 whose recording was cut off lacks its index and cannot be played."
    device = opencv().VideoCapture(str(path.absolute()))  # FFmpeg takes what is before a colon for a protocol
    return _require(device, f"{path} is damaged, or no video that OpenCV can read.", hint)


def _pipeline(source: str) -> Any:
    cv2 = opencv()
    device = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    if not device.isOpened() and not built_with("GStreamer"):
        raise DataError(
            "This OpenCV is built without GStreamer, so that it opens no pipeline; the packages of PyPI are.",
            "Use the system's own: on a Jetson or Debian, apt install python3-opencv, without opencv-python of pip, in "
            "a venv made with --system-site-packages.",
        )
    hint = "Try it with gst-launch-1.0; for edpct it ends in: videoconvert ! video/x-raw,format=BGR ! appsink"
    return _require(device, "GStreamer cannot start this pipeline.", hint)


def _require(device: Any, what: str, hint: str) -> Any:
    if not device.isOpened():
        raise DataError(what, hint)
    return device
