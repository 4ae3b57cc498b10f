"""Made scenes: the same seed gives the same scene, and what a label says is what the image shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edpct.data.layouts import open_dataset
from edpct.data.scene_ground import Site
from edpct.data.scene_light import cast_shadow
from edpct.data.scenes import SCENE_TASK, Scene, render_scene, write_scenes
from edpct.errors import DataError

LAND, FIELD, ROAD, BUILDING, VEGETATION, WATER, VEHICLE = range(7)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(seed, 320, 320) for seed in range(10)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "scenes"
    write_scenes(directory, train=3, val=2, seed=5, size=128)
    return directory


def _files(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0


# ---- one scene


def test_the_classes_are_in_the_agreed_order() -> None:
    assert SCENE_TASK.names == ("land", "field", "road", "building", "vegetation", "water", "vehicle")
    assert SCENE_TASK.ignore_index == 255
    assert len({c.colour for c in SCENE_TASK.classes}) == 7


@pytest.mark.parametrize("size", [(128, 128), (160, 256)])
def test_a_seed_gives_the_same_scene_twice(size: tuple[int, int]) -> None:
    first, second = render_scene(7, *size), render_scene(7, *size)
    assert first.image.shape == (*size, 3) and first.labels.shape == size
    assert first.image.dtype == first.labels.dtype == np.uint8
    assert np.array_equal(first.image, second.image) and np.array_equal(first.labels, second.labels)
    assert first.gsd == second.gsd and 0.15 <= first.gsd <= 0.6


def test_seeds_give_different_scenes() -> None:
    assert not np.array_equal(render_scene(1, 128, 128).labels, render_scene(2, 128, 128).labels)


def test_all_classes_occur_in_sane_shares(scenes: list[Scene]) -> None:
    labels = np.stack([s.labels for s in scenes])
    share = np.bincount(labels.ravel(), minlength=7) / labels.size
    assert len(share) == 7  # no pixel is without a class
    assert share[LAND] < 0.7
    assert (share[[LAND, FIELD, ROAD, VEGETATION]] > 0.03).all() and (share[[BUILDING, WATER]] > 0.02).all()
    assert 0.002 < share[VEHICLE] < 0.06


# ---- labels say what the image shows


def test_vehicles_are_on_or_beside_roads(scenes: list[Scene]) -> None:
    beside = total = 0
    for scene in scenes:
        vehicles = scene.labels == VEHICLE
        road = _grown(scene.labels == ROAD, max(round(1.5 / scene.gsd), 1))
        beside, total = beside + int((vehicles & road).sum()), total + int(vehicles.sum())
    assert beside / total > 0.97


def test_label_edges_lie_on_image_edges(scenes: list[Scene]) -> None:
    """Shifting the labels by a pixel or two in any direction takes them off the image's edges."""
    shifts = [(dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)]
    strength = dict.fromkeys(shifts, 0.0)
    for scene in scenes:
        grey = scene.image.astype(np.float32).mean(axis=2)
        steps = np.abs(np.diff(grey, axis=1))[:-1] + np.abs(np.diff(grey, axis=0))[:, :-1]
        kind = np.where(np.isin(scene.labels, (ROAD, BUILDING, WATER, VEHICLE)), scene.labels, LAND)
        edges = (np.diff(kind, axis=1)[:-1] != 0) | (np.diff(kind, axis=0)[:, :-1] != 0)
        for shift in shifts:
            strength[shift] += float(steps[np.roll(edges, shift, (0, 1))].mean())
    assert max(strength, key=lambda shift: strength[shift]) == (0, 0)
    assert strength[0, 0] > 1.25 * strength[2, 2]


def test_water_is_bluer_and_smoother_than_trees(scenes: list[Scene]) -> None:
    bluer = []
    for scene in scenes:
        water, trees = scene.labels == WATER, scene.labels == VEGETATION
        if water.mean() < 0.03 or trees.mean() < 0.03:
            continue
        image = scene.image.astype(np.float32)
        blue = image[..., 2] - image[..., :2].mean(axis=2)
        rough = np.abs(np.diff(image.mean(axis=2), axis=1, append=0))
        bluer.append(float(blue[water].mean() - blue[trees].mean()))  # muddy water is not, in a single scene
        assert np.median(rough[water]) < np.median(rough[trees])
    assert len(bluer) >= 3 and np.mean(bluer) > 6


def test_colour_alone_does_not_tell_roofs_from_roads(scenes: list[Scene]) -> None:
    """The share that the best threshold of all colours gets right stays far from perfect."""
    counts = np.zeros((2, 16**3))
    for scene in scenes:
        cell = (scene.image // 16).astype(int) @ np.array([256, 16, 1])
        for row, label in enumerate((ROAD, BUILDING)):
            counts[row] += np.bincount(cell[scene.labels == label], minlength=16**3)
    frequency = counts / counts.sum(axis=1, keepdims=True)
    assert np.maximum(*frequency).sum() / 2 < 0.9


def test_a_shadow_falls_away_from_the_sun_as_long_as_the_house_is_high() -> None:
    heights = np.zeros((64, 64), np.float32)
    heights[30:34, 30:34] = 5.0
    site = Site(np.random.default_rng(0), 64, 64, 0.5, 0.5, sun=(-1.0, 0.0), elevation=float(np.pi / 4))
    shadow = cast_shadow(site, heights)
    columns = np.flatnonzero(shadow[32] > 0.5)
    assert columns[0] == 34 and abs(len(columns) - 5.0 / 0.5) <= 1
    assert not shadow[:29].any() and not shadow[35:].any() and not shadow[30:34, 30:34].any()


# ---- the folder


def test_the_folder_is_the_layout_that_edpct_reads(written: Path) -> None:
    table = json.loads((written / "classes.json").read_text("utf-8"))
    assert [c["name"] for c in table["classes"]] == list(SCENE_TASK.names) and table["ignore_index"] == 255
    assert sorted(_files(written)) == sorted(
        ["classes.json"]
        + [f"train/{kind}/scene_000{i}.png" for kind in ("images", "masks") for i in range(3)]
        + [f"val/{kind}/scene_000{i}.png" for kind in ("images", "masks") for i in range(2)]
    )
    dataset = open_dataset(written)
    assert (len(dataset.train), len(dataset.val)) == (3, 2)
    image, labels = dataset.read(dataset.train[0])
    assert image.shape == (128, 128, 3) and labels.max() < 7


def test_masks_carry_the_class_colours_as_palette(written: Path) -> None:
    with Image.open(written / "train/masks/scene_0001.png") as mask:
        assert mask.mode == "P"
        labels, seen = np.asarray(mask), np.asarray(mask.convert("RGB"))
    assert np.array_equal(seen, SCENE_TASK.palette[labels])


def test_no_two_scenes_are_the_same(written: Path) -> None:
    images = [data for name, data in _files(written).items() if "images" in name]
    assert len(set(images)) == len(images) == 5


def test_asking_for_more_changes_nothing_that_is_there(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, train=1, val=1, seed=5, size=128)
    few = _files(tmp_path)
    write_scenes(tmp_path, train=3, val=2, seed=5, size=128)
    grown = _files(tmp_path)
    assert few.items() <= grown.items()
    assert grown == _files(written)


def test_a_second_call_keeps_files_and_mends_what_is_missing(tmp_path: Path) -> None:
    done: list[int] = []
    write_scenes(tmp_path, 2, 1, size=128, progress=done.append)
    assert done == [1, 2, 3]
    before, kept = _files(tmp_path), tmp_path / "train/images/scene_0000.png"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "train/masks/scene_0001.png").unlink()
    (tmp_path / "val/images/scene_0000.png").write_bytes(b"cut off")
    write_scenes(tmp_path, 2, 1, size=128)
    assert _files(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp


# ---- refusals


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"train": 0}, "0 train scenes cannot be made. Ask for 1 to 1048576."),
        ({"val": -1}, "-1 val scenes cannot be made. Ask for 1 to 1048576."),
        ({"size": 96}, "Scenes of 96 pixels cannot be made. Use a multiple of 32, at least 128."),
        ({"size": 200}, "Scenes of 200 pixels cannot be made. Use a multiple of 32, at least 128."),
        ({"seed": -1}, "The seed -1 is negative. Use 0 or more."),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, asked: dict[str, int], message: str) -> None:
    with pytest.raises(DataError) as refusal:
        write_scenes(tmp_path / "scenes", **{"train": 1, "val": 1, "size": 128, **asked})
    assert str(refusal.value) == message
    assert not (tmp_path / "scenes").exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds something other than made scenes: thesis\.tex\. Give the scenes"):
        write_scenes(tmp_path, 1, 1, size=128)
    assert list(_files(tmp_path)) == ["thesis.tex"]


def test_a_data_set_with_other_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"classes": []}')
    with pytest.raises(DataError, match="holds a data set with other classes"):
        write_scenes(tmp_path, 1, 1, size=128)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        write_scenes(tmp_path / "scenes", 1, 1, size=128)


@pytest.mark.parametrize("change", [{"seed": 6}, {"size": 160}])
def test_scenes_of_another_seed_or_size_are_not_mixed(written: Path, change: dict[str, int]) -> None:
    before = _files(written)
    with pytest.raises(DataError, match=r"scene_0000\.png is not the scene asked for\. Use the seed and size"):
        write_scenes(written, **{"train": 3, "val": 2, "seed": 5, "size": 128, **change})
    assert _files(written) == before
