"""Made aerial scenes with exact labels, for the demo and the tests.

Seen straight down: land, fields, water, roads with vehicles, buildings and trees, under one sun per scene.
Colour alone does not tell the classes apart: roofs, yards and roads share greys, land, fields, trees greens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from edpct.data.scene_buildings import draw_buildings
from edpct.data.scene_canvas import Canvas, Occupancy
from edpct.data.scene_ground import Floats, Site, make_ground
from edpct.data.scene_light import cast_shadow, expose
from edpct.data.scene_roads import draw_car_park, draw_roads, draw_traffic, plan_roads
from edpct.data.scene_trees import draw_crowns, grow_crowns, plant_trees
from edpct.errors import DataError
from edpct.task import IGNORE_INDEX, ClassInfo, Task

SCENE_TASK = Task(
    classes=(
        ClassInfo(name="land", colour=(204, 190, 150)),
        ClassInfo(name="field", colour=(226, 206, 74)),
        ClassInfo(name="road", colour=(110, 110, 118)),
        ClassInfo(name="building", colour=(200, 72, 60)),
        ClassInfo(name="vegetation", colour=(48, 128, 62)),
        ClassInfo(name="water", colour=(52, 120, 200)),
        ClassInfo(name="vehicle", colour=(236, 64, 200)),
    ),
    ignore_index=IGNORE_INDEX,
)
# Speckle of each class's surface, share of its brightness, in the order of the labels.
SPECKLE = np.asarray([0.02, 0.015, 0.025, 0.022, 0.03, 0.0, 0.0], np.float32)
SEED_KEY = "edpct-scene-seed"
GSD_KEY = "edpct-scene-gsd"
MOST_SCENES = 2**20
PART = ".part"  # of files that are being written


@dataclass(frozen=True)
class Scene:
    """One made scene.

    Attributes:
        image: shape (H, W, 3), uint8 RGB.
        labels: shape (H, W), uint8, indices into ``SCENE_TASK.classes``; every pixel has a class.
        gsd: ground sampling distance, metres per pixel, 0.15..0.6.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    gsd: float


def render_scene(seed: int, height: int = 512, width: int = 512) -> Scene:
    """Make one scene; the same arguments give the same bytes.

    Args:
        seed: 0 or more.
        height, width: in pixels.
    """
    site = _choose_site(seed, height, width)
    broad, fine = site.noise(site.px(60), 3), site.grain()
    ground = make_ground(site, broad, fine)
    heights = _settle(site, ground.colour, ground.labels, fine)
    shadow = cast_shadow(site, heights)
    return Scene(expose(site, ground.colour, shadow), ground.labels, site.gsd)


def _choose_site(seed: int, height: int, width: int) -> Site:
    rng = np.random.default_rng(seed)
    gsd = float(np.exp(rng.uniform(np.log(0.15), np.log(0.6))))
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = float(np.deg2rad(rng.uniform(28, 66)))
    sun = (float(np.cos(azimuth)), float(np.sin(azimuth)))
    return Site(rng, height, width, gsd, float(rng.uniform(0, 1) ** 1.4), sun, elevation)


def _settle(site: Site, colour: Floats, labels: NDArray[np.uint8], fine: Floats) -> Floats:
    """Lay roads, buildings, vehicles and trees on the ground, in place; returns heights in metres, (H, W)."""
    roads = plan_roads(site, labels)
    canvas = Canvas(site.height, site.width)
    draw_roads(site, canvas, roads)
    taken = Occupancy(labels)
    for road in roads:
        taken.take_band(road.points, road.headings, site.px(road.width + 0.6))
    streets = [road for road in roads if road.paved]
    for road in streets:
        if site.rng.random() < 0.4 * (1 - site.rural):
            draw_car_park(site, canvas, taken, road)
    homes = draw_buildings(site, canvas, taken, roads)
    draw_traffic(site, canvas, roads)
    trees = plant_trees(site, labels, taken, roads, homes)
    heights = canvas.lay_on(colour, labels)
    colour *= (1 + SPECKLE[labels] * fine)[..., None]
    crowns = draw_crowns(site, grow_crowns(site, trees), colour, labels, fine)
    return np.maximum(heights, crowns)


def write_scenes(
    directory: Path,
    train: int,
    val: int,
    seed: int = 0,
    size: int = 512,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write scenes in the layout "folder": ``classes.json`` and images/ and masks/ under train/ and val/.

    Scenes that are there already are kept, so an interrupted call is simply made again, and a later call may
    ask for more. Scene i of a split depends on ``seed`` and i alone; no two scenes share a seed.

    Args:
        directory: empty, not there yet, or written by this function with the same seed and size.
        train, val: number of scenes, 1 or more each.
        seed: 0 or more.
        size: height and width in pixels, a multiple of 32 and at least 128.
        progress: called with the number of scenes done so far.

    Raises:
        DataError: numbers out of range, or a folder that holds something else.
    """
    _refuse_numbers(train, val, seed, size)
    _claim(directory)
    done = 0
    for split, number in (("train", train), ("val", val)):
        for index in range(number):
            _write_scene(directory / split, f"scene_{index:04d}.png", _scene_seed(seed, split, index), size)
            done += 1
            if progress is not None:
                progress(done)


def _refuse_numbers(train: int, val: int, seed: int, size: int) -> None:
    for name, number in (("train", train), ("val", val)):
        if not 1 <= number <= MOST_SCENES:
            raise DataError(f"{number} {name} scenes cannot be made.", f"Ask for 1 to {MOST_SCENES}.")
    if size < 128 or size % 32:
        raise DataError(f"Scenes of {size} pixels cannot be made.", "Use a multiple of 32, at least 128.")
    if seed < 0:
        raise DataError(f"The seed {seed} is negative.", "Use 0 or more.")


def _scene_seed(seed: int, split: str, index: int) -> int:
    """Seeds of train scenes are even, of val scenes odd; no two calls' seeds share one."""
    return (seed * MOST_SCENES + index) * 2 + (split == "val")


def _class_table() -> str:
    classes = [{"name": c.name, "colour": list(c.colour)} for c in SCENE_TASK.classes]
    return json.dumps({"classes": classes, "ignore_index": SCENE_TASK.ignore_index}, indent=2) + "\n"


def _claim(directory: Path) -> None:
    """Make the folder and its class table, or make sure that it is one of made scenes."""
    elsewhere = "Give the scenes a folder of their own."
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is a file, not a folder.", elsewhere)
    table = directory / "classes.json"
    try:
        held = sorted(p.name for p in directory.glob("*") if p.suffix != PART)
        if held and not table.is_file():
            raise DataError(f"{directory} holds something other than made scenes: {held[0]}.", elsewhere)
        if held and table.read_text("utf-8") != _class_table():
            raise DataError(f"{directory} holds a data set with other classes.", elsewhere)
        if held:
            return
        directory.mkdir(parents=True, exist_ok=True)
        part = table.with_name(table.name + PART)
        part.write_text(_class_table(), "utf-8")
        part.replace(table)  # before any scene, so that an interrupted folder is known as ours
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{directory} cannot be used: {error}.", elsewhere) from error


def _write_scene(folder: Path, name: str, seed: int, size: int) -> None:
    """Write an image and its mask, each under a temporary name first; what is there already is kept."""
    places = (folder / "images" / name, folder / "masks" / name)
    try:
        missing = [place for place in places if not _is_kept(place, seed, size)]
        if not missing:
            return
        scene = render_scene(seed, size, size)
        mask = Image.fromarray(scene.labels)
        mask.putpalette(SCENE_TASK.palette.tobytes())
        for place, picture in zip(places, (Image.fromarray(scene.image), mask), strict=True):
            if place in missing:
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name(place.name + PART)
                picture.save(part, "PNG", pnginfo=_origin(seed, scene.gsd), compress_level=3)
                part.replace(place)
    except OSError as error:
        raise DataError(f"{folder / 'images' / name} cannot be written: {error}.", "Free some space.") from error


def _origin(seed: int, gsd: float) -> PngInfo:
    """What a scene's files say about themselves: seed and metres per pixel, as PNG text."""
    info = PngInfo()
    info.add_text(SEED_KEY, str(seed))
    info.add_text(GSD_KEY, f"{gsd:.4f}")
    return info


def _is_kept(path: Path, seed: int, size: int) -> bool:
    """Whether the file is there and whole; refuses a file of another scene."""
    if not path.is_file():
        return False
    try:
        with Image.open(path) as picture:
            same = picture.info.get(SEED_KEY) == str(seed) and picture.size == (size, size)
    except UnidentifiedImageError:
        return False
    if not same:
        raise DataError(
            f"{path} is not the scene asked for.",
            "Use the seed and size it was made with, or another folder.",
        )
    return True
