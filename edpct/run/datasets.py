"""The dataset that a command works on: the one given, or the one that a checkpoint or engine remembers."""

from __future__ import annotations

from pathlib import Path

from edpct.bench.requests import check_classes
from edpct.card import Card
from edpct.data.layouts import open_dataset, open_source
from edpct.data.samples import Dataset
from edpct.errors import DataError


def dataset_of(card: Card, data: Path | None, layout: str | None, teacher: Path) -> Dataset:
    """The dataset in a folder, or the one that the card of ``teacher`` names.

    Raises:
        DataError: there is none, it has other classes, or a split of it is empty.
    """
    if data is not None:
        dataset = open_dataset(data, layout)
    elif card.data is None:
        raise DataError(f"{teacher} does not say where its training data lay.", "Give it with --data DIR.")
    elif not Path(card.data.directory).is_dir():
        raise DataError(f"The data of {teacher} no longer lies in {card.data.directory}.", "Give it with --data DIR.")
    else:
        dataset = open_source(card.data)
    check_classes(card.task, dataset, teacher)
    dataset.split("train")
    dataset.split("val")
    return dataset
