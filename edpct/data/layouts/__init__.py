"""Where a dataset keeps its images, masks and splits: one file a layout, one row a layout.

To add one: write a file here with ``open_layout(root) -> Dataset`` and ``recognise(root) -> bool``, and add a row to
:data:`LAYOUTS`. This file is read whenever the command line starts, so it imports nothing heavy; layouts are imported
when one is opened.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edpct.errors import DataError

if TYPE_CHECKING:
    from edpct.card import DataSource
    from edpct.data.samples import Dataset

CLASS_FILE = "classes.json"


@dataclass(frozen=True)
class Layout:
    """One row.

    Attributes:
        title: what it is, for people.
        module: file within this package.
        structure: where the files lie, one sentence.
        opener: function of the module that opens a folder.
        recognised: whether the module's ``recognise`` may choose it; a variant of another row is asked for by name.
    """

    title: str
    module: str
    structure: str
    opener: str = "open_layout"
    recognised: bool = True

    def open(self, root: Path) -> Dataset:
        """Open a folder in this layout; DataError where its files are not there."""
        dataset: Dataset = getattr(self._module(), self.opener)(root)
        return replace(dataset, structure=self.structure)

    def recognise(self, root: Path) -> bool:
        """Whether a folder looks as this layout does."""
        return self.recognised and bool(self._module().recognise(root))

    def _module(self) -> ModuleType:
        return importlib.import_module(f"{__name__}.{self.module}")


_VAIHINGEN = (
    "The layout 'vaihingen' is top/top_mosaic_09cm_areaN.tif and labels of the same names in another folder; "
    "val needs the labels of the complete ground truth."
)
_POTSDAM = (
    "The layout 'potsdam' is 2_Ortho_RGB/top_potsdam_R_C_RGB.tif and top_potsdam_R_C_label.tif in another folder; "
    "val needs 5_Labels_all."
)
LAYOUTS: dict[str, Layout] = {
    "folder": Layout(
        title="pairs of images and masks with a class table",
        module="folder",
        structure=f"The layout 'folder' is {CLASS_FILE}, train/images, train/masks, val/images, val/masks, "
        "a mask having the name of its image.",
    ),
    "geotiff": Layout(
        title="the same with georeferenced images and masks",
        module="geotiff",
        structure=f"The layout 'geotiff' is {CLASS_FILE}, train/images, train/masks, val/images, val/masks, "
        "all images and masks being GeoTIFF files.",
    ),
    "dubai": Layout(
        title="Dubai (MBRSC and Humans in the Loop)",
        module="dubai",
        structure="The layout 'dubai' is Tile N/images and Tile N/masks; tiles 2 and 6 are val.",
    ),
    "loveda": Layout(
        title="LoveDA",
        module="loveda",
        structure="The layout 'loveda' is {Train,Val}/{Rural,Urban}/images_png and masks_png.",
    ),
    "vaihingen": Layout(title="ISPRS Vaihingen", module="vaihingen", structure=_VAIHINGEN),
    "vaihingen-eroded": Layout(
        title="ISPRS Vaihingen, scored on labels without boundaries",
        module="vaihingen",
        structure=_VAIHINGEN.replace("'vaihingen'", "'vaihingen-eroded'").replace(
            "the complete", "the complete eroded"
        ),
        opener="open_eroded",
        recognised=False,
    ),
    "potsdam": Layout(title="ISPRS Potsdam", module="potsdam", structure=_POTSDAM),
    "potsdam-eroded": Layout(
        title="ISPRS Potsdam, scored on labels without boundaries",
        module="potsdam",
        structure=_POTSDAM.replace("'potsdam'", "'potsdam-eroded'").replace("5_Labels_all", "5_Labels_all_noBoundary"),
        opener="open_eroded",
        recognised=False,
    ),
    "uavid": Layout(
        title="UAVid",
        module="uavid",
        structure="The layout 'uavid' is uavid_train and uavid_val, each with seqN/Images and seqN/Labels.",
    ),
}


def layout_names() -> str:
    """The names of all layouts, for a help text."""
    names = list(LAYOUTS)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def open_dataset(root: Path, layout: str | None = None) -> Dataset:
    """Open the dataset in a folder.

    Args:
        root: its folder.
        layout: a key of :data:`LAYOUTS`; None: recognised from the folder.

    Raises:
        DataError: no such folder or layout, no images, no masks, or a class table that cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"There is no data folder {root}.", "Make one with: edpct data scenes --out DIR")
    name = layout or _recognise(root)
    if name not in LAYOUTS:
        raise DataError(f"The layout '{name}' is unknown.", f"Known are: {', '.join(LAYOUTS)}.")
    dataset = LAYOUTS[name].open(root)
    if not dataset.train and not dataset.val:
        raise DataError(f"{root} has no images in the layout '{name}'.", LAYOUTS[name].structure)
    return dataset


def open_source(source: DataSource) -> Dataset:
    """The dataset that a card names; :class:`DataError` where it no longer lies there."""
    return open_dataset(Path(source.directory), source.layout)


def _recognise(root: Path) -> str:
    found = [name for name, row in LAYOUTS.items() if row.recognise(root)]
    if len(found) > 1:
        raise DataError(
            f"{root} looks like more than one layout: {' and '.join(found)}.", "Say which one it is with --layout."
        )
    if found:
        return found[0]
    if (root / CLASS_FILE).is_file():
        return "folder"  # whose own message says what is missing
    raise DataError(
        f"{root} is in no layout that edpct recognises.",
        f"Name one with --layout ({', '.join(LAYOUTS)}), or make your own: {LAYOUTS['folder'].structure}",
    )
