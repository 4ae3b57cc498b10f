"""Clock, temperature, governor and throttle counters of the processor, through sysfs.

Sources: Linux, Documentation/admin-guide/pm/cpufreq.rst (clocks in kHz), Documentation/hwmon/coretemp.rst and
k10temp.rst (thousandths of a degree; Tctl may carry an offset for the fan, Tdie is the die), and
arch/x86/kernel/cpu/mce/therm_throt.c (counters; Intel only).
"""

from __future__ import annotations

from pathlib import Path

from edpct.bench.sensors.sensor import Found, Sample
from edpct.bench.sensors.sysfs import number_or_none, read_text

CPUS = "sys/devices/system/cpu"
ZONE_TYPES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "CPU-therm")
# By hwmon driver: beginnings of the labels that mean the whole processor, the best first.
LABELS = {"coretemp": ("Package id",), "k10temp": ("Tdie", "Tctl"), "zenpower": ("Tdie", "Tctl")}


class CpuSensor:
    """What the processor says of itself.

    The clock is that of the fastest core at each moment: the one at work, where the others may rest.
    """

    title = "CPU"

    def __init__(self, root: Path) -> None:
        cpus = root / CPUS
        self.clocks = _paths(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq")
        self.cpuinfo = root / "proc/cpuinfo"
        self.temperatures = cpu_temperatures(root)
        self.throttle_counters = _paths(cpus, "cpu[0-9]*/thermal_throttle/*_throttle_count")
        self.governors = _paths(cpus, "cpu[0-9]*/cpufreq/scaling_governor")
        self.no_turbo, self.boost = cpus / "intel_pstate/no_turbo", cpus / "cpufreq/boost"

    def sample(self) -> Sample:
        """Clock and temperature now; raises nothing."""
        clock = self._clock()
        return Sample(temperatures=read_temperatures(self.temperatures), clocks={} if clock is None else {"cpu": clock})

    def counters(self) -> dict[str, int]:
        """Every core's and package's count of throttling, by path; empty on AMD and ARM, which have none."""
        read = {path: number_or_none(path) for path in self.throttle_counters}
        return {path: value for path, value in read.items() if value is not None}

    def settings(self) -> dict[str, str]:
        """The governor (several where cores differ) and whether turbo is on."""
        governors = sorted({text for path in self.governors if (text := read_text(path))})
        found = {"governor": ", ".join(governors)} if governors else {}
        no_turbo, boost = number_or_none(self.no_turbo), number_or_none(self.boost)
        if no_turbo is not None or boost is not None:
            found["turbo"] = "on" if no_turbo == 0 or (no_turbo is None and boost == 1) else "off"
        return found

    def _clock(self) -> float | None:
        """MHz of the fastest core; from /proc/cpuinfo where there is no cpufreq, as in a virtual machine."""
        if self.clocks:
            kilohertz = [value for path in self.clocks if (value := number_or_none(path)) is not None]
            return max(kilohertz) / 1000 if kilohertz else None
        try:
            lines = self.cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
            return max(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))
        except (OSError, ValueError):  # no such file, or none of these lines (ARM)
            return None


def find_cpu(root: Path) -> Found:
    """The processor's sensor, where it says anything."""
    sensor = CpuSensor(root)
    sample = sensor.sample()
    says = sample.clocks or sample.temperatures or sensor.counters() or sensor.settings()
    return Found(sensor if says else None)


def read_temperatures(paths: list[tuple[str, str]]) -> dict[str, float]:
    """Degrees Celsius by name from files in thousandths; the highest of one name, and nothing where unreadable."""
    found: dict[str, float] = {}
    for name, path in paths:
        value = number_or_none(path)
        if value is not None and value > -100_000:  # Jetson says -256000 for a part that is switched off
            found[name] = max(found.get(name, value / 1000), value / 1000)
    return found


def zone_temperatures(root: Path) -> list[tuple[str, str]]:
    """Type and file of every thermal zone."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    return [(kind, str(zone / "temp")) for zone in zones if (kind := read_text(zone / "type"))]


def cpu_temperatures(root: Path) -> list[tuple[str, str]]:
    """Name and file of the processor's temperatures: thermal zones, or hwmon where no zone is the processor's."""
    zones = [(kind, path) for kind, path in zone_temperatures(root) if kind in ZONE_TYPES]
    return zones or [
        (driver, path)
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*"))
        if (driver := read_text(folder / "name") or "") in LABELS
        for path in _labelled(folder, LABELS[driver])
    ]


def _labelled(folder: Path, wanted: tuple[str, ...]) -> list[str]:
    """The temperature files of the first label that is there; the first file where there are no labels."""
    labels = {path: read_text(path) or "" for path in sorted(folder.glob("temp*_label"))}
    for beginning in wanted:
        if paths := [path for path, label in labels.items() if label.startswith(beginning)]:
            return [str(path).removesuffix("_label") + "_input" for path in paths]
    return _paths(folder, "temp1_input")


def _paths(folder: Path, pattern: str) -> list[str]:
    return sorted(map(str, folder.glob(pattern)))
