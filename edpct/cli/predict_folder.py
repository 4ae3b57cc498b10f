"""``edpct predict`` on a folder of images and rasters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edpct.predict.engine import Engine
    from edpct.predict.pictures import PictureSettings
    from edpct.predict.raster.job import RasterSettings
    from edpct.progress import Progress


def run_folder(
    engine: Engine, source: Path, out: Path, pictures: PictureSettings, maps: RasterSettings, json_file: Path | None,
    progress: Progress,
) -> None:  # fmt: skip
    from edpct.cli.predict_options import only_of_many_bits, only_of_rasters
    from edpct.cli.predict_report import report
    from edpct.errors import DataError, RunError
    from edpct.predict.pictures import SUFFIXES, predict_folder
    from edpct.predict.raster.job import predict_raster

    if maps.polygons is not None:
        raise RunError("--polygons is one file, and of a folder there would be many.", "Predict one raster at a time.")
    if out.exists() and out.samefile(source):
        raise RunError("--out is the folder of --input.", "Choose another.")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file.", "Of a folder, --out is a folder, too.")
    images, rasters = _sorted_out(source, out, SUFFIXES, ".png" if pictures.view in ("classes", "mask") else ".jpg")
    if not images and not rasters:
        raise DataError(f"There is no image in {source}.", f"Images are {', '.join(SUFFIXES)}, .tif or .tiff.")

    if out.suffix.lower() in (*SUFFIXES, ".tif", ".tiff") and not out.is_dir():
        raise RunError(f"{out} is the name of a file, and {source} is a folder.", "Name a folder with --out.")
    if not rasters:
        only_of_rasters(maps.probabilities, None)
        only_of_many_bits(maps.bands, (path for path, _ in images))
    seen = predict_folder(engine, images, out, pictures, progress)
    for path, target in rasters:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            found = predict_raster(engine, path, target, maps, progress)
            seen.pixels += found.pixels
            if found.kept:
                seen.kept += 1
            else:
                seen.written.append(target)
        except DataError as error:
            seen.failed.append((path, error))
    if seen.written or json_file is not None:
        report(engine.task, seen.pixels, None, "", json_file)
    typer.echo(f"Wrote {len(seen.written)} to {out}{f'; {seen.kept} were there' if seen.kept else ''}.")
    if seen.failed:
        for path, why in seen.failed:
            typer.echo(f"- {path}: {why.what}", err=True)
        count = len(images) + len(rasters)
        raise DataError(f"{len(seen.failed)} of {count} could not be read; the rest was predicted.")


def _sorted_out(source: Path, out: Path, suffixes: tuple[str, ...], suffix: str) -> Any:
    """Images and rasters of a folder and its folders, each with where its result goes.

    Results of an earlier call are no images, where ``out`` lies in the folder.

    Raises:
        RunError: a result would be taken for an image by the next call, or be written over one.
    """
    from collections import Counter

    from edpct.errors import RunError

    root, results = source.resolve(), out.resolve()
    within = root in results.parents
    found = {
        path: path.resolve() for path in sorted(source.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and not (within and results in path.resolve().parents)
    }  # fmt: skip
    taken = set(found.values())

    def pairs(kinds: tuple[str, ...], suffix: str) -> list[tuple[Path, Path]]:
        paths = [path for path in found if path.suffix.lower() in kinds]
        stems = Counter(path.with_suffix("") for path in paths)
        pairs = []
        for path in paths:
            inside = path.relative_to(source)
            alone = stems[path.with_suffix("")] == 1  # else a.png and a.jpg would become one file
            target = out / (inside.with_suffix(suffix) if alone else inside.with_name(inside.name + suffix))
            place = target.resolve()
            if place in taken or (not within and root in place.parents):
                raise RunError(f"{target} would lie among the images of --input.", "Choose another --out.")
            pairs.append((path, target))
        return pairs

    return pairs(suffixes, suffix), pairs((".tif", ".tiff"), ".tif")
