"""Sun, sky, air and sensor of a made scene: from colours and heights to the picture that a camera takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edpct.data.scene_ground import Floats, Site

LONGEST_SHADOW = 120  # pixels


def cast_shadow(site: Site, heights: Floats) -> Floats:
    """Share of the sun kept from each pixel, shape (H, W), 0..1, from heights in metres.

    Walks the heights away from the sun, one pixel a step, the ray dropping by the sun's elevation: so houses
    shade trees, trees shade roofs, and all shadows of a scene agree. In int16 centimetres, which is faster.
    """
    ground = np.clip(heights * 100, 0, 30000).astype(np.int16)
    horizon = ground.copy()
    drop = site.gsd * 100 * np.tan(site.elevation)
    steps = min(int(float(ground.max()) / drop) + 1, LONGEST_SHADOW)
    rows, columns = ground.shape
    for step in range(1, steps + 1):
        dx, dy = round(-site.sun[0] * step), round(-site.sun[1] * step)
        if abs(dx) >= columns or abs(dy) >= rows:
            break
        target = horizon[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)]
        source = ground[max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)]
        np.maximum(target, source - np.int16(min(step * drop, 32000)), out=target)
    soft = max(30.0, drop)
    return np.clip((horizon - ground).astype(np.float32) / np.float32(soft), 0, 1)


def expose(site: Site, colour: Floats, shadow: Floats) -> NDArray[np.uint8]:
    """Light the scene and take its picture.

    Args:
        site: the scene.
        colour: display colours, shape (H, W, 3), 0..1; not kept.
        shadow: share of the sun that is kept away, shape (H, W), 0..1.

    Returns:
        The image, shape (H, W, 3), uint8 RGB.
    """
    rng = site.rng
    warmth = rng.normal(0, 0.05)
    sun = np.asarray([1 + warmth, 1.0, 1 - warmth], np.float32)
    sky = np.asarray([0.86, 0.98, 1.16], np.float32) * np.float32(rng.uniform(0.22, 0.42))
    light = ((1 - shadow)[..., None] * sun + sky) / (1 + sky)
    linear = np.square(np.clip(colour, 0, 1.2)) * light * np.float32(rng.uniform(0.85, 1.5))
    haze = np.float32(rng.choice([rng.uniform(0, 0.05), rng.uniform(0.05, 0.17)]))
    linear = linear * (1 - haze) + haze * np.asarray([0.5, 0.54, 0.6], np.float32)
    display = np.sqrt(np.clip(linear, 0, 1))
    contrast = np.float32(rng.uniform(0.92, 1.15))
    display = np.clip((display - np.float32(0.45)) * contrast + np.float32(0.45), 0, 1)
    picture = Image.fromarray((display * 255).astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.25, 0.75))), np.float32)
    noise = rng.standard_normal(blurred.shape, dtype=np.float32) * np.float32(rng.uniform(0.8, 4.0))
    return np.clip(blurred + noise + np.float32(0.5), 0, 255).astype(np.uint8)
