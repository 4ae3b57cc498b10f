"""A user's own function that builds a network: run only where it is trusted, refused where it is no such thing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edpct.card import Card
from edpct.data.scenes import SCENE_TASK
from edpct.errors import CheckpointError
from edpct.models.adopt import adopt
from edpct.models.architecture import Architecture
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.models.factory import TRUST_VARIABLE, trust
from edpct.models.foreign import Foreign

TASK = SCENE_TASK.at_size(64, 64)
CLASSES = TASK.num_classes


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module of this name into the current directory."""
    monkeypatch.chdir(tmp_path)

    def write_module(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{text}", encoding="utf-8")

    return write_module


WITH_AN_ATTRIBUTE = """
class Out:
    pass


class make(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.c = nn.Conv2d(3, num_classes, 8, 8)

    def forward(self, x):
        out = Out()
        out.logits = self.c(x)
        return out
"""
BOMB = "open('marker', 'w').close()\ndef make(num_classes):\n    return nn.Conv2d(3, num_classes, 1)\n"


def test_the_factory_of_an_untrusted_checkpoint_is_never_imported(
    tmp_path: Path, write: Callable[[str, str], None]
) -> None:
    write("bomb", BOMB)
    path, marker = tmp_path / "net.pt", tmp_path / "marker"
    architecture = Architecture(name="factory", config={"factory": "bomb:make", "num_classes": CLASSES})
    model = Foreign(nn.Conv2d(3, CLASSES, 1), architecture, {})
    save_checkpoint(path, model, Card(network="bomb:make", task=TASK, parameters=1, macs=1))
    trust("bomb:make2")
    with pytest.raises(CheckpointError, match="was made by the factory bomb:make, which would run code") as caught:
        load_checkpoint(path)
    assert caught.value.hint == f"If you trust it: --model bomb:make, or set {TRUST_VARIABLE}=bomb:make."
    assert not marker.exists() and "bomb" not in sys.modules
    trust("bomb:make")
    image = torch.randn(1, 3, 8, 8)
    assert torch.equal(load_checkpoint(path).model(image), model(image)) and marker.exists()
    read = f"from edpct.models.checkpoint import load_checkpoint as l; from pathlib import Path; l(Path({str(path)!r}))"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # the process that we start trusts it too


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_this", r"cannot be imported \(ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("raise SystemExit(3)", r"cannot be imported \(SystemExit: 3\)"),
        ("x = 1", r"net\.py\) has no 'make'"),
        ("make = 5", r"is no function but an object of type int"),
        ("def make(c): raise ValueError('too few\\nmore')", r"failed \(ValueError: too few\)"),
        ("def make(c): return c", r"returns an object of type int, no torch\.nn\.Module"),
        ("def make(): return nn.Conv2d(3, 2, 1)", r"returns a tensor of shape \(1, 2, 64, 64\) and type float32"),
        ("def make(c): return nn.Flatten()", r"returns a tensor of shape \(1, 12288\)"),
        ("def make(c): return nn.Conv2d(4, c, 1)", r"cannot run on an image of 256x256 pixels \(RuntimeError"),
        (
            "def make(c):\n    n = nn.Conv2d(3, c, 1)\n    n.forward = lambda x: {'a': x}\n    return n",
            "returns a dict with the keys a, no log",
        ),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused(
    write: Callable[[str, str], None], request: pytest.FixtureRequest, text: str, message: str
) -> None:
    module = f"m{abs(hash(request.node.name))}net"  # a module is imported once
    write(module, text)
    with pytest.raises(CheckpointError, match=message) as caught:
        adopt(f"{module}:make", None, TASK, None)
    assert caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "def make(width=8, *, classes): return nn.Conv2d(3, classes, 1)",
        f"def make(width={CLASSES}): return nn.Conv2d(3, width, 1)",
        "def make(n): return nn.Conv2d(3, n, 1)",
        "def make(**settings): return nn.Conv2d(3, settings['num_classes'], 1)",
        WITH_AN_ATTRIBUTE,
    ],
)
def test_a_factory_is_told_the_classes(
    write: Callable[[str, str], None], request: pytest.FixtureRequest, text: str
) -> None:
    module = f"m{abs(hash(request.node.name))}net"
    write(module, text)
    model, card = adopt(f"{module}:make", None, TASK, None)
    assert model(torch.zeros(2, 3, 32, 64)).shape == (2, CLASSES, 32, 64)
    assert card.network == f"{module}:make" and model.TAPS == () and list(model.features(torch.zeros(1, 3, 8, 8)))
