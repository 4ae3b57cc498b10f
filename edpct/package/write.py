"""One zip of a run folder, the same bytes for the same folder: sorted members, fixed times, and a manifest."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias

from edpct import __version__
from edpct.archive.manifest import CHECKSUMS, MANIFEST, PLANS, EngineEntry, FileEntry, Manifest
from edpct.archive.read import LARGEST_RATIO, RATIO_COUNTS_FROM, Package
from edpct.errors import EngineError, RunError
from edpct.package.contents import Chosen, Contents, contents_of
from edpct.package.model_card import model_card
from edpct.package.script import run_script
from edpct.runtimes.artefact import sha256_of
from edpct.runtimes.table import RUNTIMES

MODEL_CARD = "MODEL_CARD.md"
SCRIPT = "run.py"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can name
_CHUNK = 2**20
_PACKED_ALREADY = (".png",)
Source: TypeAlias = Path | bytes


@dataclass(frozen=True)
class Packed:
    """A package that was written.

    Attributes:
        size: of the archive, bytes.
        members: name, and size in bytes as it is and as it is packed.
    """

    path: Path
    size: int
    manifest: Manifest
    members: tuple[tuple[str, int, int], ...]


def package(run: Path, out: Path, *, engines: Sequence[str] = (), weights: bool = False) -> Packed:
    """Write the package of a run folder; whole, or not at all.

    Args:
        run: run folder of ``edpct compress``, or a folder with engines.
        out: the archive; another package of that name is replaced.
        engines: names of engines in the folder; empty: all of the student.
        weights: take ``student.safetensors`` too.

    Raises:
        RunError: ``out`` cannot be written or is something else than a package; ``run`` is not finished.
        DataError, EngineError: see :func:`edpct.package.contents.contents_of`.
    """
    _check_target(out)
    contents = contents_of(run, engines, weights)
    manifest, sources = _described(contents)
    text = (manifest.model_dump_json(indent=1) + "\n").encode()
    digests = {entry.name: entry.sha256 for entry in manifest.entries()} | {MANIFEST: _sha256(text)}
    sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
    sources |= {MANIFEST: text, CHECKSUMS: sums}
    digests[CHECKSUMS] = _sha256(sums)
    with _written_whole(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(sources):
            _add(archive, name, sources[name], digests[name])
        members = tuple((info.filename, info.file_size, info.compress_size) for info in archive.infolist())
    return Packed(out, out.stat().st_size, manifest, members)


def _described(contents: Contents) -> tuple[Manifest, dict[str, Source]]:
    """The manifest, and all files that it names."""
    default = _default_of(contents)
    sources: dict[str, Source] = {path.name: path for path in contents.others}
    sources[MODEL_CARD] = model_card(contents, default).encode()
    sources[SCRIPT] = run_script(default.name, RUNTIMES[default.runtimes[0]].extra).encode()
    manifest = Manifest(
        edpct=__version__,
        default=default.name,
        engines=tuple(_engine_entry(one) for one in contents.engines),
        files=tuple(_entry(name, sources[name]) for name in sorted(sources)),
    )
    return manifest, sources | {one.name: one.path for one in contents.engines}


def _default_of(contents: Contents) -> Chosen:
    """The best that is no plan: a plan opens on few machines."""
    return next((one for one in contents.engines if one.path.suffix.lower() not in PLANS), contents.engines[0])


def _engine_entry(one: Chosen) -> EngineEntry:
    size = one.path.stat().st_size
    return EngineEntry(name=one.name, sha256=one.sha256, size=size, precision=one.card.precision, runtimes=one.runtimes)


def _entry(name: str, source: Source) -> FileEntry:
    if isinstance(source, bytes):
        return FileEntry(name=name, sha256=_sha256(source), size=len(source))
    return FileEntry(name=name, sha256=sha256_of(source), size=source.stat().st_size)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, source: Source, digest: str) -> None:
    """Write a member, and see that it is still what was hashed before."""
    info = zipfile.ZipInfo(name, _EARLIEST)
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = 0o100644 << 16
    info.compress_type = _method(name, source)
    info.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
    seen = hashlib.sha256()
    with _opened(source) as file, archive.open(info, "w") as member:
        while chunk := file.read(_CHUNK):
            seen.update(chunk)
            member.write(chunk)
    if seen.hexdigest() != digest:
        raise RunError(f"{name} was changed while it was packed.", "Wait until nothing writes there, then try again.")


def _method(name: str, source: Source) -> int:
    """Deflated (plans shrink to a tenth, ONNX files to two thirds), unless it is no use or looks like a zip bomb."""
    if Path(name).suffix.lower() in _PACKED_ALREADY:
        return zipfile.ZIP_STORED
    packed, size = zlib.compressobj(), 0
    length = 0
    with _opened(source) as file:
        while chunk := file.read(_CHUNK):
            length += len(chunk)
            size += len(packed.compress(chunk))
    size += len(packed.flush())
    bomb = length > RATIO_COUNTS_FROM and length > LARGEST_RATIO / 2 * size
    return zipfile.ZIP_STORED if bomb or size >= length else zipfile.ZIP_DEFLATED


def _opened(source: Source) -> BinaryIO:
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _check_target(out: Path) -> None:
    if out.suffix.lower() != ".zip":
        raise RunError(f"--out {out} does not end in .zip.", f"Give a file such as {out.with_suffix('.zip')}.")
    if not out.parent.is_dir():
        raise RunError(f"There is no folder {out.parent} to write {out.name} to.", "Make it, or choose another.")
    if not out.exists() and not out.is_symlink():
        return
    try:
        Package(out).close()
    except EngineError as error:
        raise RunError(
            f"{out} is there already and is no package of edpct, so it is left alone.", "Give another file with --out."
        ) from error


@contextmanager
def _written_whole(out: Path) -> Iterator[BinaryIO]:
    """A file under a hidden name that takes the name ``out`` when all went well, and goes when not."""
    partial: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)  # mkstemp makes it the owner's alone
        partial.replace(out)
    except BaseException as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"The disk of {out} is full.", "Free some space and run the same command again.") from error
        raise RunError(f"{out} cannot be written: {error.strerror}.", "Choose another --out.") from error
