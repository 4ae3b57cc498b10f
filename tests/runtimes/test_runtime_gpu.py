"""Asking the driver, on machines with and without one; the driver here is a stand-in."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from edpct.errors import EngineError
from edpct.runtimes import gpu
from edpct.runtimes.gpu import GpuDevice, GpuState, probe_gpu, require_gpu


class Driver:
    """libcuda's calls; outputs are written through the pointer given, as the real ones do."""

    def __init__(self, devices: int = 1, init: int = 0) -> None:
        self.devices, self.init = devices, init

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        out._obj.value = 12060
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        out._obj.value = self.devices
        return 0

    def cuDeviceGet(self, out: Any, ordinal: int) -> int:  # noqa: N802
        out._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, out: Any, length: int, device: int) -> int:  # noqa: N802
        out.value = f"GPU {device}".encode()
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> int:  # noqa: N802
        out._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: int) -> int:  # noqa: N802
        out._obj.value = 8 << 30
        return 0

    def cuGetErrorString(self, code: int, out: Any) -> int:  # noqa: N802
        if code == 100:
            out._obj.value = b"no CUDA-capable device is detected"
        return 0 if code == 100 else 1


def with_driver(monkeypatch: pytest.MonkeyPatch, driver: Any) -> GpuState:
    monkeypatch.setattr(gpu, "load_driver", lambda: driver)
    return probe_gpu()


def test_this_machine_gets_an_answer() -> None:
    state = probe_gpu()
    assert state.available == bool(state.devices)
    assert state.available != bool(state.reason)


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libcuda-that-is-not-there.so.1")
    assert probe_gpu() == GpuState(False, "libcuda-that-is-not-there.so.1 is not there")


def test_what_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    state = with_driver(monkeypatch, ctypes.CDLL(None))
    assert state == GpuState(False, f"{gpu.LIBRARY} is not NVIDIA's driver")


def test_a_driver_that_sees_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    state = with_driver(monkeypatch, Driver(init=100))
    assert state.reason == "the CUDA driver says: no CUDA-capable device is detected (100)"
    assert with_driver(monkeypatch, Driver(init=4242)).reason == "the CUDA driver says: error 4242"
    assert with_driver(monkeypatch, Driver(devices=0)) == GpuState(False, "the CUDA driver sees no GPU", "12.6")


def test_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = (GpuDevice("GPU 0", "8.7", 8 << 30), GpuDevice("GPU 1", "8.7", 8 << 30))
    assert with_driver(monkeypatch, Driver(devices=2)) == GpuState(True, "", "12.6", devices)


def test_requiring_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "load_driver", lambda: Driver())
    assert require_gpu(Path("student.plan")).devices[0].compute_capability == "8.7"
    monkeypatch.setattr(gpu, "load_driver", lambda: Driver(init=100))
    with pytest.raises(EngineError, match=r"student\.plan needs an NVIDIA GPU and this machine has none \(the CUDA"):
        require_gpu(Path("student.plan"))
