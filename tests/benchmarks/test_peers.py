"""The script that measures peers: their weights, their files, and that no mIoU is shown of untrained ones."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from edpct.bench.measure import Measured
from edpct.bench.scoring import Scores
from edpct.card import Card
from edpct.data.scenes import SCENE_TASK
from edpct.errors import CheckpointError, DataError, EngineError, ExportError, QuantisationError
from edpct.export.onnx_export import export_onnx
from edpct.progress import Silent
from edpct.recipe import BenchSettings, ExportSettings

ROOT = Path(__file__).resolve().parents[2]
PEER = "FPN-MobileNetV2"


def _load(name: str, monkeypatch: pytest.MonkeyPatch, folder: str = "benchmarks") -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(name)


@pytest.fixture()
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _load("peers", monkeypatch)


@pytest.fixture()
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _load("peer_networks", monkeypatch)


@pytest.fixture()
def factory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _load("report_factory", monkeypatch, "tests/bench/report")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_peer_come_back(networks: ModuleType, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    trained, fresh = (networks.build(networks.PEERS[PEER], 3) for _ in range(2))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.5)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(trained.state_dict(), file)
    else:
        safetensors.torch.save_file(trained.state_dict(), file)
    networks.load_weights(fresh, file, PEER)
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_weights_for_other_classes_are_refused_by_name_and_shape(networks: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    torch.save(networks.build(networks.PEERS[PEER], 4).state_dict(), tmp_path / "four.pt")
    with pytest.raises(CheckpointError, match=r"FPN-MobileNetV2.*segmentation_head.*\(4,\) instead of \(3,\)"):
        networks.load_weights(networks.build(networks.PEERS[PEER], 3), tmp_path / "four.pt", PEER)


def test_missing_and_left_over_tensors_are_counted(networks: ModuleType, tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1), "bias": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \(first: weight\) and 1 have no place"):
        networks.load_weights(nn.Linear(2, 2), tmp_path / "a.pt", PEER)


def test_pickled_networks_and_damaged_files_are_refused(networks: ModuleType, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    for name in ("whole.pt", "torn.safetensors", "torn.pt"):
        with pytest.raises(CheckpointError, match=name):
            networks.load_weights(nn.Linear(2, 2), tmp_path / name, PEER)


def test_statistics_of_images_replace_the_initial_ones(networks: ModuleType) -> None:
    layer = nn.BatchNorm2d(3)
    images = [np.full((32, 32, 3), value, np.uint8) for value in (0, 255)]
    networks.settle_statistics(layer, SCENE_TASK.at_size(32, 32), images)
    expected = SCENE_TASK.preprocessing.apply(np.stack(images)).mean((0, 2, 3))
    assert np.allclose(layer.running_mean, expected, atol=1e-5)
    assert not layer.training and layer.momentum == 0.1


class Stub(nn.Conv2d):
    """Stands in for a peer."""

    def __init__(self) -> None:
        super().__init__(3, SCENE_TASK.num_classes, 1)


def _prepare(networks: ModuleType, work: Path, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Any:
    """Prepare a stub whose export and quantisation write the name of the step, or fail."""
    done: list[str] = []

    def step(name: str, error: type[Exception], target: Path) -> None:
        done.append(name)
        if name == failing:
            raise error("it cannot be done")
        target.write_text(name)

    task = SCENE_TASK.at_size(32, 32)
    card = Card(network=PEER, task=task, parameters=1, macs=1)
    monkeypatch.setattr(networks, "build", lambda *_: Stub())
    monkeypatch.setattr(networks, "export_onnx", lambda model, card, path, *_: step("export", ExportError, path))
    monkeypatch.setattr(networks, "check_parity", lambda *_: None)
    monkeypatch.setattr(networks, "card_of", lambda path: card)
    monkeypatch.setattr(networks, "quantise_int8", lambda a, path, *_: step("quantise", QuantisationError, path))
    images = [np.zeros((32, 32, 3), np.uint8)] * 2
    return (*networks.prepare(networks.PEERS[PEER], task, None, images, work, Silent()), done)


def test_files_are_kept_and_used_again(networks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engines, failures, done = _prepare(networks, tmp_path, monkeypatch)
    assert [engine.name for engine in engines] == [PEER, f"{PEER} INT8"] and not failures
    assert not any(engine.trained for engine in engines)
    assert done == ["export", "quantise"]
    again, _, done = _prepare(networks, tmp_path, monkeypatch)
    assert again == engines and done == []


@pytest.mark.parametrize(("failing", "left"), [("export", []), ("quantise", [PEER])])
def test_a_step_that_fails_is_listed_with_its_reason(
    networks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str, left: list[str]
) -> None:
    engines, failures, _ = _prepare(networks, tmp_path, monkeypatch, failing)
    assert [engine.name for engine in engines] == left
    assert len(failures) == 1 and "it cannot be done" in failures[0].reason


class Upsampled(Stub):
    """One whose logits are brought to full size at its end, as those of FPN are."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = (4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(super().forward(x), scale_factor=4.0, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("kind", "block"), [(Stub, 1), (Upsampled, 2)])
def test_a_peer_is_fused_as_the_student_is(
    networks: ModuleType, tmp_path: Path, kind: type[nn.Module], block: int
) -> None:
    task = SCENE_TASK.at_size(32, 32)
    card = Card(network=PEER, task=task, parameters=1, macs=1)
    export_onnx(kind().eval(), card, tmp_path / "peer-int8.onnx", ExportSettings(), Silent())
    session = onnxruntime.InferenceSession(networks.fused(tmp_path / "peer-int8.onnx", "half"))
    frame = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    classes = session.run(None, {"image": frame})[0][0]
    assert classes.dtype == np.uint8 and classes.shape == (32, 32)
    corners = classes[::block, ::block].repeat(block, 0).repeat(block, 1)
    assert (classes == corners).all() and len(np.unique(classes)) > 1
    odd = classes[:, 1::2] == classes[:, ::2]
    assert odd.all() == (block == 2)


def _measured(factory: ModuleType) -> Measured:
    """A student and an untrained peer, each on two runtimes."""
    rows = [
        factory.make_row(name, runtime, p50, network=network)
        for name, network, p50 in (("student", "EDP-CTNet", 5.0), (PEER, PEER, 20.0))
        for runtime in ("openvino", "onnxruntime")
    ]
    return Measured(tuple(rows), (None,) * 4, (), 1)


def test_only_trained_engines_are_scored(
    peers: ModuleType, factory: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    confusions = np.full((1, 7, 7), 10, np.int64)
    scores = Scores((0,), confusions, np.ones((3, 7), np.int64))
    asked: list[str] = []

    def scored(engines: list[Any], *_: Any) -> dict[str, Scores]:
        asked.extend(engine.name for engine in engines)
        return {"student": scores}

    class Given:
        task = SCENE_TASK

    monkeypatch.setattr(peers, "bench", lambda *_, **__: _measured(factory))
    monkeypatch.setattr(peers, "scored", scored)
    monkeypatch.setattr(peers, "make_report", lambda measured, *_, **__: factory.make_report(*measured.rows))
    engines = [peers.Engine("student", tmp_path, True), peers.Engine(PEER, tmp_path, False)]
    report = peers.measure(engines, [], Given, Given, BenchSettings(), tmp_path, Silent())
    assert asked == ["student"]
    assert [row.name for row in report.rows if row.accuracy is not None] == ["student"]


def test_page_without_weights_has_no_miou(peers: ModuleType, factory: ModuleType) -> None:
    report = factory.make_report(*_measured(factory).rows)
    text = peers.page(report, [PEER])
    assert "mIoU %" not in text and f"no mIoU: {PEER}" in text
    assert f"On openvino, student runs at 200.0 FPS and the fastest peer, {PEER}, at 50.0: 4.0 times" in text


def test_unknown_names_and_missing_files_are_refused(peers: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no peer 'Net'"):
        peers.chosen(["Net"])
    with pytest.raises(CheckpointError, match="no file"):
        peers.parse_weights([f"{PEER}={tmp_path}/none.pt"])
    assert [peer.name for peer in peers.chosen([PEER])] == [PEER]


def test_weights_without_data_are_refused(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    asked = type("Asked", (), {"only": [], "weights": [f"{PEER}={tmp_path}/a.pt"], "data": None})
    with pytest.raises(DataError, match="--data"):
        peers.compare(asked, Silent())


def test_help(peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["peers.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        peers.main()
    assert ended.value.code == 0 and "--weights" in capsys.readouterr().out
