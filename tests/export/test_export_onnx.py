"""torch to ONNX: what the file says, that it computes what the network computes, and what happens if onnxsim dies."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.data.sampling import sample_windows
from edpct.errors import ExportError
from edpct.export import onnx_export
from edpct.export.onnx_export import export_onnx, write_onnx
from edpct.export.parity import check_parity
from edpct.models.checkpoint import Checkpoint, load_checkpoint
from edpct.progress import Silent
from edpct.recipe import ExportSettings

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's, as published


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Checkpoint:
    return load_checkpoint(tiny_teacher)


@pytest.fixture(scope="module")
def images(scenes: Path) -> list[np.ndarray]:
    return sample_windows(open_dataset(scenes), "val", 2, 128, 128, seed=0)


@pytest.fixture(scope="module")
def exported(teacher: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "teacher.onnx"
    export_onnx(teacher.model, teacher.card, path, ExportSettings(), Silent())
    return path


def run_onnx(path: Path, feed: np.ndarray) -> np.ndarray:
    """The graph on ONNX Runtime itself, no code of ours between."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": feed})[0]


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_file_is_sound_and_of_fixed_shape(exported: Path) -> None:
    onnx.checker.check_model(str(exported), full_check=True)
    model = onnx.load(exported)
    assert {o.domain: o.version for o in model.opset_import}[""] >= 18
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["logits"]
    assert shape_of(model.graph.input[0]) == [1, 3, 128, 128]
    assert shape_of(model.graph.output[0]) == [1, 7, 128, 128]
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_card_travels_in_the_metadata(exported: Path, teacher: Checkpoint) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert Card.model_validate_json(metadata["edpct"]) == teacher.card


def test_nothing_else_is_left_in_the_folder(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["teacher.onnx"]


def test_the_graph_computes_what_the_network_computes(
    exported: Path, teacher: Checkpoint, images: list[np.ndarray]
) -> None:
    for image in images:
        feed = ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
        with torch.no_grad():
            expected = teacher.model.eval()(torch.from_numpy(feed)).numpy()
        found = run_onnx(exported, feed)
        assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
    assert np.ptp(expected) > 0.01  # or the comparison would show nothing


def test_parity_says_so(exported: Path, teacher: Checkpoint, images: list[np.ndarray]) -> None:
    parity = check_parity(teacher.model, exported, teacher.card.task, images, 1e-3)
    assert parity.images == 2
    assert 0 <= parity.largest < 1e-3
    assert parity.agreement > 0.999


def test_parity_refuses_a_weight_that_was_altered(
    exported: Path, teacher: Checkpoint, images: list[np.ndarray], tmp_path: Path
) -> None:
    model = onnx.load(exported)
    (tensor,) = [t for t in model.graph.initializer if t.name == "classifier.weight"]
    weight = onnx.numpy_helper.to_array(tensor).copy()
    weight[0, 0] += 1.0
    tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
    altered = tmp_path / "altered.onnx"
    onnx.save(model, altered)
    with pytest.raises(ExportError) as caught:
        check_parity(teacher.model, altered, teacher.card.task, images, 1e-3)
    assert caught.value.what.startswith("altered.onnx is off the torch network by ")
    assert caught.value.what.endswith(" of the logits' range (limit 1e-03).")


def test_parity_refuses_logits_that_are_no_numbers(
    exported: Path, teacher: Checkpoint, images: list[np.ndarray], tmp_path: Path
) -> None:
    model = onnx.load(exported)
    (tensor,) = [t for t in model.graph.initializer if t.name == "classifier.bias"]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(7, np.nan, np.float32), tensor.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(ExportError):
        check_parity(teacher.model, tmp_path / "nan.onnx", teacher.card.task, images, 1e-3)


# ---- onnxsim, which may die


def pretend_onnxsim(monkeypatch: pytest.MonkeyPatch, code: str, seconds: float = 60) -> None:
    """Run another program where onnxsim would have run; it is given the same two paths."""
    real = onnx_export.subprocess.run

    def run(command: list[str], **options: object) -> object:
        assert command[:2] == [sys.executable, "-c"] and "onnxsim.main()" in command[2]
        return real([sys.executable, "-c", code, *command[3:]], **{**options, "timeout": seconds})

    fake = SimpleNamespace(run=run, TimeoutExpired=onnx_export.subprocess.TimeoutExpired)
    monkeypatch.setattr(onnx_export, "subprocess", fake)


@pytest.mark.parametrize(
    ("code", "seconds", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, "onnxsim failed (exit -11); "),
        ("import sys; open(sys.argv[2], 'w').write('half'); sys.exit(1)", 60, "onnxsim failed (exit 1); "),
        ("import time; time.sleep(60)", 0.3, "onnxsim took over 300 s; "),
        ("pass", 60, "onnxsim failed (exit 0); "),  # says it is well and has written nothing
    ],
    ids=["signal", "half-written", "time", "nothing"],
)
def test_a_crash_of_onnxsim_leaves_the_graph_as_it_was(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float, said: str
) -> None:
    pretend_onnxsim(monkeypatch, code, seconds)
    raw, heard = tmp_path / ".teacher.onnx.raw", Heard()
    raw.write_bytes(exported.read_bytes())
    graph = onnx_export._simplified(raw, heard)
    assert graph == onnx.load(exported)
    assert heard.lines == [said + "going on with the graph as exported."]
    assert [path.name for path in tmp_path.iterdir()] == [raw.name]


def test_what_onnxsim_writes_is_what_is_taken(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart of the crashes: a graph that comes back is used, in silence."""
    edit = (
        "import sys, onnx; m = onnx.load(sys.argv[1]); m.graph.name = 'simplified by the test'; "
        "onnx.save(m, sys.argv[2])"
    )
    pretend_onnxsim(monkeypatch, edit)
    raw, heard = tmp_path / ".teacher.onnx.raw", Heard()
    raw.write_bytes(exported.read_bytes())
    assert onnx_export._simplified(raw, heard).graph.name == "simplified by the test"
    assert heard.lines == []


# ---- writing


def test_an_invalid_graph_is_not_written(exported: Path, teacher: Checkpoint, tmp_path: Path) -> None:
    model = onnx.load(exported)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ExportError) as caught:
        write_onnx(model, teacher.card, tmp_path / "bad.onnx")
    assert caught.value.what.startswith("The graph of bad.onnx is not valid ONNX: ")
    assert list(tmp_path.iterdir()) == []


def test_what_torch_cannot_export_is_one_sentence(teacher: Checkpoint, tmp_path: Path) -> None:
    class Peeks(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 2 if bool((image.sum() > 0).item()) else image  # depends on the data

    with pytest.raises(ExportError) as caught:
        export_onnx(Peeks(), teacher.card, tmp_path / "peeks.onnx", ExportSettings(simplify=False), Silent())
    assert caught.value.what.startswith("torch cannot export DP-CTNet tiny to ONNX: ")
    assert "\n" not in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_what_went_wrong_and_not_in_which_step(teacher: Checkpoint, tmp_path: Path) -> None:
    """The exporter's own first line is "This is step 3/3 of exporting the model to ONNX. Next steps:", in colours."""

    class Eigen(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eig(image)[0].real

    with pytest.raises(ExportError) as caught:
        export_onnx(Eigen(), teacher.card, tmp_path / "eigen.onnx", ExportSettings(simplify=False), Silent())
    assert "linalg_eig" in caught.value.what and caught.value.what.endswith(".")
    assert "\x1b" not in caught.value.what and "Next steps" not in caught.value.what
