"""Sensitivity to pruning: what is measured, in how many measurements, and the widths that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edpct.data.scenes import SCENE_TASK
from edpct.data.tiling import Window
from edpct.errors import PruningError, RecipeError
from edpct.models.architecture import count_macs
from edpct.progress import Silent
from edpct.pruning.prune import Pruner
from edpct.pruning.sensitivity import (
    UNPRUNED,
    GroupSensitivity,
    Measured,
    Sensitivity,
    SensitivitySample,
    Trial,
    check_fits,
    check_ratios,
    floors,
    load_sensitivity,
    measure_sensitivity,
    scored_on,
)
from edpct.recipe import PruneSettings

SIZE, WIDTH = (64, 64), 16


class TwoPaths(nn.Module):
    """Class 1 where the image is bright, as all channels of one path say together; the other path says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_in = nn.Conv2d(3, WIDTH, 1)
        self.idle_out = nn.Conv2d(WIDTH, 2, 1, bias=False)
        self.busy_in = nn.Conv2d(3, WIDTH, 1)
        self.busy_out = nn.Conv2d(WIDTH, 2, 1, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.busy_in.weight.fill_(1.0)
            self.busy_out.weight[1] = 1.0
            self.busy_out.weight[0] = -1.0
        # Where the channels together do not say more than this, it is class 0.
        self.register_buffer("threshold", 1.2 * WIDTH * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        idle = self.idle_out(torch.relu(self.idle_in(image)))
        busy = self.busy_out(torch.tanh(self.busy_in(image)))
        return idle + busy + self.threshold


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    """The left half dark and class 0, the right half bright and class 1."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, SIZE[1] // 2 :] = 255
    labels = (image[..., 0] > 0).astype(np.uint8)
    labels[0] = SCENE_TASK.ignore_index
    return [Window(image, labels, 0, 0, 0)]


@pytest.fixture
def pruner() -> Pruner:
    return Pruner(TwoPaths().eval(), PruneSettings(round_to=4), SIZE, Silent())


@pytest.fixture
def evaluate(windows: list[Window]) -> Callable[[nn.Module], float]:
    return scored_on(windows, SCENE_TASK.at_size(*SIZE))


def group_of(groups: Sequence[GroupSensitivity], name: str) -> GroupSensitivity:
    return next(group for group in groups if group.name == name)


# ---- measuring


def test_the_path_that_says_nothing_costs_nothing_and_the_other_costs_all(
    pruner: Pruner, evaluate: Callable[[nn.Module], float]
) -> None:
    baseline, groups = measure_sensitivity(pruner, evaluate, (0.75, 0.25), Silent())
    assert baseline == 1.0
    assert {group.name for group in groups} == {"idle_in", "busy_in"}
    idle, busy = group_of(groups, "idle_in"), group_of(groups, "busy_in")
    assert [found.kept for found in idle.measured] == [12, 4]
    assert [found.drop for found in idle.measured] == [0.0, 0.0]
    # With 12 channels 2 * 12 is over the threshold of 1.2 * 16, with 4 it is not: class 1 is lost, class 0 has half.
    assert [found.drop for found in busy.measured] == [0.0, pytest.approx(75.0)]
    assert [found.ratio for found in busy.measured] == [0.25, 0.75]


def test_what_a_group_saves_is_counted_on_the_pruned_network(
    pruner: Pruner, evaluate: Callable[[nn.Module], float]
) -> None:
    _, groups = measure_sensitivity(pruner, evaluate, (0.5,), Silent())
    whole = count_macs(pruner.model, *SIZE)
    for group in groups:
        left = count_macs(pruner.graph.prune({group.name: 8}), *SIZE)
        assert group.measured[0].macs_saved == pytest.approx(1 - left / whole)
        assert group.measured[0].macs_saved == pytest.approx(0.25)  # half of one of two equal paths


class Counted:
    """A measure that counts its calls and stops with Ctrl-C at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, model: nn.Module) -> float:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return 1 - self.calls / 100


def test_ratios_that_round_to_one_width_are_measured_once(pruner: Pruner) -> None:
    counted = Counted()
    _, groups = measure_sensitivity(pruner, counted, (0.05, 0.25, 0.26, 0.5), Silent())
    assert counted.calls == 1 + 2 * 2  # 16 channels are all there are, 12, 12, 8
    for group in groups:
        assert [found.kept for found in group.measured] == [16, 12, 12, 8]
        assert group.measured[0].drop == 0.0 and group.measured[0].macs_saved == 0.0
        assert group.measured[1].miou == group.measured[2].miou


def test_an_analysis_that_was_stopped_goes_on(pruner: Pruner) -> None:
    known: dict[Trial, float] = {}
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(pruner, Counted(stop_at=4), (0.25, 0.5), Silent(), known, known.__setitem__)
    assert list(known) == [UNPRUNED, *[(pruner.graph.groups[0].name, kept) for kept in (12, 8)]]
    rest, whole = Counted(), Counted()
    rest.calls = 3  # the value tells the number of the call
    resumed = measure_sensitivity(pruner, rest, (0.25, 0.5), Silent(), known, known.__setitem__)
    assert rest.calls - 3 == 2 and len(known) == 5
    assert resumed == measure_sensitivity(pruner, whole, (0.25, 0.5), Silent())


def test_the_network_is_left_as_it_was(pruner: Pruner, evaluate: Callable[[nn.Module], float]) -> None:
    before = {name: tensor.clone() for name, tensor in pruner.model.state_dict().items()}
    measure_sensitivity(pruner, evaluate, (0.5,), Silent())
    assert all(torch.equal(before[name], tensor) for name, tensor in pruner.model.state_dict().items())


@pytest.mark.parametrize("ratios", [(0.0,), (1.0,), (0.5, -0.1), (float("nan"),), ()])
def test_ratios_outside_0_to_1_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(RecipeError, match="ratio"):
        check_ratios(ratios)


# ---- floors


def analysis(drops: dict[str, list[tuple[int, float]]], width: int = 100) -> Sensitivity:
    """Groups of so many channels; for each the channels kept and the drop in points."""
    groups = tuple(
        GroupSensitivity(
            name=name, layers=(name,), path="CNN", width=width, parts=1,
            measured=tuple(
                Measured(ratio=(i + 1) / (len(found) + 1), kept=kept, miou=0.5, drop=drop, macs_saved=0.1)
                for i, (kept, drop) in enumerate(found)
            ),
        )
        for name, found in drops.items()
    )  # fmt: skip
    return Sensitivity(
        teacher="teacher.pt", sha256="00", network="a network", criterion="l2", step=8, ratios=(0.5,),
        sample=SensitivitySample(windows=1, seed=0, sha256="00"), baseline=0.8, groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "bound", "floor"),
    [
        ([(50, 4.0)], 1.0, 0.875),  # a quarter of the way to half of the channels
        ([(50, 4.0)], 4.0, 0.0),  # kept by all that was measured
        ([(75, 1.0), (50, 3.0)], 2.0, 0.625),
        ([(75, 1.0), (50, 3.0)], 0.5, 0.875),
        ([(75, 1.0), (50, 3.0)], 3.0, 0.0),
        ([(75, 3.0), (50, 1.0)], 2.0, 5 / 6),  # what falls again makes nothing safe
        ([(75, 3.0), (50, 1.0)], 3.0, 0.0),
        ([(75, -1.0), (50, 4.0)], 2.0, 0.625),  # a rise counts as no drop
        ([(100, 0.0), (50, 4.0)], 2.0, 0.75),  # the first ratio was rounded away
        ([(50, 4.0), (75, 1.0)], 2.0, 2 / 3),  # in any order
        ([(100, 0.0)], 1.0, 0.0),
        ([(50, 4.0)], 0.0, 1.0),
    ],
)
def test_floors(measured: list[tuple[int, float]], bound: float, floor: float) -> None:
    assert floors(analysis({"a": measured}), bound) == {"a": pytest.approx(floor)}


def test_a_tighter_bound_never_lowers_a_floor() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        kept = sorted(rng.choice(99, 4, replace=False) + 1, reverse=True)
        found = analysis({"a": [(int(k), float(d)) for k, d in zip(kept, rng.normal(3, 4, 4), strict=True)]})
        least = [floors(found, bound)["a"] for bound in (0.0, 0.5, 1.0, 2.0, 5.0, 20.0)]
        assert least == sorted(least, reverse=True) and 0 <= least[-1] <= least[0] <= 1


def test_a_pruner_with_floors_spares_the_group(pruner: Pruner) -> None:
    spared = Pruner(pruner.model, pruner.settings, SIZE, Silent(), floors={"busy_in": 0.75})
    assert spared.planner.at(0.25) == {"busy_in": 12, "idle_in": 4}


# ---- the file


def test_the_file_is_read_back(tmp_path: Path) -> None:
    path, result = tmp_path / "a.json", analysis({"a": [(50, 4.0)], "b": [(50, 0.1)]})
    path.write_text(result.to_json())
    assert load_sensitivity(path) == result
    assert '"schema": 1' in path.read_text()
    assert [group.name for group in result.ranked()] == ["a", "b"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace('"baseline": 0.8', '"baseline": NaN'),
        lambda text: text.replace('"width": 100', '"width": 0'),
    ],
    ids=["empty", "cut", "a list", "version", "nan", "no width"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(spoil(analysis({"a": [(50, 4.0)]}).to_json()))
    with pytest.raises(PruningError, match=r"a\.json is no sensitivity analysis of this version"):
        load_sensitivity(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="There is no sensitivity analysis"):
        load_sensitivity(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("names", "width", "said"),
    [
        (("busy_in", "idle_in"), 16, None),
        (("busy_in",), 16, "idle_in was not analysed"),
        (("busy_in", "idle_in", "more"), 16, "more is not there"),
        (("busy_in", "idle_in"), 32, "has 16 channels and not 32"),
    ],
)
def test_a_file_of_another_network_is_refused(
    pruner: Pruner, names: tuple[str, ...], width: int, said: str | None
) -> None:
    found = analysis({name: [(8, 1.0)] for name in names}, width)
    if said is None:
        check_fits(found, pruner.graph.groups)
        return
    with pytest.raises(PruningError, match=said):
        check_fits(found, pruner.graph.groups)
