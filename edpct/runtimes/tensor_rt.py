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
from edpct.runtimes.cuda_graph import CudaGraph
from edpct.runtimes.gpu import GpuDevice, require_gpu
from edpct.runtimes.rtx_cache import RuntimeCache, cache_path
from edpct.runtimes.session import Arrays, Options, Session, TensorSpec, check_feeds, closed_error, not_run_error
from edpct.runtimes.sidecar import Sidecar, load_plan

if TYPE_CHECKING:
    import tensorrt

    from edpct.runtimes.table import Runtime


@dataclass(frozen=True)
class _Buffer:
    """One tensor of the engine: page-locked host memory and device memory, both for the largest batch."""

    spec: TensorSpec
    host: NDArray[Any]
    device: Any


class _Engine:
    """A deserialised plan and the GPU's primary context; the requests of one plan share it."""

    def __init__(self, path: Path, runtime: Runtime, gpu: GpuDevice, sidecar: Sidecar | None, plan: bytes) -> None:
        import pycuda.driver as cuda

        self.name = path.name
        self.runtime = runtime.name
        self.cuda: Any = cuda
        self.trt: Any = importlib.import_module(runtime.packages[0])
        self.details = {
            "version": str(self.trt.__version__),
            "provider": f"{runtime.title} on {gpu.name} (compute capability {gpu.compute_capability})",
            "precision": "unknown" if sidecar is None else sidecar.precision,
        }
        cuda.init()
        self._context: Any = cuda.Device(0).retain_primary_context()
        self.log: Any = _make_log(self.trt)  # must outlive the runtime
        self._deserialiser: tensorrt.Runtime = self.trt.Runtime(self.log)  # must outlive the engine
        # A version-compatible plan brings host code, which a hash or the user has vouched for by now.
        if sidecar is None or sidecar.version_compatible:
            self._deserialiser.engine_host_code_allowed = True
        with self.on_gpu():
            self.inner: tensorrt.ICudaEngine = self._deserialiser.deserialize_cuda_engine(plan)
            if self.inner is None:
                raise self.refused()
            self._kernels: RuntimeCache | None = None
            if runtime.name == "tensorrt-rtx":
                self._kernels = RuntimeCache(self.inner, cache_path(plan))
                self.details["kernels"] = "kept from before" if self._kernels.warm else "compiled now"

    def create_execution_context(self) -> tensorrt.IExecutionContext | None:
        """One request's; None where memory does not suffice."""
        if self._kernels is not None:
            return self._kernels.create_execution_context(self.inner)
        return self.inner.create_execution_context()

    def refused(self) -> EngineError:
        return EngineError(f"TensorRT refused {self.name}: {self.log.last_error}", "Build it again on this machine.")

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """Make the GPU's primary context current, on whichever thread; CUDA's errors become ours."""
        self._context.push()
        try:
            yield
        except self.cuda.Error as error:
            raise EngineError(f"CUDA failed on {self.name}: {error}.", "Check the GPU with nvidia-smi.") from error
        finally:
            self._context.pop()

    def close(self) -> None:
        with self.on_gpu():
            if self._kernels is not None:
                self._kernels.save()
                self._kernels.close()
            del self.inner, self._deserialiser  # in this order, the reverse of making: TensorRT asks for it


class TensorRTSession(Session):
    """One request of a plan on the first GPU: an execution context, a stream, and buffers made once.

    Args:
        owner: whether closing this request closes the engine: true for the first, false for its forks.
        cuda_graph: launch the engine as one CUDA graph.
    """

    def __init__(self, engine: _Engine, cuda_graph: bool, owner: bool = True) -> None:
        self.runtime, self.device, self.details = engine.runtime, "cuda", engine.details
        self._shared = engine
        self._owner = owner
        self._wants_graph = cuda_graph
        self._graph: CudaGraph | None = None
        self._cuda: Any = engine.cuda
        self._most = _largest_batch(engine)
        self._batch = 0  # of what is bound; 0: nothing is
        self._answered = False
        with engine.on_gpu():
            self._execution: tensorrt.IExecutionContext = engine.create_execution_context()  # type: ignore[assignment]
            if self._execution is None:
                raise engine.refused()
            self._stream: Any = self._cuda.Stream()
            self._start, self._stop = self._cuda.Event(), self._cuda.Event()
            self._inputs = self._allocate(engine.trt.TensorIOMode.INPUT)
            self._outputs = self._allocate(engine.trt.TensorIOMode.OUTPUT)
        self.inputs = tuple(buffer.spec for buffer in self._inputs)
        self.outputs = tuple(buffer.spec for buffer in self._outputs)

    def _allocate(self, mode: Any) -> tuple[_Buffer, ...]:
        """Buffers of all inputs or all outputs, their addresses told to the engine."""
        inner = self._shared.inner
        names = [inner.get_tensor_name(index) for index in range(inner.num_io_tensors)]
        buffers = []
        for name in (name for name in names if inner.get_tensor_mode(name) == mode):
            spec = _spec(self._shared.trt, inner, name, self._shared.name)
            host = self._cuda.pagelocked_empty((spec.shape[0] or self._most, *spec.shape[1:]), spec.dtype)
            device = self._cuda.mem_alloc(host.nbytes)
            self._execution.set_tensor_address(name, int(device))
            buffers.append(_Buffer(spec, host, device))
        return tuple(buffers)

    def bind(self, feeds: Arrays) -> None:
        if self._execution is None:
            raise closed_error(self.runtime)
        check_feeds(self.inputs, feeds)
        batch = len(feeds[self.inputs[0].name])
        if self._most and batch > self._most:
            raise EngineError(
                f"{self._shared.name} takes batches of up to {self._most} and was given {batch}.", "Give fewer images."
            )
        with self._shared.on_gpu():
            if batch != self._batch:
                self._resize(feeds, batch)
            for buffer in self._inputs:
                host = buffer.host[:batch]
                np.copyto(host, feeds[buffer.spec.name])
                self._cuda.memcpy_htod_async(buffer.device, host, self._stream)
        self._answered = False

    def _resize(self, feeds: Arrays, batch: int) -> None:
        """Tell the engine another batch; a graph was captured for the former one."""
        self._drop_graph()
        for buffer in self._inputs:
            if buffer.spec.shape[0] is None:
                self._execution.set_input_shape(buffer.spec.name, feeds[buffer.spec.name].shape)
        self._batch = batch

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def execute(self) -> None:
        if self._execution is None:
            raise closed_error(self.runtime)
        if not self._batch:
            raise not_run_error(self.runtime)
        with self._shared.on_gpu():
            if self._wants_graph and self._graph is None:
                self._enqueue()  # once without: what the engine makes or compiles at its first run is not captured
                self._stream.synchronize()
                self._graph = CudaGraph(self._enqueue, self._stream.handle)
            launch = self._enqueue if self._graph is None else self._graph.launch
            self._start.record(self._stream)
            launch()
            self._stop.record(self._stream)
            self._stream.synchronize()
            self.device_ms = float(self._stop.time_since(self._start))
        self._answered = True

    def _enqueue(self) -> None:
        if not self._execution.execute_async_v3(self._stream.handle):
            raise EngineError(
                f"TensorRT failed on {self._shared.name}: {self._shared.log.last_error}",
                "Build it again on this machine.",
            )

    def fetch(self) -> Arrays:
        if not self._answered:
            raise not_run_error(self.runtime)
        with self._shared.on_gpu():
            for buffer in self._outputs:
                self._cuda.memcpy_dtoh_async(buffer.host[: self._batch], buffer.device, self._stream)
            self._stream.synchronize()
        return {buffer.spec.name: np.array(buffer.host[: self._batch]) for buffer in self._outputs}

    def fork(self) -> Session:
        if self._execution is None:
            raise closed_error(self.runtime)
        return TensorRTSession(self._shared, self._wants_graph, owner=False)

    def close(self) -> None:
        if self._execution is None:
            return
        with self._shared.on_gpu():
            self._drop_graph()
            for buffer in self._inputs + self._outputs:
                buffer.device.free()
            self._inputs = self._outputs = ()
            self._execution = self._start = self._stop = self._stream = None  # type: ignore[assignment]
        self._answered = False
        if self._owner:
            self._shared.close()


def open_session(path: Path, *, runtime: Runtime, device: str, options: Options) -> Session:
    """Open a plan on the first GPU; ``device`` has nothing to choose here.

    Raises:
        EngineError: no GPU; a sidecar that names another builder, version, system or GPU; one that is missing, or a
            plan that is not the sidecar's, where it is not trusted; TensorRT or CUDA failed.
    """
    gpu = require_gpu(path).devices[0]
    version = str(importlib.import_module(runtime.packages[0]).__version__)
    sidecar, plan = load_plan(path, builder=runtime.name, version=version, compute_capability=gpu.compute_capability)
    return TensorRTSession(_Engine(path, runtime, gpu, sidecar, plan), options.cuda_graph)


def _largest_batch(engine: _Engine) -> int:
    """The most images that a plan with an open batch axis takes; 0 where its batch is fixed."""
    inner = engine.inner
    name = inner.get_tensor_name(0)
    return int(inner.get_tensor_profile_shape(name, 0)[2][0]) if inner.get_tensor_shape(name)[0] < 0 else 0


def _spec(trt: Any, engine: tensorrt.ICudaEngine, name: str, plan: str) -> TensorSpec:
    dims = engine.get_tensor_shape(name)
    batch, *rest = (int(dims[axis]) for axis in range(len(dims)))
    if min(rest, default=0) < 0:
        raise EngineError(
            f"{plan}: the shape of '{name}' is open.", "Export the ONNX at a fixed size and build it again."
        )
    shape = (None if batch < 0 else batch, *rest)
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
