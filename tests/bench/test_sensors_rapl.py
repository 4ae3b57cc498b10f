"""RAPL from folders with what Linux shows there: which counters add up, wrap-around, and what may not be read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edpct.bench.sensors.rapl import FORBIDDEN, HIDDEN, RaplSensor, find_rapl
from edpct.bench.sensors.sensor import Found

RANGE = 262_143_328_850  # microjoules: 2**32 steps of 61 µJ, as Intel's desktops show
NOBODY = 65534


def write_zone(root: Path, zone: str, name: str, energy: int, turn: int = RANGE) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", turn)):
        (folder / file).write_text(f"{text}\n", encoding="utf-8")
    return folder / "energy_uj"


def sensor_of(found: Found) -> RaplSensor:
    assert isinstance(found.sensor, RaplSensor)
    return found.sensor


INTEL = {  # zone: (name, microjoules before, microjoules after)
    "intel-rapl:0": ("package-0", 1_000_000, 3_500_000),
    "intel-rapl:0:0": ("core", 700_000, 2_900_000),
    "intel-rapl:0:1": ("uncore", 10_000, 60_000),
    "intel-rapl:0:2": ("dram", 500_000, 700_000),
    "intel-rapl:1": ("package-1", 10_000_000, 11_000_000),
    "intel-rapl:1:0": ("core", 5_000_000, 5_800_000),
    "intel-rapl:2": ("psys", 50_000_000, 57_000_000),
    "intel-rapl-mmio:0": ("package-0", 1_000_000, 4_000_000),
}


def test_packages_and_memory_add_up_and_nothing_twice(tmp_path: Path) -> None:
    """Two packages used 2.5 and 1 J, the memory 0.2 J; core, uncore, psys and mmio are left out."""
    for zone, (name, before, _) in INTEL.items():
        write_zone(tmp_path, zone, name, before)
    found = find_rapl(tmp_path)
    assert found.notes == ()
    for zone, (name, _, after) in INTEL.items():
        write_zone(tmp_path, zone, name, after)
    assert len(sensor_of(found).zones) == 3
    joules = sensor_of(found).sample().joules
    assert joules == {"RAPL package-0": 2.5, "RAPL package-1": 1.0, "RAPL package-0 dram": 0.2}


def test_amd_has_the_same_name_and_no_memory(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 40_000_000, 65_532_610_987)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 900_000, 65_532_610_987)
    sensor = sensor_of(find_rapl(tmp_path))
    write_zone(tmp_path, "intel-rapl:0", "package-0", 41_250_000, 65_532_610_987)
    assert sensor.sample().joules == {"RAPL package-0": 1.25}
    assert sensor.counters() == {} and sensor.settings() == {}


def test_a_counter_that_starts_again(tmp_path: Path) -> None:
    """1 J to its end and 0.5 J on; then another 2 J."""
    energy = write_zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    sensor = sensor_of(find_rapl(tmp_path))
    energy.write_text("500000\n", encoding="utf-8")
    assert sensor.sample().joules == {"RAPL package-0": 1.5}
    energy.write_text("2500000\n", encoding="utf-8")
    assert sensor.sample().joules == {"RAPL package-0": 3.5}


@pytest.fixture
def not_root() -> Iterator[None]:
    """As a user whom the kernel refuses: root itself is refused nothing."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except PermissionError:
        pytest.skip("root of this container may not become another user")
    yield
    os.seteuid(0)


@pytest.fixture
def roots_alone() -> Iterator[Path]:
    """A package whose energy_uj has the rights that Linux gives it since 5.10; not in tmp_path, which is closed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        energy = write_zone(Path(name), "intel-rapl:0", "package-0", 1)
        energy.chmod(0o400 if os.geteuid() == 0 else 0o000)
        yield Path(name)


def test_only_root_may_read(roots_alone: Path, not_root: None) -> None:
    assert find_rapl(roots_alone) == Found(None, (FORBIDDEN,))
    assert FORBIDDEN.endswith("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj")


def test_a_counter_that_does_not_answer(tmp_path: Path) -> None:
    """A folder in the file's place cannot be read by root either; the other package still counts."""
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    energy = write_zone(tmp_path, "intel-rapl:1", "package-1", 1)
    energy.unlink()
    energy.mkdir()
    found = find_rapl(tmp_path)
    assert list(sensor_of(found).sample().joules) == ["RAPL package-0"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("RAPL package-1 is there and cannot be read: [Errno 21] Is a directory")


def test_hidden_from_a_container(tmp_path: Path) -> None:
    """Docker empties the folder that the links point to."""
    folder = tmp_path / "sys/class/powercap"
    folder.mkdir(parents=True)
    (folder / "intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    assert find_rapl(tmp_path) == Found(None, (HIDDEN,))


def test_no_rapl(tmp_path: Path) -> None:
    assert find_rapl(tmp_path) == Found()
