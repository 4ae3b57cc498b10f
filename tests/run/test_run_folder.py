"""The run folder: a stage counts once it is committed with a manifest, and while its files are what they were."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edpct.errors import RunError
from edpct.run.folder import RunFolder, full_disk_explained

KEY = "0123456789abcdef" * 4
MANIFEST = {"format": 1, "settings": {}, "parents": {}, "versions": {}, "finished": "2026-11-20 12:00:00"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def commit(folder: RunFolder, stage: str = "prune", key: str = KEY, **files: str) -> Path:
    """Write files into a workspace and commit it; the stage's folder."""
    workspace = folder.workspace(stage, key)
    for name, text in (files or {"weights": "abc"}).items():
        (workspace / name).write_text(text)
    return folder.commit(stage, key, dict(MANIFEST), {"ratio": 0.5}, 1.234).directory


def test_what_was_committed_is_found(folder: RunFolder) -> None:
    directory = commit(folder, weights="abc", notes="def")
    assert directory == folder.root / "stages" / f"prune-{KEY[:10]}"
    found, why = folder.find("prune", KEY)
    assert found is not None and found.directory == directory
    assert found.files == {
        name: hashlib.sha256(text).hexdigest() for name, text in (("notes", b"def"), ("weights", b"abc"))
    }
    assert found.facts == {"ratio": 0.5}
    assert found.seconds == 1.23
    assert why == "done 2026-11-20 12:00:00, 2 files verified"


def test_the_manifest_says_what_the_stage_was_made_of(folder: RunFolder) -> None:
    said = json.loads((commit(folder) / "manifest.json").read_text())
    assert said | MANIFEST == said
    assert (said["stage"], said["key"]) == ("prune", KEY)
    assert said["files"] == {"weights": hashlib.sha256(b"abc").hexdigest()}


def test_a_commit_moves_the_workspace(folder: RunFolder) -> None:
    workspace = folder.workspace("prune", KEY)
    commit(folder)
    assert not workspace.exists()


def test_what_is_not_committed_did_not_happen(folder: RunFolder) -> None:
    (folder.workspace("prune", KEY) / "weights").write_text("abc")
    assert folder.find("prune", KEY) == (None, "not done yet")


def test_another_key_says_that_something_changed(folder: RunFolder) -> None:
    commit(folder)
    assert folder.find("prune", "f" * 64) == (None, "settings or inputs changed")
    assert folder.find("distil", KEY) == (None, "not done yet")


def test_a_workspace_keeps_what_an_interrupted_attempt_left(folder: RunFolder) -> None:
    (folder.workspace("distil", KEY) / "resume.pt").write_text("step 5")
    assert (folder.workspace("distil", KEY) / "resume.pt").read_text() == "step 5"


def test_half_written_files_are_not_committed(folder: RunFolder) -> None:
    (folder.workspace("prune", KEY) / ".weights.partial").write_text("ab")
    directory = commit(folder)
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", "weights"]


def test_a_resume_point_is_not_committed(folder: RunFolder) -> None:
    """It holds times, so its hash differs from run to run, and with it the key of every later stage."""
    directory = commit(folder, weights="abc", **{"resume.pt": "step 5"})
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", "weights"]


# ---- damage


def damaged(folder: RunFolder, why: str) -> None:
    """The stage is no longer found, and set aside with everything in it."""
    directory = folder.root / "stages" / f"prune-{KEY[:10]}"
    before = {path.name for path in directory.iterdir()}
    found, said = folder.find("prune", KEY)
    assert found is None and why in said
    assert not directory.exists()
    aside = folder.root / "work" / f"damaged-1-prune-{KEY[:10]}"
    assert {path.name for path in aside.iterdir()} == before
    assert folder.find("prune", KEY)[0] is None


def test_an_altered_file_sets_the_stage_aside(folder: RunFolder) -> None:
    (commit(folder) / "weights").write_text("abd")
    damaged(folder, "weights was changed since")


def test_a_deleted_file_sets_the_stage_aside(folder: RunFolder) -> None:
    (commit(folder) / "weights").unlink()
    damaged(folder, "weights")


def test_a_deleted_manifest_sets_the_stage_aside(folder: RunFolder) -> None:
    (commit(folder) / "manifest.json").unlink()
    damaged(folder, "manifest")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"files": {}}', "\x00" * 40])
def test_a_damaged_manifest_sets_the_stage_aside(folder: RunFolder, text: str) -> None:
    (commit(folder) / "manifest.json").write_text(text)
    damaged(folder, "manifest")


def test_damaged_twice_both_are_kept(folder: RunFolder) -> None:
    for text in ("first", "second"):
        (commit(folder) / "weights").write_text(text)
        folder.find("prune", KEY)
    kept = [(folder.root / "work" / f"damaged-{n}-prune-{KEY[:10]}" / "weights").read_text() for n in (1, 2)]
    assert kept == ["first", "second"]


# ---- the lock


HOLD = """
import sys, time
from pathlib import Path
from edpct.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(
    folder: RunFolder, cli_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-c", HOLD, str(folder.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cli_environment) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(RunError) as caught, folder.locked():
                pass
            assert caught.value.what == f"Another edpct is working in {folder.root}."
            assert caught.value.hint == "Wait for it, or choose another --out."
        finally:
            holder.kill()  # as the power switch would: the lock goes with the process
    with folder.locked():
        pass


# ---- the disk


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path / "run")
    assert caught.value.what.startswith(f"The run folder {tmp_path / 'run'} cannot be made: ")
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path / "run" / "deeper")
    assert caught.value.hint == "Choose another --out."


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "The disk of there is full."),
        (errno.EDQUOT, "The disk of there is full."),
        (errno.EROFS, "/x cannot be written."),
        (errno.EACCES, "/x cannot be written."),
    ],
)
def test_a_disk_that_cannot_be_written(number: int, what: str) -> None:
    with pytest.raises(RunError) as caught, full_disk_explained(Path("there")):
        raise OSError(number, "as the system says it", "/x")
    assert caught.value.what == what
    assert caught.value.hint


def test_other_errors_pass_through() -> None:
    with pytest.raises(ConnectionResetError), full_disk_explained(Path("there")):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_published_copy_is_whole_or_not_there(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = commit(folder) / "weights"
    assert folder.publish(source, "student").read_text() == "abc"

    def fill_up(_: Path, target: Path) -> None:
        target.write_text("a")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edpct.run.folder.shutil.copyfile", fill_up)
    with pytest.raises(OSError, match="No space"):
        folder.publish(source, "student")
    assert (folder.root / "student").read_text() == "abc"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_worked_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "")

    monkeypatch.setattr("fcntl.flock", refuse)
    with folder.locked():
        commit(folder)
    assert folder.find("prune", KEY)[0] is not None
