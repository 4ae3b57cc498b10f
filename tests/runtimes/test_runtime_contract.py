"""What every row of the table promises, on one network: the same answers, whichever runtime computes them.

Rows that open ONNX files or plans get a small convolution and are compared with NumPy; rows that open checkpoints get
a small DP-CTNet and are compared with ONNX Runtime on the ONNX that was exported from that very checkpoint.

torch.compile takes minutes on its first run on a machine and seconds afterwards: ``-k torch-compile`` selects it,
``-k "not torch-compile"`` leaves it out.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from conv_relu_network import SIDE, ConvRelu
from numpy.typing import NDArray

from edpct.card import Card
from edpct.errors import EngineError
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.inventory import cpu_cores
from edpct.runtimes.session import Arrays, Options, Session, TensorSpec, check_feeds
from edpct.runtimes.sidecar import Sidecar, TensorInfo, write_sidecar
from edpct.runtimes.table import RUNTIMES, Runtime, open_session

FLOAT32 = np.dtype(np.float32)
PLACES = [(row, device) for row in RUNTIMES.values() for device in row.devices]
NAMES = [row.name if device == row.devices[0] else f"{row.name}-{device}" for row, device in PLACES]
OPEN_ONNX = [name for name, row in RUNTIMES.items() if ".onnx" in row.suffixes]

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """The network in the form that a row opens, on one of its devices.

    Attributes:
        image: seed to an image of its input size, a batch of one.
        answer: image to the logits that are right.
    """

    row: Runtime
    device: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    image: Callable[[int], Image]
    answer: Callable[[Image], Image]

    def open(self, **options: Any) -> Session:
        """On one thread where the row can be told, so that a compiled network is compiled once for all tests."""
        known = {"threads": 1} if "threads" in self.row.options else {}
        return open_session(self.path, self.row.name, device=self.device, options=Options(**{**known, **options}))

    def check(self, answers: Arrays, image: Image) -> None:
        """A GPU may multiply in TF32, whose mantissa has ten bits."""
        wanted = self.answer(image)
        tolerance = (1e-4 if self.device == "cpu" else 5e-3) * float(np.abs(wanted).max())
        assert list(answers) == ["logits"]
        assert answers["logits"].dtype == FLOAT32
        np.testing.assert_allclose(answers["logits"], wanted, rtol=0, atol=tolerance)


@pytest.fixture(scope="module", params=PLACES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Every row on every device, or a skip that says why not."""
    row, device = request.param
    skip_where_it_cannot_open(row, device)
    if ".pt" not in row.suffixes:
        yield conv_relu_case(request, row, device)
        return
    import torch

    threads = torch.get_num_threads()  # PyTorch has one number for the whole process
    yield checkpoint_case(request, row, device)
    torch.set_num_threads(threads)


def skip_where_it_cannot_open(row: Runtime, device: str) -> None:
    needs_gpu = row.needs_gpu or device != "cpu"
    if needs_gpu and not (gpu := probe_gpu()).available:
        pytest.skip(f"{row.title} on {device} needs a GPU: {gpu.reason}")
    if (missing := row.missing_package()) is not None:
        pytest.skip(missing.what)
    if row.name == "onnxruntime" and device != "cpu":
        offered = importlib.import_module("onnxruntime").get_available_providers()
        if not any(device in provider.lower() for provider in offered):
            pytest.skip(f"this ONNX Runtime offers only {', '.join(offered)}")
    if row.name.startswith("torch") and needs_gpu and not importlib.import_module("torch").cuda.is_available():
        pytest.skip("this PyTorch sees no CUDA device")
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if row.name == "torch-compile" and shutil.which(compiler) is None:
        pytest.skip(f"torch.compile needs a C++ compiler, and there is no {compiler}")


def conv_relu_case(request: pytest.FixtureRequest, row: Runtime, device: str) -> Case:
    network: ConvRelu = request.getfixturevalue("conv_relu")
    path = network.path
    if row.needs_gpu:
        plan = request.getfixturevalue("tmp_path_factory").mktemp(row.name) / "conv_relu.plan"
        path = build_plan(row, network.path, plan, request.getfixturevalue("card"))
    inputs = (TensorSpec("image", FLOAT32, (1, 3, SIDE, SIDE)),)
    outputs = (TensorSpec("logits", FLOAT32, (1, 2, SIDE, SIDE)),)
    return Case(row, device, path, inputs, outputs, network.image, network.answer)


def checkpoint_case(request: pytest.FixtureRequest, row: Runtime, device: str) -> Case:
    """The checkpoint that was compressed, and the ONNX that the compression exported from it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    run: Path = request.getfixturevalue("compressed_run")
    reference = onnxruntime.InferenceSession(run / "teacher.onnx", providers=["CPUExecutionProvider"])
    (image,), (logits,) = reference.get_inputs(), reference.get_outputs()
    inputs = (TensorSpec("image", FLOAT32, (None, *image.shape[1:])),)
    outputs = (TensorSpec("logits", FLOAT32, (None, *logits.shape[1:])),)

    def make(seed: int) -> Image:
        return np.random.default_rng(seed).standard_normal((1, *image.shape[1:])).astype(np.float32)

    def answer(array: Image) -> Image:
        return reference.run(["logits"], {"image": np.ascontiguousarray(array)})[0]

    return Case(row, device, run.parent / "teacher.pt", inputs, outputs, make, answer)


def build_plan(row: Runtime, onnx: Path, plan: Path, card: Card) -> Path:
    """Build with the real TensorRT of a row; TensorRT for RTX needs no GPU for it."""
    trt: Any = importlib.import_module(row.packages[0])
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(onnx.read_bytes())
    content = bytes(builder.build_serialized_network(network, builder.create_builder_config()))
    plan.write_bytes(content)
    sidecar = Sidecar.model_validate(
        {
            "card": card,
            "builder": row.name,
            "builder_version": trt.__version__,
            "precision": "fp32",
            "inputs": [TensorInfo(name="image", dtype="float32", shape=(1, 3, 32, 32))],
            "outputs": [TensorInfo(name="logits", dtype="float32", shape=(1, 2, 32, 32))],
            "onnx_sha256": hashlib.sha256(onnx.read_bytes()).hexdigest(),
            "plan_sha256": hashlib.sha256(content).hexdigest(),
            "created": "2026-11-05T12:00:00+00:00",
            "command": "edpct build conv_relu.onnx",
        }
    )
    write_sidecar(plan, sidecar)
    return plan


@pytest.fixture(scope="module")
def session(case: Case) -> Iterator[Session]:
    """Opened once for all tests of a row; a test that closes one opens its own."""
    with case.open() as opened:
        yield opened


def test_says_what_it_takes_and_gives(case: Case, session: Session) -> None:
    assert session.inputs == case.inputs
    assert session.outputs == case.outputs


def test_says_what_it_really_does(case: Case, session: Session) -> None:
    assert (session.runtime, session.device) == (case.row.name, case.device)
    assert {"version", "provider", "precision"} <= session.details.keys()
    assert all(session.details.values())
    if case.device == "cpu":
        assert session.details["threads"] == "1"


def test_computes_the_right_answer(case: Case, session: Session) -> None:
    for seed in range(3):
        image = case.image(seed)
        answers = session.run({"image": image})
        assert session.outputs[0].fits(answers["logits"].shape)
        case.check(answers, image)


def test_its_three_steps_are_what_run_does(case: Case, session: Session) -> None:
    ran = session.run({"image": case.image(0)})["logits"]
    session.run({"image": case.image(1)})
    session.bind({"image": case.image(0)})
    session.execute()
    np.testing.assert_array_equal(session.fetch()["logits"], ran)


def test_executes_again_on_what_was_bound(case: Case, session: Session) -> None:
    image = case.image(2)
    session.bind({"image": image})
    session.execute()
    first = session.fetch()["logits"]
    session.execute()
    session.execute()
    np.testing.assert_array_equal(session.fetch()["logits"], first)
    case.check({"logits": first}, image)


def test_what_was_fetched_is_the_callers_to_keep(case: Case, session: Session) -> None:
    first = session.run({"image": case.image(0)})["logits"]
    kept = first.copy()
    session.bind({"image": case.image(1)})
    np.testing.assert_array_equal(first, kept)
    session.execute()
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(session.fetch()["logits"], kept)
    np.testing.assert_array_equal(first, kept)


def test_what_was_fetched_is_the_callers_to_write_to(case: Case, session: Session) -> None:
    session.bind({"image": case.image(0)})
    session.execute()
    first = session.fetch()["logits"]
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(session.fetch()["logits"], kept)


def channels_last(image: Image) -> Image:
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def mirrored(image: Image) -> Image:
    return np.ascontiguousarray(image[..., ::-1])[..., ::-1]


def every_other(image: Image) -> Image:
    return np.repeat(image, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("laid_out", [channels_last, mirrored, every_other])
def test_takes_arrays_that_are_not_contiguous(case: Case, session: Session, laid_out: Callable[[Image], Image]) -> None:
    image = laid_out(case.image(0))
    assert not image.flags.c_contiguous
    case.check(session.run({"image": image}), image)


@pytest.mark.filterwarnings("error")
def test_takes_arrays_that_it_must_not_write_to(case: Case, session: Session) -> None:
    image = case.image(0)
    image.flags.writeable = False
    case.check(session.run({"image": image}), image)


def with_another_name(image: Image) -> Arrays:
    return {"picture": image}


def with_one_too_many(image: Image) -> Arrays:
    return {"image": image, "more": np.zeros(1, np.float32)}


def with_another_dtype(image: Image) -> Arrays:
    return {"image": image.astype(np.float64)}


def with_another_height(image: Image) -> Arrays:
    return {"image": np.repeat(image, 2, axis=2)}


def without_batch(image: Image) -> Arrays:
    return {"image": image[0]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda _: {}, "The engine takes the inputs image and was given none."),
        (with_another_name, "The engine takes the inputs image and was given picture."),
        (with_one_too_many, "The engine takes the inputs image and was given image, more."),
        (with_another_dtype, "Input 'image' takes float32 and was given float64."),
        (with_another_height, "Input 'image' takes shape {want} and was given (1, 3, {double}, {side})."),
        (without_batch, "Input 'image' takes shape {want} and was given (3, {side}, {side})."),
    ],
    ids=["none", "name", "extra", "dtype", "height", "axes"],
)
def test_refuses_feeds_that_do_not_fit_before_it_computes(
    case: Case, session: Session, wrong: Callable[[Image], Arrays], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = case.image(0).shape[-1]
    want = str(case.inputs[0]).removeprefix("image float32 ")
    image, feeds = case.image(0), wrong(case.image(1))
    session.bind({"image": image})
    with monkeypatch.context() as watch, pytest.raises(EngineError) as caught:
        watch.setattr(session, "execute", lambda: pytest.fail("it computed"))
        session.run(feeds)
    assert caught.value.what == message.format(want=want, side=side, double=2 * side)
    session.execute()  # what was bound before is still what it computes
    case.check(session.fetch(), image)


def test_a_closed_session_says_so(case: Case) -> None:
    image = case.image(0)
    session = case.open()
    session.bind({"image": image})
    session.close()
    session.close()
    steps: tuple[Callable[[], object], ...] = (
        lambda: session.bind({"image": image}),
        session.execute,
        session.fork,
        lambda: session.run({"image": image}),
    )
    for step in steps:
        with pytest.raises(EngineError, match=f"This {case.row.name} session is closed."):
            step()


def test_two_sessions_live_side_by_side(case: Case, session: Session) -> None:
    image = case.image(0)
    with case.open() as other:
        np.testing.assert_array_equal(session.run({"image": image})["logits"], other.run({"image": image})["logits"])
        other.bind({"image": case.image(1)})
        case.check(session.run({"image": image}), image)
    case.check(session.run({"image": image}), image)


def test_a_fork_is_a_session_of_the_same_engine(case: Case, session: Session) -> None:
    image, another = case.image(0), case.image(1)
    session.bind({"image": image})
    with session.fork() as fork:
        for name in ("runtime", "device", "inputs", "outputs", "details"):
            assert getattr(fork, name) == getattr(session, name)
        fork.bind({"image": another})
        fork.execute()
        session.execute()
        case.check(fork.fetch(), another)
        case.check(session.fetch(), image)
    with pytest.raises(EngineError, match="session is closed"):
        fork.execute()
    case.check(session.run({"image": another}), another)


def test_two_requests_run_in_two_threads_at_the_same_time(case: Case, session: Session) -> None:
    images = [case.image(seed) for seed in range(4)]
    together = Barrier(2)

    def rounds(request: Session, first: int) -> list[tuple[int, Arrays]]:
        seen = []
        for index in ((first + step) % len(images) for step in range(6)):
            try:
                request.bind({"image": images[index]})
                together.wait(timeout=60)
                request.execute()
                together.wait(timeout=60)
                seen.append((index, request.fetch()))
            except BaseException:
                together.abort()  # or the other would wait
                raise
        return seen

    with session.fork() as fork, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(rounds, request, first) for request, first in ((session, 0), (fork, 1))]
        answers = [pair for job in jobs for pair in job.result()]
    assert len(answers) == 12
    for index, answer in answers:
        case.check(answer, images[index])
    case.check(session.run({"image": images[0]}), images[0])


def test_the_devices_own_clock(case: Case, session: Session) -> None:
    session.run({"image": case.image(0)})
    if case.device == "cpu":
        assert session.device_ms is None
    else:
        assert session.device_ms is None or session.device_ms > 0


def test_uses_the_threads_that_it_is_told(case: Case) -> None:
    if "threads" not in case.row.options or case.row.on_request:
        pytest.skip("takes no threads, or is compiled anew for another number: the other tests run it on one")
    if cpu_cores() < 2:
        pytest.skip("this machine has one core")
    with case.open(threads=2) as session:
        assert session.details.get("threads", "2") == "2"
        case.check(session.run({"image": case.image(0)}), case.image(0))
    with case.open(threads=1) as session:
        assert session.details.get("threads", "1") == "1"


def test_opens_for_two_streams(case: Case) -> None:
    image = case.image(0)
    # Two streams on one thread are one stream to OpenVINO; another number of threads compiles a network anew.
    threads = {"threads": 2} if "threads" in case.row.options and not case.row.on_request else {}
    with case.open(streams=2, **threads) as session, session.fork() as fork:
        if cpu_cores() > 1:
            assert session.details.get("streams", "2") == "2"
        case.check(session.run({"image": image}), image)
        case.check(fork.run({"image": image}), image)


def test_opens_with_a_cuda_graph(case: Case) -> None:
    if "cuda_graph" not in case.row.options:
        pytest.skip(f"{case.row.title} has no CUDA graph")
    with case.open(cuda_graph=True) as session, session.fork() as fork:
        for seed in range(3):
            for request in (session, fork):
                case.check(request.run({"image": case.image(seed)}), case.image(seed))
                assert request.device_ms is not None


@pytest.mark.parametrize("row", RUNTIMES.values(), ids=RUNTIMES)
@pytest.mark.parametrize(
    "option", [Options(threads=2), Options(streams=2), Options(cuda_graph=True)], ids=lambda o: next(iter(o.changed()))
)
def test_an_option_that_a_row_does_not_know_is_refused(row: Runtime, option: Options, tmp_path: Path) -> None:
    (name,) = option.changed()
    with pytest.raises(EngineError) as caught:
        open_session(tmp_path / f"nowhere{row.suffixes[0]}", row.name, options=option)
    if name in row.options:
        assert caught.value.what.startswith("There is no file")
        return
    assert caught.value.what == f"{row.title} has no option {name}."
    assert caught.value.hint == f"It is for: {', '.join(r.name for r in RUNTIMES.values() if name in r.options)}."


@pytest.mark.parametrize("runtime", OPEN_ONNX)
def test_an_open_batch_axis_takes_any_batch(runtime: str, conv_relu: ConvRelu, tmp_path: Path) -> None:
    pytest.importorskip(RUNTIMES[runtime].packages[0])
    images = np.concatenate([conv_relu.image(seed) for seed in range(3)])
    singles = np.concatenate([conv_relu.answer(conv_relu.image(seed)) for seed in range(3)])
    with open_session(conv_relu.save(tmp_path / "open.onnx", batch="batch"), runtime) as session:
        assert session.inputs == (TensorSpec("image", FLOAT32, (None, 3, SIDE, SIDE)),)
        assert session.outputs == (TensorSpec("logits", FLOAT32, (None, 2, SIDE, SIDE)),)
        for batch in (1, 3, 1):
            answer = session.run({"image": images[:batch]})["logits"]
            np.testing.assert_allclose(answer, singles[:batch], rtol=0, atol=1e-4 * np.abs(singles).max())
        with session.fork() as fork:
            assert fork.run({"image": images})["logits"].shape == singles.shape


def test_an_open_axis_takes_any_length() -> None:
    specs = (TensorSpec("image", FLOAT32, (None, 3, 32, 32)),)
    check_feeds(specs, {"image": np.zeros((4, 3, 32, 32), np.float32)})
    with pytest.raises(EngineError, match=re.escape("takes shape (any, 3, 32, 32) and was given (4, 1, 32, 32)")):
        check_feeds(specs, {"image": np.zeros((4, 1, 32, 32), np.float32)})


def test_a_plan_really_built_is_refused_without_a_gpu(
    no_gpu: None, tmp_path: Path, conv_relu: ConvRelu, card: Card
) -> None:
    row = RUNTIMES["tensorrt-rtx"]
    pytest.importorskip("tensorrt_rtx")
    plan = build_plan(row, conv_relu.path, tmp_path / "conv_relu.plan", card)
    with pytest.raises(EngineError, match=r"conv_relu\.plan needs an NVIDIA GPU and this machine has none"):
        open_session(plan, row.name)
