"""Losses on logits: of each pixel's classes (KL, DIST), and of each class's map (CWD, DIST)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edpct.distillation.vectors import cosines

CHANNEL_TEMPERATURE = 4.0
"""Of CWD, as its authors set it."""


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened classes per pixel, times T squared (Hinton et al., arXiv 1503.02531).

    Args:
        student, teacher: logits (B, C, H, W), any float dtype.
        temperature: divides the logits, > 0.

    Returns:
        A float32 scalar >= 0, the mean over pixels.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return divergence.mean() * temperature**2


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float = CHANNEL_TEMPERATURE) -> Tensor:
    """Channel-wise distillation, CWD (Shu et al., ICCV 2021, arXiv 2011.13256, section 3).

    The softmax of a channel goes over its positions; the divergence of both softmaxes, times T squared, is averaged
    over channels and images. Its authors weight it by 3 on logits.

    Args:
        student, teacher: logits (B, C, H, W), any float dtype.
        temperature: divides the logits, > 0.

    Returns:
        A float32 scalar >= 0.
    """
    log_student = F.log_softmax(student.float().flatten(2) / temperature, dim=2)
    log_teacher = F.log_softmax(teacher.float().flatten(2) / temperature, dim=2)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(2)
    return divergence.mean() * temperature**2


def correlation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """DIST (Huang et al., NeurIPS 2022, arXiv 2205.10536, section 4): inter-class plus intra-class relation.

    Both are one minus Pearson's correlation of the softmaxes, of temperature 1: of the classes at a pixel, averaged
    over pixels; and of a class over all pixels of the batch, averaged over classes. The pixels are the samples, as in
    the authors' experiments on segmentation; beta = gamma = 1. A class or pixel without variance correlates with
    nothing (distance 1).

    Args:
        student, teacher: logits (B, C, H, W), any float dtype.

    Returns:
        A float32 scalar in 0..4.
    """
    ours, theirs = (logits.float().softmax(dim=1).transpose(0, 1).flatten(1) for logits in (student, teacher))
    return (1 - _pearson(ours, theirs, dim=0)).mean() + (1 - _pearson(ours, theirs, dim=1)).mean()


def _pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    first, second = (values - values.mean(dim, keepdim=True) for values in (first, second))
    return cosines(first, second, dim)
