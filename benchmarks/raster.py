r"""A large GeoTIFF through ``edpct predict``: pixel rate beside ``edpct bench``, memory, and whether there are seams.

    python benchmarks/raster.py --data DIR --engine E [--engine ...] [--side 20000] [--rounds 3] [--runtime openvino]

The raster is made of the largest val image of the Dubai set, mirrored at its edges so that it goes on without a break,
8 bits, three bands, tiled, not compressed. Bench and predict take turns, each in a process of its own. The time of a
prediction is that of the whole command: start, reading, windows, overviews, compression, areas. Memory is the largest
resident set of that process.

Seams: crops of the raster are predicted by themselves, and compared with the whole, pixel by pixel. Crops that know
where they lie are cut on the grid of the whole; the same crops without coordinates are cut anywhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study import public

from edpct.bench.report.make import machine
from edpct.bench.report.tables import markdown_table
from edpct.data.layouts import open_dataset
from edpct.predict.raster.read import rasterio_module

CRS, PIXEL, EAST, NORTH = "EPSG:32640", 0.3, 325000.1, 2780000.2
CROPS, CROP = 4, 3000  # number and side of crops
OVERLAPS = (0, 32, 128)


@dataclass(frozen=True)
class Turn:
    """One prediction, and the bench before it.

    Attributes:
        bench, end_to_end: of ``edpct bench``, megapixels a second: with copies, and from encoded image to classes.
        predict: megapixels of the raster a second, of the whole command.
        windows: the same while it predicts, without start and writing.
        peak: megabytes, the largest resident set of the prediction.
    """

    engine: str
    bench: float
    end_to_end: float
    predict: float
    windows: float
    peak: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", type=Path, action="append", required=True)
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/raster"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/raster"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    raster = asked.work / f"raster-{asked.side}.tif"
    if not raster.exists():
        make_raster(raster, asked.data, asked.side)
    turns = []
    for number in range(asked.rounds):
        for engine in asked.engine:
            turns.append(one_turn(engine, raster, asked))
            print(f"Turn {number + 1}: {turns[-1]}", file=sys.stderr, flush=True)
    same = like_its_source(raster, asked.work / "map.tif")
    seams = [seam for engine in asked.engine for seam in seams_of(engine, raster, asked)]
    found = {
        **machine(), "command": " ".join(["python", "benchmarks/raster.py", *public(sys.argv[1:])]),
        "side": asked.side, "runtime": asked.runtime,
        "turns": [asdict(turn) for turn in turns], "seams": seams, "same_place": same,
    }  # fmt: skip
    (asked.out / "raster.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = page(found)
    (asked.out / "raster.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def make_raster(path: Path, data: Path, side: int) -> None:
    """The largest val image, mirrored to twice its size each way, side by side until ``side`` is full."""
    rasterio = rasterio_module()
    dataset = open_dataset(data, "dubai")
    images = [dataset.decode_image(sample.image) for sample in dataset.val]
    image = max(images, key=lambda one: one.size)
    image = np.concatenate((image, image[::-1]))
    image = np.concatenate((image, image[:, ::-1]), axis=1).transpose(2, 0, 1)
    height, width = image.shape[1:]
    grown = path.with_suffix(".part")
    with rasterio.open(
        grown, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs=CRS, tiled=True,
        transform=rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH), blockxsize=512, blockysize=512, photometric="RGB",
    ) as file:  # fmt: skip
        for top in range(0, side, height):
            for left in range(0, side, width):
                down, right = min(height, side - top), min(width, side - left)
                file.write(image[:, :down, :right], window=((top, top + down), (left, left + right)))
    grown.rename(path)


def one_turn(engine: Path, raster: Path, asked: argparse.Namespace) -> Turn:
    """Bench, then predict."""
    found = asked.work / "bench.json"
    found.unlink(missing_ok=True)
    edpct(
        "bench", "--engine", engine, "--runtime", asked.runtime, "--no-accuracy", "--rounds", 2, "--seconds", 2,
        "--json", found,
    )  # fmt: skip
    row = json.loads(found.read_text(encoding="utf-8"))["rows"][0]
    pixels = 512 * 512 / 1e6
    target = asked.work / "map.tif"
    target.unlink(missing_ok=True)
    began = time.monotonic()
    said, peak = edpct(
        "predict", "--engine", engine, "--runtime", asked.runtime, "--streams", asked.streams, "--input", raster,
        "--out", target,
    )  # fmt: skip
    took = time.monotonic() - began
    while_predicting = float(said.split("megapixels a second")[0].split("(")[-1])
    return Turn(
        engine.name, row["latency"]["transfer"]["fps"] * pixels, row["latency"]["end_to_end"]["fps"] * pixels,
        asked.side**2 / took / 1e6,
        while_predicting, peak,
    )  # fmt: skip


def edpct(*arguments: object) -> tuple[str, float]:
    """Run a command; what it printed, and its largest resident set in megabytes.

    Linux keeps the largest in VmHWM, which is read as long as the process lives; that of ``wait4`` begins with that of
    the parent.
    """
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen([sys.executable, "-m", "edpct", *map(str, arguments)], stdout=file)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, largest_resident_set(process.pid))
            time.sleep(0.02)
        if process.returncode:
            sys.exit(process.returncode)
        file.seek(0)
        return file.read(), peak


def largest_resident_set(pid: int) -> float:
    """Megabytes so far; 0 of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def like_its_source(raster: Path, made: Path) -> bool:
    """Whether the map has the raster's size, coordinate system and transform."""
    rasterio = rasterio_module()
    with rasterio.open(raster) as source, rasterio.open(made) as file:
        return bool((source.crs, source.transform, source.shape) == (file.crs, file.transform, file.shape))


def seams_of(engine: Path, raster: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Share of pixels that have the same class in a crop and in the whole, for every overlap."""
    rasterio = rasterio_module()
    rng = np.random.default_rng(0)
    side = min(asked.side, 8000)
    part = asked.work / "part.tif"
    places = [(int(rng.integers(side - CROP)), int(rng.integers(side - CROP))) for _ in range(CROPS)]
    cut(rasterio, raster, part, (0, 0), side, placed=True)
    rows = []
    for overlap in OVERLAPS:
        whole = predicted(engine, part, overlap, asked)
        for placed in (True, False):
            shares = []
            for place in places:
                crop = asked.work / "crop.tif"
                cut(rasterio, raster, crop, place, CROP, placed)
                found = predicted(engine, crop, overlap, asked)
                there = whole[place[0] : place[0] + CROP, place[1] : place[1] + CROP]
                shares.append(float((found == there).mean()))
            rows.append({"engine": engine.name, "overlap": overlap, "lattice": placed, "same": shares})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def cut(rasterio: Any, raster: Path, to: Path, place: tuple[int, int], side: int, placed: bool) -> None:
    """A square of a raster as a file of its own, with or without its place on the map."""
    window = ((place[0], place[0] + side), (place[1], place[1] + side))
    with rasterio.open(raster) as file:
        where = {"crs": file.crs, "transform": file.window_transform(rasterio.windows.Window.from_slices(*window))}
        profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
        with rasterio.open(to, "w", **profile, **(where if placed else {})) as out:
            out.write(file.read(window=window))


def predicted(engine: Path, raster: Path, overlap: int, asked: argparse.Namespace) -> NDArray[np.uint8]:
    target = asked.work / "crop-map.tif"
    target.unlink(missing_ok=True)
    edpct(
        "predict", "--engine", engine, "--runtime", asked.runtime, "--input", raster, "--out", target, "--overlap",
        overlap,
    )  # fmt: skip
    with rasterio_module().open(target) as file:
        classes: NDArray[np.uint8] = file.read(1)
    return classes


def page(found: dict[str, Any]) -> str:
    """The result as Markdown."""
    turns, seams = found["turns"], found["seams"]
    names = list(dict.fromkeys(turn["engine"] for turn in turns))
    lines = []
    for name in names:
        own = [turn for turn in turns if turn["engine"] == name]

        def middle(key: str, own: list[dict[str, Any]] = own) -> float:
            return float(np.median([turn[key] for turn in own]))

        shares = [[100 * turn[key] / turn[of] for turn in own] for key, of in RATIOS]
        said = [f"{np.median(share):.0f} ({min(share):.0f} to {max(share):.0f})" for share in shares]
        rates = [f"{middle(key):.1f}" for key in ("bench", "end_to_end", "windows", "predict")]
        lines.append([name, *rates, *said, f"{max(turn['peak'] for turn in own):.0f}"])
    seam_lines = []
    for seam in seams:
        same = 100 * np.array(seam["same"])
        begin = "on the whole's grid" if seam["lattice"] else "anywhere"
        seam_lines.append([seam["engine"], str(seam["overlap"]), begin, f"{same.mean():.2f}", f"{same.min():.2f}"])
    side, here, used = found["side"], found["machine"], found["versions"]
    runtime = found["runtime"]
    agrees = "are those of the raster" if found["same_place"] else "are NOT those of the raster"
    parts = [
        "# A large raster",
        (
            f"A GeoTIFF of {side} x {side} pixels (3 bands, 8 bits) through `edpct predict` on {runtime}, in\n"
            "turns with `edpct bench` of the same engine; megapixels a second, medians of "
            f"{len(turns) // len(names)} turns. Size,\ncoordinate system and transform of the map {agrees}."
        ),
        markdown_table(RATES, lines),
        (
            f"Pixels that have the same class in a crop of {CROP} x {CROP} and in the whole, %, of {CROPS} crops.\n"
            "Crops that know where they lie are cut on the grid of the whole; without coordinates, anywhere."
        ),
        markdown_table(["engine", "overlap", "windows begin", "mean", "worst crop"], seam_lines),
        f"{here['cpu']}, {here['cores']} cores, {found['date']}; edpct {used['edpct']}, {runtime} {used[runtime]}.",
        f"Made with:\n\n    {found['command']}",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


RATIOS = (("predict", "bench"), ("predict", "end_to_end"))
RATES = [
    "engine",
    "bench, with copies",
    "bench, end to end",
    "predict, windows",
    "predict, whole command",
    "of with copies %",
    "of end to end %",
    "peak memory MB",
]


if __name__ == "__main__":
    sys.exit(main())
