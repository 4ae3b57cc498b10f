"""The losses that a teacher can be learnt from, as one table.

A new loss is one function, one row here, and one weight in :class:`edpct.recipe.DistilSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from torch import Tensor

from edpct.distillation.akd import pixel_angle, prototype_angle, relation_angle
from edpct.distillation.feature_losses import attention_distance, intra_class_variation, relation_distance
from edpct.distillation.logit_losses import channel_divergence, correlation_distance, kl_divergence
from edpct.errors import RecipeError
from edpct.recipe import DistilSettings


@dataclass(frozen=True)
class Context:
    """What a loss may look at beside the two networks' tensors.

    Attributes:
        labels: (B, H, W), int64; labels outside 0..num_classes - 1 count for nothing.
        settings: the recipe's.
    """

    labels: Tensor
    num_classes: int
    settings: DistilSettings


Loss = Callable[[Tensor, Tensor, Context], Tensor]
"""Of the student's tensor, the teacher's and the context: a float32 scalar."""


@dataclass(frozen=True)
class Term:
    """One row.

    Attributes:
        setting: where the recipe's section has its weight ("akd.pixel").
        on: what is compared: logits (B, num_classes, H, W), or the maps (B, C, h, w) of each tap.
        loss: how.
        projected: the student's map is first brought to the teacher's width by a trained 1x1 convolution.
        optional: left out, not refused, where teacher and student have no tap in common.
    """

    setting: str
    on: Literal["logits", "features"]
    loss: Loss
    projected: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        return self.setting.rpartition(".")[2]

    def weight(self, settings: DistilSettings) -> float:
        found: float = attrgetter(self.setting)(settings)
        return found


def _kl(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return kl_divergence(student, teacher, context.settings.temperature)


def _cwd(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return channel_divergence(student, teacher)


def _dist(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return correlation_distance(student, teacher)


def _pixel(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return pixel_angle(student, teacher)


def _relation(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return relation_angle(student, teacher, context.settings.akd.tokens)


def _prototype(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return prototype_angle(student, teacher, context.labels, context.num_classes)


def _attention(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return attention_distance(student, teacher)


def _rkd_distance(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return relation_distance(student, teacher, context.settings.akd.tokens)


def _ifvd(student: Tensor, teacher: Tensor, context: Context) -> Tensor:
    return intra_class_variation(student, teacher, context.labels, context.num_classes)


TERMS = (
    Term("kl", "logits", _kl),
    Term("cwd", "logits", _cwd),
    Term("dist", "logits", _dist),
    # Weighted by default, so that networks without taps could not be distilled at all, were it not optional.
    Term("akd.pixel", "features", _pixel, projected=True, optional=True),
    Term("akd.relation", "features", _relation, optional=True),
    Term("akd.prototype", "features", _prototype, optional=True),
    Term("attention_transfer", "features", _attention),
    Term("rkd_distance", "features", _rkd_distance),
    Term("ifvd", "features", _ifvd),
)


def chosen_taps(teacher: Sequence[str], student: Sequence[str], settings: DistilSettings) -> tuple[str, ...]:
    """The taps that are compared: the recipe's, or all that both networks have, in the teacher's order.

    Args:
        teacher, student: names of each network's taps.

    Returns:
        Names; empty where there is none in common, and then only logits and labels teach.

    Raises:
        RecipeError: a tap is asked for that one of both does not have; a loss on features, and no tap in common.
    """
    shared = [tap for tap in teacher if tap in student]
    known = f"Taps of both networks: {', '.join(shared) or 'none'}."
    for tap in settings.taps:
        if tap not in shared:
            whose = "teacher" if tap not in teacher else "student"
            raise RecipeError(f"setting 'distil.taps': the {whose} has no tap {tap!r}.", known)
    asked = [term.setting for term in TERMS if term.on == "features" and not term.optional and term.weight(settings)]
    if asked and not shared:
        raise RecipeError(
            f"setting 'distil.{asked[0]}': it compares inner maps, and teacher and student have no tap in common.",
            "Use losses on logits: " + ", ".join(term.setting for term in TERMS if term.on == "logits") + ".",
        )
    return tuple(dict.fromkeys(settings.taps or shared))


def weighted_terms(settings: DistilSettings, taps: Sequence[str]) -> list[tuple[Term, float]]:
    """The rows that count, with their weights: above 0, and those on features only where there are taps."""
    return [(term, weight) for term in TERMS if (weight := term.weight(settings)) > 0 and (taps or term.on == "logits")]
