r"""Ten networks through pruning and out of it: DP-CTNet, networks of segmentation-models-pytorch and of torchvision.

    python benchmarks/networks.py --data DIR [--only NAME ...] [--size 512] [--seconds 3] [--work runs/networks]
        [--out benchmarks/results/networks]

Each is pruned to 30 % of its MACs and saved. A fresh process, in which torch-pruning cannot be imported, loads it,
exports it to ONNX, compares ONNX Runtime with torch on real windows and builds a plan with TensorRT for RTX. Then the
unpruned and the pruned FP32 file take turns on OpenVINO and ONNX Runtime.

DIR is the Dubai set (see README.md); it gives the classes and the windows. Weights are random, with batch-norm
statistics of real windows: this is about what can be pruned and deployed and how fast it then is, not about accuracy.
Goes on where it was stopped, step by step; a network that fails is a row with the reason, and is tried again next time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from networks_page import Facts, page
from numpy.typing import NDArray
from peer_networks import SETTLING, Images, settle_statistics
from torch import nn

from edpct.bench.measure import bench
from edpct.bench.report.claim import speed_ratio
from edpct.bench.report.make import load_average, machine
from edpct.bench.report.schema import SCOPES, RowReport
from edpct.bench.requests import Request
from edpct.card import Card
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.data.samples import Dataset
from edpct.data.sampling import sample_windows
from edpct.errors import BuildError, EdpctError, EngineError, ExportError, MissingPackageError
from edpct.export.build import build_plan
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import check_parity
from edpct.models.adopt import adopt
from edpct.models.architecture import count_macs, count_parameters
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.models.dpctnet import dpctnet
from edpct.progress import Progress, Silent
from edpct.pruning.widths import widths_of_paths
from edpct.recipe import BenchSettings, ExportSettings, PruneSettings
from edpct.task import Task

OURS = "DP-CTNet "  # and a preset
NETWORKS = (
    "DP-CTNet tiny", "DP-CTNet small", "DP-CTNet base", "Unet-resnet18", "FPN-mobilenet_v2", "DeepLabV3Plus-resnet18",
    "Segformer-mit_b0", "UPerNet-resnet18", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
)  # fmt: skip
SEED = 0
SHARE, MARGIN = 0.3, 0.02  # of the MACs
TOLERANCE = 1e-3  # of the logits' range
COMPARED = 2  # windows of val
FRESH_SECONDS = 3600
# In the fresh process: an import of torch-pruning fails, whoever asks for it.
FRESH = 'import sys; sys.modules["torch_pruning"] = None; import networks; networks.deploy(sys.argv[1])'
BESIDE = ("segmentation-models-pytorch", "timm", "torchvision", "onnxscript", "onnxsim")  # versions() leaves them out
WHOLE, PRUNED = "unpruned.onnx", "pruned.onnx"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the Dubai set")
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), metavar="NAME", choices=NETWORKS)
    parser.add_argument("--size", type=int, default=512, help="side of the input in pixels")
    parser.add_argument("--seconds", type=float, default=BenchSettings().seconds, help="of timing each row and scope")
    parser.add_argument("--work", type=Path, default=Path("runs/networks"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/networks"))
    asked = parser.parse_args()
    try:
        run(asked, screen())
    except EdpctError as error:
        print(f"networks: {error}", file=sys.stderr)
        return 2
    return 0


def run(asked: argparse.Namespace, progress: Progress) -> None:
    """All networks one by one; the results are written anew after each."""
    dataset = open_dataset(asked.data, "dubai")
    task = dataset.task.at_size(asked.size, asked.size)
    settling = sample_windows(dataset, "train", SETTLING, asked.size, asked.size, SEED)
    compared = sample_windows(dataset, "val", COMPARED, asked.size, asked.size, SEED)
    load, rows = load_average(), list[Facts]()
    for number, name in enumerate(asked.only, 1):
        progress.say(f"{number} of {len(asked.only)}: {name}")
        folder = asked.work / f"{name.lower().replace(' ', '-')}-{key_of(name, task, settling + compared)}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.append(one(name, task, settling, compared, dataset, asked.seconds, folder, progress))
        write(rows, asked, load)
    print((asked.out / "networks.md").read_text(encoding="utf-8"))


def key_of(name: str, task: Task, images: Images) -> str:
    """What a network's files are made of and by, as ten hexadecimal digits."""
    pixels = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    package = Path(__file__).resolve().parent.parent / "edpct"
    files = [file for part in ("models", "pruning", "export") for file in sorted((package / part).glob("*.py"))]
    code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    facts = [name, task.model_dump(mode="json"), pixels, SEED, SHARE, code, all_versions()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]


def all_versions() -> dict[str, str]:
    found: dict[str, str] = dict(machine()["versions"])
    for package in BESIDE:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def one(
    name: str, task: Task, settling: Images, compared: Images, dataset: Dataset, seconds: float, folder: Path,
    progress: Progress,
) -> Facts:  # fmt: skip
    """The row of a network: its finished steps, and the first that failed with the reason."""
    steps: dict[str, Callable[[], Facts]] = {
        "pruning": lambda: prune(name, task, settling, compared, folder, progress),
        "deployment": lambda: deploy_afresh(folder),
        f"timing {seconds:g} s": lambda: timed(name, dataset, seconds, folder, progress),
    }
    row: Facts = {"network": name}
    for step, make in steps.items():
        file = folder / f"{step.replace(' ', '-')}.json"
        try:
            if not file.exists():
                found = make()
                partial = file.with_suffix(".partial")
                partial.write_text(json.dumps(found), encoding="utf-8")
                partial.replace(file)
            row[step.split()[0]] = json.loads(file.read_text(encoding="utf-8"))
        except Exception as error:  # whatever a package raises is this network's result
            reason = str(error) if isinstance(error, EdpctError) else f"{type(error).__name__}: {error}"
            row["failed"] = {"step": step.split()[0], "reason": " ".join(reason.split())[:400]}
            progress.say(f"  {row['failed']['step']} failed: {row['failed']['reason']}")
            break
    return row


# ---- pruning


def build(name: str, task: Task) -> tuple[nn.Module, Card]:
    """A network with random weights, the same ones each time."""
    torch.manual_seed(SEED)
    if not name.startswith(OURS):
        return adopt(name, None, task, None)
    model, size = dpctnet(name.removeprefix(OURS), task.num_classes).eval(), task.preprocessing
    macs = count_macs(model, size.height, size.width)
    return model, Card(network=name, task=task, parameters=count_parameters(model), macs=macs)


def prune(name: str, task: Task, settling: Images, compared: Images, folder: Path, progress: Progress) -> Facts:
    """Write the unpruned ONNX file, the pruned checkpoint, and what its logits are compared on."""
    # Not at the top: the fresh process imports this file, too.
    from edpct.pruning.prune import Budget, Pruner

    model, card = build(name, task)
    settle_statistics(model, task, settling)
    size = task.preprocessing
    began = time.monotonic()
    pruner = Pruner(model, PruneSettings(macs=SHARE), (size.height, size.width), progress, seed=SEED)
    pruned = pruner.to(Budget("macs", SHARE))
    seconds = time.monotonic() - began
    settle_statistics(pruned.model, task, settling)  # other inputs, other statistics
    narrow = card.model_copy(update={"parameters": pruned.parameters, "macs": pruned.macs})
    save_checkpoint(folder / "pruned.safetensors", pruned.model, narrow)
    np.savez(folder / "compared.npz", images=np.stack(compared), logits=logits_of(pruned.model, task, compared))
    export_onnx(model, card, folder / WHOLE, ExportSettings(), progress)
    return {
        "macs": [pruned.teacher_macs, pruned.macs],
        "parameters": [pruned.teacher_parameters, pruned.parameters],
        "seconds": seconds,
        "within": abs(pruned.macs / pruned.teacher_macs - SHARE) <= MARGIN,
        "paths": widths_of_paths(pruned.widths),
        "widths": {row.layer: [row.before, row.after] for row in pruned.widths},
    }


def logits_of(model: nn.Module, task: Task, images: Images) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = model.eval()(torch.from_numpy(task.preprocessing.apply(np.stack(images)))).numpy()
    return found


# ---- the fresh process


def deploy_afresh(folder: Path) -> Facts:
    """What :func:`deploy` finds in a process without torch-pruning.

    Raises:
        ExportError: it failed; the message is the last line that it wrote.
    """
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=FRESH_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ExportError((done.stderr.strip().splitlines() or [f"The process ended with {done.returncode}."])[-1])
    found: Facts = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def deploy(folder: str) -> None:
    """Checkpoint to ONNX and plan; prints what was found as JSON.

    Raises:
        EdpctError: torch-pruning is there, or what was loaded or exported does not compute what was saved.
    """
    if sys.modules.get("torch_pruning", "") is not None:
        raise EngineError("torch-pruning can be imported, so this proves nothing.")
    home = Path(folder)
    kept, checkpoint = np.load(home / "compared.npz"), load_checkpoint(home / "pruned.safetensors")
    task, images = checkpoint.card.task, list(kept["images"])
    off = np.abs(logits_of(checkpoint.model, task, images) - kept["logits"]).max() / np.ptp(kept["logits"])
    if not off <= TOLERANCE:
        raise ExportError(f"The network that was loaded is off the one that was saved by {off:.2e} of the range.")
    export_onnx(checkpoint.model, checkpoint.card, home / PRUNED, ExportSettings(), Silent())
    parity = check_parity(checkpoint.model, home / PRUNED, task, images, TOLERANCE)
    found = {"loaded": float(off), "parity": parity.largest, "agreement": parity.agreement, "windows": parity.images}
    print(json.dumps({**found, "plan": planned(home)}))


def planned(home: Path) -> Facts:
    """The plan's size and builder, or why there is none; the ONNX file is of use without it."""
    plan = home / "pruned.plan"
    try:
        sidecar = build_plan(home / PRUNED, plan, "rtx", Silent())
    except (BuildError, MissingPackageError) as error:
        return {"reason": str(error)}
    return {"bytes": plan.stat().st_size, "builder": f"{sidecar.builder} {sidecar.builder_version}"}


# ---- timing


def timed(name: str, dataset: Dataset, seconds: float, folder: Path, progress: Progress) -> Facts:
    """Both ONNX files on both runtimes, in turns."""
    settings, journal = BenchSettings(seconds=seconds), folder / "journal.jsonl"
    files = {name: folder / WHOLE, f"{name} pruned": folder / PRUNED}
    requests = [Request(title, path, runtime) for title, path in files.items() for runtime in settings.runtimes]
    load = load_average()
    measured = bench(requests, dataset, settings, progress, journal, accuracy=False)
    if measured.failures:
        raise EngineError(
            f"{measured.failures[0].name} on {measured.failures[0].runtime}: {measured.failures[0].reason}"
        )
    rows = {(row.file, row.runtime): row for row in measured.rows}
    journal.unlink(missing_ok=True)
    return {
        "load": load,
        "settings": settings.model_dump(mode="json"),
        "runtimes": {each: compared_speed(rows[WHOLE, each], rows[PRUNED, each]) for each in settings.runtimes},
    }


def compared_speed(whole: RowReport, pruned: RowReport) -> Facts:
    """FPS from image to logits, the factor with its 95 % interval, and both rows."""
    ratio = speed_ratio(whole.latency["transfer"], pruned.latency["transfer"])
    apart: Facts = {"latency": {scope: {"quantiles"} for scope in SCOPES}}  # hundreds of numbers that nobody reads here
    return {
        "fps": [whole.latency["transfer"].fps, pruned.latency["transfer"].fps],
        "factor": [ratio.value, ratio.low, ratio.high],
        "rows": [row.model_dump(mode="json", exclude=apart, exclude_none=True) for row in (whole, pruned)],
    }


def write(rows: Sequence[Facts], asked: argparse.Namespace, load: float | None) -> None:
    """The table and the data behind it."""
    asked.out.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/networks.py --data DIR --size {asked.size} --seconds {asked.seconds:g}"
    if set(asked.only) != set(NETWORKS):
        command += f" --only {shlex.join(asked.only)}"
    facts = {
        **machine(), "versions": all_versions(), "load": load, "seed": SEED, "size": asked.size,
        "seconds": asked.seconds, "macs": SHARE, "margin": MARGIN, "tolerance": TOLERANCE, "windows": COMPARED,
        "command": command, "networks": rows,
    }  # fmt: skip
    (asked.out / "networks.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (asked.out / "networks.md").write_text(page(facts), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
