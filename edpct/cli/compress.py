"""``edpct compress``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.cli import options as o


def compress_command(
    teacher: o.Teacher = None,
    model: o.Model = None,
    weights: o.Weights = None,
    data: o.Data = None,
    layout: o.Layout = None,
    recipe: Path = typer.Option(None, "--recipe", help="TOML file; see: edpct recipe compress"),
    out: Path = typer.Option(None, "--out", help="Run folder.  [default: runs/NAME-OF-THE-TEACHER'S-FOLDER]"),
    target_macs: o.TargetMacs = None,
    target_params: o.TargetParams = None,
    ratio: o.Ratio = None,
    target_fps: o.TargetFps = None,
    on: o.On = None,
    min_miou: o.MinMiou = None,
    max_miou_drop: o.MaxDrop = None,
    criterion: o.CriterionName = None,
    scope: o.ScopeName = None,
    iterations: o.Iterations = None,
    leave_out: o.LeaveOut = None,
    spare: o.Spare = None,
    steps: int = typer.Option(None, "--steps", help="Distillation steps.  [default: 2000]"),
    lr: float = typer.Option(None, "--lr", help="Peak learning rate of distillation.  [default: 0.001]"),
    qat: bool = typer.Option(
        None, "--qat/--no-qat", help="Train with INT8 rounding after the distillation.  [default: no]"
    ),
    qat_steps: int = typer.Option(None, "--qat-steps", help="Steps of that.  [default: 300]"),
    size: o.Size = None,
    fuse_preprocess: o.FusePreprocess = None,
    fuse_argmax: o.FuseArgmax = None,
    target: str = typer.Option(None, "--target", help="Plans for: auto, tensorrt, rtx or none.  [default: auto]"),
    threads: int = typer.Option(None, "--threads", help="CPU threads while measuring; 0: all cores.  [default: 0]"),
    seed: o.Seed = None,
) -> None:
    """Prune, distil with AKD, export, quantise, build and measure.

    Run the same command again after an interruption: finished stages are verified and skipped.
    """
    from edpct.cli.packages import require, require_compress
    from edpct.cli.screen import screen, show_table
    from edpct.recipe import CompressRecipe
    from edpct.recipe.file import load_recipe

    flags = {
        **o.prune_flags(
            target_macs, target_params, ratio, target_fps, on, min_miou, max_miou_drop, criterion, scope, iterations,
            leave_out, spare,
        ),
        "distil.steps": steps, "distil.lr": lr, "build.target": target, "seed": seed,
        "qat.enabled": qat, "qat.steps": qat_steps,
        "export.size": None if size is None else (size, size), "bench.threads": threads,
        "fuse.preprocess": fuse_preprocess, "fuse.argmax": fuse_argmax,
    }  # fmt: skip
    settings = load_recipe(CompressRecipe, recipe, flags)
    named = o.folder_name(teacher, model)
    require_compress("compressing")
    if settings.distil.tensorboard or settings.qat.tensorboard:
        require("tensorboard", "a log for TensorBoard", "tensorboard")
    from edpct.bench.report.claim import headline
    from edpct.bench.report.tables import class_table_of, table_of
    from edpct.run.compress import compress
    from edpct.run.teacher import teacher_file

    folder = out or Path("runs") / named
    source = teacher_file(teacher, model, weights, data, layout, size, folder)
    result = compress(source, data, layout, settings, folder, screen())
    show_table(*table_of(result.report))
    show_table(*class_table_of(result.report))
    typer.echo(headline(result.report) + "\n")
    for name, path in result.files.items():
        typer.echo(f"{name:22} {path}")
    typer.echo(f"\nThe page: {result.page}")
    typer.echo(f"Next: edpct bench --engine {result.files['student-int8.onnx']}")
