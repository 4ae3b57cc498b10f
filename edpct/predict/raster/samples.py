"""Values of a raster, to find its percentiles: of blocks spread over it, and of more where those are empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edpct.errors import DataError

Valid: TypeAlias = NDArray[np.bool_]
Place: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Rows from and to, columns from and to."""
Read: TypeAlias = Callable[[Place], tuple[Sequence[NDArray[Any]], Valid | None]]
"""Values (rows, columns) of each band at a place, and where they have data; None: everywhere."""

SPREAD = 64
SIDE = 256
ENOUGH = SIDE * SIDE  # pixels with data; where the spread blocks have fewer, more are looked at
WIDEST = 2**14  # columns that are read at a time then
MOST = 2**31  # pixels of the file's blocks that are decoded then: all of a raster of 46,000 x 46,000


def samples(read: Read, height: int, width: int, block: tuple[int, int]) -> list[NDArray[Any]]:
    """Values of each band where there is data, (n,); none only where the raster has no data anywhere.

    Args:
        read: of the raster.
        height, width: of the raster, pixels.
        block: rows and columns of the file's blocks, which are decoded as a whole.

    Raises:
        DataError: the raster is too large to look for data everywhere, and where it was looked for is none.
    """
    found, looked = _taken(read, _spread_blocks(height, width))
    if len(found[0]) >= min(ENOUGH, looked):
        return found
    more, _ = _taken(read, _all_over(height, width, block), ENOUGH)
    if not len(more[0]) and not len(found[0]) and _area(height, width, block) > MOST:
        raise DataError(
            "The raster has no data in any of the places that were looked at for its range of values.",
            "Say which values become black and white, such as --scale 0,3000.",
        )
    return max(found, more, key=lambda bands: len(bands[0]))


def _taken(read: Read, places: Iterable[Place], enough: float = np.inf) -> tuple[list[NDArray[Any]], int]:
    """Values of each band, until there are enough; and how many pixels were looked at."""
    parts: list[list[NDArray[Any]]] = []
    count = looked = 0
    for place in places:
        values, valid = read(place)
        parts.append([band[valid] if valid is not None else band.ravel() for band in values])
        looked += values[0].size
        count += len(parts[-1][0])
        if count >= enough:
            break
    return [np.concatenate(band) for band in zip(*parts, strict=True)], looked


def _spread_blocks(height: int, width: int) -> Iterator[Place]:
    across = min(max(round((SPREAD * width / height) ** 0.5), 1), SPREAD)
    down = max(SPREAD // across, 1)
    for top in _spread(height, down):
        for left in _spread(width, across):
            yield (top, min(top + SIDE, height)), (left, min(left + SIDE, width))


def _spread(length: int, count: int) -> list[int]:
    """Where blocks begin that are spread over a length."""
    room = max(length - SIDE, 0)
    return sorted({round(room * (index + 0.5) / count) for index in range(count)})


def _all_over(height: int, width: int, block: tuple[int, int]) -> Iterator[Place]:
    """All of a raster, or of a huge one some; what comes early lies far from each other, and no block comes twice."""
    rows, decoded = max(block[0], SIDE), 0
    count = -(-height // rows)
    bits = (count - 1).bit_length()
    for mirrored in range(2**bits):
        index = int(f"{mirrored:0{bits}b}"[::-1], 2) if bits else 0  # 0, 1/2, 1/4, 3/4, 1/8 … of the way
        if index >= count:
            continue
        last = min((index + 1) * rows, height)
        for left in range(0, width, WIDEST):
            right = min(left + WIDEST, width)
            for top in range(index * rows, last, SIDE):
                yield (top, min(top + SIDE, last)), (left, right)
            decoded += rows * (-(-right // block[1]) + -left // block[1]) * block[1]  # of blocks that begin here
            if decoded >= MOST:
                return


def _area(height: int, width: int, block: tuple[int, int]) -> int:
    """Pixels of all blocks, those beyond the raster's edges included."""
    return -(-height // block[0]) * block[0] * -(-width // block[1]) * block[1]
