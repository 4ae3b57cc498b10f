"""What the images in a folder of results are of, so that another call goes on with them, and counts them as well."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edpct.errors import RunError
from edpct.predict.part import part_of

STATE = ".edpct-predict.json"
SHARE = 20  # the state of a large folder takes long to write: for so many times as long it is then left alone


class Kept:
    """The state of a folder of results, in a file of its own in it.

    Args:
        out: the folder; made if it is not there.
        facts: what the results depend on, plain JSON values.
        classes: number of classes.

    Attributes:
        begun: whether the folder has results of these facts; else the state is to be written before the first.

    Raises:
        RunError: the folder cannot be made or read, or has results of other facts.
    """

    def __init__(self, out: Path, facts: dict[str, Any], classes: int) -> None:
        self._out, self._facts, self._classes, self._due = out, facts, classes, 0.0
        before: Any = None
        try:
            out.mkdir(parents=True, exist_ok=True)
            if (out / STATE).exists():
                before = json.loads((out / STATE).read_text(encoding="utf-8"))
        except OSError as error:
            raise self._unwritable(error) from error
        except ValueError:
            pass
        self.begun = isinstance(before, dict)
        pixels = before.pop("pixels", None) if self.begun else None
        self._pixels: dict[str, Any] = pixels if isinstance(pixels, dict) else {}
        if self.begun and before != facts:
            raise RunError(
                f"{out} has results of another engine or other settings.", "Choose another --out, or empty that folder."
            )

    def pixels(self, result: Path) -> NDArray[np.int64] | None:
        """Pixels of each class in a result, (C,); None where that is not known."""
        found = self._pixels.get(self._name(result))
        known = isinstance(found, list) and len(found) == self._classes and all(type(count) is int for count in found)
        return np.array(found, np.int64) if known else None

    def add(self, result: Path, pixels: NDArray[np.int64]) -> None:
        """A result is there, with so many pixels of each class, (C,). Written soon; at once while there are few."""
        self._pixels[self._name(result)] = pixels.tolist()
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write all that was added.

        Raises:
            RunError: the folder cannot be written.
        """
        began = time.monotonic()
        grown = part_of(self._out / STATE)
        try:
            grown.write_text(json.dumps({**self._facts, "pixels": self._pixels}), encoding="utf-8")
            grown.replace(self._out / STATE)
        except OSError as error:
            raise self._unwritable(error) from error
        now = time.monotonic()
        self._due = now + SHARE * (now - began)

    def _name(self, result: Path) -> str:
        return result.relative_to(self._out).as_posix()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"The folder {self._out} cannot be written: {error.strerror}.", "Choose another --out.")
