"""Checkpoints: both formats give equal logits, and no file makes edpct run code or show a traceback."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from edpct.card import CARD_KEY
from edpct.errors import CheckpointError, EdpctError, RunError
from edpct.models.checkpoint import (
    ARCHITECTURE_KEY,
    Checkpoint,
    load_checkpoint,
    read_card_of_checkpoint,
    save_checkpoint,
)
from edpct.models.dpctnet import dpctnet


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Checkpoint:
    return load_checkpoint(tiny_teacher)


def _refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    refusal = caught.value
    assert str(path) in refusal.what and refusal.what.endswith(".") and "\n" not in str(refusal)
    assert "Error" not in str(refusal) and "Traceback" not in str(refusal)
    return refusal


class _Bomb:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (self.marker,)


# ---- what is right


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_network_comes_back_with_equal_logits(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    model = dpctnet("tiny", 4)
    image = torch.randn(2, 3, 64, 96)
    model.train()(image)  # so that running statistics are not the defaults
    model.eval()
    card = _any_card()
    save_checkpoint(tmp_path / f"net{suffix}", model, card)
    loaded = load_checkpoint(tmp_path / f"net{suffix}")
    with torch.no_grad():
        assert torch.equal(loaded.model(image), model(image))
    assert loaded.card == card and not loaded.model.training
    assert read_card_of_checkpoint(tmp_path / f"net{suffix}") == card
    assert [p.name for p in tmp_path.iterdir()] == [f"net{suffix}"]  # no temporary file stays


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_stored_in_another_precision_comes_back_in_float32(
    tmp_path: Path, suffix: str, stored: torch.dtype
) -> None:
    torch.manual_seed(1)
    model = dpctnet("tiny", 4).eval()
    save_checkpoint(tmp_path / f"net{suffix}", model.to(stored), _any_card())
    loaded = load_checkpoint(tmp_path / f"net{suffix}").model
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded(image), model.float()(image))


def _any_card():  # type: ignore[no-untyped-def]
    from edpct.card import Card
    from edpct.task import ClassInfo, Task

    classes = tuple(ClassInfo(name=name, colour=(0, 0, 0)) for name in "abcd")
    return Card(network="Größe", task=Task(classes=classes), parameters=1, macs=2)


def test_a_loaded_network_can_be_trained(teacher: Checkpoint) -> None:
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in teacher.model.parameters())


def test_both_formats_open_with_public_tools(tmp_path: Path, teacher: Checkpoint) -> None:
    for suffix in (".pt", ".safetensors"):
        save_checkpoint(tmp_path / f"net{suffix}", teacher.model, teacher.card)
    plain = torch.load(tmp_path / "net.pt", weights_only=True)
    tensors = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert set(plain) == {"state_dict", CARD_KEY, ARCHITECTURE_KEY}
    assert json.loads(plain[CARD_KEY])["network"] == "DP-CTNet tiny"
    assert tensors.keys() == plain["state_dict"].keys() == teacher.model.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in plain["state_dict"].items())


def test_a_save_that_fails_leaves_the_former_file(
    tmp_path: Path, teacher: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(path, teacher.model, teacher.card)
    before = path.read_bytes()

    def full(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"net\.pt cannot be written\."):
        save_checkpoint(path, teacher.model, teacher.card)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.pt"]


def test_a_network_that_is_not_ours_is_not_saved(tmp_path: Path, teacher: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"^Linear is not a network that edpct can save\.$"):
        save_checkpoint(tmp_path / "net.pt", torch.nn.Linear(2, 2), teacher.card)
    assert not (tmp_path / "net.pt").exists()


# ---- what is wrong


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path / "none.pt")
    assert str(refusal) == (
        f"There is no checkpoint {tmp_path / 'none.pt'}. Train a teacher with: edpct train --data DIR --out DIR"
    )


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path).what == f"{tmp_path} is a directory, not a checkpoint."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty."),
        (b"hello, I am no checkpoint\n", "is neither a torch file nor safetensors."),
        (b"x", "is neither a torch file nor safetensors."),
        (b"12345678{ is what safetensors begins like", "is damaged or cut short."),
        (b"PK\x03\x04 and no more", "is damaged or cut short."),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    assert _refusal(path).what == f"{path} {message}"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_short_is_refused(
    tmp_path: Path, teacher: Checkpoint, suffix: str, share: float
) -> None:
    path = tmp_path / f"net{suffix}"
    save_checkpoint(path, teacher.model, teacher.card)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert _refusal(path).what == f"{path} is damaged or cut short."


def test_a_flipped_bit_in_a_torch_file_is_noticed(tmp_path: Path, teacher: Checkpoint) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(path, teacher.model, teacher.card)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert _refusal(path).what == f"{path} is damaged or cut short."


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("thesis.tex", "mine")
    assert _refusal(tmp_path / "net.pt").what == f"{tmp_path / 'net.pt'} is damaged or cut short."
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert _refusal(tmp_path / "arrays.npz").what == f"{tmp_path / 'arrays.npz'} is damaged or cut short."


def test_a_foreign_state_dict_is_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "net.pt", tmp_path / "net.safetensors"
    state = torch.nn.Linear(3, 4).state_dict()
    torch.save(state, path)
    safetensors.torch.save_file(dict(state), tensors)
    for file in (path, tensors):
        assert _refusal(file).what == (
            f"{file} holds weights but does not say of which network; it was not written by edpct."
        )
    with pytest.raises(CheckpointError, match=r"net\.pt was not written by edpct\."):
        read_card_of_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"state_dict": [1]}, {"state_dict": {"a": 1}}])
def test_a_torch_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pt")
    assert "state_dict" in _refusal(tmp_path / "net.pt").what


def test_tensors_of_another_network_under_our_description_are_refused(tmp_path: Path, teacher: Checkpoint) -> None:
    path = tmp_path / "net.safetensors"
    meta = {CARD_KEY: teacher.card.model_dump_json(), ARCHITECTURE_KEY: teacher.architecture.model_dump_json()}
    safetensors.torch.save_file(dict(torch.nn.Linear(3, 4).state_dict()), path, metadata=meta)
    assert _refusal(path).what.startswith(f"{path}: The tensors are not those of 'dp-ctnet': ")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (CARD_KEY, "{}"),
        (CARD_KEY, "no JSON"),
        (ARCHITECTURE_KEY, "{}"),
        (ARCHITECTURE_KEY, "no JSON"),
        (ARCHITECTURE_KEY, json.dumps({"name": "unet", "config": {}})),
        (ARCHITECTURE_KEY, json.dumps({"name": "dp-ctnet", "config": {"num_classes": 7}})),
    ],
)
def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path, teacher: Checkpoint, key: str, text: str) -> None:
    path = tmp_path / "net.safetensors"
    meta = {CARD_KEY: teacher.card.model_dump_json(), ARCHITECTURE_KEY: teacher.architecture.model_dump_json()}
    safetensors.torch.save_file(teacher.model.state_dict(), path, metadata=meta | {key: text})
    _refusal(path)


def test_the_card_alone_is_refused_as_the_whole_is(tmp_path: Path, teacher: Checkpoint) -> None:
    """Its docstring promises CheckpointError."""
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(teacher.model.state_dict(), path, metadata={CARD_KEY: "{}"})
    with pytest.raises(EdpctError) as caught:
        read_card_of_checkpoint(path)
    assert isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, suffix: str, value: float) -> None:
    model = dpctnet("tiny", 4)
    with torch.no_grad():
        model.decoder[1].running_mean[3] = value
    path = tmp_path / f"net{suffix}"
    save_checkpoint(path, model, _any_card())
    refusal = _refusal(path)
    assert refusal.what == f"{path}: the weights 'decoder.1.running_mean' hold NaN or infinity."


# ---- code in a checkpoint


def test_the_bomb_of_these_tests_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (0, "is neither a torch file nor safetensors."),  # text, not to be told from any other
        (2, "is a bare pickle, which could run code when loaded; edpct does not open it."),
        (4, "is a bare pickle, which could run code when loaded; edpct does not open it."),
    ],
)
def test_a_bare_pickle_is_not_opened(tmp_path: Path, protocol: int, message: str) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(pickle.dumps({"state_dict": {}, "bomb": _Bomb(tmp_path / "marker")}, protocol))
    assert _refusal(path).what == f"{path} {message}"
    assert not (tmp_path / "marker").exists()


def test_a_torch_file_of_the_old_format_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"bomb": _Bomb(tmp_path / "marker")}, path, _use_new_zipfile_serialization=False)
    assert "is a bare pickle" in _refusal(path).what
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_a_torch_file_with_code_is_not_run(tmp_path: Path, place: str) -> None:
    path, bomb = tmp_path / "net.pt", _Bomb(tmp_path / "marker")
    torch.save({"state_dict": {}, "bomb": bomb} if place == "beside" else {"state_dict": {"a": bomb}}, path)
    refusal = _refusal(path)
    assert refusal.what.startswith(f"{path} holds objects other than tensors; ")
    assert not (tmp_path / "marker").exists()
    with pytest.raises(CheckpointError):
        read_card_of_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_a_pickled_module_is_not_loaded(tmp_path: Path, teacher: Checkpoint) -> None:
    torch.save(teacher.model, tmp_path / "net.pt")
    assert "objects other than tensors" in _refusal(tmp_path / "net.pt").what
