"""Angle knowledge distillation (AKD): what the teacher knows, passed on as angles between feature vectors.

A reconstruction; the formula of K. Zheng et al. (IEEE JSTARS 18, 2025) is not public to us. Angles have no scale, and
so suit a student whose channels were pruned away. Three readings, freely weighted:

- pixel: the angle between the student's and the teacher's vector at each position, after a 1x1 projection to the
  teacher's width;
- relation: the cosines of the angles inside triplets of pooled positions, compared between both (RKD-A, Park et al.,
  arXiv 1904.05068);
- prototype: the cosine of the angle of each position to its class's mean vector, compared likewise (IFVD, Wang et
  al., ECCV 2020).

Everything is computed in float32: half precision cannot tell small angles apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

COSINE_LIMIT = 1 - 1e-6
"""Cosines are clamped to it: the gradient of arccos is infinite at 1."""

_TINY = 1e-6


def pixel_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean angle between two maps' vectors at equal positions, in units of pi.

    Args:
        student, teacher: (B, C, H, W), any float dtype.

    Returns:
        A float32 scalar in 0..1: 0 for equal directions, 1 for opposite ones.
    """
    cosine = F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=_TINY)
    return torch.acos(cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)).mean() / math.pi


def triplet_cosines(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of the angles at j in every triplet (i, j, k) of tokens.

    Args:
        tokens: (B, N, C), float32.

    Returns:
        Cosines (B, N, N, N) indexed [batch, j, i, k], and which of them exist (neither i nor k coincides with j).
    """
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    # Scale is irrelevant to angles, and at unit scale one epsilon fits all layers.
    centred = centred / centred.square().mean(dim=(1, 2), keepdim=True).add(_TINY**2).sqrt()
    gram = centred @ centred.transpose(1, 2)
    square = gram.diagonal(dim1=1, dim2=2)
    distance2 = square[:, :, None] + square[:, None, :] - 2 * gram  # [j, i]
    apart = distance2 > _TINY * centred.shape[-1]
    distance = distance2.masked_fill(~apart, 1.0).sqrt()
    # (x_i - x_j) . (x_k - x_j) = G_ik - G_ij - G_kj + G_jj
    product = gram[:, None] - gram[:, :, :, None] - gram[:, :, None, :] + square[:, :, None, None]
    cosine = product / (distance[:, :, :, None] * distance[:, :, None, :])
    exists = apart[:, :, :, None] & apart[:, :, None, :]
    return cosine.clamp(-1.0, 1.0), exists


def relation_angle(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    """Huber distance between the triplet cosines of two maps, widths may differ.

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W).
        tokens: at most this many pooled regions per image.
    """
    side = max(1, math.isqrt(tokens))
    grid = (min(side, student.shape[2]), min(side, student.shape[3]))
    found = [
        triplet_cosines(F.adaptive_avg_pool2d(features.float(), grid).flatten(2).transpose(1, 2))
        for features in (student, teacher)
    ]
    both = found[0][1] & found[1][1]
    distance = F.smooth_l1_loss(found[0][0], found[1][0], reduction="none")
    return (distance * both).sum() / both.sum().clamp(min=1)


def prototype_cosines(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Cosine of each position's vector to the mean vector of its class in the batch.

    Args:
        features: (B, C, H, W), float32.
        labels: (B, h, w), int64, h and w multiples of H and W; labels outside 0..num_classes - 1 are left out.

    Returns:
        Cosines (B, H * W), and which positions have a class.
    """
    small = F.interpolate(labels[:, None].float(), size=features.shape[-2:], mode="nearest")[:, 0].long().flatten(1)
    counted = (small >= 0) & (small < num_classes)
    one_hot = F.one_hot(small.masked_fill(~counted, 0), num_classes).float() * counted[..., None]
    vectors = features.flatten(2).transpose(1, 2)
    sums = one_hot.flatten(0, 1).T @ vectors.flatten(0, 1)
    means = sums / one_hot.sum(dim=(0, 1)).clamp(min=1)[:, None]
    return F.cosine_similarity(vectors, one_hot @ means, dim=2, eps=_TINY), counted


def prototype_angle(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean squared difference of the prototype cosines of two maps, widths may differ."""
    found = [prototype_cosines(features.float(), labels, num_classes) for features in (student, teacher)]
    counted = found[0][1]
    return ((found[0][0] - found[1][0]).square() * counted).sum() / counted.sum().clamp(min=1)
