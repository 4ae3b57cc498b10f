"""Training: crops that are a function of (seed, index), the schedule, the losses, and a resume exact to the bit."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf
from trainings import IGNORE, SETTINGS, STEPS, Interrupting, fit, learner_of, same

from edpct.card import DataSource
from edpct.data.accuracy import ConfusionMatrix
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset, Sample, read_mask
from edpct.data.scenes import SCENE_TASK
from edpct.errors import DataError, RunError, TrainingError
from edpct.models.checkpoint import load_checkpoint
from edpct.models.dpctnet import PRESETS, dpctnet
from edpct.progress import Progress, Silent
from edpct.recipe import TeachSettings, TrainRecipe
from edpct.task import ClassInfo, Preprocessing, Task
from edpct.training.crops import CropDataset
from edpct.training.loop import use_bf16
from edpct.training.objective import SupervisedLearner, dice_loss, label_terms, tap_widths
from edpct.training.resume import RESUME_FILE, History, load_point, save_point
from edpct.training.schedule import rate_share
from edpct.training.teach import teach
from edpct.training.validation import validate


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return open_dataset(scenes)


# ---- crops


def _crops(dataset: Dataset, seed: int = 0, **settings: object) -> CropDataset:
    return CropDataset(dataset, Preprocessing(), SETTINGS.model_copy(update=settings), seed, Silent())


def test_an_item_is_a_function_of_seed_and_index_alone(dataset: Dataset) -> None:
    first, second = _crops(dataset), _crops(dataset)
    torch.manual_seed(1)
    np.random.seed(1)
    forward = [first[index] for index in range(6)]
    torch.manual_seed(2)
    np.random.seed(2)
    backward = [second[index] for index in reversed(range(6))][::-1]  # order does not matter either
    for (image, labels), (again, labels_again) in zip(forward, backward, strict=True):
        assert torch.equal(image, again) and torch.equal(labels, labels_again)
    others = [_crops(dataset, seed=1)[0], *forward[1:]]
    assert not any(torch.equal(forward[0][0], image) for image, _ in others)


def test_the_global_random_state_is_left_alone(dataset: Dataset) -> None:
    crops = _crops(dataset)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    crops[0]
    assert torch.equal(torch.rand(3), expected)


def test_items_do_not_depend_on_what_fits_in_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _crops(dataset)
    monkeypatch.setattr("edpct.training.crops.CACHE_BYTES", 0)
    nothing = _crops(dataset)
    assert len(whole.cache) == 3 and not nothing.cache
    for index in range(4):
        assert torch.equal(whole[index][0], nothing[index][0])


def test_items_have_the_crops_shape_and_number(dataset: Dataset) -> None:
    crops = _crops(dataset)
    assert len(crops) == STEPS * 2
    image, labels = crops[3]
    assert image.shape == (3, 64, 64) and image.dtype == torch.float32 and image.is_contiguous()
    assert labels.shape == (64, 64) and labels.dtype == torch.int64 and labels.is_contiguous()


def _colour_coded(tmp_path: Path, height: int, width: int) -> Dataset:
    """An image in blocks of 16 pixels, each of the colour of its label, and one block ignored."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (height // 16, width // 16)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
    labels[:16, :16] = IGNORE
    Image.fromarray(_code(labels)).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "mask.png")
    task = Task(classes=tuple(ClassInfo(name=str(i), colour=(i, 0, 0)) for i in range(6)))
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png")
    return Dataset(tmp_path, "folder", task, (sample,), (), lambda path: np.asarray(read_mask(path)))


def _code(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels * 30, 255 - labels * 30, (labels % 2) * 200], axis=-1).astype(np.uint8)


def _without_photometric(crops: CropDataset) -> CropDataset:
    crops.photometric = lambda pixels: pixels  # type: ignore[assignment]
    crops.preprocessing = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    return crops


@pytest.mark.parametrize("size", [(128, 128), (128, 192), (48, 160)])
def test_labels_go_where_their_pixels_go(tmp_path: Path, size: tuple[int, int]) -> None:
    """Through position, zoom, turns and flips; pixels near an edge between blocks blend and are left out."""
    crops = _without_photometric(_crops(_colour_coded(tmp_path, *size)))
    checked, seen = 0, set()
    for index in range(40):
        image, labels = crops[index]
        windows = F.pad(labels[None, None].float(), (2, 2, 2, 2), value=-1).unfold(2, 5, 1).unfold(3, 5, 1)[0, 0]
        inner = (windows.amax((2, 3)) == windows.amin((2, 3))) & (labels != IGNORE)
        pixels = (image.permute(1, 2, 0).numpy() * 255).round()
        assert np.abs(pixels - _code(labels.numpy()))[inner.numpy()].max(initial=0) <= 1
        checked, seen = checked + int(inner.sum()), seen | set(labels[inner].tolist())
    assert checked > 20_000 and seen == set(range(6))


def test_a_share_of_the_crops_shows_each_class_with_equal_chances(tmp_path: Path) -> None:
    """Class 1 lies in one corner only; where the crops lie anywhere, few see it."""
    dataset = _colour_coded(tmp_path, 32, 32)
    labels = np.zeros((512, 512), np.uint8)
    labels[:40, :40] = 1
    Image.fromarray(_code(labels)).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "mask.png")
    seen = {
        balance: sum(bool((crops[index][1] == 1).any()) for index in range(100)) / 100
        for balance in (0.0, 1.0)
        for crops in [_crops(dataset, balance=balance, steps=100)]
    }
    assert seen[0.0] < 0.2  # (40 + 64)^2 of 512^2 positions, at most
    assert 0.4 < seen[1.0] < 0.7  # half of the draws are of class 1


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.8), (0.5, 2 / 3), (0.0, 0.5)])
def test_images_are_drawn_by_their_area_to_a_power(tmp_path: Path, power: float, share: float) -> None:
    """Two images, one of four times the other's area; they are told apart by their only class."""
    dataset = _colour_coded(tmp_path, 32, 32)
    for name, label, side in (("small", 1, 128), ("large", 2, 256)):
        labels = np.full((side, side), label, np.uint8)
        Image.fromarray(_code(labels)).save(tmp_path / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / f"{name}-mask.png")
    samples = tuple(Sample(tmp_path / f"{name}.png", tmp_path / f"{name}-mask.png") for name in ("small", "large"))
    crops = _crops(replace(dataset, train=samples), area_power=power, steps=200)
    large = sum(int(crops[index][1][32, 32]) == 2 for index in range(400)) / 400
    assert abs(large - share) < 4 * math.sqrt(share * (1 - share) / 400)


def test_zoom_and_all_eight_symmetries_occur(tmp_path: Path) -> None:
    """A ramp shows which way is up, and how fast it rises shows the zoom."""
    rows, columns = np.mgrid[:128, :128]
    ramp = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    dataset = _colour_coded(tmp_path, 128, 128)
    Image.fromarray(ramp).save(tmp_path / "image.png")
    crops = _without_photometric(_crops(dataset, scale=(0.8, 1.25), steps=100))
    ways, zooms = set(), []
    for index in range(120):
        image = crops[index][0] * 255
        slopes = torch.stack([image[:2, 40, 32] - image[:2, 24, 32], image[:2, 32, 40] - image[:2, 32, 24]]) / 16
        ways.add(tuple(slopes.sign().int().flatten().tolist()))
        zooms.append(1 / slopes.abs().max().item())
    assert len(ways) == 8
    assert 0.75 < min(zooms) < 0.9 and 1.1 < max(zooms) < 1.35


def test_what_a_small_image_leaves_open_is_ignored(tmp_path: Path) -> None:
    crops = _without_photometric(_crops(_colour_coded(tmp_path, 32, 128), scale=(0.5, 0.5)))
    for index in range(4):
        image, labels = crops[index]
        padding = labels == IGNORE
        assert padding.float().mean() >= 0.7  # 128 x 32 at half size covers a quarter of 64 x 64
        assert (image[:, padding] == 0).float().mean() > 0.8


@pytest.mark.parametrize(("zoom", "height", "width"), [(0.5, 16, 24), (1.0, 32, 48), (1.25, 40, 60)])
def test_an_image_smaller_than_its_crop_is_seen_at_the_drawn_zoom(
    tmp_path: Path, zoom: float, height: int, width: int
) -> None:
    """Beside the image is padding, which is ignored; at zoom 1 every pixel of it is as it is in the file."""
    dataset = _colour_coded(tmp_path, 32, 48)
    truth = np.asarray(Image.open(tmp_path / "mask.png"))
    Image.fromarray(np.where(truth == IGNORE, 0, truth).astype(np.uint8)).save(tmp_path / "mask.png")
    whole = Image.open(tmp_path / "mask.png").resize((width, height), Image.Resampling.NEAREST)
    padded = np.full((64, 64), IGNORE)
    padded[:height, :width] = np.asarray(whole)
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:32, :48] = np.asarray(Image.open(tmp_path / "image.png"))
    crops = _without_photometric(_crops(dataset, scale=(zoom, zoom)))
    for index in range(6):
        image, labels = crops[index]
        turns = [k for k in range(8) if np.array_equal(_symmetry(padded, k), labels.numpy())]
        assert turns
        if zoom == 1.0:
            pixels = (image.permute(1, 2, 0).numpy() * 255).round()
            assert any(np.array_equal(_symmetry(colours, k), pixels) for k in turns)


def _symmetry(image: np.ndarray, which: int) -> np.ndarray:
    turned = np.rot90(image, which % 4)
    return turned[:, ::-1] if which >= 4 else turned


@pytest.mark.parametrize("size", [(128, 128), (160, 224), (48, 160)])
def test_a_square_that_fits_into_its_image_is_cut_out_and_brought_to_crop_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Draw by draw, in the order that benchmarks were trained with; here also where one side alone is too short."""
    dataset = _colour_coded(tmp_path, *size)
    image, labels = dataset.read(dataset.train[0])
    crops = _without_photometric(_crops(dataset, seed=5, scale=(0.5, 1.5)))
    for index in range(12):
        rng = np.random.default_rng((5, index))
        rng.random(), rng.choice(1, p=[1.0])
        side = round(64 / rng.uniform(0.5, 1.5))
        lengths = [min(side, length) for length in size]
        top, left = (int(rng.integers(0, whole - length + 1)) for whole, length in zip(size, lengths, strict=True))
        rng.integers(2**31)
        turns, flip = int(rng.integers(4)), int(rng.integers(2))
        area = np.s_[top : top + lengths[0], left : left + lengths[1]]
        resized = [round(64 * length / side) for length in lengths]
        pixels = tvf.resize(torch.from_numpy(image[area].copy()).permute(2, 0, 1), resized, antialias=True)
        pixels = F.pad(pixels, (0, 64 - resized[1], 0, 64 - resized[0])).permute(1, 2, 0).numpy()
        truth = F.interpolate(torch.from_numpy(labels[area].copy())[None, None], resized, mode="nearest")
        truth = F.pad(truth, (0, 64 - resized[1], 0, 64 - resized[0]), value=IGNORE)[0, 0].numpy()
        found, found_labels = crops[index]
        assert np.array_equal(_symmetry(pixels, turns + 4 * flip), (found.permute(1, 2, 0).numpy() * 255).round())
        assert np.array_equal(_symmetry(truth, turns + 4 * flip), found_labels.numpy())


def test_brightness_changes_and_labels_do_not(dataset: Dataset) -> None:
    with_light, without = _crops(dataset), _crops(dataset)
    without.photometric = lambda pixels: pixels  # type: ignore[assignment]
    pairs = [(with_light[index], without[index]) for index in range(4)]
    assert all(torch.equal(a[1], b[1]) for a, b in pairs)
    assert all((a[0] - b[0]).abs().max() > 0.05 for a, b in pairs)


def test_a_damaged_image_is_found_before_training_begins(tmp_path: Path) -> None:
    dataset = _colour_coded(tmp_path, 128, 128)
    (tmp_path / "image.png").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"image\.png cannot be read"):
        _crops(dataset)


# ---- schedule and precision


def test_the_schedule_rises_in_a_line_and_falls_as_a_cosine_or_as_a_power() -> None:
    settings = TeachSettings(steps=200, warmup=0.1)
    poly = TeachSettings(steps=200, warmup=0.1, schedule="poly")
    for step in range(20):
        assert rate_share(step, settings) == rate_share(step, poly) == pytest.approx((step + 1) / 20)
    for step in range(20, 201):
        gone = (step - 20) / 180
        assert rate_share(step, settings) == pytest.approx(math.cos(math.pi / 2 * gone) ** 2)
        assert rate_share(step, poly) == pytest.approx((1 - gone) ** 0.9)
    assert rate_share(110, settings) == pytest.approx(0.5)
    assert rate_share(200, settings) == rate_share(500, settings) == rate_share(500, poly) == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.5), (2, 0.99), (7, 0.0)])
def test_the_schedule_of_short_trainings_starts_above_zero(steps: int, warmup: float, schedule: str) -> None:
    settings = TeachSettings(steps=steps, warmup=warmup, schedule=schedule)  # type: ignore[arg-type]
    shares = [rate_share(step, settings) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares) and max(shares) == 1.0


@pytest.mark.parametrize(
    ("precision", "cuda", "native", "expected"),
    [
        ("fp32", True, True, False),
        ("bf16", False, False, True),
        ("auto", True, True, True),
        ("auto", True, False, False),
        ("auto", False, True, True),
        ("auto", False, False, False),
    ],
)
def test_auto_takes_bf16_only_where_the_device_computes_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, cuda: bool, native: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native and not cuda})
    assert use_bf16(precision) is expected


# ---- losses


def test_dice_is_its_closed_form() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (2, 4, 5), generator=torch.Generator().manual_seed(1))  # class 2 is absent
    labels[0, 0] = IGNORE
    share, counted = logits.softmax(1).double().numpy(), (labels != IGNORE).numpy()
    losses = []
    for label in (0, 1):
        p, t = share[:, label][counted], (labels.numpy() == label)[counted]
        losses.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    assert dice_loss(logits, labels, IGNORE).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_dice_is_nearly_zero_for_a_right_answer_and_nearly_one_for_a_wrong_one() -> None:
    labels = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(1))
    sure = 50 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert dice_loss(sure, labels, IGNORE).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(sure.roll(1, dims=1), labels, IGNORE).item() > 0.99


def test_label_terms_are_torchs_cross_entropy_and_weighted_dice() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = IGNORE
    terms = label_terms(logits, labels, IGNORE, 0.25)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, labels, ignore_index=IGNORE))
    torch.testing.assert_close(terms["dice"], 0.25 * dice_loss(logits, labels, IGNORE))
    assert set(label_terms(logits, labels, IGNORE, 0.0)) == {"ce"}


def test_labels_that_are_all_ignored_give_zero_and_a_finite_gradient() -> None:
    logits = torch.randn(2, 3, 4, 5).requires_grad_()
    terms = label_terms(logits, torch.full((2, 4, 5), IGNORE), IGNORE, 0.5)
    assert terms["ce"].item() == terms["dice"].item() == 0.0
    (terms["ce"] + terms["dice"]).backward()
    assert not logits.grad.any()


def test_auxiliary_heads_are_weighted_and_no_part_of_the_network() -> None:
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 7, (2, 64, 64))
    found = []
    for auxiliary in (0.4, 0.8):
        torch.manual_seed(0)
        model = dpctnet("tiny", 7)
        learner = SupervisedLearner(model, IGNORE, 7, 0.5, auxiliary, tap_widths(model, ("cnn", "transformer")))
        found.append(learner(images, labels))
        assert not any("head" in name for name in model.state_dict())
    assert set(found[0]) == {"ce", "dice", "aux cnn", "aux transformer"}
    assert found[1]["aux cnn"].item() == pytest.approx(2 * found[0]["aux cnn"].item(), rel=1e-4)


# ---- the loop


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[SupervisedLearner, History]:
    """Six steps without a break."""
    learner = learner_of()
    return learner, fit(learner, dataset, tmp_path_factory.mktemp("straight"))


def test_training_changes_the_weights_and_measures_at_the_end(
    straight: tuple[SupervisedLearner, History], dataset: Dataset
) -> None:
    learner, history = straight
    assert not same(learner, learner_of())
    assert [m.step for m in history.measures] == [STEPS] and history.seconds > 0
    assert not learner.training
    score = validate(learner.model, dataset, SCENE_TASK.at_size(128, 128))
    assert history.measures[-1].miou == pytest.approx(score.miou) and history.measures[-1].iou == score.iou


@pytest.mark.parametrize("save_every", [1, 2, 50])
def test_an_interrupted_training_that_goes_on_ends_at_the_same_bits(
    straight: tuple[SupervisedLearner, History], dataset: Dataset, tmp_path: Path, save_every: int
) -> None:
    settings = SETTINGS.model_copy(update={"save_every": save_every})
    with pytest.raises(KeyboardInterrupt):
        fit(learner_of(), dataset, tmp_path, Interrupting(3), settings)
    resumed, again = learner_of(seed=8), Interrupting(-1)  # other weights at first: all must come from the file
    history = fit(resumed, dataset, tmp_path, again, settings)
    assert again.said == ["Training: going on after step 3 of 6."]
    assert again.start == 3 and again.seen == [4, 5, 6]
    assert same(resumed, straight[0])
    assert history.measures[-1].miou == straight[1].measures[-1].miou


class _StopsInside(SupervisedLearner):
    """Somebody presses Ctrl-C while step ``at`` is computed, after its forward pass."""

    at = 4
    calls = 0

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = super().forward(images, labels)
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return terms


def test_a_training_interrupted_inside_a_step_ends_at_the_same_bits(
    straight: tuple[SupervisedLearner, History], dataset: Dataset, tmp_path: Path
) -> None:
    """The half-done step has moved the running statistics already; they must not reach the resume point."""
    stopped = learner_of()
    stopped.__class__ = _StopsInside
    settings = SETTINGS.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, dataset, tmp_path, None, settings)
    resumed = learner_of(seed=8)
    fit(resumed, dataset, tmp_path, None, settings)
    assert same(resumed, straight[0])


def test_a_training_interrupted_in_its_last_validation_still_measures(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edpct.training.loop.validate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(learner_of(), dataset, tmp_path)
    history = fit(learner_of(), dataset, tmp_path)
    assert [m.step for m in history.measures] == [STEPS]


def test_validation_does_not_change_what_is_learnt(
    straight: tuple[SupervisedLearner, History], dataset: Dataset, tmp_path: Path
) -> None:
    learner = learner_of()
    history = fit(learner, dataset, tmp_path, None, SETTINGS.model_copy(update={"validate_every": 2}))
    assert [m.step for m in history.measures] == [2, 4, 6] and same(learner, straight[0])


def test_a_resume_point_of_other_settings_is_refused_and_left(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(learner_of(), dataset, tmp_path, Interrupting(1))
    before = (tmp_path / RESUME_FILE).read_bytes()
    with pytest.raises(TrainingError) as caught:
        fit(learner_of(), dataset, tmp_path, fingerprint="b")
    assert caught.value.what == f"{tmp_path / RESUME_FILE} was written with other settings or other data."
    assert (tmp_path / RESUME_FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no torch file", b"PK\x03\x04"])
def test_a_damaged_resume_point_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESUME_FILE).write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        load_point(tmp_path, "a")
    assert str(caught.value) == f"{tmp_path / RESUME_FILE} is damaged. Delete it to start again."


def test_a_full_disk_leaves_the_former_resume_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_point(tmp_path, "a", 1, {}, History())

    def full(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match="cannot be written; the one before it is kept"):
        save_point(tmp_path, "a", 2, {}, History())
    point = load_point(tmp_path, "a")
    assert point is not None and point["step"] == 1 and [p.name for p in tmp_path.iterdir()] == [RESUME_FILE]


def test_without_a_resume_point_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert load_point(tmp_path, "a") is None


class _Broken(SupervisedLearner):
    """Its loss is what ``value`` says from the third step on."""

    value = float("nan")
    calls = 0

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        terms = super().forward(images, labels)
        return terms if self.calls < 3 else terms | {"ce": terms["ce"] * self.value}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training_before_the_weights_are_touched(
    dataset: Dataset, tmp_path: Path, value: float
) -> None:
    learner = learner_of()
    learner.__class__, learner.value = _Broken, value
    with pytest.raises(TrainingError) as caught:
        fit(learner, dataset, tmp_path)
    assert str(caught.value) == (
        f"The loss became {value} at step 3. Lower the learning rate (lr) or use precision fp32."
    )
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_that_was_asked_for_is_computed_in(
    dataset: Dataset, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    """One after the other in one process, as a caller from Python may ask."""
    learner, seen = learner_of(), []
    learner.model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    settings = SETTINGS.model_copy(update={"precision": precision, "steps": 1})
    fit(learner, dataset, tmp_path, None, settings)
    assert seen[0] == dtype
    assert all(parameter.dtype == torch.float32 for parameter in learner.parameters())


def test_no_weight_decay_on_norms_and_biases(dataset: Dataset, tmp_path: Path) -> None:
    """With a gradient of zero AdamW moves only what decays: by (1 - lr * decay)."""

    class Idle(SupervisedLearner):
        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"none": sum(p.sum() for p in self.parameters()) * 0.0}

    learner = learner_of()
    learner.__class__ = Idle
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.fill_(2.0)
    fit(learner, dataset, tmp_path, None, SETTINGS.model_copy(update={"steps": 1, "lr": 0.5, "weight_decay": 0.1}))
    for name, parameter in learner.named_parameters():
        expected = 2.0 * (1 - 0.5 * 0.1) if parameter.dim() > 1 else 2.0
        assert parameter.detach().unique().tolist() == pytest.approx([expected]), name


def test_the_loss_falls_on_scenes_that_it_sees_again(dataset: Dataset, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 40, "validate_every": 10, "lr": 3e-3})
    history = fit(learner_of(), dataset, tmp_path, None, settings)
    losses = [measure.loss for measure in history.measures]
    assert len(losses) == 4 and losses[-1] < 0.8 * losses[0]


def test_validation_is_the_confusion_matrix_of_the_networks_labels(dataset: Dataset) -> None:
    model = learner_of().model.train()
    task = SCENE_TASK.at_size(128, 128)
    matrix = ConfusionMatrix(7, IGNORE)
    score = validate(model, dataset, task)
    assert model.training  # put back as it was
    model.eval()
    for sample in dataset.val:
        image, labels = dataset.read(sample)
        with torch.no_grad():
            logits = model(torch.from_numpy(task.preprocessing.apply(image)))
        matrix.add(labels, logits[0].argmax(0).numpy())
    assert score == matrix.score()


# ---- the teacher


def _teach(dataset: Dataset, out: Path, progress: Progress | None = None, seed: int = 0):  # type: ignore[no-untyped-def]
    recipe = TrainRecipe(seed=seed, preset="tiny", train=SETTINGS.model_copy(update={"steps": 2}))
    return teach(recipe, dataset, out, (128, 128), progress or Silent())


@pytest.fixture(scope="module")
def taught(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    _teach(dataset, out)
    return out


def test_a_taught_teacher_is_a_checkpoint_that_says_what_it_is(taught: Path, dataset: Dataset) -> None:
    assert sorted(p.name for p in taught.iterdir()) == ["log.csv", "teacher.pt", "training.json"]
    card = load_checkpoint(taught / "teacher.pt").card
    assert (card.network, card.precision, card.task) == ("DP-CTNet tiny", "fp32", SCENE_TASK.at_size(128, 128))
    assert card.data == DataSource(directory=str(dataset.root.resolve()), layout="folder")


def test_a_teacher_starts_from_the_weights_of_its_backbone_and_sees_what_they_saw(
    dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    recipe = TrainRecipe(
        preset="tiny", backbone="tf_efficientnet_lite0", backbone_weights=str(tmp_path / "weights.pth"),
        train=SETTINGS.model_copy(update={"steps": 1, "lr": 1e-12, "hold_statistics": 1.0}),
    )  # fmt: skip
    found = load_checkpoint(teach(recipe, dataset, tmp_path / "out", (64, 64), Silent()).checkpoint)
    assert found.card.network == "DP-CTNet tiny on tf_efficientnet_lite0"
    assert found.card.task.preprocessing.mean == found.card.task.preprocessing.std == (0.5, 0.5, 0.5)
    ours, theirs = found.model.backbone.timm.state_dict(), whole.state_dict()
    assert all(torch.allclose(value, theirs[name], atol=1e-6) for name, value in ours.items())


def test_a_finished_teacher_is_not_taught_again(taught: Path, dataset: Dataset) -> None:
    stamp, screen = (taught / "teacher.pt").stat().st_mtime_ns, Interrupting(-1)
    again = _teach(dataset, taught, screen)
    assert (taught / "teacher.pt").stat().st_mtime_ns == stamp and screen.seen == []
    assert screen.said == [f"{taught / 'teacher.pt'} is finished with these settings; nothing to do."]
    assert [m.step for m in again.history.measures] == [2]


@pytest.mark.parametrize("spoil", [lambda out: None, lambda out: (out / "training.json").unlink()])
def test_a_teacher_of_other_settings_is_not_overwritten(
    taught: Path, dataset: Dataset, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    for name in ("teacher.pt", "training.json"):
        (tmp_path / name).write_bytes((taught / name).read_bytes())
    spoil(tmp_path)
    with pytest.raises(RunError, match=r"teacher\.pt is a teacher of other settings\. Choose another --out\."):
        _teach(dataset, tmp_path, seed=1)
    assert (tmp_path / "teacher.pt").read_bytes() == (taught / "teacher.pt").read_bytes()


def test_a_teacher_of_the_same_preset_in_another_version_is_not_taken_for_this_one(
    taught: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("teacher.pt", "training.json"):
        (tmp_path / name).write_bytes((taught / name).read_bytes())
    monkeypatch.setitem(PRESETS, "tiny", {**PRESETS["tiny"], "cnn_depths": (1, 2), "branch": "stem"})
    with pytest.raises(RunError, match=r"teacher\.pt is a teacher of other settings\."):
        _teach(dataset, tmp_path)


def _corrected(dataset: Dataset, root: Path, split: str) -> Dataset:
    """A copy of the data in which one mask of a split is all of its first pixel's class."""
    copied = Path(shutil.copytree(dataset.root, root))
    mask = min((copied / split / "masks").iterdir())
    labels = np.asarray(Image.open(mask))
    Image.fromarray(np.broadcast_to(labels[:1, :1], labels.shape).copy()).save(mask)
    return open_dataset(copied)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_teacher_of_corrected_labels_is_not_taken_for_finished(
    taught: Path, dataset: Dataset, tmp_path: Path, split: str
) -> None:
    out = Path(shutil.copytree(taught, tmp_path / "out"))
    with pytest.raises(RunError) as caught:
        _teach(_corrected(dataset, tmp_path / "data", split), out)
    assert str(caught.value) == (
        f"{out / 'teacher.pt'} is a teacher of other data: images, masks or the backbone's weights have changed since. "
        "Choose another --out."
    )


def test_a_teacher_of_a_copy_of_its_data_is_finished(taught: Path, dataset: Dataset, tmp_path: Path) -> None:
    screen = Interrupting(-1)
    _teach(open_dataset(Path(shutil.copytree(dataset.root, tmp_path / "data"))), taught, screen)
    assert screen.said == [f"{taught / 'teacher.pt'} is finished with these settings; nothing to do."]


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_interrupted_training_does_not_go_on_with_corrected_labels(
    dataset: Dataset, tmp_path: Path, split: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _teach(dataset, tmp_path / "out", Interrupting(1, "Training tiny"))
    with pytest.raises(TrainingError, match="was written with other settings or other data"):
        _teach(_corrected(dataset, tmp_path / "data", split), tmp_path / "out")


def test_other_weights_in_the_backbones_file_make_another_teacher(dataset: Dataset, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    recipe = TrainRecipe(
        preset="tiny", backbone="tf_efficientnet_lite0", backbone_weights=str(weights),
        train=SETTINGS.model_copy(update={"steps": 1}),
    )  # fmt: skip

    def run() -> None:
        teach(recipe, dataset, tmp_path / "out", (64, 64), Silent())

    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    torch.save(state, weights)
    run()
    run()
    torch.save({name: value + 1 for name, value in state.items()}, weights)
    with pytest.raises(RunError, match="is a teacher of other data"):
        run()
