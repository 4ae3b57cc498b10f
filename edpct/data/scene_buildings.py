"""Buildings of a made scene: flat, gabled, hipped and L-shaped, lit by the scene's sun."""

from __future__ import annotations

import numpy as np

from edpct.data.scene_canvas import Canvas, Occupancy, Pose, rectangle
from edpct.data.scene_ground import BUILDING, LAND, ROAD, Floats, Site
from edpct.data.scene_roads import ASPHALT_TONES, Road, draw_vehicle

PITCHED_TONES = (
    *((164, 92, 70), (142, 76, 60), (120, 82, 68), (104, 98, 94), (84, 84, 88), (128, 122, 116)),
    *((96, 74, 64), (150, 142, 132), (72, 74, 80)),
)
FLAT_TONES = (
    *((188, 186, 180), (150, 148, 144), (118, 117, 116), (92, 92, 94), (214, 212, 206), (140, 130, 116)),
    *((104, 114, 124), (170, 160, 146)),
)
YARD_TONES = ((150, 146, 138), (128, 126, 122), (166, 156, 138))
PANEL = np.asarray([0.12, 0.15, 0.24], np.float32)


def _lit(site: Site, tone: Floats, heading: float, pitch: float) -> Floats:
    """The colour of a roof face that slopes down towards ``heading`` by ``pitch``, both in radians."""
    towards = np.cos(heading) * site.sun[0] + np.sin(heading) * site.sun[1]
    level = np.sin(site.elevation)
    gain = (np.cos(pitch) * level + np.sin(pitch) * np.cos(site.elevation) * towards) / level
    return tone * np.float32(np.sqrt(np.clip(0.3 + 0.7 * gain, 0.25, 1.7)))


def _faces(
    site: Site, canvas: Canvas, pose: Pose, size: tuple[float, float], tone: Floats, hip: float, eaves: float
) -> None:
    """A roof with its ridge along the pose, ``hip`` metres short of the eaves at both ends (0: gabled)."""
    length, width = size
    a, b, c, pitch = length / 2, width / 2, max(length / 2 - hip, 0.0), 0.62
    top = eaves + width / 4
    canvas.polygon(pose.place(rectangle(length, width)), tone, BUILDING, top)
    left = [(-a, -b), (a, -b), (c, 0), (-c, 0)]
    right = [(-a, b), (a, b), (c, 0), (-c, 0)]
    canvas.polygon(pose.place(left), _lit(site, tone, pose.heading - np.pi / 2, pitch), None)
    canvas.polygon(pose.place(right), _lit(site, tone, pose.heading + np.pi / 2, pitch), None)
    if hip > 0:
        canvas.polygon(pose.place([(a, -b), (a, b), (c, 0)]), _lit(site, tone, pose.heading, pitch))
        canvas.polygon(pose.place([(-a, -b), (-a, b), (-c, 0)]), _lit(site, tone, pose.heading + np.pi, pitch))
    canvas.polygon(pose.place([(-c, -0.15), (c, -0.15), (c, 0.15), (-c, 0.15)]), tone * np.float32(1.12))


def _wing(
    site: Site,
    canvas: Canvas,
    pose: Pose,
    size: tuple[float, float],
    tone: Floats,
    reach: float,
    eaves: float,
) -> None:
    """A gabled wing that leaves a main roof at right angles; its faces meet the main roof in two valleys."""
    length, width = size
    side, part = np.sign(reach), min(width, length * 0.45)
    wing = pose.moved(length / 2 - part / 2, 0, side * np.pi / 2)
    far, half, wall = abs(reach) + width / 2, part / 2, width / 2
    ridge = max(wall - half, 0.0)
    canvas.polygon(
        wing.place([(wall, -half), (far, -half), (far, half), (wall, half)]), tone, BUILDING, eaves + part / 4
    )
    for sign in (-1, 1):
        face = [(wall, sign * half), (far, sign * half), (far, 0), (ridge, 0)]
        canvas.polygon(wing.place(face), _lit(site, tone, wing.heading + sign * np.pi / 2, 0.62))
    canvas.polygon(wing.place([(ridge, -0.12), (far, -0.12), (far, 0.12), (ridge, 0.12)]), tone * np.float32(1.12))


def _pitched(site: Site, canvas: Canvas, taken: Occupancy, pose: Pose, size: tuple[float, float]) -> None:
    """A house: gabled, hipped, or with a wing; now and then a chimney or solar panels."""
    rng, tone, eaves = site.rng, site.tone(PITCHED_TONES), site.rng.uniform(2.8, 6.0)
    length, width = size
    hip = width / 2 if rng.random() < 0.35 else 0.0
    _faces(site, canvas, pose, size, tone, hip, eaves)
    reach = rng.choice([-1, 1]) * rng.uniform(2.5, 5)
    plot = pose.moved(length / 4, np.sign(reach) * (width / 2 + 3.8))
    if hip == 0 and rng.random() < 0.55 and taken.free(plot, length / 2, 4.0):
        taken.take(plot, length / 2, 4.0)
        _wing(site, canvas, pose, size, tone, reach, eaves)
    if rng.random() < 0.5:
        chimney = pose.moved(rng.uniform(-0.3, 0.1) * length, rng.uniform(-0.2, 0.2) * width)
        canvas.polygon(chimney.place(rectangle(0.9, 0.7)), tone * np.float32(0.6), BUILDING, eaves + width / 4 + 1.2)
    if rng.random() < 0.15:
        panel = pose.moved(-0.1 * length, rng.choice([-1, 1]) * width * 0.25)
        canvas.polygon(panel.place(rectangle(length * 0.4, width * 0.3)), PANEL)


def _flat(site: Site, canvas: Canvas, taken: Occupancy, pose: Pose, size: tuple[float, float]) -> None:
    """A block with a parapet and machines on its roof, some of L shape, some of sheet metal with seams."""
    rng, tone, top = site.rng, site.tone(FLAT_TONES), site.rng.uniform(4, 15)
    length, width = size
    parts = [(pose, length, width)]
    if rng.random() < 0.4:
        side = int(rng.choice([-1, 1]))
        parts = [
            (pose.moved(0, -side * width / 4), length, width / 2),
            (pose.moved(-length / 4, 0), length / 2, width),
        ]
    for part, a, b in parts:
        canvas.polygon(part.place(rectangle(a, b)), tone * np.float32(1.14), BUILDING, top)
    for part, a, b in parts:
        canvas.polygon(part.place(rectangle(a - 0.9, b - 0.9)), tone)
    if rng.random() < 0.35 and len(parts) == 1:
        for seam in np.arange(-length / 2 + 2, length / 2 - 1, max(2.0, 5 * site.gsd)):
            canvas.polygon(pose.moved(float(seam), 0).place(rectangle(0.3, width - 1)), tone * np.float32(0.9))
    part, a, b = parts[0]
    for _ in range(int(rng.integers(0, 2 + int(a * b / 70)))):
        machine = part.moved(rng.uniform(-0.38, 0.38) * a, rng.uniform(-0.34, 0.34) * b)
        outline = machine.place(rectangle(rng.uniform(1, 3.2), rng.uniform(1, 2.4)))
        canvas.polygon(outline, tone * np.float32(rng.uniform(0.6, 1.2)), BUILDING, top + rng.uniform(0.8, 2))


def draw_buildings(site: Site, canvas: Canvas, taken: Occupancy, roads: list[Road]) -> list[Pose]:
    """Rows of buildings along the roads, each where there is room; returns where they stand."""
    rng = site.rng
    large = rng.random() < 0.35
    dense = 1 - site.rural
    found: list[Pose] = []
    for depth_row in range(2):
        for road in roads:
            if not road.paved and rng.random() < 0.5:
                continue
            for side in (-1, 1):
                found += _row(site, canvas, taken, road, side, large, dense, depth_row)
    return found


def _row(
    site: Site,
    canvas: Canvas,
    taken: Occupancy,
    road: Road,
    side: int,
    large: bool,
    dense: float,
    depth_row: int,
) -> list[Pose]:
    rng, scale = site.rng, 1 / site.gsd
    found: list[Pose] = []
    place = rng.uniform(0, 14)
    setback = rng.uniform(2.5, 8) + depth_row * rng.uniform(14, 22)
    while place < len(road.points) * road.step:
        flat = rng.random() < (0.8 if large else 0.15)
        big = flat and large
        size = (rng.uniform(14, 42), rng.uniform(11, 24)) if big else (rng.uniform(9, 15), rng.uniform(7, 10))
        aside = side * (road.width / 2 + setback + size[1] / 2 + rng.uniform(0, 1.5))
        pose = road.pose(int(place / road.step), scale, aside).moved(0, 0, rng.normal(0, 0.02))
        place += size[0] * rng.uniform(0.55, 0.8) + rng.uniform(1, 5)
        if rng.random() > 0.15 + 0.85 * dense or not taken.free(pose, size[0] + 3, size[1] + 3):
            continue
        found.append(pose)
        _surroundings(site, canvas, pose, size, aside, setback, big)
        taken.take(pose, size[0] + 2, size[1] + 2)
        (_flat if flat else _pitched)(site, canvas, taken, pose, size)
        place += size[0] * 0.5 + (rng.exponential(10) if rng.random() < 0.3 else 0)
    return found


def _surroundings(
    site: Site, canvas: Canvas, pose: Pose, size: tuple[float, float], aside: float, setback: float, big: bool
) -> None:
    """A paved yard (which is land) about the house and, to some, a drive (which is road) with a car."""
    rng = site.rng
    if rng.random() < (0.85 if big else 0.5):
        room = rng.uniform(1.0, 3.0)
        shifted = pose.moved(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
        canvas.polygon(shifted.place(rectangle(size[0] + room, size[1] + room)), site.tone(YARD_TONES), LAND, 0)
    if rng.random() < 0.55 and setback < 9:
        towards = -np.sign(aside)
        reach = setback + 1.8
        drive = pose.moved(size[0] / 2 - 1.7, towards * (size[1] / 2 + reach / 2), np.pi / 2)
        canvas.polygon(drive.place(rectangle(reach, 3.0)), site.tone(ASPHALT_TONES), ROAD, 0)
        if rng.random() < 0.6 and setback > 5:
            draw_vehicle(site, canvas, drive.moved(rng.uniform(-0.6, 0.6), 0, rng.choice([0, np.pi])))
