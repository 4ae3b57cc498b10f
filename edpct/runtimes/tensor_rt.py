"""Plans on TensorRT and on TensorRT for RTX, which share one Python API.

Written against TensorRT 10 (JetPack 6), TensorRT 11 and TensorRT for RTX 1.7. No TensorRT object is made
before the driver has shown a GPU and the sidecar has vouched for the plan: without a driver TensorRT ends the
process.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edpct.errors import EngineError
from edpct.runtimes.gpu import GpuDevice, require_gpu
from edpct.runtimes.session import Arrays, Session, TensorSpec, check_feeds, closed_error
from edpct.runtimes.sidecar import Sidecar, load_plan

if TYPE_CHECKING:
    from edpct.runtimes.table import Runtime


@dataclass(frozen=True)
class _Buffer:
    """One tensor of the engine: page-locked host memory, and device memory of as many bytes."""

    spec: TensorSpec
    host: NDArray[Any]
    device: Any


class TensorRTSession(Session):
    """A plan on the first GPU, with one stream and buffers made once.

    Attributes:
        compute_ms: milliseconds that the last inference spent on the GPU, by CUDA events, without the copies
            to and from it; NaN before the first.
    """

    def __init__(self, path: Path, runtime: Runtime, gpu: GpuDevice, sidecar: Sidecar, plan: bytes) -> None:
        import pycuda.driver as cuda

        self.runtime = runtime.name
        self.device = "cuda"
        self.compute_ms = float("nan")
        self._name = path.name
        self._cuda: Any = cuda
        self._execution: Any = None
        trt = importlib.import_module(runtime.packages[0])
        cuda.init()
        self._context: Any = cuda.Device(0).retain_primary_context()
        with self._on_gpu():
            self._open(trt, plan)
        self.details = {
            "version": str(trt.__version__),
            "provider": f"{runtime.title} on {gpu.name} (compute capability {gpu.compute_capability})",
            "precision": sidecar.precision,
        }

    def _open(self, trt: Any, plan: bytes) -> None:
        self._log: Any = _make_log(trt)  # must outlive the runtime
        self._deserialiser: Any = trt.Runtime(self._log)  # must outlive the engine
        self._engine: Any = self._deserialiser.deserialize_cuda_engine(plan)
        self._execution = self._engine.create_execution_context() if self._engine is not None else None
        if self._execution is None:
            raise EngineError(
                f"TensorRT refused {self._name}: {self._log.last_error}", "Build it again on this machine."
            )
        self._stream = self._cuda.Stream()
        self._start, self._stop = self._cuda.Event(), self._cuda.Event()
        self._inputs = self._allocate(trt, trt.TensorIOMode.INPUT)
        self._outputs = self._allocate(trt, trt.TensorIOMode.OUTPUT)
        self.inputs = tuple(buffer.spec for buffer in self._inputs)
        self.outputs = tuple(buffer.spec for buffer in self._outputs)

    def _allocate(self, trt: Any, mode: Any) -> tuple[_Buffer, ...]:
        """Buffers of all inputs or all outputs, their addresses told to the engine."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        buffers = []
        for name in (name for name in names if self._engine.get_tensor_mode(name) == mode):
            spec = _spec(trt, self._engine, name, self._name)
            host = self._cuda.pagelocked_empty(spec.shape, spec.dtype)
            device = self._cuda.mem_alloc(host.nbytes)
            self._execution.set_tensor_address(name, int(device))
            buffers.append(_Buffer(spec, host, device))
        return tuple(buffers)

    def run(self, feeds: Arrays) -> Arrays:
        if self._execution is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        with self._on_gpu():
            for buffer in self._inputs:
                np.copyto(buffer.host, feeds[buffer.spec.name])
                self._cuda.memcpy_htod_async(buffer.device, buffer.host, self._stream)
            self._infer()
            for buffer in self._outputs:
                self._cuda.memcpy_dtoh_async(buffer.host, buffer.device, self._stream)
            self._stream.synchronize()
            self.compute_ms = float(self._stop.time_since(self._start))
        return {buffer.spec.name: np.array(buffer.host) for buffer in self._outputs}

    def _infer(self) -> None:
        self._start.record(self._stream)
        accepted = self._execution.execute_async_v3(self._stream.handle)
        self._stop.record(self._stream)
        if not accepted:
            self._stream.synchronize()
            raise EngineError(
                f"TensorRT failed on {self._name}: {self._log.last_error}", "Build it again on this machine."
            )

    def close(self) -> None:
        if self._execution is None:
            return
        with self._on_gpu():
            for buffer in self._inputs + self._outputs:
                buffer.device.free()
            self._inputs = self._outputs = ()
            # In the reverse order of making: TensorRT asks for it.
            self._execution = self._engine = self._deserialiser = None
            self._start = self._stop = self._stream = None

    @contextmanager
    def _on_gpu(self) -> Iterator[None]:
        """Make the GPU's primary context current, on whichever thread; CUDA's errors become ours."""
        self._context.push()
        try:
            yield
        except self._cuda.Error as error:
            raise EngineError(f"CUDA failed on {self._name}: {error}.", "Check the GPU with nvidia-smi.") from error
        finally:
            self._context.pop()


def open_session(path: Path, *, runtime: Runtime, device: str, threads: int) -> Session:
    """Open a plan on the first GPU; ``device`` and ``threads`` have nothing to choose here.

    Raises:
        EngineError: no GPU; a sidecar that is missing or names another builder, version, system or GPU; a
            plan that is not the sidecar's; TensorRT or CUDA failed.
    """
    gpu = require_gpu(path).devices[0]
    version = str(importlib.import_module(runtime.packages[0]).__version__)
    sidecar, plan = load_plan(path, builder=runtime.name, version=version, compute_capability=gpu.compute_capability)
    return TensorRTSession(path, runtime, gpu, sidecar, plan)


def _spec(trt: Any, engine: Any, name: str, plan: str) -> TensorSpec:
    shape = tuple(engine.get_tensor_shape(name))
    if min(shape, default=0) < 0:
        raise EngineError(
            f"{plan}: the shape of '{name}' is open.", "Export the ONNX at a fixed size and build it again."
        )
    try:
        return TensorSpec(name, np.dtype(trt.nptype(engine.get_tensor_dtype(name))), shape)
    except TypeError as error:
        raise EngineError(
            f"{plan}: the type of '{name}' has no NumPy type.", "Export it with float32 inputs and outputs."
        ) from error


def _make_log(trt: Any) -> Any:
    """A TensorRT logger that keeps the last error, for the message, and prints nothing."""

    class LastError(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = "no reason given."

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.last_error = message.strip().split("\n", 1)[0]

    return LastError()
