"""Trees and shrubs of a made scene: crowns of several lobes, as seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.data.scene_canvas import Occupancy, Points, Pose
from edpct.data.scene_ground import FIELD, LAND, VEGETATION, WATER, Floats, Site, blend, coverage
from edpct.data.scene_roads import Road

CROWN_TONES = ((58, 80, 46), (76, 98, 52), (92, 104, 60), (66, 84, 62), (104, 100, 58))
LOBES = 6
MOST_TREES = 520


@dataclass
class Crowns:
    """All crowns of a scene as fields over its pixels, each of shape (H, W), float32.

    Attributes:
        inside: signed distance to the nearest crown's edge, pixels, inside positive.
        top: height of the highest crown above the ground, metres.
        tint: brightness and hue of that crown, shape (2, H, W), about -1..1.
    """

    inside: Floats
    top: Floats
    tint: Floats


def plant_trees(
    site: Site, labels: NDArray[np.uint8], taken: Occupancy, roads: list[Road], homes: list[Pose]
) -> Floats:
    """Where trees and shrubs stand: rows of (x px, y px, radius px, height m), shape (N, 4)."""
    groups = [
        _woods(site, labels),
        *[_avenue(site, road) for road in roads],
        _gardens(site, homes),
        _shrubs(site, labels),
    ]
    trees = np.concatenate(groups)
    stem = np.stack([trees[:, 0], trees[:, 1]], axis=1)
    at = np.clip(stem, 0, [site.width - 1, site.height - 1]).astype(int)
    below = labels[at[:, 1], at[:, 0]]
    kept = trees[~taken.at(stem) & (below == LAND)]
    site.rng.shuffle(kept)
    return kept[:MOST_TREES].astype(np.float32)


def _grown(site: Site, points: Points, radius: tuple[float, float]) -> Points:
    """Trees at points in pixels, with crowns of so many metres."""
    size = site.rng.uniform(*radius, len(points))
    tall = size * site.rng.uniform(1.6, 2.6, len(points))
    return np.column_stack([points, np.maximum(size / site.gsd, 1.8), tall])


def _woods(site: Site, labels: NDArray[np.uint8]) -> Points:
    """Stands of trees on a jittered lattice where slow noise is high."""
    rng = site.rng
    radius = rng.uniform(1.9, 3.6)
    pitch = site.px(radius * rng.uniform(1.15, 1.6))
    rows, columns = np.mgrid[0 : site.height + pitch : pitch, 0 : site.width + pitch : pitch]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    points = points + rng.normal(0, pitch * 0.28, points.shape)
    stand = site.noise(site.px(55), 3)
    shore = site.noise(site.px(20), 2)
    stand += 0.5 * shore
    at = np.clip(points, 0, [site.width - 1, site.height - 1]).astype(int)
    density = stand[at[:, 1], at[:, 0]]
    return _grown(site, points[density > rng.uniform(0.75, 1.7)], (radius * 0.7, radius * 1.3))


def _avenue(site: Site, road: Road) -> Points:
    """Trees in a row along a road, with gaps."""
    rng, scale = site.rng, 1 / site.gsd
    if rng.random() < 0.45:
        return np.zeros((0, 4))
    spacing = max(int(rng.uniform(6, 14) / road.step), 1)
    aside = road.width / 2 + rng.uniform(1.5, 3.2)
    poses = [
        road.pose(index, scale, side * aside + rng.normal(0, 0.3))
        for side in (-1, 1)
        for index in range(int(rng.integers(spacing)), len(road.points), spacing)
        if rng.random() < 0.7
    ]
    points = np.asarray([(p.x, p.y) for p in poses]).reshape(-1, 2)
    size = rng.uniform(1.5, 3.4)
    return _grown(site, points, (size * 0.8, size * 1.2))


def _gardens(site: Site, homes: list[Pose]) -> Points:
    rng = site.rng
    spots = [h.moved(rng.normal(0, 9), rng.normal(0, 9)) for h in homes for _ in range(int(rng.integers(0, 6)))]
    points = np.asarray([(p.x, p.y) for p in spots]).reshape(-1, 2)
    return _grown(site, points, (0.9, 3.4))


def _shrubs(site: Site, labels: NDArray[np.uint8]) -> Points:
    """Low growth on the land and along the edges of fields and water."""
    rng = site.rng
    area = site.height * site.width * site.gsd**2
    loose = rng.uniform(0, 1, (int(min(area / rng.uniform(250, 1500), 150)), 2)) * [site.width, site.height]
    edge = np.zeros(labels.shape, bool)
    kind = np.where((labels == FIELD) | (labels == WATER), labels, 0)
    reach = max(int(site.px(1.2)), 1)
    edge[reach:, reach:] = (kind[:-reach, reach:] != kind[reach:, reach:]) | (
        kind[reach:, :-reach] != kind[reach:, reach:]
    )
    places = np.argwhere(edge & (labels == LAND))[:, ::-1]
    number = int(min(len(places) * site.gsd**2 / 9 * rng.choice([0.1, 0.5, 1.0]), 200))
    hedge = places[rng.permutation(len(places))[:number]] + 0.5
    shrubs = _grown(site, np.concatenate([loose, hedge]), (0.5, 1.3))
    tall = rng.random(len(shrubs)) < 0.12
    shrubs[tall, 2:] *= 2.2
    return shrubs


def grow_crowns(site: Site, trees: Floats) -> Crowns:
    """Raise the crown of each tree: a dome over each of its lobes, the highest dome counting."""
    shape = (site.height, site.width)
    crowns = Crowns(np.full(shape, -9, np.float32), np.zeros(shape, np.float32), np.zeros((2, *shape), np.float32))
    chance = site.rng.random((len(trees), LOBES, 3), dtype=np.float32)
    tints = site.rng.normal(0, 0.5, (len(trees), 2)).astype(np.float32)
    for tree, lobes, tint in zip(trees, chance, tints, strict=True):
        _raise_crown(crowns, tree, lobes, tint)
    return crowns


def _raise_crown(crowns: Crowns, tree: Floats, lobes: Floats, tint: Floats) -> None:
    x, y, radius, height = (float(value) for value in tree)
    bearing = (np.arange(LOBES, dtype=np.float32) + lobes[:, 0]) * np.float32(2 * np.pi / LOBES)
    out, size = radius * (0.3 + 0.3 * lobes[:, 1]), radius * (0.38 + 0.28 * lobes[:, 2])
    out[0], size[0] = 0.0, radius * 0.62
    rows, columns = crowns.inside.shape
    reach = radius * 1.3 + 1
    top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, rows)
    left, right = max(int(x - reach), 0), min(int(x + reach) + 1, columns)
    if top >= bottom or left >= right:
        return
    px = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
    py = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y)
    dx = px[None, :] - (out * np.cos(bearing))[:, None]
    dy = py[None, :] - (out * np.sin(bearing))[:, None]
    square = (dy * dy)[:, :, None] + (dx * dx)[:, None, :]
    dome = 1 - square / (size * size)[:, None, None]
    window = np.s_[top:bottom, left:right]
    inside = (dome * (size / 2)[:, None, None]).max(axis=0)
    np.maximum(crowns.inside[window], inside, out=crowns.inside[window])
    raised = np.float32(height) * (0.45 + 0.55 * np.sqrt(np.maximum(dome.max(axis=0), 0)))
    higher = (inside > 0) & (raised > crowns.top[window])
    crowns.top[window][higher] = raised[higher]
    crowns.tint[:, top:bottom, left:right][:, higher] = tint[:, None]


def draw_crowns(site: Site, crowns: Crowns, colour: Floats, labels: NDArray[np.uint8], fine: Floats) -> Floats:
    """Lay the crowns over everything, in place; returns their heights, metres, 0 elsewhere, shape (H, W)."""
    inside = crowns.inside + np.float32(0.35) * fine  # leaves do not end on a circle
    first, second = site.tone(CROWN_TONES), site.tone(CROWN_TONES)
    hue = np.clip(0.5 + 0.5 * crowns.tint[1], 0, 1)[..., None]
    leaves = first * hue + second * (1 - hue)
    bumpy = crowns.top + fine * np.float32(0.35)
    east, south = np.roll(bumpy, -1, axis=1) - bumpy, np.roll(bumpy, -1, axis=0) - bumpy
    slope = -(east * np.float32(site.sun[0]) + south * np.float32(site.sun[1])) / np.float32(site.gsd)
    relief = 1 + np.float32(0.2) * np.tanh(slope * np.float32(0.55)) + np.float32(0.06) * fine
    leaves = leaves * (relief * (1 + np.float32(0.13) * crowns.tint[0]))[..., None]
    blend(colour, leaves.astype(np.float32), coverage(inside))
    labels[inside > 0] = VEGETATION
    return np.where(inside > 0, crowns.top, 0).astype(np.float32)
