"""What travels with every artefact: classes, preprocessing and the card, and that they come back unchanged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from edpct import __version__
from edpct.card import Card, DataSource
from edpct.errors import DataError, EngineError
from edpct.task import ClassInfo, Preprocessing, Task

SKY_AND_SEA = (ClassInfo(name="sky", colour=(1, 2, 3)), ClassInfo(name="sea", colour=(250, 0, 9)))


def _task() -> Task:
    pre = Preprocessing(height=96, width=160, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    return Task(classes=SKY_AND_SEA, ignore_index=200, preprocessing=pre)


def _card() -> Card:
    return Card(
        network="DP-CTNet tiny",
        precision="int8",
        task=_task(),
        parameters=12,
        macs=34,
        data=DataSource(directory="/data/Größe", layout="folder"),
    )


# ---- preprocessing


@pytest.mark.parametrize("pre", [Preprocessing(), _task().preprocessing])
def test_preprocessing_is_torchvisions_scaling_and_normalisation(pre: Preprocessing) -> None:
    torch = pytest.importorskip("torch")
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    reference = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(pre.mean, pre.std)])
    ours = pre.apply(image)
    assert ours.shape == (1, 3, 37, 53) and ours.dtype == np.float32 and ours.flags.c_contiguous
    np.testing.assert_allclose(ours[0], reference(image).numpy(), rtol=1e-5, atol=1e-5)


def test_a_batch_is_preprocessed_image_by_image() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    batch = Preprocessing().apply(images)
    assert batch.shape == (3, 3, 8, 9)
    for index in range(3):
        assert np.array_equal(batch[index], Preprocessing().apply(images[index])[0])


@pytest.mark.parametrize("wrong", [{"height": 100}, {"width": 0}, {"std": (1.0, 0.0, 1.0)}, {"size": 3}])
def test_preprocessing_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(wrong)


# ---- task


def test_at_size_changes_the_size_and_nothing_else() -> None:
    task = _task().at_size(64, 32)
    assert (task.preprocessing.height, task.preprocessing.width) == (64, 32)
    assert task.preprocessing.mean == (0.1, 0.2, 0.3) and task.preprocessing.std == (0.5, 0.25, 1.0)
    assert task.classes == SKY_AND_SEA and task.ignore_index == 200
    assert task.at_size(96, 160) == _task()


@pytest.mark.parametrize("size", [(100, 128), (128, 100), (0, 128), (-32, 128), (16, 16)])
def test_at_size_refuses_what_the_network_cannot_take(size: tuple[int, int]) -> None:
    with pytest.raises(DataError) as refusal:
        _task().at_size(*size)
    assert str(refusal.value) == (
        f"An input of {size[0]}x{size[1]} pixels does not fit the network. Use multiples of 32."
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": SKY_AND_SEA[:1]},
        {"classes": (SKY_AND_SEA[0], SKY_AND_SEA[0])},
        {"classes": SKY_AND_SEA, "ignore_index": 1},
        {"classes": SKY_AND_SEA, "ignore_index": 256},
    ],
)
def test_a_task_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Task.model_validate(wrong)


def test_the_palette_holds_the_class_colours_and_grey_for_the_rest() -> None:
    palette = _task().palette
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert palette[:2].tolist() == [[1, 2, 3], [250, 0, 9]]
    assert (palette[2:] == 0).all()


# ---- card


def test_a_card_comes_back_from_json_unchanged() -> None:
    card = Card.from_json(_card().model_dump_json(), "x.onnx")
    assert card == _card()
    assert card.edpct == __version__ and card.data == DataSource(directory="/data/Größe", layout="folder")
    assert card.task.preprocessing.std == (0.5, 0.25, 1.0)


@pytest.mark.parametrize("text", ["", "not JSON", "{}", "[]", "null"])
def test_what_is_no_card_is_refused_with_the_name_of_the_file(text: str) -> None:
    with pytest.raises(EngineError) as refusal:
        Card.from_json(text, "x.onnx")
    assert refusal.value.what == f"x.onnx carries a description that this edpct ({__version__}) cannot read."


@pytest.mark.parametrize("change", [{"precision": "fp8"}, {"parameters": -1}, {"colour": "red"}])
def test_a_card_of_another_format_is_refused(change: dict[str, object]) -> None:
    text = json.dumps({**_card().model_dump(mode="json"), **change})
    with pytest.raises(EngineError, match=r"^x\.onnx carries a description"):
        Card.from_json(text, "x.onnx")
