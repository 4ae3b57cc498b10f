"""From what a user names to a file: a path, weights that come with edpct, a package, or an engine in a package."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from edpct import weights
from edpct.archive.manifest import PLANS, EngineEntry, FileEntry, rank, suffix_of
from edpct.archive.read import Package
from edpct.archive.unpack import is_unpacked, unpack
from edpct.errors import EngineError
from edpct.runtimes.gpu import probe_gpu
from edpct.runtimes.sidecar import check_fit, read_sidecar
from edpct.runtimes.table import RUNTIMES

_MEMBER = re.compile(r"(?P<archive>.+\.zip):(?P<member>[^/\\:]+)", re.IGNORECASE)


def located(path: Path, *, suffixes: Sequence[str] = (), runtime: str = "") -> Path:
    """The file that a name stands for.

    Args:
        path: a file, taken as it is; a name of :data:`edpct.weights.SHIPPED`; a package ``student.zip``, for the engine
            in it that is best here; or one of its engines by name, ``student.zip:student-fp16.onnx``.
        suffixes: kinds of files that will do, of a package; empty: all.
        runtime: row of :data:`edpct.runtimes.table.RUNTIMES` that is to open it; empty: any.

    Raises:
        EngineError: the package cannot be opened (see :class:`edpct.archive.read.Package`), or holds no such engine.
    """
    path = weights.shipped(path)
    if path.suffix.lower() == ".zip":
        with Package(path) as package:
            return _unpacked(package, _choose(package, suffixes, runtime))
    named = _MEMBER.fullmatch(str(path))
    if named is None or path.exists():
        return path
    with Package(Path(named["archive"])) as package:
        return _unpacked(package, _named(package, named["member"]))


def beside(path: Path, suffix: str) -> Path:
    """Where a file made of another goes: beside it, or here if the other came with edpct or in a package.

    Args:
        path: as :func:`located` returned it.
        suffix: of the new file, with its dot.
    """
    return Path(path.stem + suffix) if is_unpacked(path) else weights.beside(path, suffix)


def _unpacked(package: Package, engine: EngineEntry) -> Path:
    """The engine on disk; a plan with its sidecar beside it, which says whether its bytes may be loaded."""
    if (sidecar := _sidecar(package, engine)) is not None:
        unpack(package, sidecar)
    return unpack(package, engine)


def _sidecar(package: Package, engine: EngineEntry) -> FileEntry | None:
    return package.manifest.entry(f"{engine.name}.json") if suffix_of(engine.name) in PLANS else None


def _named(package: Package, name: str) -> EngineEntry:
    for engine in package.manifest.engines:
        if engine.name == name:
            return engine
    raise EngineError(f"There is no engine '{name}' in {package.path.name}.", _holds(package))


def _choose(package: Package, suffixes: Sequence[str], runtime: str) -> EngineEntry:
    """A plan that fits this machine; else the default, or what else is installed for; plans that do not fit last."""
    manifest = package.manifest
    fitting = [e for e in manifest.engines if not suffixes or suffix_of(e.name) in suffixes]
    if runtime in RUNTIMES:  # another name is refused where the engine is opened
        fitting = [e for e in fitting if runtime in e.runtimes]
    if not fitting:
        wanted = f"for {runtime}" if runtime in RUNTIMES else f"of the kind {' or '.join(suffixes)}"
        raise EngineError(f"{package.path.name} holds nothing {wanted}.", _holds(package))
    fitting.sort(key=lambda e: rank(e.name, e.precision))
    plans = [e for e in fitting if suffix_of(e.name) in PLANS]
    others = sorted((e for e in fitting if e not in plans), key=lambda e: e.name != manifest.default)
    if (plan := next((e for e in plans if _plan_fits(package, e)), None)) is not None:
        return plan
    return next((e for e in others if _installed(e)), None) or next(iter(others), fitting[0])


def _installed(engine: EngineEntry) -> bool:
    rows = [row for row in RUNTIMES.values() if suffix_of(engine.name) in row.suffixes]
    return any(row.missing_package() is None for row in rows)


def _plan_fits(package: Package, engine: EngineEntry) -> bool:
    """Whether TensorRT is here and the plan was built for this version and GPU."""
    entry, gpu = _sidecar(package, engine), probe_gpu()
    if entry is None or not gpu.available:
        return False
    try:
        sidecar = read_sidecar(unpack(package, entry).with_suffix(""))
        row = RUNTIMES[sidecar.builder]
        if row.missing_package() is not None:
            return False
        version = str(importlib.import_module(row.packages[0]).__version__)
        capability = gpu.devices[0].compute_capability
        check_fit(Path(engine.name), sidecar, builder=row.name, version=version, compute_capability=capability)
    except (EngineError, ImportError, OSError, ValueError):
        return False
    return True


def _holds(package: Package) -> str:
    return f"It holds: {', '.join(engine.name for engine in package.manifest.engines)}."
