"""What is fed while timing: windows of real images, encoded, and the same ones as the engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edpct.data.samples import Dataset
from edpct.data.sampling import sample_windows
from edpct.runtimes.ports import Ports
from edpct.runtimes.session import Arrays
from edpct.task import Task

TIMING_IMAGES = 8
JPEG_QUALITY = 95


def encoded_windows(task: Task, dataset: Dataset | None) -> tuple[bytes, ...]:
    """Windows of the val split as JPEG, all of one size; noise where there is no data."""
    size = task.preprocessing
    if dataset is not None:
        images = sample_windows(dataset, "val", TIMING_IMAGES, size.height, size.width, seed=0)
    else:
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8) for _ in range(TIMING_IMAGES)]
    return tuple(_jpeg(image) for image in images)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


class Frames:
    """What is fed while timing: encoded images, and the same ones as batches that the engine takes.

    Args:
        encoded: JPEG or PNG files at the engine's input size, as bytes.
        ports: of the engine.
        batch: images an inference; the encoded ones are taken in order, round and round.
    """

    def __init__(self, encoded: Sequence[bytes], ports: Ports, batch: int = 1) -> None:
        self.ports = ports
        count = len(encoded)
        self.groups = [[encoded[(start + i) % count] for i in range(batch)] for start in range(0, count, batch)]
        self.feeds: list[Arrays] = [ports.feed(decode(group)) for group in self.groups]


def decode(group: Sequence[bytes]) -> NDArray[np.uint8]:
    """Encoded images of one size to (B, H, W, 3), uint8 RGB."""
    return np.stack([np.asarray(Image.open(BytesIO(data)).convert("RGB")) for data in group])
