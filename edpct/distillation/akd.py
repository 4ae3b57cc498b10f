"""Angle knowledge distillation (AKD): what the teacher knows, passed on as angles between feature vectors.

A reconstruction; the formula of K. Zheng et al. (IEEE JSTARS 18, 2025) is not public to us. Angles have no scale, and
so suit a student whose channels were pruned away. Three readings, freely weighted:

- pixel: the angle between the student's and the teacher's vector at each position, after a 1x1 projection to the
  teacher's width;
- relation: the cosines of the angles inside triplets of pooled positions, compared between both (RKD-A, Park et al.,
  arXiv 1904.05068);
- prototype: the cosine of the angle of each position to its class's mean vector in the batch, compared likewise (after
  IFVD, Wang et al., ECCV 2020).

Everything is computed in float32: half precision cannot tell small angles apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edpct.distillation.at_once import differentiated_at_once
from edpct.distillation.vectors import LEAST_NORM, cosines, mean_over, pooled_tokens, prototype_cosines

COSINE_LIMIT = 1 - 1e-6
"""Cosines are clamped to it: the gradient of arccos is infinite at 1."""

_COINCIDENT = 1e-6
"""Squared distance per channel under which two tokens of unit scale lie in one place, with no angle between them."""


def pixel_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean angle between two maps' vectors at equal positions, in units of pi.

    Args:
        student, teacher: (B, C, H, W), any float dtype.

    Returns:
        A float32 scalar in 0..1: 0 for equal directions, 1 for opposite ones.
    """
    return torch.acos(cosines(student.float(), teacher.float()).clamp(-COSINE_LIMIT, COSINE_LIMIT)).mean() / math.pi


def triplet_cosines(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of the angles at j in every triplet (i, j, k) of tokens.

    Args:
        tokens: (B, N, C), float32.

    Returns:
        Cosines (B, N, N, N) indexed [batch, j, i, k], and which of them exist (neither i nor k coincides with j).
    """
    gram, inverse = _gram_and_inverse_distances(tokens)
    apart = inverse > 0
    return _triplet_cosines(gram, inverse), apart[:, :, :, None] & apart[:, :, None, :]


def _gram_and_inverse_distances(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Products of centred tokens at unit scale, and one over their distances, 0 in one place; both (B, N, N)."""
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    # Scale is irrelevant to angles, and at unit scale one epsilon fits all layers.
    centred = centred / centred.square().mean(dim=(1, 2), keepdim=True).add(LEAST_NORM**2).sqrt()
    gram = centred @ centred.transpose(1, 2)
    square = gram.diagonal(dim1=1, dim2=2)
    distance2 = square[:, :, None] + square[:, None, :] - 2 * gram
    apart = distance2 > _COINCIDENT * centred.shape[-1]
    return gram, distance2.masked_fill(~apart, 1.0).rsqrt() * apart


def _triplet_cosines(gram: Tensor, inverse: Tensor) -> Tensor:
    """(x_i - x_j) . (x_k - x_j) = G_ik - G_ij - G_kj + G_jj, over both lengths; 0 where an inverse distance is."""
    at_j = gram - gram.diagonal(dim1=1, dim2=2)[:, :, None] / 2  # [j, i]
    product = gram[:, None] - at_j[:, :, :, None] - at_j[:, :, None, :]
    return (product * inverse[:, :, :, None] * inverse[:, :, None, :]).clamp(-1.0, 1.0)


def relation_angle(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    """Mean Huber distance between the triplet cosines of two maps (RKD-A, section 3.2.2 of arXiv 1904.05068).

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W), any float dtype.
        tokens: at most this many pooled regions per image.

    Returns:
        A float32 scalar in 0..1.5; 0 where no triplet exists in both maps.
    """
    ours, theirs = (_gram_and_inverse_distances(pooled_tokens(features, tokens)) for features in (student, teacher))
    both = (ours[1] > 0) & (theirs[1] > 0)
    # The triplets of one image stay in a CPU's cache, in half the time; a GPU would rather have them all.
    images = 1 if student.device.type == "cpu" else len(student)
    parts = zip(*(part.split(images) for part in (*ours, *theirs, both)), strict=True)
    huber = torch.stack([differentiated_at_once(_huber_of_triplets, *part) for part in parts]).sum()
    return huber / both.sum(dim=2).square().sum().clamp(min=1)


def _huber_of_triplets(
    gram: Tensor, inverse: Tensor, other_gram: Tensor, other_inverse: Tensor, both: Tensor
) -> Tensor:
    """Sum of the Huber distances of all triplets; ``both``: pairs of tokens that are apart in both maps."""
    # Both cosines are 0 where a triplet does not exist in both maps, so no mask of its size is needed.
    student, teacher = _triplet_cosines(gram, inverse * both), _triplet_cosines(other_gram, other_inverse * both)
    return F.smooth_l1_loss(student, teacher, reduction="sum")


def prototype_angle(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean squared difference of the prototype cosines of two maps, means taken over the batch.

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W), any float dtype.
        labels: (B, h, w), int64; labels outside 0..num_classes - 1 are left out.

    Returns:
        A float32 scalar in 0..4; 0 where no position has a class.
    """
    ours, counted = prototype_cosines(student, labels, num_classes)
    theirs, _ = prototype_cosines(teacher, labels, num_classes)
    return mean_over((ours - theirs).square(), counted)
