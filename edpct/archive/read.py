"""A package as a file that anyone may have made: all that it says is checked before a byte of it is used.

Names are flat, sizes are bounded before anything is unpacked, the bytes that come out are counted and hashed, and
nothing but what the manifest names is taken.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, NoReturn

from pydantic import ValidationError
from typing_extensions import Self

from edpct.archive.manifest import CHECKSUMS, MANIFEST, PLAIN_NAME, FileEntry, Manifest
from edpct.errors import EngineError
from edpct.runtimes.content import require_file

MOST_MEMBERS = 256
MOST_BYTES = 4 * 2**30  # unpacked, all together
LARGEST_MANIFEST = 2**20  # bytes
# Plans of TensorRT for RTX shrink to a tenth, and the format itself ends at about 1000.
LARGEST_RATIO = 200
RATIO_COUNTS_FROM = 2**20  # bytes unpacked
_CHUNK = 2**20
_ENCRYPTED = 0x1
_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")  # a member; the end of an archive without members
# What zipfile and zlib raise on damaged input, beside OSError.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, IndexError,
    OverflowError,
)  # fmt: skip


class Package:
    """An opened package; leaving its ``with`` block closes it.

    Args:
        path: the archive.

    Attributes:
        manifest: what is in it.
        sha256: of the archive itself, hexadecimal.

    Raises:
        EngineError: it is missing, damaged, no package, or holds what a package does not.
    """

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise EngineError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
        try:
            self.sha256 = self._digest()
            self._zip = self._opened()
            self._members = self._checked_members()
            self.manifest = self._checked_manifest()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file; closing twice is fine."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def copy(self, entry: FileEntry, target: BinaryIO) -> None:
        """Unpack a file into an open one, compared with the manifest.

        Raises:
            EngineError: other bytes than the manifest says, more, or fewer; ``target`` then holds part of them.
            OSError: ``target`` cannot be written.
        """
        digest, size = hashlib.sha256(), 0
        try:
            source = self._zip.open(self._members[entry.name])
        except (*_DAMAGE, OSError) as error:
            raise self._damaged(entry.name) from error
        with source:
            while chunk := self._chunk(source, entry.name):
                size += len(chunk)
                if size > entry.size:
                    break
                digest.update(chunk)
                target.write(chunk)
        if size != entry.size or digest.hexdigest() != entry.sha256:
            self._refuse(f"{entry.name} in it is not what its {MANIFEST} says (size or SHA-256 differ)")

    def _digest(self) -> str:
        try:
            return _hash(self._file)
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read: {error.strerror}.", "Copy it again.") from error

    def _opened(self) -> zipfile.ZipFile:
        try:
            self._file.seek(0)
            if self._file.read(4) not in _BEGINS:  # zipfile would skip what stands before: a program, say
                raise zipfile.BadZipFile
            return zipfile.ZipFile(self._file)
        except (*_DAMAGE, OSError) as error:
            raise EngineError(f"{self.path.name} is no zip archive, or only part of one.", "Copy it again.") from error

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        """The members by name, none of them unpacked yet."""
        found: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        if len(infos) > MOST_MEMBERS:
            self._refuse(f"it has {len(infos)} members, and a package at most {MOST_MEMBERS}")
        for info in infos:
            self._check_member(info)
            if info.filename.lower() in (name.lower() for name in found):
                self._refuse(f"{info.filename} is in it twice")
            found[info.filename] = info
        if sum(info.file_size for info in infos) > MOST_BYTES:
            self._refuse(f"it would unpack to more than {MOST_BYTES // 2**30} GiB")
        return found

    def _check_member(self, info: zipfile.ZipInfo) -> None:
        # zipfile cuts a name at a null byte and turns separators; the name as it was written must be plain.
        if not PLAIN_NAME.fullmatch(info.orig_filename) or info.filename != info.orig_filename:
            self._refuse(f"the member {_shown(info.orig_filename)} has no plain file name")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            self._refuse(f"the member {info.filename} is a link or another special file")
        if info.flag_bits & _ENCRYPTED:
            self._refuse(f"the member {info.filename} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self._refuse(f"the member {info.filename} is packed in another way than stored or deflated")
        if info.file_size > RATIO_COUNTS_FROM and info.file_size > LARGEST_RATIO * max(info.compress_size, 1):
            self._refuse(f"the member {info.filename} would unpack to more than {LARGEST_RATIO} times its size")

    def _checked_manifest(self) -> Manifest:
        info = self._members.get(MANIFEST)
        if info is None:
            raise EngineError(
                f"{self.path.name} is no edpct package: it has no {MANIFEST}.", "Make one with: edpct package RUN"
            )
        if info.file_size > LARGEST_MANIFEST:
            self._refuse(f"its {MANIFEST} is larger than {LARGEST_MANIFEST // 2**20} MiB")
        try:
            with self._zip.open(info) as source:
                text = source.read(LARGEST_MANIFEST + 1)
        except (*_DAMAGE, OSError) as error:
            raise self._damaged(MANIFEST) from error
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError as error:
            raise EngineError(
                f"{self.path.name} has a {MANIFEST} that this edpct cannot read.",
                "It is no edpct package, or one of a later version: update edpct, or make it again with: edpct package",
            ) from error
        self._compare(manifest)
        return manifest

    def _compare(self, manifest: Manifest) -> None:
        """Exactly the files that the manifest names, of the sizes that it names."""
        named = {entry.name: entry.size for entry in manifest.entries()}
        for name in self._members.keys() - named.keys() - {MANIFEST, CHECKSUMS}:
            self._refuse(f"{name} is in it, which its {MANIFEST} does not name")
        for name, size in named.items():
            if name not in self._members:
                self._refuse(f"{name} is not in it, which its {MANIFEST} names")
            if self._members[name].file_size != size:
                self._refuse(f"{name} in it is not of the size that its {MANIFEST} says")

    def _chunk(self, source: IO[bytes], name: str) -> bytes:
        try:
            return source.read(_CHUNK)
        except (*_DAMAGE, OSError) as error:
            raise self._damaged(name) from error

    def _damaged(self, name: str) -> EngineError:
        return EngineError(f"{name} in {self.path.name} is damaged and cannot be unpacked.", "Copy the package again.")

    def _refuse(self, why: str) -> NoReturn:
        raise EngineError(
            f"{self.path.name} is not opened: {why}.", "Get it again from whoever made it, with: edpct package"
        )


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _shown(name: str) -> str:
    """A stranger's text on a terminal: no control characters, and not endless."""
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")
