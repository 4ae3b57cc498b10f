"""An exponential moving average of a network's weights, which often validates better than the last weights do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that follows it: call ``update_parameters(model)`` after every optimiser step.

    The decay after n updates is min(``decay``, (1 + n) / (10 + n)), as TensorFlow's and timm's averages have it: the
    weights at the start, which are worth nothing, are soon forgotten. Statistics of batch normalisation are averaged
    like weights, so that they fit them; what is counted in integers is copied.

    Args:
        decay: 0..1, below 1.
    """

    def update(mean: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        if not mean[0].is_floating_point():
            for ours, theirs in zip(mean, current, strict=True):
                ours.copy_(theirs)
            return
        count = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(mean, current, updates)

    with torch.no_grad():
        return AveragedModel(model, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
