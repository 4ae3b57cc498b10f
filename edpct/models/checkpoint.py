"""Checkpoints: plain tensors, an architecture and a card, in safetensors or in a torch file.

Nothing in a checkpoint is executed when it is read: safetensors holds no code, and torch files go through
``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edpct.card import CARD_KEY, Card
from edpct.errors import CheckpointError, EngineError, RunError
from edpct.models.architecture import Architecture, rebuild

ARCHITECTURE_KEY = "architecture"
TRAIN_HINT = "Train a teacher with: edpct train --data DIR --out DIR"


@dataclass(frozen=True)
class Checkpoint:
    """A network rebuilt from a file, in eval mode, on the CPU."""

    model: nn.Module
    architecture: Architecture
    card: Card


def save_checkpoint(path: Path, model: nn.Module, card: Card) -> None:
    """Write a network so that :func:`load_checkpoint` rebuilds it, pruned or not.

    The suffix chooses the format: ``.safetensors``, or ``.pt``. Written under a temporary name and renamed.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    meta = {CARD_KEY: card.model_dump_json(), ARCHITECTURE_KEY: Architecture.of(model).model_dump_json()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, partial, metadata=meta)
        else:
            torch.save({**meta, "state_dict": tensors}, partial)
        partial.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch says a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written.", "Free some space or check the folder's permissions.") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint written by :func:`save_checkpoint`.

    Raises:
        CheckpointError: missing, a directory, empty, truncated, of another format or network, weights not finite.
    """
    tensors, meta = _read(path)
    try:
        card = Card.from_json(meta[CARD_KEY], str(path))
        architecture = Architecture.model_validate_json(meta[ARCHITECTURE_KEY])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds weights but does not say of which network; it was not written by edpct.",
            TRAIN_HINT,
        ) from error
    except (EngineError, ValidationError) as error:
        raise CheckpointError(
            f"{path} has a description that this version of edpct cannot read.", TRAIN_HINT
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: the weights '{name}' hold NaN or infinity.", "Take an earlier checkpoint.")
    try:
        model = rebuild(architecture, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.what}", TRAIN_HINT) from error
    return Checkpoint(model.eval(), architecture, card)


def read_card_of_checkpoint(path: Path) -> Card:
    """The card of a checkpoint, network not built.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    _, meta = _read(path)
    if CARD_KEY not in meta:
        raise CheckpointError(f"{path} was not written by edpct.", TRAIN_HINT)
    try:
        return Card.from_json(meta[CARD_KEY], str(path))
    except EngineError as error:
        raise CheckpointError(error.what, TRAIN_HINT) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the strings beside them."""
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint {path}.", TRAIN_HINT)
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory, not a checkpoint.", "Name the file in it, such as teacher.pt.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty.", "Copy or train it again.")
    with path.open("rb") as file:
        head = file.read(9)
    if head[:4] == b"PK\x03\x04":
        return _read_torch(path)
    if len(head) == 9 and head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        raise CheckpointError(
            f"{path} is a bare pickle, which could run code when loaded; edpct does not open it.",
            "Save its state_dict with torch.save (zip format) or as safetensors.",
        )
    raise CheckpointError(f"{path} is neither a torch file nor safetensors.", TRAIN_HINT)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short.", "Copy it again.") from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        if zipfile.ZipFile(path).testzip() is not None:
            raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds objects other than tensors; edpct runs no code from a checkpoint, so it was not loaded.",
            "Save only its state_dict.",
        ) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or cut short.", "Copy it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict", content), dict):
        raise CheckpointError(f"{path} holds no state_dict.", TRAIN_HINT)
    tensors = content.get("state_dict", {})
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds a state_dict with entries that are no tensors.", TRAIN_HINT)
    return tensors, {key: value for key, value in content.items() if isinstance(value, str)}
