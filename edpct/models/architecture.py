"""From an architecture's description to a module, and from tensors back to a pruned module's widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edpct.card import Card
from edpct.errors import CheckpointError
from edpct.models.attention import make_prunable
from edpct.models.dpctnet import DPCTNet, DPCTNetConfig
from edpct.models.factory import FactoryConfig, build_from_factory
from edpct.models.fit import fit_from_inputs, fit_network
from edpct.models.foreign import TRIAL_SIZES, Foreign
from edpct.models.zoo import SmpConfig, TorchvisionConfig, build_smp, build_torchvision, first_line


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
        if isinstance(model, Foreign):
            return model.architecture
        raise CheckpointError(f"{type(model).__name__} is not a network that edpct can save.")


def _smp(architecture: Architecture) -> Foreign:
    network, taps = build_smp(SmpConfig.model_validate(architecture.config))
    return Foreign(make_prunable(network), architecture, taps)


def _torchvision(architecture: Architecture) -> Foreign:
    network, taps = build_torchvision(TorchvisionConfig.model_validate(architecture.config))
    return Foreign(make_prunable(network), architecture, taps)


def _factory(architecture: Architecture) -> Foreign:
    network = build_from_factory(FactoryConfig.model_validate(architecture.config))
    return Foreign(make_prunable(network), architecture, {})


NETWORKS: dict[str, Callable[[Architecture], nn.Module]] = {
    "dp-ctnet": lambda architecture: DPCTNet(DPCTNetConfig.model_validate(architecture.config)),
    "smp": _smp,
    "torchvision": _torchvision,
    "factory": _factory,
}


def build_network(architecture: Architecture) -> nn.Module:
    """The unpruned network with fresh weights.

    Raises:
        CheckpointError: unknown network, a configuration it does not take, or a factory that nobody trusts here.
        MissingPackageError: the package that has the network is not installed.
    """
    if architecture.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise CheckpointError(f"The network '{architecture.name}' is unknown to this version (known: {known}).")
    try:
        return NETWORKS[architecture.name](architecture)
    except ValidationError as error:
        raise CheckpointError(
            f"The configuration of '{architecture.name}' is not valid: {error.errors()[0]['msg']}."
        ) from error


def rebuild(architecture: Architecture, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that these tensors belong to, pruned or not.

    The unpruned network is laid out, without memory where it can be, every layer is given the widths of its tensors,
    and the tensors are put in place. Needs neither torch-pruning nor pickle.

    Raises:
        CheckpointError: tensors missing, left over, or of a shape no width of that layer explains; a factory that
            nobody trusts here.
        MissingPackageError: the package that has the network is not installed.
    """
    if architecture.name != "factory":  # a user's function knows nothing of meta tensors
        try:
            return _rebuild(architecture, tensors, "meta")
        except Exception:  # some networks compute while they are laid out; whatever is wrong, the CPU says it again
            pass
    with torch.random.fork_rng(devices=[]):  # reading a file changes no random number
        return _rebuild(architecture, tensors, "cpu")


def _rebuild(architecture: Architecture, tensors: Mapping[str, Tensor], device: str) -> nn.Module:
    with torch.device(device):
        model = build_network(architecture)
    _compare(architecture, model.state_dict(), tensors)
    try:
        fit_network(model, tensors)
        if any(buffer.is_meta for buffer in model.buffers()):
            raise RuntimeError("a buffer that the file does not bring")
        _check_logits(model.eval(), architecture.config["num_classes"])
    except Exception as error:  # at wrong widths each network fails in its own way
        raise CheckpointError(f"The tensors do not fit '{architecture.name}' at any width.") from error
    return model.train()


def _compare(architecture: Architecture, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
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


def _check_logits(model: nn.Module, num_classes: int) -> None:
    """Run a black image, at the smallest size that the network takes."""
    dtype = next(model.parameters()).dtype
    for size in TRIAL_SIZES:
        image = torch.zeros(1, 3, size, size, dtype=dtype)
        try:
            with torch.no_grad():
                logits = fit_from_inputs(model, image)
        except Exception:
            if size == TRIAL_SIZES[-1]:
                raise
            continue
        if logits.shape != (1, num_classes, size, size) or logits.is_meta:
            raise RuntimeError(f"logits of shape {tuple(logits.shape)}")
        return


def count_parameters(model: nn.Module) -> int:
    """Learnable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass at batch 1 (convolutions and matrix products, attention's included).

    Half of the FLOPs that ``torch.utils.flop_counter`` counts.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    was_training, was_fast = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into torch's fused attention
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
        model.train(was_training)
    return int(counter.get_total_flops()) // 2


def counted(card: Card, model: nn.Module) -> Card:
    """The card with the network's parameters, and with its MACs at the card's input size.

    Raises:
        CheckpointError: the network cannot run at that size.
    """
    size = card.task.preprocessing
    try:
        macs = count_macs(model, size.height, size.width)
    except Exception as error:  # whatever the network raises
        raise CheckpointError(
            f"{card.network} cannot run on an image of {size.height}x{size.width} pixels ({first_line(error)}).",
            "Choose another input size.",
        ) from error
    return card.model_copy(update={"parameters": count_parameters(model), "macs": macs})
