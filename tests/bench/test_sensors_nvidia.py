"""NVML through the real nvidia-ml-py, calling into a small library compiled here in the driver's place."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edpct.bench.sensors.monitor import Monitor
from edpct.bench.sensors.nvidia import NvidiaSensor, device_memory_used, find_nvidia
from edpct.bench.sensors.sensor import Found, Sample

# Every query writes `value` or refuses with `refusal` (nvmlReturn_t), both set from the tests by name.
SOURCE = """
#include <string.h>
typedef unsigned int u32; typedef unsigned long long u64;
#define QUERY(name, type) \\
    type name##_value; int name##_refusal; \\
    int name(void *device, type *out) { *out = name##_value; return name##_refusal; }
QUERY(nvmlDeviceGetPowerUsage, u32)
QUERY(nvmlDeviceGetTotalEnergyConsumption, u64)
QUERY(nvmlDeviceGetPersistenceMode, u32)
QUERY(nvmlDeviceGetEnforcedPowerLimit, u32)
QUERY(nvmlDeviceGetCurrentClocksEventReasons, u64)
QUERY(nvmlDeviceGetCurrentClocksThrottleReasons, u64)
int init_refusal; u32 devices = 1; u32 clocks[4]; int clocks_refusal; u32 degrees; u64 used;
int nvmlInitWithFlags(u32 flags) { return init_refusal; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "refused"; }
int nvmlDeviceGetCount_v2(u32 *out) { *out = devices; return 0; }
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **out) { *out = &devices; return index < devices ? 0 : 2; }
int nvmlDeviceGetName(void *device, char *out, u32 length) { strncpy(out, "NVIDIA RTX Made", length); return 0; }
int nvmlDeviceGetTemperature(void *device, u32 sensor, u32 *out) { *out = degrees; return 0; }
int nvmlDeviceGetClockInfo(void *device, u32 kind, u32 *out) { *out = clocks[kind]; return clocks_refusal; }
int nvmlDeviceGetMemoryInfo(void *device, u64 *out) { out[0] = 1000; out[1] = 1000 - used; out[2] = used; return 0; }
"""
NOT_SUPPORTED, DRIVER_NOT_LOADED = 3, 9
NAME = "NVML NVIDIA RTX Made"
SM, MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM


class FakeDriver:
    """The compiled library; its variables are set by name."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def set(self, name: str, value: int, kind: Any = ctypes.c_uint) -> None:
        kind.in_dll(self.library, name).value = value

    def set_energy(self, millijoules: int) -> None:
        self.set("nvmlDeviceGetTotalEnergyConsumption_value", millijoules, ctypes.c_ulonglong)

    def set_reasons(self, bits: int) -> None:
        self.set("nvmlDeviceGetCurrentClocksEventReasons_value", bits, ctypes.c_ulonglong)

    def refuse(self, function: str, code: int = NOT_SUPPORTED) -> None:
        self.set(f"{function}_refusal", code)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-o", "libnvidia-ml.so.1", "nvml.c"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "libnvidia-ml.so.1"


@pytest.fixture
def driver(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """The library fresh from a copy, so that no test sees another's values, in the place of the real one."""
    pynvml = pytest.importorskip("pynvml")
    library = ctypes.CDLL(str(shutil.copy(compiled, tmp_path / "libnvidia-ml.so.1")))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = FakeDriver(library)
    fake.set_energy(90_000)
    fake.set("degrees", 63)
    (ctypes.c_uint * 4).in_dll(library, "clocks")[:] = [0, 1905, 9501, 0]
    fake.set("nvmlDeviceGetPersistenceMode_value", 1)
    fake.set("nvmlDeviceGetEnforcedPowerLimit_value", 450_000)
    return fake


@pytest.fixture
def desktop(tmp_path: Path) -> Path:
    """A root where the driver shows."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    return tmp_path


def sensor_of(found: Found) -> NvidiaSensor:
    assert isinstance(found.sensor, NvidiaSensor)
    return found.sensor


def test_everything_that_a_gpu_tells(driver: FakeDriver, desktop: Path) -> None:
    """Millijoules, degrees, MHz, milliwatts."""
    found = find_nvidia(desktop)
    assert found.notes == ()
    sensor = sensor_of(found)
    assert sensor.sample() == Sample(
        joules={NAME: 90.0}, temperatures={NAME: 63.0}, clocks={"gpu": 1905.0, "gpu memory": 9501.0}, throttled=False
    )
    assert sensor.settings() == {"persistence mode": "on", "gpu power limit": "450 W"}
    assert sensor.counters() == {}


def test_power_where_energy_is_not_counted(driver: FakeDriver, desktop: Path) -> None:
    driver.refuse("nvmlDeviceGetTotalEnergyConsumption")
    driver.set("nvmlDeviceGetPowerUsage_value", 215_500)
    sample = sensor_of(find_nvidia(desktop)).sample()
    assert (sample.joules, sample.watts) == ({}, {NAME: 215.5})


def test_what_is_not_supported_is_missing(driver: FakeDriver, desktop: Path) -> None:
    """Both names of the reasons, energy, power, clocks and settings refused: the temperature is left."""
    for function in ("TotalEnergyConsumption", "PowerUsage", "PersistenceMode", "EnforcedPowerLimit"):
        driver.refuse(f"nvmlDeviceGet{function}")
    driver.refuse("nvmlDeviceGetCurrentClocksEventReasons")
    driver.refuse("nvmlDeviceGetCurrentClocksThrottleReasons")
    driver.refuse("clocks")
    sensor = sensor_of(find_nvidia(desktop))
    assert sensor.sample() == Sample(temperatures={NAME: 63.0})
    assert sensor.settings() == {}


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        pytest.param(0x1, False, id="idle"),
        pytest.param(0x2 | 0x10 | 0x100, False, id="clocks that somebody set"),
        pytest.param(0x200 | 0x400, False, id="limits of any boost"),
        pytest.param(0x4, True, id="power cap"),
        pytest.param(0x8, True, id="hardware slow-down"),
        pytest.param(0x1 | 0x20, True, id="thermal, software"),
        pytest.param(0x40, True, id="thermal, hardware"),
        pytest.param(0x80, True, id="power brake"),
    ],
)
def test_which_reasons_are_throttling(driver: FakeDriver, desktop: Path, bits: int, expected: bool) -> None:
    driver.set_reasons(bits)
    assert sensor_of(find_nvidia(desktop)).sample().throttled is expected


def test_reasons_by_their_older_name(driver: FakeDriver, desktop: Path) -> None:
    driver.refuse("nvmlDeviceGetCurrentClocksEventReasons", code=13)  # NVML_ERROR_FUNCTION_NOT_FOUND
    driver.set("nvmlDeviceGetCurrentClocksThrottleReasons_value", 0x40, ctypes.c_ulonglong)
    assert sensor_of(find_nvidia(desktop)).sample().throttled is True


def test_watched_beside_a_processor(driver: FakeDriver, desktop: Path) -> None:
    """The GPU used 12 J, the package 3 J: 15 J in all, over 5 frames 3 J each."""
    zone = desktop / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "1000000"), ("max_energy_range_uj", "262143328850")):
        (zone / name).write_text(text, encoding="utf-8")
    with Monitor(desktop, interval=60).watch() as watch:
        driver.set_energy(102_000)
        (zone / "energy_uj").write_text("4000000", encoding="utf-8")
    state = watch.state(frames=5)
    assert state.joules_per_frame == pytest.approx(3.0)
    assert state.watts == pytest.approx(15 / watch.watched().seconds)
    assert state.sources[0] == f"power: RAPL package-0 + {NAME}"
    assert state.throttled == "no"


def test_a_gpu_that_is_lost_while_watched(driver: FakeDriver, desktop: Path) -> None:
    with Monitor(desktop, interval=60).watch() as watch:
        driver.refuse("nvmlDeviceGetTotalEnergyConsumption", code=15)  # NVML_ERROR_GPU_IS_LOST
    state = watch.state(frames=5)
    assert (state.watts, state.joules_per_frame, state.throttled) == (None, None, "unknown")
    assert state.temperature == 63.0  # from before
    assert state.notes == (
        "NVML stopped answering: GPU is lost.",
        f"The power of {NAME} is not counted: it did not answer all the time.",
    )


def test_memory_in_use(driver: FakeDriver, desktop: Path) -> None:
    driver.set("used", 640, ctypes.c_ulonglong)
    assert device_memory_used(desktop) == 640
    driver.set("init_refusal", DRIVER_NOT_LOADED)
    assert device_memory_used(desktop) is None


@pytest.mark.parametrize(("visible", "there"), [("1", True), ("1,0", True), ("", True), ("7", False)])
def test_the_gpu_that_cuda_takes(
    driver: FakeDriver, desktop: Path, monkeypatch: pytest.MonkeyPatch, visible: str, there: bool
) -> None:
    driver.set("devices", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (find_nvidia(desktop).sensor is not None) is there


def test_several_gpus(driver: FakeDriver, desktop: Path) -> None:
    driver.set("devices", 2)
    (note,) = find_nvidia(desktop).notes
    assert note.startswith("Of 2 GPUs the first on the PCI bus is watched; to be sure that it is the one at work: ")
    assert note.endswith("CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0")


def test_a_driver_that_does_not_start(driver: FakeDriver, desktop: Path) -> None:
    driver.set("init_refusal", DRIVER_NOT_LOADED)
    assert find_nvidia(desktop) == Found(
        None, ("The NVIDIA driver is there and NVML does not answer: Driver Not Loaded.",)
    )


def test_no_gpu_behind_the_driver(driver: FakeDriver, desktop: Path) -> None:
    driver.set("devices", 0)
    assert find_nvidia(desktop) == Found()


def test_the_package_without_the_driver(desktop: Path) -> None:
    """The real package finds no library; a driver that only seems to be there is a note, not an error."""
    pytest.importorskip("pynvml")
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has the driver")
    found = find_nvidia(desktop)
    assert found.sensor is None
    assert found.notes == ("The NVIDIA driver is there and NVML does not answer: NVML Shared Library Not Found.",)
    assert device_memory_used(desktop) is None


def test_the_driver_without_the_package(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_nvidia(desktop) == Found(
        None, ("The GPU's power and clocks are not read without NVML: pip install nvidia-ml-py",)
    )
    assert device_memory_used(desktop) is None


@pytest.mark.parametrize("board", [False, True])
def test_nothing_is_imported_where_nvml_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: bool
) -> None:
    """No driver at all; or a Jetson, whose own total has the GPU inside."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    if board:
        for name in ("etc/nv_tegra_release", "dev/nvidiactl"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
    assert find_nvidia(tmp_path) == Found()
    assert device_memory_used(tmp_path) is None
