"""What a recipe may ask of the training loop beyond its defaults, each against an independent reference."""

from __future__ import annotations

import copy
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from trainings import IGNORE, SETTINGS, STEPS, Interrupting, Plain, fit, learner_of, same

from edpct.data.accuracy import Accuracy
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.scenes import SCENE_TASK
from edpct.data.tiling import cover, starts
from edpct.errors import MissingPackageError, TrainingError
from edpct.recipe import TeachSettings
from edpct.training.averaging import moving_average
from edpct.training.log import read_log
from edpct.training.objective import SupervisedLearner, boundary_loss, label_terms
from edpct.training.validation import validate


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return open_dataset(scenes)


def asked(**settings: object) -> TeachSettings:
    return SETTINGS.model_copy(update=settings)


# ---- moving average


def test_the_average_of_the_weights_is_its_recurrence_and_copies_what_is_counted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average, expected = moving_average(model, 0.3), None
    for step in range(6):
        with torch.no_grad():
            model[0].weight.fill_(float(step**2))
            model[1].running_mean.fill_(float(step))
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
        now = np.array([step**2, step], float)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = now if expected is None else decay * expected + (1 - decay) * now
        weight, mean = average.module[0].weight.unique().item(), average.module[1].running_mean.unique().item()
        assert [weight, mean] == pytest.approx(expected.tolist(), rel=1e-5)
        assert average.module[1].num_batches_tracked.item() == step
        assert not average.module[0].weight.requires_grad


def test_the_average_is_validated_and_delivered_and_leaves_the_training_alone(dataset: Dataset, tmp_path: Path) -> None:
    """Its history of weights, which a forward hook takes down, gives the same average."""
    plain, averaged = learner_of(), learner_of()
    seen: list[dict[str, Tensor]] = []

    class Watching(SupervisedLearner):
        def regularise(self) -> None:
            seen.append(copy.deepcopy(self.model.state_dict()))

    averaged.__class__ = Watching
    fit(plain, dataset, tmp_path / "a", None, asked(steps=3))
    history = fit(averaged, dataset, tmp_path / "b", None, asked(steps=3, ema=0.9))
    states = [*seen[1:], plain.model.state_dict()]  # regularise() sees the weights before its step
    name = "classifier.weight" if "classifier.weight" in states[0] else next(iter(states[0]))
    expected = states[0][name].double()
    for step, state in enumerate(states[1:], 1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * state[name].double()
    torch.testing.assert_close(averaged.model.state_dict()[name].double(), expected, rtol=1e-5, atol=1e-7)
    assert not same(plain.model, averaged.model)
    score = validate(averaged.model, dataset, SCENE_TASK.at_size(128, 128))
    assert history.measures[-1].iou == score.iou


# ---- exact resume of everything at once


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9, "schedule": "poly"},
        {"accumulate": 2, "validate_every": 2, "log_every": 2},
        {"patience": 1, "validate_every": 1, "boundary": 0.5},
    ],
    ids=["ema", "accumulate", "patience"],
)
def test_with_any_option_a_resumed_training_ends_at_the_same_bits(
    dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    straight, resumed = learner_of(), learner_of(seed=8)
    settings["save_every"] = 1
    history = fit(straight, dataset, tmp_path / "a", None, asked(**settings))
    stops = range(1, history.measures[-1].step, 2)
    for at in stops:
        with pytest.raises(KeyboardInterrupt):  # later attempts begin with other weights: all must come from the file
            fit(learner_of(seed=at - 1), dataset, tmp_path / "b", Interrupting(at), asked(**settings))
    again = fit(resumed, dataset, tmp_path / "b", None, asked(**settings))
    assert same(straight.model, resumed.model)
    assert again.measures == history.measures and again.delivered == history.delivered
    steps = [row["step"] for row in read_log(tmp_path / "a" / "log.csv")]
    assert [row["step"] for row in read_log(tmp_path / "b" / "log.csv")] == steps
    assert len(set(steps)) == len(steps)


def test_dropout_draws_the_same_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    straight, resumed, without = Plain(0.5), Plain(0.5), Plain()
    fit(straight, dataset, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fit(Plain(0.5), dataset, tmp_path / "b", Interrupting(3))
    torch.manual_seed(77)
    fit(resumed, dataset, tmp_path / "b")
    fit(without, dataset, tmp_path / "c")
    assert same(straight, resumed) and not same(straight, without)


# ---- gradient accumulation


def test_micro_batches_give_the_gradient_of_the_whole_batch(dataset: Dataset, tmp_path: Path) -> None:
    """Without batch normalisation, and with crops of which some are padded: pixels weigh alike, not crops."""
    learners = {cuts: Plain() for cuts in (1, 2, 3)}
    losses = {}
    for cuts, learner in learners.items():
        settings = asked(batch=4, accumulate=cuts, steps=4, scale=(0.2, 1.0))
        losses[cuts] = fit(learner, dataset, tmp_path / str(cuts), None, settings).measures[-1].loss
    for cuts in (2, 3):
        assert losses[cuts] == pytest.approx(losses[1], rel=1e-5)
        for ours, theirs in zip(learners[cuts].parameters(), learners[1].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)


def test_more_parts_than_crops_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"A batch of 2 crops cannot be cut into 3 parts \(1 processes, acc"):
        fit(Plain(), dataset, tmp_path, None, asked(accumulate=3))


class _Pooled(Plain):
    """Adds what batch normalisation makes of the mean over a crop, as the image pooling of DeepLabV3 does."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7))

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return label_terms(self.model(images) + self.pool(images), labels, IGNORE, 0.0)


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (2, 2), (3, 2)])
def test_a_network_that_needs_two_crops_at_a_time_says_so(
    dataset: Dataset, tmp_path: Path, batch: int, accumulate: int
) -> None:
    with pytest.raises(TrainingError) as refusal:
        fit(_Pooled(), dataset, tmp_path, None, asked(batch=batch, accumulate=accumulate))
    assert str(refusal.value) == (
        "This network cannot learn from one crop at a time: it has batch normalisation behind a global pooling. "
        "Raise batch, lower accumulate or take fewer processes, so that every part of a batch has two crops."
    )


def test_two_crops_at_a_time_are_enough(dataset: Dataset, tmp_path: Path) -> None:
    assert fit(_Pooled(), dataset, tmp_path, None, asked(batch=4, accumulate=2, steps=1)).measures


def test_another_error_of_a_network_stays_what_it_is(dataset: Dataset, tmp_path: Path) -> None:
    class Failing(Plain):
        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            raise ValueError("something else")

    with pytest.raises(ValueError, match=r"^something else$"):
        fit(Failing(), dataset, tmp_path)


# ---- boundary loss


def _boundary_by_hand(share: np.ndarray, labels: np.ndarray) -> float:
    """Equations 2 to 6 of arXiv 1905.07852 for one image, by SciPy's maximum filter: share (C, H, W)."""
    scores = []
    counted = labels != IGNORE
    for label, predicted in enumerate(share):
        true = (labels == label).astype(float)

        def contour(values: np.ndarray) -> np.ndarray:
            other = np.where(counted, 1 - values, 0.0)
            return np.where(counted, ndimage.maximum_filter(other, 3, mode="nearest") - other, 0.0)

        if not contour(true).any():
            continue
        near_true, near_said = (ndimage.maximum_filter(contour(v), 5, mode="constant") for v in (true, predicted))
        precision = (contour(predicted) * near_true).sum() / max(contour(predicted).sum(), 1)
        recall = (contour(true) * near_said).sum() / contour(true).sum()
        scores.append(2 * precision * recall / (precision + recall))
    return 1 - float(np.mean(scores))


@pytest.mark.parametrize("seed", range(3))
def test_the_boundary_loss_is_its_equations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (3, 4)).repeat(6, 0).repeat(6, 1)
    labels[5:9, 3:14] = IGNORE
    logits = torch.from_numpy(rng.normal(size=(1, 4, 18, 24))).float()  # class 3 is absent
    found = boundary_loss(logits, torch.from_numpy(labels)[None], IGNORE)
    assert found.item() == pytest.approx(_boundary_by_hand(logits[0].softmax(0).double().numpy(), labels), rel=1e-4)


def test_the_boundary_loss_rises_with_the_distance_of_a_contour_and_is_zero_on_it() -> None:
    """A square moved by some pixels: within the tolerance it costs nothing."""
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 10:20, 10:20] = 1
    losses = []
    for shift in (0, 1, 3, 6):
        sure = 50 * F.one_hot(labels.roll(shift, dims=2), 2).permute(0, 3, 1, 2).float()
        losses.append(boundary_loss(sure, labels, IGNORE).item())
    assert losses[0] == pytest.approx(0.0, abs=1e-6) and losses[1] == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < losses[2] < losses[3] < 1.0


@pytest.mark.parametrize("labels", [torch.full((2, 8, 8), IGNORE), torch.zeros(2, 8, 8, dtype=torch.int64)])
def test_without_a_contour_the_boundary_loss_is_zero_with_a_finite_gradient(labels: Tensor) -> None:
    logits = torch.randn(2, 3, 8, 8).requires_grad_()
    loss = boundary_loss(logits, labels, IGNORE)
    loss.backward()
    assert loss.item() == 0.0 and torch.isfinite(logits.grad).all()


def test_the_boundary_loss_pulls_a_contour_into_its_place() -> None:
    labels = torch.zeros(1, 24, 24, dtype=torch.int64)
    labels[:, :, 12:] = 1
    logits = torch.zeros(1, 2, 24, 24).requires_grad_()
    with torch.no_grad():
        logits[:, 1, :, 8:] = 1.0  # four pixels too far to the left
    optimiser = torch.optim.Adam([logits], lr=0.1)
    before = boundary_loss(logits, labels, IGNORE).item()
    for _ in range(60):
        optimiser.zero_grad()
        sum(label_terms(logits, labels, IGNORE, 0.0, 1.0).values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    assert boundary_loss(logits, labels, IGNORE).item() < 0.5 * before


# ---- sliding windows


def _reference(model: nn.Module, dataset: Dataset, side: int, overlap: float) -> np.ndarray:
    """Confusion matrix of the mean softmax of all windows at a pixel."""
    task = SCENE_TASK.at_size(side, side)
    counts = np.zeros((7, 7), np.int64)
    for sample in dataset.val:
        image, labels = dataset.read(sample)
        total, seen = np.zeros((7, *labels.shape)), np.zeros(labels.shape)
        for top in starts(labels.shape[0], side, overlap):
            for left in starts(labels.shape[1], side, overlap):
                area = np.s_[top : top + side, left : left + side]
                with torch.no_grad():
                    logits = model(torch.from_numpy(task.preprocessing.apply(image[area])))
                total[:, area[0], area[1]] += logits[0].softmax(0).numpy()
                seen[area] += 1
        np.add.at(counts, (labels.ravel(), (total / seen).argmax(0).ravel()), 1)
    return counts


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.9])
def test_overlapping_windows_decide_by_their_mean_and_count_each_pixel_once(dataset: Dataset, overlap: float) -> None:
    model = learner_of().model.eval()
    side = 96
    found = validate(model, dataset, SCENE_TASK.at_size(side, side), overlap=overlap)
    counts = _reference(model, dataset, side, overlap)
    hit = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hit
    assert found.pixels == counts.sum() == 2 * 128 * 128
    iou = [None if not u else h / u for h, u in zip(hit, union, strict=True)]
    assert found.iou == pytest.approx(iou, abs=2e-4)


def test_windows_as_large_as_the_image_leave_nothing_to_overlap(dataset: Dataset) -> None:
    model, task = learner_of().model.eval(), SCENE_TASK.at_size(128, 128)
    assert validate(model, dataset, task, overlap=0.5) == validate(model, dataset, task)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 33])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.99])
def test_overlapping_windows_start_inside_and_leave_no_gap(length: int, overlap: float) -> None:
    begin = starts(length, 8, overlap)
    assert begin[0] == 0 and begin == sorted(set(begin)) and begin[-1] == max(0, length - 8)
    steps = np.diff(begin)
    assert (steps <= max(1, round(8 * (1 - overlap)))).all() and (steps >= 1).all()
    image = np.arange(length * 8 * 3, dtype=np.uint8).reshape(length, 8, 3)
    for window, (rows, columns) in cover(image, 8, 8, overlap):
        inner = image[rows, columns]
        assert window.shape == (8, 8, 3) and np.array_equal(window[: inner.shape[0], : inner.shape[1]], inner)


# ---- early stop


def _scripted(monkeypatch: pytest.MonkeyPatch, mious: list[float]) -> None:
    """Validations that find these mIoUs, one after the other."""
    left = iter(mious)

    def scripted(*_: object) -> Accuracy:
        miou = next(left)
        return Accuracy(miou=miou, iou=(miou,) * 7, f1=(miou,) * 7, overall=miou, pixels=1)

    monkeypatch.setattr("edpct.training.loop.validate", scripted)


@pytest.mark.parametrize(
    ("patience", "mious", "steps", "delivered"),
    [
        (2, [0.1, 0.3, 0.2, 0.3, 0.9, 0.9], 4, 2),
        (1, [0.5, 0.5, 0.9, 0.9, 0.9, 0.9], 2, 1),
        (3, [0.1, 0.2, 0.3, 0.4, 0.5, 0.4], 6, 5),
        (0, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 6, 6),
    ],
)
def test_training_stops_when_it_gets_no_better_and_delivers_the_best(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, mious: list[float], steps: int,
    delivered: int,
) -> None:  # fmt: skip
    _scripted(monkeypatch, mious)
    learner, seen = Plain(), {}

    class Watching(Plain):
        def regularise(self) -> None:
            seen[len(seen)] = copy.deepcopy(self.state_dict())

    learner.__class__ = Watching
    history = fit(learner, dataset, tmp_path, None, asked(patience=patience, validate_every=1))
    assert [m.step for m in history.measures] == list(range(1, steps + 1))
    assert history.delivered == delivered and history.result.miou == mious[delivered - 1]
    if delivered in seen:  # the weights before the step after
        assert all(torch.equal(value, seen[delivered][name]) for name, value in learner.state_dict().items())


# ---- the log


def test_the_log_has_the_means_of_the_loss_and_what_validation_showed(dataset: Dataset, tmp_path: Path) -> None:
    history = fit(learner_of(), dataset, tmp_path, None, asked(validate_every=3, log_every=2, ema=0.5))
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6]
    assert [row["mIoU"] != "" for row in rows] == [False, True, False, True]
    assert float(rows[1]["mIoU"]) == history.measures[0].miou
    for name, value in zip(SCENE_TASK.names, history.measures[1].iou, strict=True):
        assert rows[3][f"IoU {name}"] == ("" if value is None else str(value))
    for row in rows:
        terms = [float(row[name]) for name in ("ce", "dice", "aux cnn", "aux transformer")]
        assert float(row["loss"]) == pytest.approx(sum(terms), rel=1e-5)
        assert float(row["images/s"]) > 0
    assert (2 * float(rows[0]["loss"]) + float(rows[1]["loss"])) / 3 == pytest.approx(history.measures[0].loss)
    last = SETTINGS.lr * 0.5 * (1 + math.cos(math.pi * (STEPS - 2) / (STEPS - 1)))
    assert float(rows[-1]["lr"]) == pytest.approx(last)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_rows_beyond_the_resume_point_are_dropped_and_a_torn_one_too(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(learner_of(), dataset, tmp_path, Interrupting(3), asked(log_every=1))
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,9.0,1,1,,,,,,,,,1,1,1,1,1\n5,9.")  # a kill after step 3's resume point
    fit(learner_of(), dataset, tmp_path, None, asked(log_every=1))
    assert [int(row["step"]) for row in read_log(tmp_path / "log.csv")] == [1, 2, 3, 4, 5, 6]
    assert "9.0" not in [row["seconds"] for row in read_log(tmp_path / "log.csv")]


def test_a_new_training_begins_a_new_log(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,1\n900,1\n")
    fit(Plain(), dataset, tmp_path, None, asked(log_every=2))
    assert [int(row["step"]) for row in read_log(tmp_path / "log.csv")] == [2, 4, 6]


def test_a_term_that_comes_later_gets_a_column(dataset: Dataset, tmp_path: Path) -> None:
    class Later(Plain):
        calls = 0

        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            terms = super().forward(images, labels)
            self.calls += 1
            return terms if self.calls < 4 else {**terms, "late": terms["ce"] * 0.5}

    fit(Later(), dataset, tmp_path, None, asked(log_every=1))
    assert [row["late"] != "" for row in read_log(tmp_path / "log.csv")] == [False] * 3 + [True] * 3


def test_tensorboard_is_refused_where_it_is_not_installed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError) as refusal:
        fit(Plain(), dataset, tmp_path, None, asked(tensorboard=True))
    assert str(refusal.value) == (
        "A log for TensorBoard needs the package tensorboard, which is not installed. "
        "Install it with: pip install 'edpct[tensorboard]'"
    )


def test_tensorboard_has_each_step_once_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = asked(tensorboard=True, log_every=1, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        fit(learner_of(), dataset, tmp_path, Interrupting(3), settings)
    fit(learner_of(), dataset, tmp_path, None, settings)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("ce")] == [1, 2, 3, 4, 5, 6]
    assert f"IoU/{SCENE_TASK.names[0]}" in events.Tags()["scalars"] or "mIoU" in events.Tags()["scalars"]


# ---- statistics held


@pytest.mark.parametrize(("share", "moved"), [(1.0, 0), (0.5, STEPS // 2), (0.0, STEPS)])
def test_batch_statistics_are_held_for_the_last_share_of_the_steps(
    dataset: Dataset, tmp_path: Path, share: float, moved: int
) -> None:
    trained = learner_of()
    fit(trained, dataset, tmp_path, None, SETTINGS.model_copy(update={"hold_statistics": share}))
    norms = [module for module in trained.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {int(norm.num_batches_tracked) for norm in norms} == {moved}
    assert all(bool(norm.running_mean.any()) == (moved > 0) for norm in norms)
