"""Options that several commands share: which network, and how it is pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edpct.data.layouts import layout_names
from edpct.weights import SHIPPED


def _checkpoint(value: Path | None) -> Path | None:
    from edpct.archive.locate import located

    return None if value is None else located(value, suffixes=(".safetensors", ".pt"))


def onnx_file(value: Path) -> Path:
    """Callback of options that take an ONNX file: also the one of a package."""
    from edpct.archive.locate import located

    return located(value, suffixes=(".onnx",))


def _engines(context: typer.Context, values: Any) -> list[Path]:  # typer stumbles over list[Path] on Python 3.10
    from edpct.archive.locate import located

    runtime = context.params.get("runtime") or ""  # there already where the command's --runtime is eager
    return [located(value, runtime=runtime) for value in values]


def _engine(context: typer.Context, value: Path) -> Path:
    return _engines(context, [value])[0]


_OWN = f"or weights that come with edpct ({', '.join(SHIPPED)})"
TEACHER = typer.Option(
    "--teacher", help=f"Checkpoint of the teacher (.pt or .safetensors), {_OWN}.", callback=_checkpoint
)
Teacher = Annotated[Path | None, TEACHER]
NeededTeacher = Annotated[Path, TEACHER]
Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", help=f"Checkpoint of edpct (.pt or .safetensors), {_OWN}.", callback=_checkpoint)
]
Engines = Annotated[
    list[Path],
    typer.Option(
        "--engine",
        help=f"Engine file (.onnx, .plan, .pt, .safetensors), a package (student.zip, student.zip:NAME), {_OWN}; "
        "repeat for more.",
        callback=_engines,
    ),
]
Engine = Annotated[
    Path,
    typer.Option(
        "--engine",
        help=f"Engine file (.onnx, .plan, .pt, .safetensors), a package (student.zip, student.zip:NAME), {_OWN}.",
        callback=_engine,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Instead of --teacher: package.module:factory, or a name of segmentation-models-pytorch (Unet-resnet18)"
        " or torchvision (lraspp_mobilenet_v3_large).",
    ),
]
Weights = Annotated[Path | None, typer.Option("--weights", help="The state_dict of --model.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Dataset folder; where the checkpoint's data lay if not given.")
]
Layout = Annotated[
    str | None, typer.Option("--layout", help=f"Layout of --data ({layout_names()}); recognised if not given.")
]
Size = Annotated[int | None, typer.Option("--size", help="Input height and width; the teacher's if not given.")]

TargetMacs = Annotated[
    str | None,
    typer.Option("--target-macs", help="MACs to keep: a share (0.2, 20%) or a count (4.7G).  [default: 0.1]"),
]
TargetParams = Annotated[
    str | None, typer.Option("--target-params", help="Parameters to keep: a share, or a count (2.5M).")
]
Ratio = Annotated[float | None, typer.Option("--ratio", help="Share of every layer's channels that goes, 0..1.")]
TargetFps = Annotated[
    float | None,
    typer.Option("--target-fps", help="Images a second of the built engine; it is built and timed while searching."),
]
On = Annotated[
    str | None,
    typer.Option("--on", help="Where --target-fps is timed: RUNTIME or RUNTIME:DEVICE.  [default: openvino]"),
]
MinMiou = Annotated[
    float | None, typer.Option("--min-miou", help="Stop pruning before the mIoU on val falls under this, 0..100.")
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-miou-drop", help="Stop before it falls by more points than this.")
]
CriterionName = Annotated[
    str | None,
    typer.Option(
        "--criterion", help="l1, l2, bn-scale, lamp, fpgm, taylor, hessian or random: which channels go first."
    ),
]
ScopeName = Annotated[str | None, typer.Option("--scope", help="Channels are ranked: local, global or isomorphic.")]
Iterations = Annotated[
    int | None, typer.Option("--iterations", help="Prunings on the way, with training between them.")
]
LeaveOut = Annotated[
    list[str] | None, typer.Option("--leave-out", help="Module that stays as it is; may be given again.")
]
Spare = Annotated[
    Path | None, typer.Option("--spare", help="File of edpct sensitivity: layers keep the width that they need.")
]
FusePreprocess = Annotated[
    bool | None,
    typer.Option(
        "--fuse-preprocess/--no-fuse-preprocess", help="Normalise in the graph: uint8 images (B, H, W, 3) in."
    ),
]
FuseArgmax = Annotated[
    str | None,
    typer.Option(
        "--fuse-argmax",
        help="Argmax in the graph: uint8 classes out, of logits at full size, at half of it, or at the head's own "
        "(full, half, head, off).",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Of crops, calibration and timing images.  [default: 0]")]


def prune_flags(
    target_macs: str | None,
    target_params: str | None,
    ratio: float | None,
    target_fps: float | None,
    on: str | None,
    min_miou: float | None,
    max_miou_drop: float | None,
    criterion: str | None,
    scope: str | None,
    iterations: int | None,
    leave_out: list[str] | None,
    spare: Path | None,
) -> dict[str, Any]:
    """The pruning options as settings of the recipe."""
    return {
        "prune.macs": target_macs,
        "prune.params": target_params,
        "prune.ratio": ratio,
        "prune.target_fps": target_fps,
        "prune.on": on,
        "prune.min_miou": min_miou,
        "prune.max_miou_drop": max_miou_drop,
        "prune.criterion": criterion,
        "prune.scope": scope,
        "prune.iterations": iterations,
        "prune.leave_out": tuple(leave_out) if leave_out else None,
        "prune.spare": spare,
    }


def folder_name(teacher: Path | None, model: str | None) -> str:
    """What a run folder is called after: the teacher's folder, or the network.

    Raises:
        RecipeError: neither or both of --teacher and --model were given.
    """
    from edpct.errors import RecipeError

    if (teacher is None) == (model is None):
        twice = "--teacher and --model are given both." if teacher else "There is no network to work on."
        raise RecipeError(twice, "Give --teacher CHECKPOINT, or --model NAME with --weights FILE.")
    if teacher is not None:
        return teacher.resolve().parent.name or "run"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in str(model))


def check_output(out: Path, suffix: str, source: Path) -> None:
    """Refuse an output file before any work.

    Raises:
        RecipeError: another suffix, a folder that is not there, or the input itself.
    """
    from edpct.errors import RecipeError

    if out.suffix != suffix:
        raise RecipeError(f"--out {out} does not end in {suffix}.", f"Give a file such as {out.with_suffix(suffix)}.")
    if not out.parent.is_dir():
        raise RecipeError(f"There is no folder {out.parent} to write {out.name} to.", "Make it, or choose another.")
    if out.is_dir() or (out.exists() and source.exists() and out.samefile(source)):
        raise RecipeError(f"--out {out} is {'a folder' if out.is_dir() else 'the input'}.", "Give another file.")
