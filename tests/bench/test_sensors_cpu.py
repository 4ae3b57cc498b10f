"""The processor's clock, temperature, settings and throttle counters from folders with what Linux shows there."""

from __future__ import annotations

from pathlib import Path

import pytest

from edpct.bench.sensors.cpu import CpuSensor, find_cpu
from edpct.bench.sensors.sensor import Found, Sample

CPUS = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def sensor_of(root: Path) -> CpuSensor:
    found = find_cpu(root)
    assert isinstance(found.sensor, CpuSensor)
    return found.sensor


def test_the_clock_is_that_of_the_fastest_core(tmp_path: Path) -> None:
    """kHz in the files; cpufreq itself is no core."""
    write(
        tmp_path, {f"{CPUS}/cpu0/cpufreq/scaling_cur_freq": 800_000, f"{CPUS}/cpu1/cpufreq/scaling_cur_freq": 4_212_345}
    )
    write(tmp_path, {f"{CPUS}/cpufreq/policy0/scaling_cur_freq": 9_000_000})
    assert sensor_of(tmp_path).sample() == Sample(clocks={"cpu": 4212.345})


def test_the_clock_of_a_virtual_machine(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2596.096\n\nprocessor\t: 1\ncpu MHz\t\t: 2600.500"})
    assert sensor_of(tmp_path).sample().clocks == {"cpu": 2600.5}


INTEL_ZONES = {
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": 99_000,
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone1/temp": 61_000,
    "sys/class/thermal/thermal_zone2/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone2/temp": 67_500,
    "sys/class/hwmon/hwmon3/name": "coretemp",
    "sys/class/hwmon/hwmon3/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon3/temp1_input": 62_000,
}
CORETEMP = {
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/temp1_input": 80_000,
    "sys/class/hwmon/hwmon1/name": "coretemp",
    "sys/class/hwmon/hwmon1/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon1/temp1_input": 55_000,
    "sys/class/hwmon/hwmon1/temp2_label": "Core 0",
    "sys/class/hwmon/hwmon1/temp2_input": 58_000,
}
K10TEMP = {
    "sys/class/hwmon/hwmon2/name": "k10temp",
    "sys/class/hwmon/hwmon2/temp1_label": "Tctl",
    "sys/class/hwmon/hwmon2/temp1_input": 81_750,
}
THREADRIPPER = {
    **K10TEMP,
    "sys/class/hwmon/hwmon2/temp2_label": "Tdie",
    "sys/class/hwmon/hwmon2/temp2_input": 54_750,
}
OLD_AMD = {"sys/class/hwmon/hwmon0/name": "k10temp", "sys/class/hwmon/hwmon0/temp1_input": 41_125}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(INTEL_ZONES, {"x86_pkg_temp": 67.5}, id="the hotter of two packages, and not the board"),
        pytest.param(CORETEMP, {"coretemp": 55.0}, id="hwmon where there is no zone"),
        pytest.param(K10TEMP, {"k10temp": 81.75}, id="AMD"),
        pytest.param(THREADRIPPER, {"k10temp": 54.75}, id="AMD that tells the die from the fan's value"),
        pytest.param(OLD_AMD, {"k10temp": 41.125}, id="AMD without labels"),
        pytest.param(
            {"sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": 48_312},
            {"cpu-thermal": 48.312},
            id="ARM",
        ),
    ],
)
def test_temperature(tmp_path: Path, files: dict[str, object], expected: dict[str, float]) -> None:
    write(tmp_path, files)
    assert sensor_of(tmp_path).sample().temperatures == expected


def test_throttle_counters_of_every_core_and_package(tmp_path: Path) -> None:
    counters = f"{CPUS}/cpu0/thermal_throttle"
    write(tmp_path, {f"{counters}/core_throttle_count": 3, f"{counters}/package_throttle_count": 11})
    write(tmp_path, {f"{counters}/core_throttle_total_time_ms": 70})
    assert sorted(sensor_of(tmp_path).counters().values()) == [3, 11]
    assert sensor_of(tmp_path).sample().throttled is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"cpu0/cpufreq/scaling_governor": "powersave", "intel_pstate/no_turbo": 0},
            {"governor": "powersave", "turbo": "on"},
        ),
        ({"intel_pstate/no_turbo": 1}, {"turbo": "off"}),
        ({"cpufreq/boost": 1}, {"turbo": "on"}),
        ({"cpufreq/boost": 0}, {"turbo": "off"}),
        (
            {"cpu0/cpufreq/scaling_governor": "schedutil", "cpu1/cpufreq/scaling_governor": "performance"},
            {"governor": "performance, schedutil"},
        ),
    ],
)
def test_settings(tmp_path: Path, files: dict[str, object], expected: dict[str, str]) -> None:
    write(tmp_path, {f"{CPUS}/{name}": text for name, text in files.items()})
    assert sensor_of(tmp_path).settings() == expected


def test_nothing_is_known(tmp_path: Path) -> None:
    assert find_cpu(tmp_path) == Found()
