"""The learning rate over the steps: a linear warm-up, then down to zero as a cosine or as a power."""

from __future__ import annotations

import math

from edpct.recipe import OptimiseSettings

POLY_POWER = 0.9  # of DeepLab (Chen et al., arXiv 1606.00915) and of most of segmentation since


def rate_share(step: int, settings: OptimiseSettings) -> float:
    """Share of the peak learning rate, 0..1, at a step counted from 0.

    Linear from 0 over ``settings.warmup`` of the steps; then ``settings.schedule``: ``cosine``, half a period of it
    (Loshchilov and Hutter, arXiv 1608.03983), or ``poly``, (1 - t) to the power of 0.9, t being the share of the way
    that is gone.
    """
    rising = max(1, round(settings.warmup * settings.steps))
    if step < rising:
        return (step + 1) / rising
    gone = min(1.0, (step - rising) / max(1, settings.steps - rising))
    if settings.schedule == "poly":
        return (1 - gone) ** POLY_POWER
    return 0.5 * (1 + math.cos(math.pi * gone))
