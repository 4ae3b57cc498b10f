"""Files of plain tensors, safetensors or of ``torch.save``, read without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from edpct import weights
from edpct.errors import CheckpointError


def read_tensor_file(path: Path, hint: str) -> tuple[Any, dict[str, str]]:
    """What a file holds: tensors by name, or whatever plain containers of tensors ``torch.save`` was given.

    The content decides on the format, not the suffix.

    Args:
        hint: what to do where the file is not there, or is something else.

    Returns:
        The content, and the metadata of a safetensors file.

    Raises:
        CheckpointError: missing, a directory, empty, truncated, of another format, or with objects inside.
    """
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint {path}.", weights.names_like(path) or hint)
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory, not a checkpoint.", "Name the file in it, such as teacher.pt.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty.", "Copy or train it again.")
    with path.open("rb") as file:
        head = file.read(9)
    if head[:4] == b"PK\x03\x04":
        return _read_torch(path), {}
    if len(head) == 9 and head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        raise CheckpointError(
            f"{path} is a bare pickle, which could run code when loaded; edpct does not open it.",
            "Save its state_dict with torch.save (zip format) or as safetensors.",
        )
    raise CheckpointError(f"{path} is neither a torch file nor safetensors.", hint)


def _read_safetensors(path: Path) -> tuple[Any, dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copied out of the file: its places are not aligned as torch's are, and sums then round differently.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short.", "Copy it again.") from error


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.ZipFile(path).testzip() is not None:
            raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds objects other than tensors; edpct runs no code from a checkpoint, so it was not loaded.",
            "Save only its state_dict.",
        ) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short.", "Copy it again.") from error
