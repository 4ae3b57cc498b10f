"""The log of a training: a CSV file with a row every few steps, and the same for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edpct.errors import MissingPackageError, RunError

LOG_FILE = "log.csv"
STEP, RATE, SECONDS, SPEED, MIOU, IOU = "step", "lr", "seconds", "images/s", "mIoU", "IoU "


def iou_columns(classes: Iterable[str]) -> list[str]:
    """The columns of the classes' IoU."""
    return [f"{IOU}{name}" for name in classes]


class TrainingLog:
    """``log.csv`` in a folder, and TensorBoard's event files beside it.

    Columns: step; seconds of training, earlier attempts included; images/s since the last row, validation left out;
    lr of the step; mIoU and IoU per class, 0..1, where the step was validated; loss and its terms, mean since the last
    row.

    Args:
        classes: names, in the order of their labels.
        step: that of the resume point, 0 at the start; rows beyond it are dropped, as their steps will be done again.
        tensorboard: whether event files are written.

    Raises:
        RunError: the log cannot be written.
        MissingPackageError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, classes: Iterable[str], step: int, tensorboard: bool) -> None:
        self.path = folder / LOG_FILE
        self.columns = [STEP, SECONDS, SPEED, RATE, MIOU, *iou_columns(classes)]
        self.board = _board(folder, step) if tensorboard else None
        rows = [row for row in read_log(self.path) if float(row[STEP]) <= step] if step else []
        self._rewrite(rows)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; columns that it lacks stay empty, one that is new gets its place at the end.

        Raises:
            RunError: the log cannot be written.
        """
        if row.keys() - set(self.columns):
            self._rewrite([*read_log(self.path), row])
        else:
            self._append(row)
        if self.board is not None:
            for name, value in row.items():
                if name != STEP and value is not None:
                    self.board.add_scalar(name.replace(IOU, "IoU/"), value, row[STEP])
            self.board.flush()

    def close(self) -> None:
        """Let go of the files."""
        if self.board is not None:
            self.board.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise _unwritable(self.path) from error

    def _rewrite(self, rows: list[Mapping[str, Any]]) -> None:
        """Write all rows anew, with every column that one of them has."""
        self.columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        partial = self.path.with_name(f".{LOG_FILE}.partial")
        try:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(rows)
            partial.replace(self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _unwritable(self.path) from error


def read_log(path: Path) -> list[Mapping[str, str]]:
    """The rows of a ``log.csv``; none where there is none. A row that a power cut left half is left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [row for row in rows if (row.get(STEP) or "").isdecimal() and None not in row.values() and None not in row]


def read_losses(path: Path) -> list[dict[str, float]]:
    """Of every row of a ``log.csv`` the step, the loss and its terms, by the names of their columns."""
    others = (SECONDS, SPEED, RATE, MIOU)
    return [
        {name: float(text) for name, text in row.items() if text and name not in others and not name.startswith(IOU)}
        for row in read_log(path)
    ]


def _unwritable(path: Path) -> RunError:
    return RunError(f"{path} cannot be written.", "Free some space or check the folder's permissions.")


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError("tensorboard", "a log for TensorBoard", "tensorboard") from error
    return SummaryWriter(str(folder), purge_step=step + 1)  # what was logged beyond the resume point is not shown
