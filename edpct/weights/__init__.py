"""Trained weights that come with the package, taken by name; each folder has a model card, README.md."""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent
SHIPPED = {
    "dubai-small": "dubai-small/teacher.safetensors",
    "dubai-small-student": "dubai-small/student.safetensors",
    "dubai-small-int8": "dubai-small/student-int8-fused.onnx",
}
"""File by name, relative to this folder."""


def shipped(path: Path) -> Path:
    """The file of a name of :data:`SHIPPED`; any other path as it is. A file of that name in the way wins."""
    name = str(path)
    return FOLDER / SHIPPED[name] if name in SHIPPED and not path.exists() else path


def names_like(path: Path) -> str:
    """A hint where a file is missing whose path could be meant for a name of :data:`SHIPPED`; empty for other paths."""
    if path.suffix or path.parent != Path():
        return ""
    near = difflib.get_close_matches(path.name, SHIPPED, n=1)
    return f"Did you mean {near[0]}?" if near else f"With edpct come {', '.join(SHIPPED)}."


def beside(path: Path, suffix: str) -> Path:
    """Where a file made of a checkpoint goes: beside it, or here under its name if it came with the package.

    Args:
        path: the checkpoint, as :func:`shipped` returned it.
        suffix: of the new file, with its dot.
    """
    names = {FOLDER / file: name for name, file in SHIPPED.items()}
    return Path(names[path] + suffix) if path in names else path.with_suffix(suffix)
