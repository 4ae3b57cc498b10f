"""``edpct sensitivity`` through the real command line: its files, its resumption, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LEFT_OUT = ("cnn8", "transformer16", "transformer32", "refinement")
SMALL = ("--images", 2, "--ratio", 0.5, "--ratio", 0.25, *(part for name in LEFT_OUT for part in ("--leave-out", name)))


@dataclass(frozen=True)
class Answer:
    code: int | str | None
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: torch is imported once."""

    def start(*arguments: object) -> Answer:
        from edpct.cli.main import main

        monkeypatch.setattr(sys, "argv", ["edpct", "sensitivity", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return Answer(stop.value.code, *capsys.readouterr())

    return start


def refused(done: Answer, what: str) -> None:
    """Exit 2, one sentence with this text in it, and what to do on a line of its own."""
    assert done.code == 2, done.err
    said = done.err[done.err.rindex("edpct: ") :].splitlines()
    assert what in said[0], done.err
    assert len(said) <= 2 and all(line.startswith("       ") for line in said[1:])


@pytest.fixture(scope="module")
def analysed(
    tiny_teacher: Path, cli_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Answer]:
    """The file of one analysis, made by a process of its own, and what that process said."""
    out = tmp_path_factory.mktemp("analysed") / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "edpct", "sensitivity", "--teacher", tiny_teacher, "--out", out, *map(str, SMALL)],
        env=cli_environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return out, Answer(done.returncode, done.stdout, done.stderr)


def test_table_and_files(analysed: tuple[Path, Answer], tiny_teacher: Path) -> None:
    out, done = analysed
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    assert found["schema"] == 1 and found["ratios"] == [0.25, 0.5] and found["teacher"] == "teacher.pt"
    assert found["sample"]["windows"] == 2 and found["sample"]["split"] == "train"
    names = [group["name"] for group in found["groups"]]
    assert names and all(not name.startswith(LEFT_OUT) for name in names)
    shown = [line for line in done.out.splitlines() if line.startswith("| ")][2:]
    assert sorted(line.split(" | ")[0].removeprefix("| ") for line in shown) == sorted(names)
    drops = [group["measured"][1]["drop"] for group in found["groups"]]
    first = names[max(range(len(names)), key=drops.__getitem__)]
    assert shown[0].startswith(f"| {first} | ")
    assert done.out.splitlines()[-1] == f"Next: edpct compress --teacher {tiny_teacher} --spare {out}"
    assert sorted(path.name for path in out.parent.iterdir()) == ["found.html", "found.json", "found.md"]
    for name in names:
        assert f"| {name} | " in out.with_suffix(".md").read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_says_everything(
    analysed: tuple[Path, Answer],
) -> None:
    out, _ = analysed
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    assert not re.search(r"<script|https?://|url\(|<link|@import", page)
    for group in json.loads(out.read_text())["groups"]:
        assert group["name"] in page
    assert page.count("<svg") == 2 and "prefers-color-scheme: dark" in page


def test_what_is_finished_is_not_measured_again(run: Run, analysed: tuple[Path, Answer], tiny_teacher: Path) -> None:
    out, _ = analysed
    before = out.read_bytes()
    again = run("--teacher", tiny_teacher, "--out", out, *SMALL)
    assert again.code == 0 and "nothing to measure" in again.err
    assert "Pruning one by one" not in again.err and out.read_bytes() == before


def test_a_stopped_analysis_goes_on(
    analysed: tuple[Path, Answer], tiny_teacher: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In this process, so that measurements can be counted and stopped."""
    from edpct.progress import Silent
    from edpct.recipe import PruneSettings
    from edpct.run import sensitivity

    calls: list[int] = []
    real = sensitivity.scored_on

    def counted(stop_after: int) -> Callable[..., Callable[..., float]]:
        def make(*arguments: object) -> Callable[..., float]:
            evaluate = real(*arguments)  # type: ignore[arg-type]

            def measure(model: object) -> float:
                if len(calls) == stop_after:
                    raise KeyboardInterrupt
                calls.append(1)
                return evaluate(model)  # type: ignore[arg-type]

            return measure

        return make

    def analyse() -> None:
        settings = PruneSettings(images=2, leave_out=LEFT_OUT)
        sensitivity.analyse(tiny_teacher, None, None, settings, (0.25, 0.5), 0, out, 3, Silent())

    out = tmp_path / "found.json"
    monkeypatch.setattr(sensitivity, "scored_on", counted(2))
    with pytest.raises(KeyboardInterrupt):
        analyse()
    assert [path.name for path in tmp_path.iterdir()] == [".found.json.journal"]
    monkeypatch.setattr(sensitivity, "scored_on", counted(99))
    analyse()
    whole = json.loads(analysed[0].read_text())
    trials = {(group["name"], found["kept"]) for group in whole["groups"] for found in group["measured"]}
    widths = {(group["name"], group["width"]) for group in whole["groups"]}
    assert len(calls) == 1 + len(trials - widths)
    assert json.loads(out.read_text()) == whole
    assert not (tmp_path / ".found.json.journal").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--ratio", 1.5), "The pruning ratio 1.5 does not lie between 0 and 1."),
        (("--ratio", 0), "The pruning ratio 0 does not lie between 0 and 1."),
        (("--ratio", "nan"), "The pruning ratio nan does not lie between 0 and 1."),
        (("--criterion", "weight"), "setting 'prune.criterion': "),
        (("--images", 0), "setting 'prune.images': "),
        (("--seed", -1), "setting 'seed': "),
        (("--out", "nowhere/a.json"), "There is no folder nowhere for a.json."),
        (("--out", "a.html"), "The analysis goes to a .json file, and a.html is none."),
        (("--layout", "cityscapes"), "The layout 'cityscapes' is unknown."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_settings(
    run: Run, tiny_teacher: Path, scenes: Path, tmp_path: Path, arguments: tuple[object, ...], what: str
) -> None:
    refused(run("--teacher", tiny_teacher, "--data", scenes, "--out", tmp_path / "a.json", *arguments), what)
    assert not list(tmp_path.iterdir())


def test_no_teacher(run: Run, tmp_path: Path) -> None:
    refused(run("--teacher", tmp_path / "a.pt", "--out", tmp_path / "a.json"), "There is no ")
