"""What a user types for a network: ``Unet-resnet18``, ``lraspp_mobilenet_v3_large``, ``package.module:function``."""

from __future__ import annotations

import difflib

from pydantic import ValidationError

from edpct.errors import CheckpointError, MissingPackageError
from edpct.models.architecture import Architecture
from edpct.models.factory import FactoryConfig
from edpct.models.zoo import SMP_KINDS, has_encoder, smp_encoders, torchvision_names

NEAREST = 3


def parse_model(name: str, num_classes: int) -> Architecture:
    """The architecture of a network by its name.

    Args:
        name: ``package.module:function``; ``Kind-encoder`` of segmentation-models-pytorch, in any case; or a network of
            ``torchvision.models.segmentation``.
        num_classes: channels of the logits, 2..255.

    Raises:
        CheckpointError: unknown; the message has the nearest names.
        MissingPackageError: the package that such a name is looked up in is not installed.
    """
    if ":" in name:
        return _parse_factory(name, num_classes)
    kind, _, encoder = name.partition("-")
    kinds = {known.lower(): known for known in SMP_KINDS}
    if encoder and kind.lower() in kinds:
        for spelling in (encoder, encoder.lower()):
            if has_encoder(spelling):
                config = {"kind": kinds[kind.lower()], "encoder": spelling, "num_classes": num_classes}
                return Architecture(name="smp", config=config)
        raise _unknown(name)
    if name.lower() in torchvision_names():
        return Architecture(name="torchvision", config={"name": name.lower(), "num_classes": num_classes})
    raise _unknown(name)


def _parse_factory(name: str, num_classes: int) -> Architecture:
    try:
        config = FactoryConfig(factory=name, num_classes=num_classes)
    except ValidationError as error:
        raise CheckpointError(
            f"'{name}' is no name of a factory.",
            "Write package.module:function, as in: --model my_networks.unet:build",
        ) from error
    return Architecture(name="factory", config=config.model_dump())


def _unknown(name: str) -> CheckpointError:
    vision = torchvision_names()
    try:
        encoders = smp_encoders()
    except MissingPackageError:
        encoders = ()
    known = {f"{kind}-{encoder}".lower(): f"{kind}-{encoder}" for kind in SMP_KINDS for encoder in encoders}
    known |= {each: each for each in vision}
    nearest = [known[match] for match in difflib.get_close_matches(name.lower(), known, NEAREST)]
    meant = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    return CheckpointError(
        f"There is no network '{name}'.",
        f"{meant}Known: Kind-encoder of segmentation-models-pytorch, such as Unet-resnet18 "
        f"(kinds: {', '.join(SMP_KINDS)}); {', '.join(vision)} of torchvision; package.module:function of your own.",
    )
