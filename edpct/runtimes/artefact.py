"""The card that travels with an engine, read without torch, onnx or onnxruntime.

An ONNX file is walked at its top level only: a protobuf message is a run of (field number, wire type, value),
and all but ``metadata_props`` is skipped by seeking, the graph and its hundreds of megabytes of weights
included.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edpct.card import CARD_KEY, Card
from edpct.errors import EngineError, MissingPackageError
from edpct.runtimes.content import require_file, sha256_of
from edpct.runtimes.sidecar import is_trusted, read_sidecar, sidecar_path

__all__ = ["read_card", "sha256_of"]

# Of ModelProto in onnx.proto.
_GRAPH, _OPSET_IMPORT, _METADATA_PROPS = 7, 8, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_HEADER = 100_000_000  # bytes, the safetensors format's own limit


class _ProtobufError(Exception):
    """The bytes are no protobuf message, or end inside a field."""


def read_card(path: Path) -> Card | None:
    """The card of an engine or checkpoint.

    Args:
        path: a .onnx, .plan, .engine, .safetensors or .pt file.

    Returns:
        The card, or None where the file is sound and carries none: a stranger's.

    Raises:
        EngineError: missing, damaged or of another kind; a plan without sidecar.
        MissingPackageError: a .pt file, and torch is not installed.
        CheckpointError: a .pt file that is no checkpoint of ours.
    """
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _parse(_onnx_metadata(path), path)
    if suffix in (".plan", ".engine"):
        return _plan_card(path)
    if suffix == ".safetensors":
        return _parse(_safetensors_metadata(path), path)
    if suffix == ".pt":
        return _checkpoint_card(path)
    raise EngineError(
        f"{path.name} is no engine or checkpoint that edpct knows.",
        "It opens .onnx, .plan, .engine, .safetensors and .pt.",
    )


def card_of(path: Path) -> Card:
    """The card of an engine.

    Raises:
        EngineError: it carries none.
        EngineError, MissingPackageError, CheckpointError: as :func:`read_card`.
    """
    card = read_card(path)
    if card is None:
        raise EngineError(
            f"{path.name} does not say what it is (no edpct metadata), so its input cannot be prepared.",
            "Export it with edpct.",
        )
    return card


def _plan_card(path: Path) -> Card | None:
    """Of its sidecar; of a trusted plan without one, of the ONNX file of the same name."""
    source = path.with_suffix(".onnx")
    if sidecar_path(path).exists() or not is_trusted(path):
        return read_sidecar(path).card
    if not source.exists():
        raise EngineError(
            f"{path.name} has no sidecar, so that nothing says its classes and its normalisation.",
            f"Put the ONNX file that it was built from beside it as {source.name}.",
        )
    return read_card(source)


def _parse(metadata: dict[str, str], path: Path) -> Card | None:
    text = metadata.get(CARD_KEY)
    return None if text is None else Card.from_json(text, path.name)


def _checkpoint_card(path: Path) -> Card:
    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", f"reading {path.name}", "compress")
    from edpct.models.checkpoint import read_card_of_checkpoint

    return read_card_of_checkpoint(path)


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """``__metadata__`` of the header: 8 bytes little-endian length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, path.stat().st_size - 8):
                raise ValueError("length of the header")
            metadata = json.loads(file.read(length)).get("__metadata__") or {}
            return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{path.name} is no safetensors file, or only part of one.", "Copy or save it again."
        ) from error


def _onnx_metadata(path: Path) -> dict[str, str]:
    metadata: dict[str, str] = {}
    seen: set[int] = set()
    try:
        with path.open("rb") as file:
            for number, value in _fields(file, path.stat().st_size, wanted=_METADATA_PROPS):
                seen.add(number)
                if number == _METADATA_PROPS:
                    key, text = _string_entry(value)
                    metadata[key] = text
    except (OSError, _ProtobufError, UnicodeDecodeError) as error:
        raise _not_onnx(path) from error
    if not {_GRAPH, _OPSET_IMPORT} <= seen:  # the checker of onnx asks for both
        raise _not_onnx(path)
    return metadata


def _not_onnx(path: Path) -> EngineError:
    return EngineError(f"{path.name} is not an ONNX model, or only part of one.", "Copy or export it again.")


def _string_entry(message: bytes) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto (fields 1 and 2)."""
    entry = {number: value.decode() for number, value in _fields(BytesIO(message), len(message), wanted=None)}
    return entry.get(1, ""), entry.get(2, "")


def _fields(file: BinaryIO, size: int, wanted: int | None) -> Iterator[tuple[int, bytes]]:
    """Field numbers of a message and, for the wanted one (None: for all), its bytes.

    Raises:
        _ProtobufError: a wire type that does not exist, or a field that ends after the message.
    """
    while file.tell() < size:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _varint(file)
            yield number, b""
            continue
        length = _length(file, wire)
        if number == 0 or file.tell() + length > size:
            raise _ProtobufError
        if wire == _BYTES and wanted in (None, number):
            yield number, file.read(length)
        else:
            file.seek(length, 1)
            yield number, b""


def _length(file: BinaryIO, wire: int) -> int:
    if wire == _BYTES:
        return _varint(file)
    if wire in (_FIXED64, _FIXED32):
        return 8 if wire == _FIXED64 else 4
    raise _ProtobufError


def _varint(file: BinaryIO) -> int:
    """Base-128, least significant group first, ten bytes at most."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _ProtobufError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _ProtobufError
