"""What people built, drawn as polygons: one call lays colour, label and height from the same outline.

Drawn at three times the resolution. The image takes the mean of a pixel's nine samples (no jagged edges);
labels and heights take the middle one (the pixel's centre), so that antialiasing shifts no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from edpct.data.scene_ground import LAND, Floats

FINE = 3
NOTHING = 255
DECIMETRES = 2.0  # heights are kept in steps of 2 dm, so that a byte reaches 51 m
Points = NDArray[np.float64]


class Canvas:
    """Colour, label and height of what was drawn so far.

    Points are (x, y) in pixels of the scene; (0, 0) is the outer corner of the first pixel.
    """

    def __init__(self, height: int, width: int) -> None:
        size = (width * FINE, height * FINE)
        self._colour = Image.new("RGB", size)
        self._label = Image.new("L", size, NOTHING)
        self._height = Image.new("L", size)
        self._draw_colour = ImageDraw.Draw(self._colour)
        self._draw_label = ImageDraw.Draw(self._label)
        self._draw_height = ImageDraw.Draw(self._height)

    def polygon(self, points: Points, tone: Floats, label: int | None = None, metres: float | None = None) -> None:
        """Fill an outline.

        Args:
            points: shape (N, 2), N at least 3.
            tone: display colour, shape (3,), 0..1.
            label: its class; None paints on what is there, as a marking on a road does.
            metres: height of its top above the ground; None leaves the height as it is.
        """
        outline = (np.asarray(points) * FINE - 0.5).ravel().tolist()
        red, green, blue = (np.clip(tone, 0, 1) * 255 + 0.5).astype(int).tolist()
        self._draw_colour.polygon(outline, fill=(red, green, blue))
        if label is not None:
            self._draw_label.polygon(outline, fill=label)
        if metres is not None:
            self._draw_height.polygon(outline, fill=int(np.clip(metres * 10 / DECIMETRES, 0, 255)))

    def disc(self, centre: Points, radius: float, tone: Floats, label: int | None = None) -> None:
        """Fill a disc; the radius is in pixels."""
        angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius
        self.polygon(centre + ring, tone, label)

    def lay_on(self, colour: Floats, labels: NDArray[np.uint8]) -> Floats:
        """Lay everything drawn on the ground, in place.

        Args:
            colour: shape (H, W, 3), display colours 0..1.
            labels: shape (H, W).

        Returns:
            Heights in metres, shape (H, W), float32.
        """
        drawn = Image.fromarray((np.asarray(self._label) != NOTHING).astype(np.uint8) * np.uint8(255))
        share = np.asarray(drawn.reduce(FINE), np.float32) / np.float32(255)
        colour *= 1 - share[..., None]
        colour += np.asarray(self._colour.reduce(FINE), np.float32) / np.float32(255)  # black where nothing is
        centre = slice(FINE // 2, None, FINE)
        middle = np.asarray(self._label)[centre, centre]
        np.copyto(labels, middle, where=middle != NOTHING)
        return np.asarray(self._height)[centre, centre].astype(np.float32) * np.float32(DECIMETRES / 10)


@dataclass(frozen=True)
class Pose:
    """Where a thing lies and which way it points.

    Attributes:
        x, y: its middle, in pixels.
        heading: of its length, radians from the x axis towards the y axis (clockwise as seen).
        scale: pixels per metre.
    """

    x: float
    y: float
    heading: float
    scale: float

    def place(self, points: ArrayLike) -> Points:
        """From metres along and across the thing, shape (N, 2), to pixels of the scene."""
        local = np.asarray(points, np.float64)
        cos, sin = np.cos(self.heading) * self.scale, np.sin(self.heading) * self.scale
        along, across = local[:, 0], local[:, 1]
        return np.stack([self.x + along * cos - across * sin, self.y + along * sin + across * cos], axis=1)

    def moved(self, along: float, across: float, turn: float = 0.0) -> Pose:
        """The pose some metres along and across, turned by some radians."""
        x, y = self.place([(along, across)])[0]
        return Pose(float(x), float(y), self.heading + turn, self.scale)


def rectangle(length: float, width: float) -> list[tuple[float, float]]:
    """Corners of a rectangle about the origin, in metres."""
    a, b = length / 2, width / 2
    return [(-a, -b), (a, -b), (a, b), (-a, b)]


class Occupancy:
    """Where something lies already, kept at a quarter of the resolution."""

    STEP = 4

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self.taken: NDArray[np.bool_] = labels[2 :: self.STEP, 2 :: self.STEP] != LAND

    def _cells(self, pose: Pose, length: float, width: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        step = self.STEP / pose.scale / 1.3
        a = np.linspace(-length / 2, length / 2, max(int(length / step), 1) + 1)
        b = np.linspace(-width / 2, width / 2, max(int(width / step), 1) + 1)
        return self._inside(pose.place(np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)))

    def _inside(self, points: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the cells of points in pixels; those outside the scene are left out."""
        cells = np.floor(points / self.STEP).astype(np.intp)
        rows, columns = self.taken.shape
        inside = (cells >= 0).all(axis=1) & (cells[:, 0] < columns) & (cells[:, 1] < rows)
        return cells[inside, 1], cells[inside, 0]

    def free(self, pose: Pose, length: float, width: float) -> bool:
        """Whether a rectangle of so many metres touches the scene and nothing in it."""
        cells = self._cells(pose, length, width)
        return len(cells[0]) > 0 and not bool(self.taken[cells].any())

    def take(self, pose: Pose, length: float, width: float) -> None:
        """Mark a rectangle of so many metres."""
        self.taken[self._cells(pose, length, width)] = True

    def take_band(self, points: Points, headings: NDArray[np.float64], width: float) -> None:
        """Mark a band so many pixels wide along points, shape (N, 2), with headings, shape (N,)."""
        normals = np.stack([-np.sin(headings), np.cos(headings)], axis=1)
        for aside in np.linspace(-width / 2, width / 2, int(width / self.STEP * 1.3) + 2):
            self.taken[self._inside(points + normals * aside)] = True

    def at(self, points: Points) -> NDArray[np.bool_]:
        """Whether each point, in pixels, shape (N, 2), is taken; outside the scene nothing is."""
        cells = np.floor(points / self.STEP).astype(np.intp)
        rows, columns = self.taken.shape
        inside = (cells >= 0).all(axis=1) & (cells[:, 0] < columns) & (cells[:, 1] < rows)
        clipped = np.clip(cells, 0, [columns - 1, rows - 1])
        return inside & self.taken[clipped[:, 1], clipped[:, 0]]
