"""``edpct prune`` and ``--model`` through the command line: budgets, any network, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

FACTORY = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3, 1, 1))
        self.head = nn.Conv2d(32, num_classes, 1)

    def forward(self, x):
        return {"out": self.head(torch.relu(self.body(self.stem(x))))}

class OfOneSize(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 32, 8, 8), nn.Conv2d(32, num_classes, 1)
        self.positions = nn.Parameter(torch.zeros(1, 32, 8, 8))

    def forward(self, x):
        return self.head(self.patches(x) + self.positions)

def of_one_size(num_classes):
    return OfOneSize(num_classes)

def make(num_classes):
    return Small(num_classes)

def number(num_classes):
    return 7

def pooled(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

text = "not a function"
"""


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
    monkeypatch.setenv("EDPCT_TRUST_FACTORIES", "")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def start(*arguments: object) -> Answer:
        from edpct.cli.main import main

        monkeypatch.setattr(sys, "argv", ["edpct", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return Answer(stop.value.code, *capsys.readouterr())

    return start


@pytest.fixture
def factory(tmp_path: Path) -> str:
    """The name of a module in the current folder, another one for every test: imports are remembered."""
    name = f"networks_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(FACTORY, encoding="utf-8")
    return name


def refused(done: Answer, what: str) -> None:
    """Exit 2, one sentence with this text in it, and what to do on a line of its own."""
    assert done.code == 2, done
    said = done.err[done.err.rindex("edpct: ") :].splitlines()
    assert what in said[0], done.err
    assert len(said) <= 2 and all(line.startswith("       ") for line in said[1:])


# ---- what comes out


def test_a_pruned_checkpoint_with_the_width_of_every_layer(run: Run, tiny_teacher: Path, tmp_path: Path) -> None:
    from edpct.models.architecture import count_macs
    from edpct.models.checkpoint import load_checkpoint

    done = run("prune", "--teacher", tiny_teacher, "--target-macs", "40%", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    before, after = load_checkpoint(tiny_teacher), load_checkpoint(tmp_path / "run" / "pruned.safetensors")
    share = count_macs(after.model, 128, 128) / count_macs(before.model, 128, 128)
    assert 0.38 < share <= 0.40
    assert after.card.macs == count_macs(after.model, 128, 128)
    facts = json.loads((tmp_path / "run" / "pruned.json").read_text())
    assert facts["asked"] == {"macs": 0.4} and facts["macs_share"] == pytest.approx(share)
    tensors = after.model.state_dict()
    assert all(len(tensors[f"{row['layer']}.weight"]) == row["after"] for row in facts["widths"])
    assert {row["path"] for row in facts["widths"]} == {"CNN", "transformer", "refinement", "fusion", "decoder"}
    page = (tmp_path / "run" / "pruned.md").read_text()
    assert "| decoder.0 | decoder | 32 |" in page and "| CNN |" in page
    again = run("prune", "--teacher", tiny_teacher, "--target-macs", "40%", "--out", tmp_path / "run")
    assert again.code == 0 and "skipped" in again.out + again.err


def test_a_corrected_label_is_pruned_with_anew(run: Run, tiny_teacher: Path, scenes: Path, tmp_path: Path) -> None:
    """The mask keeps its size in bytes: BMP does not compress."""
    import numpy as np
    from PIL import Image

    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    mask = min((data / "train/masks").iterdir())
    pixels = np.array(Image.open(mask).convert("RGB"))
    mask.unlink()
    mask = mask.with_suffix(".bmp")
    Image.fromarray(pixels).save(mask)
    command = ("prune", "--teacher", tiny_teacher, "--data", data, "--target-macs", "40%", "--out", tmp_path / "run")
    assert run(*command).code == 0
    Image.fromarray(pixels[::-1]).save(mask)
    done = run(*command)
    assert done.code == 0 and "prune: settings or inputs changed." in done.out + done.err
    assert "prune: skipped" in run(*command).err


@pytest.mark.parametrize(
    ("budget", "measure"),
    [(("--target-params", "0.5"), "parameters_share"), (("--ratio", "0.5"), "macs_share")],
    ids=["params", "ratio"],
)
def test_other_budgets(run: Run, tiny_teacher: Path, tmp_path: Path, budget: tuple[str, str], measure: str) -> None:
    assert run("prune", "--teacher", tiny_teacher, *budget, "--out", tmp_path / "run").code == 0
    facts = json.loads((tmp_path / "run" / "pruned.json").read_text())
    # half the channels leave about a quarter of the products
    assert (0.47 < facts[measure] <= 0.5) if measure == "parameters_share" else (0.2 < facts[measure] < 0.35)


def test_a_factory_is_compressed_to_measured_engines(run: Run, factory: str, scenes: Path, tmp_path: Path) -> None:
    """A stranger's network through every stage: pruned, distilled by its logits, exported, quantised, measured."""
    import importlib

    import torch

    from edpct.data.scenes import SCENE_TASK

    sys.path.append(str(tmp_path))
    torch.manual_seed(0)
    model = importlib.import_module(factory).make(SCENE_TASK.num_classes)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[distil]\nsteps = 2\nbatch = 2\ncrop = 64\n[quantise]\ncalibration_images = 2\n"
        '[bench]\nseconds = 0.05\nruns = 2\nrounds = 1\nwarm_up = 0.1\nthreads = 1\nruntimes = ["onnxruntime"]\n'
    )
    done = run(
        "compress", "--model", f"{factory}:make", "--weights", "weights.pt", "--data", scenes, "--size", 128,
        "--target-macs", 0.5, "--recipe", recipe, "--target", "none", "--out", "run",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {"teacher", "pruned", "distilled", "FP16", "INT8", "INT8, fused"}
    assert 0.4 < rows["INT8"]["macs"] / rows["teacher"]["macs"] <= 0.5
    assert all(row["accuracy"] is not None for row in rows.values())


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--target-macs", "0.3", "--target-fps", "20"), "the budget is given twice, as macs and as target_fps"),
        (("--target-params", "1M", "--ratio", "0.5"), "the budget is given twice, as params and as ratio"),
        (("--ratio", "1.5"), "setting 'prune.ratio': "),
        (("--ratio", "0"), "setting 'prune.ratio': "),
        (("--ratio", "nan"), "setting 'prune.ratio': "),
        (("--target-macs", "half"), "give a share such as 0.3 or 30%"),
        (("--target-macs", "7"), "7 is more than the whole"),
        (("--target-macs", "0.001"), "the narrowest network, with widths in steps of 8, keeps "),
        (("--target-fps", "20", "--on", "tpu"), "'tpu'"),
        (("--target-fps", "-3"), "setting 'prune.target_fps': "),
        (("--criterion", "best"), "setting 'prune.criterion': "),
        (("--leave-out", "nowhere"), "'nowhere'"),
        (("--spare", "nothing.json"), "nothing.json"),
        (("--model", "Unet-resnet18"), "--teacher and --model are given both."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused(run: Run, tiny_teacher: Path, tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    refused(run("prune", "--teacher", tiny_teacher, "--out", tmp_path / "run", *arguments), what)
    assert not list((tmp_path / "run").glob("pruned.*"))


def test_a_target_faster_than_the_narrowest_network(run: Run, tiny_teacher: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[bench]\nseconds = 0.05\nruns = 2\nrounds = 1\nwarm_up = 0.1\nthreads = 1\n")
    done = run(
        "prune", "--teacher", tiny_teacher, "--target-fps", 1e6, "--on", "onnxruntime", "--recipe", recipe,
        "--out", tmp_path / "run",
    )  # fmt: skip
    refused(done, "No pruning reaches 1e+06 FPS: the narrowest network")


@pytest.mark.parametrize(
    ("function", "what"),
    [("number", "no "), ("pooled", "logits"), ("text", "text"), ("absent", "absent")],
)
def test_a_factory_that_makes_no_segmentation_network(
    run: Run, factory: str, scenes: Path, function: str, what: str
) -> None:
    refused(run("prune", "--model", f"{factory}:{function}", "--data", scenes, "--out", "run"), what)


@pytest.mark.parametrize(
    "command",
    [
        ("export", "--checkpoint", "net.pt", "--out", "net.onnx"),
        ("prune", "--teacher", "net.pt", "--out", "run"),
        ("compress", "--teacher", "net.pt", "--out", "run"),
    ],
    ids=lambda command: command[0],
)
def test_a_size_that_a_network_does_not_take(run: Run, factory: str, scenes: Path, command: tuple[str, ...]) -> None:
    """Its embedding of positions is of 64 x 64 pixels."""
    from edpct.data.scenes import SCENE_TASK
    from edpct.models.adopt import adopt
    from edpct.models.checkpoint import save_checkpoint

    sys.path.insert(0, str(Path.cwd()))
    save_checkpoint(Path("net.pt"), *adopt(f"{factory}:of_one_size", None, SCENE_TASK.at_size(64, 64), None))
    done = run(*command, "--data", scenes, "--size", 96)
    refused(done, f"{factory}:of_one_size cannot run on an image of 96x96 pixels (RuntimeError: The size of tensor")
    assert "Choose another input size." in done.err and not Path("net.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "There is no network to work on."),
        (("--model", "Unet-resnet18"), "The classes of Unet-resnet18 are not known."),
        (("--model", "Unett-resnet18", "--data", "SCENES"), "Unett"),
        (("--model", "no_such_package:make", "--data", "SCENES"), "no_such_package"),
        (("--model", "lraspp_mobilenet_v3_large", "--weights", "none.pt", "--data", "SCENES"), "none.pt"),
    ],
    ids=["nothing", "no-data", "unknown-name", "no-module", "no-weights"],
)
def test_no_network(run: Run, scenes: Path, arguments: tuple[str, ...], what: str) -> None:
    given = [str(scenes) if part == "SCENES" else part for part in arguments]
    refused(run("prune", *given, "--out", "run"), what)


def test_a_network_without_weights_is_not_compressed(run: Run, scenes: Path) -> None:
    done = run("compress", "--model", "lraspp_mobilenet_v3_large", "--data", scenes, "--out", "run")
    refused(done, "lraspp_mobilenet_v3_large has no weights to compress.")
    assert "--weights FILE" in done.err and not list(Path().iterdir())
