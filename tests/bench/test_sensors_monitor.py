"""Watching: samples from a thread, sensors that stop, and the state of a row from several turns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edpct.bench.report.schema import StateReport
from edpct.bench.sensors import monitor
from edpct.bench.sensors.monitor import Monitor, Watch, describe, find_sensors
from edpct.bench.sensors.sensor import Found, Sample
from edpct.bench.sensors.watched import Watched, state_of


class MadeSensor:
    """Gives its samples one after the other, the last one for ever; an exception is raised."""

    title = "Made"

    def __init__(self, *samples: Sample | Exception, counters: tuple[dict[str, int], ...] = ({},)) -> None:
        self.samples, self.counts = list(samples), list(counters)
        self.asked = 0

    def sample(self) -> Sample:
        self.asked += 1
        sample = self.samples.pop(0) if len(self.samples) > 1 else self.samples[0]
        if isinstance(sample, Exception):
            raise sample
        return sample

    def counters(self) -> dict[str, int]:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def settings(self) -> dict[str, str]:
        return {"mode": "fast"}


def watch_once(*sensors: MadeSensor) -> Watched:
    """Beginning and end only: the thread's first turn lies far ahead."""
    with Watch(sensors, (), interval=60) as watch:
        pass
    return watch.watched()


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert reached()


def test_the_thread_samples_between() -> None:
    """The highest temperature and the clocks' span come from the middle; the thread is gone afterwards."""
    sensor = MadeSensor(
        Sample(temperatures={"t": 40.0}, clocks={"cpu": 3000.0}),
        Sample(temperatures={"t": 71.5}, clocks={"cpu": 900.0}),
        Sample(temperatures={"t": 50.0}, clocks={"cpu": 4200.0}),
        Sample(temperatures={"t": 45.0}, clocks={"cpu": 3500.0}),
    )
    with Watch([sensor], (), interval=0.002) as watch:
        wait_until(lambda: sensor.asked >= 4)
    seen = watch.watched()
    assert seen.temperatures == {"t": 71.5}
    assert seen.clocks == {"cpu": (900.0, 4200.0)}
    assert seen.seconds > 0
    assert "edpct sensors" not in [thread.name for thread in threading.enumerate()]


def test_the_thread_ends_with_a_failing_body() -> None:
    with pytest.raises(KeyError), Watch([MadeSensor(Sample())], (), interval=0.002):
        raise KeyError("of the body")
    assert "edpct sensors" not in [thread.name for thread in threading.enumerate()]


def test_energy_is_the_growth_of_a_counter() -> None:
    assert watch_once(MadeSensor(Sample(joules={"a": 100.0}), Sample(joules={"a": 107.5}))).joules == {"a": 7.5}


def test_energy_is_the_mean_power_times_the_time() -> None:
    """10 W at the beginning and 30 W at the end are 20 W meanwhile."""
    seen = watch_once(MadeSensor(Sample(watts={"a": 10.0}), Sample(watts={"a": 30.0})))
    assert seen.joules == pytest.approx({"a": 20 * seen.seconds})


@pytest.mark.parametrize(
    ("counters", "samples", "expected"),
    [
        pytest.param(({"n": 3}, {"n": 4}), (Sample(),), {"Made": True}, id="a counter grew"),
        pytest.param(({"n": 3}, {"n": 3}), (Sample(),), {"Made": False}, id="a counter stood"),
        pytest.param(({},), (Sample(throttled=False), Sample(throttled=True)), {"Made": True}, id="seen once"),
        pytest.param(({"n": 3}, {"n": 3}), (Sample(throttled=True),), {"Made": True}, id="seen, not counted"),
        pytest.param(({},), (Sample(),), {}, id="cannot tell"),
    ],
)
def test_throttling(
    counters: tuple[dict[str, int], ...], samples: tuple[Sample, ...], expected: dict[str, bool]
) -> None:
    assert watch_once(MadeSensor(*samples, counters=counters)).throttled == expected


def test_one_failure_is_forgiven() -> None:
    """A bus that was busy once is asked again at once."""
    seen = watch_once(MadeSensor(Sample(joules={"a": 1.0}), OSError("busy"), Sample(joules={"a": 4.0})))
    assert seen.joules == {"a": 3.0} and seen.notes == ()


def test_a_sensor_that_stops_is_dropped_and_the_others_go_on() -> None:
    """What it saw before stays, but for its power, and for the no of a sensor that cannot know any more."""
    gone = MadeSensor(Sample(joules={"a": 1.0}, temperatures={"t": 60.0}, throttled=False), RuntimeError("off the bus"))
    seen = watch_once(gone, MadeSensor(Sample(joules={"b": 1.0}), Sample(joules={"b": 2.0})))
    assert seen.joules == {"b": 1.0} and seen.lost == ("a",)
    assert seen.temperatures == {"t": 60.0} and seen.throttled == {}
    assert seen.notes == ("Made stopped answering: off the bus.",)


def test_a_sensor_that_never_answers() -> None:
    seen = watch_once(MadeSensor(ValueError("nonsense")))
    assert seen.joules == {} and seen.notes == ("Made stopped answering: nonsense.",)


TURNS = [  # two turns of 2 s and 3 s: 20 + 40 J and 30 + 60 J, and one of 5 s that has no frames: 50 + 100 J
    Watched(
        seconds=2,
        frames=10,
        joules={"cpu": 20.0, "gpu": 40.0},
        temperatures={"t": 60.0},
        clocks={"gpu": (1500.0, 1800.0)},
        throttled={"NVML": False},
        settings={"governor": "powersave"},
        notes=("A note.",),
    ),
    Watched(
        seconds=3,
        frames=20,
        joules={"cpu": 30.0, "gpu": 60.0},
        temperatures={"t": 66.0, "u": 70.5},
        clocks={"gpu": (1350.0, 1750.0), "cpu": (4000.0, 4000.0)},
        throttled={"NVML": False, "CPU": False},
        settings={"governor": "performance"},
        notes=("A note.",),
    ),
    Watched(
        seconds=5,
        joules={"cpu": 50.0, "gpu": 100.0},
        throttled={"NVML": False},
        settings={"governor": "performance"},
    ),
]


def test_the_state_of_a_row_from_its_turns() -> None:
    """300 J in 10 s are 30 W; 150 J over 30 frames are 5 J each."""
    assert state_of(TURNS) == StateReport(
        watts=30.0,
        joules_per_frame=5.0,
        temperature=70.5,
        clocks={"gpu": (1350.0, 1800.0), "cpu": (4000.0, 4000.0)},
        throttled="no",
        sources=("power: cpu + gpu", "temperature: t, u", "throttling: NVML, CPU"),
        settings={"governor": "powersave, then performance"},
        notes=("A note.",),
    )


def test_turns_from_the_journal_are_the_same() -> None:
    lines = [json.dumps(turn.model_dump(mode="json")) for turn in TURNS]
    assert [Watched.model_validate(json.loads(line)) for line in lines] == TURNS


def test_a_source_counts_if_it_answered_in_every_turn() -> None:
    """In a later sitting the CPU's counter may be read, and in no earlier one: the GPU's 20 J in 2 s are left."""
    state = state_of(
        [
            Watched(seconds=1, frames=2, joules={"gpu": 10.0}),
            Watched(seconds=1, frames=2, joules={"gpu": 10.0, "cpu": 5.0}),
        ]
    )
    assert (state.watts, state.joules_per_frame) == (10.0, 5.0)
    assert state.sources == ("power: gpu",)
    assert state.notes == ("The power of cpu is not counted: it did not answer all the time.",)


def test_a_counter_that_stands_still_is_no_power() -> None:
    state = state_of([Watched(seconds=1, frames=1, joules={"RAPL package-0": 0.0})])
    assert (state.watts, state.joules_per_frame, state.sources) == (None, None, ())
    assert state.notes == ("The power of RAPL package-0 is not counted: it stood at 0.",)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{"a": False}, {"a": False}], "no"),
        ([{"a": False}, {"a": False, "b": True}], "yes"),
        ([{"a": False}, {}], "unknown"),
        ([{"a": True}, {}], "yes"),
        ([{}, {}], "unknown"),
    ],
)
def test_whether_a_row_was_throttled(answers: list[dict[str, bool]], expected: str) -> None:
    assert state_of([Watched(seconds=1, throttled=answer) for answer in answers]).throttled == expected


def test_no_turns_and_no_frames() -> None:
    assert state_of([]) == StateReport()
    state = state_of([Watched(seconds=2, joules={"a": 8.0})])
    assert (state.watts, state.joules_per_frame) == (4.0, None)


def test_an_empty_root_knows_nothing(tmp_path: Path) -> None:
    assert find_sensors(tmp_path) == ((), ())
    with Monitor(tmp_path, interval=0.01).watch() as watch:
        pass
    assert watch.state(frames=3) == StateReport()
    assert describe(tmp_path) == ["No power sensor: no RAPL, no NVIDIA GPU with NVML, no Jetson."]


def test_a_finder_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> Found:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(monitor, "FINDERS", (broken,))
    assert Monitor(tmp_path).notes == ("A sensor cannot be used (broken): RuntimeError('no such luck').",)


def test_an_intel_desktop_that_gets_hot(tmp_path: Path) -> None:
    """6 J of package and memory over 4 frames, while a core was throttled."""
    files = {
        "sys/class/powercap/intel-rapl:0/name": ("package-0", None),
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": (262143328850, None),
        "sys/class/powercap/intel-rapl:0/energy_uj": (1_000_000, 6_000_000),
        "sys/class/powercap/intel-rapl:0:2/name": ("dram", None),
        "sys/class/powercap/intel-rapl:0:2/max_energy_range_uj": (65712999613, None),
        "sys/class/powercap/intel-rapl:0:2/energy_uj": (65712499613, 500_000),  # starts again
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": (5_000_000, 3_100_000),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": ("performance", None),
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": (7, 9),
        "sys/class/thermal/thermal_zone0/type": ("x86_pkg_temp", None),
        "sys/class/thermal/thermal_zone0/temp": (88_000, 100_000),
    }
    for name, (before, _) in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{before}\n", encoding="utf-8")
    with Monitor(tmp_path, interval=60).watch() as watch:
        for name, (_, after) in files.items():
            if after is not None:
                (tmp_path / name).write_text(f"{after}\n", encoding="utf-8")
    state = watch.state(frames=4)
    assert state.joules_per_frame == pytest.approx(1.5)
    assert state.watts == pytest.approx(6 / watch.watched().seconds)
    assert state.model_copy(update={"watts": None, "joules_per_frame": None}) == StateReport(
        temperature=100.0,
        clocks={"cpu": (3100.0, 5000.0)},
        throttled="yes",
        sources=("power: RAPL package-0 + RAPL package-0 dram", "temperature: x86_pkg_temp", "throttling: CPU"),
        settings={"governor": "performance"},
    )
