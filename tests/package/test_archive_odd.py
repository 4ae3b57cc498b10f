"""Archives that are damaged or made to do harm: one sentence, and nothing on the disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from odd_archives import ENGINE, SAID, damaged, odd_archives
from toy_engines import SIDE, expected_classes
from toy_runs import write_run
from typer.testing import CliRunner

from edpct import Segmenter
from edpct.archive.locate import located
from edpct.cli.main import app
from edpct.errors import EngineError
from edpct.package.write import package


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return package(write_run(folder / "run"), folder / "student.zip").path


@pytest.fixture(scope="module")
def archives(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(odd_archives(tmp_path_factory.mktemp("odd"), sound))


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, archives: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither beside the archives, nor where the command runs, nor above; and nothing half-unpacked in the cache."""
    here = tmp_path / "a" / "b" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    home = next(iter(archives.values())).parents[1]
    before = files_in(home)
    yield
    assert files_in(home) == before
    assert [path for path in files_in(tmp_path) if path.name.startswith(".") or "escaped" in path.name] == []
    assert files_in(tmp_path / "a") == []
    assert not Path("/tmp/escaped.txt").exists()


@pytest.mark.parametrize("name", SAID)
def test_the_segmenter_says_what_is_wrong(archives: dict[str, Path], cache: Path, name: str) -> None:
    with pytest.raises(EngineError) as caught:
        Segmenter(archives[name])
    assert SAID[name] in caught.value.what
    assert caught.value.what.endswith(".")
    for sentence in (caught.value.what, caught.value.hint):
        assert sentence.isprintable() and 10 < len(sentence) < 300
    assert files_in(cache) == []


@pytest.mark.parametrize("name", SAID)
def test_the_command_exits_with_2(archives: dict[str, Path], cache: Path, name: str) -> None:
    done = CliRunner().invoke(app, ["bench", "--engine", str(archives[name]), "--no-accuracy"])
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("edpct: ") and SAID[name] in done.stderr and len(done.stderr.splitlines()) == 2
    assert done.stdout == "" and files_in(cache) == []


def test_a_process_of_its_own_ends_without_a_traceback(
    archives: dict[str, Path], cli_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "edpct", "bench", "--engine", str(archives["lying-bomb"])]
    done = subprocess.run(command, env=cli_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edpct: ") and "Traceback" not in done.stderr and ENGINE in done.stderr


def test_a_missing_archive() -> None:
    for name in ("nowhere.zip", "nowhere.zip:student.onnx"):
        with pytest.raises(EngineError, match=r"There is no file nowhere\.zip\."):
            located(Path(name))


def test_an_archive_cut_anywhere(sound: Path, tmp_path: Path, cache: Path) -> None:
    content, cut = sound.read_bytes(), tmp_path / "cut.zip"
    for length in {*range(0, len(content), 97), *range(len(content) - 150, len(content))}:
        cut.write_bytes(content[:length])
        with pytest.raises(EngineError):
            located(cut)
    assert files_in(cache) == []


def test_an_archive_damaged_anywhere_gives_the_right_bytes_or_none(sound: Path, tmp_path: Path, cache: Path) -> None:
    whole, opened = located(sound).read_bytes(), 0
    for seed in range(400):
        try:
            path = located(damaged(sound, tmp_path / "damaged.zip", seed))
        except EngineError as error:
            assert error.what.isprintable() and len(error.what) < 300
            continue
        assert path.read_bytes() == whole or path.name != ENGINE  # damage may hit what was not asked for
        opened += 1
    assert 0 < opened < 400
    assert [path for path in files_in(cache) if path.name.startswith(".")] == []


def test_the_sound_one_opens(sound: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with Segmenter(sound) as seg:
        np.testing.assert_array_equal(seg(image), expected_classes(image))
