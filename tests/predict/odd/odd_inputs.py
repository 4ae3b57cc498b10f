"""All odd inputs, in kinds."""

from __future__ import annotations

from odd_damage import damage_cases
from odd_names import name_cases
from odd_pictures import picture_cases
from odd_places import place_cases
from odd_tiffs import tiff_cases

CASES = [*tiff_cases(), *place_cases(), *picture_cases(), *name_cases(), *damage_cases()]
