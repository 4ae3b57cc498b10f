"""Files of packages on disk: in the user's cache, under the archive's own hash, compared before every use.

Each file is written under a hidden name and renamed when it is whole, so that two processes at once do no harm, and
what a killed one leaves is never taken for a file.
"""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from edpct.archive.manifest import FileEntry
from edpct.archive.read import Package
from edpct.errors import EngineError
from edpct.runtimes.content import sha256_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_temporary: dict[int, Path] = {}
"""The folder that is removed at the end, by process: a forked child has none of its own yet."""


def cache_folder() -> Path:
    """Where unpacked files are kept: ``$XDG_CACHE_HOME/edpct/packages``; it may be removed at any time."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path is to be ignored.
    return (home if home.is_absolute() else Path.home() / ".cache") / "edpct" / "packages"


def is_unpacked(path: Path) -> bool:
    """Whether a path is a file of a package, where nothing else should be written."""
    homes = [*_temporary.values()]
    with suppress(RuntimeError):
        homes.append(cache_folder())
    return any(home in path.parents for home in homes)


def unpack(package: Package, entry: FileEntry) -> Path:
    """A file of a package on disk, compared with the manifest's hash; unpacked where it is not there yet.

    Raises:
        EngineError: it is not what the manifest says, or no folder can be written.
    """
    try:
        return _unpack_into(cache_folder() / package.sha256, package, entry)
    except (OSError, RuntimeError) as error:  # a home that cannot be written, or none at all
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _unwritable(package, error) from error
    try:
        return _unpack_into(_temporary_folder() / package.sha256, package, entry)
    except OSError as error:
        raise _unwritable(package, error) from error


def _unpack_into(folder: Path, package: Package, entry: FileEntry) -> Path:
    target = folder / entry.name
    if _is(target, entry):
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{entry.name}.")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            package.copy(entry, file)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # only where nothing else is in it
        raise
    return target


def _is(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
        return False
    try:
        return sha256_of(path) == entry.sha256
    except EngineError:
        return False


def _temporary_folder() -> Path:
    here = os.getpid()
    if here not in _temporary:
        _temporary.clear()
        _temporary[here] = Path(tempfile.mkdtemp(prefix="edpct-packages-"))
        atexit.register(_remove, here)
    return _temporary[here]


def _remove(process: int) -> None:
    if process == os.getpid() and process in _temporary:  # not at the end of a child
        shutil.rmtree(_temporary.pop(process), ignore_errors=True)


def _unwritable(package: Package, error: OSError) -> EngineError:
    if error.errno in _FULL:
        return EngineError(f"The disk is full, so that {package.path.name} cannot be unpacked.", "Free some space.")
    return EngineError(
        f"{package.path.name} cannot be unpacked: {error.filename or 'the folder'}: {error.strerror}.",
        "Set XDG_CACHE_HOME to a folder that can be written, or unpack it yourself.",
    )
