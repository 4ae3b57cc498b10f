"""Which rows are to be measured, and what is refused before anything costly is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edpct.bench.report.schema import FailureReport
from edpct.card import Card
from edpct.data.layouts import open_source
from edpct.data.samples import Dataset, Split
from edpct.errors import DataError, EdpctError, EngineError
from edpct.progress import Progress
from edpct.recipe import BenchSettings
from edpct.runtimes.content import require_file
from edpct.runtimes.gpu import require_gpu
from edpct.runtimes.session import DEFAULT, Options
from edpct.runtimes.sidecar import check_plan
from edpct.runtimes.table import RUNTIMES, Runtime, require_suffix, runtimes_for
from edpct.task import Task

LEAST_SHARE = 0.9  # of the input that an image must fill, both ways


@dataclass(frozen=True)
class Request:
    """One row asked for: an engine on a runtime.

    Attributes:
        name: as the table shows it.
        device: empty: the runtime's first.
        batch: images an inference.
    """

    name: str
    path: Path
    runtime: str
    device: str = ""
    batch: int = 1
    options: Options = DEFAULT


def plan_rows(
    paths: Sequence[Path], runtime: str | None, device: str, settings: BenchSettings, progress: Progress
) -> tuple[list[Request], list[FailureReport]]:
    """The rows that a set of engines gives, on every runtime that fits or on the one asked for, and what was left out.

    Raises:
        EngineError, MissingPackageError: nothing can be measured; the first reason.
    """
    requests: list[Request] = []
    refused: list[EdpctError] = []
    failures: list[FailureReport] = []
    for path in dict.fromkeys(paths):
        require_file(path)
        title = path.name if sum(other.name == path.name for other in set(paths)) == 1 else str(path)
        for row in _fitting(path, runtime, device):
            try:
                _require(row, path)
            except EdpctError as error:
                refused.append(error)
                failures.append(FailureReport(name=title, runtime=row.name, reason=str(error)))
                continue
            requests += [
                Request(title, path, row.name, device, batch, options)
                for batch in settings.batch
                for options in _options(row, settings)
            ]
    if not requests:
        raise refused[0]
    for failure in failures:
        progress.say(f"Left out: {failure.name} on {failure.runtime}. {failure.reason}")
    return requests, failures


def _fitting(path: Path, runtime: str | None, device: str) -> list[Runtime]:
    if runtime is not None:
        if runtime not in RUNTIMES:
            raise EngineError(f"There is no runtime '{runtime}'.", f"Choose from: {', '.join(RUNTIMES)}.")
        require_suffix(path, RUNTIMES[runtime])
        return [RUNTIMES[runtime]]
    fitting = [row for row in runtimes_for(path) if not row.on_request]
    if not fitting:
        raise EngineError(f"{path} is no engine that edpct knows.", "Engines are .onnx, .plan, .pt or .safetensors.")
    return [row for row in fitting if device in ("", *row.devices)] or fitting[:1]


def _require(row: Runtime, path: Path) -> None:
    if row.needs_gpu:
        check_plan(path)
        require_gpu(path)
    if (missing := row.missing_package()) is not None:
        raise missing


def _options(row: Runtime, settings: BenchSettings) -> list[Options]:
    threads = settings.threads if "threads" in row.options else 0
    graphs = {"on": (True,), "off": (False,), "both": (False, True)}[settings.cuda_graph]
    if "cuda_graph" not in row.options:
        graphs = (False,)
    return [Options(threads=threads, cuda_graph=graph) for graph in graphs]


def find_dataset(cards: Sequence[Card], given: Dataset | None, progress: Progress) -> Dataset | None:
    """The data to measure on: what was given, else what the first card names if it still lies there, else None."""
    if given is not None:
        return given
    for card in cards:
        if card.data is not None and Path(card.data.directory).is_dir():
            return open_source(card.data)
        if card.data is not None:
            progress.say(f"The data of {card.network} no longer lies in {card.data.directory}.")
    progress.say(
        "No data is known for these engines, so mIoU is not measured and images are noise. Give it with --data DIR"
    )
    return None


def check_classes(task: Task, dataset: Dataset, path: Path) -> None:
    """Refuse data whose classes are not the engine's.

    Raises:
        DataError: another number of classes, or other names.
    """
    if task.names != dataset.task.names:
        raise DataError(
            f"{dataset.root} has the {dataset.task.num_classes} classes {', '.join(dataset.task.names)}, but "
            f"{path.name} was made for the {task.num_classes} classes {', '.join(task.names)}.",
            "Give the data it was made for.",
        )


def check_sizes(task: Task, dataset: Dataset, path: Path, split: Split = "val") -> None:
    """Refuse images that do not fill the engine's input: what was missing would be measured on mirrored pixels.

    A few rows may be missing (:data:`LEAST_SHARE`): images cropped to a round size less a border are common.

    Raises:
        DataError: an image is smaller, or cannot be read.
    """
    size = task.preprocessing
    for sample in dataset.split(split):
        height, width = dataset.decode_size(sample.image)
        if width < LEAST_SHARE * size.width or height < LEAST_SHARE * size.height:
            raise DataError(
                f"{sample.image} has {width}x{height} pixels, fewer than the {size.width}x{size.height} that "
                f"{path.name} takes.",
                "Give larger images, or export the network at a smaller size: edpct compress --size.",
            )
