"""Runs of a comparison: what is tuned, what is made once only, and what the page says of it."""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from study import Key, Run, Study, by_seed, mean_and_spread, written

from edpct.card import Card
from edpct.data.layouts import open_dataset
from edpct.errors import RunError
from edpct.models.checkpoint import save_checkpoint
from edpct.models.dpctnet import dpctnet
from edpct.progress import Silent

VALUES = (0.1, 0.2, 0.4)
BUDGET = (400, 8, 256)
# mIoU by variant, value and seed: the best value on seed 0 is 0.2 for "a" and 0.4 for "b".
SCORES = {"a": {0.1: 40.0, 0.2: 50.0, 0.4: 45.0}, "b": {0.1: 10.0, 0.2: 20.0, 0.4: 30.0}}


def _made(key: Key) -> Run:
    variant, value, seed, *_ = key
    miou = SCORES[variant][value] - 4 * seed
    return Run(*key, miou=miou, iou={"road": miou}, loss=1.0, seconds=0.0)


def _tuned(path: Path, made: list[Key], stop_after: int = 1000) -> dict[str, list[Run]]:
    def make(key: Key) -> Run:
        if len(made) == stop_after:
            raise KeyboardInterrupt
        made.append(key)
        return _made(key)

    return Study(path, Silent()).tuned(["a", "b"], lambda _: VALUES, 3, BUDGET, make)


def test_each_variant_is_tuned_on_the_first_seed_and_repeated_at_its_best(tmp_path: Path) -> None:
    made: list[Key] = []
    found = _tuned(tmp_path / "study.json", made)
    assert [(run.value, run.seed) for run in found["a"]] == [(0.2, 0), (0.2, 1), (0.2, 2)]
    assert [run.miou for run in found["b"]] == [30.0, 26.0, 22.0]
    assert len(made) == len(set(made)) == 2 * (3 + 2)
    assert [key[:3] for key in made[:2]] == [
        ("a", 0.1, 0),
        ("b", 0.1, 0),
    ]  # in turns


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_a_stopped_study_goes_on_without_making_a_run_twice(tmp_path: Path, stop_after: int) -> None:
    path, made, rest = tmp_path / "study.json", list[Key](), list[Key]()
    with pytest.raises(KeyboardInterrupt):
        _tuned(path, made, stop_after)
    assert len(json.loads(path.read_text())["runs"]) == stop_after
    found = _tuned(path, rest)
    assert not set(made) & set(rest) and len(made) + len(rest) == 10
    assert {name: [run.miou for run in runs] for name, runs in found.items()} == {
        "a": [50.0, 46.0, 42.0],
        "b": [30.0, 26.0, 22.0],
    }
    assert by_seed("a", Study(path, Silent()).runs) == found["a"]


def _work(path: Path, log: Path, start: Barrier) -> None:
    def make(key: Key) -> Run:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {key[0]} {key[1]} {key[2]}\n")
        time.sleep(0.05)
        return _made(key)

    start.wait()
    Study(path, Silent()).tuned(["a", "b"], lambda _: VALUES, 3, BUDGET, make)


def test_two_processes_share_the_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.PAUSE", 0.01)
    context = multiprocessing.get_context("fork")
    path, log, start = tmp_path / "study.json", tmp_path / "log", context.Barrier(2)
    workers = [context.Process(target=_work, args=(path, log, start)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert len({who for who, _ in lines}) == 2
    assert len(lines) == len({what for _, what in lines}) == len(Study(path, Silent()).runs) == 10
    assert list(tmp_path.glob(".*.lock")) == []


def test_what_a_process_that_died_was_at_is_taken_anew(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "study.json"

    def die(key: Key) -> Run:
        os.kill(os.getpid(), signal.SIGKILL)
        return _made(key)

    key = ("a", 0.2, 0, *BUDGET)
    worker = context.Process(target=lambda: Study(path, Silent()).all([key], die))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL and not path.exists()
    assert Study(path, Silent()).all([key], _made)[key].miou == 50.0


def test_mean_and_spread_are_those_of_the_statistics_module(tmp_path: Path) -> None:
    runs = _tuned(tmp_path / "study.json", [])["a"]
    assert mean_and_spread(runs) == (46.0, pytest.approx(statistics.stdev([50.0, 46.0, 42.0])))
    assert written(runs) == "46.00 ± 4.00" and written(runs[:1]) == f"{runs[0].miou:.2f}"
    assert mean_and_spread(runs[:1]) == (50.0, 0.0)


# ---- what runs are made of


def test_a_study_keeps_what_it_is_made_of_and_is_not_mixed(tmp_path: Path) -> None:
    path, keys = tmp_path / "study.json", [("a", value, 0, *BUDGET) for value in VALUES]
    Study(path, Silent()).all(keys[:1], _made)
    assert json.loads(path.read_text()).keys() == {"runs"}
    ours = {"teacher": "0" * 64, "macs": 0.125}
    assert len(Study(path, Silent(), ours).all(keys[:1], _made)) == 1  # a file that does not say it goes on being used
    Study(path, Silent(), ours).all(keys[:2], _made)
    content = json.loads(path.read_text())
    assert content["made_of"] == ours and [run["value"] for run in content["runs"]] == [0.1, 0.2]
    for other, named in (("teacher", "--teacher"), ("macs", "--macs")):
        with pytest.raises(RunError) as caught:
            Study(path, Silent(), {**ours, other: 0.25})
        assert caught.value.what == f"What is in {path} was made with another {named}."
        assert caught.value.hint == "Give the same as then, or another --out and --work."
    assert len(Study(path, Silent(), ours).runs) == 2


def _teacher(path: Path, data: Path, seed: int) -> Path:
    task = open_dataset(data).task.at_size(128, 128)
    torch.manual_seed(seed)
    save_checkpoint(path, dpctnet("tiny", 5), Card(network="DP-CTNet tiny", task=task, parameters=1, macs=1))
    return path


def _digest(teacher: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(teacher, weights_only=True)["state_dict"].items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()))
    return digest.hexdigest()


@pytest.mark.parametrize("where", ["out/distillation.json", "work/made_of.json"])
def test_the_distillation_of_another_teacher_is_refused(
    dubai: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    teacher = _teacher(tmp_path / "teacher.pt", dubai, 0)
    ours = {"teacher": _digest(teacher), "macs": 0.5}
    (tmp_path / where).parent.mkdir()
    content = {"made_of": ours, "runs": []} if where.startswith("out") else ours
    (tmp_path / where).write_text(json.dumps(content))
    nothing = dict.fromkeys(("pruned", "compare"), lambda *_: None)
    distillation = _study("distillation", monkeypatch, **nothing, page=lambda *_: "")
    (tmp_path / "out").mkdir(exist_ok=True)
    arguments = ("--data", dubai, "--teacher", teacher, "--work", tmp_path / "work", "--out", tmp_path / "out")
    assert distillation(*arguments, "--macs", 0.5) == 0
    assert distillation(*arguments, "--macs", 0.25) == 2
    same = _teacher(tmp_path / "teacher.safetensors", dubai, 0)
    assert distillation(*arguments, "--teacher", same, "--macs", 0.5) == 0
    assert "was made with another --macs. Give the same as then," in capsys.readouterr().err
    _teacher(teacher, dubai, 1)
    assert distillation(*arguments, "--macs", 0.5) == 2
    assert "was made with another --teacher. Give the same as then," in capsys.readouterr().err


class BegunError(Exception):
    """The study has begun."""


@pytest.mark.parametrize(
    ("name", "function", "place", "options"),
    [
        ("criteria", "run", 6, ("--teacher",)),
        ("qat", "result", 6, ("--teacher", "--student")),
        ("quantisers", "trained", 3, ()),
    ],
)
def test_what_is_kept_for_other_files_is_not_taken(
    dubai: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    function: str,
    place: int,
    options: tuple[str, ...],
) -> None:
    seen: list[Path] = []

    def begin(*arguments: Any) -> None:
        seen.append(arguments[place])
        raise BegunError

    module = importlib.import_module(name)
    monkeypatch.setattr(module, function, begin)
    data = Path(shutil.copytree(dubai, tmp_path / "data"))
    files = {option: _teacher(tmp_path / f"{option}.pt", data, number) for number, option in enumerate(options)}

    def work() -> Path:
        given = [part for option, file in files.items() for part in (option, file)]
        command = [f"{name}.py", "--data", data, "--work", tmp_path / "work", *given]
        monkeypatch.setattr("sys.argv", [*map(str, command)])
        with pytest.raises(BegunError):
            module.main()
        return seen[-1]

    first = work()
    assert work() == first and first.parent == tmp_path / "work" and first.is_dir()
    for file in files.values():
        _teacher(file, data, 10)
        assert seen.count(work()) == 1
    shutil.copy(data / "Tile 4/images/image_part_001.jpg", data / "Tile 4/images/image_part_002.jpg")
    shutil.copy(data / "Tile 4/masks/image_part_001.png", data / "Tile 4/masks/image_part_002.png")
    assert seen.count(work()) == 1


# ---- the two studies themselves, tiny


@pytest.fixture(scope="module")
def dubai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the layout of the Dubai set: one tile to train on, one to validate on."""
    root, rng = tmp_path_factory.mktemp("dubai"), np.random.default_rng(0)
    colours = np.array([(0x3C, 0x10, 0x98), (0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4), (0xE2, 0xA9, 0x29)], np.uint8)
    for tile in (4, 2):
        for kind in ("images", "masks"):
            (root / f"Tile {tile}" / kind).mkdir(parents=True)
        labels = rng.integers(0, len(colours), (12, 12)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(colours[labels] // 2).save(root / f"Tile {tile}/images/image_part_001.jpg")
        Image.fromarray(colours[labels]).save(root / f"Tile {tile}/masks/image_part_001.png")
    return root


SMALL = ("--steps", "2", "--batch", "1", "--crop", "64", "--seeds", "2")


def _study(name: str, monkeypatch: pytest.MonkeyPatch, **values: object) -> Callable[..., int]:
    """The study's command line, with fewer values to try."""
    module = importlib.import_module(name)
    for key, value in values.items():
        monkeypatch.setattr(module, key, value)

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments), *SMALL])
        code: int = module.main()
        return code

    return run


def test_the_ablation_makes_its_page(dubai: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("DP-CTNet", "without FRM", "FPN-ResNet18")
    ablation = _study("ablation", monkeypatch, RATES=(1e-3,))
    arguments = ("--data", dubai, "--preset", "tiny", "--work", tmp_path / "work", "--out", tmp_path / "out")
    assert ablation(*arguments, "--only", *names) == 0
    runs = json.loads((tmp_path / "out/ablation-tiny.json").read_text())["runs"]
    assert sorted((run["variant"], run["seed"]) for run in runs) == sorted((n, s) for n in names for s in (0, 1))
    page = (tmp_path / "out/ablation-tiny-2.md").read_text()  # two steps: no page of the whole table
    for name in names:
        scores = [run["miou"] for run in runs if run["variant"] == name]
        assert f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}" in page
    assert re.search(r"- FPN-ResNet18: [+-][\d.]+ points for the whole, (within|more than) the larger spread", page)
    kept = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert len(kept) == len(runs) and all(name.endswith(".safetensors") for name in kept)
    before = (tmp_path / "out/ablation-tiny.json").read_bytes()
    assert ablation(*arguments, "--only", *names) == 0  # nothing is left to do
    assert (tmp_path / "out/ablation-tiny.json").read_bytes() == before


def test_the_distillation_makes_its_page(dubai: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = _teacher(tmp_path / "teacher.pt", dubai, 0)
    rivals = {"KL": (1.0, "kl"), "IFVD": (200.0, "ifvd")}
    below = {"AKD, prototype alone": "prototype"}
    distillation = _study("distillation", monkeypatch, RATES=(1e-3,), FACTORS=(1.0,), RIVALS=rivals, BELOW=below)
    arguments = ("--data", dubai, "--teacher", teacher, "--macs", 0.5)
    assert distillation(*arguments, "--work", tmp_path / "work", "--out", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out/distillation.json").read_text())
    assert content["made_of"] == {"teacher": _digest(teacher), "macs": 0.5}
    runs = content["runs"]
    pairs = ("KL and AKD, prototype", "KL and IFVD")
    ways = ("no distillation", "AKD", "KL", "IFVD", "AKD, prototype alone", "AKD and KL", *pairs)
    assert sorted((run["variant"], run["seed"]) for run in runs) == sorted((w, s) for w in ways for s in (0, 1))
    assert len({run["loss"] for run in runs}) == len(runs), "two ways came out alike"
    page = (tmp_path / "out/distillation.md").read_text()
    for way in ways:
        scores = [run["miou"] for run in runs if run["variant"] == way]
        assert f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}" in page
    for way in ("AKD", pairs[0]):
        assert f"- {way} against no distillation:" in page and f"- {way} against the best rival," in page
