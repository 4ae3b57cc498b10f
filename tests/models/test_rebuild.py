"""A pruned network comes back from plain tensors alone, and tensors that fit no width are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edpct.errors import CheckpointError
from edpct.models.architecture import Architecture, build_network, rebuild
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.models.dpctnet import dpctnet

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def pruned(halve: Callable[[nn.Module, list[nn.Module]], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = dpctnet("tiny", 7)
    return halve(model, [model.classifier])


ELSEWHERE = """
import sys
from pathlib import Path


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch_pruning":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Refuse())
try:
    import torch_pruning
except ModuleNotFoundError:
    pass
else:
    sys.exit("torch_pruning could be imported")
import torch
from edpct.models.checkpoint import load_checkpoint

folder = Path(sys.argv[1])
image = torch.load(folder / "image.pt", weights_only=True)
with torch.no_grad():
    logits = [load_checkpoint(folder / name).model(image) for name in ("net.pt", "net.safetensors")]
torch.save(logits, folder / "logits.pt")
"""


def test_a_pruned_network_is_rebuilt_where_torch_pruning_cannot_be_imported(
    tmp_path: Path, pruned: nn.Module, tiny_teacher: Path
) -> None:
    card = load_checkpoint(tiny_teacher).card
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(5))
    torch.save(image, tmp_path / "image.pt")
    for suffix in (".pt", ".safetensors"):
        save_checkpoint(tmp_path / f"net{suffix}", pruned, card)
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = pruned(image)
    for logits in torch.load(tmp_path / "logits.pt", weights_only=True):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)  # threads may sum in another order


def test_the_rebuilt_layers_say_the_widths_they_have(pruned: nn.Module) -> None:
    again = rebuild(Architecture.of(pruned), pruned.state_dict())
    for (name, ours), theirs in zip(again.named_modules(), pruned.modules(), strict=True):
        for attribute in ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"):
            assert getattr(ours, attribute, None) == getattr(theirs, attribute, None), f"{name}.{attribute}"
    assert again.transformer16.positions.groups == pruned.transformer16.positions.in_channels < 96


def test_an_unpruned_network_is_rebuilt_too() -> None:
    model = dpctnet("tiny", 3).eval()
    again = rebuild(Architecture.of(model), model.state_dict()).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(image), model(image))


def test_a_rebuilt_network_can_be_trained_further(pruned: nn.Module) -> None:
    again = rebuild(Architecture.of(pruned), pruned.state_dict()).train()
    again(torch.randn(2, 3, 64, 64)).mean().backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


# ---- refusals


def _without(name: str) -> Callable[[State], object]:
    return lambda state: state.pop(name)


def _with(**tensors: Tensor) -> Callable[[State], object]:
    return lambda state: state.update({name.replace("__", "."): tensor for name, tensor in tensors.items()})


ATTENTION = "transformer16__blocks__0__attention__q__"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_without("decoder.0.weight"), "'decoder.0.weight' is missing"),
        (_with(decoder__9__weight=torch.zeros(1)), "'decoder.9.weight' has no place"),
        (_with(classifier__weight=torch.zeros(7, 16)), "'classifier.weight' has 2 dimensions"),
        (_with(decoder__1__running_mean=torch.zeros(9)), ""),
        (_with(decoder__1__weight=torch.zeros(9)), ""),
        # A width that its neighbours do not share, a kernel or a class count that is not the description's:
        (_with(classifier__weight=torch.zeros(7, 40, 1, 1)), ""),
        (_with(classifier__bias=torch.zeros(9)), ""),
        (_with(classifier__weight=torch.zeros(9, 16, 1, 1), classifier__bias=torch.zeros(9)), ""),
        (_with(decoder__0__weight=torch.zeros(16, 16, 5, 5)), ""),
        (_with(**{f"{ATTENTION}weight": torch.zeros(47, 48), f"{ATTENTION}bias": torch.zeros(47)}), ""),
        (_with(classifier__weight=torch.zeros(7, 16, 1, 1, dtype=torch.int32)), ""),
    ],
    ids=[
        "missing", "extra", "dimensions", "statistics", "norm",
        "inputs", "bias", "classes", "kernel", "heads", "integers",
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused(pruned: nn.Module, change: Callable[[State], object], named: str) -> None:
    tensors = dict(pruned.state_dict())
    assert tensors["classifier.weight"].shape == (7, 16, 1, 1)  # what the changes above start from
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        rebuild(Architecture.of(pruned), tensors)
    assert named in caught.value.what and "'dp-ctnet'" in caught.value.what and "\n" not in caught.value.what


def test_tensors_of_another_preset_are_refused() -> None:
    with pytest.raises(CheckpointError, match="The tensors are not those of 'dp-ctnet': "):
        rebuild(Architecture.of(dpctnet("tiny", 7)), dpctnet("small", 7).state_dict())


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"'unet' is unknown to this version \(known: dp-ctnet, smp, torchvision, factory\)\."
    ):
        build_network(Architecture(name="unet", config={}))


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"^The configuration of 'dp-ctnet' is not valid: .*\.$"):
        build_network(Architecture(name="dp-ctnet", config={"num_classes": 7}))
