"""Losses on inner maps that AKD is compared with; none needs equal widths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edpct.distillation.vectors import mean_over, pooled_tokens, prototype_cosines

_LEAST_ATTENTION = 1e-8
_COINCIDENT = 1e-12


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928, equation 2, p = 2).

    A map's attention is the mean of its squared channels, taken to unit length over positions; what counts is the
    squared distance of both, as in the authors' code (the norm of equation 2 has no gradient at identical maps), summed
    over positions and averaged over images. Their beta of 1000 / positions is then a weight of 0.24 for 64 x 64 maps.

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W), any float dtype.

    Returns:
        A float32 scalar in 0..2.
    """
    ours, theirs = (_attention(features) for features in (student, teacher))
    return (ours - theirs).square().sum(dim=1).mean()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.float().square().mean(dim=1).flatten(1), dim=1, eps=_LEAST_ATTENTION)


def relation_distance(student: Tensor, teacher: Tensor, tokens: int) -> Tensor:
    """Distances between tokens, RKD-D (Park et al., CVPR 2019, arXiv 1904.05068, section 3.2.1).

    Euclidean distances of all pairs of an image's tokens, over their mean; the Huber distance of both networks',
    averaged over pairs and images. (The paper's pairs are those of a batch's embeddings; a segmentation network embeds
    regions.)

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W), any float dtype.
        tokens: at most this many pooled regions per image.

    Returns:
        A float32 scalar >= 0; 0 where there is one token.
    """
    ours, theirs = (_relative_distances(pooled_tokens(features, tokens)) for features in (student, teacher))
    pairs = ~torch.eye(ours.shape[1], dtype=torch.bool, device=ours.device).expand_as(ours)
    return mean_over(F.smooth_l1_loss(ours, theirs, reduction="none"), pairs)


def _relative_distances(tokens: Tensor) -> Tensor:
    """Distances (B, N, N) of tokens (B, N, C), over the mean of pairs of different tokens; all 0 if they coincide."""
    count = tokens.shape[1]
    # Differences, not a Gram matrix: that loses small distances to rounding.
    square = (tokens[:, :, None] - tokens[:, None]).square().sum(dim=3)
    apart = square > _COINCIDENT
    distances = square.masked_fill(~apart, 1.0).sqrt() * apart  # the gradient of a root is infinite at 0
    mean = distances.sum(dim=(1, 2), keepdim=True) / max(1, count * (count - 1))
    return distances / mean.clamp(min=_COINCIDENT**0.5)


def intra_class_variation(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Intra-class feature variation distillation, IFVD (Wang et al., ECCV 2020, section 3).

    The cosine of each position's vector to the mean vector of its class in the image, in both networks; the mean
    squared difference over positions that have a class. (AKD's prototype reading differs in its means, which are the
    batch's.) Its authors' code weights it by 200 on the last map before
    the logits.

    Args:
        student, teacher: (B, C, H, W) and (B, C', H, W), any float dtype.
        labels: (B, h, w), int64; labels outside 0..num_classes - 1 are left out.

    Returns:
        A float32 scalar in 0..4; 0 where no position has a class.
    """
    ours, counted = prototype_cosines(student, labels, num_classes, per_image=True)
    theirs, _ = prototype_cosines(teacher, labels, num_classes, per_image=True)
    return mean_over((ours - theirs).square(), counted)
