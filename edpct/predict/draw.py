"""Classes as colours: a mask drawn, and laid over its image."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
View = Literal["classes", "mask", "overlay", "side-by-side"]
"""What is shown of a prediction: class indices, their colours, those over the image, or beside it."""
VIEWS: tuple[View, ...] = get_args(View)


def overlay(image: Pixels, drawn: Pixels, opacity: float) -> Pixels:
    """Colours (H, W, 3), uint8, laid over an image of the same shape; ``opacity`` 0 (image alone) to 1."""
    share = round(256 * opacity)
    mixed = image.astype(np.uint16) * np.uint16(256 - share)
    mixed += drawn * np.uint16(share)
    mixed >>= 8
    return mixed.astype(np.uint8)


def side_by_side(image: Pixels, drawn: Pixels) -> Pixels:
    """The image (H, W, 3), and its colours to the right of it: (H, 2 W, 3), uint8."""
    return np.concatenate((image, drawn), axis=1)
