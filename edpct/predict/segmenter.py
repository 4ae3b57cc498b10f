"""The API for flight code: an engine as a function from a frame to its map of classes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.archive.locate import located
from edpct.card import Card
from edpct.errors import DataError, EngineError
from edpct.predict import draw
from edpct.predict.engine import Engine
from edpct.predict.mosaic import OVERLAP, mosaic
from edpct.predict.stitch import FULL, Grid
from edpct.runtimes.session import Options

Frame = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Order = Literal["rgb", "bgr"]


class Segmenter:
    """An engine, opened, that turns frames into maps of classes; needs no torch::

        with Segmenter("student-int8-fused.onnx") as seg:
            mask = seg(frame)                      # (H, W, 3) uint8 in, (H, W) uint8 out
            print(seg.classes[mask[y, x]])

    Frames may have any size. One of the engine's own (:attr:`size`) is one inference; of a larger one, windows that
    overlap are put together without seams; a smaller one is filled up with its mirror image.

    All methods may be called from several threads at once; as many of them run at a time as there are ``streams``.

    Args:
        engine: .onnx, .plan, .engine, or a checkpoint where torch is installed; a package, "student.zip", for the
            engine in it that is best here, or "student.zip:student-fp16.onnx" for one by name.
        runtime: "onnxruntime", "openvino", "tensorrt" ...; empty: the first that opens the file and is installed.
        device: "cpu", "cuda" ..., where the runtime has several; empty: its first.
        order: of a frame's channels: "rgb", or "bgr" as OpenCV has them.
        threads: of the CPU; 0: all cores.
        streams: frames in flight at once; 1 for the lowest latency.
        overlap: pixels that windows share, of a frame larger than the engine's input.

    Attributes:
        card: what the engine says of itself: network, precision, classes, preprocessing, MACs.
        classes: their names; a mask holds indices into these.
        colours: (C, 3), uint8, RGB, the class's own.
        size: height and width of the engine's input, pixels.

    Raises:
        EngineError, MissingPackageError: the engine cannot be opened; the message says what to do.
    """

    def __init__(
        self, engine: str | PathLike[str], *, runtime: str = "", device: str = "", order: Order = "rgb",
        threads: int = 0, streams: int = 1, overlap: int = OVERLAP,
    ) -> None:  # fmt: skip
        if order not in ("rgb", "bgr"):
            raise EngineError(f"There is no order of channels '{order}'.", "Choose from: rgb, bgr.")
        options = Options(threads=threads, streams=streams)
        self._engine = Engine(located(Path(engine), runtime=runtime), runtime=runtime, device=device, options=options)
        self._threads = ThreadPoolExecutor(max(streams, 1), thread_name_prefix="edpct-segmenter")
        self._order, self._overlap = order, overlap
        task = self._engine.task
        self.card: Card = self._engine.card
        self.classes: tuple[str, ...] = task.names
        self.colours: NDArray[np.uint8] = task.palette[: task.num_classes]
        self.size: tuple[int, int] = self._engine.size

    def __call__(self, frame: Frame) -> Mask:
        """The class of every pixel.

        Args:
            frame: (H, W, 3), uint8.

        Returns:
            (H, W), uint8, 0..C-1: indices into :attr:`classes`.

        Raises:
            DataError: another shape or dtype.
            EngineError: the engine failed, or is closed.
        """
        image = self._rgb(frame)
        if image.shape[:2] == self.size:
            return self._engine.ports.classes({self._engine.ports.answer.name: self._engine.infer(image[None])})[0]
        rows = [classes for classes, _ in mosaic(self._engine, self._grid(image), lambda a, b: image[a:b])]
        return np.concatenate(rows)

    def batch(self, frames: Sequence[Frame]) -> list[Mask]:
        """The masks of several frames, :attr:`streams <Segmenter>` of them at a time; see :meth:`__call__`."""
        return [future.result() for future in [self.submit(frame) for frame in frames]]

    def submit(self, frame: Frame) -> Future[Mask]:
        """Begin with a frame and go on: the mask is the ``result()`` of what is returned, as are errors."""
        try:
            return self._threads.submit(self, frame)
        except RuntimeError as error:
            raise EngineError(f"{self._engine.path.name} is closed.", "Open it again.") from error

    def probabilities(self, frame: Frame) -> NDArray[np.float32]:
        """The probability of every class at every pixel, (C, H, W), 0..1, in steps of 1/255.

        Raises:
            EngineError: the engine gives classes ("-fused"), and so no probabilities.
        """
        image = self._rgb(frame)
        rows = mosaic(self._engine, self._grid(image), lambda a, b: image[a:b], probabilities=True)
        parts = [shares for _, shares in rows if shares is not None]
        return np.concatenate(parts, axis=1) * np.float32(1 / FULL)

    def colourise(self, mask: Mask) -> Frame:
        """A mask in the colours of its classes, (H, W, 3), uint8, channels in the order of the frames."""
        drawn: Frame = self._engine.task.palette[mask]
        return drawn if self._order == "rgb" else drawn[..., ::-1]

    def overlay(self, frame: Frame, mask: Mask, opacity: float = 0.5) -> Frame:
        """The classes' colours laid over a frame, (H, W, 3), uint8; ``opacity`` 0 (frame alone) to 1."""
        return draw.overlay(frame, self.colourise(mask), opacity)

    def close(self) -> None:
        """Wait for what is in flight, then free all; closing twice is fine."""
        self._threads.shutdown(wait=True)
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _grid(self, image: Frame) -> Grid:
        return Grid.over((image.shape[0], image.shape[1]), self.size, self._overlap)

    def _rgb(self, frame: Frame) -> Frame:
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            have = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise DataError(f"A frame is an array of uint8, (height, width, 3), and this is {have}.")
        if not frame.size:
            raise DataError(f"A frame of {frame.shape[1]}x{frame.shape[0]} pixels has nothing in it.")
        return frame if self._order == "rgb" else frame[..., ::-1]
