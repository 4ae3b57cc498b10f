"""``edpct export`` and ``edpct build`` through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edpct.data.layouts import open_dataset
from edpct.data.sampling import sample_windows


@dataclass(frozen=True)
class Answer:
    code: int | str | None
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process, in an empty folder: torch is imported once."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments: object) -> Answer:
        from edpct.cli.main import main

        monkeypatch.setattr(sys, "argv", ["edpct", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Answer(caught.value.code, said.out, said.err)

    return start


def logits(path: Path, feed: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": feed})[0]


def test_a_checkpoint_becomes_an_onnx_file_plain_and_fused(
    run: Run, tiny_teacher: Path, scenes: Path, tmp_path: Path
) -> None:
    plain = run("export", "--checkpoint", tiny_teacher, "--out", "plain.onnx", "--batch", "open", "--size", 64)
    assert plain.code == 0, plain.err
    assert "of the logits' range" in plain.out and "same class as torch" in plain.out
    assert "IoU of " in plain.out and "windows of the val images" in plain.out
    assert "Next: edpct bench --engine plain.onnx" in plain.out
    fused = run(
        "export", "--checkpoint", tiny_teacher, "--out", "fused.onnx", "--size", 64, "--no-simplify",
        "--fuse-preprocess", "--fuse-argmax", "full",
    )  # fmt: skip
    assert fused.code == 0, fused.err
    assert "fused graph: same class as the plain one" in fused.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.onnx", "plain.onnx"]
    images = np.stack(sample_windows(open_dataset(scenes), "val", 2, 64, 64, seed=0))
    mean, std = (np.array(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = logits(Path("plain.onnx"), ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    assert expected.shape == (2, 7, 64, 64)
    assert (logits(Path("fused.onnx"), images[:1])[0] == expected[0].argmax(0)).mean() > 0.999
    card = json.loads({e.key: e.value for e in onnx.load("plain.onnx").metadata_props}["edpct"])
    assert (card["task"]["preprocessing"]["height"], card["task"]["preprocessing"]["width"]) == (64, 64)


def test_weights_of_16_bits_are_exported_in_32(run: Run, tiny_teacher: Path, tmp_path: Path) -> None:
    import torch

    content = torch.load(tiny_teacher, weights_only=True)
    content["state_dict"] = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in content["state_dict"].items()
    }
    torch.save(content, "half.pt")
    answer = run("export", "--checkpoint", "half.pt", "--out", "half.onnx", "--size", 64, "--no-simplify")
    assert answer.code == 0, answer.err
    feed = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    assert logits(tmp_path / "half.onnx", feed).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batch", "4"), "A batch of '4' cannot be exported. Choose 1 or open."),
        (("--opset", "12"), "setting 'export.opset': "),
        (("--size", "100"), "An input of 100x100 pixels does not fit the network. Use multiples of 32."),
        (("--fuse-argmax", "quarter"), "setting 'fuse.argmax': "),
        (("--data", "nowhere"), "nowhere"),
        (("--out", "a.txt"), "--out a.txt does not end in .onnx. Give a file such as a.onnx."),
        (("--out", "no/a.onnx"), "There is no folder no to write a.onnx to."),
    ],
)
def test_refused_in_one_sentence(
    run: Run, tiny_teacher: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    answer = run("export", "--checkpoint", tiny_teacher, "--out", "x.onnx", *arguments)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tolerance", "1e-12"), "edpct: good.onnx is off the torch network by "),
        (("--fuse-argmax", "full"), "edpct: The fused graph says on "),
    ],
)
def test_a_refused_export_leaves_the_file_of_before(
    run: Run,
    tiny_teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr("edpct.run.export.SAME", 1.1)  # no fused graph is as like the plain one as that
    good = tmp_path / "good.onnx"
    good.write_bytes(b"of before")
    answer = run(
        "export", "--checkpoint", tiny_teacher, "--out", "good.onnx", "--size", 64, "--no-simplify", *arguments
    )
    assert answer.code == 2 and said in " ".join(answer.err.split())
    assert list(tmp_path.iterdir()) == [good] and good.read_bytes() == b"of before"


def test_a_checkpoint_that_is_not_there(run: Run) -> None:
    answer = run("export", "--checkpoint", "none.pt")
    assert answer.code == 2 and answer.err.startswith("edpct: ") and "none.pt" in answer.err


# ---- build


def test_a_plan_with_knobs(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    source = compressed_run / "student-int8-fused.onnx"
    answer = run("build", "--onnx", source, "--target", "rtx", "--out", "s.plan", "--workspace-mb", 128)
    assert answer.code == 0, answer.err
    assert "tensorrt_rtx --onnx=student-int8-fused.onnx --saveEngine=s.plan --memPoolSize=workspace:128" in answer.out
    said = json.loads((tmp_path / "s.plan.json").read_text())
    assert [i["dtype"] for i in said["inputs"] + said["outputs"]] == ["uint8", "uint8"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "rtx", "--out", "s.onnx"), "--out s.onnx does not end in .plan or .engine."),
        (("--target", "rtx", "--level", "5"), "TensorRT for RTX has no --level."),
        (("--target", "rtx", "--batch", "4,1,2"), "give the least, the best and the most images"),
        (("--target", "rtx", "--batch", "one"), "setting 'build.batch"),
        (("--target", "orin"), "There is no target 'orin'. Choose from: auto, tensorrt, jetson-orin, rtx."),
        (("--target", "jetson-orin", "--level", "9"), "setting 'build.level'"),
    ],
)
def test_a_build_is_refused_in_one_sentence(
    run: Run, compressed_run: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    answer = run("build", "--onnx", compressed_run / "student.onnx", "--out", "s.plan", *arguments)
    assert answer.code == 2 and said in " ".join(answer.err.split())
    assert not list(tmp_path.iterdir())


def test_a_plan_is_not_built_of_weights(run: Run, compressed_run: Path, tmp_path: Path) -> None:
    answer = run("build", "--onnx", compressed_run / "student.safetensors", "--target", "rtx", "--out", "s.plan")
    assert answer.code == 2 and "student.safetensors is no .onnx file." in " ".join(answer.err.split())
    assert not list(tmp_path.iterdir())
