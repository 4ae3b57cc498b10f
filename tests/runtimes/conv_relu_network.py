"""One small network whose answer NumPy can compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32


@dataclass(frozen=True)
class ConvRelu:
    """relu(3x3 convolution, padding 1): ``image`` (1, 3, 32, 32) to ``logits`` (1, 2, 32, 32), float32."""

    path: Path
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def image(self, seed: int = 0) -> NDArray[np.float32]:
        return np.random.default_rng(seed).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        sums = np.einsum("nchwij,ocij->nohw", windows, self.weight) + self.bias[None, :, None, None]
        return np.maximum(sums, 0).astype(np.float32)
