"""The journal of a bench: what it keeps, over how many sittings, and what a torn line costs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edpct.bench.journal import Journal
from edpct.errors import RunError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".page.html.journal"


def rounds(journal: Journal) -> list[Any]:
    return [entry["number"] for entry in journal.found("round")]


def test_what_was_added_is_found_in_the_next_sitting(path: Path) -> None:
    first = Journal(path, "key")
    assert first.sittings == 1 and first.found("round") == []
    first.add("round", number=0, turns={"0": [1.5, 2.25]})
    first.add("accuracy", row=3, name="Straße\u2028\n")
    second = Journal(path, "key")
    assert second.sittings == 2
    assert second.found("round") == [{"kind": "round", "number": 0, "turns": {"0": [1.5, 2.25]}}]
    assert second.found("accuracy") == [{"kind": "accuracy", "row": 3, "name": "Straße\u2028\n"}]
    second.add("round", number=1)
    assert rounds(second) == [0, 1]
    third = Journal(path, "key")
    assert rounds(third) == [0, 1] and third.sittings == 3


def test_every_entry_is_a_line_of_json(path: Path) -> None:
    journal = Journal(path, "key")
    journal.add("round", number=0)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["kind"] for line in lines] == ["start", "round"]


def test_an_entry_is_on_the_disk_when_add_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        assert Path(f"/proc/self/fd/{descriptor}").resolve() == path.resolve()
        synced.append(path.read_text(encoding="utf-8"))  # nothing may wait in a buffer by now

    journal = Journal(path, "key")
    monkeypatch.setattr(os, "fsync", sync)
    journal.add("round", number=0)
    assert len(synced) == 1
    assert synced[-1] == path.read_text(encoding="utf-8") and '"number": 0' in synced[-1]


def test_another_bench_begins_anew(path: Path) -> None:
    Journal(path, "key").add("round", number=0)
    other = Journal(path, "other key")
    assert other.sittings == 1 and rounds(other) == []
    again = Journal(path, "key")  # and the first is gone for good
    assert again.sittings == 1 and rounds(again) == []


@pytest.mark.parametrize("kept", [1, 10, -1], ids=["its first byte", "half of it", "all but the line's end"])
def test_a_torn_last_line_costs_that_entry_only(path: Path, kept: int) -> None:
    """The power went while the second round was written."""
    first = Journal(path, "key")
    first.add("round", number=0)
    whole = path.read_bytes()
    first.add("round", number=1)
    last = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + last[:kept])

    second = Journal(path, "key")
    assert second.sittings == 2
    assert rounds(second) == [0, 1][: 2 if kept == -1 else 1]
    second.add("round", number=2)
    third = Journal(path, "key")
    assert rounds(third) == rounds(second), "what was measured after the power came back was lost"
    assert third.sittings == 3


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b"[]\n", b"7\n", b"\xff\xfe\x00", b'{"kind": "round"}\n'])
def test_a_file_that_is_no_journal_begins_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    journal = Journal(path, "key")
    journal.add("round", number=0)
    assert journal.sittings == 1 and rounds(journal) == [0]
    assert rounds(Journal(path, "key")) == [0]


def test_finishing_removes_the_file(path: Path) -> None:
    journal = Journal(path, "key")
    assert path.exists()
    journal.finish()
    assert not path.exists()
    journal.finish()


def test_without_a_path_nothing_is_kept_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, "key")
    journal.add("round", number=0)
    assert journal.sittings == 1 and rounds(journal) == [0]
    journal.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        Journal(tmp_path / "nowhere" / "journal", "key")
    assert str(tmp_path / "nowhere" / "journal") in caught.value.what and caught.value.hint


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunError):
        Journal(tmp_path / "file" / "journal", "key")


def test_a_folder_where_the_journal_should_be(path: Path) -> None:
    path.mkdir()
    with pytest.raises(RunError):
        Journal(path, "key")


def test_a_disk_that_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path, "key")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        journal.add("round", number=0)
