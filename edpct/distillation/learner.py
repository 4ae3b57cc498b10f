"""A student that learns from labels and from its teacher, by the losses that the recipe weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edpct.distillation.at_once import differentiated_at_once
from edpct.distillation.terms import Context, Term, chosen_taps, weighted_terms
from edpct.recipe import DistilSettings
from edpct.training.objective import Learner, label_terms, tap_widths


class DistilLearner(Learner):
    """Trains a student on labels, and on its teacher by the rows of :data:`edpct.distillation.terms.TERMS`.

    Terms on logits are called as their rows are ("kl"), those on features after their tap too ("pixel fused"). A
    term of weight 0 is not computed; the teacher is not run where no term is.

    Args:
        student, teacher: networks with ``TAPS``, ``features`` and ``classify``. Maps are compared at the taps that both
            have by name: widths may differ, and where sizes do, the student's map is resized bilinearly to the
            teacher's. With no tap in common (a network of a factory; a DP-CTNet that teaches a Unet), logits alone
            teach, and AKD is left out.
        ignore_index: label that counts for nothing.

    Raises:
        RecipeError: a tap is asked for that one of both does not have; a loss on features other than AKD, and no tap
            in common.
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
        self._teacher = (teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last),)
        self.settings = settings
        self.ignore_index = ignore_index
        self.num_classes = num_classes
        self.taps = chosen_taps(tuple(teacher.TAPS), tuple(student.TAPS), settings)  # type: ignore[arg-type]  # nn.Module types all as Tensor
        terms = weighted_terms(settings, self.taps)
        self._on_logits = [(term, weight) for term, weight in terms if term.on == "logits"]
        self._on_features = [(term, weight / len(self.taps)) for term, weight in terms if term.on == "features"]
        self.projections = nn.ModuleDict()
        if any(term.projected for term, _ in self._on_features):
            ours, theirs = tap_widths(student, self.taps), tap_widths(teacher, self.taps)
            for tap in self.taps:
                self.projections[tap] = nn.Conv2d(ours[tap], theirs[tap], 1, bias=False)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        maps, truth_logits = self._truth(images)
        features = self.model.features(images)
        context = Context(labels.masked_fill(labels == self.ignore_index, -1), self.num_classes, self.settings)
        taught: dict[str, Tensor] = {}
        # Features first: what their losses hold for a moment is gone when those at the image's size need memory.
        with torch.autocast(images.device.type, enabled=False):
            for tap in self.taps if self._on_features else ():
                theirs = maps.pop(tap).float()
                for term, weight in self._on_features:
                    taught[f"{term.name} {tap}"] = weight * self._compared(term, tap, features[tap], theirs, context)
        logits = self.model.classify(features)
        terms = label_terms(logits, labels, self.ignore_index, self.settings.dice)
        with torch.autocast(images.device.type, enabled=False):
            for term, weight in self._on_logits:
                terms[term.name] = weight * term.loss(logits, truth_logits, context)
        return {name: term for name, term in {**terms, **taught}.items() if term.requires_grad}

    def _truth(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The teacher's maps and logits, as far as a term compares them."""
        maps, logits = {}, images.new_empty(0)
        if self._on_logits or self._on_features:
            teacher = self._teacher[0].to(images.device)
            with torch.no_grad():
                features = teacher.features(images)
                if self._on_logits:
                    logits = teacher.classify(features)
                if self._on_features:
                    maps = {tap: features[tap] for tap in self.taps}
        return maps, logits

    def _compared(self, term: Term, tap: str, ours: Tensor, theirs: Tensor, context: Context) -> Tensor:
        weights = (self.projections[tap].weight,) if term.projected else ()
        return differentiated_at_once(partial(_loss_on_maps, term, theirs, context), ours, *weights)


def _loss_on_maps(term: Term, theirs: Tensor, context: Context, ours: Tensor, *projection: Tensor) -> Tensor:
    ours = ours.float()
    if ours.shape[-2:] != theirs.shape[-2:]:
        ours = F.interpolate(ours, size=theirs.shape[-2:], mode="bilinear", align_corners=False)
    for kernel in projection:
        ours = F.conv2d(ours, kernel)
    return term.loss(ours, theirs, context)
