"""Timing one session: what each scope includes, how long is timed, warm-up, several requests in flight."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from edpct.bench import latency
from edpct.bench.frames import Frames, decode
from edpct.bench.latency import PHASES, take_flow, take_turn, warm_up
from edpct.bench.report.schema import SCOPES, Scope
from edpct.errors import EngineError
from edpct.runtimes import ports
from edpct.runtimes.labels import labels_of
from edpct.runtimes.ports import Ports
from edpct.runtimes.session import Arrays, Session, TensorSpec
from edpct.task import ClassInfo, Preprocessing, Task

SIDE = 32
AS_IS = Preprocessing(height=SIDE, width=SIDE, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
TASK = Task(classes=tuple(ClassInfo(name=name, colour=(0, 0, 0)) for name in ("a", "b")), preprocessing=AS_IS)
EIGHTH = 0.125  # of a second: binary fractions add up without rounding


class Clock:
    """Stands still until somebody takes their time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Paced(Session):
    """Each step takes as long as it is told to; notes which images it was fed."""

    runtime, device = "paced", "cpu"
    inputs = (TensorSpec("image", np.dtype(np.float32), (None, 3, SIDE, SIDE)),)
    outputs = (TensorSpec("logits", np.dtype(np.float32), (None, 2, SIDE, SIDE)),)

    def __init__(self, clock: Clock, bind: float = 0, execute: float = 0, fetch: float = 0) -> None:
        self.clock, self.took = clock, {"bind": bind, "execute": execute, "fetch": fetch}
        self.seen: list[tuple[int, ...]] = []
        self.executed = 0
        self.details: dict[str, str] = {}

    def bind(self, feeds: Arrays) -> None:
        self.seen.append(tuple(round(float(image[0, 0, 0])) for image in feeds["image"]))
        self.clock.sleep(self.took["bind"])

    def execute(self) -> None:
        self.executed += 1
        self.clock.sleep(self.took["execute"])

    def fetch(self) -> Arrays:
        self.clock.sleep(self.took["fetch"])
        return {"logits": np.zeros((len(self.seen[-1]), 2, SIDE, SIDE), np.float32)}


def encoded(*shades: int) -> list[bytes]:
    """PNGs of one shade each."""
    found = []
    for shade in shades:
        file = BytesIO()
        Image.new("RGB", (SIDE, SIDE), (shade, shade, shade)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def frames(count: int = 3, batch: int = 1) -> Frames:
    return Frames(encoded(*range(count)), Ports.plain(TASK), batch)


# ---- what is timed


def test_compute_is_the_execution_alone() -> None:
    clock = Clock()
    turn = take_turn(Paced(clock, 0.25, 0.5, 8.0), frames(), "compute", 3.0, 1, False, clock)
    assert turn.times == [500.0] * 4 and turn.phases == {}


def test_compute_is_what_the_devices_own_clock_says_where_it_has_one() -> None:
    clock = Clock()
    session = Paced(clock, 0.25, 0.5, 0.25)
    session.device_ms = 3.5
    assert take_turn(session, frames(), "compute", 3.0, 1, False, clock).times == [3.5] * 4
    assert set(take_turn(session, frames(), "transfer", 3.0, 1, False, clock).times) == {1000.0}


def test_transfer_is_from_host_memory_to_host_memory() -> None:
    clock = Clock()
    turn = take_turn(Paced(clock, 0.25, 0.5, 1.25), frames(), "transfer", 4.0, 1, False, clock)
    assert turn.times == [2000.0] * 2 and turn.phases == {}


def test_end_to_end_is_from_the_encoded_image_to_the_map_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def slow(function: Callable[..., np.ndarray], seconds: float) -> Callable[..., np.ndarray]:
        def call(*arguments: object) -> np.ndarray:
            clock.sleep(seconds)
            return function(*arguments)

        return call

    fed = frames()
    monkeypatch.setattr(latency, "decode", slow(decode, 0.25))
    monkeypatch.setattr(ports, "labels_of", slow(labels_of, 4.0))
    monkeypatch.setattr(Preprocessing, "apply", slow(Preprocessing.apply, 0.5))
    session = Paced(clock, 0.25, 0.5, 0.25)
    turn = take_turn(session, fed, "end_to_end", 1.0, 3, False, clock)
    assert turn.phases == {
        "decode": [250.0] * 3, "preprocess": [500.0] * 3, "infer": [1000.0] * 3, "argmax": [4000.0] * 3,
    }  # fmt: skip
    assert tuple(turn.phases) == PHASES
    assert turn.times == [5750.0] * 3
    assert session.seen == [(0,), (1,), (2,)]  # the same images as in the other scopes


def test_phases_add_up_with_the_real_clock() -> None:
    turn = take_turn(Paced(Clock()), frames(), "end_to_end", 0.0, 20, False)
    assert len(turn.times) == 20 and min(turn.times) > 0
    assert all(len(values) == 20 for values in turn.phases.values())
    total = np.sum([turn.phases[name] for name in PHASES], axis=0)
    assert total == pytest.approx(turn.times, rel=1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_at_least_so_many_seconds(scope: Scope) -> None:
    clock = Clock()
    session = Paced(clock, EIGHTH, EIGHTH, 0)
    began = clock()
    turn = take_turn(session, frames(), scope, 2.0, 1, False, clock)
    assert clock() - began == 2.0
    assert len(turn.times) == session.executed == 8


@pytest.mark.parametrize("scope", SCOPES)
def test_at_least_so_many_inferences(scope: Scope) -> None:
    clock = Clock()
    assert len(take_turn(Paced(clock, execute=7.0), frames(), scope, 1.0, 3, False, clock).times) == 3


def test_settling_is_not_counted() -> None:
    """What went cold while others had their turn is warm again before the first time is taken."""
    clock = Clock()

    class Cold(Paced):
        def execute(self) -> None:
            super().execute()
            self.clock.sleep(5.0 if self.executed == 1 else 0.0)

    cold = take_turn(Cold(clock, execute=EIGHTH), frames(), "transfer", 1.0, 1, False, clock)
    assert cold.times[0] == 5125.0
    session = Cold(clock, execute=EIGHTH)
    settled = take_turn(session, frames(), "transfer", 1.0, 1, True, clock)
    assert settled.times == [125.0] * 8
    assert session.executed > 8


# ---- images


def test_images_go_round() -> None:
    clock = Clock()
    for scope in SCOPES:
        session = Paced(clock, execute=EIGHTH)
        take_turn(session, frames(3), scope, 1.0, 1, False, clock)
        assert session.seen == [(0,), (1,), (2,), (0,), (1,), (2,), (0,), (1,)]


@pytest.mark.parametrize(
    ("count", "batch", "groups"),
    [(4, 2, [(0, 1), (2, 3)]), (3, 2, [(0, 1), (2, 0)]), (2, 5, [(0, 1, 0, 1, 0)]), (1, 1, [(0,)])],
)
def test_batches_are_full_and_take_the_images_in_order(count: int, batch: int, groups: list[tuple[int, ...]]) -> None:
    clock = Clock()
    fed = frames(count, batch)
    for scope in SCOPES:
        session = Paced(clock, execute=EIGHTH)
        take_turn(session, fed, scope, EIGHTH * len(groups), len(groups), False, clock)
        assert session.seen == groups
    assert {feed["image"].shape for feed in fed.feeds} == {(batch, 3, SIDE, SIDE)}
    assert {feed["image"].dtype for feed in fed.feeds} == {np.dtype(np.float32)}


def test_decoding_gives_rgb_whatever_the_file_holds() -> None:
    grey, rgba = BytesIO(), BytesIO()
    Image.new("L", (3, 2), 7).save(grey, "JPEG", quality=100)
    Image.new("RGBA", (3, 2), (1, 2, 3, 255)).save(rgba, "PNG")
    images = decode([grey.getvalue(), rgba.getvalue()])
    assert images.shape == (2, 2, 3, 3) and images.dtype == np.uint8
    assert (images[0] == 7).all() and (images[1] == (1, 2, 3)).all()


# ---- garbage


@pytest.fixture
def collector() -> object:
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


class Asks(Paced):
    """Notes whether the garbage collector is on while it infers."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(Clock())
        self.answers: set[bool] = set()
        self.error = error

    def execute(self) -> None:
        self.answers.add(gc.isenabled())
        if self.error:
            raise self.error


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_not_collected_meanwhile(collector: None, on: bool) -> None:
    (gc.enable if on else gc.disable)()
    session = Asks()
    for scope in SCOPES:
        take_turn(session, frames(), scope, 0.0, 2, True)
        assert gc.isenabled() is on
    take_flow([session], frames(), 0.01)
    assert gc.isenabled() is on
    assert session.answers == {False}


def test_the_collector_is_on_again_after_an_error(collector: None) -> None:
    gc.enable()
    with pytest.raises(EngineError):
        take_turn(Asks(EngineError("no")), frames(), "transfer", 0.0, 1, False)
    assert gc.isenabled()


# ---- warm-up


class Warming(Paced):
    """Takes ``cold`` times as long at first and approaches its speed by a share with every inference."""

    def __init__(self, clock: Clock, cold: float, share: float) -> None:
        super().__init__(clock)
        self.cold, self.share = cold, share

    def execute(self) -> None:
        self.clock.sleep(0.010 * (1 + (self.cold - 1) * self.share**self.executed))
        self.executed += 1


def test_warm_up_ends_when_the_rate_no_longer_rises() -> None:
    clock = Clock()
    session = Warming(clock, cold=20, share=0.97)
    found = warm_up(session, frames(), 60.0, clock)
    assert found.steady and found.runs == session.executed
    assert found.seconds == pytest.approx(clock() - 1000) and found.seconds < 60
    before = clock()
    session.run(frames().feeds[0])
    assert clock() - before < 1.1 * 0.010  # what is timed from now on is within a tenth of the final speed


def test_warm_up_of_a_steady_engine_is_short() -> None:
    clock = Clock()
    found = warm_up(Paced(clock, execute=0.010), frames(), 60.0, clock)
    assert found.steady and found.seconds < 1.0


def test_warm_up_ends_at_its_limit_and_says_that_the_rate_was_still_rising() -> None:
    clock = Clock()

    class EverFaster(Paced):
        def execute(self) -> None:
            self.clock.sleep(1.0 / (1 + self.executed))
            self.executed += 1

    found = warm_up(EverFaster(clock), frames(), 3.0, clock)
    assert not found.steady
    assert 3.0 <= found.seconds < 3.5


def test_one_slow_stretch_is_no_end_of_the_warm_up() -> None:
    """A hiccup of the machine between two stretches that still gain: the rate has not settled."""
    clock = Clock()

    class Hiccup(Paced):
        def execute(self) -> None:
            stretch = self.executed // 5  # stretches of five inferences, since each of them takes long
            self.clock.sleep([1.0, 0.8, 2.0, 0.6, 0.5, 0.4, 0.3][stretch] if stretch < 7 else 0.2)
            self.executed += 1

    session = Hiccup(clock)
    assert warm_up(session, frames(), 1000.0, clock).steady
    assert session.executed >= 5 * 8


# ---- what the harness itself costs


class Spinning(Paced):
    """Computes for ``seconds`` and keeps account of its own time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Clock())
        self.seconds, self.own, self.runs = seconds, 0.0, 0
        self.answer = {"logits": np.zeros((1, 2, SIDE, SIDE), np.float32)}

    def run(self, feeds: Arrays) -> Arrays:
        began = time.perf_counter()
        while time.perf_counter() - began < self.seconds:
            pass
        self.runs += 1
        self.own += time.perf_counter() - began
        return self.answer


@pytest.mark.parametrize("seconds", [0.0, 0.0005])
def test_the_harness_costs_at_most_50_microseconds_a_frame(seconds: float) -> None:
    """The best of ten tries, since a busy machine may interrupt any of them."""
    fed = frames(8)
    medians, loops = [], []
    for _ in range(10):
        session = Spinning(seconds)
        began = time.perf_counter()
        turn = take_turn(session, fed, "transfer", 0.05, 100, False)
        wall = time.perf_counter() - began
        medians.append(float(np.median(turn.times)) / 1000 - session.own / session.runs)
        loops.append((wall - session.own) / session.runs)
    assert min(medians) <= 50e-6
    assert min(loops) <= 50e-6


# ---- several requests in flight


class Meeting(Paced):
    """Ends its first inference when all lanes are in theirs."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__(Clock())
        self.barrier, self.threads = barrier, set[int]()
        self.met = False

    def execute(self) -> None:
        self.threads.add(threading.get_ident())
        self.executed += 1
        if not self.met:
            self.barrier.wait(30)
            self.met = True
        time.sleep(0.005)


def test_lanes_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    lanes = [Meeting(barrier) for _ in range(4)]
    flow = take_flow(lanes, frames(), 0.2)
    assert all(lane.met for lane in lanes)  # nobody would have waited for one that comes later
    assert len(set.union(*(lane.threads for lane in lanes))) == 4 and all(len(lane.threads) == 1 for lane in lanes)
    assert flow.runs == len(flow.times) == sum(lane.executed for lane in lanes)
    assert flow.seconds >= 0.2
    assert min(flow.times) >= 5.0
    assert {image for lane in lanes for image in lane.seen} == {(0,), (1,), (2,)}


def test_an_error_of_a_lane_surfaces_and_no_thread_is_left() -> None:
    class Fails(Paced):
        def execute(self) -> None:
            super().execute()
            if self.executed == 3:
                raise EngineError("The third was too much.")
            time.sleep(0.001)

    before = threading.active_count()
    with pytest.raises(EngineError, match="The third was too much"):
        take_flow([Paced(Clock()), Fails(Clock())], frames(), 0.05)
    assert threading.active_count() == before
