"""``edpct build``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def build_command(
    onnx: Path = typer.Option(
        ...,
        "--onnx",
        help="ONNX file written by edpct, or a package; its types are the plan's precision.",
        callback=o.onnx_file,
    ),
    target: str = typer.Option("auto", "--target", help="auto, tensorrt or jetson-orin (on the GPU itself), or rtx."),
    out: Path = typer.Option(None, "--out", help="The plan; beside the ONNX file if not given."),
    batch: str = typer.Option(None, "--batch", help="Of an open batch axis: least,best,most.  [default: 1,1,16]"),
    workspace_mb: int = typer.Option(None, "--workspace-mb", help="Most GPU memory that a layer may work in, MiB."),
    level: int = typer.Option(None, "--level", help="0 (fast build) to 5 (fast engine)."),
    timing_cache: Path = typer.Option(None, "--timing-cache", help="File of timings; the next build is quicker."),
    version_compatible: bool = typer.Option(None, "--version-compatible", help="Loads on later versions too."),
    hardware_compatible: str = typer.Option(
        None, "--hardware-compatible", help="Loads on other GPUs too: ampere+ or same-capability."
    ),
    dla: int = typer.Option(None, "--dla", help="DLA core to use; what it cannot run goes to the GPU."),
    low_memory: bool = typer.Option(None, "--low-memory", help="For a Jetson with 8 GB."),
) -> None:
    """Build a TensorRT plan of an ONNX file, with a sidecar that says what it is."""
    from edpct.archive.locate import beside
    from edpct.cli.screen import screen
    from edpct.errors import MissingPackageError, RecipeError
    from edpct.export.build import build_plan, choose_target
    from edpct.export.targets import TARGETS
    from edpct.recipe import BuildRecipe
    from edpct.recipe.file import load_recipe

    flags = {
        "build.batch": None if batch is None else tuple(batch.split(",")), "build.workspace_mb": workspace_mb,
        "build.level": level, "build.timing_cache": timing_cache, "build.version_compatible": version_compatible,
        "build.hardware_compatible": hardware_compatible, "build.dla": dla, "build.low_memory": low_memory,
    }  # fmt: skip
    options = load_recipe(BuildRecipe, None, flags).build
    progress = screen()
    chosen = choose_target(progress) if target == "auto" else target
    if chosen is None:
        raise MissingPackageError("tensorrt", "building a plan", "rtx")
    if chosen not in TARGETS:
        raise RecipeError(f"There is no target '{target}'.", f"Choose from: auto, {', '.join(TARGETS)}.")
    plan = out or beside(onnx, ".plan")
    if onnx.suffix != ".onnx":
        raise RecipeError(f"{onnx} is no .onnx file.", "Plans are built of ONNX files; write one with: edpct export")
    if plan.suffix not in (".plan", ".engine"):
        plan_name = plan.with_suffix(".plan")
        raise RecipeError(f"--out {plan} does not end in .plan or .engine.", f"Give a file such as {plan_name}.")
    o.check_output(plan, plan.suffix, onnx)
    sidecar = build_plan(onnx, plan, chosen, progress, options)
    typer.echo(f"Wrote {plan} ({sidecar.precision}, {sidecar.builder} {sidecar.builder_version}) and {plan.name}.json.")
    typer.echo(f"The same with TensorRT's own command: {sidecar.trtexec}")
