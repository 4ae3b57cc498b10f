"""What layouts share about masks: class colours, class tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from edpct.data.layouts import CLASS_FILE, LAYOUTS
from edpct.data.samples import Labels, decode_colours, read_mask
from edpct.errors import DataError
from edpct.task import IGNORE_INDEX, ClassInfo, Task

Colours = dict[tuple[int, int, int], int]


class ClassTable(BaseModel):
    """``classes.json``: classes in the order of their labels, and the ignored label."""

    model_config = ConfigDict(extra="forbid")

    classes: tuple[ClassInfo, ...]
    ignore_index: int = IGNORE_INDEX


def read_class_table(root: Path) -> Task:
    """The task that ``classes.json`` in a folder describes.

    Raises:
        DataError: it is not there, or cannot be used.
    """
    path = root / CLASS_FILE
    try:
        table = ClassTable.model_validate_json(path.read_text(encoding="utf-8"))
        return Task(classes=table.classes, ignore_index=table.ignore_index)
    except FileNotFoundError as error:
        raise DataError(f"There is no class table {path}.", LAYOUTS["folder"].structure) from error
    except (ValidationError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise DataError(f"The class table {path} cannot be used: {reason}.") from error


def colours_of(task: Task) -> Colours:
    """Label of each class's colour.

    Raises:
        DataError: two classes have the same; a mask of indices tells them apart all the same.
    """
    colours: Colours = {}
    for label, info in enumerate(task.classes):
        if info.colour in colours:
            other, code = task.names[colours[info.colour]], "#{:02X}{:02X}{:02X}".format(*info.colour)
            raise DataError(
                f"The classes '{other}' and '{info.name}' have the same colour {code}, so that a mask of colours does "
                "not tell them apart.",
                "Give every class a colour of its own, or save the masks as class indices.",
            )
        colours[info.colour] = label
    return colours


def read_coloured(colours: Colours, path: Path) -> Labels:
    """A mask of class colours as labels, (H, W), uint8.

    Raises:
        DataError: unreadable, or another colour in it.
    """
    return decode_mask_image(colours, read_mask(path), path)


def decode_mask_image(colours: Colours, mask: Image.Image, path: Path) -> Labels:
    """A mask of class colours that was read already; ``path`` is for the message."""
    return decode_colours(np.asarray(mask.convert("RGB")), colours, path)


def read_indices_or_colours(task: Task, path: Path) -> Labels:
    """A mask of class indices (8-bit grey or palette) or of class colours, as labels, (H, W), uint8.

    Raises:
        DataError: unreadable, of another pixel format, of a colour that two classes have, or another colour in it.
    """
    mask = read_mask(path)
    if mask.mode in ("P", "L"):  # palette masks hold the index; the palette is only for looking
        return np.array(mask)
    if mask.mode == "1" or mask.mode.startswith(("I", "F")):
        raise DataError(f"The mask {path} has the pixel format {mask.mode}.", "Save it as 8-bit indices or RGB.")
    return decode_mask_image(colours_of(task), mask, path)
