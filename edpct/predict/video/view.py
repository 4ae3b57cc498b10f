"""The picture of a frame and its classes."""

from __future__ import annotations

import numpy as np

from edpct.predict.stitch import Classes
from edpct.predict.video.hud import Hud
from edpct.predict.video.opencv import opencv
from edpct.predict.video.settings import VideoSettings
from edpct.predict.video.sources import Pixels
from edpct.task import Task


class View:
    """Draws what ``settings.view`` says."""

    def __init__(self, task: Task, settings: VideoSettings) -> None:
        self._cv2 = opencv()
        self._view, self._opacity = settings.view, settings.opacity
        self._bgr = np.ascontiguousarray(task.palette[None, :, ::-1])
        wanted = settings.hud and settings.view in ("overlay", "side-by-side")
        self._hud = Hud(task) if wanted else None

    def draw(self, frame: Pixels, classes: Classes, numbers: str) -> Pixels:
        """The picture.

        Args:
            frame: (H, W, 3), uint8, BGR.
            classes: (H, W), uint8.
            numbers: line of the head-up display.

        Returns:
            (H, W, 3), uint8, BGR; twice as wide side by side; the classes as they are, (H, W), for "classes".
        """
        if self._view == "classes":
            return classes
        colours: Pixels = self._cv2.LUT(self._cv2.merge([classes] * 3), self._bgr)
        if self._view == "mask":
            return colours
        picture: Pixels
        if self._view == "side-by-side":
            picture = np.concatenate((frame, colours), axis=1)
        else:
            picture = self._cv2.addWeighted(frame, 1 - self._opacity, colours, self._opacity, 0)
        if self._hud is not None:
            self._hud.draw(picture, numbers)
        return picture
