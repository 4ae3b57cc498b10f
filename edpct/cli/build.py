"""``edpct build``."""

from __future__ import annotations

from pathlib import Path

import typer


def build_command(
    onnx: Path = typer.Option(..., "--onnx", help="ONNX file written by edpct; its types are the plan's precision."),
    target: str = typer.Option("auto", "--target", help="auto, tensorrt (needs a GPU) or rtx (needs none)."),
    out: Path = typer.Option(None, "--out", help="The plan; beside the ONNX file if not given."),
) -> None:
    """Build a TensorRT plan of an ONNX file, with a sidecar that says what it is."""
    from edpct.cli.screen import screen
    from edpct.errors import MissingPackageError, RecipeError
    from edpct.export.build import BUILDERS, build_plan, choose_target

    progress = screen()
    chosen = choose_target(progress) if target == "auto" else target
    if chosen is None:
        raise MissingPackageError("tensorrt", "building a plan", "rtx")
    if chosen not in BUILDERS:
        raise RecipeError(f"There is no target '{target}'.", f"Choose from: auto, {', '.join(BUILDERS)}.")
    plan = out or onnx.with_suffix(".plan")
    sidecar = build_plan(onnx, plan, chosen, progress)
    typer.echo(f"Wrote {plan} ({sidecar.precision}, {sidecar.builder} {sidecar.builder_version}) and {plan.name}.json.")
