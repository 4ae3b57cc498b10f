"""What each group of layers costs in mIoU when it alone is pruned: where a network can be cut, and where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from edpct import __version__
from edpct.data.accuracy import measure_accuracy
from edpct.data.tiling import Window
from edpct.errors import PruningError, RecipeError
from edpct.progress import Progress
from edpct.pruning.graph import Group
from edpct.pruning.plan import kept_width
from edpct.pruning.prune import Pruner
from edpct.pruning.widths import path_of
from edpct.recipe import Criterion
from edpct.task import Task

RATIOS = (0.25, 0.5, 0.75)
AGAIN = "Measure again with: edpct sensitivity --teacher CHECKPOINT"

Trial: TypeAlias = tuple[str, int]
"""A group's name and the channels that each part of it keeps."""
UNPRUNED: Trial = ("", 0)
Finite = Field(allow_inf_nan=False)


class Part(BaseModel):
    """Base of the parts of the file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SensitivitySample(Part):
    """The windows that mIoU is measured on.

    Attributes:
        split: always ``train``: what is chosen with the help of these windows is later judged on ``val``.
        windows: how many.
        seed: they were drawn by.
        sha256: of their images and labels, hexadecimal.
    """

    split: Literal["train"] = "train"
    windows: int = Field(ge=1)
    seed: int = Field(ge=0)
    sha256: str


class Question(Part):
    """What was asked; two analyses with the same question have the same answer.

    Attributes:
        teacher: file name of the checkpoint.
        sha256: of that file, hexadecimal.
        network: display name.
        step: all widths are multiples of this.
        leave_out: modules that were not touched.
        ratios: shares of a group's channels that go, each between 0 and 1, rising.
        edpct: version that measured.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    teacher: str
    sha256: str
    network: str
    criterion: Criterion
    step: int = Field(ge=1)
    leave_out: tuple[str, ...] = ()
    ratios: tuple[float, ...] = Field(min_length=1)
    sample: SensitivitySample
    edpct: str = __version__


class Measured(Part):
    """One group pruned by one ratio, everything else as it was.

    Attributes:
        ratio: share of channels that was asked to go.
        kept: channels that each part keeps, after rounding; the group's width where rounding left nothing to go.
        miou: 0..1.
        drop: points of mIoU lost against the baseline; negative where it rose.
        macs_saved: share of the network's MACs, 0..1.
    """

    ratio: float = Field(gt=0, lt=1)
    kept: int = Field(ge=1)
    miou: float = Field(ge=0, le=1)
    drop: float = Finite
    macs_saved: float = Finite


class GroupSensitivity(Part):
    """One group of layers whose widths are tied.

    Attributes:
        name: the layer that the group is called by.
        layers: layers whose outputs become narrower with it.
        path: the part of the network that it is in.
        width: channels of one part.
        parts: heads of an attention or groups of a convolution, else 1.
        measured: one for every ratio, in their order.
    """

    name: str
    layers: tuple[str, ...]
    path: str
    width: int = Field(ge=1)
    parts: int = Field(ge=1)
    measured: tuple[Measured, ...] = Field(min_length=1)

    def share_gone(self, found: Measured) -> float:
        """Share of the channels that really went, after rounding."""
        return 1 - found.kept / self.width


class Sensitivity(Question):
    """The whole analysis: the question and what was measured.

    Attributes:
        baseline: mIoU of the unpruned network on the sample, 0..1.
        groups: in the order of the network.
    """

    baseline: float = Field(ge=0, le=1)
    groups: tuple[GroupSensitivity, ...] = Field(min_length=1)

    @property
    def middle(self) -> int:
        """Position of the ratio that groups are ranked at."""
        return len(self.ratios) // 2

    def ranked(self) -> list[GroupSensitivity]:
        """The groups, those with the largest drop at the middle ratio first."""
        return sorted(self.groups, key=lambda group: -group.measured[self.middle].drop)

    def to_json(self) -> str:
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


# ---- measuring


def check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """The ratios rising, each once.

    Raises:
        RecipeError: there is none, or one is not between 0 and 1.
    """
    for ratio in ratios:
        if not 0 < ratio < 1:  # NaN is neither
            raise RecipeError(
                f"The pruning ratio {ratio:g} does not lie between 0 and 1.",
                "Give shares of the channels that go, such as --ratio 0.25 --ratio 0.5.",
            )
    if not ratios:
        raise RecipeError("No pruning ratio was given.", "Give one or more, such as --ratio 0.5.")
    return tuple(sorted(set(ratios)))


def scored_on(
    windows: Sequence[Window], task: Task, device: torch.device | str = "cpu"
) -> Callable[[nn.Module], float]:
    """What gives the mIoU (0..1) of a network over windows, from one confusion matrix; it moves the network there.

    The windows are to be of the train split: whoever spares layers by them must not have looked at ``val``, on which
    the compressed network is judged. That the teacher was trained on them does not matter to a comparison of groups,
    but drops on unseen images may be larger.
    """

    @torch.no_grad()
    def evaluate(model: nn.Module) -> float:
        model.eval().to(device)

        def predict(image: NDArray[np.uint8]) -> NDArray[np.integer]:
            logits = model(torch.from_numpy(task.preprocessing.apply(image)).to(device))
            return logits.argmax(1)[0].cpu().numpy()

        return measure_accuracy(predict, windows, task.num_classes, task.ignore_index).miou

    return evaluate


def measure_sensitivity(
    pruner: Pruner,
    evaluate: Callable[[nn.Module], float],
    ratios: Sequence[float],
    progress: Progress,
    known: Mapping[Trial, float] | None = None,
    keep: Callable[[Trial, float], None] = lambda trial, miou: None,
) -> tuple[float, tuple[GroupSensitivity, ...]]:
    """Prune every group alone by every ratio, and measure.

    Ratios that round to the same width are measured once, and those that round to the whole width not at all.

    Args:
        evaluate: mIoU (0..1) of a network; it is handed copies, and may move them to a device.
        known: mIoU of trials that an earlier analysis made; they are not made again.
        keep: called with each new trial and its mIoU as soon as it is known.

    Returns:
        mIoU of the unpruned network, and the groups.

    Raises:
        RecipeError: see :func:`check_ratios`.
        PruningError: a group cannot be pruned.
    """
    ratios = check_ratios(ratios)
    found = dict(known or {})
    trials = [UNPRUNED, *_trials(pruner, ratios)]
    done = sum(trial in found for trial in trials)
    with progress.task("Pruning one by one", len(trials), done) as update:
        for trial in trials:
            if trial in found:
                continue
            found[trial] = evaluate(pruner.graph.prune(_plan(trial)))
            keep(trial, found[trial])
            _macs(pruner, trial)  # remembered; here the bar still moves
            done += 1
            update(done, _note(trial, found))
    baseline = found[UNPRUNED]
    return baseline, tuple(_answer(pruner, group, ratios, baseline, found) for group in pruner.graph.groups)


def _kept(pruner: Pruner, group: Group, ratio: float) -> int:
    return kept_width(group.width, 1 - ratio, pruner.planner.steps[group.name])


def _trials(pruner: Pruner, ratios: Sequence[float]) -> Iterator[Trial]:
    for group in pruner.graph.groups:
        for kept in dict.fromkeys(_kept(pruner, group, ratio) for ratio in ratios):
            if kept < group.width:
                yield group.name, kept


def _macs(pruner: Pruner, trial: Trial) -> int:
    """MACs of a trial's network; asked with a plan of all groups, since costs are remembered by the widths alone."""
    return pruner.cost("macs", {group.name: group.width for group in pruner.graph.groups} | _plan(trial))


def _plan(trial: Trial) -> dict[str, int]:
    return {} if trial == UNPRUNED else dict([trial])


def _note(trial: Trial, found: Mapping[Trial, float]) -> str:
    if trial == UNPRUNED:
        return f"unpruned: {found[trial]:.1%} mIoU"
    return f"{trial[0]}: {100 * (found[trial] - found[UNPRUNED]):+.1f} points"


def _answer(
    pruner: Pruner, group: Group, ratios: Sequence[float], baseline: float, found: Mapping[Trial, float]
) -> GroupSensitivity:
    measured = []
    for ratio in ratios:
        kept = _kept(pruner, group, ratio)
        miou = found.get((group.name, kept), baseline)
        saved = 1 - _macs(pruner, (group.name, kept)) / _macs(pruner, UNPRUNED)
        measured.append(Measured(ratio=ratio, kept=kept, miou=miou, drop=100 * (baseline - miou), macs_saved=saved))
    return GroupSensitivity(
        name=group.name, layers=group.layers, path=path_of(pruner.model, group.name), width=group.width,
        parts=group.parts, measured=tuple(measured),
    )  # fmt: skip


# ---- using it


def floors(sensitivity: Sensitivity, drop_points: float) -> dict[str, float]:
    """The least share of each group's channels to keep, so that pruning it alone costs at most so many points of mIoU.

    Between two measured widths the drop is taken as linear, and as never falling: a narrower group that happened to
    score better makes none wider safe.

    Args:
        drop_points: 0 or more.

    Returns:
        By the group's name; 0.0 where the bound is kept by every ratio that was measured.
    """
    return {group.name: 1 - _largest_share(group, drop_points) for group in sensitivity.groups}


def _largest_share(group: GroupSensitivity, bound: float) -> float:
    """The share of channels that may go; 1.0 where the bound was not met."""
    points, worst = [(0.0, 0.0)], 0.0
    for found in sorted(group.measured, key=group.share_gone):
        worst = max(worst, found.drop)
        points.append((group.share_gone(found), worst))
    for (share, drop), (next_share, next_drop) in pairwise(points):
        if next_drop > bound:
            return share + (next_share - share) * (bound - drop) / (next_drop - drop)
    return 1.0


def load_sensitivity(path: Path) -> Sensitivity:
    """An analysis from its JSON file.

    Raises:
        PruningError: no such file, no JSON, of another version, or no analysis.
    """
    try:
        return Sensitivity.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PruningError(f"There is no sensitivity analysis {path}.", AGAIN) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PruningError(f"{path} cannot be read: {error}.", AGAIN) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PruningError(
            f"{path} is no sensitivity analysis of this version: {where}: {' '.join(first['msg'].split())}.", AGAIN
        ) from error


def check_fits(sensitivity: Sensitivity, groups: Iterable[Group]) -> None:
    """Refuse an analysis of another network.

    Raises:
        PruningError: the groups have other names or widths.
    """
    analysed = {group.name: (group.width, group.parts) for group in sensitivity.groups}
    present = {group.name: (group.width, group.parts) for group in groups}
    different = [name for name in (*present, *analysed) if analysed.get(name) != present.get(name)]
    if different:
        raise PruningError(
            f"The sensitivity analysis of {sensitivity.teacher} does not fit this network: {different[0]} "
            f"{_difference(analysed.get(different[0]), present.get(different[0]))}.",
            "Measure this network, with the same --leave-out, with: edpct sensitivity --teacher CHECKPOINT",
        )


def _difference(analysed: tuple[int, int] | None, present: tuple[int, int] | None) -> str:
    if analysed is None:
        return "was not analysed"
    if present is None:
        return "is not there, or is left out"
    return f"has {present[0] * present[1]} channels and not {analysed[0] * analysed[1]}"
