"""Ground that train and val share, found by image hashing: whole images, crops at any offset, and re-encoded ones.

Val that shows ground of train measures memory, not generalisation. Hashes of whole images miss tiles that overlap in
part, and hashes on a grid miss those that are shifted. So hashes are taken at anchors, which move with the ground:

1. Anchors are where a small square differs most from the larger square around it (centre-surround, as in CenSurE,
   Agrawal et al., ECCV 2008), found through summed areas. Flat water and desert have none.
2. The 64 x 64 pixels around each are hashed several times: the signs of random projections of their low frequencies
   (Charikar, STOC 2002). Patches that share a hash are compared by normalised cross-correlation.
3. Two images overlap where several patches that agree lie at one displacement, which look-alikes (rows of equal roofs)
   do not.

Turned, mirrored or rescaled copies are not found, nor overlaps of less than about 100 pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edpct.data.samples import Split
from edpct.data.sliding import over_square

HALF = 2  # images are halved first, so that an odd offset moves a sample by a quarter of a cell at most
CENTRE, SURROUND, APART = 2, 6, 10  # radii of the squares and of the area in which an anchor is the only one
LEAST_CONTRAST = 4.0  # grey levels between centre and surround
CELLS, CELL = 16, 2  # of a patch, each way, and the side of a cell: 64 pixels of the image
REACH = CELLS * CELL // 2
HASHES, FEWEST_BITS, MOST_BITS = 8, 12, 20
LOW_FREQUENCIES = 7
MOST_ALIKE = 64  # a hash that more patches of train share is that of a texture, and tells nothing
LEAST_CORRELATION = 0.85
BIN = 12  # displacements this near count as one, halved pixels
FEWEST_PATCHES, FEWEST_OF_MANY = 3, 6
LEAST_SHARE = 0.25  # of the patches in the common area, where fewer than FEWEST_OF_MANY agree
PAIRS_AT_ONCE = 100_000

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Overlap:
    """Two images that show the same ground.

    Attributes:
        train, val: index of the image in its split.
        patches: how many patches agree.
        train_box, val_box: the common area in either image: left, top, right, bottom, pixels.
        share: of the val image's area, 0..1.
    """

    train: int
    val: int
    patches: int
    train_box: tuple[int, int, int, int]
    val_box: tuple[int, int, int, int]
    share: float


@dataclass(frozen=True)
class Anchors:
    """Anchors of one image.

    Attributes:
        places: (N, 2), int32, row and column, halved pixels.
        patches: (N, CELLS²), uint8, grey.
        size: height and width of the image, pixels.
    """

    places: NDArray[np.int32]
    patches: NDArray[np.uint8]
    size: tuple[int, int]


def find_anchors(image: NDArray[np.uint8]) -> Anchors:
    """Anchors of an image (H, W, 3), uint8 RGB."""
    height, width = image.shape[:2]
    none = Anchors(np.zeros((0, 2), np.int32), np.zeros((0, CELLS * CELLS), np.uint8), (height, width))
    if min(height, width) < 2 * HALF * REACH:
        return none
    sums = _summed_area(_halved_grey(image))
    margin = SURROUND - CENTRE
    centre = _means(sums, CENTRE)[margin:-margin, margin:-margin]
    contrast = np.abs(centre - _means(sums, SURROUND)).astype(np.float32)
    highest = contrast == over_square(contrast, np.maximum, -1.0, APART)
    rows, columns = (found + SURROUND for found in np.nonzero(highest & (contrast >= LEAST_CONTRAST)))
    inside = (np.minimum(rows, columns) >= REACH) & (rows < sums.shape[0] - REACH) & (columns < sums.shape[1] - REACH)
    if not inside.any():
        return none
    places = np.stack([rows[inside], columns[inside]], 1).astype(np.int32)
    edges = np.arange(CELLS + 1) * CELL - REACH
    corners = sums[places[:, 0, None, None] + edges[:, None], places[:, 1, None, None] + edges]
    cells = corners[:, 1:, 1:] - corners[:, :-1, 1:] - corners[:, 1:, :-1] + corners[:, :-1, :-1]
    patches = np.round(cells / CELL**2).astype(np.uint8).reshape(len(places), -1)
    return Anchors(places, patches, (height, width))


class OverlapFinder:
    """Collects anchors image by image, then compares the splits."""

    def __init__(self) -> None:
        self._anchors: dict[Split, dict[int, Anchors]] = {"train": {}, "val": {}}

    def add(self, split: Split, index: int, image: NDArray[np.uint8]) -> None:
        """Remember an image (H, W, 3), uint8 RGB, of a split."""
        self._anchors[split][index] = find_anchors(image)

    def find(self) -> list[Overlap]:
        """Overlaps between the splits, those with most patches first; one of each pair of images."""
        train, val = (_Side(self._anchors[split]) for split in ("train", "val"))
        if not len(train.patches) or not len(val.patches):
            return []
        agreeing: dict[tuple[int, int], list[NDArray[np.int32]]] = defaultdict(list)
        for ours, theirs in _matches(train, val):
            agreeing[int(train.image[ours]), int(val.image[theirs])].append(
                np.concatenate([train.places[ours] - val.places[theirs], val.places[theirs]])
            )
        found = []
        for (ours, theirs), rows in agreeing.items():
            if len(rows) >= FEWEST_PATCHES:
                overlap = self._judge(ours, theirs, np.array(rows))
                found += [overlap] if overlap else []
        return sorted(found, key=lambda overlap: -overlap.patches)

    def _judge(self, ours: int, theirs: int, rows: NDArray[np.int32]) -> Overlap | None:
        """The overlap at the displacement that most patches have, if they are enough.

        Args:
            rows: (N, 4): displacement, and place in the val image, halved pixels.
        """
        train, val = self._anchors["train"][ours], self._anchors["val"][theirs]
        moved = _most_common(rows)
        near = np.abs(rows[:, :2] - moved).max(1) <= BIN // 2
        patches = len(np.unique(rows[near, 2:], axis=0))
        middle = np.median(rows[near, :2], axis=0)
        expected = min(_in_common(val.places + middle, train), _in_common(train.places - middle, val))
        if patches < FEWEST_PATCHES or (patches < FEWEST_OF_MANY and patches < LEAST_SHARE * expected):
            return None
        down, right = (round(HALF * float(step)) for step in middle)
        top, left = max(0, -down), max(0, -right)
        bottom = min(val.size[0], train.size[0] - down)
        end = min(val.size[1], train.size[1] - right)
        share = (bottom - top) * (end - left) / (val.size[0] * val.size[1])
        boxes = (left + right, top + down, end + right, bottom + down), (left, top, end, bottom)
        return Overlap(ours, theirs, patches, *boxes, share)


class _Side:
    """Anchors of all images of a split in one array each."""

    def __init__(self, anchors: dict[int, Anchors]) -> None:
        none = np.zeros((0, CELLS * CELLS), np.uint8)
        self.places = np.concatenate([np.zeros((0, 2), np.int32), *(a.places for a in anchors.values())])
        self.patches = np.concatenate([none, *(a.patches for a in anchors.values())])
        self.image = np.repeat(np.array(list(anchors), np.int32), [len(a.places) for a in anchors.values()])


def _matches(train: _Side, val: _Side) -> NDArray[np.intp]:
    """Patches that correlate, (N, 2), indices into train and val."""
    bits = int(np.clip(np.ceil(np.log2(len(train.patches) + 1)), FEWEST_BITS, MOST_BITS))
    planes = _hash_planes(bits)
    ours, theirs = (_hashes(side.patches, planes, bits) for side in (train, val))
    kept = [np.zeros((0, 2), np.intp)]
    for key_train, key_val in zip(ours, theirs, strict=True):
        order = np.argsort(key_train, kind="stable")
        keys = key_train[order]
        first = np.searchsorted(keys, key_val, "left")
        alike = np.searchsorted(keys, key_val, "right") - first
        alike[alike > MOST_ALIKE] = 0
        most = max(1, PAIRS_AT_ONCE // MOST_ALIKE)
        for start in range(0, len(key_val), most):
            part, begin = alike[start : start + most], first[start : start + most]
            right = np.repeat(np.arange(start, start + len(part)), part)
            within = np.arange(len(right)) - np.repeat(np.cumsum(part) - part, part)
            left = order[np.repeat(begin, part) + within]
            near = (_normalised(train.patches[left]) * _normalised(val.patches[right])).sum(1) >= LEAST_CORRELATION
            kept.append(np.stack([left[near], right[near]], 1))
    return np.unique(np.concatenate(kept), axis=0)


def _hash_planes(bits: int) -> Floats:
    """Random directions (CELLS², HASHES * bits) within the low frequencies, the same in every call.

    Frequencies are weighted by their distance from 0, since natural images have energy that falls with it, and hashes
    of the lowest alone would be much the same everywhere.
    """
    steps = np.arange(CELLS)
    cosines = np.cos(np.pi / CELLS * (steps + 0.5) * steps[:, None])  # rows are frequencies of the DCT
    distance = np.hypot(steps[:, None], steps)
    weights = np.where(distance < LOW_FREQUENCIES, distance, 0.0)
    chance = np.random.default_rng(0).normal(size=(HASHES * bits, CELLS, CELLS)) * weights
    planes = cosines.T @ chance @ cosines
    return planes.reshape(len(chance), -1).T.astype(np.float32)


def _hashes(patches: NDArray[np.uint8], planes: Floats, bits: int) -> list[NDArray[np.int64]]:
    """HASHES keys of each patch, (N,) each."""
    powers = 1 << np.arange(bits)
    parts = []
    for start in range(0, len(patches), PAIRS_AT_ONCE):
        signs = _normalised(patches[start : start + PAIRS_AT_ONCE]) @ planes > 0
        parts.append(signs.reshape(len(signs), HASHES, bits) @ powers)
    return list(np.concatenate(parts).T)


def _normalised(patches: NDArray[np.uint8]) -> Floats:
    """Patches with mean 0 and length 1, so that products are correlations."""
    values = patches.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values


def _most_common(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The displacement that has most others near, (2,)."""
    moves = rows[:, :2]
    near = np.abs(moves[:, None] - moves[None, : 4 * FEWEST_OF_MANY * BIN]).max(2) <= BIN // 2
    return moves[int(near.sum(1).argmax())]


def _in_common(places: NDArray[np.float64], other: Anchors) -> int:
    """How many places, moved into another image, are where that image can have anchors."""
    low, high = REACH, np.array(other.size) // HALF - REACH
    return int(((places >= low) & (places <= high)).all(1).sum())


def _halved_grey(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Sums of the grey values of 2 x 2 pixels, (H // 2, W // 2), 0..1020."""
    rows, columns = image.shape[0] // HALF * HALF, image.shape[1] // HALF * HALF
    red, green, blue = (image[:rows, :columns, channel].astype(np.uint16) for channel in range(3))
    grey = (red * 77 + green * 150 + blue * 29) >> 8  # ITU-R BT.601
    lines = grey[::2] + grey[1::2]
    return lines[:, ::2] + lines[:, 1::2]


def _summed_area(grey: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Sums of grey levels over everything above and left, (H + 1, W + 1)."""
    sums = np.zeros((grey.shape[0] + 1, grey.shape[1] + 1))
    np.cumsum(np.cumsum(grey, 0, dtype=np.float64), 1, out=sums[1:, 1:])
    sums /= HALF**2
    return sums


def _means(sums: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Means over squares of 2 radius + 1, (H - 2 radius, W - 2 radius)."""
    side = 2 * radius + 1
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
