"""The head-up display: a line of numbers and the legend of the classes, in a dark panel at the top left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edpct.predict.video.opencv import opencv
from edpct.task import Task

LEAST_TEXT = 10  # pixels; below that nobody can read it
LINES = 36  # of text in the height of a picture
SHADE = 0.4  # of the picture behind the panel
WHITE = (255, 255, 255)


class Hud:
    """Writes into pictures. Panels are drawn once for each text, and laid over every picture that has it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._key: tuple[object, ...] = ()
        self._panel: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)

    def draw(self, picture: NDArray[np.uint8], numbers: str) -> None:
        """Write a line, and the legend below it, into a picture (H, W, 3), uint8, BGR; what does not fit is cut."""
        height, width = picture.shape[:2]
        key = (numbers, height)
        if key != self._key:
            self._key, self._panel = key, self._drawn(numbers, height)
        panel = self._panel[:height, :width]
        corner = picture[: panel.shape[0], : panel.shape[1]]
        corner[:] = opencv().addWeighted(corner, SHADE, panel, 1.0, 0)

    def _drawn(self, numbers: str, height: int) -> NDArray[np.uint8]:
        """The panel, (h, w, 3), uint8, BGR."""
        size = max(LEAST_TEXT, height // LINES)
        font = ImageFont.load_default(size)
        step, margin = round(size * 1.4), size // 2
        names, most = list(self._task.names), max(1, (height - 2 * margin) // step - 1)
        if len(names) > most:
            names = [*names[: most - 1], f"and {len(names) - most + 1} more"]
        wide = [font.getlength(numbers), *(step + font.getlength(name) for name in names)]
        sheet = Image.new("RGB", (round(max(wide)) + 2 * margin, step * (len(names) + 1) + margin))
        pen = ImageDraw.Draw(sheet)
        pen.text((margin, margin // 2), numbers, WHITE, font)
        for row, (name, known) in enumerate(zip(names, self._task.classes, strict=False), start=1):
            top = row * step + margin // 2
            if name == known.name:
                pen.rectangle((margin, top, margin + size, top + size), known.colour, WHITE)
            pen.text((margin + step, top), name, WHITE, font)
        return np.asarray(sheet)[..., ::-1].copy()
