"""Which stages run again and which are skipped, with stages that only write files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edpct.progress import Silent
from edpct.run import plan
from edpct.run.folder import RunFolder
from edpct.run.plan import Desk, Stage, run_stages


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Line:
    """Three stages in a line, a -> b -> c; each writes its setting and what its parent wrote."""

    def __init__(self, root: Path) -> None:
        self.folder = RunFolder(root)
        self.ran: list[str] = []
        self.settings: dict[str, Any] = {"a": 1, "b": 1, "c": 1}
        self.formats: dict[str, int] = {}
        self.needs = {"a": (), "b": ("a",), "c": ("b",)}
        self.before: dict[str, Callable[[Desk], None]] = {}

    def stages(self) -> list[Stage]:
        return [
            Stage(
                name,
                self.needs[name],
                {"value": value},
                ("numpy", "no-such-package"),
                lambda d, n=name: self.work(n, d),
                format=self.formats.get(name, 1),
            )
            for name, value in self.settings.items()
        ]

    def work(self, name: str, desk: Desk) -> dict[str, Any]:
        self.ran.append(name)
        if name in self.before:
            self.before[name](desk)
        below = "".join(desk.file(parent, "text").read_text() for parent in self.needs[name])
        (desk.workspace / "text").write_text(f"{name}{self.settings[name]}{below}")
        return {"length": len(below)}

    def run(self) -> list[str]:
        """What was said; ``ran`` holds the stages that worked."""
        self.ran.clear()
        heard = Heard()
        self.done = run_stages(self.stages(), self.folder, heard)
        return heard.lines


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "run")


def test_all_run_once_in_order(line: Line) -> None:
    assert line.run() == ["[1/3] a: not done yet.", "[2/3] b: not done yet.", "[3/3] c: not done yet."]
    assert line.ran == ["a", "b", "c"]
    assert (line.done["c"].directory / "text").read_text() == "c1b1a1"
    assert line.done["c"].facts == {"length": 4}
    assert all(0 <= stage.seconds < 5 for stage in line.done.values())


def test_then_all_are_skipped_with_the_reason(line: Line) -> None:
    line.run()
    first = line.done
    said = line.run()
    assert line.ran == []
    for number, (text, name) in enumerate(zip(said, "abc", strict=True), 1):
        assert text.startswith(f"[{number}/3] {name}: skipped, done 20")
        assert text.endswith(", 1 files verified.")
    assert {n: (s.directory, s.files, s.facts) for n, s in line.done.items()} == {
        n: (s.directory, s.files, s.facts) for n, s in first.items()
    }


@pytest.mark.parametrize(("changed", "again"), [("a", ["a", "b", "c"]), ("b", ["b", "c"]), ("c", ["c"])])
def test_a_changed_setting_reruns_that_stage_and_what_reads_it(line: Line, changed: str, again: list[str]) -> None:
    line.run()
    line.settings[changed] = 2
    said = line.run()
    assert line.ran == again
    assert [text.split(": ", 1)[1] for text in said[3 - len(again) :]] == ["settings or inputs changed."] * len(again)


def test_going_back_to_former_settings_finds_what_they_made(line: Line) -> None:
    line.run()
    line.settings["b"] = 2
    line.run()
    line.settings["b"] = 1
    line.run()
    assert line.ran == []
    assert (line.done["c"].directory / "text").read_text() == "c1b1a1"


def test_a_change_that_leaves_the_files_as_they_were_stops_there(line: Line) -> None:
    """Keys go by the hashes of what a parent wrote, not by its settings."""
    line.run()
    real = line.work
    line.work = lambda name, desk: real(name, desk)  # type: ignore[method-assign]
    stages = line.stages()
    stages[0] = replace(stages[0], settings={"value": 1, "threads": 8})
    line.ran.clear()
    run_stages(stages, line.folder, Silent())
    assert line.ran == ["a"]


def test_a_stage_that_reads_nothing_of_the_changed_one_is_kept(line: Line) -> None:
    line.needs["c"] = ("a",)
    line.run()
    line.settings["b"] = 2
    line.run()
    assert line.ran == ["b"]


def test_another_version_of_a_package_reruns(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.run()
    monkeypatch.setattr(plan, "_version", lambda package: "99.0")
    line.run()
    assert line.ran == ["a", "b", "c"]


def test_another_format_of_a_stage_reruns_it(line: Line) -> None:
    line.run()
    line.formats["b"] = 2
    line.run()
    assert line.ran == ["b"]


def test_a_failure_keeps_what_was_finished(line: Line) -> None:
    def fail(desk: Desk) -> None:
        (desk.workspace / "text").write_text("half")
        raise RuntimeError("the power went")

    line.before["b"] = fail
    with pytest.raises(RuntimeError, match="the power went"):
        line.run()
    assert line.ran == ["a", "b"]
    line.before.clear()
    said = line.run()
    assert line.ran == ["b", "c"]
    assert said[0].startswith("[1/3] a: skipped, ")
    assert (line.done["c"].directory / "text").read_text() == "c1b1a1"


def test_an_altered_artefact_is_made_again(line: Line) -> None:
    line.run()
    (line.done["b"].directory / "text").write_text("b1a2")
    said = line.run()
    assert line.ran == ["b"]  # it writes what it wrote before, so that c still fits
    assert said[1] == "[2/3] b: text was changed since."
    assert (line.done["b"].directory / "text").read_text() == "b1a1"
    aside = [path.name for path in (line.folder.root / "work").iterdir()]
    assert aside == [f"damaged-1-{line.done['b'].directory.name}"]


def test_a_deleted_artefact_is_made_again(line: Line) -> None:
    line.run()
    (line.done["b"].directory / "text").unlink()
    line.run()
    assert line.ran == ["b"]


def test_an_interrupted_training_goes_on_in_its_own_workspace(line: Line) -> None:
    seen: list[int] = []

    def train(desk: Desk) -> None:
        point = desk.workspace / "steps"
        step = int(point.read_text()) if point.exists() else 0
        seen.append(step)
        point.write_text(str(step + 5))
        if step < 10:
            raise KeyboardInterrupt

    line.before["b"] = train
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            line.run()
    line.settings["b"] = 2  # other settings do not go on from there
    with pytest.raises(KeyboardInterrupt):
        line.run()
    line.settings["b"] = 1
    line.run()
    assert seen == [0, 5, 0, 10]


def test_seconds_of_a_stage_are_its_own_where_it_says_so(line: Line) -> None:
    """A training that was interrupted counts its earlier attempts."""
    stage = Stage("a", (), {}, (), lambda desk: {"seconds": 3600.0, "steps": 3})
    done = run_stages([stage], line.folder, Silent())["a"]
    assert done.seconds == 3600.0
    assert done.facts == {"steps": 3}
