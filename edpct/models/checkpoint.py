"""Checkpoints: plain tensors, an architecture and a card, in safetensors or in a torch file.

Nothing in a checkpoint is executed when it is read: safetensors holds no code, and torch files go through
``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from edpct.models.tensor_file import read_tensor_file

ARCHITECTURE_KEY = "architecture"
TRAIN_HINT = "Train a teacher with: edpct train --data DIR --out DIR"


@dataclass(frozen=True)
class Checkpoint:
    """A network rebuilt from a file, in eval mode, on the CPU, in float32 whatever the file stores."""

    model: nn.Module
    architecture: Architecture
    card: Card


def save_checkpoint(path: Path, model: nn.Module, card: Card) -> None:
    """Write a network so that :func:`load_checkpoint` rebuilds it, pruned or not.

    The suffix chooses the format: ``.safetensors``, or ``.pt``. Written under a temporary name and renamed.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    tensors = _apart(model.state_dict())
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


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, each in memory of its own: safetensors refuses tied weights, and torch saves all of it."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() > tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(memory.data_ptr())
        tensors[name] = tensor
    return tensors


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint written by :func:`save_checkpoint`.

    Raises:
        CheckpointError: missing, a directory, empty, truncated, of another format or network, weights not finite; made
            by a factory that nobody trusts here.
        MissingPackageError: the package that has the network is not installed.
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
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    refuse_not_finite(tensors, path)
    try:
        model = rebuild(architecture, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.what}", error.hint or TRAIN_HINT) from error
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


def refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError, naming the tensor, where one holds NaN or infinity.

    Args:
        path: the file they come from, for the message.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: the weights '{name}' hold NaN or infinity.", "Take an earlier checkpoint.")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the strings beside them."""
    content, meta = read_tensor_file(path, TRAIN_HINT)
    if meta:
        return content, dict(meta)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict", content), dict):
        raise CheckpointError(f"{path} holds no state_dict.", TRAIN_HINT)
    tensors = content.get("state_dict", {})
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds a state_dict with entries that are no tensors.", TRAIN_HINT)
    return tensors, {key: value for key, value in content.items() if isinstance(value, str)}
