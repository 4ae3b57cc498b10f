"""``edpct export``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def export_command(
    checkpoint: o.Checkpoint,
    out: Path = typer.Option(None, "--out", help="The ONNX file; beside the checkpoint if not given."),
    data: o.Data = None,
    layout: o.Layout = None,
    size: o.Size = None,
    batch: str = typer.Option("1", "--batch", help="1, or open: the batch is chosen when the engine runs."),
    open_size: bool = typer.Option(
        False, "--open-size", help="Leave height and width open: any multiple of 32 when the engine runs."
    ),
    opset: int = typer.Option(18, "--opset", help="ONNX opset, 18 to 23."),
    simplify: bool = typer.Option(True, "--simplify/--no-simplify", help="Run onnxsim, in a process of its own."),
    fuse_preprocess: o.FusePreprocess = False,
    fuse_argmax: o.FuseArgmax = "off",
    tolerance: float = typer.Option(1e-3, "--tolerance", help="Largest difference from torch, of the logits' range."),
) -> None:
    """Write a checkpoint as ONNX, and compare it with torch on real images."""
    from edpct.archive.locate import beside
    from edpct.cli.packages import require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.errors import RecipeError
    from edpct.recipe import ExportRecipe
    from edpct.recipe.file import load_recipe

    if batch not in ("1", "open"):
        raise RecipeError(f"A batch of '{batch}' cannot be exported.", "Choose 1 or open.")
    flags = {
        "export.size": None if size is None else (size, size), "export.opset": opset, "export.simplify": simplify,
        "export.open_batch": batch == "open", "export.open_size": open_size, "export.tolerance": tolerance,
        "fuse.preprocess": fuse_preprocess, "fuse.argmax": fuse_argmax,
    }  # fmt: skip
    recipe = load_recipe(ExportRecipe, None, flags)
    require_compress("exporting")
    from edpct.run.export import export, table_of

    path = out or beside(checkpoint, ".onnx")
    o.check_output(path, ".onnx", checkpoint)
    found = export(checkpoint, path, data, layout, recipe, screen())
    show_table(*table_of(found))
    typer.echo(f"Wrote {path}.")
    typer.echo(f"Next: edpct bench --engine {path}")
