"""What every opened engine can do, whichever runtime opened it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
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


@dataclass(frozen=True)
class Options:
    """How an engine is opened. A row of the table names the options that it knows; another is refused, not ignored.

    Attributes:
        threads: CPU threads; 0: the runtime's own choice, which is all physical cores.
        streams: requests that are to be in flight at once; 1: lowest latency, above: highest throughput.
        cuda_graph: launch the whole engine as one CUDA graph.
    """

    threads: int = 0
    streams: int = 1
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.threads < 0 or self.streams < 1:
            raise EngineError(
                f"{self.threads} threads and {self.streams} streams cannot be had.",
                "Give threads from 0 (all cores) and streams from 1.",
            )

    def changed(self) -> dict[str, int | bool]:
        """The options that are not at their default, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


DEFAULT = Options()


class Session(Protocol):
    """One engine, opened. Leaving its ``with`` block closes it.

    An inference has three steps, so that each can be timed by itself: :meth:`bind` brings the inputs to where the
    engine reads them, :meth:`execute` computes, :meth:`fetch` brings the answers to host memory. :meth:`run` does all.

    Attributes:
        runtime: name of the row of :data:`edpct.runtimes.table.RUNTIMES` that opened it.
        device: one of that row's devices.
        details: what the runtime says it really does, not what it was asked for: at least ``version``,
            ``provider`` and ``precision``, and ``threads`` on a CPU.
        inputs, outputs: in the order of the graph.
        device_ms: milliseconds that the last execute took by the device's own clock (CUDA events); None where there
            is none but the host's.
    """

    runtime: str
    device: str
    details: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device_ms: float | None = None

    def bind(self, feeds: Arrays) -> None:
        """Take the inputs of the next inferences: on a GPU, copy them there.

        Args:
            feeds: name to array for every input; not to be changed before :meth:`execute` is done.

        Raises:
            EngineError: a feed does not fit, or the session is closed.
        """
        ...

    def execute(self) -> None:
        """Infer once on what was bound, and wait until it is done; the answers stay where the engine wrote them.

        Raises:
            EngineError: the runtime failed, or the session is closed.
        """
        ...

    def fetch(self) -> Arrays:
        """The last answers: name to array for every output, in host memory, the caller's to keep.

        Raises:
            EngineError: nothing was executed yet, or the session is closed.
        """
        ...

    def run(self, feeds: Arrays) -> Arrays:
        """Infer once: from arrays in host memory to arrays in host memory; see :meth:`bind` for the errors.

        A runtime may do so in a quicker way than the three steps; :meth:`fetch` then has nothing to hand over.
        """
        self.bind(feeds)
        self.execute()
        return self.fetch()

    def fork(self) -> Session:
        """Another request of the same opened engine, which may run in another thread meanwhile; close it before this.

        Raises:
            EngineError: the session is closed, or memory does not suffice.
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


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array as runtimes take it: C-contiguous and writable (none writes, some insist); copied if it is not."""
    return np.require(array, requirements=("C", "W"))


def not_run_error(runtime: str) -> EngineError:
    """The error of executing before anything was bound, or fetching before anything was executed."""
    return EngineError(f"This {runtime} session has no answer yet.", "Bind and execute first, or call run.")


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
