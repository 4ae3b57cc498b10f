"""From an architecture's description to a module, and from tensors back to a pruned module's widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edpct.errors import CheckpointError
from edpct.models.dpctnet import DPCTNet, DPCTNetConfig


class Architecture(BaseModel):
    """What is needed, beside the tensors, to rebuild a network.

    Attributes:
        name: row of :data:`NETWORKS`.
        config: the unpruned network's configuration, as that network's config model takes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    config: dict[str, Any]

    @classmethod
    def of(cls, model: nn.Module) -> Architecture:
        """The architecture of a network made by :data:`NETWORKS`."""
        if isinstance(model, DPCTNet):
            return cls(name="dp-ctnet", config=model.config.model_dump(mode="json"))
        raise CheckpointError(f"{type(model).__name__} is not a network that edpct can save.")


NETWORKS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "dp-ctnet": lambda config: DPCTNet(DPCTNetConfig.model_validate(config)),
}


def build_network(architecture: Architecture) -> nn.Module:
    """The unpruned network with fresh weights.

    Raises:
        CheckpointError: unknown network, or a configuration it does not take.
    """
    if architecture.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise CheckpointError(f"The network '{architecture.name}' is unknown to this version (known: {known}).")
    try:
        return NETWORKS[architecture.name](architecture.config)
    except ValidationError as error:
        raise CheckpointError(
            f"The configuration of '{architecture.name}' is not valid: {error.errors()[0]['msg']}."
        ) from error


def rebuild(architecture: Architecture, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that these tensors belong to, pruned or not.

    The unpruned network is laid out without memory, every layer is given the widths of its tensors, and the tensors are
    put in place. Needs neither torch-pruning nor pickle.

    Raises:
        CheckpointError: tensors missing, left over, or of a shape no width of that layer explains.
    """
    with torch.device("meta"):
        model = build_network(architecture)
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        first = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' has no place"
        raise CheckpointError(f"The tensors are not those of '{architecture.name}': {first}.")
    for name, tensor in tensors.items():
        if tensor.dim() != expected[name].dim():
            raise CheckpointError(
                f"The tensors are not those of '{architecture.name}': '{name}' has {tensor.dim()} dimensions."
            )
    for name, tensor in tensors.items():
        if tensor.dtype.is_floating_point != expected[name].dtype.is_floating_point:
            raise CheckpointError(f"The tensors are not those of '{architecture.name}': '{name}' is {tensor.dtype}.")
    for name, module in model.named_modules():
        _fit(module, {key: tensors[f"{name}.{key}"] for key, _ in module.named_parameters(recurse=False)})
    try:
        model.load_state_dict(dict(tensors), strict=True, assign=True)
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, 3, 64, 64, dtype=next(model.parameters()).dtype))
        if logits.shape != (1, architecture.config["num_classes"], 64, 64):
            raise RuntimeError(f"logits of shape {tuple(logits.shape)}")
    except RuntimeError as error:
        raise CheckpointError(f"The tensors do not fit '{architecture.name}' at any width.") from error
    return model.train()


def _fit(module: nn.Module, own: dict[str, Tensor]) -> None:
    """Give one layer the widths of its tensors; the parameters themselves are replaced afterwards."""
    for name, tensor in own.items():
        setattr(module, name, nn.Parameter(torch.empty_like(tensor, device="meta")))
    if isinstance(module, nn.Conv2d):
        weight = own["weight"]
        if module.groups > 1 and module.groups == module.in_channels:  # depthwise stays depthwise
            module.groups = weight.shape[0]
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = own["weight"].shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(own["weight"].shape)
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = own["weight"].shape[0]
        module.running_mean = torch.empty_like(own["weight"], device="meta")
        module.running_var = torch.empty_like(own["weight"], device="meta")


def count_parameters(model: nn.Module) -> int:
    """Learnable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass at batch 1 (convolutions and matrix products, attention's included).

    Half of the FLOPs that ``torch.utils.flop_counter`` counts.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2
