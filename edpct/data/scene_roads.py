"""Roads of a made scene and what stands and drives on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.data.scene_canvas import Canvas, Occupancy, Points, Pose, rectangle
from edpct.data.scene_ground import LAND, ROAD, VEHICLE, WATER, Floats, Site

ASPHALT_TONES = ((96, 96, 98), (116, 114, 112), (136, 133, 128), (80, 82, 86), (150, 147, 142))
TRACK_TONES = ((164, 146, 116), (142, 126, 102), (170, 162, 146))
VERGE_TONES = ((158, 154, 146), (140, 138, 124), (126, 128, 96), (172, 168, 160))
PAINT_TONES = ((232, 232, 226), (232, 232, 226), (222, 190, 92))
CAR_TONES = (
    *((236, 236, 236), (224, 226, 228), (176, 180, 184), (120, 124, 128), (62, 64, 68), (34, 35, 38)),
    *((160, 40, 36), (44, 70, 130), (190, 170, 130), (56, 88, 74), (214, 158, 40)),
)
GLASS = np.asarray([0.13, 0.15, 0.18], np.float32)


@dataclass(frozen=True)
class Road:
    """One road.

    Attributes:
        points: of its middle line, about 3 px apart, in pixels, shape (N, 2).
        headings: at these points, radians, shape (N,).
        width: in metres.
        paved: asphalt with markings, or an earth track.
        step: metres between two points.
    """

    points: Points
    headings: NDArray[np.float64]
    width: float
    paved: bool
    step: float

    def pose(self, index: int, scale: float, aside: float = 0.0) -> Pose:
        """At a point of the middle line, ``aside`` metres to the right."""
        x, y = self.points[index]
        return Pose(float(x), float(y), float(self.headings[index]), scale).moved(0, aside)

    def ribbon(self, width: float, scale: float) -> Points:
        """Its outline at some width in metres, shape (2N, 2)."""
        normal = np.stack([-np.sin(self.headings), np.cos(self.headings)], axis=1) * (width / 2 * scale)
        return np.concatenate([self.points + normal, (self.points - normal)[::-1]])


def _bend(site: Site, start: Points, heading: float, length: float, width: float, paved: bool) -> Road:
    """A road that leaves ``start`` and swings gently; lengths in metres."""
    step = 3 * site.gsd
    along = np.arange(0, max(length, 8 * step), step)
    swing = site.rng.normal(0, 0.16) * np.sin(along / site.rng.uniform(25, 70) + site.rng.uniform(0, 6.3))
    turns = heading + swing - swing[0] + along * site.rng.normal(0, 0.0008)
    moves = np.stack([np.cos(turns), np.sin(turns)], axis=1) * 3.0
    points = start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)[:-1]])
    return Road(points, turns, width, paved, step)


def _within(site: Site, road: Road, margin: float) -> Road | None:
    """The first stretch of the road that is in or near the scene; None if there is none."""
    room = np.asarray([site.width, site.height]) + margin
    near = ((road.points > -margin) & (road.points < room)).all(axis=1)
    kept = np.flatnonzero(near)
    if len(kept) < 4:
        return None
    stretch = slice(int(kept[0]), int(kept[-1]) + 1)
    return Road(road.points[stretch], road.headings[stretch], road.width, road.paved, road.step)


def plan_roads(site: Site, labels: NDArray[np.uint8]) -> list[Road]:
    """A main road through the scene, side roads off it and, in town, roads off these.

    Args:
        site: the scene.
        labels: of the ground, shape (H, W); side roads keep off long stretches of water.
    """
    rng = site.rng
    extent = float(np.hypot(site.height, site.width)) * site.gsd
    town = 1 - site.rural
    width = rng.uniform(6, 8.5) + rng.choice([0, 4.5]) * (town > 0.45)
    roads = [min((_through(site, extent, width) for _ in range(5)), key=lambda road: _wet(road, labels))]
    for _ in range(2 if town > 0.5 else 1):
        for parent in list(roads):
            for road in _side_roads(site, parent, extent):
                fitted = _fitted(road, [r for r in roads if r is not parent], labels)
                if fitted is not None and len(roads) < 10:
                    roads.append(fitted)
    return roads


def _through(site: Site, extent: float, width: float) -> Road:
    """A road from edge to edge of the scene; lengths in metres."""
    rng = site.rng
    heading = rng.uniform(0, 2 * np.pi)
    middle = np.asarray([site.width * rng.uniform(0.3, 0.7), site.height * rng.uniform(0.3, 0.7)])
    start = middle - np.asarray([np.cos(heading), np.sin(heading)]) * site.px(extent * 0.75)
    road = _bend(site, start, heading, extent * 1.5, width, True)
    return _within(site, road, 60) or road


def _wet(road: Road, labels: NDArray[np.uint8]) -> float:
    """Share of the road's middle line that crosses water."""
    rows, columns = labels.shape
    at = np.clip(road.points, 0, [columns - 1, rows - 1]).astype(int)
    return float((labels[at[:, 1], at[:, 0]] == WATER).mean())


def _fitted(road: Road, others: list[Road], labels: NDArray[np.uint8]) -> Road | None:
    """The road up to the first it meets; None where it would run along another, be a stub or lie in water."""
    end = len(road.points)
    beside = np.zeros(end, bool)
    for other in others:
        gaps = np.linalg.norm(road.points[:, None] - other.points[None, ::2], axis=2).min(axis=1) * road.step / 3
        met = np.flatnonzero(gaps < other.width * 0.3)
        end = min(end, int(met[0]) + 1) if len(met) else end
        beside |= gaps < 20
    long_enough = end * road.step > 26
    kept = Road(road.points[:end], road.headings[:end], road.width, road.paved, road.step)
    if not long_enough or beside[:end].sum() * road.step > 50 or _wet(kept, labels) > 0.2:
        return None
    return kept


def _side_roads(site: Site, parent: Road, extent: float) -> list[Road]:
    rng = site.rng
    town = 1 - site.rural
    spacing = (rng.uniform(38, 70) if town > 0.5 else rng.uniform(70, 140)) / parent.step
    found: list[Road] = []
    place = rng.uniform(0.2, 0.9) * spacing
    while place < len(parent.points) - 4:
        index = int(place)
        place += spacing * rng.uniform(0.7, 1.4)
        sides = [-1, 1] if rng.random() < 0.3 else [int(rng.choice([-1, 1]))]
        for side in sides:
            heading = float(parent.headings[index]) + side * (np.pi / 2 + rng.normal(0, 0.12))
            paved = rng.random() < 0.35 + 0.6 * town
            width = rng.uniform(4.6, 6.8) if paved else rng.uniform(2.6, 4.0)
            length = extent * rng.choice([0.25, 0.5, 1.0])
            road = _within(site, _bend(site, parent.points[index], heading, length, width, paved), 40)
            if road is not None:
                found.append(road)
    return found


def draw_roads(site: Site, canvas: Canvas, roads: list[Road]) -> None:
    """Verges, then surfaces, then markings, so that junctions are clean."""
    scale = 1 / site.gsd
    verge, kerb = site.tone(VERGE_TONES), site.rng.uniform(0.8, 3.2)
    asphalt, track = site.tone(ASPHALT_TONES), site.tone(TRACK_TONES)
    for road in roads:
        if road.paved:
            canvas.polygon(road.ribbon(road.width + kerb, scale), verge, LAND)
    for road in sorted(roads, key=lambda r: (r.paved, r.width)):
        worn = np.float32(1 + site.rng.normal(0, 0.05))
        tone = asphalt * worn if road.paved else track * worn
        canvas.polygon(road.ribbon(road.width, scale), tone, ROAD)
        canvas.disc(road.points[-1], road.width / 2 * scale, tone, ROAD)
        _patch(site, canvas, road, tone)
    for road in roads:
        if road.paved:
            _mark(site, canvas, road, [other for other in roads if other is not road])


def _patch(site: Site, canvas: Canvas, road: Road, tone: Floats) -> None:
    """Repairs, wheel tracks and the grass in the middle of a track: paint on the road, so its label stays."""
    scale, rng = 1 / site.gsd, site.rng
    for _ in range(int(rng.integers(0, 4)) if road.paved else 0):
        pose = road.pose(int(rng.integers(len(road.points))), scale, rng.uniform(-0.25, 0.25) * road.width)
        outline = pose.place(rectangle(rng.uniform(2, 9), road.width * rng.uniform(0.2, 0.45)))
        canvas.polygon(outline, tone * np.float32(rng.uniform(0.8, 1.1)))
    if not road.paved:
        canvas.polygon(road.ribbon(0.7, scale), tone * np.asarray([0.88, 0.95, 0.8], np.float32))


def _mark(site: Site, canvas: Canvas, road: Road, others: list[Road]) -> None:
    """Broken middle line and, on wide roads, lines along the edges; none across a junction."""
    if road.width < 5.2:
        return
    scale, paint = 1 / site.gsd, site.tone(PAINT_TONES, 4.0)
    clear = np.ones(len(road.points), bool)
    for other in others:
        gaps = np.linalg.norm(road.points[:, None] - other.points[None, ::2], axis=2).min(axis=1)
        clear &= gaps > ((other.width / 2 + 1.5) * scale if other.paved else 0)
    stride, dash = max(int(7.5 / road.step), 2), max(3.2, 2 * site.gsd)
    for index in range(stride, len(road.points) - stride, stride):
        if clear[index]:
            canvas.polygon(road.pose(index, scale).place(rectangle(dash, 0.22)), paint)
    if road.width < 7.5:
        return
    lines = [-(road.width / 2 - 0.5), road.width / 2 - 0.5] + ([-3.2, 3.2] if road.width > 11 else [])
    for aside in lines:
        for index in range(1, len(road.points) - 1, 2):
            if clear[index] and (abs(aside) > 3.3 or index % stride < stride / 2):
                pose = road.pose(index, scale, aside)
                canvas.polygon(pose.place(rectangle(road.step * 2.2, 0.16)), paint)


def draw_vehicle(site: Site, canvas: Canvas, pose: Pose, long: bool = False) -> None:
    """A car or, if ``long``, a lorry or van; it points along the pose."""
    rng = site.rng
    length, width = (rng.uniform(6, 11), 2.5) if long else (rng.uniform(4.0, 4.9), rng.uniform(1.75, 2.0))
    height = 3.2 if long else 1.5
    a, b, cut = length / 2, width / 2, 0.35
    body = [(-a, -b + cut), (-a + cut, -b), (a - cut, -b), (a, -b + cut), (a, b - cut), (a - cut, b)]
    body += [(-a + cut, b), (-a, b - cut)]
    tone = site.tone(CAR_TONES[:4] if long else CAR_TONES, 6.0)
    canvas.polygon(pose.place(body), tone, VEHICLE, height)
    if long:
        canvas.polygon(pose.moved(a - 1.1, 0).place(rectangle(0.7, width * 0.8)), GLASS)
        canvas.polygon(pose.moved(a - 1.75, 0).place(rectangle(0.25, width)), tone * np.float32(0.5))
        return
    canvas.polygon(pose.moved(length * 0.17, 0).place(rectangle(0.65, width * 0.8)), GLASS)
    canvas.polygon(pose.moved(-length * 0.3, 0).place(rectangle(0.5, width * 0.75)), GLASS)
    canvas.polygon(pose.moved(-length * 0.06, 0).place(rectangle(1.5, width * 0.7)), tone * np.float32(1.08))


def draw_traffic(site: Site, canvas: Canvas, roads: list[Road]) -> None:
    """Vehicles in the lanes and at the kerbs, none on top of another."""
    rng, scale = site.rng, 1 / site.gsd
    stands: list[Points] = []
    for road in roads:
        per_metre = (0.022 if road.width > 5.5 else 0.008) * rng.uniform(0.4, 1.8) * (0.5 + 1.2 * (1 - site.rural))
        parked = road.paved and rng.random() < 0.75 * (1 - site.rural)
        for side in (-1, 1):
            place = rng.uniform(0, 20)
            while place < len(road.points) * road.step - 4:
                at_kerb = parked and rng.random() < 0.7
                lane = road.width / 2 - 1.15 if at_kerb else road.width / 4
                pose = road.pose(int(place / road.step), scale, side * lane)
                place += 5.6 + rng.exponential(9 if at_kerb else 0.6 / per_metre)
                centre = np.asarray([pose.x, pose.y])
                if any(np.hypot(*(centre - other)) < 7.0 * scale for other in stands[-160:]):
                    continue
                stands.append(centre)
                turned = pose.moved(0, 0, rng.normal(0, 0.02) + (np.pi if side < 0 else 0))
                draw_vehicle(site, canvas, turned, long=not at_kerb and rng.random() < 0.12)


def draw_car_park(site: Site, canvas: Canvas, taken: Occupancy, road: Road) -> None:
    """Rows of marked places beside a road, some of them occupied; drawn only where there is room."""
    rng, scale = site.rng, 1 / site.gsd
    places, rows = int(rng.integers(6, 15)), int(rng.choice([2, 2, 4]))
    length, width = places * 2.6 + 3, rows * 5.0 + rows / 2 * 6.0
    gap = 1.2 + 3 * site.gsd
    for _ in range(6):
        side, index = int(rng.choice([-1, 1])), int(rng.integers(len(road.points)))
        pose = road.pose(index, scale, side * (road.width / 2 + width / 2 + gap))
        if taken.free(pose, length, width):
            break
    else:
        return
    taken.take(pose, length + 2, width + 2)
    tone, paint = site.tone(ASPHALT_TONES), site.tone(PAINT_TONES[:1])
    canvas.polygon(pose.place(rectangle(length, width)), tone, ROAD)
    entry = pose.moved(0, -side * (width / 2 + gap / 2))
    canvas.polygon(entry.place(rectangle(6, gap + 0.6)), tone, ROAD)
    full = rng.uniform(0.25, 0.9)
    for row in range(rows):
        across = -width / 2 + 2.5 + (row // 2) * 16.0 + (row % 2) * 11.0
        for place in range(places):
            along = (place - (places - 1) / 2) * 2.6
            canvas.polygon(pose.moved(along - 1.3, across).place(rectangle(0.14, 4.8)), paint)
            if rng.random() < full:
                turn = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.03)
                draw_vehicle(site, canvas, pose.moved(along, across + rng.normal(0, 0.15), turn))
