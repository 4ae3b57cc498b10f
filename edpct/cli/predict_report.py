"""What ``edpct predict`` found, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edpct.task import Task


def report(
    task: Task, pixels: NDArray[np.int64], square_metres: NDArray[np.float64] | None, on: str, json_file: Path | None
) -> None:
    """Table of pixels, share and area per class; the same as JSON."""
    import json
    from contextlib import suppress

    from edpct.cli.screen import show_table
    from edpct.errors import RunError
    from edpct.predict.part import part_of

    total = max(int(pixels.sum()), 1)
    header = ["class", "colour", "pixels", "share %"] + ([] if square_metres is None else ["area m²"])
    colours = ["#{:02x}{:02x}{:02x}".format(*entry.colour) for entry in task.classes]
    lines = []
    for index, name in enumerate(task.names):
        line = [name, colours[index], str(int(pixels[index])), f"{100 * pixels[index] / total:.1f}"]
        lines.append(line if square_metres is None else [*line, f"{square_metres[index]:.0f}"])
    show_table(header, lines)
    if json_file is not None:
        classes = [
            {"name": name, "colour": colours[index], "pixels": int(pixels[index])}
            | ({} if square_metres is None else {"area_m2": float(square_metres[index])})
            for index, name in enumerate(task.names)
        ]
        text = json.dumps({"classes": classes, **({"area_on": on} if on else {})}, indent=1)
        grown = part_of(json_file)
        try:
            grown.write_text(text + "\n", encoding="utf-8")
            grown.replace(json_file)
        except OSError as error:
            raise RunError(f"{json_file} cannot be written: {error.strerror}.", "Choose another --json.") from error
        finally:
            with suppress(OSError):
                grown.unlink()
        typer.echo(f"Wrote {json_file}.")
