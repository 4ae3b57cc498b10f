"""Every sensor of this machine, asked from a thread while something is timed.

Machine-wide power belongs to what is timed, since rows run strictly one at a time; when the CPU is timed, a GPU at
rest is part of the sum.

A sample took 0.1 ms on made folders of a desktop of 16 cores (19 files). On a Jetson the I2C bus adds about 1 ms a
rail, while the timed thread runs on: 1 % of the time at the usual ten samples a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from edpct.bench.report.schema import StateReport
from edpct.bench.sensors.cpu import find_cpu
from edpct.bench.sensors.jetson import find_jetson
from edpct.bench.sensors.nvidia import find_nvidia
from edpct.bench.sensors.rapl import find_rapl
from edpct.bench.sensors.sensor import Found, Sample, Sensor
from edpct.bench.sensors.watched import Watched, state_of

FINDERS: tuple[Callable[[Path], Found], ...] = (find_jetson, find_rapl, find_nvidia, find_cpu)
ATTEMPTS = 2  # an I2C bus may be busy once; twice in a row it does not answer


class Monitor:
    """Finds the sensors once and watches with them as often as wanted.

    Args:
        root: where sys, proc, etc and dev are; another folder for tests.
        interval: seconds between samples.

    Attributes:
        sensors: what was found.
        notes: what is there and cannot be read, and what to do about it.
    """

    def __init__(self, root: Path = Path("/"), interval: float = 0.1) -> None:
        self.sensors, self.notes = find_sensors(root)
        self.interval = interval

    def watch(self) -> Watch:
        """One stretch of time, as a context manager."""
        return Watch(self.sensors, self.notes, self.interval)


class Watch:
    """Asks the sensors at the beginning, every ``interval`` seconds from a thread, and at the end.

    Use it as ``with monitor.watch() as watch: ...``, one at a time; then :meth:`watched`. A sensor that stops answering
    is left out from there on, with a note.
    """

    def __init__(self, sensors: Sequence[Sensor], notes: Sequence[str], interval: float) -> None:
        self._tracks = [Track(sensor) for sensor in sensors]
        self._notes, self._interval = tuple(notes), interval
        self._began, self._seconds = 0.0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edpct sensors", daemon=True)

    def __enter__(self) -> Watch:
        for track in self._tracks:
            track.begin()
        self._began = self._round()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._seconds = self._round() - self._began
        for track in self._tracks:
            track.end()

    def watched(self, frames: int = 0) -> Watched:
        """What was seen, as plain data; after the ``with`` block.

        Args:
            frames: inferences made meanwhile whose energy is to be reported; 0 where this stretch only counts as time.
        """
        tracks = self._tracks
        return Watched(
            seconds=self._seconds,
            frames=frames,
            joules={name: joules for track in tracks if not track.failed for name, joules in track.joules.items()},
            lost=tuple(name for track in tracks if track.failed for name in track.joules),
            temperatures={name: value for track in tracks for name, value in track.temperatures.items()},
            clocks={name: span for track in reversed(tracks) for name, span in track.clocks.items()},
            throttled={track.sensor.title: track.throttled for track in tracks if track.throttled is not None},
            settings={name: value for track in tracks for name, value in track.settings.items()},
            notes=self._notes + tuple(track.failed for track in tracks if track.failed),
        )

    def state(self, frames: int = 0) -> StateReport:
        """The state of a row that was watched this once."""
        return state_of([self.watched(frames)])

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._round()

    def _round(self) -> float:
        """Ask every sensor; the moment at which it began, in seconds of a steady clock."""
        moment = time.perf_counter()
        for track in self._tracks:
            track.ask(moment)
        return moment


class Track:
    """What one sensor said from the beginning to the end of a watch.

    Attributes:
        failed: a sentence once it has stopped answering; empty before.
        joules: since the beginning, by source.
        throttled: None as long as it cannot tell.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self.failed = ""
        self.joules: dict[str, float] = {}
        self.temperatures: dict[str, float] = {}
        self.clocks: dict[str, tuple[float, float]] = {}
        self.throttled: bool | None = None
        self.settings: dict[str, str] = {}
        self._counters: dict[str, int] = {}
        self._last: tuple[float, Sample] | None = None

    def begin(self) -> None:
        """Note the settings and where the throttle counters stand."""
        try:
            self.settings, self._counters = self.sensor.settings(), self.sensor.counters()
        except Exception as error:
            self._fail(error)

    def ask(self, moment: float) -> None:
        """Take one sample; ``moment`` in seconds of a steady clock."""
        for attempt in range(ATTEMPTS):
            if self.failed:
                return
            try:
                self._add(moment, self.sensor.sample())
                return
            except Exception as error:  # a driver may raise anything, and no sensor is worth a bench
                if attempt == ATTEMPTS - 1:
                    self._fail(error)

    def end(self) -> None:
        """Compare the throttle counters with the beginning."""
        if self.failed or not self._counters:
            return
        try:
            now = self.sensor.counters()
        except Exception as error:
            self._fail(error)
            return
        grown = any(now.get(name, count) > count for name, count in self._counters.items())
        self.throttled = bool(self.throttled) or grown

    def _fail(self, error: Exception) -> None:
        self.failed = f"{self.sensor.title} stopped answering: {error}."
        self.throttled = self.throttled or None  # what was seen stays; that nothing happened is not known any more

    def _add(self, moment: float, sample: Sample) -> None:
        for name in (*sample.joules, *sample.watts):
            self.joules[name] = self.joules.get(name, 0.0) + self._used(name, moment, sample)
        for name, degrees in sample.temperatures.items():
            self.temperatures[name] = max(degrees, self.temperatures.get(name, degrees))
        for name, clock in sample.clocks.items():
            low, high = self.clocks.get(name, (clock, clock))
            self.clocks[name] = (min(low, clock), max(high, clock))
        if sample.throttled is not None:
            self.throttled = bool(self.throttled) or sample.throttled
        self._last = (moment, sample)

    def _used(self, name: str, moment: float, sample: Sample) -> float:
        """Joules since the last sample: the counter's growth, or the mean of two powers over the time between."""
        if self._last is None:
            return 0.0
        before, last = self._last
        if name in sample.joules:
            return sample.joules[name] - last.joules[name]
        return (sample.watts[name] + last.watts[name]) / 2 * (moment - before)


def find_sensors(root: Path = Path("/")) -> tuple[tuple[Sensor, ...], tuple[str, ...]]:
    """The sensors below ``root`` and the notes about those that cannot be read; raises nothing."""
    found = [_look(finder, root) for finder in FINDERS]
    sensors = tuple(each.sensor for each in found if each.sensor is not None)
    return sensors, tuple(note for each in found for note in each.notes)


def _look(finder: Callable[[Path], Found], root: Path) -> Found:
    try:
        return finder(root)
    except Exception as error:  # as for a sample: no sensor is worth a bench
        return Found(None, (f"A sensor cannot be used ({finder.__name__}): {error!r}.",))


def describe(root: Path = Path("/")) -> list[str]:
    """A line for every sensor with what it tells now, then the notes; for ``edpct doctor``."""
    sensors, notes = find_sensors(root)
    lines = []
    power = False
    for sensor in sensors:
        with Watch([sensor], (), 60) as watch:
            pass
        seen = watch.watched()
        power = power or bool(seen.joules)
        lines.append(f"{sensor.title}: {_tells(seen)}")
    lines += notes
    if not power and not notes:
        lines.append("No power sensor: no RAPL, no NVIDIA GPU with NVML, no Jetson.")
    return lines


def _tells(seen: Watched) -> str:
    parts = [f"power of {', '.join(seen.joules)}"] if seen.joules else []
    parts += [f"temperature of {', '.join(seen.temperatures)}"] if seen.temperatures else []
    parts += [f"clock of {', '.join(seen.clocks)}"] if seen.clocks else []
    parts += ["throttling"] if seen.throttled else []
    parts += [f"{name} {value}" for name, value in seen.settings.items()]
    return "; ".join(parts + list(seen.notes)) or "nothing"
