"""Trained weights that come with the package, by name; each has a model card beside it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SHIPPED = {
    "dubai-small": "dubai-small/teacher.safetensors",
    "dubai-small-student": "dubai-small/student.safetensors",
}
"""File by name, relative to this folder."""


def shipped(path: Path) -> Path:
    """The file of a name of :data:`SHIPPED`; any other path as it is. A file of that name in the way wins."""
    name = str(path)
    return FOLDER / SHIPPED[name] if name in SHIPPED and not path.exists() else path
