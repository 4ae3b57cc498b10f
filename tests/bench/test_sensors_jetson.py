"""Jetson boards from folders with the files that NVIDIA documents: rails, modes, clocks, throttling."""

from __future__ import annotations

from pathlib import Path

import pytest

from edpct.bench.sensors.jetson import JetsonSensor, find_jetson, is_jetson
from edpct.bench.sensors.monitor import Monitor, describe
from edpct.bench.sensors.sensor import Found

INA = "sys/bus/i2c/drivers/ina3221"
GPU = "sys/class/devfreq/17000000.gpu"
CPU0 = "sys/devices/system/cpu/cpu0/cpufreq"
THERMAL = "sys/class/thermal"
OC = "sys/class/hwmon/hwmon3"


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def monitor_chip(chip: str, *rails: tuple[str, int, int]) -> dict[str, object]:
    """One INA3221: label, mV, mA of its channels, and the sum of shunts that is no rail."""
    files: dict[str, object] = {}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files[f"{INA}/{chip}/in{channel}_label"] = label
        files[f"{INA}/{chip}/in{channel}_input"] = millivolts
        files[f"{INA}/{chip}/curr{channel}_input"] = milliamperes
    return {**files, f"{INA}/{chip}/in7_label": "sum of shunt voltages", f"{INA}/{chip}/in7_input": 760}


MODES = """\
< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >"""
ORIN_NANO: dict[str, object] = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nvpmodel.conf": MODES,
    "var/lib/nvpmodel/status": "pmode:0002",
    **monitor_chip(
        "1-0040/hwmon/hwmon1", ("VDD_IN", 5000, 1856), ("VDD_CPU_GPU_CV", 5000, 700), ("VDD_SOC", 5000, 300)
    ),
    f"{GPU}/cur_freq": 1_020_000_000,
    f"{GPU}/min_freq": 306_000_000,
    f"{GPU}/max_freq": 1_020_000_000,
    f"{CPU0}/scaling_min_freq": 1_728_000,
    f"{CPU0}/scaling_max_freq": 1_728_000,
    f"{CPU0}/scaling_cur_freq": 1_728_000,
    f"{CPU0}/scaling_governor": "schedutil",
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal",
    f"{THERMAL}/thermal_zone0/temp": 51_500,
    f"{THERMAL}/thermal_zone1/type": "gpu-thermal",
    f"{THERMAL}/thermal_zone1/temp": 52_250,
    f"{THERMAL}/thermal_zone2/type": "cv0-thermal",
    f"{THERMAL}/thermal_zone2/temp": -256_000,
    f"{THERMAL}/thermal_zone8/type": "tj-thermal",
    f"{THERMAL}/thermal_zone8/temp": 52_750,
    f"{THERMAL}/cooling_device0/type": "pwm-fan",
    f"{THERMAL}/cooling_device0/cur_state": 3,
    f"{THERMAL}/cooling_device1/type": "hot-surface-alert",
    f"{THERMAL}/cooling_device1/cur_state": 1,
    f"{THERMAL}/cooling_device2/type": "gpu-throttle-alert",
    f"{THERMAL}/cooling_device2/cur_state": 0,
    f"{OC}/name": "soctherm_oc",
    f"{OC}/oc1_event_cnt": 0,
    f"{OC}/oc2_event_cnt": 0,
    f"{OC}/oc3_event_cnt": 4,
    f"{OC}/oc3_throt_en": 1,
}
AGX_ORIN: dict[str, object] = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64",
    **monitor_chip(
        "1-0040/hwmon/hwmon3", ("VDD_GPU_SOC", 20_000, 400), ("VDD_CPU_CV", 20_000, 150), ("VIN_SYS_5V0", 5_000, 900)
    ),
    **monitor_chip("1-0041/hwmon/hwmon4", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5_000, 200), ("NC", 0, 0)),
}
AGX_XAVIER: dict[str, object] = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1",
    **monitor_chip("1-0040/hwmon/hwmon3", ("GPU", 19_000, 100), ("CPU", 19_000, 200), ("SOC", 19_000, 100)),
    **monitor_chip("1-0041/hwmon/hwmon4", ("CV", 19_000, 0), ("VDDRQ", 19_000, 100), ("SYS5V", 5_000, 500)),
}


def sensor_of(found: Found) -> JetsonSensor:
    assert isinstance(found.sensor, JetsonSensor)
    return found.sensor


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(ORIN_NANO, {"INA3221 VDD_IN": 9.28}, id="Orin Nano: the input alone, 5 V x 1.856 A"),
        pytest.param(
            AGX_ORIN,
            {"INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0": 15.5},
            id="AGX Orin: 8 + 3 + 4.5 W, memory's 1 W being inside VIN_SYS_5V0",
        ),
        pytest.param(
            AGX_XAVIER,
            {"INA3221 GPU + CPU + SOC + CV + VDDRQ + SYS5V": 12.0},
            id="AGX Xavier: 1.9 + 3.8 + 1.9 + 0 + 1.9 + 2.5 W",
        ),
    ],
)
def test_the_board_total(tmp_path: Path, files: dict[str, object], expected: dict[str, float]) -> None:
    write(tmp_path, files)
    found = find_jetson(tmp_path)
    assert found.notes == ()
    assert sensor_of(found).sample().watts == pytest.approx(expected)


def test_everything_else_of_an_orin_nano(tmp_path: Path) -> None:
    """The zone that is switched off, the fan and the surface's warning are left out."""
    write(tmp_path, ORIN_NANO)
    sensor = sensor_of(find_jetson(tmp_path))
    sample = sensor.sample()
    assert sample.clocks == {"gpu": 1020.0}
    assert sample.temperatures == {"cpu-thermal": 51.5, "gpu-thermal": 52.25, "tj-thermal": 52.75}
    assert sample.throttled is False
    assert sensor.counters() == {"oc1_event_cnt": 0, "oc2_event_cnt": 0, "oc3_event_cnt": 4}
    assert sensor.settings() == {"nvpmodel": "MAXN_SUPER", "jetson_clocks": "off"}  # the GPU may go down to 306 MHz


def test_a_gpu_that_is_switched_off_has_no_temperature(tmp_path: Path) -> None:
    write(tmp_path, {**ORIN_NANO, f"{THERMAL}/thermal_zone1/temp": -256_000})
    assert sensor_of(find_jetson(tmp_path)).sample().temperatures == {"cpu-thermal": 51.5, "tj-thermal": 52.75}


def test_jetson_clocks_in_force(tmp_path: Path) -> None:
    write(tmp_path, {**ORIN_NANO, f"{GPU}/min_freq": 1_020_000_000})
    assert sensor_of(find_jetson(tmp_path)).settings()["jetson_clocks"] == "on"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"var/lib/nvpmodel/status": "pmode:0000 fmode:quiet"}, {"nvpmodel": "15W"}),
        ({"var/lib/nvpmodel/status": "pmode:0009"}, {"nvpmodel": "mode 9"}),
        ({"var/lib/nvpmodel/status": ""}, {"nvpmodel": "25W"}),  # never set: the default
        ({"var/lib/nvpmodel/status": "", "etc/nvpmodel.conf": ""}, {}),
    ],
)
def test_power_mode(tmp_path: Path, change: dict[str, object], expected: dict[str, str]) -> None:
    write(tmp_path, {"etc/nv_tegra_release": "# R36", "etc/nvpmodel.conf": MODES, **change})
    assert sensor_of(find_jetson(tmp_path)).settings() == expected


def test_a_jetson_is_told_from_other_boards(tmp_path: Path) -> None:
    assert not is_jetson(tmp_path)
    write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert not is_jetson(tmp_path)
    assert find_jetson(tmp_path) == Found()
    write(tmp_path, {"proc/device-tree/model": "NVIDIA Orin NX Developer Kit\0"})
    assert is_jetson(tmp_path)


def test_rails_that_are_not_known_to_add_up(tmp_path: Path) -> None:
    write(tmp_path, {"etc/nv_tegra_release": "# R99", **monitor_chip("1-0040/hwmon/hwmon1", ("VDD_NEW", 5000, 1))})
    found = find_jetson(tmp_path)
    assert found.notes == ("The board's power is not known: which of its rails add up is not (VDD_NEW).",)
    assert sensor_of(found).sample().watts == {}


def test_a_power_monitor_that_does_not_answer(tmp_path: Path) -> None:
    """A folder in the file's place: reading it fails as a bus does, with an OSError."""
    write(tmp_path, ORIN_NANO)
    current = tmp_path / INA / "1-0040/hwmon/hwmon1/curr1_input"
    current.unlink()
    current.mkdir()
    found = find_jetson(tmp_path)
    assert found.notes[0].startswith("This Jetson's power monitor does not answer: [Errno 21]")
    assert sensor_of(found).sample().clocks == {"gpu": 1020.0}


def test_no_power_monitor(tmp_path: Path) -> None:
    write(tmp_path, {"etc/nv_tegra_release": "# R36"})
    assert find_jetson(tmp_path).notes == (
        "This Jetson's power monitor does not show: nothing below /sys/bus/i2c/drivers/ina3221.",
    )


def test_a_watched_orin_nano(tmp_path: Path) -> None:
    """A steady 9.28 W over 4 frames, however long it took."""
    write(tmp_path, ORIN_NANO)
    with Monitor(tmp_path, interval=0.005).watch() as watch:
        pass
    state, seconds = watch.state(frames=4), watch.watched().seconds
    assert state.watts == pytest.approx(9.28)
    assert state.joules_per_frame == pytest.approx(9.28 * seconds / 4)
    assert state.temperature == 52.75
    assert state.clocks == {"gpu": (1020.0, 1020.0), "cpu": (1728.0, 1728.0)}
    assert state.throttled == "no"
    assert state.settings == {"nvpmodel": "MAXN_SUPER", "jetson_clocks": "off", "governor": "schedutil"}
    assert state.sources == (
        "power: INA3221 VDD_IN",
        "temperature: cpu-thermal, gpu-thermal, tj-thermal",
        "throttling: Jetson",
    )
    assert state.notes == ()


@pytest.mark.parametrize("change", [f"{OC}/oc2_event_cnt", f"{THERMAL}/cooling_device2/cur_state"])
def test_throttling_while_watched(tmp_path: Path, change: str) -> None:
    """One more over-current event, or an alert that is on."""
    write(tmp_path, ORIN_NANO)
    with Monitor(tmp_path, interval=60).watch() as watch:
        write(tmp_path, {change: 1})
    assert watch.state().throttled == "yes"


def test_described(tmp_path: Path) -> None:
    write(tmp_path, ORIN_NANO)
    board, processor = describe(tmp_path)
    assert board == (
        "Jetson: power of INA3221 VDD_IN; temperature of cpu-thermal, gpu-thermal, tj-thermal; clock of gpu; "
        "throttling; nvpmodel MAXN_SUPER; jetson_clocks off"
    )
    assert processor == "CPU: temperature of cpu-thermal; clock of cpu; governor schedutil"
