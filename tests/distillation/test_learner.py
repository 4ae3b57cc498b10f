"""Which terms a recipe asks for, at which taps, and what happens where networks have others or none."""

from __future__ import annotations

from operator import attrgetter

import pytest
import torch
from torch import Tensor, nn

from edpct.distillation.feature_losses import attention_distance
from edpct.distillation.learner import DistilLearner
from edpct.distillation.logit_losses import channel_divergence
from edpct.distillation.terms import TERMS
from edpct.errors import RecipeError
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.recipe import AKDSettings, DistilSettings

IGNORE = 255
TAPS = DPCTNet.TAPS
NO_AKD = AKDSettings(pixel=0, relation=0, prototype=0)
RIVALS_ON_FEATURES = ("attention_transfer", "rkd_distance", "ifvd")


class Taps(nn.Module):
    """A network of two convolutions with whatever taps; the first map is at half size where asked."""

    def __init__(self, *taps: str, width: int = 4, stride: int = 1) -> None:
        super().__init__()
        self.TAPS = taps
        self.first = nn.Conv2d(3, width, 3, padding=1, stride=stride)
        self.last = nn.Conv2d(width, 4, 1)
        self.stride, self.runs = stride, 0

    def features(self, image: Tensor) -> dict[str, Tensor]:
        self.runs += 1
        found = self.first(image)
        return {**dict.fromkeys(self.TAPS, found), "logits": self.last(found)}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        return nn.functional.interpolate(features["logits"], scale_factor=float(self.stride))


def _learner(student: nn.Module, teacher: nn.Module, **settings: object) -> DistilLearner:
    torch.manual_seed(0)
    return DistilLearner(student, teacher, DistilSettings.model_validate(settings), IGNORE, 4)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (2, 64, 64), generator=generator)
    labels[:, :9] = IGNORE
    return torch.randn(2, 3, 64, 64, generator=generator), labels


# ---- the table and the recipe


def test_every_row_has_its_weight_in_the_recipe_and_a_name_of_its_own() -> None:
    assert len({term.name for term in TERMS}) == len(TERMS)
    for term in TERMS:
        weight = attrgetter(term.setting)(DistilSettings())
        assert weight == (1.0 if term.setting == "kl" or term.setting.startswith("akd.") else 0.0)
        section = AKDSettings if term.setting.startswith("akd.") else DistilSettings
        with pytest.raises(ValueError, match="greater than or equal to 0"):
            section.model_validate({term.name: -1.0})


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.setting)
def test_a_weight_is_a_factor_and_a_term_without_one_is_not_there(term, batch: tuple[Tensor, Tensor]) -> None:  # type: ignore[no-untyped-def]
    def terms(weight: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        alone = {"kl": 0.0, "akd": NO_AKD.model_dump()}
        if term.setting.startswith("akd."):
            alone["akd"] = {**NO_AKD.model_dump(), term.name: weight}
        else:
            alone[term.name] = weight
        return _learner(Taps("cnn", "fused", width=6), Taps("cnn", "fused"), **alone)(*batch)

    names = {term.name} if term.on == "logits" else {f"{term.name} cnn", f"{term.name} fused"}
    none, once, thrice = terms(0.0), terms(1.0), terms(3.0)
    assert set(none) == {"ce", "dice"} and set(once) == set(thrice) == {"ce", "dice"} | names
    for name in names:
        assert once[name].item() > 0 and thrice[name].item() == pytest.approx(3 * once[name].item(), rel=1e-4)


def test_without_terms_the_teacher_is_not_run_and_nothing_is_projected(batch: tuple[Tensor, Tensor]) -> None:
    teacher = Taps("cnn")
    learner = _learner(Taps("cnn"), teacher, kl=0.0, akd=NO_AKD)
    learner(*batch)
    assert teacher.runs == 0 and not learner.projections
    assert not _learner(Taps("cnn"), teacher, akd=AKDSettings(pixel=0)).projections
    assert set(_learner(Taps("cnn"), teacher).projections) == {"cnn"}


def test_all_losses_together_teach_a_dpctnet(batch: tuple[Tensor, Tensor]) -> None:
    weights = dict.fromkeys(("kl", "cwd", "dist", *RIVALS_ON_FEATURES), 0.5)
    learner = _learner(dpctnet("tiny", 4), dpctnet("tiny", 4), **weights)
    with torch.autocast("cpu", torch.bfloat16):
        terms = learner(*batch)
    assert set(terms) == {"ce", "dice"} | {
        name for term in TERMS for name in ([term.name] if term.on == "logits" else [f"{term.name} {t}" for t in TAPS])
    }
    assert all(term.dtype == torch.float32 and bool(torch.isfinite(term)) for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in learner.parameters())


def test_terms_are_the_losses_of_logits_and_maps(batch: tuple[Tensor, Tensor]) -> None:
    student, teacher = Taps("cnn", "fused", width=6), Taps("cnn", "fused")
    terms = _learner(student, teacher, cwd=3.0, attention_transfer=2.0)(*batch)
    ours, theirs = student.features(batch[0]), teacher.features(batch[0])
    expected = 3 * channel_divergence(student.classify(ours), teacher.classify(theirs)).item()
    assert terms["cwd"].item() == pytest.approx(expected, rel=1e-5)
    expected = 2 / 2 * attention_distance(ours["cnn"], theirs["cnn"]).item()  # shared by two taps
    assert terms["attention_transfer cnn"].item() == pytest.approx(expected, rel=1e-5)


def test_the_ignored_label_counts_for_nothing_even_among_the_classes() -> None:
    images, labels = torch.randn(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    learner = DistilLearner(Taps("cnn"), Taps("cnn"), DistilSettings(kl=0, ifvd=1.0, akd=NO_AKD), 0, 4)
    assert learner(images, labels)["ifvd cnn"].item() == 0.0


# ---- taps


def test_taps_are_those_asked_for(batch: tuple[Tensor, Tensor]) -> None:
    terms = _learner(dpctnet("tiny", 4), dpctnet("tiny", 4), taps=("fused",), ifvd=1.0)(*batch)
    assert {name.split()[1] for name in terms if " " in name} == {"fused"}


def test_an_unknown_tap_is_refused_with_those_there_are() -> None:
    with pytest.raises(RecipeError) as refusal:
        _learner(dpctnet("tiny", 4), dpctnet("tiny", 4), taps=("fused", "stem"))
    assert str(refusal.value) == (
        "setting 'distil.taps': the teacher has no tap 'stem'. Taps of both networks: cnn, transformer, fused."
    )
    with pytest.raises(RecipeError, match=r"the student has no tap 'fused'\. Taps of both networks: cnn\."):
        _learner(Taps("cnn"), Taps("cnn", "fused"), taps=("fused",))


def test_only_taps_that_both_have_are_compared(batch: tuple[Tensor, Tensor]) -> None:
    terms = _learner(Taps("decoder", "cnn"), Taps("cnn", "fused"))(*batch)
    assert {name.split()[1] for name in terms if " " in name} == {"cnn"}


def test_without_a_tap_in_common_logits_alone_teach(batch: tuple[Tensor, Tensor]) -> None:
    for student, teacher in ((Taps(), Taps()), (Taps("encoder", "decoder"), dpctnet("tiny", 4))):
        assert set(_learner(student, teacher, cwd=1.0, dist=1.0)(*batch)) == {"ce", "dice", "kl", "cwd", "dist"}


@pytest.mark.parametrize("setting", RIVALS_ON_FEATURES)
def test_without_a_tap_in_common_other_losses_on_features_are_refused(setting: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        _learner(Taps("encoder", "decoder"), dpctnet("tiny", 4), **{setting: 1.0})
    assert str(refusal.value) == (
        f"setting 'distil.{setting}': it compares inner maps, and teacher and student have no tap in common. "
        "Use losses on logits: kl, cwd, dist."
    )


def test_a_map_of_another_size_is_brought_to_the_teachers(batch: tuple[Tensor, Tensor]) -> None:
    student, teacher = Taps("cnn", stride=2), Taps("cnn")
    terms = _learner(student, teacher, akd=NO_AKD, attention_transfer=1.0)(*batch)
    ours, theirs = student.features(batch[0])["cnn"], teacher.features(batch[0])["cnn"]
    large = nn.functional.interpolate(ours, size=(64, 64), mode="bilinear")
    assert terms["attention_transfer cnn"].item() == pytest.approx(attention_distance(large, theirs).item(), rel=1e-4)
    assert all(torch.isfinite(term) for term in _learner(student, teacher)(*batch).values())
