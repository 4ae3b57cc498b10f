"""Feature vectors as the losses look at them: pooled to tokens, and beside the mean vector of their class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_NORM = 1e-4
"""Shorter vectors are taken for that long: the gradient of a cosine grows as 1 / length, and float16 ends at 65504."""


def lengths(vectors: Tensor, dim: int = 1) -> Tensor:
    """Euclidean lengths along a dimension, at least :data:`LEAST_NORM`; the gradient of those at the least is 0."""
    # Several times as fast on the CPU as vector_norm, which is slow along any but the last dimension.
    return (vectors * vectors).sum(dim).clamp(min=LEAST_NORM**2).sqrt()


def cosines(first: Tensor, second: Tensor, dim: int = 1) -> Tensor:
    """Cosines of the angles between vectors that lie along a dimension; rounding may leave -1..1 by a little."""
    return (first * second).sum(dim) / (lengths(first, dim) * lengths(second, dim))


def pooled_tokens(features: Tensor, tokens: int) -> Tensor:
    """A map's vectors, averaged over the regions of a grid.

    Args:
        features: (B, C, H, W), any float dtype.
        tokens: at most this many regions; the grid is the largest square of no more, and no finer than the map.

    Returns:
        (B, N, C), float32, N <= tokens.
    """
    side = max(1, math.isqrt(tokens))
    grid = (min(side, features.shape[2]), min(side, features.shape[3]))
    return F.adaptive_avg_pool2d(features.float(), grid).flatten(2).transpose(1, 2)


def prototype_cosines(
    features: Tensor, labels: Tensor, num_classes: int, per_image: bool = False
) -> tuple[Tensor, Tensor]:
    """Cosine of each position's vector to the mean vector of its class.

    Args:
        features: (B, C, H, W), any float dtype.
        labels: (B, h, w), int64; brought to H x W by nearest neighbour. Labels outside 0..num_classes - 1 are left out.
        per_image: means are taken in each image; else over the batch.

    Returns:
        Cosines (B, H * W), float32, -1..1, 0 at positions without a class; and which positions have one, bool.
    """
    small = _nearest(labels, features.shape[2], features.shape[3]).flatten(1)
    counted = (small >= 0) & (small < num_classes)
    small = small.masked_fill(~counted, 0)
    member = (F.one_hot(small, num_classes) * counted[..., None]).float()  # (B, N, K)
    # Channels last, as the networks' maps lie in memory: nothing is copied.
    vectors = features.float().permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
    sums, counts = member.transpose(1, 2) @ vectors, member.sum(dim=1)
    if not per_image:
        sums, counts = sums.sum(dim=0, keepdim=True), counts.sum(dim=0, keepdim=True)
    means = sums / counts.clamp(min=1)[..., None]  # (B or 1, K, C)
    # Products with all means, one of which is taken, are cheaper than a map of means.
    products = (vectors @ means.transpose(1, 2)).gather(2, small[..., None])[..., 0]
    mean_lengths = lengths(means, 2).expand(len(vectors), -1).gather(1, small)
    return products / (lengths(vectors, 2) * mean_lengths) * counted, counted


def _nearest(labels: Tensor, height: int, width: int) -> Tensor:
    """Labels (B, h, w) at another size (B, height, width): the one at the top left of each cell, as PyTorch does it."""
    rows = torch.arange(height, device=labels.device) * labels.shape[1] // height
    columns = torch.arange(width, device=labels.device) * labels.shape[2] // width
    return labels[:, rows[:, None], columns]


def mean_over(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count, as a scalar; 0 where none does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)
