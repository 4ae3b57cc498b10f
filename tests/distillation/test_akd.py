"""AKD's three readings and the losses beside it: closed forms, plain loops, and gradients where arccos has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from edpct.distillation.akd import (
    pixel_angle,
    prototype_angle,
    relation_angle,
    triplet_cosines,
)
from edpct.distillation.learner import DistilLearner
from edpct.distillation.logit_losses import kl_divergence
from edpct.distillation.vectors import prototype_cosines
from edpct.models.dpctnet import DPCTNet, dpctnet
from edpct.recipe import AKDSettings, DistilSettings

TAPS = DPCTNet.TAPS
IGNORE = 255


def _map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _rotation(width: int) -> Tensor:
    return torch.linalg.qr(_map(width, width, seed=9))[0]


# ---- pixel


def test_the_pixel_angle_of_equal_orthogonal_and_opposite_vectors() -> None:
    x = torch.zeros(2, 4, 3, 5)
    x[:, 0] = 2.0
    y = torch.zeros_like(x)
    y[:, 2] = 7.0
    assert pixel_angle(x, x).item() == pytest.approx(0.0, abs=1e-3)
    assert pixel_angle(x, y).item() == pytest.approx(0.5, abs=1e-3)
    assert pixel_angle(x, -x).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("degrees", [1, 30, 60, 90, 150, 179])
def test_the_pixel_angle_is_the_angle(degrees: int) -> None:
    angle = math.radians(degrees)
    x = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 4, 4)
    y = torch.tensor([math.cos(angle), math.sin(angle)])[None, :, None, None].expand(1, 2, 4, 4)
    assert pixel_angle(x, 5 * y).item() == pytest.approx(degrees / 180, abs=1e-4)


def test_the_pixel_angle_is_the_mean_of_numpys_angles_and_has_no_scale() -> None:
    x, y = _map(2, 6, 3, 4, seed=1), _map(2, 6, 3, 4, seed=2)
    angles = []
    for b in range(2):
        for i in range(3):
            for j in range(4):
                p, q = x[b, :, i, j].double().numpy(), y[b, :, i, j].double().numpy()
                angles.append(np.arccos(p @ q / np.linalg.norm(p) / np.linalg.norm(q)) / np.pi)
    assert pixel_angle(x, y).item() == pytest.approx(np.mean(angles), abs=1e-5)
    scale = torch.rand(2, 1, 3, 4) + 0.1  # another at every position
    assert pixel_angle(1000 * x, scale * y).item() == pytest.approx(np.mean(angles), abs=1e-5)


# ---- relation


def _numpy_triplets(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """cos of the angle at j between i and k, [j, i, k], nan where i or k is j."""
    count = len(tokens)
    out = np.full((count, count, count), np.nan)
    for j in range(count):
        for i in range(count):
            for k in range(count):
                if i != j and k != j:
                    a, b = tokens[i] - tokens[j], tokens[k] - tokens[j]
                    out[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return out


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_triplet_cosines_are_those_of_a_plain_loop(scale: float) -> None:
    tokens = _map(2, 7, 5) + 3.0
    cosines, exists = triplet_cosines(scale * tokens)
    assert cosines.shape == exists.shape == (2, 7, 7, 7)
    for batch in range(2):
        reference = _numpy_triplets(tokens[batch].double().numpy())
        assert np.array_equal(exists[batch].numpy(), ~np.isnan(reference))
        np.testing.assert_allclose(
            cosines[batch].numpy()[~np.isnan(reference)], reference[~np.isnan(reference)], atol=1e-4
        )


def test_a_right_angle_and_a_straight_one() -> None:
    cosines, _ = triplet_cosines(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]]))
    assert cosines[0, 0, 1, 2].item() == pytest.approx(0.0, abs=1e-5)
    assert cosines[0, 0, 1, 3].item() == pytest.approx(-1.0, abs=1e-5)
    assert cosines[0, 1, 0, 2].item() == pytest.approx(1 / math.sqrt(5), abs=1e-5)


def test_tokens_in_one_place_have_no_angle() -> None:
    tokens = _map(1, 5, 4)
    tokens[0, 3] = tokens[0, 1]
    _, exists = triplet_cosines(tokens)
    assert not exists[0, 1, 3].any() and not exists[0, 3, :, 1].any() and exists[0, 0, 1, 3]
    constant = torch.full((1, 5, 4), 2.5)
    assert not triplet_cosines(constant)[1].any()
    assert relation_angle(torch.full((1, 4, 2, 2), 2.5), _map(1, 4, 2, 2), 4).item() == 0.0


def test_the_relation_angle_is_zero_for_a_moved_scaled_and_rotated_copy() -> None:
    x = _map(2, 6, 8, 8)
    copy = torch.einsum("dc,bchw->bdhw", 3.5 * _rotation(6), x) + _map(1, 6, 1, 1, seed=3)
    wider = torch.cat([x, torch.zeros(2, 5, 8, 8)], dim=1)  # widths may differ
    other = relation_angle(x, _map(2, 6, 8, 8, seed=4), 64).item()
    assert relation_angle(x, copy, 64).item() < 1e-6 < 1e-2 < other
    assert relation_angle(x, wider, 64).item() < 1e-6


def test_the_relation_angle_is_the_huber_distance_of_the_loops_cosines() -> None:
    x, y = _map(1, 4, 3, 3, seed=5), _map(1, 6, 3, 3, seed=6)
    found = [_numpy_triplets(m[0].flatten(1).T.double().numpy()) for m in (x, y)]
    gap = np.abs(found[0] - found[1])
    huber = np.where(gap < 1, 0.5 * gap**2, gap - 0.5)
    assert relation_angle(x, y, 9).item() == pytest.approx(np.nanmean(huber), abs=1e-5)


@pytest.mark.parametrize(("tokens", "side"), [(9, 3), (15, 3), (16, 4)])
def test_no_more_regions_than_tokens_are_compared(tokens: int, side: int) -> None:
    x, y = _map(1, 4, 12, 12, seed=5), _map(1, 6, 12, 12, seed=6)
    pooled = [m.reshape(1, -1, side, 12 // side, side, 12 // side).mean(dim=(3, 5)) for m in (x, y)]
    expected = relation_angle(*pooled, tokens=side * side).item()
    assert relation_angle(x, y, tokens).item() == pytest.approx(expected, abs=1e-6)


# ---- prototype


def test_prototype_cosines_are_those_of_a_plain_loop() -> None:
    features = _map(2, 5, 3, 4)
    labels = torch.randint(0, 4, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    labels[0, 0, 0] = labels[1, 2, 3] = IGNORE
    labels[labels == 2] = 1  # class 2 is absent
    cosines, counted = prototype_cosines(features, labels, 4)
    vectors, flat = features.permute(0, 2, 3, 1).reshape(-1, 5).double().numpy(), labels.flatten().numpy()
    assert np.array_equal(counted.flatten().numpy(), flat != IGNORE)
    for index, label in enumerate(flat):
        if label != IGNORE:
            mean = vectors[flat == label].mean(axis=0)
            expected = vectors[index] @ mean / np.linalg.norm(vectors[index]) / np.linalg.norm(mean)
            assert cosines.flatten()[index].item() == pytest.approx(expected, abs=1e-5)


def test_labels_are_taken_down_to_the_maps_size() -> None:
    features = _map(1, 5, 4, 4)
    small = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    large = small.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    assert torch.equal(prototype_cosines(features, large, 3)[0], prototype_cosines(features, small, 3)[0])


def test_the_prototype_angle_is_the_mean_squared_gap_over_counted_positions() -> None:
    x, y = _map(2, 5, 4, 4, seed=1), _map(2, 7, 4, 4, seed=2)
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = IGNORE
    first, counted = prototype_cosines(x, labels, 3)
    second, _ = prototype_cosines(y, labels, 3)
    expected = (first - second)[counted].square().mean().item()
    assert prototype_angle(x, y, labels, 3).item() == pytest.approx(expected, rel=1e-5) and expected > 1e-3
    assert prototype_angle(x, 4 * x, labels, 3).item() < 1e-10
    poisoned = x.clone()
    poisoned[:, :, 0] = 1e3  # what lies under ignored labels does not matter
    assert prototype_angle(poisoned, y, labels, 3).item() == pytest.approx(expected, rel=1e-5)


def test_where_everything_is_ignored_there_is_nothing_to_learn_and_no_nan() -> None:
    x = _map(2, 5, 4, 4).requires_grad_()
    loss = prototype_angle(x, _map(2, 5, 4, 4, seed=1), torch.full((2, 4, 4), IGNORE), 3)
    loss.backward()
    assert loss.item() == 0.0 and not x.grad.any()


# ---- gradients and types


@pytest.mark.parametrize("twin", [1.0, -1.0, 0.0], ids=["identical", "opposite", "zero"])
def test_gradients_are_finite_where_vectors_are_identical_opposite_or_zero(twin: float) -> None:
    teacher = _map(2, 6, 4, 4)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    for loss in (
        lambda x: pixel_angle(x, teacher),
        lambda x: relation_angle(x, teacher, 16),
        lambda x: prototype_angle(x, teacher, labels, 3),
    ):
        student = (twin * teacher).clone().requires_grad_()
        value = loss(student)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("mode", ["pixel", "relation", "prototype"])
def test_descent_brings_the_student_nearer(mode: str) -> None:
    teacher, student = _map(2, 6, 4, 4), _map(2, 6, 4, 4, seed=7).requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    loss = {
        "pixel": lambda: pixel_angle(student, teacher),
        "relation": lambda: relation_angle(student, teacher, 16),
        "prototype": lambda: prototype_angle(student, teacher, labels, 3),
    }[mode]
    optimiser = torch.optim.Adam([student], lr=0.05)
    first = loss().item()
    for _ in range(60):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.5 * first


def test_bfloat16_maps_are_compared_in_float32() -> None:
    x, y = _map(2, 6, 4, 4).bfloat16(), _map(2, 6, 4, 4, seed=1).bfloat16()
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    for loss in (pixel_angle, lambda a, b: relation_angle(a, b, 16), lambda a, b: prototype_angle(a, b, labels, 3)):
        value = loss(x, y)
        assert value.dtype == torch.float32 and torch.equal(value, loss(x.float(), y.float()))


# ---- the learner


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kl_divergence_is_scipys_relative_entropy(temperature: float) -> None:
    student, teacher = 3 * _map(2, 5, 3, 4), 3 * _map(2, 5, 3, 4, seed=1)
    p = softmax(teacher.double().numpy() / temperature, axis=1)
    q = softmax(student.double().numpy() / temperature, axis=1)
    expected = entropy(p, q, axis=1).mean() * temperature**2
    assert kl_divergence(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-4)
    assert kl_divergence(teacher, teacher + 4.0, temperature).item() == pytest.approx(0.0, abs=1e-6)


def _learner(settings: DistilSettings) -> DistilLearner:
    torch.manual_seed(0)
    return DistilLearner(dpctnet("tiny", 4), dpctnet("tiny", 4), settings, IGNORE, 4)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, 4, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    labels[:, :9] = IGNORE
    return _map(2, 3, 64, 64), labels


def test_all_terms_are_there_finite_and_teach_the_student_only(batch: tuple[Tensor, Tensor]) -> None:
    learner = _learner(DistilSettings())
    terms = learner(*batch)
    assert set(terms) == {"ce", "dice", "kl"} | {f"{m} {t}" for m in ("pixel", "relation", "prototype") for t in TAPS}
    assert all(torch.isfinite(term) and term.dim() == 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in learner.parameters())
    teacher = learner._teacher[0]
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())
    assert not any(name.startswith("_teacher") for name in learner.state_dict())


@pytest.mark.parametrize("mode", ["pixel", "relation", "prototype"])
def test_a_mode_of_weight_zero_is_switched_off_and_weights_are_factors(batch: tuple[Tensor, Tensor], mode: str) -> None:
    off = {"pixel": 0.0, "relation": 0.0, "prototype": 0.0}
    once = _learner(DistilSettings(akd=AKDSettings(**{**off, mode: 1.0})))(*batch)
    twice = _learner(DistilSettings(akd=AKDSettings(**{**off, mode: 2.0}), kl=3.0))(*batch)
    assert {name.split()[0] for name in once} == {"ce", "dice", "kl", mode}
    for tap in TAPS:
        assert twice[f"{mode} {tap}"].item() == pytest.approx(2 * once[f"{mode} {tap}"].item(), rel=1e-4)
    assert twice["kl"].item() == pytest.approx(3 * once["kl"].item(), rel=1e-4)


def test_the_weights_of_a_mode_are_shared_by_the_taps(batch: tuple[Tensor, Tensor]) -> None:
    learner = _learner(DistilSettings()).eval()
    terms = learner(*batch)
    with torch.no_grad():
        ours, theirs = learner.model.features(batch[0]), learner._teacher[0].features(batch[0])
        for tap in TAPS:
            alone = relation_angle(ours[tap], theirs[tap], 64).item()
            assert terms[f"relation {tap}"].item() == pytest.approx(alone / 3, rel=1e-4)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(batch: tuple[Tensor, Tensor]) -> None:
    learner = _learner(DistilSettings()).eval()
    learner.model.load_state_dict(learner._teacher[0].state_dict())
    terms = learner(*batch)
    assert terms["kl"].item() == pytest.approx(0.0, abs=1e-5)
    for tap in TAPS:
        assert terms[f"relation {tap}"].item() < 1e-5 and terms[f"prototype {tap}"].item() < 1e-8


def test_a_batch_with_every_pixel_ignored_gives_finite_terms(batch: tuple[Tensor, Tensor]) -> None:
    learner = _learner(DistilSettings())
    terms = learner(batch[0], torch.full_like(batch[1], IGNORE))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(bool(torch.isfinite(p.grad).all()) for p in learner.parameters() if p.grad is not None)
    assert terms["ce"].item() == terms["dice"].item() == 0.0


def test_a_pruned_student_is_projected_to_its_teachers_widths(batch: tuple[Tensor, Tensor]) -> None:
    from edpct.progress import Silent
    from edpct.pruning.prune import prune_by_ratio
    from edpct.recipe import PruneSettings

    torch.manual_seed(0)
    teacher = dpctnet("tiny", 4)
    learner = DistilLearner(
        prune_by_ratio(teacher, 0.5, PruneSettings(), Silent()), teacher, DistilSettings(), IGNORE, 4
    )
    assert {tap: (p.in_channels, p.out_channels) for tap, p in learner.projections.items()} == dict.fromkeys(
        TAPS, (32, 64)
    )
    assert all(torch.isfinite(term) for term in learner(*batch).values())
