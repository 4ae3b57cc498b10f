"""A user's own network and weights, ready for everything that is done to a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edpct.card import Card, DataSource
from edpct.errors import CheckpointError
from edpct.models.architecture import build_network, counted
from edpct.models.checkpoint import refuse_not_finite
from edpct.models.factory import trust
from edpct.models.foreign import Foreign
from edpct.models.names import parse_model
from edpct.models.tensor_file import read_tensor_file
from edpct.task import Task

WRAPPINGS = ("state_dict", "model_state_dict", "model")  # what training scripts put a state_dict under
SAVING_ONE = "Save state_dict() alone, as .safetensors or with torch.save."


def adopt(model: str, weights: Path | None, task: Task, data: DataSource | None) -> tuple[nn.Module, Card]:
    """Build the network of a name and load its weights.

    The name must come from the user: a factory in it is trusted from now on, imported and called.

    Args:
        model: as :func:`edpct.models.names.parse_model` takes it.
        weights: the network's ``state_dict``; without it they are random, from torch's global generator.
        task: what the network was, or is to be, trained for.
        data: what it was, or is to be, trained on.

    Returns:
        The network in eval mode on the CPU, and its card.

    Raises:
        CheckpointError: unknown name, a factory that cannot be used, weights that are not this network's or not finite,
            or an input size that it does not take.
        MissingPackageError: the package that has the network is not installed.
    """
    architecture = parse_model(model, task.num_classes)
    if architecture.name == "factory":
        trust(model)
    network = build_network(architecture).eval()
    if weights is not None:
        load_weights(network, weights, model)
    return network, counted(Card(network=model, task=task, parameters=0, macs=0, data=data), network)


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Put a ``state_dict`` into a network, every tensor in its place.

    Taken are safetensors and zip files of ``torch.save``, also where the state_dict lies under a key such as
    "state_dict" or "model", and where all names begin with the same prefix, such as "module.".

    Args:
        network: any; of a :class:`Foreign` the network inside is meant.
        name: what the message calls the network.

    Raises:
        CheckpointError: unreadable, not the tensors of this network, or not finite.
    """
    inside = network.network if isinstance(network, Foreign) else network
    expected = inside.state_dict()
    tensors = _completed(_without_prefix(read_state_dict(path), expected), expected)
    if isinstance(network, Foreign) and network.architecture.name == "torchvision":
        tensors = {key: value for key, value in tensors.items() if not key.startswith("aux_classifier.")}
    if reasons := _mismatches(tensors, expected):
        raise CheckpointError(
            f"{path} does not hold the weights of {name} with these classes: {', and '.join(reasons)}.",
            f"Save the state_dict() of {name}, trained on these classes.",
        )
    refuse_not_finite(tensors, path)
    nn.Module.load_state_dict(inside, tensors, strict=True)  # smp's own override renames keys


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        CheckpointError: missing, unreadable, or without a state_dict.
    """
    content, _ = read_tensor_file(path, SAVING_ONE)
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state_dict.", SAVING_ONE)
    if odd := [key for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path} holds no state_dict: '{odd[0]}' is no tensor.", SAVING_ONE)
    return {str(key): value for key, value in content.items()}


def _without_prefix(tensors: dict[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors under the names that fit, if dropping what all names begin with makes them fit."""
    stripped = tensors
    while stripped.keys() - expected.keys():
        prefixes = {key.partition(".")[0] for key in stripped}
        if len(prefixes) > 1 or not all("." in key for key in stripped):
            return tensors
        stripped = {key.partition(".")[2]: value for key, value in stripped.items()}
        if stripped.keys() & expected.keys():
            return stripped
    return tensors


def _completed(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the counters of batches that old files lack; they do not matter after training."""
    counters = {key: value for key, value in expected.items() if key.endswith(".num_batches_tracked")}
    return {**counters, **tensors}


def _mismatches(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    shared = sorted(expected.keys() & tensors.keys())
    wrong = [key for key in shared if expected[key].shape != tensors[key].shape]
    kinds = [key for key in shared if expected[key].is_floating_point() != tensors[key].is_floating_point()]
    reasons = [f"{_tensors(missing)} missing (first: {missing[0]})"] if missing else []
    reasons += [f"{_tensors(extra)} without a place (first: {extra[0]})"] if extra else []
    if wrong:
        shapes = f"{tuple(tensors[wrong[0]].shape)} instead of {tuple(expected[wrong[0]].shape)}"
        reasons.append(f"{_tensors(wrong)} of another shape (first: {wrong[0]}, {shapes})")
    reasons += [f"{_tensors(kinds)} of another type (first: {kinds[0]}, {tensors[kinds[0]].dtype})"] if kinds else []
    return reasons


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s are' if len(names) > 1 else ' is'}"
