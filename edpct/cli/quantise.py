"""``edpct quantise``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def quantise_command(
    onnx: Path = typer.Option(..., "--onnx", help="FP32 ONNX file written by edpct, not fused.", callback=o.onnx_file),
    precision: str = typer.Option("int8", "--precision", help="int8 or fp16."),
    out: Path = typer.Option(None, "--out", help="The ONNX file; beside the other, with -int8 or -fp16, if not given."),
    data: o.Data = None,
    layout: o.Layout = None,
    images: int = typer.Option(None, "--images", help="Training windows for the calibration.  [default: 64]"),
    calibration: str = typer.Option(
        None, "--calibration", help="Ranges by minmax, percentile, mse or entropy.  [default: minmax]"
    ),
    max_miou_drop: float = typer.Option(
        None, "--max-miou-drop", help="Points of mIoU that INT8 may lose; what costs most stays FP32.  [default: 0.5]"
    ),
    guard_images: int = typer.Option(
        None, "--guard-images", help="Training windows to measure that on; 0: all in INT8, unmeasured.  [default: 32]"
    ),
    seed: o.Seed = None,
) -> None:
    """Write an FP32 ONNX file in INT8 (or FP16) that keeps its mIoU, and show what it costs on val."""
    from edpct.archive.locate import beside
    from edpct.cli.packages import require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.errors import RecipeError
    from edpct.recipe import QuantiseRecipe
    from edpct.recipe.file import load_recipe

    if precision not in ("int8", "fp16"):
        raise RecipeError(f"There is no precision '{precision}'.", "Choose int8 or fp16.")
    flags = {
        "quantise.calibration_images": images, "quantise.calibration": calibration,
        "quantise.max_miou_drop": max_miou_drop, "quantise.guard_images": guard_images, "seed": seed,
    }  # fmt: skip
    recipe = load_recipe(QuantiseRecipe, None, flags)
    require_compress("quantising")
    from edpct.run.quantise import quantise, tables_of

    path = out or beside(onnx, ".onnx").with_name(f"{onnx.stem}-{precision}.onnx")
    o.check_output(path, ".onnx", onnx)
    if out is None and path.exists():
        raise RecipeError(f"{path} is there already.", "Give another file with --out, or remove it.")
    found = quantise(onnx, path, precision, data, layout, recipe.quantise, recipe.seed, screen())
    for table in tables_of(found):
        show_table(*table)
    if found.guarded is not None and found.guarded.faster is not None:
        typer.echo(
            f"All in INT8 would lose {found.guarded.loss_of_all:.2f} points and be "
            f"{found.guarded.faster:.2f} times as fast."
        )
    said = f"; {100 * found.share:.1f} % of its multiply-accumulates are INT8" if precision == "int8" else ""
    typer.echo(f"Wrote {path}{said}.")
    typer.echo(f"Next: edpct bench --engine {path} --engine {onnx}")
