"""The torch rows, on a checkpoint of this project's own; nothing is compiled here, the contract test does that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edpct.card import Card
from edpct.errors import CheckpointError, EngineError
from edpct.runtimes.artefact import read_card
from edpct.runtimes.session import Options, TensorSpec
from edpct.runtimes.table import open_session

torch = pytest.importorskip("torch")
checkpoint = pytest.importorskip("edpct.models.checkpoint")
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(params=[".pt", ".safetensors"])
def saved(request: pytest.FixtureRequest, tmp_path: Path, card: Card) -> Path:
    return save(tmp_path / f"teacher{request.param}", card)


@pytest.fixture
def teacher(tmp_path: Path, card: Card) -> Path:
    return save(tmp_path / "teacher.pt", card)


def save(path: Path, card: Card) -> Path:
    from edpct.models.dpctnet import dpctnet

    torch.manual_seed(0)
    checkpoint.save_checkpoint(path, dpctnet("tiny", card.task.num_classes), card)
    return path


@pytest.fixture
def threads() -> Iterator[int]:
    """PyTorch's own number of threads, which is the whole process's, put back afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def image(batch: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((batch, 3, 32, 32)).astype(np.float32)


def test_computes_what_the_network_computes(saved: Path) -> None:
    model = checkpoint.load_checkpoint(saved).model.eval()
    with torch.inference_mode():
        wanted = model(torch.from_numpy(image())).numpy()
    with open_session(saved, "torch") as session:
        assert session.inputs == (TensorSpec("image", FLOAT32, (None, 3, 32, 32)),)
        assert session.outputs == (TensorSpec("logits", FLOAT32, (None, 2, 32, 32)),)
        assert session.details["precision"] == "float32"
        answer = session.run({"image": image()})["logits"]
        assert session.outputs[0].fits(answer.shape)
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)
        with pytest.raises(EngineError, match="Input 'image' takes float32 and was given float64"):
            session.run({"image": image().astype(np.float64)})
    with pytest.raises(EngineError, match="This torch session is closed"):
        session.run({"image": image()})


def test_weights_of_16_bits_are_computed_with_in_32(tmp_path: Path, card: Card) -> None:
    from edpct.models.dpctnet import dpctnet

    model = dpctnet("tiny", card.task.num_classes).eval().half()
    checkpoint.save_checkpoint(tmp_path / "half.pt", model, card)
    with torch.inference_mode():
        wanted = model.float()(torch.from_numpy(image())).numpy()
    with open_session(tmp_path / "half.pt", "torch") as session:
        np.testing.assert_allclose(session.run({"image": image()})["logits"], wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_of_two_is_two_singles(teacher: Path) -> None:
    both = image(batch=2)
    with open_session(teacher, "torch") as session:
        answer = session.run({"image": both})["logits"]
        assert answer.shape == (2, 2, 32, 32)
        for index in range(2):
            single = session.run({"image": both[index : index + 1]})["logits"]
            np.testing.assert_allclose(answer[index : index + 1], single, rtol=1e-5, atol=1e-5)
        with pytest.raises(EngineError) as caught:
            session.bind({"image": both[:, :, :16]})
    assert caught.value.what == "Input 'image' takes shape (any, 3, 32, 32) and was given (2, 3, 16, 32)."


def test_a_fork_shares_the_weights(teacher: Path) -> None:
    with open_session(teacher, "torch") as session:
        session.bind({"image": image(seed=0)})
        with session.fork() as fork:
            assert fork._model is session._model
            first = fork.run({"image": image(seed=1)})
            session.execute()
            second = session.fetch()
        assert not np.array_equal(first["logits"], second["logits"])
        np.testing.assert_array_equal(session.run({"image": image(seed=1)})["logits"], first["logits"])


def test_threads_are_pytorchs(teacher: Path, threads: int) -> None:
    with open_session(teacher, "torch", options=Options(threads=threads + 1)) as session:
        assert torch.get_num_threads() == threads + 1
        assert session.details["threads"] == str(threads + 1)


def test_what_fails_inside_pytorch_becomes_one_sentence(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory.\nmore")

    with open_session(teacher, "torch") as session:
        monkeypatch.setattr(session, "_model", fail)
        with pytest.raises(EngineError) as caught:
            session.run({"image": image()})
    assert caught.value.what == "PyTorch failed on teacher.pt: DefaultCPUAllocator: can't allocate memory."


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "at-its-first-run"])
def test_what_torch_compile_refuses(teacher: Path, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises at once where it does not know the Python or the system, and at its first run without a compiler."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("torch.compile is not supported here\nmore")

    monkeypatch.setattr(torch, "compile", fail if at_once else lambda model: fail)
    with pytest.raises(EngineError) as caught:
        open_session(teacher, "torch-compile")
    assert "teacher.pt" in caught.value.what
    assert "torch.compile is not supported here." in caught.value.what
    assert "\n" not in caught.value.what


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a compiled network was called with; compiling is left out."""
    seen: list[Any] = []

    def compile_nothing(model: Any) -> Any:
        def call(batch: Any) -> Any:
            seen.append(batch)
            return model(batch)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return seen


def test_only_the_compiling_row_compiles_and_does_so_while_it_opens(teacher: Path, compiled: list[Any]) -> None:
    with open_session(teacher, "torch") as eager:
        wanted = eager.run({"image": image()})["logits"]
    assert compiled == []
    with open_session(teacher, "torch-compile") as session:
        assert [tuple(batch.shape) for batch in compiled] == [(1, 3, 32, 32)]
        np.testing.assert_array_equal(session.run({"image": image()})["logits"], wanted)
    assert len(compiled) == 2


def test_another_layout_of_the_same_image_is_not_compiled_anew(teacher: Path, compiled: list[Any]) -> None:
    """torch.compile compiles for the strides that it sees; a camera's image with its channels last has others."""
    with open_session(teacher, "torch-compile") as session:
        session.run({"image": np.ascontiguousarray(image().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)})
    assert all(batch.is_contiguous() for batch in compiled)


def test_its_card_is_read(saved: Path, card: Card) -> None:
    assert read_card(saved) == card


@pytest.mark.parametrize("runtime", ["torch", "torch-compile"])
def test_no_cuda(teacher: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="PyTorch sees no CUDA device on this machine"):
        open_session(teacher, runtime, device="cuda")


@pytest.mark.parametrize("runtime", ["torch", "torch-compile"])
def test_what_is_no_checkpoint(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError):
        open_session(path, runtime)
