"""What of a run folder goes into a package, and what keeps it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edpct.archive.manifest import PLAIN_NAME, PLANS, rank
from edpct.bench.report.schema import Report, read_report
from edpct.card import Card
from edpct.errors import DataError, EngineError, RunError
from edpct.runtimes.artefact import read_card, sha256_of
from edpct.runtimes.sidecar import check_plan, sidecar_path
from edpct.runtimes.table import runtimes_for

ENGINES = (".onnx", *PLANS)
WEIGHTS = "student.safetensors"
REPORT = "report.json"
_SHOWN = (REPORT, "report.html", "pictures.png")  # as they are, where they are there


@dataclass(frozen=True)
class Chosen:
    """One engine, or the weights.

    Attributes:
        runtimes: names of the runtimes that open it.
        sha256: of its bytes.
    """

    path: Path
    card: Card
    runtimes: tuple[str, ...]
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Contents:
    """Everything that a package is made of.

    Attributes:
        engines: the best first, see :data:`edpct.archive.manifest.PREFERENCE`.
        others: further files to copy.
        report: what was measured; None where the folder has no report.
    """

    engines: tuple[Chosen, ...]
    others: tuple[Path, ...]
    report: Report | None


def contents_of(run: Path, engines: Sequence[str], weights: bool) -> Contents:
    """Choose from a run folder, or from a folder with engines, and check that all belongs together.

    Args:
        engines: names of engines in it; empty: all but the teacher's.
        weights: take the student's weights too.

    Raises:
        RunError: no such folder, a compression that is not finished, or an engine that is not the file that the report
            measured under its name.
        DataError: no engines, or a name that cannot go into a package.
        EngineError: an engine that cannot be read or does not say what it is; a plan that nothing vouches for.
    """
    _require_finished(run)
    paths = [_named(run, name) for name in engines] if engines else _students(run)
    if weights:
        paths.append(_named(run, WEIGHTS))
    report = read_report(run / REPORT) if (run / REPORT).is_file() else None
    chosen = [_chosen(path) for path in dict.fromkeys(paths)]
    if report is not None:
        _require_measured(chosen, report)
    chosen.sort(key=lambda one: rank(one.name, one.card.precision))
    sidecars = [sidecar_path(one.path) for one in chosen if one.path.suffix.lower() in PLANS]
    shown = [run / name for name in _SHOWN if (run / name).is_file()]
    return Contents(tuple(chosen), (*sidecars, *shown), report)


def _require_finished(run: Path) -> None:
    if not run.is_dir():
        what = "is a file, not a run folder" if run.exists() else "is not there"
        raise RunError(f"{run} {what}.", "Name the folder that edpct compress wrote to (its --out).")
    if (run / "stages").is_dir() and not (run / REPORT).is_file():
        raise RunError(
            f"The run in {run} is not finished: it has no {REPORT} yet.",
            "Run the same edpct compress again; it goes on where it was.",
        )


def _students(run: Path) -> list[Path]:
    found = sorted(path for path in run.iterdir() if path.suffix.lower() in ENGINES and path.is_file())
    students = [path for path in found if path.name.startswith("student")]
    chosen = students or [path for path in found if not path.name.startswith(("teacher", "."))]
    if not chosen:
        raise DataError(
            f"{run} holds no engine of a student ({', '.join(ENGINES)}).",
            "Name the folder that edpct compress wrote to, or an engine in it with --engine NAME.",
        )
    return chosen


def _named(run: Path, name: str) -> Path:
    path = run / name
    if path.is_file() and path.parent == run:
        return path
    there = sorted(p.name for p in run.iterdir() if p.suffix.lower() in (*ENGINES, ".safetensors") and p.is_file())
    raise DataError(f"There is no {name} in {run}.", f"Choose from: {', '.join(there)}." if there else "")


def _chosen(path: Path) -> Chosen:
    if not PLAIN_NAME.fullmatch(path.name):
        raise DataError(
            f"{path.name} cannot go into a package by this name.", "Rename it: letters, digits, dot, dash, underscore."
        )
    card, suffix = read_card(path), path.suffix.lower()
    if card is None:
        raise EngineError(f"{path.name} does not say what it is (no edpct metadata).", "Export it with edpct.")
    if suffix in PLANS:
        check_plan(path)
        if not sidecar_path(path).is_file():  # trusted, so that it was not refused
            raise EngineError(f"{path.name} has no sidecar to go with it.", "Build it again with: edpct build")
    if suffix not in (*ENGINES, ".safetensors"):
        raise DataError(f"{path.name} is no engine.", f"Engines are {', '.join(ENGINES)}.")
    return Chosen(path, card, tuple(row.name for row in runtimes_for(path)), sha256_of(path))


def _require_measured(chosen: Sequence[Chosen], report: Report) -> None:
    """The numbers must be those of these very files: a run that was begun again may have replaced some."""
    measured = {row.file: row.sha256 for row in report.rows}
    for one in chosen:
        if measured.get(one.name, one.sha256) != one.sha256:
            raise RunError(
                f"{one.name} is not the file that {REPORT} measured (its SHA-256 differs).",
                "Run the same edpct compress again, so that both belong together.",
            )
