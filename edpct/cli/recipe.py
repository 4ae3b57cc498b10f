"""``edpct recipe``."""

from __future__ import annotations

import typer


def recipe_command(kind: str = typer.Argument("compress", help="compress or train.")) -> None:
    """Print the settings of a run with their defaults, as TOML to be edited."""
    from edpct.errors import RecipeError
    from edpct.recipe import CompressRecipe, Section, TrainRecipe
    from edpct.recipe.file import recipe_toml

    kinds: dict[str, type[Section]] = {"compress": CompressRecipe, "train": TrainRecipe}
    if kind not in kinds:
        raise RecipeError(f"There is no recipe '{kind}'.", f"Choose from: {', '.join(kinds)}.")
    typer.echo(recipe_toml(kinds[kind]), nl=False)
