"""What a step minimises: losses on the labels, with auxiliary heads that exist only while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.errors import TrainingError


class TappedNetwork(Protocol):
    """A network that shows its inner maps, as :class:`edpct.models.dpctnet.DPCTNet` does."""

    def features(self, image: Tensor) -> dict[str, Tensor]: ...

    def classify(self, features: dict[str, Tensor]) -> Tensor: ...


class Learner(nn.Module):
    """A network together with what it is trained by; one module, so that several processes synchronise all of it.

    ``forward(images, labels)`` returns the weighted terms of the loss; their sum is minimised.
    """

    model: nn.Module

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def regularise(self) -> None:
        """Change the gradients before the optimiser's step; nothing, unless a learner wants it."""


@contextmanager
def single_crops_explained() -> Iterator[None]:
    """Turn what batch normalisation says of one value a channel, which has no variance, into one sentence.

    Raises:
        TrainingError: a forward pass had one crop, and its network normalises what a global pooling left of it.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "This network cannot learn from one crop at a time: it has batch normalisation behind a global pooling.",
            "Raise batch, lower accumulate or take fewer processes, so that every part of a batch has two crops.",
        ) from error


def dice_loss(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016), mean over the classes that occur in the batch.

    Args:
        logits: (B, C, H, W). labels: (B, H, W), int64; pixels of ``ignore_index`` are left out.

    Returns:
        A scalar in 0..1; 0 where every pixel is ignored.
    """
    counted = (labels != ignore_index)[:, None]
    truth = F.one_hot(labels.masked_fill(labels == ignore_index, 0), logits.shape[1]).permute(0, 3, 1, 2) * counted
    share = logits.float().softmax(1) * counted
    axes = (0, 2, 3)
    overlap = 2 * (share * truth).sum(axes)
    total = (share + truth).sum(axes)
    present = truth.sum(axes) > 0
    loss = 1 - (overlap + 1) / (total + 1)
    return (loss * present).sum() / present.sum().clamp(min=1)


def boundary_loss(logits: Tensor, labels: Tensor, ignore_index: int, tolerance: int = 2) -> Tensor:
    """1 - BF1, how far contours are off (Bokhovkin and Burnaev, arXiv 1905.07852, equations 2 to 6).

    A contour are the pixels of a class with another class beside them, softly: by how much the greatest 1 - p of the
    3 x 3 pixels around exceeds the own one. Precision is the share of the predicted contour that lies within
    ``tolerance`` of the true one, recall the share of the true one that lies so near to the predicted. Mean over the
    classes with a contour in the batch (the paper: over images, too). Ignored pixels are of every class, so that
    next to them is no contour; nor is there one at the edge of a crop.

    Args:
        logits: (B, C, H, W). labels: (B, H, W), int64.
        tolerance: pixels, in the maximum norm.

    Returns:
        A scalar, float32, in 0..1; 0 where no class has a contour.
    """
    counted = (labels != ignore_index)[:, None]
    truth = F.one_hot(labels.masked_fill(labels == ignore_index, 0), logits.shape[1]).permute(0, 3, 1, 2).float()
    contours, near = [], []
    for share in (truth, logits.float().softmax(1)):
        other = (1 - share) * counted
        contour = (F.max_pool2d(other, 3, stride=1, padding=1) - other) * counted
        contours.append(contour)
        near.append(F.max_pool2d(contour, 2 * tolerance + 1, stride=1, padding=tolerance))
    axes = (0, 2, 3)
    # Less than one pixel of contour is none: the quotient would be noise, and its gradient without bound.
    precision = (contours[1] * near[0]).sum(axes) / contours[1].sum(axes).clamp(min=1)
    length = contours[0].sum(axes)
    recall = (contours[0] * near[1]).sum(axes) / length.clamp(min=1)
    score = 2 * precision * recall / (precision + recall).clamp(min=1e-6)
    present = length > 0
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)


def label_terms(
    logits: Tensor, labels: Tensor, ignore_index: int, dice: float, boundary: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy, weighted Dice and weighted boundary loss of logits (B, C, H, W) against labels (B, H, W)."""
    # A mean over no pixel is 0 / 0; the sum over at least one is not.
    counted = (labels != ignore_index).sum().clamp(min=1)
    terms = {"ce": F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="sum") / counted}
    if dice > 0:
        terms["dice"] = dice * dice_loss(logits, labels, ignore_index)
    if boundary > 0:
        terms["boundary"] = boundary * boundary_loss(logits, labels, ignore_index)
    return terms


class SupervisedLearner(Learner):
    """Trains a network on labels alone.

    Args:
        auxiliary: weight of the auxiliary heads' cross-entropy; each path is asked to classify by itself.
        taps: channels of each map that gets such a head.
        boundary: weight of :func:`boundary_loss`.
    """

    def __init__(
        self,
        model: nn.Module,
        ignore_index: int,
        num_classes: int,
        dice: float,
        auxiliary: float,
        taps: Mapping[str, int],
        boundary: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.ignore_index = ignore_index
        self.dice = dice
        self.boundary = boundary
        self.auxiliary = auxiliary
        self.heads = nn.ModuleDict({name: nn.Conv2d(width, num_classes, 1) for name, width in taps.items()})

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = self.model.features(images)
        terms = label_terms(self.model.classify(features), labels, self.ignore_index, self.dice, self.boundary)
        for name, head in self.heads.items():
            logits = F.interpolate(head(features[name]).float(), size=labels.shape[-2:], mode="bilinear")
            terms[f"aux {name}"] = self.auxiliary * label_terms(logits, labels, self.ignore_index, 0.0)["ce"]
        return terms


def tap_widths(model: nn.Module, names: tuple[str, ...]) -> dict[str, int]:
    """Channels of the named maps, found by running a small image."""
    training = model.training
    with torch.no_grad():
        features = model.eval().features(torch.zeros(1, 3, 64, 64))
    model.train(training)
    return {name: features[name].shape[1] for name in names}
