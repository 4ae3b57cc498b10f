"""The losses beside AKD: each against a plain NumPy reading of its paper, and the gradients of all where it is hard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from edpct.distillation.at_once import differentiated_at_once
from edpct.distillation.feature_losses import attention_distance, intra_class_variation, relation_distance
from edpct.distillation.logit_losses import channel_divergence, correlation_distance
from edpct.distillation.terms import TERMS, Context, Term
from edpct.recipe import AKDSettings, DistilSettings

IGNORE = 255
CLASSES = 3


def _map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _labels(*shape: int, classes: int = CLASSES) -> Tensor:
    labels = torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))
    labels[:, 0, 0] = IGNORE
    return labels


def _plain(values: Tensor) -> NDArray[np.float64]:
    return values.double().numpy()


# ---- the papers' formulas


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_is_the_divergence_of_each_channels_softmax_over_positions(temperature: float) -> None:
    student, teacher = 5 * _map(2, 3, 4, 5), 5 * _map(2, 3, 4, 5, seed=1)
    total = 0.0
    for b in range(2):
        for c in range(3):
            ours = softmax(_plain(student)[b, c].ravel() / temperature)
            theirs = softmax(_plain(teacher)[b, c].ravel() / temperature)
            total += float((theirs * np.log(theirs / ours)).sum())
    expected = temperature**2 / 3 * total / 2  # over channels, then over images
    assert channel_divergence(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-4)
    offset = _map(2, 3, 1, 1, seed=2)  # a softmax has no level
    assert channel_divergence(teacher + offset, teacher, temperature).item() == pytest.approx(0.0, abs=1e-5)


def test_cwd_has_its_papers_temperature() -> None:
    student, teacher = _map(2, 3, 4, 5), _map(2, 3, 4, 5, seed=1)
    assert torch.equal(channel_divergence(student, teacher), channel_divergence(student, teacher, 4.0))


def test_dist_is_one_minus_pearson_within_pixels_and_within_classes() -> None:
    student, teacher = 2 * _map(2, 4, 3, 5), 2 * _map(2, 4, 3, 5, seed=1)
    # Rows are pixels, columns are classes, as Y in the paper.
    ours, theirs = (softmax(_plain(m).transpose(0, 2, 3, 1).reshape(-1, 4), axis=1) for m in (student, teacher))
    inter = np.mean([1 - np.corrcoef(ours[row], theirs[row])[0, 1] for row in range(len(ours))])
    intra = np.mean([1 - np.corrcoef(ours[:, k], theirs[:, k])[0, 1] for k in range(4)])
    assert correlation_distance(student, teacher).item() == pytest.approx(inter + intra, rel=1e-4)
    assert correlation_distance(teacher + 3.0, teacher).item() == pytest.approx(0.0, abs=1e-5)


def test_attention_transfer_is_the_squared_distance_of_normalised_attention() -> None:
    student, teacher = _map(2, 3, 4, 5), _map(2, 6, 4, 5, seed=1)
    total = 0.0
    for b in range(2):
        maps = [(np.abs(_plain(m)[b]) ** 2).sum(axis=0).ravel() for m in (student, teacher)]
        ours, theirs = (q / np.linalg.norm(q) for q in maps)
        total += float(np.linalg.norm(ours - theirs) ** 2)
    assert attention_distance(student, teacher).item() == pytest.approx(total / 2, rel=1e-4)
    assert attention_distance(-7 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_rkd_distance_is_the_huber_distance_of_relative_distances() -> None:
    student, teacher = _map(2, 3, 4, 4), _map(2, 6, 4, 4, seed=1)
    student[0, :, 0, 0] = 40.0  # far enough that the Huber distance is linear
    total, pairs = 0.0, 16 * 15
    for b in range(2):
        relative = []
        for tokens in (_plain(student)[b].reshape(3, -1).T, _plain(teacher)[b].reshape(6, -1).T):
            distances = np.array([[np.linalg.norm(x - y) for y in tokens] for x in tokens])
            relative.append(distances / (distances.sum() / pairs))
        gap = np.abs(relative[0] - relative[1])
        assert b == 1 or gap.max() > 1
        total += float(np.where(gap <= 1, gap**2 / 2, gap - 0.5).sum()) / pairs
    assert relation_distance(student, teacher, 16).item() == pytest.approx(total / 2, rel=1e-4)
    moved = 3.0 * teacher + _map(2, 6, 1, 1, seed=2)
    assert relation_distance(moved, teacher, 16).item() == pytest.approx(0.0, abs=1e-6)


def test_rkd_distance_looks_at_no_more_regions_than_tokens() -> None:
    student, teacher = _map(1, 3, 8, 8), _map(1, 6, 8, 8, seed=1)
    pooled = [m.reshape(1, -1, 2, 4, 2, 4).mean(dim=(3, 5)) for m in (student, teacher)]
    expected = relation_distance(*pooled, tokens=4).item()
    assert relation_distance(student, teacher, 8).item() == pytest.approx(expected, rel=1e-5)


def test_ifvd_is_the_squared_gap_of_cosines_to_the_means_of_classes_in_the_image() -> None:
    student, teacher, labels = _map(2, 4, 3, 5), _map(2, 6, 3, 5, seed=1), _labels(2, 3, 5)
    gaps = []
    for b in range(2):
        flat = labels[b].flatten().numpy()
        cosines = []
        for features in (_plain(student)[b], _plain(teacher)[b]):
            vectors = features.reshape(len(features), -1).T
            row = []
            for vector, label in zip(vectors, flat, strict=True):
                if label != IGNORE:
                    mean = vectors[flat == label].mean(axis=0)
                    row.append(vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean))
            cosines.append(row)
        gaps += list((np.array(cosines[0]) - np.array(cosines[1])) ** 2)
    found = intra_class_variation(student, teacher, labels, CLASSES).item()
    assert found == pytest.approx(np.mean(gaps), rel=1e-4)
    assert intra_class_variation(5 * teacher, teacher, labels, CLASSES).item() == pytest.approx(0.0, abs=1e-8)


# ---- gradients, of every row of the table


def _value(term: Term, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return term.loss(student, teacher, Context(labels, CLASSES, DistilSettings(akd=AKDSettings(tokens=16))))


ALL_TERMS = pytest.mark.parametrize("term", TERMS, ids=lambda term: term.setting)
CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "identical": lambda teacher: teacher.clone(),
    "opposite": lambda teacher: -teacher,
    "zero": torch.zeros_like,
    "constant": lambda teacher: torch.full_like(teacher, 0.5),
    "tiny": lambda teacher: 1e-6 * teacher,
    "large": lambda teacher: 1e4 * _map(*teacher.shape, seed=5),
}


@ALL_TERMS
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 4])
def test_gradients_are_finite(term: Term, case: str, dtype: torch.dtype, size: int) -> None:
    teacher = _map(2, CLASSES, size, size)
    student = CASES[case](teacher).to(dtype).requires_grad_()
    value = _value(term, student, teacher.to(dtype), _labels(2, 8, 8))
    value.backward()
    assert value.dtype == torch.float32 and value.dim() == 0 and torch.isfinite(value)
    assert student.grad is not None and student.grad.dtype == dtype and bool(torch.isfinite(student.grad).all())


@ALL_TERMS
def test_a_constant_teacher_and_labels_all_ignored_are_no_trouble(term: Term) -> None:
    for teacher in (torch.zeros(2, CLASSES, 4, 4), torch.full((2, CLASSES, 4, 4), 2.5)):
        student = _map(2, CLASSES, 4, 4).requires_grad_()
        value = _value(term, student, teacher, torch.full((2, 8, 8), IGNORE))
        value.backward()
        assert torch.isfinite(value) and student.grad is not None and bool(torch.isfinite(student.grad).all())


@ALL_TERMS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_float32(term: Term, dtype: torch.dtype) -> None:
    student, teacher = _map(2, CLASSES, 4, 4).to(dtype), _map(2, CLASSES, 4, 4, seed=1).to(dtype)
    labels = _labels(2, 8, 8)
    assert torch.equal(_value(term, student, teacher, labels), _value(term, student.float(), teacher.float(), labels))


@ALL_TERMS
def test_gradients_are_those_of_finite_differences(term: Term) -> None:
    student, teacher, labels = _map(2, CLASSES, 3, 3), _map(2, CLASSES, 3, 3, seed=1), _labels(2, 3, 3)
    direction, step = _map(2, CLASSES, 3, 3, seed=2), 1e-2
    leaf = student.clone().requires_grad_()
    _value(term, leaf, teacher, labels).backward()
    ahead, behind = (_value(term, student + way * step * direction, teacher, labels) for way in (1, -1))
    assert leaf.grad is not None
    slope = float((leaf.grad * direction).sum())
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-2, abs=1e-3)


@ALL_TERMS
def test_descent_brings_the_student_nearer(term: Term) -> None:
    teacher, student = 2 * _map(2, CLASSES, 4, 4), _map(2, CLASSES, 4, 4, seed=7).requires_grad_()
    optimiser = torch.optim.Adam([student], lr=0.05)
    values = []
    for _ in range(60):
        optimiser.zero_grad()
        value = _value(term, student, teacher, _labels(2, 4, 4))
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


# ---- gradients taken at once


def test_a_gradient_taken_at_once_is_autograds_own() -> None:
    first, second, fixed = _map(3, 4).requires_grad_(), _map(4, seed=1).requires_grad_(), _map(3, seed=2)

    def loss(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return ((a @ b - c) ** 2).sum()

    plain = torch.autograd.grad(3 * loss(first, second, fixed), (first, second))
    early = differentiated_at_once(loss, first, second, fixed)
    found = torch.autograd.grad(3 * early, (first, second))
    assert early.item() == pytest.approx(loss(first, second, fixed).item())
    assert all(torch.allclose(a, b) for a, b in zip(plain, found, strict=True))


def test_nothing_is_differentiated_where_nothing_is_wanted() -> None:
    value = _map(3).requires_grad_()
    with torch.no_grad():
        assert not differentiated_at_once(torch.sum, value).requires_grad
    assert not differentiated_at_once(torch.sum, value.detach()).requires_grad
    unused = _map(2).requires_grad_()
    differentiated_at_once(lambda a, b: a.sum(), value, unused).backward()
    assert unused.grad is not None and not unused.grad.any()
