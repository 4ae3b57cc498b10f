"""What every section of a recipe is, and what amounts are written as."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LEAST_COUNT = 1000  # of MACs or parameters; a number between 1 and this is a mistake


def _amount(value: object) -> object:
    """A share or a count from text such as "0.3", "30%", "2.5M" or "4.7G"."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    factor = {"%": 0.01, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1:].upper())
    try:
        return float(text[:-1]) * factor if factor is not None else float(text)
    except ValueError:
        raise ValueError("give a share such as 0.3 or 30%, or a count such as 2.5M or 4.7G") from None


def _share_or_count(value: float) -> float:
    if 1 < value < LEAST_COUNT:
        raise ValueError(f"{value:g} is more than the whole; give a share up to 1, or a count such as 2.5M or 4.7G")
    return value


Amount = Annotated[float, BeforeValidator(_amount), Field(gt=0, allow_inf_nan=False), AfterValidator(_share_or_count)]


class Section(BaseModel):
    """Base of the recipe's sections: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")
