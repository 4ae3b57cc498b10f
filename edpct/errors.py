"""Every error that a user may meet, with what to do next.

::

    EdpctError                 one sentence what, one sentence what to do; the CLI prints both and exits 2
    ├── RecipeError            a setting is unknown, out of range or contradicts another
    ├── MissingPackageError    an optional package is not installed; carries the install command
    ├── DataError              images, masks or class tables that cannot be used
    │   └── UnknownLabelsError a mask holds colours or labels that are no class's; carries how many pixels of each
    ├── CheckpointError        weights that are not there, not ours, damaged or not finite
    ├── TrainingError          training cannot go on (loss not finite, nothing to learn from)
    ├── PruningError           a budget that cannot be met, a part that did not shrink
    ├── ExportError            torch to ONNX failed, or the graph does not compute what the network does
    ├── QuantisationError      FP16 or INT8 conversion failed
    ├── BuildError             TensorRT refused a graph
    ├── EngineError            an engine file that cannot be opened or does not fit its inputs
    └── RunError               the run folder cannot be written, or is in use by another process

Libraries' own exceptions are turned into these where the library is called, with ``raise ... from``.
"""

from __future__ import annotations

from typing import Any


class EdpctError(Exception):
    """Base of all errors shown to a user.

    Args:
        what: one sentence: what is wrong, naming the file or setting.
        hint: what to do next; may be empty.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, to another process: Python would call the class with ``what`` alone."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[EdpctError], args: tuple[Any, ...], values: dict[str, Any]) -> EdpctError:
    error = kind.__new__(kind, *args)
    vars(error).update(values)
    return error


class RecipeError(EdpctError):
    """A setting is unknown, out of range or contradicts another."""


class MissingPackageError(EdpctError):
    """An optional package is not installed.

    Args:
        package: name of the missing package as imported.
        purpose: what it is needed for, as a noun phrase ("opening a .plan").
        extra: the extra of edpct that brings it.
    """

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose[0].upper()}{purpose[1:]} needs the package {package}, which is not installed.",
            f"Install it with: pip install 'edpct[{extra}]'",
        )
        self.package = package


class DataError(EdpctError):
    """Images, masks or class tables that cannot be used."""


class UnknownLabelsError(DataError):
    """A mask holds colours or labels that are no class's.

    Attributes:
        pixels: how many pixels of each, keyed by ``#RRGGBB`` or by the label as a decimal number.
    """

    def __init__(self, what: str, hint: str, pixels: dict[str, int]) -> None:
        super().__init__(what, hint)
        self.pixels = pixels


class CheckpointError(EdpctError):
    """Weights that are not there, not ours, damaged or not finite."""


class TrainingError(EdpctError):
    """Training cannot go on."""


class PruningError(EdpctError):
    """A budget that cannot be met, or a part that did not shrink."""


class ExportError(EdpctError):
    """torch to ONNX failed, or the graph does not compute what the network does."""


class QuantisationError(EdpctError):
    """FP16 or INT8 conversion failed."""


class BuildError(EdpctError):
    """TensorRT refused a graph."""


class EngineError(EdpctError):
    """An engine file that cannot be opened, or does not fit its inputs."""


class RunError(EdpctError):
    """The run folder cannot be written, or another process is using it."""
