"""What an engine takes and gives: normalised arrays and logits, or images and maps of classes as they are.

A graph may hold the normalisation, the argmax, both or neither (:mod:`edpct.export.fuse`); which it is can be read from
the types of its input and output. Accuracy, pictures and end-to-end times go through here, so that they need not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.errors import EngineError
from edpct.runtimes.labels import labels_of
from edpct.runtimes.session import Arrays, Session, TensorSpec
from edpct.task import Task

Predict = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Ports:
    """The one input and the one output of a segmentation engine.

    Attributes:
        image: float32 (B, 3, H, W), normalised; or uint8 (B, H, W, 3), as it was decoded, where the engine normalises.
        answer: floating logits (B, C, H, W); or uint8 classes (B, H, W), where the engine takes the argmax.
    """

    task: Task
    image: TensorSpec
    answer: TensorSpec

    @classmethod
    def plain(cls, task: Task) -> Ports:
        """Those of a graph as it was exported: float32 ``image`` and ``logits``, batch open."""
        size, real = task.preprocessing, np.dtype(np.float32)
        area = (size.height, size.width)
        image, logits = (None, 3, *area), (None, task.num_classes, *area)
        return cls(task, TensorSpec("image", real, image), TensorSpec("logits", real, logits))

    @property
    def takes_pixels(self) -> bool:
        """Whether normalisation is part of the engine."""
        return self.image.dtype == np.uint8

    @property
    def gives_classes(self) -> bool:
        """Whether the argmax is part of the engine."""
        return self.answer.dtype == np.uint8

    def feed(self, images: NDArray[np.uint8]) -> Arrays:
        """What the engine takes for images (B, H, W, 3), uint8 RGB."""
        return {self.image.name: images if self.takes_pixels else self.task.preprocessing.apply(images)}

    def classes(self, answers: Arrays) -> NDArray[np.uint8]:
        """Classes (B, H, W), uint8, from what the engine gave."""
        answer = answers[self.answer.name]
        return answer if self.gives_classes else labels_of(answer)

    def describe(self) -> dict[str, str]:
        """What is fused, for the details of a row; empty for a plain engine."""
        said = {"takes": "uint8 images" if self.takes_pixels else "", "gives": "classes" if self.gives_classes else ""}
        return {name: text for name, text in said.items() if text}


def ports_of(session: Session, task: Task, engine: str) -> Ports:
    """The ports of an opened engine.

    Raises:
        EngineError: not one image in and one answer out, or another input size or number of classes than the card's.
    """
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise EngineError(
            f"{engine} has {len(session.inputs)} inputs and {len(session.outputs)} outputs; a segmentation engine "
            "has one of each.",
            "Export the network with one image in and its logits out.",
        )
    ports, size = Ports(task, session.inputs[0], session.outputs[0]), task.preprocessing
    area = (size.height, size.width)
    _require("input", ports.image, (*area, 3) if ports.takes_pixels else (3, *area), engine)
    _require("output", ports.answer, area if ports.gives_classes else (task.num_classes, *area), engine)
    return ports


def _require(kind: str, spec: TensorSpec, want: tuple[int, ...], engine: str) -> None:
    if len(spec.shape) != len(want) + 1 or not spec.fits((spec.shape[0] or 1, *want)):
        raise EngineError(
            f"{engine} contradicts itself: its card says that the {kind} is (B, {', '.join(map(str, want))}), and "
            f"the graph's is {spec}.",
            "Export it again, or copy the engine and its sidecar together.",
        )


def predictor(session: Session, task: Task, engine: str) -> Predict:
    """Image (H, W, 3) uint8 at the engine's input size to classes (H, W), uint8.

    Args:
        engine: its name, for messages.

    Raises:
        EngineError: see :func:`ports_of`.
    """
    ports = ports_of(session, task, engine)
    batch = ports.image.shape[0] or 1

    def predict(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # An engine of a fixed batch is shown the same image in every place.
        return ports.classes(session.run(ports.feed(np.repeat(image[None], batch, axis=0))))[0]

    return predict
