"""Is there an NVIDIA GPU? Asked of the driver itself, before any TensorRT object is made.

Without a driver TensorRT's ``Runtime(...)`` hands back an object around a null pointer and the process dies
of a segmentation fault, so nothing of TensorRT is touched until libcuda has answered.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpct.errors import EngineError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class GpuDevice:
    """One GPU: its name, compute capability ("8.7") and memory in bytes."""

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class GpuState:
    """What the driver answered.

    Attributes:
        available: at least one GPU can be used.
        reason: why not, as part of a sentence; empty where available.
        driver: highest CUDA version that the driver serves ("12.6"); empty without a driver.
        devices: in the driver's order.
    """

    available: bool
    reason: str = ""
    driver: str = ""
    devices: tuple[GpuDevice, ...] = ()


class DriverError(Exception):
    """A call of the driver returned an error."""


def probe_gpu() -> GpuState:
    """Ask the CUDA driver for its devices; raises nothing."""
    try:
        cuda = load_driver()
    except OSError:
        return GpuState(False, f"{LIBRARY} is not there")
    try:
        return _ask(cuda)
    except DriverError as error:
        return GpuState(False, f"the CUDA driver says: {error}")
    except AttributeError:  # a symbol is missing: a stub or something else of that name
        return GpuState(False, f"{LIBRARY} is not NVIDIA's driver")


def require_gpu(engine: Path) -> GpuState:
    """The GPU that an engine needs.

    Raises:
        EngineError: there is none; the hint says what can be done on this machine.
    """
    state = probe_gpu()
    if state.available:
        return state
    onnx = engine.with_suffix(".onnx")
    source = str(onnx) if onnx.exists() else "<that>.onnx"
    raise EngineError(
        f"{engine.name} needs an NVIDIA GPU and this machine has none ({state.reason}).",
        "Run it on a machine with a GPU, or bench the ONNX it was built from on the CPU: "
        f"edpct bench --engine {source}",
    )


def load_driver() -> Any:
    """The CUDA driver's library; OSError where there is none."""
    return ctypes.CDLL(LIBRARY)


def _ask(cuda: Any) -> GpuState:
    call_driver(cuda, "cuInit", 0)
    driver = _version_text(_get_int(cuda, "cuDriverGetVersion"))
    count = _get_int(cuda, "cuDeviceGetCount")
    if count == 0:
        return GpuState(False, "the CUDA driver sees no GPU", driver)
    return GpuState(True, "", driver, tuple(_describe(cuda, ordinal) for ordinal in range(count)))


def _describe(cuda: Any, ordinal: int) -> GpuDevice:
    device = _get_int(cuda, "cuDeviceGet", ordinal)
    name = ctypes.create_string_buffer(256)
    call_driver(cuda, "cuDeviceGetName", name, len(name), device)
    major = _get_int(cuda, "cuDeviceGetAttribute", _CAPABILITY_MAJOR, device)
    minor = _get_int(cuda, "cuDeviceGetAttribute", _CAPABILITY_MINOR, device)
    memory = ctypes.c_size_t()
    call_driver(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return GpuDevice(name.value.decode(errors="replace"), f"{major}.{minor}", memory.value)


def _get_int(cuda: Any, function: str, *arguments: int) -> int:
    """The int that a driver function writes through its first argument."""
    value = ctypes.c_int()
    call_driver(cuda, function, ctypes.byref(value), *arguments)
    return value.value


def call_driver(cuda: Any, function: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        DriverError: it returned an error.
    """
    code = getattr(cuda, function)(*arguments)
    if code != 0:
        raise DriverError(_error_text(cuda, code))


def _error_text(cuda: Any, code: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return f"{text.value.decode(errors='replace')} ({code})" if text.value else f"error {code}"


def _version_text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
