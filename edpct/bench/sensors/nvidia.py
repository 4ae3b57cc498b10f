"""A desktop's NVIDIA GPU through NVML, the driver's own library, by way of the package nvidia-ml-py (module pynvml).

Nothing is imported before the driver is seen below the root. Any query may be one that this GPU does not support; its
value is missing then. A Jetson is left to :mod:`edpct.bench.sensors.jetson`, whose board total has the GPU inside.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from edpct.bench.sensors.jetson import is_jetson
from edpct.bench.sensors.sensor import Found, Sample

DRIVER = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg")  # the last is WSL's
# Reasons (NVML API Reference, "NvmlClocksEventReasons") that mean: it wanted to run faster and was not let.
# Power cap 0x4, hardware slow-down 0x8 (older GPUs say only this), thermal in software 0x20 and in hardware 0x40, power
# brake 0x80. Not counted, as no fault of the machine's: idle 0x1, clocks set by the user 0x2, sync boost 0x10, display
# 0x100; nor the newer board limit 0x200 and reliability 0x400, which bound the boost of a healthy GPU too.
THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")  # new name, old name


class NvidiaSensor:
    """One GPU.

    Energy is the GPU's own counter (Volta and newer), else its power, which from Ampere on is the mean of the last
    second: a turn of a few seconds is right, a shorter one lags.
    """

    title = "NVML"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle
        self.source = f"NVML {self._ask('nvmlDeviceGetName') or 'GPU'}"
        self.energy = self._ask("nvmlDeviceGetTotalEnergyConsumption") is not None
        self.power = not self.energy and self._ask("nvmlDeviceGetPowerUsage") is not None
        self.reasons = next((name for name in REASONS if self._ask(name) is not None), None)

    def sample(self) -> Sample:
        """Energy or power, temperature, clocks and throttle reasons now.

        Raises:
            pynvml.NVMLError: energy or power was told before and is not any more.
        """
        nvml, handle = self.nvml, self.handle
        temperature = self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
        kinds = {"gpu": nvml.NVML_CLOCK_SM, "gpu memory": nvml.NVML_CLOCK_MEM}
        clocks = {name: self._ask("nvmlDeviceGetClockInfo", kind) for name, kind in kinds.items()}
        reasons = self._ask(self.reasons) if self.reasons else None
        return Sample(
            joules={self.source: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000} if self.energy else {},
            watts={self.source: nvml.nvmlDeviceGetPowerUsage(handle) / 1000} if self.power else {},
            temperatures={} if temperature is None else {self.source: float(temperature)},
            clocks={name: float(clock) for name, clock in clocks.items() if clock is not None},
            throttled=None if reasons is None else bool(reasons & THROTTLED),
        )

    def counters(self) -> dict[str, int]:
        """NVML tells reasons, no counts."""
        return {}

    def settings(self) -> dict[str, str]:
        """Persistence mode and the power limit in force."""
        persistence = self._ask("nvmlDeviceGetPersistenceMode")
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        found = {} if persistence is None else {"persistence mode": "on" if persistence else "off"}
        return found if limit is None else {**found, "gpu power limit": f"{limit / 1000:.0f} W"}

    def _ask(self, function: str, *arguments: Any) -> Any:
        """What NVML answers, or None where it has no answer or an older package has no such function."""
        try:
            return getattr(self.nvml, function)(self.handle, *arguments)
        except (self.nvml.NVMLError, AttributeError):
            return None


def find_nvidia(root: Path) -> Found:
    """The GPU that CUDA would take, and notes where the driver is there and something else is missing."""
    if not _driver_is_there(root):
        return Found()
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return Found(None, ("The GPU's power and clocks are not read without NVML: pip install nvidia-ml-py",))
    try:
        nvml.nvmlInit()  # never shut down: the sensor lives as long as its process needs it
        count = nvml.nvmlDeviceGetCount()
        return Found(NvidiaSensor(nvml, _handle(nvml)), _notes(count)) if count else Found()
    except nvml.NVMLError as error:
        return Found(None, (f"The NVIDIA driver is there and NVML does not answer: {error}.",))


def device_memory_used(root: Path = Path("/")) -> int | None:
    """Bytes in use on the GPU that CUDA would take, by all processes together.

    None without a GPU, without the package, and on a Jetson, whose GPU has no memory of its own. Raises nothing.
    """
    if not _driver_is_there(root):
        return None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        used = int(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml)).used)
        nvml.nvmlShutdown()  # counted by NVML: a sensor's own start outlives this
    except nvml.NVMLError:
        return None
    return used


def _driver_is_there(root: Path) -> bool:
    return not is_jetson(root) and any((root / path).exists() for path in DRIVER)


def _handle(nvml: Any) -> Any:
    """The first of CUDA_VISIBLE_DEVICES, else the first in NVML's order, which is that of the PCI bus."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def _notes(count: int) -> tuple[str, ...]:
    if count < 2 or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return ()
    settings = "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0"
    return (f"Of {count} GPUs the first on the PCI bus is watched; to be sure that it is the one at work: {settings}",)
