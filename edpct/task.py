"""What a network was made to see: classes, colours, ignore index and preprocessing.

One :class:`Task` travels with every artefact (checkpoint, ONNX metadata, plan sidecar), so that training, calibration,
bench and predict cannot disagree about it. Nothing here imports more than NumPy and pydantic.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from edpct.errors import DataError

IGNORE_INDEX = 255
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocessing(BaseModel):
    """From an 8-bit RGB image to the network's input: ``(x / 255 - mean) / std``, channels first, float32.

    Attributes:
        height, width: input size in pixels, multiples of 32 (the deepest stage has stride 32).
        mean, std: per channel R, G, B, in units of 0..1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(default=512, ge=32, multiple_of=32)
    width: int = Field(default=512, ge=32, multiple_of=32)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @model_validator(mode="after")
    def _std_is_positive(self) -> Self:
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and shift per channel, (3,) each: the normalised value is ``x * scale - shift``."""
        scale = 1.0 / (255.0 * np.asarray(self.std, np.float32))
        shift = np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return scale.astype(np.float32), shift.astype(np.float32)

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise images of shape (H, W, 3) or (B, H, W, 3), uint8 RGB, to (B, 3, H, W), float32, contiguous."""
        batch = images if images.ndim == 4 else images[None]
        scale, shift = self.affine()
        planes = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
        for channel in range(3):  # plane by plane: several times as fast as one expression and a transpose
            plane = planes[:, channel]
            np.multiply(batch[..., channel], scale[channel], out=plane, dtype=np.float32)
            plane -= shift[channel]
        return planes


class ClassInfo(BaseModel):
    """One class: its name and the RGB colour it is drawn in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    colour: Colour


class Task(BaseModel):
    """Classes in the order of the logits' channels, the label that is not counted, and the preprocessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[ClassInfo, ...] = Field(min_length=2, max_length=255)
    ignore_index: int = Field(default=IGNORE_INDEX, ge=0, le=255)
    preprocessing: Preprocessing = Preprocessing()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("class names must differ")
        if self.ignore_index < len(self.classes):
            raise ValueError(f"ignore_index {self.ignore_index} is the index of a class")
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the labels 0..255, shape (256, 3), uint8; black where no class is."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = [c.colour for c in self.classes]
        return table

    def at_size(self, height: int, width: int) -> Task:
        """The same task with another input size in pixels.

        Raises:
            DataError: a size that is no multiple of 32.
        """
        try:
            pre = Preprocessing(**{**self.preprocessing.model_dump(), "height": height, "width": width})
        except ValidationError as error:
            raise DataError(
                f"An input of {height}x{width} pixels does not fit the network.", "Use multiples of 32."
            ) from error
        return self.model_copy(update={"preprocessing": pre})
