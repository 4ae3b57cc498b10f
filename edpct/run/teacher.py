"""The checkpoint that a command works on: the user's own, or one made of a network's name and its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from edpct.card import DataSource
from edpct.data.layouts import open_dataset
from edpct.errors import RecipeError, RunError
from edpct.models.adopt import adopt
from edpct.models.checkpoint import save_checkpoint

ADOPTED = "adopted.safetensors"
DEFAULT_SIZE = 512  # pixels


def teacher_file(
    teacher: Path | None,
    model: str | None,
    weights: Path | None,
    data: Path | None,
    layout: str | None,
    size: int | None,
    out: Path,
    random_weights: bool = False,
) -> Path:
    """``teacher``, or a checkpoint of ``model`` written to the folder ``out``.

    Args:
        data: dataset whose classes the network tells apart; needed with ``model``.
        size: input height and width of the network.
        random_weights: whether a network without weights is taken.

    Raises:
        RecipeError: something that ``model`` needs was not given.
        CheckpointError: the network cannot be built, or the weights are not its own.
    """
    if teacher is not None:
        return teacher
    assert model is not None
    if data is None:
        raise RecipeError(f"The classes of {model} are not known.", "Name its dataset with --data DIR.")
    if weights is None and not random_weights:
        raise RecipeError(f"{model} has no weights to compress.", "Give its state_dict with --weights FILE.")
    dataset = open_dataset(data, layout)
    task = dataset.task.at_size(size or DEFAULT_SIZE, size or DEFAULT_SIZE)
    torch.manual_seed(0)
    source = DataSource(directory=str(dataset.root.resolve()), layout=dataset.layout)
    network, card = adopt(model, weights, task, source)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"The folder {out} cannot be made: {error.strerror}.", "Choose another --out.") from error
    save_checkpoint(out / ADOPTED, network, card)
    return out / ADOPTED
