"""Sound inputs under odd names, in odd folders, to outputs of odd names."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from odd_cases import Case, Cases, Meant, seen
from PIL import Image
from rasters import planes, rgb, write_raster

NAMES = {
    "umlauts": "Übergrößenträger",
    "arabic": "صورة",
    "chinese": "无人机影像",
    "emoji": "🚁🌾",
    "decomposed": "u\u0308",
    "right-to-left-mark": "a\u202eb",
    "spaces": " a  b ",
    "quotes": "a'b\"c`d",
    "percent": "100%25 %s %(a)s {b} ${HOME}",
    "xml": "a&b<c>&amp;]]>",
    "shell": "$(touch x); rm -rf *; |&",
    "glob": "a*b?[c]",
    "backslash": "a\\b\\n",
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "a\x1b[2Jb",
    "dash": "-rf",
    "two-dashes": "--out",
    "dot": ".hidden",
    "two-dots": "..a",
    "many-dots": "a.tar.gz.tif",
    "colon": "C:a:b",
    "scheme": "zip+file:a!b",
    "gdal-driver": "GTIFF_DIR:1:a",
    "vsi": "vsizip",
    "comma": "a,b=c;d",
    "hash": "#a@b",
    "only-suffix-like": "tif",
    "upper": "A.TIFF",
    "longest": "n" * 251,
    "longest-in-two-bytes": "ü" * 125,
    "nearly-longest": "n" * 246,
    "part": ".a.tif.part",
    "not-utf8": "a\udcff\udcfeb",
}


def name_cases() -> Cases:
    for name, stem in NAMES.items():
        for suffix in (".tif", ".png"):
            yield Case("input-name", f"{name}{suffix}", partial(_input, stem, suffix))
            yield Case("output-name", f"{name}{suffix}", partial(_output, stem, suffix))
            yield Case("refused-name", f"{name}{suffix}", partial(_refused, stem, suffix))
        yield Case("folder-name", name, partial(_folder, stem))
    for name in ("upper-case", "relative", "dotted", "through-a-link", "of-a-linked-folder", "leading-dash"):
        for suffix in (".tif", ".png"):
            yield Case("path", f"{name}{suffix}", partial(_path, name, suffix))


def written(path: Path) -> Meant:
    """A small sound image or raster at a path."""
    image = rgb(40, 44, 51)
    if path.suffix.lower() == ".png":
        Image.fromarray(image).save(path, "PNG")
    else:
        write_raster(path.parent / "plain.tif", planes(image)).rename(path)
    return Meant(path, seen(image))


def _input(stem: str, suffix: str, folder: Path) -> Meant:
    meant = written(folder / f"{stem}{suffix}")
    return replace(meant, classes=None, said="is not UTF-8") if "\udcff" in stem and suffix == ".tif" else meant


def _refused(stem: str, suffix: str, folder: Path) -> Meant:
    """No image, whose name is part of what is said; on one line all the same."""
    path = folder / f"{stem}{suffix}"
    path.write_bytes(b"This is no image.")
    return Meant(path)


def _output(stem: str, suffix: str, folder: Path) -> Meant:
    meant = written(folder / f"a{suffix}")
    return Meant(meant.source, meant.classes, out=f"{stem}{suffix}")


def _folder(stem: str, folder: Path) -> Meant:
    meant = written(folder / "a.tif")
    (folder / stem).mkdir()
    return Meant(meant.source.rename(folder / stem / "a.tif"), None if "\udcff" in stem else meant.classes)


def _path(name: str, suffix: str, folder: Path) -> Meant:
    plain = folder / f"a{suffix}"
    meant = written(plain)
    paths = {
        "upper-case": folder / f"a{suffix.upper()}",
        "relative": Path(f"a{suffix}"),
        "dotted": folder / "b" / ".." / f"a{suffix}",
        "through-a-link": folder / f"link{suffix}",
        "of-a-linked-folder": folder / "b" / "c" / f"a{suffix}",
        "leading-dash": Path(f"-a{suffix}"),
    }
    (folder / "b").mkdir()
    if name == "upper-case":
        plain.rename(paths[name])
    elif name == "leading-dash":
        plain.rename(folder / paths[name])
    elif name == "through-a-link":
        paths[name].symlink_to(plain)
    elif name == "of-a-linked-folder":
        (folder / "b" / "c").symlink_to(folder)
    return Meant(paths[name], meant.classes)
