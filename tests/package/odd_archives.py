"""Packages that are none, or not what they say: made anew from a sound one, each wrong in one way."""

from __future__ import annotations

import json
import random
import shutil
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

Members = list[tuple[zipfile.ZipInfo, bytes]]
ENGINE = "student-int8-fused.onnx"


def read(path: Path) -> Members:
    """All members of an archive, unpacked."""
    with zipfile.ZipFile(path) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def write(path: Path, members: Members) -> Path:
    """An archive of these members, in this order; names may be anything, and occur twice."""
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            fresh = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            fresh.filename, fresh.external_attr, fresh.compress_type = (
                info.filename, info.external_attr, info.compress_type,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a name that is there twice
                archive.writestr(fresh, content)
    return path


def with_manifest(members: Members, change: Callable[[dict[str, Any]], object]) -> Members:
    """The members with another package.json."""
    changed = []
    for info, content in members:
        if info.filename == "package.json":
            manifest = json.loads(content)
            change(manifest)
            content = json.dumps(manifest).encode()
        changed.append((info, content))
    return changed


def member(name: str, content: bytes = b"x", mode: int = 0o100644, method: int = zipfile.ZIP_STORED) -> Any:
    """One more member."""
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    return info, content


def vouched(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> Callable[[Members], Members]:
    """Adds a member, and an entry in the manifest that is right about it."""
    entry = {"name": name, "sha256": sha256(content).hexdigest(), "size": len(content)}
    return lambda members: with_manifest(
        [*members, member(name, content, method=method)], lambda manifest: manifest["files"].append(entry)
    )


def replaced(name: str, content: bytes) -> Callable[[Members], Members]:
    """Another content under the same name, of which the manifest knows nothing."""
    return lambda members: [(info, content if info.filename == name else old) for info, old in members]


def _engine(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in manifest["engines"] if entry["name"] == ENGINE)
    return found


def _changed(**values: Any) -> Callable[[Members], Members]:
    return lambda members: with_manifest(members, lambda manifest: manifest.update(values))


def _engine_changed(**values: Any) -> Callable[[Members], Members]:
    return lambda members: with_manifest(members, lambda manifest: _engine(manifest).update(values))


def _added(*more: Any) -> Callable[[Members], Members]:
    return lambda members: [*members, *more]


def _again(name: str) -> Callable[[Members], Members]:
    return lambda members: [*members, *(pair for pair in members if pair[0].filename == name)]


def _spelt(name: str, other: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        content = {info.filename: content for info, content in members}[name]
        return vouched(other, content)(members)

    return change


# What is done to the members, and what the message says.
MEMBERS: dict[str, tuple[Callable[[Members], Members], str]] = {
    "absolute": (_added(member("/tmp/escaped.txt")), "has no plain file name"),
    "parent": (_added(member("../escaped.txt")), "has no plain file name"),
    "deep-parent": (_added(member("a/../../../escaped.txt")), "has no plain file name"),
    "backslash": (_added(member("..\\escaped.txt")), "has no plain file name"),
    "drive": (_added(member("C:escaped.txt")), "has no plain file name"),
    "folder": (_added(member("escaped/")), "has no plain file name"),
    "subfolder": (_added(member("escaped/escaped.txt")), "has no plain file name"),
    "hidden": (_added(member(".bashrc")), "has no plain file name"),
    "escape-sequence": (_added(member("\x1b[2Jescaped")), "'\\x1b[2Jescaped' has no plain file name"),
    "null-byte": (_added(member("escaped.txt\0.onnx")), "has no plain file name"),
    "no-name": (_added(member("")), "has no plain file name"),
    "long-name": (_added(member("a" * 5000)), "aaa...' has no plain file name"),
    "vouched-parent": (vouched("../escaped.txt", b"x"), "has no plain file name"),
    "symlink": (_added(member("link", b"/etc/passwd", stat.S_IFLNK | 0o777)), "is a link or another special file"),
    "device": (_added(member("device", b"", stat.S_IFCHR | 0o600)), "is a link or another special file"),
    "twice": (_again(ENGINE), f"{ENGINE} is in it twice"),
    "twice-in-another-case": (_spelt(ENGINE, ENGINE.upper()), "is in it twice"),
    "not-in-manifest": (_added(member("extra.txt")), "extra.txt is in it, which its package.json does not name"),
    "too-many": (_added(*(member(f"m{i}") for i in range(300))), "and a package at most 256"),
    "packed-otherwise": (_added(member("extra", b"x" * 99, method=zipfile.ZIP_LZMA)), "than stored or deflated"),
    "bomb": (vouched("zeros.bin", bytes(30_000_000), zipfile.ZIP_DEFLATED), "more than 200 times its size"),
    "engine-changed": (replaced(ENGINE, b"\0" * 64), "is not of the size that its package.json says"),
    "missing-member": (
        lambda members: [pair for pair in members if pair[0].filename != ENGINE], f"{ENGINE} is not in it",
    ),
    "no-manifest": (
        lambda members: [pair for pair in members if pair[0].filename != "package.json"], "it has no package.json",
    ),
    "wrong-size": (_engine_changed(size=5), "is not of the size that its package.json says"),
    "wrong-hash": (_engine_changed(sha256="0" * 64), "size or SHA-256 differ"),
    "hash-no-hash": (_engine_changed(sha256="../../x"), "that this edpct cannot read"),
    "negative-size": (_engine_changed(size=-1), "that this edpct cannot read"),
    "name-escapes": (_engine_changed(name="../escaped.onnx"), "that this edpct cannot read"),
    "no-such-precision": (_engine_changed(precision="int1"), "that this edpct cannot read"),
    "default-elsewhere": (_changed(default="/etc/passwd"), "that this edpct cannot read"),
    "later-format": (_changed(format=2), "that this edpct cannot read"),
    "no-engines": (_changed(engines=[]), "that this edpct cannot read"),
    "unknown-key": (_changed(postinstall="rm -rf /"), "that this edpct cannot read"),
    "manifest-no-json": (replaced("package.json", b"\xff\xfe{"), "that this edpct cannot read"),
    "manifest-a-list": (replaced("package.json", b"[]"), "that this edpct cannot read"),
    "manifest-deep": (replaced("package.json", b"[" * 100_000), "that this edpct cannot read"),
    "manifest-huge": (replaced("package.json", random.Random(0).randbytes(1_100_000)), "is larger than 1 MiB"),
}  # fmt: skip


def _central(content: bytes, name: str) -> int:
    """Where the central directory's header of a member begins."""
    at = content.index(b"PK\x01\x02")
    while not content[at + 46 :].startswith(name.encode()):
        at = content.index(b"PK\x01\x02", at + 4)
    return at


def _local(content: bytes, name: str) -> int:
    """Where the local header of a member begins."""
    at = content.index(b"PK\x03\x04")
    while not content[at + 30 :].startswith(name.encode()):
        at = content.index(b"PK\x03\x04", at + 4)
    return at


def _patched(content: bytes, at: int, packing: str, *values: int) -> bytes:
    new = struct.pack(packing, *values)
    return content[:at] + new + content[at + len(new) :]


def _encrypted(content: bytes) -> bytes:
    content = _patched(content, _central(content, ENGINE) + 8, "<H", 1)
    return _patched(content, _local(content, ENGINE) + 6, "<H", 1)


def _gigabytes(content: bytes) -> bytes:
    for name in ("student.onnx", "student-int8.onnx"):
        content = _patched(content, _central(content, name) + 20, "<II", 3_000_000_000, 3_000_000_000)
    return content


def _flipped(content: bytes) -> bytes:
    """A bit in the middle of the engine's packed bytes; headers are sound."""
    at = _local(content, ENGINE) + 30 + len(ENGINE) + 100
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def _two_names(content: bytes) -> bytes:
    """The local header names another file than the central directory."""
    at = _local(content, ENGINE) + 30
    return content[:at] + b"x" + content[at + 1 :]


# What is done to the bytes of the archive, and what the message says.
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "encrypted": (_encrypted, f"the member {ENGINE} is encrypted"),
    "gigabytes": (_gigabytes, "it would unpack to more than 4 GiB"),
    "flipped-bit": (_flipped, ENGINE),
    "two-names": (_two_names, "is damaged and cannot be unpacked"),
    "half": (lambda content: content[: len(content) // 2], "is no zip archive, or only part of one"),
    "tail-cut": (lambda content: content[:-1], "is no zip archive, or only part of one"),
    "tail-only": (lambda content: content[-22:], "is no zip archive, or only part of one"),
    "begin-cut": (lambda content: content[len(content) // 2 :], "is no zip archive, or only part of one"),
    "text": (lambda content: b"This is no archive.\n", "is no zip archive, or only part of one"),
    "something-before-it": (lambda content: b"MZ\x90" + content, "is no zip archive, or only part of one"),
    "zero-bytes": (lambda content: b"", "is empty"),
    "no-members": (lambda content: b"PK\x05\x06" + bytes(18), "it has no package.json"),
}


def lying_bomb(content: bytes, name: str = ENGINE) -> bytes:
    """Headers and manifest keep the engine's size, and its bytes unpack to ten megabytes."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(bytes(10_000_000)) + bomb.flush()
    start, head = _local(content, name), _central(content, name)
    data = start + 30 + len(name)
    old = struct.unpack("<I", content[head + 20 : head + 24])[0]
    content = _patched(content, head + 20, "<I", len(packed))
    content = content[:data] + packed + content[data + old :]
    shift = len(packed) - old
    # All that comes after it has moved: the members' offsets, and that of the directory.
    at = content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    while 0 <= at < end:
        where = struct.unpack("<I", content[at + 42 : at + 46])[0]
        if where > start:
            content = _patched(content, at + 42, "<I", where + shift)
        at = content.find(b"PK\x01\x02", at + 4)
    begin = struct.unpack("<I", content[end + 16 : end + 20])[0]
    return _patched(content, end + 16, "<I", begin + shift)


BYTES["lying-bomb"] = (lying_bomb, ENGINE)
SAID = {name: said for name, (_, said) in (MEMBERS | BYTES).items()} | {
    "directory": "is a directory, not an engine",
    "another-zip": "it has no package.json",
}


def odd_archives(folder: Path, sound: Path) -> Iterator[tuple[str, Path]]:
    """Write every odd archive, as ``NAME/student.zip``; what the message says of each is in :data:`SAID`.

    Args:
        sound: a package with the engine :data:`ENGINE`.
    """
    for name in SAID:
        path = folder / name / "student.zip"
        path.parent.mkdir(parents=True)
        if name in MEMBERS:
            write(path, MEMBERS[name][0](read(sound)))
        elif name in BYTES:
            path.write_bytes(BYTES[name][0](sound.read_bytes()))
        elif name == "directory":
            path.mkdir()
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("holiday.jpg", b"not ours")
        yield name, path


def damaged(sound: Path, target: Path, seed: int) -> Path:
    """A copy with a few bytes changed, left out or cut, as the seed says."""
    rng, content = random.Random(seed), bytearray(sound.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 30))):
        at = rng.randrange(len(content))
        # Half of the damage goes where archives are described, at their end.
        at = rng.randrange(len(content) * 9 // 10, len(content)) if rng.random() < 0.5 else at
        how = rng.randrange(4)
        if how == 0:
            del content[at : at + rng.choice((1, 4, 50))]
        elif how == 1:
            content[at:at] = rng.randbytes(rng.choice((1, 4, 50)))
        else:
            content[at] = rng.choice((0, 255, rng.randrange(256)))
        if len(content) < 2:
            break
    shutil.rmtree(target, ignore_errors=True)
    target.write_bytes(content)
    return target
