"""A student that learns from labels and from its teacher: AKD on inner maps, KL on logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.distillation.akd import pixel_angle, prototype_angle, relation_angle
from edpct.recipe import DistilSettings
from edpct.training.objective import Learner, label_terms, tap_widths


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened classes per pixel, times T squared (Hinton et al., arXiv 1503.02531).

    Args:
        student, teacher: logits (B, C, H, W).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return divergence.mean() * temperature**2


class DistilLearner(Learner):
    """Trains a student on labels, on a teacher's angles and on its logits.

    Args:
        student, teacher: networks with the same taps (widths may differ); without taps, the logits
            alone teach.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        settings: DistilSettings,
        ignore_index: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.model = student
        # In a tuple the teacher is no submodule: not trained, not saved, not synchronised.
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.settings = settings
        self.ignore_index = ignore_index
        self.num_classes = num_classes
        self.taps: tuple[str, ...] = tuple(teacher.TAPS)  # type: ignore[arg-type]  # nn.Module types all as Tensor
        ours, theirs = tap_widths(student, self.taps), tap_widths(teacher, self.taps)
        self.projections = nn.ModuleDict({tap: nn.Conv2d(ours[tap], theirs[tap], 1, bias=False) for tap in self.taps})

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        teacher = self._teacher[0].to(images.device)
        with torch.no_grad():
            truth = teacher.features(images)
            truth_logits = teacher.classify(truth)
        features = self.model.features(images)
        logits = self.model.classify(features)
        terms = label_terms(logits, labels, self.ignore_index, self.settings.dice)
        terms["kl"] = self.settings.kl * kl_divergence(logits, truth_logits, self.settings.temperature)
        with torch.autocast(images.device.type, enabled=False):
            terms |= self._angles(features, truth, labels)
        return {name: term for name, term in terms.items() if term.requires_grad}

    def _angles(self, features: dict[str, Tensor], truth: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        weights, share = self.settings.akd, 1 / max(1, len(self.taps))
        terms: dict[str, Tensor] = {}
        for tap in self.taps:
            ours, theirs = features[tap].float(), truth[tap].float()
            if weights.pixel > 0:
                terms[f"pixel {tap}"] = share * weights.pixel * pixel_angle(self.projections[tap](ours), theirs)
            if weights.relation > 0:
                terms[f"relation {tap}"] = share * weights.relation * relation_angle(ours, theirs, weights.tokens)
            if weights.prototype > 0:
                angle = prototype_angle(ours, theirs, labels, self.num_classes)
                terms[f"prototype {tap}"] = share * weights.prototype * angle
        return terms
