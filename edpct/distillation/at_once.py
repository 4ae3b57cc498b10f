"""A loss whose gradient is taken at once, so that what lies between is freed before the backward pass begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def differentiated_at_once(loss: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The loss of the inputs; its gradient is already there when the backward pass asks for it.

    Autograd would keep every tensor between inputs and loss until then, on top of the network's own activations; this
    keeps one gradient for each input. A scalar's gradient is the same up to a factor, so nothing is computed twice.

    Args:
        loss: from the inputs to a scalar.
        inputs: any shapes and float dtypes.

    Returns:
        A scalar that can be differentiated once, not twice.
    """
    if not torch.is_grad_enabled() or not any(value.requires_grad for value in inputs):
        return loss(*inputs)
    found: Tensor = _AtOnce.apply(loss, *inputs)  # type: ignore[no-untyped-call]
    return found


class _AtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        wanted: tuple[bool, ...] = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_(want) for value, want in zip(inputs, wanted, strict=True)]
            found = loss(*leaves)
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        ctx.save_for_backward(*torch.autograd.grad(found, asked, allow_unused=True, materialize_grads=True))
        return found.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = iter(ctx.saved_tensors)
        return (None, *(next(gradients) * upstream[0] if want else None for want in ctx.needs_input_grad[1:]))
