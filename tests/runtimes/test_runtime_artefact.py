"""Cards read from what the formats' own packages write."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conv_relu_network import ConvRelu

from edpct.card import CARD_KEY, Card
from edpct.errors import EngineError, MissingPackageError
from edpct.runtimes.artefact import read_card, sha256_of
from edpct.runtimes.sidecar import TRUST_VARIABLE, trust


def with_metadata(conv_relu: ConvRelu, path: Path, entries: dict[str, str], *, weights: int = 0) -> Path:
    """The test network, saved by the onnx package with metadata and some idle weights (a count of floats)."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(conv_relu.path)
    if weights:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(weights, np.float32), "idle"))
    model.doc_string = "a doc string"
    model.model_version = 2**62
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path


def test_the_card_of_an_onnx(conv_relu: ConvRelu, tmp_path: Path, card: Card) -> None:
    entries = {"author": "ä" * 200, CARD_KEY: card.model_dump_json(), "empty": ""}
    assert read_card(with_metadata(conv_relu, tmp_path / "a.onnx", entries)) == card


def test_the_weights_are_not_read(
    conv_relu: ConvRelu, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_metadata(conv_relu, tmp_path / "a.onnx", {CARD_KEY: card.model_dump_json()}, weights=2_000_000)
    read = 0
    real = Path.open

    def counting(self: Path, *arguments: Any, **options: Any) -> Any:
        file = real(self, *arguments, **options)

        class Counted:
            def read(self, size: int = -1) -> bytes:
                nonlocal read
                content: bytes = file.read(size)
                read += len(content)
                return content

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> Counted:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

        return Counted()

    monkeypatch.setattr(Path, "open", counting)
    assert read_card(path) == card
    assert path.stat().st_size > 8_000_000
    assert read < 10_000


def test_a_strangers_onnx_has_no_card(conv_relu: ConvRelu, tmp_path: Path) -> None:
    assert read_card(conv_relu.path) is None
    assert read_card(with_metadata(conv_relu, tmp_path / "a.onnx", {"author": "someone"})) is None


def test_an_onnx_cut_anywhere_is_refused(conv_relu: ConvRelu, tmp_path: Path, card: Card) -> None:
    whole = with_metadata(conv_relu, tmp_path / "a.onnx", {CARD_KEY: card.model_dump_json()}).read_bytes()
    metadata_begins = whole.rindex(CARD_KEY.encode(), 0, whole.index(b'{"network"')) - 6
    half = tmp_path / "half.onnx"
    for length in [*range(1, metadata_begins, 7), len(whole) - 1, len(whole) - 300]:
        half.write_bytes(whole[:length])
        with pytest.raises(EngineError) as caught:
            read_card(half)
        assert caught.value.what == "half.onnx is not an ONNX model, or only part of one."


@pytest.mark.parametrize("content", [b"hello world", b"\xff" * 64, b"<html></html>", b"\x00" * 32, b"PK\x03\x04" * 9])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is not an ONNX model, or only part of one"):
        read_card(path)


def test_a_card_of_another_format_is_refused(conv_relu: ConvRelu, tmp_path: Path) -> None:
    path = with_metadata(conv_relu, tmp_path / "a.onnx", {CARD_KEY: '{"network": 1}'})
    with pytest.raises(EngineError, match=r"a\.onnx carries a description that this edpct"):
        read_card(path)


def test_the_card_of_a_plan_is_its_sidecars(write_plan: Callable[..., Path], card: Card) -> None:
    assert read_card(write_plan()) == card


def test_the_card_of_safetensors(tmp_path: Path, card: Card) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    tensors = {"w": np.ones((3, 3), np.float32)}
    ours, strangers = tmp_path / "ours.safetensors", tmp_path / "strangers.safetensors"
    save_file(tensors, ours, metadata={CARD_KEY: card.model_dump_json()})
    save_file(tensors, strangers)
    assert read_card(ours) == card
    assert read_card(strangers) is None


@pytest.mark.parametrize(
    "content",
    [
        b"abc",
        b"\x10" + b"\0" * 7 + b"{}",
        b"\x02" + b"\0" * 7 + b"[]",
        b"\xff" * 40,
        b"\x04" + b"\0" * 7 + b"nope",
    ],
)
def test_damaged_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        read_card(path)
    assert caught.value.what == "a.safetensors is no safetensors file, or only part of one."


def test_a_pt_needs_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(b"x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingPackageError) as caught:
        read_card(path)
    assert caught.value.what == "Reading teacher.pt needs the package torch, which is not installed."
    assert caught.value.hint == "Install it with: pip install 'edpct[compress]'"


def test_files_that_are_no_engine(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("x")
    with pytest.raises(EngineError, match=r"notes\.txt is no engine or checkpoint that edpct knows"):
        read_card(text)
    with pytest.raises(EngineError, match="There is no file"):
        read_card(tmp_path / "nowhere.onnx")
    with pytest.raises(EngineError, match="is a directory"):
        read_card(tmp_path)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"edpct" * 500_000)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(EngineError, match="cannot be read"):
        sha256_of(tmp_path / "nowhere")


def test_the_card_of_a_trusted_plan_without_sidecar(
    conv_relu: ConvRelu, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"a plan")
    with pytest.raises(EngineError, match=r"a\.plan has no sidecar a\.plan\.json beside it"):
        read_card(plan)
    trust(plan)
    with pytest.raises(EngineError, match="nothing says its classes") as caught:
        read_card(plan)
    assert caught.value.hint == "Put the ONNX file that it was built from beside it as a.onnx."
    with_metadata(conv_relu, tmp_path / "a.onnx", {CARD_KEY: card.model_dump_json()})
    assert read_card(plan) == card
