"""The classes of a frame: by windows at full detail, or with one inference on the frame made smaller."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edpct.predict.engine import Engine
from edpct.predict.mosaic import mosaic
from edpct.predict.stitch import Classes, Grid
from edpct.predict.video.opencv import opencv
from edpct.predict.video.settings import VideoSettings
from edpct.predict.video.sources import Pixels

Predict = Callable[[Pixels], Classes]
"""From a frame (H, W, 3), uint8, BGR, to its classes (H, W), uint8; raises EngineError."""


def predictor(engine: Engine, settings: VideoSettings, live: bool) -> Predict:
    """What predicts a frame, as ``settings.fit`` says; safe to call from several threads."""
    cv2 = opencv()
    resize = settings.fit == "resize" or (settings.fit == "auto" and live)

    def predict(frame: Pixels) -> Classes:
        image: NDArray[np.uint8] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if image.shape[:2] == engine.size:
            return once(engine, image)
        return resized(engine, image) if resize else by_windows(engine, image, settings.overlap)

    return predict


def once(engine: Engine, image: NDArray[np.uint8]) -> Classes:
    """The classes of an image (h, w, 3), RGB, of the engine's input size."""
    return engine.ports.classes({engine.ports.answer.name: engine.infer(image[None])})[0]


def by_windows(engine: Engine, image: NDArray[np.uint8], overlap: int) -> Classes:
    """The classes of an image (H, W, 3), RGB, in overlapping windows, as those of :class:`edpct.Segmenter`."""
    grid = Grid.over((image.shape[0], image.shape[1]), engine.size, overlap)
    return np.concatenate([classes for classes, _ in mosaic(engine, grid, lambda first, last: image[first:last])])


def resized(engine: Engine, image: NDArray[np.uint8]) -> Classes:
    """The classes of an image (H, W, 3), RGB, scaled to fit the input; each pixel has that of the nearest one there.

    Proportions are kept, since the network was trained on them; the rest of the input is filled with the mirror image.
    """
    cv2 = opencv()
    (height, width), (most_high, most_wide) = image.shape[:2], engine.size
    scale = min(most_high / height, most_wide / width)
    high, wide = max(1, min(most_high, round(height * scale))), max(1, min(most_wide, round(width * scale)))
    small = cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    filled = np.pad(small, ((0, most_high - high), (0, most_wide - wide), (0, 0)), mode="symmetric")
    found = np.ascontiguousarray(once(engine, filled)[:high, :wide])
    classes: Classes = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return classes
