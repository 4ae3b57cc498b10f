"""``edpct data check`` as a user runs it: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.data.scenes import SCENE_TASK, write_scenes

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cli_environment: dict[str, str]) -> Run:
    """Run edpct in a process of its own."""

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edpct", *map(str, arguments)]
        done = subprocess.run(command, env=cli_environment, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return start


@pytest.fixture
def own_scenes(tmp_path: Path) -> Path:
    """Four made scenes in train and two in val, of 256 x 256 pixels, to spoil."""
    write_scenes(tmp_path / "scenes", train=4, val=2, size=256)
    return tmp_path / "scenes"


def test_a_good_data_set_passes_with_table_json_and_picture(run: Run, own_scenes: Path, tmp_path: Path) -> None:
    done = run("data", "check", own_scenes, "--size", 256, "--out", tmp_path / "out", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "| images | 4 | 2 |" in done.stdout and "| largest | 256x256 | 256x256 |" in done.stdout
    assert all(f"| {name} % | " in done.stdout for name in SCENE_TASK.names)
    assert f"Next: edpct train --data {own_scenes} --out runs/teacher" in done.stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert report == json.loads((tmp_path / "out/check.json").read_text())
    assert report["layout"] == "folder" and report["overlaps"] == []
    counted = sum(report["train"]["class_pixels"].values())
    assert counted == 4 * 256**2 == report["train"]["pixels"]
    with Image.open(tmp_path / "out/check.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(2**24)}
    assert {tuple(c.colour) for c in SCENE_TASK.classes} <= colours  # the legend


def test_a_bad_data_set_fails_with_every_problem(run: Run, own_scenes: Path, tmp_path: Path) -> None:
    images, masks = own_scenes / "train/images", own_scenes / "train/masks"
    (images / "scene_0000.png").write_bytes(b"no image")
    Image.fromarray(np.full((256, 256, 3), 77, np.uint8)).save(masks / "scene_0001.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "scene_0002.png")
    moved = np.asarray(Image.open(images / "scene_0003.png"))[37:237, 3:203]
    for kind, pixels in (("images", moved), ("masks", np.zeros((200, 200), np.uint8))):
        Image.fromarray(pixels).save(own_scenes / f"val/{kind}/again.png")
    done = run("data", "check", own_scenes, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"- The image {images / 'scene_0000.png'} cannot be read: damaged, cut short, or no image." in done.stdout
    assert "scene_0002.png is 9x9 pixels but its image is 256x256." in done.stdout
    assert "| #4D4D4D | train | 1 |" in done.stdout
    assert "| val/images/again.png | train/images/scene_0003.png | 100 |" in done.stdout
    assert "error: 2 files of train cannot be used.\n" in done.stdout
    assert "error: 1 of 3 val images show ground that is in train: 100 % of val/images/again.png" in done.stdout
    what, hint = done.stderr.splitlines()[-2:]
    assert what == f"edpct: {own_scenes} has 3 problems, see above." and hint.strip()
    assert (tmp_path / "out/check.png").is_file()
    assert len(json.loads((tmp_path / "out/check.json").read_text())["findings"]) >= 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "There is no data folder nowhere."),
        ((".", "--layout", "cityscapes"), "The layout 'cityscapes' is unknown."),
        ((".", "--size", "0"), "--size 0 is no size."),
        ((".", "--json", "nowhere/a.json"), "There is no folder nowhere to write a.json to."),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_sentence(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("data", "check", *arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"edpct: {said}") and len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", [("train",), ("bench",), ("data", "check"), ("sensitivity",)])
def test_help_names_every_layout(run: Run, command: tuple[str, ...]) -> None:
    shown = "".join(run(*command, "--help").stdout.split())  # lines are broken at hyphens, too
    assert "folder,geotiff,dubai,loveda,vaihingen,vaihingen-eroded,potsdam,potsdam-erodedoruavid" in shown
