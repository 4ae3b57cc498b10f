"""Ground in both splits: found whole, in part, at odd offsets and re-encoded; never where there is none."""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edpct.data.overlap import Overlap, OverlapFinder
from edpct.data.scenes import render_scene

Pixels = NDArray[np.uint8]


@cache
def _ground(seed: int) -> Pixels:
    """A made scene of 768 x 768 pixels."""
    return render_scene(seed, 768, 768).image


def _find(train: list[Pixels], val: list[Pixels]) -> list[Overlap]:
    finder = OverlapFinder()
    for index, image in enumerate(train):
        finder.add("train", index, image)
    for index, image in enumerate(val):
        finder.add("val", index, image)
    return finder.find()


def _jpeg(image: Pixels, quality: int) -> Pixels:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def test_the_same_image_in_both_splits_is_found_and_no_other() -> None:
    found = _find([_ground(0), _ground(1), _ground(2)], [_ground(3), _ground(1)])
    assert [(o.train, o.val) for o in found] == [(1, 1)]
    assert found[0].share == 1 and found[0].val_box == found[0].train_box == (0, 0, 768, 768)


@pytest.mark.parametrize(("down", "right"), [(0, 256), (131, 77), (255, 301), (1, 1), (333, 3), (200, 411)])
def test_tiles_that_overlap_at_any_offset_are_found_with_the_place(down: int, right: int) -> None:
    ground = _ground(4)
    train, val = ground[:512, :512], ground[down : down + 400, right : right + 357]
    found = _find([_ground(0), train], [val])
    assert [(o.train, o.val) for o in found] == [(1, 0)]
    bottom, end = min(512, down + 400), min(512, right + 357)
    assert np.abs(np.array(found[0].train_box) - (right, down, end, bottom)).max() <= 4  # pixels
    assert np.abs(np.array(found[0].val_box) - (0, 0, end - right, bottom - down)).max() <= 4
    assert found[0].share == pytest.approx((bottom - down) * (end - right) / (400 * 357), abs=0.03)


@pytest.mark.parametrize("quality", [40, 75])
def test_a_tile_that_was_saved_as_jpeg_and_made_brighter_is_found(quality: int) -> None:
    again = _jpeg(_ground(5)[101:501, 33:433], quality)
    brighter = np.clip(again * 0.85 + 30, 0, 255).astype(np.uint8)
    assert [(o.train, o.val) for o in _find([_ground(6), _ground(5)], [brighter])] == [(1, 0)]


def test_unrelated_scenes_share_nothing() -> None:
    """Many of one size and one maker: houses, cars and fields look alike."""
    images = [render_scene(seed, 384, 384).image for seed in range(100, 124)]
    assert _find(images[:16], images[16:]) == []


def _noisy(level: int, seed: int) -> Pixels:
    """Water or desert: one colour, with the noise of a camera."""
    noise = np.random.default_rng(seed).normal(0, 2, (512, 512, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def test_flat_ground_and_repeated_texture_share_nothing() -> None:
    assert _find([_noisy(60, 0), _noisy(200, 1)], [_noisy(60, 2), _noisy(200, 3)]) == []
    rows, columns = np.mgrid[:512, :512]
    stripes = np.where((columns + rows // 3) // 12 % 2, 200, 40).astype(np.uint8)
    field = np.repeat(stripes[..., None], 3, axis=2)
    shifted = np.repeat(np.roll(stripes, 5, axis=1)[::-1, :, None], 3, axis=2)
    assert _find([field], [shifted]) == []


def test_images_smaller_than_a_patch_and_empty_splits_are_no_error() -> None:
    small = _ground(0)[:40, :90]
    assert _find([small], [small]) == [] and _find([], [_ground(0)]) == [] and _find([_ground(0)], []) == []
