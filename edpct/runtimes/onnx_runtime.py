"""ONNX models on ONNX Runtime: CPU, CUDA or its TensorRT provider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

# The first is the one asked for; what it cannot place goes to the next.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "uint8": np.uint8,
    "int8": np.int8,
    "int32": np.int32,
    "int64": np.int64,
    "bool": np.bool_,
}
_ERRORS_ONLY = 3  # ONNX Runtime's log severity


class OnnxRuntimeSession(Session):
    """An ONNX model opened by ONNX Runtime; inputs and outputs are bound, so that copies are steps of their own."""

    def __init__(self, name: str, inner: Any, runtime: str, device: str) -> None:
        import onnxruntime

        self._onnxruntime: Any = onnxruntime
        self._name = name
        self._inner: Any = inner
        self._binding: Any = inner.io_binding()
        self._held: dict[str, Any] = {}  # the arrays and device buffers that the binding points to
        self.runtime = runtime
        self.device = device
        self.inputs = tuple(_spec(node, name) for node in inner.get_inputs())
        self.outputs = tuple(_spec(node, name) for node in inner.get_outputs())
        self._answered = False
        self.details = {
            "version": onnxruntime.__version__,
            "provider": inner.get_providers()[0],
            "precision": "as the graph says",
            "threads": str(inner.get_session_options().intra_op_num_threads or "default"),
        }

    def bind(self, feeds: Arrays) -> None:
        if self._inner is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        for name, array in feeds.items():
            if self.device == "cpu":
                self._held[name] = readable(array)
                self._binding.bind_cpu_input(name, self._held[name])
            else:
                self._to_gpu(name, readable(array))
        for spec in self.outputs:  # anew: what the last inference wrote stays bound, at the last batch's size
            self._binding.bind_output(spec.name, "cpu" if self.device == "cpu" else "cuda")
        self._answered = False

    def _to_gpu(self, name: str, array: NDArray[Any]) -> None:
        buffer = self._held.get(name)
        if buffer is not None and tuple(buffer.shape()) == array.shape:
            buffer.update_inplace(array)
            return
        with self._explained():
            self._held[name] = self._onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
        self._binding.bind_ortvalue_input(name, self._held[name])

    def execute(self) -> None:
        if self._inner is None:
            raise closed_error(self.runtime)
        with self._explained():
            if self.device != "cpu":
                self._binding.synchronize_inputs()
            self._inner.run_with_iobinding(self._binding)
            if self.device != "cpu":
                self._binding.synchronize_outputs()
        self._answered = True

    def fetch(self) -> Arrays:
        if not self._answered:  # ONNX Runtime would end the process
            raise not_run_error(self.runtime)
        answers = self._binding.copy_outputs_to_cpu()
        return {spec.name: answer for spec, answer in zip(self.outputs, answers, strict=True)}

    def run(self, feeds: Arrays) -> Arrays:
        if self.device != "cpu":
            return super().run(feeds)
        if self._inner is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        with self._explained():  # hands over ONNX Runtime's own buffers, which a binding would copy
            answers = self._inner.run(None, {name: readable(array) for name, array in feeds.items()})
        return {spec.name: answer for spec, answer in zip(self.outputs, answers, strict=True)}

    def fork(self) -> Session:
        if self._inner is None:
            raise closed_error(self.runtime)
        return OnnxRuntimeSession(self._name, self._inner, self.runtime, self.device)

    def close(self) -> None:
        self._inner = self._binding = None
        self._answered = False
        self._held.clear()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """ONNX Runtime's exceptions, which have no common base, as ours."""
        try:
            yield
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed on {self._name}: {_first_line(error)}",
                "Check memory, or try another runtime.",
            ) from error


def open_session(path: Path, *, runtime: Runtime, device: str, options: Options) -> Session:
    """Open an ONNX model; with several streams, that many run at once and share the threads.

    Raises:
        EngineError: the file is no whole ONNX model, or another provider than the device's would run it.
    """
    import onnxruntime

    return OnnxRuntimeSession(path.name, _open(onnxruntime, path, device, options.threads), runtime.name, device)


def _open(onnxruntime: Any, path: Path, device: str, threads: int) -> Any:
    providers = _PROVIDERS[device]
    # Asked first: ONNX Runtime itself would warn and go on with the CPU.
    _require_provider(providers[0], onnxruntime.get_available_providers(), device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=list(providers))
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot open {path.name}: {_first_line(error)}",
            "If it was copied, copy it again; otherwise export it again.",
        ) from error
    _require_provider(providers[0], session.get_providers()[:1], device)
    return session


def _require_provider(wanted: str, offered: list[str], device: str) -> None:
    if wanted not in offered:
        raise EngineError(
            f"ONNX Runtime was asked for {wanted} (device '{device}') and would run on {offered[-1]}.",
            "Use the device cpu; for a GPU, install onnxruntime-gpu in place of onnxruntime.",
        )


def _spec(node: Any, name: str) -> TensorSpec:
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise EngineError(
            f"{name}: '{node.name}' is of type {node.type}, which has no NumPy type.",
            "Export it with float32 inputs and outputs.",
        )
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorSpec(node.name, np.dtype(_DTYPES[kind]), shape)


def _first_line(error: Exception) -> str:
    """``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : text`` without what stands before the text."""
    line = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    return line.split(" : ")[-1].rstrip(".") + "."
