"""What every row of the table promises, on one network, against NumPy."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conv_relu_network import ConvRelu

from edpct.card import Card
from edpct.errors import EngineError
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.session import Session, TensorSpec, check_feeds
from edpct.runtimes.sidecar import Sidecar, TensorInfo, write_sidecar
from edpct.runtimes.table import RUNTIMES, Runtime, open_session

FLOAT32 = np.dtype(np.float32)


@pytest.fixture(params=RUNTIMES.values(), ids=RUNTIMES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, conv_relu: ConvRelu, card: Card) -> tuple[Path, Runtime]:
    """The same network in the form that a row opens, or a skip that says why not."""
    row: Runtime = request.param
    if row.needs_gpu and not (gpu := probe_gpu()).available:
        pytest.skip(f"{row.title} needs a GPU: {gpu.reason}")
    if (missing := row.missing_package()) is not None:
        pytest.skip(missing.what)
    if ".onnx" in row.suffixes:
        return conv_relu.path, row
    if row.needs_gpu:
        return build_plan(row, conv_relu.path, tmp_path / "conv_relu.plan", card), row
    pytest.skip(f"{row.title} opens checkpoints, not this ONNX: see test_runtime_torch.py")


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


@pytest.fixture
def session(engine: tuple[Path, Runtime]) -> Iterator[Session]:
    path, row = engine
    with open_session(path, row.name, threads=1) as opened:
        yield opened


def test_says_what_it_takes_and_gives(session: Session) -> None:
    assert session.inputs == (TensorSpec("image", FLOAT32, (1, 3, 32, 32)),)
    assert session.outputs == (TensorSpec("logits", FLOAT32, (1, 2, 32, 32)),)


def test_says_what_it_really_does(session: Session) -> None:
    row = RUNTIMES[session.runtime]
    assert session.device == row.devices[0]
    assert {"version", "provider", "precision"} <= session.details.keys()
    assert all(session.details.values())
    if session.device == "cpu":
        assert session.details["threads"] == "1"


def test_computes_what_numpy_computes(session: Session, conv_relu: ConvRelu) -> None:
    for seed in range(3):
        image = conv_relu.image(seed)
        answers = session.run({"image": image})
        assert list(answers) == ["logits"]
        assert answers["logits"].dtype == FLOAT32
        np.testing.assert_allclose(answers["logits"], conv_relu.answer(image), rtol=1e-4, atol=1e-4)


def test_takes_arrays_that_are_not_contiguous(session: Session, conv_relu: ConvRelu) -> None:
    channels_last = np.ascontiguousarray(conv_relu.image().transpose(0, 2, 3, 1))
    image = channels_last.transpose(0, 3, 1, 2)
    assert not image.flags.c_contiguous
    answer = session.run({"image": image})["logits"]
    np.testing.assert_allclose(answer, conv_relu.answer(image), rtol=1e-4, atol=1e-4)


def test_answers_are_the_callers_to_keep(session: Session, conv_relu: ConvRelu) -> None:
    first = session.run({"image": conv_relu.image(0)})["logits"]
    kept = first.copy()
    session.run({"image": conv_relu.image(1)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "The engine takes the inputs image and was given none."),
        ({"picture": np.zeros((1, 3, 32, 32), np.float32)}, "takes the inputs image and was given picture."),
        (
            {"image": np.zeros((1, 3, 32, 32), np.float32), "more": np.zeros(1, np.float32)},
            "takes the inputs image and was given image, more.",
        ),
        ({"image": np.zeros((1, 3, 32, 32), np.uint8)}, "Input 'image' takes float32 and was given uint8."),
        (
            {"image": np.zeros((1, 3, 64, 32), np.float32)},
            "Input 'image' takes shape (1, 3, 32, 32) and was given (1, 3, 64, 32).",
        ),
        (
            {"image": np.zeros((3, 32, 32), np.float32)},
            "Input 'image' takes shape (1, 3, 32, 32) and was given (3, 32, 32).",
        ),
    ],
)
def test_refuses_feeds_that_do_not_fit(session: Session, feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=re.escape(message)):
        session.run(feeds)


def test_a_closed_session_says_so(session: Session, conv_relu: ConvRelu) -> None:
    session.close()
    session.close()
    with pytest.raises(EngineError, match=f"This {session.runtime} session is closed."):
        session.run({"image": conv_relu.image()})


def test_two_sessions_live_side_by_side(engine: tuple[Path, Runtime], conv_relu: ConvRelu) -> None:
    path, row = engine
    image = conv_relu.image()
    with open_session(path, row.name) as one:
        with open_session(path, row.name) as other:
            np.testing.assert_array_equal(one.run({"image": image})["logits"], other.run({"image": image})["logits"])
        assert one.run({"image": image})["logits"].shape == (1, 2, 32, 32)


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
