"""What follows from a check of a data set: what training would stop at, and what to look at first."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edpct.data.check import SPLITS, DataCheck
from edpct.data.samples import Split

MANY_COLOURS = 50
MOSTLY_IGNORED = 0.5  # of a split's pixels


class Finding(BaseModel):
    """One sentence, and what to do next.

    Attributes:
        kind: an error is what training would stop at, or scores would be wrong by; a warning may be meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["error", "warning"]
    what: str
    hint: str


def judge(check: DataCheck, structure: str = "") -> list[Finding]:
    """What follows from a check: errors first, then warnings; empty where all is well.

    Args:
        structure: of the layout, the hint where a split is empty.
    """
    errors = [finding for split in SPLITS for finding in _split_errors(split, check, structure)]
    if check.overlaps:
        worst = max(check.overlaps, key=lambda overlap: overlap.share)
        images = len({overlap.val for overlap in check.overlaps})
        errors.append(
            _error(
                f"{images} of {check.val.images} val images show ground that is in train: "
                f"{percent(worst.share)} of {worst.val} is in {worst.train}.",
                "Split by flight, area or tile, never by image or crop; scores on shared ground are too good.",
            )
        )
    return errors + [finding for split in SPLITS for finding in _split_warnings(split, check)]


def _error(what: str, hint: str) -> Finding:
    return Finding(kind="error", what=what, hint=hint)


def _split_errors(name: Split, check: DataCheck, structure: str) -> list[Finding]:
    split, found = check.split(name), []
    if not split.images:
        found.append(_error(f"There are no {name} images in the layout '{check.layout}'.", structure))
    elif not split.usable:
        found.append(_error(f"None of the {split.images} {name} images can be used.", "Mend what is listed."))
    elif not any(split.class_pixels.values()):
        effect = "there is nothing to learn from" if name == "train" else "there is nothing to score on"
        found.append(
            _error(
                f"Every pixel of the {name} masks is ignored: {effect}.",
                "Check the masks, the class table and its ignore index.",
            )
        )
    if split.problems:
        files = "1 file" if len(split.problems) == 1 else f"{len(split.problems)} files"
        found.append(_error(f"{files} of {name} cannot be used.", split.problems[0].hint or "Replace what is listed."))
    if split.unknown:
        what = "1 colour or label" if split.unknown_values == 1 else f"{split.unknown_values} colours or labels"
        found.append(
            _error(
                f"The {name} masks hold {what} of no class, {percent(split.unknown_share)} of the pixels.",
                "Complete the class table, or mark those pixels with the ignore index."
                if split.unknown_values <= MANY_COLOURS
                else "So many come from masks that were saved as JPEG or resized with smoothing: make them again.",
            )
        )
    return found


def _split_warnings(name: Split, check: DataCheck) -> list[Finding]:
    split = check.split(name)
    found = []

    def warn(what: str, hint: str) -> None:
        found.append(Finding(kind="warning", what=what, hint=hint))

    if split.usable and split.absent():
        effect = "cannot be learned" if name == "train" else "is left out of the mIoU"
        warn(f"No {name} mask shows {', '.join(split.absent())}.", f"A class that is not there {effect}.")
    if split.small:
        warn(
            f"{split.small} of {split.images} {name} images are smaller than {check.size} pixels.",
            "What they lack is padded, and ignored; choose a smaller --size and --crop where they are many.",
        )
    if split.ignored > MOSTLY_IGNORED:
        warn(f"{percent(split.ignored)} of the {name} pixels are ignored.", "Check that this is meant.")
    return found


def percent(share: float) -> str:
    """A share, 0..1, with two digits at least: 52 %, 4.3 %, 0.02 %."""
    value = 100 * share
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return "under 0.01 %" if 0 < value < 0.005 else f"{value:.{digits}f} %"
