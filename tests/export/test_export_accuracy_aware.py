"""INT8 that holds its mIoU: a network with one layer that cannot bear it, and the arithmetic of its layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from edpct.card import Card
from edpct.data.samples import Dataset, Sample, read_mask
from edpct.data.tiling import Window
from edpct.export.accuracy_aware import Guarded, quantise_within
from edpct.export.layers import Layer, groups_of, int8_share, layers_of
from edpct.export.onnx_export import export_onnx
from edpct.models.architecture import count_macs
from edpct.models.checkpoint import load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ExportSettings, QuantiseSettings
from edpct.run.quantise import write_int8
from edpct.runtimes.table import open_session
from edpct.task import ClassInfo, Preprocessing, Task

SIDE, CLASSES = 32, 4
OUTLIER = 80.0  # one channel is that many times as large as the others
BORNE = {"stem": True, "wide": True, "narrow": False, "head": True}  # which layers bear INT8


class Lopsided(nn.Module):
    """A channel of ``wide`` is huge and ``narrow`` scales it down again: no one scale serves all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 16, 3, padding=1)
        self.narrow = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, CLASSES, 1)
        with torch.no_grad():
            self.wide.weight[5] *= OUTLIER
            self.wide.bias[5] *= OUTLIER
            self.narrow.weight[:, 5] /= OUTLIER

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.wide(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.narrow(x)))


@pytest.fixture(scope="module")
def card() -> Card:
    classes = tuple(ClassInfo(name=f"c{i}", colour=(i, i, i)) for i in range(CLASSES))
    return Card(
        network="Lopsided", task=Task(classes=classes, preprocessing=Preprocessing(height=SIDE, width=SIDE)),
        parameters=0, macs=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Lopsided:
    torch.manual_seed(3)
    return Lopsided().eval()


@pytest.fixture(scope="module")
def fp32(network: Lopsided, card: Card, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lopsided") / "fp32.onnx"
    export_onnx(network, card, path, ExportSettings(simplify=False), Silent())
    return path


@pytest.fixture(scope="module")
def windows(network: Lopsided, card: Card) -> list[Window]:
    """Blotches of colour; the truth is what the network says in torch, so its own mIoU is 100."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(6):
        image = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        with torch.no_grad():
            logits = network(torch.from_numpy(card.task.preprocessing.apply(image)))
        found.append(Window(image, logits.argmax(1)[0].numpy().astype(np.uint8), index, 0, 0))
    assert len(np.unique([window.labels for window in found])) > 1
    return found


@pytest.fixture(scope="module")
def guarded(
    fp32: Path, card: Card, windows: list[Window], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Guarded, Path]:
    target = tmp_path_factory.mktemp("guarded") / "int8.onnx"
    images = [window.image for window in windows]
    return quantise_within(fp32, target, card, images, windows, 3.0, Silent()), target


def test_only_what_cannot_bear_int8_stays_in_fp32(guarded: tuple[Guarded, Path]) -> None:
    found, target = guarded
    assert found.loss_of_all > 10
    assert found.loss <= 3.0 and found.limit == 3.0 and found.windows == 6
    assert {group.name: group.int8 for group in found.groups} == {
        "stem": True,
        "wide": True,
        "narrow": False,
        "head": True,
    }
    losses = {group.name: group.loss for group in found.groups}
    assert losses["narrow"] > 10 and max(losses, key=lambda name: losses[name]) == "narrow"
    assert sum(group.macs for group in found.groups) == pytest.approx(1)
    kept = {layer.module: layer.int8 for layer in layers_of(onnx.load(target))}
    assert kept == BORNE
    assert found.share == pytest.approx(1 - 16 * 16 / (16 * 27 + 16 * 144 + 16 * 16 + 16 * CLASSES))
    assert [path.name for path in target.parent.iterdir()] == ["int8.onnx"]


def test_the_file_is_as_good_as_was_said(guarded: tuple[Guarded, Path], card: Card, windows: list[Window]) -> None:
    with open_session(guarded[1], "onnxruntime") as session:
        found = [session.run({"image": card.task.preprocessing.apply(w.image)})["logits"].argmax(1)[0] for w in windows]
    assert np.mean([(labels == w.labels).mean() for labels, w in zip(found, windows, strict=True)]) > 0.95


def test_where_the_limit_is_wide_nothing_is_left_out(
    fp32: Path, card: Card, windows: list[Window], tmp_path: Path
) -> None:
    images = [window.image for window in windows]
    found = quantise_within(fp32, tmp_path / "int8.onnx", card, images, windows, 100.0, Silent())
    assert found.groups == () and found.loss == found.loss_of_all and found.share == 1.0


@pytest.fixture
def dataset(windows: list[Window], card: Card, tmp_path: Path) -> Dataset:
    """The blotches as files, the same in both splits."""
    folder = tmp_path / "data"
    folder.mkdir()
    samples = []
    for index, window in enumerate(windows):
        Image.fromarray(window.image).save(folder / f"{index}.png")
        Image.fromarray(window.labels).save(folder / f"{index}-mask.png")
        samples.append(Sample(folder / f"{index}.png", folder / f"{index}-mask.png"))
    return Dataset(
        folder, "folder", card.task, tuple(samples), tuple(samples), lambda path: np.asarray(read_mask(path))
    )


@pytest.mark.parametrize("limit", [3.0, 100.0], ids=["held", "wide"])
def test_what_it_costs_in_speed_is_told_where_something_was_left_out(
    fp32: Path, card: Card, dataset: Dataset, tmp_path: Path, limit: float
) -> None:
    settings = QuantiseSettings(calibration_images=3, guard_images=3, max_miou_drop=limit)
    target = tmp_path / "int8.onnx"
    found = write_int8(fp32, target, card, dataset, settings, 0, Silent())
    assert found is not None
    left_out = [group.name for group in found.groups if not group.int8]
    assert left_out == (["narrow"] if limit == 3.0 else [])
    assert (found.faster is not None) == bool(left_out)
    if found.faster is not None:
        assert 0.05 < found.faster < 20  # how much is the machine's affair
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "int8.onnx"]


# ---- layers


def test_the_multiply_accumulates_are_torchs(compressed_run: Path, tiny_teacher: Path) -> None:
    layers = layers_of(onnx.load(compressed_run / "teacher.onnx"))
    counted = count_macs(load_checkpoint(tiny_teacher).model, 128, 128)
    assert sum(layer.macs for layer in layers) == pytest.approx(counted, rel=0.03)
    groups = groups_of(layers)
    assert {"stem", "cnn4", "cnn8", "transformer16", "transformer32", "refinement", "fusion", "decoder"} <= set(groups)
    assert not any(layer.int8 for layer in layers)


def test_products_of_a_graph_made_by_hand() -> None:
    value, tensor = helper.make_tensor_value_info, numpy_helper.from_array
    nodes = [
        helper.make_node("ConvTranspose", ["x", "up.weight"], ["big"], strides=[2, 2], kernel_shape=[2, 2], name="up"),
        helper.make_node("Reshape", ["big", "shape"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["out"], transB=1, name="fc"),
        helper.make_node("MatMul", ["out", "scores"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes, "made", [value("x", TensorProto.FLOAT, [1, 3, 4, 4])], [value("y", TensorProto.FLOAT, [8, 2])],
        [
            tensor(np.zeros((3, 5, 2, 2), np.float32), "up.weight"), tensor(np.array([8, 40], np.int64), "shape"),
            tensor(np.zeros((7, 40), np.float32), "fc.weight"), tensor(np.zeros((7, 2), np.float32), "scores"),
        ],
    )  # fmt: skip
    layers = layers_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert [(layer.name, layer.module, layer.macs) for layer in layers] == [
        ("up", "up", 4 * 4 * 3 * 5 * 4), ("fc", "fc", 8 * 7 * 40), ("product", "fc", 8 * 2 * 7),
    ]  # fmt: skip


def test_groups_are_as_deep_as_it_takes() -> None:
    shallow = [Layer(str(i), f"part{i}.block.conv", 1, False) for i in range(8)]
    assert list(groups_of(shallow)) == [f"part{i}" for i in range(8)]
    deep = [Layer(str(i), f"encoder.layer{i}.conv", 1, i < 2) for i in range(9)]
    assert list(groups_of(deep)) == [f"encoder.layer{i}" for i in range(9)]
    assert int8_share(deep) == pytest.approx(2 / 9)
