"""The networks of segmentation-models-pytorch and of torchvision, with random weights: nothing is downloaded.

Names are looked up in the packages' own public lists only, since they may come from a stranger's checkpoint.
"""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from edpct.errors import CheckpointError, MissingPackageError
from edpct.models.foreign import Tap

SMP = "segmentation_models_pytorch"
SMP_KINDS = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet",
    "Segformer", "DPT",
)  # fmt: skip
SMP_TAPS = {"encoder": Tap("encoder"), "decoder": Tap("segmentation_head", reads_input=True)}


class SmpConfig(BaseModel):
    """A network of segmentation-models-pytorch: its class there, its encoder's name, and the logits' channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    encoder: str
    num_classes: int = Field(ge=2, le=255)


class TorchvisionConfig(BaseModel):
    """A network of ``torchvision.models.segmentation``: its name there, and the logits' channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_classes: int = Field(ge=2, le=255)


def smp_encoders() -> tuple[str, ...]:
    """Encoders of segmentation-models-pytorch by name; those of timm come on top as ``tu-NAME``.

    Raises:
        MissingPackageError: it is not installed.
    """
    return tuple(_smp().encoders.get_encoder_names())


def has_encoder(name: str) -> bool:
    """Whether there is an encoder of this name, timm's as ``tu-NAME`` included.

    Raises:
        MissingPackageError: segmentation-models-pytorch is not installed.
    """
    if name in smp_encoders():
        return True
    # timm would also take "hf-hub:..." and fetch it; its list of architectures holds only what it can build by itself.
    return name.startswith("tu-") and name[3:] in importlib.import_module("timm").list_models()


def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's segmentation networks.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    models = _torchvision()
    return tuple(models.list_models(module=models.segmentation))


def build_smp(config: SmpConfig) -> tuple[nn.Module, dict[str, Tap]]:
    """The network with random weights, and its taps.

    Raises:
        CheckpointError: unknown class or encoder, or two that do not go together.
        MissingPackageError: the package is not installed.
    """
    package = _smp()
    if config.kind not in SMP_KINDS or not hasattr(package, config.kind):
        raise CheckpointError(
            f"segmentation-models-pytorch has no network '{config.kind}'.", f"Known: {', '.join(SMP_KINDS)}."
        )
    if not has_encoder(config.encoder):
        raise CheckpointError(
            f"segmentation-models-pytorch has no encoder '{config.encoder}'.",
            f"Known: {', '.join(smp_encoders())}, and tu-NAME for those of timm.",
        )
    try:
        network = getattr(package, config.kind)(
            encoder_name=config.encoder, encoder_weights=None, classes=config.num_classes
        )
    except Exception as error:  # each class refuses encoders in its own way
        raise CheckpointError(
            f"{config.kind} cannot be built with the encoder {config.encoder}: {first_line(error)}.",
            f"Choose another encoder for {config.kind}.",
        ) from error
    return network, dict(SMP_TAPS)


def build_torchvision(config: TorchvisionConfig) -> tuple[nn.Module, dict[str, Tap]]:
    """The network with random weights and without auxiliary head, and its taps.

    Raises:
        CheckpointError: unknown name.
        MissingPackageError: torchvision is not installed.
    """
    if config.name not in torchvision_names():
        raise CheckpointError(
            f"torchvision has no segmentation network '{config.name}'.", f"Known: {', '.join(torchvision_names())}."
        )
    network = _torchvision().get_model(config.name, weights=None, weights_backbone=None, num_classes=config.num_classes)
    head = network.classifier
    last = f"classifier.{len(head) - 1}" if isinstance(head, nn.Sequential) else "classifier.high_classifier"
    return network, {"encoder": Tap("backbone"), "decoder": Tap(last, reads_input=True)}


def first_line(error: BaseException) -> str:
    """What another package says, as part of a sentence."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _smp() -> Any:
    return _import(SMP, "building this network", "peers")


def _torchvision() -> Any:
    return _import("torchvision.models", "building this network", "compress")


def _import(name: str, purpose: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(name.split(".")[0], purpose, extra) from error
