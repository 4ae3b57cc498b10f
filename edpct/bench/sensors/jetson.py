"""A Jetson's power, GPU clock, temperatures, throttling and power mode, through sysfs.

Rails: INA3221 below /sys/bus/i2c/drivers/ina3221, ``in<N>_label``, ``in<N>_input`` in mV and ``curr<N>_input`` in mA,
N = 1, 2, 3. What adds up to the total is NVIDIA's word (Jetson Linux Developer Guide, "Software-Based Power Consumption
Modeling"): ``VDD_IN`` is the module's input; AGX Orin has none, and there ``VIN_SYS_5V0`` has the memory's rail
(``VDDQ_VDD2_1V8AO``) inside, so that it must not be added. The carrier board is not measured in either case.

Throttling: ``oc<N>_event_cnt`` counts under-voltage (1), average (2) and instantaneous (3) over-current on Orin; the
cooling devices ``*-throttle-alert`` are on while a part is slowed down for its temperature. ``hot-surface-alert`` is a
warning only. JetPack 5 and newer; JetPack 4 has another driver, and no Python that edpct runs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edpct.bench.sensors.cpu import read_temperatures, zone_temperatures
from edpct.bench.sensors.sensor import Found, Sample
from edpct.bench.sensors.sysfs import number_or_none, read_number, read_text

RAILS = "sys/bus/i2c/drivers/ina3221"
# Rails that add up to the total; the first row all of which is there.
TOTALS: tuple[tuple[str, ...], ...] = (
    ("VDD_IN",),  # Orin Nano, Orin NX, Xavier NX
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier: all beside each other
)
GPU_NAME = re.compile(r"gpu|ga10b|gv11b|gp10b")  # 17000000.gpu on JetPack 6, 17000000.ga10b on JetPack 5
ZONE_TYPE = re.compile(r"(cpu|gpu|tj)-therm(al)?", re.IGNORECASE)


@dataclass(frozen=True)
class Rail:
    """One rail of a power monitor: its label and the files of its millivolts and milliamperes."""

    label: str
    millivolts: str
    milliamperes: str

    def watts(self) -> float:
        """Power now.

        Raises:
            OSError: the monitor does not answer.
        """
        return read_number(self.millivolts) * read_number(self.milliamperes) / 1e6


class JetsonSensor:
    """What the board says; reads only the rails that make the total, since each takes about 1 ms of the I2C bus."""

    title = "Jetson"

    def __init__(self, root: Path, rails: Iterable[Rail]) -> None:
        self.root = root
        self.rails = tuple(rails)
        self.source = "INA3221 " + " + ".join(rail.label for rail in self.rails)
        devices = sorted((root / "sys/class/devfreq").glob("*"))
        self.gpu = next((device for device in devices if GPU_NAME.search(device.name)), None)
        self.temperatures = [row for row in zone_temperatures(root) if ZONE_TYPE.fullmatch(row[0])]
        self.alerts = _alerts(root)
        self.events = sorted((root / "sys/class/hwmon").glob("hwmon*/oc[0-9]*_event_cnt"))

    def sample(self) -> Sample:
        """Power, GPU clock, temperatures and alerts now.

        Raises:
            OSError: a power monitor does not answer.
        """
        hertz = number_or_none(self.gpu / "cur_freq") if self.gpu else None
        alerts = [state for path in self.alerts if (state := number_or_none(path)) is not None]
        return Sample(
            watts={self.source: sum(rail.watts() for rail in self.rails)} if self.rails else {},
            temperatures=read_temperatures(self.temperatures),
            clocks={} if hertz is None else {"gpu": hertz / 1e6},
            throttled=any(alerts) if alerts else None,
        )

    def counters(self) -> dict[str, int]:
        """Under-voltage and over-current events since boot; empty before Orin."""
        read = {path.name: number_or_none(path) for path in self.events}
        return {name: value for name, value in read.items() if value is not None}

    def settings(self) -> dict[str, str]:
        """The power mode, and whether GPU and CPU clocks are pinned, as jetson_clocks does; memory's only root sees."""
        mode, pinned = _power_mode(self.root), self._pinned()
        found = {"nvpmodel": mode} if mode else {}
        return found if pinned is None else {**found, "jetson_clocks": "on" if pinned else "off"}

    def _pinned(self) -> bool | None:
        policies = sorted((self.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
        spans = [(policy / "scaling_min_freq", policy / "scaling_max_freq") for policy in policies]
        spans += [(self.gpu / "min_freq", self.gpu / "max_freq")] if self.gpu else []
        read = [(number_or_none(low), number_or_none(high)) for low, high in spans]
        known = [(low, high) for low, high in read if low is not None and high is not None]
        return all(low == high for low, high in known) if known else None


def is_jetson(root: Path) -> bool:
    """Whether this is a Jetson; the device tree answers where a container hides /etc of the host."""
    model = read_text(root / "proc/device-tree/model") or ""
    return (root / "etc/nv_tegra_release").exists() or "NVIDIA" in model or "Jetson" in model


def find_jetson(root: Path) -> Found:
    """The board's sensor, and a note where its power cannot be told."""
    if not is_jetson(root):
        return Found()
    rails = _rails(root)
    total = next((labels for labels in TOTALS if set(labels) <= set(rails)), ())
    sensor = JetsonSensor(root, (rails[label] for label in total))
    if not rails:
        return Found(sensor, (f"This Jetson's power monitor does not show: nothing below /{RAILS}.",))
    if not total:
        names = ", ".join(sorted(rails))
        return Found(sensor, (f"The board's power is not known: which of its rails add up is not ({names}).",))
    try:
        sensor.sample()
    except (OSError, ValueError) as error:
        return Found(JetsonSensor(root, ()), (f"This Jetson's power monitor does not answer: {error}.",))
    return Found(sensor)


def _rails(root: Path) -> dict[str, Rail]:
    """Rails by label. Channels 1 to 3 only: 7 is a sum over shunts, no rail."""
    found = {}
    for path in sorted((root / RAILS).glob("*/hwmon/hwmon*/in[123]_label")):
        channel, label = path.name[2], read_text(path)
        if label and label != "NC":  # not connected
            folder = str(path.parent)
            found[label] = Rail(label, f"{folder}/in{channel}_input", f"{folder}/curr{channel}_input")
    return found


def _alerts(root: Path) -> list[Path]:
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    return [device / "cur_state" for device in devices if (read_text(device / "type") or "").endswith("throttle-alert")]


def _power_mode(root: Path) -> str | None:
    """Name of the power mode: the one set last ("pmode:0002"), or the default where none ever was; None if unknown."""
    try:
        table = (root / "etc/nvpmodel.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        table = ""
    status = read_text(root / "var/lib/nvpmodel/status") or ""
    found = re.search(r"pmode:(\d+)", status) or re.search(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", table)
    if found is None:
        return None
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table))
    mode = str(int(found[1]))
    return names.get(mode, f"mode {mode}")
