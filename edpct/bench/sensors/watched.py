"""What the sensors gave during one turn, as plain data for the journal, and the state of a row from all its turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from edpct.bench.report.schema import Answer, StateReport


class Watched(BaseModel):
    """One stretch of time that was watched; ``model_dump(mode="json")`` and ``model_validate`` are its way to a file.

    Attributes:
        seconds: its length.
        frames: what was inferred meanwhile and has its energy reported; 0 for a stretch that only counts as time.
        joules: by power source, of those that answered from beginning to end.
        lost: power sources that stopped answering.
        temperatures: highest, degrees Celsius, by sensor.
        clocks: lowest and highest, MHz, by name.
        throttled: by sensor, of those that can tell.
        settings: what the machine was set to at the beginning.
        notes: what could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    frames: int = 0
    joules: dict[str, float] = {}
    lost: tuple[str, ...] = ()
    temperatures: dict[str, float] = {}
    clocks: dict[str, tuple[float, float]] = {}
    throttled: dict[str, bool] = {}
    settings: dict[str, str] = {}
    notes: tuple[str, ...] = ()


def state_of(watches: Sequence[Watched]) -> StateReport:
    """The state of a row from every stretch that it was watched for, in this sitting and in earlier ones.

    Power counts the sources that answered in every stretch, so that watts are of the same things all the time; any
    other is named in a note. ``watts`` is over all stretches, ``joules_per_frame`` over those that have frames.
    """
    if not watches:
        return StateReport()
    power, notes = _power_sources(watches)
    throttled, witnesses = _throttled(watches)
    temperatures = [value for watch in watches for value in watch.temperatures.values()]
    return StateReport(
        watts=_ratio(_joules(watches, power), sum(watch.seconds for watch in watches)) if power else None,
        joules_per_frame=_joules_per_frame(watches, power) if power else None,
        temperature=max(temperatures, default=None),
        clocks=_clocks(watches),
        throttled=throttled,
        sources=_sources(power, [name for watch in watches for name in watch.temperatures], witnesses),
        settings=_settings(watches),
        notes=tuple(dict.fromkeys([note for watch in watches for note in watch.notes] + notes)),
    )


def _power_sources(watches: Sequence[Watched]) -> tuple[list[str], list[str]]:
    """The sources that count, and a sentence for each that does not."""
    answered = list(dict.fromkeys(name for watch in watches for name in watch.joules))
    lost = [name for watch in watches for name in watch.lost]
    whole = [name for name in answered if all(name in watch.joules for watch in watches)]
    counted = [name for name in whole if _joules(watches, [name]) > 0]
    notes = [
        f"The power of {name} is not counted: it did not answer all the time."
        for name in dict.fromkeys(answered + lost)
        if name not in whole
    ]
    # A virtual machine may show a counter that stands still.
    notes += [f"The power of {name} is not counted: it stood at 0." for name in whole if name not in counted]
    return counted, notes


def _joules(watches: Iterable[Watched], names: Iterable[str]) -> float:
    names = list(names)
    return sum(watch.joules[name] for watch in watches for name in names)


def _joules_per_frame(watches: Sequence[Watched], power: Sequence[str]) -> float | None:
    timed = [watch for watch in watches if watch.frames]
    return _ratio(_joules(timed, power), sum(watch.frames for watch in timed))


def _ratio(amount: float, by: float) -> float | None:
    return amount / by if by else None


def _throttled(watches: Sequence[Watched]) -> tuple[Answer, list[str]]:
    """Yes from any sensor at any time; no takes a sensor that can tell in every stretch. And who told."""
    answers = [answer for watch in watches for answer in watch.throttled.values()]
    witnesses = [name for watch in watches for name in watch.throttled]
    if any(answers):
        return "yes", witnesses
    return ("no", witnesses) if all(watch.throttled for watch in watches) else ("unknown", [])


def _clocks(watches: Sequence[Watched]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for watch in watches:
        for name, (low, high) in watch.clocks.items():
            lowest, highest = found.get(name, (low, high))
            found[name] = (min(lowest, low), max(highest, high))
    return found


def _settings(watches: Sequence[Watched]) -> dict[str, str]:
    """Every setting; one that changed between stretches with all its values ("powersave, then performance")."""
    names = dict.fromkeys(name for watch in watches for name in watch.settings)
    return {
        name: ", then ".join(dict.fromkeys(watch.settings[name] for watch in watches if name in watch.settings))
        for name in names
    }


def _sources(power: Sequence[str], temperatures: Sequence[str], witnesses: Sequence[str]) -> tuple[str, ...]:
    lines = [f"power: {' + '.join(power)}"] if power else []
    for what, names in (("temperature", temperatures), ("throttling", witnesses)):
        lines += [f"{what}: {', '.join(dict.fromkeys(names))}"] if names else []
    return tuple(lines)
