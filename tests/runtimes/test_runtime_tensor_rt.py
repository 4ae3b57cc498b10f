"""The TensorRT session's own steps, on stand-ins for TensorRT, pycuda and the CUDA driver: no GPU is asked for.

The stand-ins do a stream's work only when it is waited for, so that an answer fetched too early is a wrong one. What
they cannot show is whether the real libraries agree; the contract test does, on a machine with a GPU. So that they do
not drift, the last tests compare their names with those of ``tensorrt_rtx`` and of the driver where there is one.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from edpct.errors import EngineError
from edpct.runtimes import gpu
from edpct.runtimes.cuda_graph import CudaGraph
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.session import Options, Session
from edpct.runtimes.sidecar import TRUST_VARIABLE, sidecar_path, trust
from edpct.runtimes.table import RUNTIMES, open_session
from edpct.runtimes.tensor_rt import TensorRTSession

SHAPES = {"image": (1, 3, 32, 32), "logits": (1, 2, 32, 32)}
LARGEST = 4
OPEN = {name: (-1, *shape[1:]) for name, shape in SHAPES.items()}
GRAPH = Options(cuda_graph=True)
Work = Callable[[], None]


class Memory:
    """Device memory: bytes behind an address."""

    live: ClassVar[dict[int, bytearray]] = {}
    addresses = itertools.count(4096, 4096)

    def __init__(self, size: int) -> None:
        assert Context.is_current()
        self.address = next(self.addresses)
        Memory.live[self.address] = bytearray(size)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        assert Context.is_current()
        del Memory.live[self.address]


class Stream:
    """Work in order, done when it is waited for; while captured, put into a graph and not done."""

    by_handle: ClassVar[weakref.WeakValueDictionary[int, Stream]] = weakref.WeakValueDictionary()
    handles = itertools.count(99)

    def __init__(self) -> None:
        self.handle = next(self.handles)
        self.waiting: list[Work] = []
        self.captured: list[Work] | None = None
        Stream.by_handle[self.handle] = self

    def put(self, work: Work) -> None:
        (self.waiting if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        assert self.captured is None, "a stream that is captured cannot be waited for"
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class Event:
    def __init__(self) -> None:
        self.reached = False

    def record(self, stream: Stream) -> None:
        self.reached = False
        stream.put(lambda: setattr(self, "reached", True))

    def time_since(self, start: Event) -> float:
        assert self.reached and start.reached
        return 1.5


class Context:
    """How often each thread made it current."""

    depth: ClassVar[dict[int, int]] = {}

    @classmethod
    def is_current(cls) -> bool:
        return cls.depth.get(threading.get_ident(), 0) == 1

    def push(self) -> None:
        Context.depth[threading.get_ident()] = Context.depth.get(threading.get_ident(), 0) + 1

    def pop(self) -> None:
        Context.depth[threading.get_ident()] -= 1

    @classmethod
    def is_left(cls) -> bool:
        return not any(cls.depth.values())


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class TensorIOMode:
    INPUT, OUTPUT = range(2)


class IExecutionContext:
    accepts = True
    enqueued = 0
    computed = 0
    live: ClassVar[weakref.WeakSet[IExecutionContext]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.batch = 1
        IExecutionContext.live.add(self)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert Context.is_current() and ICudaEngine.shapes[name][0] == -1
        self.batch = shape[0]
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert Context.is_current()
        IExecutionContext.enqueued += 1
        addresses, batch = dict(self.addresses), self.batch

        def compute() -> None:
            IExecutionContext.computed += 1
            image = np.frombuffer(Memory.live[addresses["image"]], np.float32).reshape(-1, *SHAPES["image"][1:])
            answer = np.ascontiguousarray(image[:batch, :2] * 2).tobytes()
            Memory.live[addresses["logits"]][: len(answer)] = answer

        if self.accepts:
            Stream.by_handle[stream_handle].put(compute)
        return self.accepts


class ICudaEngine:
    num_io_tensors = 2
    shapes: ClassVar[dict[str, tuple[int, ...]]] = SHAPES
    live: ClassVar[weakref.WeakSet[ICudaEngine]] = weakref.WeakSet()
    gone_too_early = 0  # TensorRT wants an engine's contexts to go before it

    def __init__(self) -> None:
        ICudaEngine.live.add(self)

    def __del__(self) -> None:
        ICudaEngine.gone_too_early += len(IExecutionContext.live)

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext()

    def get_tensor_name(self, index: int) -> str:
        return list(SHAPES)[index]

    def get_tensor_mode(self, name: str) -> int:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("image", 0) and self.shapes[name][0] == -1
        return [(batch, *self.shapes[name][1:]) for batch in (1, 1, LARGEST)]

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT"


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if plan == b"a plan":
            return ICudaEngine()
        self.logger.log(ILogger.WARNING, "a warning")
        self.logger.log(ILogger.ERROR, "Error Code 1: Serialization\nmore")
        return None


def fake_tensorrt() -> ModuleType:
    module = ModuleType("tensorrt")
    names = {"__version__": "10.3.0", "nptype": lambda dtype: {"FLOAT": np.float32}[dtype]}
    for part in (ILogger, TensorIOMode, Runtime):
        names[part.__name__] = part
    module.__dict__.update(names)
    return module


def fake_pycuda() -> ModuleType:
    class Device:
        def __init__(self, ordinal: int) -> None: ...

        def retain_primary_context(self) -> Context:
            return Context()

    def htod(device: Memory, host: Any, stream: Stream) -> None:
        stream.put(lambda: Memory.live[device.address].__setitem__(slice(host.nbytes), host.tobytes()))

    def dtoh(host: Any, device: Memory, stream: Stream) -> None:
        def copy() -> None:
            content = bytes(Memory.live[device.address][: host.nbytes])
            np.copyto(host, np.frombuffer(content, host.dtype).reshape(host.shape))

        stream.put(copy)

    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(
        {
            "init": lambda: None,
            "Device": Device,
            "Stream": Stream,
            "Event": Event,
            "Error": type("Error", (Exception,), {}),
            "pagelocked_empty": np.empty,
            "mem_alloc": Memory,
            "memcpy_htod_async": htod,
            "memcpy_dtoh_async": dtoh,
        }
    )
    return driver


class Driver:
    """libcuda's graphs. Names, order of arguments and the rules they follow are those of cuda.h.

    Attributes:
        calls: names in order, without the launches' arguments.
        fails: name to the error that it returns, having done nothing; an end of capture ends it all the same.
        graphs, executables: live ones by handle.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.handles = itertools.count(7)
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name != "cuGetErrorString":
            assert Context.is_current()
            self.calls.append(name)
        return super().__getattribute__(name)

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:  # noqa: N802
        assert mode == 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        found = Stream.by_handle[stream.value or 0]
        assert found.captured is None
        if not (code := self.fails.get("cuStreamBeginCapture_v2", 0)):
            found.captured = []
        return code

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:  # noqa: N802
        found = Stream.by_handle[stream.value or 0]
        work, found.captured = found.captured, None
        assert work is not None
        if code := self.fails.get("cuStreamEndCapture", 0):
            graph._obj.value = None
            return code
        graph._obj.value = next(self.handles)
        self.graphs[graph._obj.value] = work
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, flags: Any) -> int:  # noqa: N802
        assert isinstance(flags, ctypes.c_ulonglong) and flags.value == 0
        if code := self.fails.get("cuGraphInstantiateWithFlags", 0):
            return code
        executable._obj.value = next(self.handles)
        self.executables[executable._obj.value] = list(self.graphs[graph.value or 0])
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:  # noqa: N802
        del self.graphs[graph.value or 0]
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:  # noqa: N802
        if code := self.fails.get("cuGraphLaunch", 0):
            return code
        for work in self.executables[executable.value or 0]:
            Stream.by_handle[stream.value or 0].put(work)
        return 0

    def cuGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:  # noqa: N802
        del self.executables[executable.value or 0]
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = b"operation not permitted when stream is capturing"
        return 0


CAPTURE = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for remembered in (Memory.live, Context.depth, Stream.by_handle, IExecutionContext.live, ICudaEngine.live):
        remembered.clear()
    IExecutionContext.enqueued = IExecutionContext.computed = ICudaEngine.gone_too_early = 0
    state = GpuState(True, "", "12.6", (GpuDevice("Orin", "8.7", 8 << 30),))
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: state)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: object())
    package, driver = ModuleType("pycuda"), fake_pycuda()
    package.__dict__["driver"] = driver
    for name, module in (("tensorrt", fake_tensorrt()), ("pycuda", package), ("pycuda.driver", driver)):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr("edpct.runtimes.gpu.load_driver", lambda: made)
    return made


PlanWriter = Callable[..., Path]


def image(seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPES["image"]).astype(np.float32)


def check(session: Session, seed: int) -> None:
    np.testing.assert_array_equal(session.run({"image": image(seed)})["logits"], image(seed)[:, :2] * 2)


def nothing_is_left() -> bool:
    live = Memory.live or ICudaEngine.live or IExecutionContext.live
    return not live and ICudaEngine.gone_too_early == 0 and Context.is_left()


def test_infers_and_frees_what_it_took(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        assert isinstance(session, TensorRTSession)
        assert str(session.inputs[0]) == "image float32 (1, 3, 32, 32)"
        assert str(session.outputs[0]) == "logits float32 (1, 2, 32, 32)"
        assert session.device_ms is None
        first = session.run({"image": image(0)})["logits"]
        session.run({"image": image(1)})
        np.testing.assert_array_equal(first, image(0)[:, :2] * 2)
        assert session.device_ms == 1.5
        assert session.details["provider"] == "TensorRT on Orin (compute capability 8.7)"
        assert (session.details["version"], session.details["precision"]) == ("10.3.0", "fp16")
        assert len(Memory.live) == 2
    assert nothing_is_left()
    session.close()
    for step in (lambda: session.bind({"image": image()}), session.execute, session.fork):
        with pytest.raises(EngineError, match="This tensorrt session is closed"):
            step()


def test_takes_three_steps(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        session.bind({"image": image(0)})
        assert IExecutionContext.enqueued == 0
        session.execute()
        assert IExecutionContext.computed == 1  # it waited
        session.execute()
        first, again = session.fetch()["logits"], session.fetch()["logits"]
        assert IExecutionContext.computed == 2
        first[:] = 0
        np.testing.assert_array_equal(again, image(0)[:, :2] * 2)
        with pytest.raises(EngineError, match="Input 'image' takes shape"):
            session.bind({"image": image(1)[:, :, :16]})
        session.execute()
        np.testing.assert_array_equal(session.fetch()["logits"], image(0)[:, :2] * 2)


def test_forks_share_the_engine_and_nothing_else(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        session.bind({"image": image(0)})
        with session.fork() as fork, session.fork() as another:
            assert (len(ICudaEngine.live), len(IExecutionContext.live), len(Memory.live)) == (1, 3, 6)
            assert len(Stream.by_handle) == 3
            assert (fork.runtime, fork.device, fork.details) == ("tensorrt", "cuda", session.details)
            assert (fork.inputs, fork.outputs) == (session.inputs, session.outputs)
            fork.bind({"image": image(1)})
            another.bind({"image": image(2)})
            requests = (session, fork, another)
            for request in requests:
                request.execute()
            for seed, request in enumerate(requests):
                np.testing.assert_array_equal(request.fetch()["logits"], image(seed)[:, :2] * 2)
        assert (len(ICudaEngine.live), len(IExecutionContext.live), len(Memory.live)) == (1, 1, 2)
        with pytest.raises(EngineError, match="This tensorrt session is closed"):
            fork.execute()
        fork.close()
        check(session, 3)
    assert nothing_is_left()


def test_each_thread_has_the_gpus_context(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session, session.fork() as fork, ThreadPoolExecutor(2) as pool:

        def rounds(request: Session, first: int) -> None:
            for seed in range(first, first + 20):
                check(request, seed)

        for job in [pool.submit(rounds, request, first) for request, first in ((session, 0), (fork, 100))]:
            job.result()
    assert nothing_is_left()


def test_a_cuda_graph_is_captured_once_and_launched_from_then_on(write_plan: PlanWriter, driver: Driver) -> None:
    with open_session(write_plan(), "tensorrt", options=GRAPH) as session:
        session.bind({"image": image(0)})
        assert driver.calls == []
        session.execute()
        assert driver.calls == [*CAPTURE, "cuGraphLaunch"]
        assert (IExecutionContext.enqueued, IExecutionContext.computed) == (2, 2)  # once without, once captured
        np.testing.assert_array_equal(session.fetch()["logits"], image(0)[:, :2] * 2)
        for seed in range(1, 4):
            check(session, seed)
            assert session.device_ms == 1.5
        assert driver.calls == [*CAPTURE, *["cuGraphLaunch"] * 4]
        assert (IExecutionContext.enqueued, IExecutionContext.computed) == (2, 5)
        assert (len(driver.graphs), len(driver.executables)) == (0, 1)
    assert driver.executables == {}
    assert nothing_is_left()
    session.close()
    assert driver.calls.count("cuGraphExecDestroy") == 1


def test_every_fork_captures_its_own_graph(write_plan: PlanWriter, driver: Driver) -> None:
    with open_session(write_plan(), "tensorrt", options=GRAPH) as session:
        check(session, 0)
        with session.fork() as fork:
            for seed in range(3):
                check(fork, seed)
                check(session, seed + 10)
            assert len(driver.executables) == 2
        assert len(driver.executables) == 1
        check(session, 5)
    assert (driver.graphs, driver.executables) == ({}, {})
    assert nothing_is_left()


def test_without_the_option_nothing_is_captured(write_plan: PlanWriter, driver: Driver) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        check(session, 0)
    assert driver.calls == []


@pytest.mark.parametrize("function", CAPTURE[:3])
def test_a_capture_that_the_driver_refuses(write_plan: PlanWriter, driver: Driver, function: str) -> None:
    driver.fails = {function: 900}
    with open_session(write_plan(), "tensorrt", options=GRAPH) as session:
        with pytest.raises(EngineError) as caught:
            session.run({"image": image()})
        assert caught.value.what == (
            "The engine cannot be captured as a CUDA graph: operation not permitted when stream is capturing (900)."
        )
        assert caught.value.hint == "Run it without CUDA graph (--cuda-graph off)."
        assert all(stream.captured is None for stream in Stream.by_handle.values())
        driver.fails = {}
        check(session, 1)
    assert driver.executables == {}
    del caught  # its traceback holds the session's frames
    assert nothing_is_left()


def test_a_launch_that_the_driver_refuses(write_plan: PlanWriter, driver: Driver) -> None:
    with open_session(write_plan(), "tensorrt", options=GRAPH) as session:
        check(session, 0)
        driver.fails = {"cuGraphLaunch": 900}
        with pytest.raises(EngineError, match=r"^The CUDA graph cannot be launched: operation not .* \(900\)\."):
            session.execute()
    assert driver.executables == {}
    assert Context.is_left()


@pytest.mark.parametrize("end", [0, 901], ids=["capture-ends", "capture-invalidated"])
def test_a_stream_is_never_left_capturing(
    write_plan: PlanWriter, driver: Driver, end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(write_plan(), "tensorrt", options=GRAPH) as session:
        real = IExecutionContext.execute_async_v3

        def refuse_while_captured(self: IExecutionContext, stream_handle: int) -> bool:
            return Stream.by_handle[stream_handle].captured is None and real(self, stream_handle)

        driver.fails = {"cuStreamEndCapture": end}
        with monkeypatch.context() as patch, pytest.raises(EngineError) as caught:
            patch.setattr(IExecutionContext, "execute_async_v3", refuse_while_captured)
            session.run({"image": image()})
        assert "\n" not in caught.value.what
        assert driver.calls == CAPTURE[:2] or driver.calls == [*CAPTURE[:2], "cuGraphDestroy"]
        assert all(stream.captured is None for stream in Stream.by_handle.values())
        driver.fails = {}
        check(session, 1)
    assert driver.executables == {}


@pytest.mark.parametrize("failing", ["the work", "cuGraphInstantiateWithFlags"])
def test_a_graph_that_comes_to_nothing_is_freed(driver: Driver, failing: str) -> None:
    stream = Stream()

    def work() -> None:
        if failing == "the work":
            raise EngineError("TensorRT failed.", "")

    driver.fails = {failing: 900}
    context = Context()
    context.push()
    with pytest.raises(EngineError):
        CudaGraph(work, stream.handle)
    context.pop()
    assert stream.captured is None
    assert driver.graphs == {}


def test_a_sidecar_that_does_not_fit_keeps_the_plan_from_tensorrt(write_plan: PlanWriter) -> None:
    del sys.modules["tensorrt"].__dict__["Runtime"]  # touching it would be an AttributeError
    with pytest.raises(EngineError, match=r"built by tensorrt 10\.7\.0 and this machine has 10\.3\.0"):
        open_session(write_plan(builder_version="10.7.0"), "tensorrt")
    with pytest.raises(EngineError, match="SHA-256 differs"):
        open_session(write_plan(plan_sha256="0" * 64), "tensorrt")


@pytest.mark.parametrize("lacking", ["the hash", "the sidecar"])
def test_a_plan_that_nothing_vouches_for_opens_where_it_is_trusted(
    write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")
    plan = write_plan(plan_sha256="0" * 64)
    if lacking == "the sidecar":
        sidecar_path(plan).unlink()
    trust(plan)
    with open_session(plan, "tensorrt") as session:
        assert session.details["precision"] == ("unknown" if lacking == "the sidecar" else "fp16")


def test_a_plan_that_tensorrt_refuses(write_plan: PlanWriter) -> None:
    with pytest.raises(EngineError) as caught:
        open_session(write_plan(b"a damaged plan"), "tensorrt")
    assert caught.value.what == "TensorRT refused student.plan: Error Code 1: Serialization"
    assert Context.is_left()


def test_a_fork_for_which_memory_does_not_suffice(write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        with monkeypatch.context() as patch:
            patch.setattr(ICudaEngine, "create_execution_context", lambda self: None)
            with pytest.raises(EngineError, match=r"TensorRT refused student\.plan"):
                session.fork()
        assert Context.is_left()
        check(session, 0)


def test_an_open_axis_is_refused(write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ICudaEngine, "shapes", {**SHAPES, "image": (1, 3, -1, 32)})
    with pytest.raises(EngineError, match=r"student\.plan: the shape of 'image' is open"):
        open_session(write_plan(), "tensorrt")


@pytest.mark.parametrize("options", [Options(), GRAPH], ids=["plain", "graph"])
def test_an_open_batch_takes_one_to_the_most_of_its_profile(
    write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch, driver: Driver, options: Options
) -> None:
    monkeypatch.setattr(ICudaEngine, "shapes", OPEN)
    images = np.concatenate([image(seed) for seed in range(LARGEST + 1)])
    with open_session(write_plan(), "tensorrt", options=options) as session:
        assert session.inputs[0].shape == (None, 3, 32, 32) and session.outputs[0].shape == (None, 2, 32, 32)
        for batch in (1, 3, LARGEST, 2):
            for first in (0, 1):
                feed = images[first : first + batch]
                answer = session.run({"image": feed})["logits"]
                np.testing.assert_array_equal(answer, feed[:, :2] * 2)
        with pytest.raises(EngineError, match=r"student\.plan takes batches of up to 4 and was given 5"):
            session.run({"image": images})
    assert (Memory.live, driver.graphs, driver.executables) == ({}, {}, {})


def test_there_is_nothing_to_fetch_before_anything_was_executed(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        for step in (session.execute, session.fetch):
            with pytest.raises(EngineError, match="This tensorrt session has no answer yet"):
                step()
        session.bind({"image": image()})
        with pytest.raises(EngineError, match="has no answer yet"):
            session.fetch()


def test_failures_while_running(write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        with pytest.raises(EngineError, match="Input 'image' takes float32 and was given float64"):
            session.run({"image": image().astype(np.float64)})
        with monkeypatch.context() as patch:
            patch.setattr(IExecutionContext, "accepts", False)
            with pytest.raises(EngineError, match=r"TensorRT failed on student\.plan"):
                session.run({"image": image()})
        pycuda = sys.modules["pycuda.driver"]

        def lost(*_: Any) -> None:
            raise pycuda.Error("cuMemcpyHtoDAsync failed: unspecified launch failure")

        monkeypatch.setattr(pycuda, "memcpy_htod_async", lost)
        with pytest.raises(EngineError, match=r"CUDA failed on student\.plan: cuMemcpyHtoDAsync failed"):
            session.run({"image": image()})
    assert Context.is_left()


def test_the_stand_ins_have_the_names_of_the_real_interface() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for part in (ILogger, TensorIOMode, IExecutionContext, ICudaEngine, Runtime):
        own = {name for name in vars(part) if not name.startswith("_")}
        own -= {"accepts", "computed", "enqueued", "gone_too_early", "live", "shapes"}
        assert own <= set(dir(getattr(trt, part.__name__)))
    assert callable(trt.nptype)
    assert set(RUNTIMES["tensorrt"].suffixes) >= set(RUNTIMES["tensorrt-rtx"].suffixes)


def test_the_stand_in_has_the_names_of_the_real_driver() -> None:
    try:
        cuda = gpu.load_driver()
    except OSError:
        pytest.skip(f"{gpu.LIBRARY} is not there")
    for name in vars(Driver):
        if name.startswith("cu"):
            assert hasattr(cuda, name)
