"""``package.json``, the manifest of a package: which files it holds, and which of them are engines."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from edpct.card import Precision

MANIFEST = "package.json"
CHECKSUMS = "SHA256SUMS"
PLANS = (".plan", ".engine")
# Flat, and the same on every file system: no folder, drive, backslash, "..", hidden file or control character.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# From what is best to what is last: suffixes, precision. Plans stand first, where they fit the machine. FP16 graphs
# come late, since a CPU computes them in FP32 with conversions on top.
PREFERENCE: tuple[tuple[tuple[str, ...], Precision], ...] = (
    (PLANS, "int8"),
    (PLANS, "fp16"),
    (PLANS, "fp32"),
    ((".onnx",), "int8"),
    ((".onnx",), "fp32"),
    ((".onnx",), "fp16"),
    ((".safetensors",), "fp32"),
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    """One file: its name in the archive, SHA-256 in 64 hexadecimal digits, and size in bytes."""

    name: str = Field(pattern=f"^{PLAIN_NAME.pattern}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class EngineEntry(FileEntry):
    """One engine.

    Attributes:
        precision: what its weights and activations are stored in.
        runtimes: rows of :data:`edpct.runtimes.table.RUNTIMES` that open it.
    """

    precision: Precision
    runtimes: tuple[str, ...]


class Manifest(_Part):
    """The manifest.

    Attributes:
        kind, format: what tells a package from other archives, and its version.
        edpct: version that wrote it.
        default: name of the engine that is opened where no plan fits and none is named.
        engines: in the order of :data:`PREFERENCE`.
        files: everything else but the manifest itself and the list of checksums.
    """

    kind: Literal["edpct package"] = "edpct package"
    format: Literal[1] = 1
    edpct: str
    default: str
    engines: Annotated[tuple[EngineEntry, ...], Field(min_length=1)]
    files: tuple[FileEntry, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name.lower() for entry in self.entries()]
        if len(set(names)) != len(names):
            raise ValueError("a name is there twice")
        if self.default not in [engine.name for engine in self.engines]:
            raise ValueError("the default is no engine")
        return self

    def entries(self) -> tuple[FileEntry, ...]:
        """All files that it vouches for."""
        return (*self.engines, *self.files)

    def entry(self, name: str) -> FileEntry | None:
        """The file of a name."""
        return next((entry for entry in self.entries() if entry.name == name), None)


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot."""
    return f".{name.rpartition('.')[2].lower()}"


def rank(name: str, precision: Precision) -> tuple[int, bool, int, str]:
    """Where an engine stands among others, the best first; fused before plain, then the shorter name."""
    row = next(
        (row for row, (suffixes, of) in enumerate(PREFERENCE) if suffix_of(name) in suffixes and of == precision),
        len(PREFERENCE),
    )
    return row, "-fused" not in name, len(name), name
