"""Images of which the toy engines' answer is known, each fit for another way of keeping pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from toy_engines import SIDE, TASK

from edpct.task import Preprocessing

# Of ImageNet's, every grey has the same class; of these, dark is c, middle is b and light is a.
GREYS = TASK.model_copy(
    update={
        "preprocessing": Preprocessing(
            height=SIDE, width=SIDE, mean=(0.41814, 0.16765, 0.0), std=(0.25, 0.5, 1.0),
        )
    }
)  # fmt: skip
COLOURS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230)], np.uint8)


def calm(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Squares of 16 pixels in colours so far apart that no lossy compression changes a class, (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 3, (-(-height // 16), -(-width // 16)))
    return COLOURS[np.kron(coarse, np.ones((16, 16), int))[:height, :width]]


def stretched(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise in which 1 of 16 pixels is 0 and 1 of 16 is 255, so that its 2nd and 98th percentile are these."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    flat = image.reshape(-1, 3)
    for band in range(3):
        flat[band::16, band] = 0
        flat[band + 3 :: 16, band] = 255
    return image


def without(image: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """The image with another value where a channel has this one."""
    return np.where(image == value, value + 1 if value < 255 else 254, image).astype(np.uint8)


def islands(height: int, width: int, seed: int = 0) -> NDArray[np.bool_]:
    """True where there is nothing: all but a few rectangles, some of one pixel, (H, W)."""
    rng, nothing = np.random.default_rng(seed), np.ones((height, width), bool)
    for _ in range(4):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        nothing[top : top + int(rng.integers(1, 40)), left : left + int(rng.integers(1, 40))] = False
    nothing[rng.integers(height), rng.integers(width)] = False
    return nothing
