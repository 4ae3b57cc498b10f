"""The torch row, on a checkpoint of this project's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edpct.card import Card
from edpct.errors import CheckpointError, EngineError
from edpct.runtimes.artefact import read_card
from edpct.runtimes.session import TensorSpec
from edpct.runtimes.table import open_session

torch = pytest.importorskip("torch")
checkpoint = pytest.importorskip("edpct.models.checkpoint")
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(params=[".pt", ".safetensors"])
def saved(request: pytest.FixtureRequest, tmp_path: Path, card: Card) -> Path:
    from edpct.models.dpctnet import dpctnet

    torch.manual_seed(0)
    path = tmp_path / f"teacher{request.param}"
    checkpoint.save_checkpoint(path, dpctnet("tiny", card.task.num_classes), card)
    return path


def test_computes_what_the_network_computes(saved: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    model = checkpoint.load_checkpoint(saved).model.eval()
    with torch.inference_mode():
        wanted = model(torch.from_numpy(image)).numpy()
    with open_session(saved, "torch") as session:
        assert session.inputs == (TensorSpec("image", FLOAT32, (1, 3, 32, 32)),)
        assert session.outputs == (TensorSpec("logits", FLOAT32, (1, 2, 32, 32)),)
        assert session.details["precision"] == "float32"
        answer = session.run({"image": image})["logits"]
        assert session.outputs[0].fits(answer.shape)
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)
        with pytest.raises(EngineError, match="Input 'image' takes float32 and was given float64"):
            session.run({"image": image.astype(np.float64)})
    with pytest.raises(EngineError, match="This torch session is closed"):
        session.run({"image": image})


def test_its_card_is_read(saved: Path, card: Card) -> None:
    assert read_card(saved) == card


def test_no_cuda(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="PyTorch sees no CUDA device on this machine"):
        open_session(saved, "torch", device="cuda")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError):
        open_session(path, "torch")
