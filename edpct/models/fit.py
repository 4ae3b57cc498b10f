"""Layers take the widths of their tensors, so that a pruned network needs no description but the unpruned one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip

# What a layer says of itself, and the axis of its weight that says the same.
AXES: tuple[tuple[type | tuple[type, ...], dict[str, int]], ...] = (
    (nn.Linear, {"out_features": 0, "in_features": 1}),
    (NORMS, {"num_features": 0}),
    (nn.GroupNorm, {"num_channels": 0}),
    (nn.PReLU, {"num_parameters": 0}),
    (nn.Embedding, {"num_embeddings": 0, "embedding_dim": 1}),
)


def fit_network(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every layer the widths of its tensors, and the tensors themselves; parameters that were tied stay tied.

    Args:
        tensors: one for each entry of ``model.state_dict()``, of the same number of dimensions.

    Raises:
        RuntimeError: torch cannot put them in place.
    """
    tied = _tied(model)
    by_module: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        by_module.setdefault(path, {})[own] = tensor
    for path, module in model.named_modules():
        _fit(module, by_module.get(path, {}))
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    for names in tied:
        _tie(model, names)


def _fit(module: nn.Module, own: dict[str, Tensor]) -> None:
    """Give one layer the widths of its tensors; the tensors themselves are put in place afterwards."""
    parameters = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    for name, tensor in own.items():
        blank = torch.empty_like(tensor, device="meta")
        old = parameters.get(name)
        setattr(module, name, blank if old is None else nn.Parameter(blank, requires_grad=old.requires_grad))
    weight = own.get("weight", own.get("running_mean"))
    if weight is not None:
        _say_widths(module, weight)
    if isinstance(module, nn.MultiheadAttention) and "in_proj_weight" in own:
        module.embed_dim = module.kdim = module.vdim = own["in_proj_weight"].shape[1]
        module.head_dim = module.embed_dim // module.num_heads


def _say_widths(module: Any, weight: Tensor) -> None:
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        _fit_convolution(module, weight)
    elif isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        _fit_transposed(module, weight)
    elif hasattr(module, "normalized_shape"):  # LayerNorm and RMSNorm, torch's and others'
        module.normalized_shape = tuple(weight.shape)
    for kind, axes in AXES:
        if isinstance(module, kind):
            for attribute, axis in axes.items():
                setattr(module, attribute, weight.shape[axis])


def _fit_convolution(module: Any, weight: Tensor) -> None:
    if (
        1 < module.groups == module.in_channels
    ):  # depthwise stays depthwise; groups of several channels keep their count
        per_group = module.out_channels // module.groups
        module.groups = max(1, weight.shape[0] // per_group)
    module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups


def _fit_transposed(module: Any, weight: Tensor) -> None:
    """As a convolution, with the weight's first two axes the other way round."""
    if 1 < module.groups == module.in_channels:
        module.groups = max(1, weight.shape[0])
    module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups


def fit_from_inputs(model: nn.Module, image: Tensor) -> Tensor:
    """Run a network on an image (B, 3, H, W) while norms that have no tensors take the width of what they are given."""

    def fit(module: Any, args: tuple[Any, ...]) -> None:
        if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
            module.normalized_shape = tuple(args[0].shape[-1:])
        elif isinstance(module, NORMS):
            module.num_features = args[0].shape[1]

    bare = [m for m in model.modules() if isinstance(m, (nn.LayerNorm, *NORMS)) and not m.state_dict()]
    handles = [module.register_forward_pre_hook(fit) for module in bare]
    try:
        return model(image)
    finally:
        for handle in handles:
            handle.remove()


def _tied(model: nn.Module) -> list[list[str]]:
    """Names that share one parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(model: nn.Module, names: list[str]) -> None:
    first = model.get_parameter(names[0])
    for name in names[1:]:
        path, _, own = name.rpartition(".")
        other = model.get_parameter(name)
        if other.shape == first.shape and torch.equal(other, first):
            setattr(model.get_submodule(path), own, first)
