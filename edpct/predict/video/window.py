"""The pictures on the screen."""

from __future__ import annotations

import os
import sys

import numpy as np
from numpy.typing import NDArray

from edpct.errors import RunError
from edpct.predict.video.opencv import opencv

KEYS = (ord("q"), ord("Q"), 27)  # 27 is Esc


class Window:
    """A window of OpenCV; to be used by the main thread alone. q, Esc and closing it end the show.

    Raises:
        RunError: no desktop, or an OpenCV without windows.
    """

    def __init__(self, title: str) -> None:
        self._cv2, self._title = opencv(), title
        # Qt ends the whole process where it finds no desktop, so that is looked for first.
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise RunError("There is no desktop to show a window on.", "Write a file with --out instead of --show.")
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        except self._cv2.error as error:
            hint = "Install opencv-python in place of opencv-python-headless, or write a file with --out."
            raise RunError("This OpenCV shows no windows: it is built for machines without a desktop.", hint) from error

    def show(self, picture: NDArray[np.uint8] | None) -> bool:
        """Show a picture, or keep the last; False once the person wants no more."""
        if picture is not None:
            self._cv2.imshow(self._title, picture)
        if self._cv2.waitKey(1) & 0xFF in KEYS:
            return False
        return self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        self._cv2.destroyWindow(self._title)
