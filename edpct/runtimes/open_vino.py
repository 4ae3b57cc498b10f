"""ONNX models on OpenVINO, on the CPU, in the precision that the graph is written in.

Left alone, OpenVINO computes a float32 graph in bfloat16 on CPUs that can (AVX512_BF16, AMX). So the
precision is set, read back, and refused if it is not the one set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edpct.errors import EngineError
from edpct.runtimes.session import (
    Arrays,
    Options,
    Session,
    TensorSpec,
    check_feeds,
    closed_error,
    not_run_error,
    readable,
)

if TYPE_CHECKING:
    from edpct.runtimes.table import Runtime

_PRECISION = "f32"  # of what is not quantised; Q/DQ parts run in INT8 all the same
_RESULT_SUFFIX = "/sink_port_0"  # OpenVINO names a graph's output "<name in the ONNX>/sink_port_0"


class OpenVinoSession(Session):
    """One request of an ONNX model compiled by OpenVINO for the CPU."""

    def __init__(self, name: str, compiled: Any, runtime: str, precision: str) -> None:
        import openvino

        self._tensor: Any = openvino.Tensor
        self._name = name
        self._compiled: Any = compiled
        self._request: Any = compiled.create_infer_request()
        self._bound: list[NDArray[Any]] = []
        self._answered = False
        self.runtime = runtime
        self.device = "cpu"
        self.inputs = tuple(_spec(port, name) for port in compiled.inputs)
        self.outputs = tuple(_spec(port, name) for port in compiled.outputs)
        self.details = {
            "version": openvino.get_version().split("-", 1)[0],
            "provider": ", ".join(compiled.get_property("EXECUTION_DEVICES")),
            "precision": precision,
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
            "streams": str(compiled.get_property("NUM_STREAMS")),
        }

    def bind(self, feeds: Arrays) -> None:
        if self._request is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        # Shared, not copied: OpenVINO reads the caller's memory, which is kept alive here.
        self._bound = [readable(feeds[spec.name]) for spec in self.inputs]
        for index, array in enumerate(self._bound):
            self._request.set_input_tensor(index, self._tensor(array, shared_memory=True))

    def execute(self) -> None:
        if self._request is None:
            raise closed_error(self.runtime)
        try:
            self._request.start_async()
            self._request.wait()
            self._answered = True
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed on {self._name}: {_last_line(error)}",
                "Check memory, or try another runtime.",
            ) from error

    def fetch(self) -> Arrays:
        if not self._answered:
            raise not_run_error(self.runtime)
        # Copied, since the next inference writes over them.
        return {
            spec.name: self._request.get_output_tensor(index).data.copy() for index, spec in enumerate(self.outputs)
        }

    def fork(self) -> Session:
        if self._request is None:
            raise closed_error(self.runtime)
        return OpenVinoSession(self._name, self._compiled, self.runtime, self.details["precision"])

    def close(self) -> None:
        self._request = self._compiled = None
        self._bound = []
        self._answered = False


def open_session(path: Path, *, runtime: Runtime, device: str, options: Options) -> Session:
    """Compile an ONNX model for the CPU: for latency, or with several streams for throughput.

    Raises:
        EngineError: the file is no whole ONNX model, or OpenVINO would compute in another precision.
    """
    import openvino

    compiled = _compile(openvino, path, options)
    return OpenVinoSession(path.name, compiled, runtime.name, _require_precision(compiled, path))


def _compile(openvino: Any, path: Path, options: Options) -> Any:
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _PRECISION}
    if options.streams > 1:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.streams}
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = options.threads
    try:
        return openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO cannot open {path.name}: {_last_line(error)}",
            "If it was copied, copy it again; otherwise export it again.",
        ) from error


def _require_precision(compiled: Any, path: Path) -> str:
    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    if precision != _PRECISION:
        raise EngineError(
            f"OpenVINO was asked to compute {path.name} in {_PRECISION} and would compute it in {precision}.",
            "Use the runtime onnxruntime on this machine.",
        )
    return precision


def _spec(port: Any, engine: str) -> TensorSpec:
    try:
        dtype = np.dtype(port.get_element_type().to_dtype())
    except RuntimeError as error:
        raise EngineError(
            f"{engine}: '{_name(port)}' is of type {port.get_element_type()}, which has no NumPy type.",
            "Export it with float32 inputs and outputs.",
        ) from error
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    return TensorSpec(_name(port), dtype, shape)


def _name(port: Any) -> str:
    """The name in the ONNX; a port carries more than one where the graph's output is also an inner tensor."""
    name = str(port.get_node().get_friendly_name()).removesuffix(_RESULT_SUFFIX)
    return name if name in port.get_names() else str(port.get_any_name())


def _last_line(error: RuntimeError) -> str:
    """OpenVINO's messages are a stack of lines, the last of which says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip().rstrip(".") + "."
