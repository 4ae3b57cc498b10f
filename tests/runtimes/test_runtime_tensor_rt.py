"""The TensorRT session's own steps, on stand-ins for TensorRT and pycuda: no GPU is asked for.

What the stand-ins cannot show is whether the real libraries agree; the contract test does, on a machine with
a GPU. So that they do not drift, the last test compares their names with those of ``tensorrt_rtx``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from edpct.errors import EngineError
from edpct.runtimes.gpu import GpuDevice, GpuState
from edpct.runtimes.table import RUNTIMES, open_session
from edpct.runtimes.tensor_rt import TensorRTSession

SHAPES = {"image": (1, 3, 32, 32), "logits": (1, 2, 32, 32)}


class Memory:
    """Device memory: bytes behind an address."""

    live: ClassVar[dict[int, bytearray]] = {}

    def __init__(self, size: int) -> None:
        self.address = 4096 * (len(Memory.live) + 1)
        Memory.live[self.address] = bytearray(size)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        del Memory.live[self.address]


class Stream:
    handle = 99

    def synchronize(self) -> None: ...


class Event:
    def record(self, stream: Stream) -> None: ...

    def time_since(self, start: Event) -> float:
        return 1.5


class Context:
    depth = 0

    def push(self) -> None:
        Context.depth += 1

    def pop(self) -> None:
        Context.depth -= 1


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class TensorIOMode:
    INPUT, OUTPUT = range(2)


class IExecutionContext:
    accepts = True

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == Stream.handle
        assert Context.depth == 1
        image = np.frombuffer(Memory.live[self.addresses["image"]], np.float32).reshape(SHAPES["image"])
        Memory.live[self.addresses["logits"]][:] = np.ascontiguousarray(image[:, :2] * 2).tobytes()
        return self.accepts


class ICudaEngine:
    num_io_tensors = 2
    shapes: ClassVar[dict[str, tuple[int, ...]]] = SHAPES

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext()

    def get_tensor_name(self, index: int) -> str:
        return list(SHAPES)[index]

    def get_tensor_mode(self, name: str) -> int:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

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
        Memory.live[device.address][:] = host.tobytes()

    def dtoh(host: Any, device: Memory, stream: Stream) -> None:
        host[...] = np.frombuffer(Memory.live[device.address], host.dtype).reshape(host.shape)

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


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory.live.clear()
    Context.depth = 0
    gpu = GpuState(True, "", "12.6", (GpuDevice("Orin", "8.7", 8 << 30),))
    monkeypatch.setattr("edpct.runtimes.gpu.probe_gpu", lambda: gpu)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: object())
    package, driver = ModuleType("pycuda"), fake_pycuda()
    package.__dict__["driver"] = driver
    for name, module in (("tensorrt", fake_tensorrt()), ("pycuda", package), ("pycuda.driver", driver)):
        monkeypatch.setitem(sys.modules, name, module)


PlanWriter = Callable[..., Path]


def image(seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPES["image"]).astype(np.float32)


def test_infers_and_frees_what_it_took(write_plan: PlanWriter) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        assert isinstance(session, TensorRTSession)
        assert str(session.inputs[0]) == "image float32 (1, 3, 32, 32)"
        assert str(session.outputs[0]) == "logits float32 (1, 2, 32, 32)"
        assert np.isnan(session.compute_ms)
        first = session.run({"image": image(0)})["logits"]
        session.run({"image": image(1)})
        np.testing.assert_array_equal(first, image(0)[:, :2] * 2)
        assert session.compute_ms == 1.5
        assert session.details["provider"] == "TensorRT on Orin (compute capability 8.7)"
        assert (session.details["version"], session.details["precision"]) == ("10.3.0", "fp16")
        assert len(Memory.live) == 2
    assert (Memory.live, Context.depth) == ({}, 0)
    session.close()
    with pytest.raises(EngineError, match="This tensorrt session is closed"):
        session.run({"image": image()})


def test_a_sidecar_that_does_not_fit_keeps_the_plan_from_tensorrt(write_plan: PlanWriter) -> None:
    del sys.modules["tensorrt"].__dict__["Runtime"]  # touching it would be an AttributeError
    with pytest.raises(EngineError, match=r"built by tensorrt 10\.7\.0 and this machine has 10\.3\.0"):
        open_session(write_plan(builder_version="10.7.0"), "tensorrt")
    with pytest.raises(EngineError, match="SHA-256 differs"):
        open_session(write_plan(plan_sha256="0" * 64), "tensorrt")


def test_a_plan_that_tensorrt_refuses(write_plan: PlanWriter) -> None:
    with pytest.raises(EngineError) as caught:
        open_session(write_plan(b"a damaged plan"), "tensorrt")
    assert caught.value.what == "TensorRT refused student.plan: Error Code 1: Serialization"
    assert Context.depth == 0


def test_an_open_axis_is_refused(write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ICudaEngine, "shapes", {**SHAPES, "image": (-1, 3, 32, 32)})
    with pytest.raises(EngineError, match=r"student\.plan: the shape of 'image' is open"):
        open_session(write_plan(), "tensorrt")


def test_failures_while_running(write_plan: PlanWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(write_plan(), "tensorrt") as session:
        with pytest.raises(EngineError, match="Input 'image' takes float32 and was given float64"):
            session.run({"image": image().astype(np.float64)})
        monkeypatch.setattr(IExecutionContext, "accepts", False)
        with pytest.raises(EngineError, match=r"TensorRT failed on student\.plan"):
            session.run({"image": image()})
        driver = sys.modules["pycuda.driver"]

        def lost(*_: Any) -> None:
            raise driver.Error("cuMemcpyHtoDAsync failed: unspecified launch failure")

        monkeypatch.setattr(driver, "memcpy_htod_async", lost)
        with pytest.raises(EngineError, match=r"CUDA failed on student\.plan: cuMemcpyHtoDAsync failed"):
            session.run({"image": image()})
    assert Context.depth == 0


def test_the_stand_ins_have_the_names_of_the_real_interface() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for part in (ILogger, TensorIOMode, IExecutionContext, ICudaEngine, Runtime):
        own = {name for name in vars(part) if not name.startswith("_")} - {"accepts", "shapes"}
        assert own <= set(dir(getattr(trt, part.__name__)))
    assert callable(trt.nptype)
    assert set(RUNTIMES["tensorrt"].suffixes) >= set(RUNTIMES["tensorrt-rtx"].suffixes)
