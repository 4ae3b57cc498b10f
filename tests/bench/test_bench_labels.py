"""From logits to classes, and engines whose card and graph contradict each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edpct.card import CARD_KEY, Card
from edpct.errors import EngineError
from edpct.runtimes.artefact import card_of
from edpct.runtimes.labels import labels_of
from edpct.runtimes.ports import ports_of, predictor
from edpct.runtimes.session import Arrays, Session, TensorSpec
from edpct.runtimes.table import open_session
from edpct.task import ClassInfo, Preprocessing, Task

FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize("shape", [(1, 2, 5, 7), (3, 7, 16, 9), (2, 255, 3, 3), (1, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_labels_are_numpys_argmax(shape: tuple[int, ...], dtype: type) -> None:
    logits = np.random.default_rng(sum(shape)).normal(0, 3, shape).astype(dtype)
    before = logits.copy()
    labels = labels_of(logits)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, logits.argmax(1))
    np.testing.assert_array_equal(logits, before)  # the caller's to keep


def test_of_equal_logits_the_lower_class_wins_as_with_argmax() -> None:
    """Whole numbers from a few: nearly every pixel has a tie, at its top or below."""
    rng = np.random.default_rng(4)
    for levels in (1, 2, 3, 5):
        logits = rng.integers(-levels, levels, (2, 6, 40, 40)).astype(np.float32)
        logits[rng.random(logits.shape) < 0.1] = -np.inf
        top = logits == logits.max(1, keepdims=True)
        assert (top.sum(1) > 1).mean() > 0.1
        np.testing.assert_array_equal(labels_of(logits), logits.argmax(1))


def test_logits_that_are_a_view() -> None:
    """Channels last in memory, as some runtimes answer."""
    logits = np.random.default_rng(1).normal(size=(2, 8, 9, 5)).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(labels_of(logits), logits.argmax(1))


# ---- from an image


def task(classes: int = 3, side: int = 32) -> Task:
    names = tuple(ClassInfo(name=f"c{i}", colour=(i, i, i)) for i in range(classes))
    return Task(classes=names, preprocessing=Preprocessing(height=side, width=side))


class Brightness(Session):
    """Its three logits are the three channels of its input, as they are."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs

    def bind(self, feeds: Arrays) -> None:
        self.fed = feeds

    def execute(self) -> None:
        pass

    def fetch(self) -> Arrays:
        return {self.outputs[0].name: self.fed[self.inputs[0].name]}


def one(name: str, *shape: int | None) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name, FLOAT, shape),)


def test_a_predictor_prepares_the_image_as_its_task_says() -> None:
    image = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    predict = predictor(Brightness(one("x", 1, 3, 32, 32), one("y", 1, 3, 32, 32)), task(), "a.onnx")
    scaled = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    labels = predict(image)
    assert labels.shape == (32, 32) and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, scaled.argmax(-1))


# ---- what contradicts itself


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_what_fits_passes(batch: int | None) -> None:
    session = Brightness(one("x", batch, 3, 32, 32), one("y", batch, 3, 32, 32))
    ports_of(session, task(), "a.onnx")
    ports_of(Brightness(one("x", batch, 3, None, None), one("y", batch, None, None, None)), task(), "a.onnx")


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        (one("x", 1, 3, 64, 64), one("y", 1, 3, 64, 64), "the input is (B, 3, 32, 32)"),
        (one("x", 1, 3, 32, 64), one("y", 1, 3, 32, 64), "the input is (B, 3, 32, 32)"),
        (one("x", 1, 4, 32, 32), one("y", 1, 3, 32, 32), "the input is (B, 3, 32, 32)"),
        (one("x", 3, 32, 32), one("y", 1, 3, 32, 32), "the input is (B, 3, 32, 32)"),
        (one("x", 1, 3, 32, 32), one("y", 1, 5, 32, 32), "the output is (B, 3, 32, 32)"),
        (one("x", 1, 3, 32, 32), one("y", 1, 3, 8, 8), "the output is (B, 3, 32, 32)"),
        (one("x", 1, 3, 32, 32), one("y", 1, 32, 32), "the output is (B, 3, 32, 32)"),
        (one("x", 1, 3, 32, 32) * 2, one("y", 1, 3, 32, 32), "has 2 inputs and 1 outputs"),
        (one("x", 1, 3, 32, 32), one("y", 1, 3, 32, 32) * 3, "has 1 inputs and 3 outputs"),
    ],
)
def test_tensors_that_are_not_the_cards(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], said: str
) -> None:
    with pytest.raises(EngineError) as caught:
        ports_of(Brightness(inputs, outputs), task(), "a.onnx")
    assert said in caught.value.what and caught.value.what.startswith("a.onnx ") and caught.value.hint


def with_card(source: Path, target: Path, card: Card) -> Path:
    """The graph of ``source`` under another card."""
    model = onnx.load(source)
    (entry,) = [entry for entry in model.metadata_props if entry.key == CARD_KEY]
    entry.value = card.model_dump_json()
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_onnx_file_whose_card_is_of_another_network(compressed_run: Path, tmp_path: Path, runtime: str) -> None:
    source = compressed_run / "student.onnx"
    card = card_of(source)
    fewer = card.task.model_copy(update={"classes": card.task.classes[:4]})
    cases = {
        "classes.onnx": (fewer, "its card says that the output is (B, 4, 128, 128)"),
        "size.onnx": (card.task.at_size(64, 128), "its card says that the input is (B, 3, 64, 128)"),
    }
    with open_session(source, runtime) as session:
        ports_of(session, card.task, source.name)
    for name, (other, said) in cases.items():
        path = with_card(source, tmp_path / name, card.model_copy(update={"task": other}))
        with open_session(path, runtime) as session, pytest.raises(EngineError) as caught:
            ports_of(session, card_of(path).task, path.name)
        assert said in caught.value.what
        assert "128, 128)" in caught.value.what.split("the graph's is")[1]
