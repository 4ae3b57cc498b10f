"""Running stages in order: what is finished is verified and skipped, the rest is done and committed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edpct.progress import Progress
from edpct.run.folder import Committed, RunFolder


@dataclass(frozen=True)
class Desk:
    """What a stage's work is given.

    Attributes:
        workspace: the folder to write artefacts to; may hold what an interrupted attempt left.
        parents: the stages it needs, by name.
    """

    workspace: Path
    parents: Mapping[str, Committed]
    progress: Progress

    def file(self, stage: str, name: str) -> Path:
        """Path of a parent's artefact."""
        return self.parents[stage].directory / name


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as it appears in the run folder.
        needs: stages whose files it reads.
        settings: everything else that decides its result, plain JSON values.
        packages: distributions whose version matters to the result.
        work: does it; returns facts for the manifest. A fact "seconds" replaces the time measured around it.
        format: raised when the stage's code changes so that former results must not be used.
    """

    name: str
    needs: tuple[str, ...]
    settings: Mapping[str, Any]
    packages: tuple[str, ...]
    work: Callable[[Desk], dict[str, Any]] = field(repr=False)
    format: int = 1


def run_stages(stages: Sequence[Stage], folder: RunFolder, progress: Progress) -> dict[str, Committed]:
    """Run stages in order and return them all, committed.

    The key of a stage hashes its settings, its parents' file hashes and the versions that matter; a committed stage of
    the same key whose files still have their hashes is skipped, and the reason is said.
    """
    done: dict[str, Committed] = {}
    for number, stage in enumerate(stages, 1):
        parents = {name: done[name] for name in stage.needs}
        manifest = _manifest(stage, parents)
        key = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        found, why = folder.find(stage.name, key)
        label = f"[{number}/{len(stages)}] {stage.name}"
        if found is not None:
            progress.say(f"{label}: skipped, {why}.")
            done[stage.name] = found
            continue
        progress.say(f"{label}: {why}.")
        began = time.monotonic()
        facts = stage.work(Desk(folder.workspace(stage.name, key), parents, progress))
        seconds = float(facts.pop("seconds", time.monotonic() - began))
        manifest["finished"] = datetime.now().isoformat(sep=" ", timespec="seconds")
        done[stage.name] = folder.commit(stage.name, key, manifest, facts, seconds)
    return done


def _manifest(stage: Stage, parents: Mapping[str, Committed]) -> dict[str, Any]:
    """What decides a stage's result; its hash is the stage's key."""
    return {
        "format": stage.format,
        "settings": dict(stage.settings),
        "parents": {name: parent.files for name, parent in parents.items()},
        "versions": {name: _version(name) for name in stage.packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
