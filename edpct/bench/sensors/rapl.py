"""Energy of Intel and AMD processors: RAPL, through /sys/class/powercap/intel-rapl:N (AMD has the same name).

Counted are the packages and their memory (``dram``). Not counted: ``core`` and ``uncore``, which lie inside the
package, ``psys``, which has the packages inside, and ``intel-rapl-mmio``, which is the same package seen another way.
Source: Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edpct.bench.sensors.sensor import Found, Sample
from edpct.bench.sensors.sysfs import read_number, read_text

ZONES = "sys/class/powercap"
# Root's alone since Linux 5.10, against reading keys off the power (CVE-2020-8694).
FORBIDDEN = "RAPL is there but only root may read it: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
HIDDEN = "RAPL is there but hidden from this container: docker run --security-opt systempaths=unconfined …"


@dataclass
class Zone:
    """One counter.

    Attributes:
        name: as the kernel says, with the package's for memory ("package-0", "package-0 dram").
        path: its energy_uj.
        range: microjoules after which it starts again at 0.
        last: what it showed last, microjoules.
        total: microjoules since it was found.
    """

    name: str
    path: str
    range: int
    last: int
    total: int = 0

    def advance(self) -> int:
        """Read and add what was used since; right as long as it is asked once a turn of the counter (minutes)."""
        now = read_number(self.path)
        self.total += now - self.last if now >= self.last else now - self.last + self.range
        self.last = now
        return self.total


class RaplSensor:
    """Joules of every package and its memory."""

    title = "RAPL"

    def __init__(self, zones: list[Zone]) -> None:
        self.zones = zones

    def sample(self) -> Sample:
        """Joules since the sensor was found.

        Raises:
            OSError: a counter cannot be read any more.
        """
        return Sample(joules={f"RAPL {zone.name}": zone.advance() / 1e6 for zone in self.zones})

    def counters(self) -> dict[str, int]:
        """None of these."""
        return {}

    def settings(self) -> dict[str, str]:
        """Nothing is set here."""
        return {}


def find_rapl(root: Path) -> Found:
    """The counters that may be read, and a note where some may not."""
    zones: list[Zone] = []
    notes = [HIDDEN] if any(_dangles(link) for link in (root / ZONES).glob("intel-rapl:*")) else []
    for name, folder in _counted(root):
        try:
            zones.append(_open(name, folder))
        except PermissionError:
            notes.append(FORBIDDEN)
        except (OSError, ValueError) as error:
            notes.append(f"RAPL {name} is there and cannot be read: {error}.")
    return Found(RaplSensor(zones) if zones else None, tuple(dict.fromkeys(notes)))


def _counted(root: Path) -> list[tuple[str, Path]]:
    """Name and folder of what adds up to the processors and their memory."""
    packages = {
        folder.name: name
        for folder in sorted((root / ZONES).glob("intel-rapl:*"))
        if (name := read_text(folder / "name") or "").startswith("package-") and folder.name.count(":") == 1
    }
    counted = [(name, root / ZONES / folder) for folder, name in packages.items()]
    for folder in sorted((root / ZONES).glob("intel-rapl:*:*")):
        package = packages.get(folder.name.rpartition(":")[0])
        if package and read_text(folder / "name") == "dram":
            counted.append((f"{package} dram", folder))
    return counted


def _dangles(link: Path) -> bool:
    """Docker lays an empty folder over /sys/devices/virtual/powercap, where the links of ``ZONES`` point."""
    return link.is_symlink() and not link.exists()


def _open(name: str, folder: Path) -> Zone:
    path = str(folder / "energy_uj")
    return Zone(name, path, read_number(folder / "max_energy_range_uj"), read_number(path))
