"""What every opened engine can do, whichever runtime opened it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edpct.errors import EngineError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine.

    Attributes:
        name: as in the graph.
        dtype: NumPy's.
        shape: axes in order; None where the graph leaves the length open.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be fed."""
        if shape == self.shape:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {_shape_text(self.shape)}"


class Session(Protocol):
    """One engine, opened. Leaving its ``with`` block closes it.

    Attributes:
        runtime: name of the row of :data:`edpct.runtimes.table.RUNTIMES` that opened it.
        device: one of that row's devices.
        details: what the runtime says it really does, not what it was asked for: at least ``version``,
            ``provider`` and ``precision``, and ``threads`` on a CPU.
        inputs, outputs: in the order of the graph.
    """

    runtime: str
    device: str
    details: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Arrays) -> Arrays:
        """Infer once and wait for the answer.

        Args:
            feeds: name to array for every input.

        Returns:
            Name to array for every output, in host memory, the caller's to keep.

        Raises:
            EngineError: a feed does not fit, the runtime failed, or the session is closed.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; closing twice is fine."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_feeds(session_inputs: tuple[TensorSpec, ...], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Refuse feeds that do not fit; microseconds, so that it can go before every inference.

    Raises:
        EngineError: a name, dtype or shape is not what the engine takes.
    """
    for spec in session_inputs:
        array = feeds.get(spec.name)
        if array is None:
            raise _wrong_names(session_inputs, feeds)
        if array.dtype != spec.dtype:
            raise EngineError(
                f"Input '{spec.name}' takes {spec.dtype} and was given {array.dtype}.",
                f"Convert it with .astype('{spec.dtype}').",
            )
        if not spec.fits(array.shape):
            want, have = _shape_text(spec.shape), _shape_text(array.shape)
            raise EngineError(
                f"Input '{spec.name}' takes shape {want} and was given {have}.",
                "Resize or tile the image, or export the network at that size.",
            )
    if len(feeds) != len(session_inputs):
        raise _wrong_names(session_inputs, feeds)


def closed_error(runtime: str) -> EngineError:
    """The error of running a session that was closed."""
    return EngineError(f"This {runtime} session is closed.", "Open the engine again.")


def _wrong_names(specs: tuple[TensorSpec, ...], feeds: Mapping[str, NDArray[Any]]) -> EngineError:
    want, have = (", ".join(names) or "none" for names in ((s.name for s in specs), feeds))
    return EngineError(
        f"The engine takes the inputs {want} and was given {have}.",
        "Feed every input by its name, and no others.",
    )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if axis is None else str(axis) for axis in shape) + ")"
