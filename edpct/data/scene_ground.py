"""What made scenes stand on: land, fields and water, with exact labels.

Everything here is a function of pixel centres: a signed distance in pixels says on which side of an edge a
centre lies (its label) and how much of the pixel is covered (the blend): image and label share one geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LAND, FIELD, ROAD, BUILDING, VEGETATION, WATER, VEHICLE = range(7)
Floats = NDArray[np.float32]

LAND_TONES = ((112, 118, 74), (134, 130, 86), (92, 108, 62), (150, 142, 104), (120, 122, 84))
SOIL_TONES = ((150, 130, 104), (138, 132, 122), (172, 156, 128), (128, 108, 88))
CROP_TONES = (
    *((196, 176, 122), (176, 160, 98), (102, 126, 66), (80, 106, 56), (124, 128, 74)),
    *((136, 112, 88), (116, 96, 78), (168, 148, 118), (182, 172, 84), (94, 116, 80)),
)
WATER_TONES = ((38, 58, 64), (52, 70, 66), (74, 84, 70), (44, 66, 82), (88, 90, 74))


@dataclass(frozen=True)
class Site:
    """Where a scene is made.

    Attributes:
        rng: the scene's only source of chance.
        height, width: size in pixels.
        gsd: ground sampling distance, metres per pixel.
        rural: 0 (dense town) to 1 (open country).
        sun: unit vector in the image (x right, y down) towards the sun.
        elevation: of the sun above the horizon, radians.
    """

    rng: np.random.Generator
    height: int
    width: int
    gsd: float
    rural: float
    sun: tuple[float, float]
    elevation: float

    def px(self, metres: float) -> float:
        """A length on the ground, in pixels."""
        return metres / self.gsd

    def tone(self, tones: tuple[tuple[int, int, int], ...], jitter: float = 8.0) -> Floats:
        """One of the display colours, slightly varied in brightness and hue; shape (3,), 0..1."""
        chosen = np.asarray(tones[int(self.rng.integers(len(tones)))], np.float32)
        varied = chosen + self.rng.normal(0, jitter) + self.rng.normal(0, jitter / 3, 3)
        return np.clip(varied / 255.0, 0.02, 0.98).astype(np.float32)

    def noise(self, cell: float, octaves: int, roughness: float = 0.55) -> Floats:
        """Fractal noise, shape (H, W), mean 0, deviation 1; ``cell`` is its coarsest wavelength in pixels."""
        total = np.zeros((self.height, self.width), np.float32)
        for octave in range(octaves):
            size = max(cell / 2**octave, 1.0)
            rows, columns = self.height / size, self.width / size
            grid = self.rng.standard_normal((int(rows) + 4, int(columns) + 4), dtype=np.float32)
            box = (1.0, 1.0, 1.0 + columns, 1.0 + rows)
            layer = Image.fromarray(grid).resize((self.width, self.height), Image.Resampling.BICUBIC, box=box)
            total += np.float32(roughness**octave) * np.asarray(layer)
        total -= total.mean()
        total /= total.std() + np.float32(1e-6)
        return total

    def grain(self) -> Floats:
        """Noise of about two pixels, without a lattice, shape (H, W), mean 0, deviation 1."""
        speckle = self.rng.standard_normal((self.height, self.width), dtype=np.float32)
        smooth = speckle
        for axis in (0, 1):
            smooth = smooth + np.float32(0.7) * (np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis))
        mixed: Floats = smooth + speckle
        return mixed / mixed.std()

    def grid(self) -> tuple[Floats, Floats]:
        """Pixel centres from the middle of the scene, in pixels: x of shape (1, W), y of shape (H, 1)."""
        x = np.arange(self.width, dtype=np.float32)[None, :] + np.float32(0.5 - self.width / 2)
        y = np.arange(self.height, dtype=np.float32)[:, None] + np.float32(0.5 - self.height / 2)
        return x, y


@dataclass
class Ground:
    """The ground as the other layers meet it.

    Attributes:
        colour: display colour before light, shape (H, W, 3), float32, 0..1.
        labels: shape (H, W), uint8: land, field or water.
    """

    colour: Floats
    labels: NDArray[np.uint8]


def blend(colour: Floats, over: Floats, share: Floats) -> None:
    """Lay ``over`` on ``colour`` in place; ``share`` of shape (H, W), 0..1."""
    colour += share[..., None] * (over - colour)


def coverage(distance: Floats) -> Floats:
    """Share of each pixel inside an edge, from its centre's signed distance in pixels (inside positive)."""
    return np.clip(distance + np.float32(0.5), 0, 1)


def make_ground(site: Site, broad: Floats, fine: Floats) -> Ground:
    """Land, then fields, then water.

    Args:
        site: the scene.
        broad: noise of some 60 m wavelength, shape (H, W).
        fine: noise of a few pixels, shape (H, W).
    """
    ground = Ground(_land(site, broad, fine), np.full((site.height, site.width), LAND, np.uint8))
    _lay_fields(site, ground, broad, fine)
    if site.rng.random() < 0.62:
        _lay_water(site, ground, broad)
    return ground


def _land(site: Site, broad: Floats, fine: Floats) -> Floats:
    """Grass of two tones with bare patches, shape (H, W, 3)."""
    patches = site.noise(site.px(28), 4, 0.62)
    mix = np.clip(0.5 + 0.35 * patches, 0, 1)[..., None]
    colour = site.tone(LAND_TONES) * mix + site.tone(LAND_TONES) * (1 - mix)
    bare = np.clip((broad * 0.6 - patches * 0.7 + fine * 0.15 - site.rng.uniform(0.3, 1.4)) * 1.8, 0, 1)
    blend(colour, site.tone(SOIL_TONES), bare * np.float32(0.9))
    colour *= (1 + 0.035 * fine + 0.03 * patches)[..., None]
    return colour.astype(np.float32)


def _parcels(site: Site, broad: Floats) -> tuple[NDArray[np.intp], int, Floats, Floats, Floats]:
    """Cut the country into parcels: id of each pixel, their number, metres to the next edge, both axes."""
    x, y = site.grid()
    turn = site.rng.uniform(0, np.pi)
    extent = np.hypot(site.height, site.width) * site.gsd
    u = (x * np.cos(turn) + y * np.sin(turn)).astype(np.float32) * np.float32(site.gsd) + broad * 0.6
    v = (y * np.cos(turn) - x * np.sin(turn)).astype(np.float32) * np.float32(site.gsd)
    v += np.float32(site.rng.normal(0, 0.18)) * u
    edge = np.full(u.shape, np.inf, np.float32)
    index = np.zeros(u.shape, np.intp)
    number = 1
    for axis in (u, v):
        steps = site.rng.uniform(0.18, 0.42, 8) * max(extent * 0.6, 50)
        cuts = (np.cumsum(steps) - steps.sum() * site.rng.uniform(0.35, 0.65)).astype(np.float32)
        for cut in cuts:
            offset = axis - cut
            index += (offset > 0) * number
            np.minimum(edge, np.abs(offset), out=edge)
        number *= len(cuts) + 1
    return index, number, edge, u, v


def _lay_fields(site: Site, ground: Ground, broad: Floats, fine: Floats) -> None:
    rng = site.rng
    index, number, edge, u, v = _parcels(site, broad)
    is_field = rng.random(number) < 0.06 + 0.84 * site.rural**1.3
    if not is_field[index].any():
        return
    tones = np.stack([site.tone(CROP_TONES) for _ in range(number)])
    # Rows run along one axis of the parcel or, seldom, askew; none is narrower than the sensor resolves.
    askew = np.where(rng.random(number) < 0.5, 0.0, np.pi / 2) + rng.normal(0, 0.08, number)
    pitch = np.maximum(rng.uniform(0.7, 3.5, number), 3.2 * site.gsd)
    depth = rng.uniform(0.01, 0.075, number) * (rng.random(number) < 0.85)
    table = np.stack([np.cos(askew), np.sin(askew), 2 * np.pi / pitch, depth]).astype(np.float32)
    along_x, along_y, frequency, amplitude = table[:, index]
    across = u * along_x + v * along_y
    shade = 1 + amplitude * np.sin(across * frequency + 0.5 * fine) + 0.035 * broad + 0.025 * fine
    tramline = np.abs(np.mod(across, np.float32(rng.uniform(12, 24))) - 1.0)
    shade -= np.float32(0.11) * (tramline < 0.3) * (amplitude > 0.03)
    colour = tones.astype(np.float32)[index] * shade[..., None]
    margin = rng.uniform(0.6, 2.4)
    inside = np.where(is_field[index], (edge - margin) / site.gsd, -1).astype(np.float32)
    blend(ground.colour, colour, coverage(inside))
    ground.labels[inside > 0] = FIELD


def _lay_water(site: Site, ground: Ground, broad: Floats) -> None:
    """A river or a lake with banks, ripples and shallows."""
    rng = site.rng
    wander = site.noise(site.px(45), 4, 0.45)
    distance = _river(site) if rng.random() < 0.55 else _lake(site)
    distance += wander * np.float32(site.px(2.2)) + broad * np.float32(site.px(1.5))
    bank = site.tone(SOIL_TONES) if rng.random() < 0.5 else site.tone(LAND_TONES) * np.float32(0.75)
    reach = site.px(rng.uniform(1.0, 3.5))
    strip = np.clip(1 + (distance + wander) / reach, 0, 1).astype(np.float32)
    blend(ground.colour, bank, strip * np.float32(0.9))
    ground.labels[strip > 0.5] = LAND  # where the bank hides the crop, no field is seen
    blend(ground.colour, _water_colour(site, distance), coverage(distance))
    ground.labels[distance > 0] = WATER


def _river(site: Site) -> Floats:
    """Signed distance to the banks in pixels, inside positive, shape (H, W)."""
    rng = site.rng
    x, y = site.grid()
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    aside = y * np.cos(turn) - x * np.sin(turn) - rng.uniform(-0.32, 0.32) * min(site.height, site.width)
    extent = site.px(rng.uniform(90, 190))
    meander = np.sin(along * (2 * np.pi / extent) + rng.uniform(0, 6.3)) * extent * rng.uniform(0.04, 0.13)
    half = site.px(rng.uniform(4, 13)) * (1 + 0.15 * np.sin(along * (5 / extent)))
    return (half - np.abs(aside + meander)).astype(np.float32)


def _lake(site: Site) -> Floats:
    """Signed distance to the shore in pixels, inside positive, shape (H, W)."""
    rng = site.rng
    x, y = site.grid()
    x = x - rng.uniform(-0.45, 0.45) * site.width
    y = y - rng.uniform(-0.45, 0.45) * site.height
    radius = rng.uniform(0.14, 0.36) * min(site.height, site.width)
    bearing, phases = np.arctan2(y, x), rng.uniform(0, 6.3, 2)
    lobes = 0.2 * np.sin(2 * bearing + phases[0]) + 0.1 * np.sin(3 * bearing + phases[1])
    return (radius * (1 + lobes) - np.hypot(x, y)).astype(np.float32)


def _water_colour(site: Site, distance: Floats) -> Floats:
    """Deep water, lighter in the shallows, with ripples across the wind and glint on some of them."""
    rng = site.rng
    x, y = site.grid()
    wind = rng.uniform(0, np.pi)
    crest = site.noise(site.px(3.0), 3, 0.7)
    phase = (x * np.cos(wind) + y * np.sin(wind)) * (2 * np.pi / max(site.px(2.4), 4.0))
    ripple = 0.6 * crest + 0.4 * np.sin(phase + 2.0 * crest)
    shallow = np.exp(-np.maximum(distance, 0) / site.px(rng.uniform(1.5, 5)))[..., None]
    deep = site.tone(WATER_TONES)
    colour = deep + shallow * (site.tone(SOIL_TONES) * np.float32(0.72) - deep) * np.float32(0.6)
    colour = colour * (1 + np.float32(rng.uniform(0.015, 0.05)) * ripple)[..., None]
    calm = np.clip(site.noise(site.px(50), 2) * 0.4 + 0.4, 0, 1)
    glint = np.clip(ripple - 1.3, 0, 1) * calm * np.float32(rng.uniform(0, 0.35))
    return (colour + glint[..., None]).astype(np.float32)
