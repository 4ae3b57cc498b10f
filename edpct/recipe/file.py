"""Recipes as files: defaults, a TOML file over them, command-line flags on top."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edpct.errors import RecipeError
from edpct.recipe import BUDGETS, Section

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMENT_WIDTH = 110
R = TypeVar("R", bound=Section)


def load_recipe(kind: type[R], path: Path | None, flags: dict[str, Any]) -> R:
    """Make a recipe from defaults, a TOML file and flags, the later winning.

    Args:
        kind: the recipe's class.
        path: a TOML file, or None.
        flags: dotted setting to value ("distil.steps": 100); values that are None count as not given. A budget among
            them takes the place of the file's, of whatever kind that is.

    Raises:
        RecipeError: no such file, no TOML, an unknown setting, a value out of range.
    """
    values = _read_toml(path) if path is not None else {}
    if any(flags.get(f"prune.{name}") is not None for name in BUDGETS) and isinstance(values.get("prune"), dict):
        values["prune"] = {name: value for name, value in values["prune"].items() if name not in BUDGETS}
    for dotted, value in flags.items():
        if value is not None:
            _set(values, dotted.split("."), value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        origin = f"{path}: " if path is not None else ""
        raise RecipeError(
            f"{origin}setting '{where}': {first['msg']}.", "See the settings with: edpct recipe"
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"There is no recipe {path}.", "Write one with: edpct recipe > recipe.toml") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as TOML: {error}.") from error


def _set(values: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # no table: validation refuses it by its name
        values = inner
    values[parts[-1]] = value


def recipe_toml(kind: type[Section]) -> str:
    """The defaults of a recipe as TOML text, ready to be edited; every setting that is documented has its comment."""
    lines: list[str] = []
    _write_table(kind(), "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(section: Section, prefix: str, lines: list[str]) -> None:
    comments, values = _comments(type(section)), section.model_dump(mode="json")
    for key, value in values.items():
        if isinstance(getattr(section, key), Section):
            continue
        lines.extend(f"# {line}" for line in comments.get(key, []))
        lines.append(f"{key} = {_toml_value(value)}" if value is not None else f"# {key} =")
    for key in values:
        if isinstance(inner := getattr(section, key), Section):
            lines.extend(["", f"[{prefix}{key}]"])
            _write_table(inner, f"{prefix}{key}.", lines)


def _comments(kind: type[Section]) -> dict[str, list[str]]:
    """What the docstrings of a section and its bases say of each setting, as lines of a comment."""
    found: dict[str, list[str]] = {}
    for base in reversed([base for base in kind.__mro__ if issubclass(base, Section)]):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for entry in re.split(r"\n(?=    \S)", attributes):
            names, _, text = " ".join(entry.split()).partition(": ")
            plain = re.sub(r":\w+:|[`~]", "", text)
            for name in names.split(", "):
                found[name] = textwrap.wrap(plain, COMMENT_WIDTH)
    return found


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
