"""What a sensor is: found below a root folder, asked at moments, never the reason for a failed bench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Sample:
    """What a sensor says at one moment; what it does not know is missing.

    Attributes:
        joules: energy since any fixed moment, by source; grows only.
        watts: power now, by source.
        temperatures: degrees Celsius, by source.
        clocks: MHz, by name ("cpu", "gpu", "gpu memory").
        throttled: whether the machine slows itself down now; None where this sensor cannot tell from one look.
    """

    joules: Mapping[str, float] = field(default_factory=dict)
    watts: Mapping[str, float] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)
    throttled: bool | None = None


class Sensor(Protocol):
    """One kind of sensor of this machine.

    ``sample`` may raise anything where the power cannot be read any more; any other value is just left out then.
    """

    title: str

    def sample(self) -> Sample:
        """What is so now; called from another thread than the constructor, never from two at once."""
        ...

    def counters(self) -> dict[str, int]:
        """How often the machine has slowed itself down, by counter; empty where nothing counts it."""
        ...

    def settings(self) -> dict[str, str]:
        """What the machine is set to, by name ("governor": "performance")."""
        ...


@dataclass(frozen=True)
class Found:
    """What looking for one kind of sensor gave.

    Attributes:
        sensor: None where there is none, or none that may be read.
        notes: sentences about what is there and cannot be read, and what to do; empty where nothing is there.
    """

    sensor: Sensor | None = None
    notes: tuple[str, ...] = ()
