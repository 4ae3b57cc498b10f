"""A stream's work captured once and launched as one, through the CUDA driver itself: pycuda has no graphs.

Source: CUDA Driver API, sections "Stream Management" (capture) and "Graph Management".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from edpct.errors import EngineError
from edpct.runtimes import gpu

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads' calls do not spoil the capture


class CudaGraph:
    """What ``enqueue`` puts on a stream, as a graph.

    Args:
        enqueue: puts the work on the stream, and must not wait; it has run once before, so that nothing is made or
            compiled while capturing.
        stream: handle of the stream (CUstream as an integer), in the current context.

    Raises:
        EngineError: the work cannot be captured.
    """

    def __init__(self, enqueue: Callable[[], None], stream: int) -> None:
        self._cuda: Any = gpu.load_driver()
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        try:
            gpu.call_driver(self._cuda, "cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
            try:
                enqueue()
            finally:  # a stream left capturing would refuse all later work
                gpu.call_driver(self._cuda, "cuStreamEndCapture", self._stream, ctypes.byref(graph))
            gpu.call_driver(
                self._cuda, "cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0)
            )
        except gpu.DriverError as error:
            raise EngineError(f"The engine cannot be captured as a CUDA graph: {error}.", _WITHOUT) from error
        except AttributeError as error:  # before CUDA 11.4
            raise EngineError("This CUDA driver is too old for CUDA graphs.", _WITHOUT) from error
        finally:
            if graph:
                self._cuda.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put the whole graph on the stream.

        Raises:
            EngineError: the driver refused.
        """
        try:
            gpu.call_driver(self._cuda, "cuGraphLaunch", self._executable, self._stream)
        except gpu.DriverError as error:
            raise EngineError(f"The CUDA graph cannot be launched: {error}.", _WITHOUT) from error

    def close(self) -> None:
        """Free the graph."""
        self._cuda.cuGraphExecDestroy(self._executable)


_WITHOUT = "Run it without CUDA graph (--cuda-graph off)."
