"""From an image to a map of classes with an opened engine: what accuracy, pictures and end-to-end times share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edpct.errors import EngineError
from edpct.runtimes.session import Session
from edpct.task import Task

Predict = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def labels_of(logits: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The class of every pixel: ``logits.argmax(1)`` of (B, C, H, W), C at most 255, as (B, H, W), uint8.

    Equal logits give the lower class, as argmax does. Class by class over whole planes: NumPy's argmax over an outer
    axis takes some twenty times as long.
    """
    best = logits[:, 0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, logits.shape[1]):
        higher = (logits[:, index] > best).view(np.uint8)
        np.maximum(labels, higher * np.uint8(index), out=labels)  # indices rise, so the last that is higher stays
        np.maximum(best, logits[:, index], out=best)
    return labels


def predictor(session: Session, task: Task) -> Predict:
    """Image (H, W, 3) uint8 at the engine's input size to labels (H, W), uint8."""
    name, out = session.inputs[0].name, session.outputs[0].name
    batch = session.inputs[0].shape[0] or 1

    def predict(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        feed = task.preprocessing.apply(image)
        if batch > 1:  # an engine of a fixed batch is shown the same image in every place
            feed = feed.repeat(batch, axis=0)
        return labels_of(session.run({name: feed})[out][:1])[0]

    return predict


def check_session(session: Session, task: Task, engine: str) -> None:
    """Refuse an engine whose tensors are not what its card says.

    Raises:
        EngineError: not one image in, or another input size or number of classes than the card's.
    """
    size = task.preprocessing
    wanted = ((3, size.height, size.width), (task.num_classes, size.height, size.width))
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise EngineError(
            f"{engine} has {len(session.inputs)} inputs and {len(session.outputs)} outputs; a segmentation engine "
            "has one of each.",
            "Export the network with one image in and its logits out.",
        )
    for kind, spec, want in zip(("input", "output"), (session.inputs[0], session.outputs[0]), wanted, strict=True):
        if len(spec.shape) != 4 or not spec.fits((spec.shape[0] or 1, *want)):
            raise EngineError(
                f"{engine} contradicts itself: its card says that the {kind} is (B, {', '.join(map(str, want))}), and "
                f"the graph's is {spec}.",
                "Export it again, or copy the engine and its sidecar together.",
            )
