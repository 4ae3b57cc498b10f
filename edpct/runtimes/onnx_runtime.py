"""ONNX models on ONNX Runtime: CPU, CUDA or its TensorRT provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edpct.errors import EngineError
from edpct.runtimes.session import Arrays, Session, TensorSpec, check_feeds, closed_error

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
    """An ONNX model opened by ONNX Runtime."""

    def __init__(self, path: Path, runtime: Runtime, device: str, threads: int) -> None:
        import onnxruntime

        self._name = path.name
        self._inner: Any = _open(onnxruntime, path, device, threads)
        self.runtime = runtime.name
        self.device = device
        self.inputs = tuple(_spec(node, path) for node in self._inner.get_inputs())
        self.outputs = tuple(_spec(node, path) for node in self._inner.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]
        self.details = {
            "version": onnxruntime.__version__,
            "provider": self._inner.get_providers()[0],
            "precision": "as the graph says",
            "threads": str(self._inner.get_session_options().intra_op_num_threads or "default"),
        }

    def run(self, feeds: Arrays) -> Arrays:
        if self._inner is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        try:
            answers = self._inner.run(self._output_names, feeds)
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed on {self._name}: {_first_line(error)}",
                "Check memory, or try another runtime.",
            ) from error
        return dict(zip(self._output_names, answers, strict=True))

    def close(self) -> None:
        self._inner = None


def open_session(path: Path, *, runtime: Runtime, device: str, threads: int) -> Session:
    """Open an ONNX model.

    Raises:
        EngineError: the file is no whole ONNX model, or another provider than the device's would run it.
    """
    return OnnxRuntimeSession(path, runtime, device, threads)


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


def _spec(node: Any, path: Path) -> TensorSpec:
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise EngineError(
            f"{path.name}: '{node.name}' is of type {node.type}, which has no NumPy type.",
            "Export it with float32 inputs and outputs.",
        )
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorSpec(node.name, np.dtype(_DTYPES[kind]), shape)


def _first_line(error: Exception) -> str:
    """``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : text`` without what stands before the text."""
    line = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    return line.split(" : ")[-1].rstrip(".") + "."
