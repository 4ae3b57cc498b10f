"""``MODEL_CARD.md``: what an engine is, what was measured and what is not known, all of it from card and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edpct import __version__
from edpct.archive.manifest import PLANS
from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import explanation_of, headline, machine_line
from edpct.bench.report.schema import Report
from edpct.bench.report.tables import Table, class_table_of, markdown_table, stage_table_of, table_of
from edpct.card import Card
from edpct.package.contents import Chosen, Contents
from edpct.runtimes.table import RUNTIMES

UNKNOWN = "Unknown: "
NAME = "student.zip"
"""What the package is called in the text, whatever its name: the same run makes the same bytes."""


def model_card(contents: Contents, default: Chosen) -> str:
    """The model card as Markdown.

    Args:
        default: the engine that is opened where none is named.
    """
    card, report = default.card, contents.report
    parts = [
        f"# {card.network}",
        _what(card, report),
        "## What is in the package",
        markdown_table(*_engines_table(contents), numbers=False),
        _use(contents, default),
        "## Input and output",
        _input(card),
        markdown_table(*_classes_table(card), numbers=False),
        "## Measured",
        *(_measured(contents, report) if report is not None else _unmeasured()),
        "## Data and training",
        "\n".join(f"- {text}" for text in _training(card, report)),
        "## Cautions and limits",
        "\n".join(f"- {text}" for text in _limits(contents)),
    ]
    return "\n\n".join(parts) + "\n"


def _what(card: Card, report: Report | None) -> str:
    size, task = card.task.preprocessing, card.task
    text = (
        f"A network for semantic segmentation of {task.num_classes} classes: {card.parameters / 1e6:.2f} M parameters, "
        f"{card.macs / 1e9:.2f} GMACs at {size.height}x{size.width}. Packaged with edpct {__version__}."
    )
    teacher = report.reference_row() if report is not None else None
    if teacher is None or teacher.network == card.network:
        return text
    return (
        f"{text} It was made of {teacher.network} ({teacher.parameters / 1e6:.2f} M, {teacher.macs / 1e9:.2f} GMACs)."
    )


def _engines_table(contents: Contents) -> Table:
    report = contents.report
    names = {row.sha256: row.name for row in report.rows} if report is not None else {}
    lines = [
        [
            one.name,
            one.card.precision,
            ", ".join(RUNTIMES[name].title for name in one.runtimes),
            f"{one.path.stat().st_size / 1e6:.2f}",
            names.get(one.sha256, "not measured"),
        ]
        for one in contents.engines
    ]
    return ["file", "precision", "opens with", "MB", "row in the tables below"], lines


def _use(contents: Contents, default: Chosen) -> str:
    extra = RUNTIMES[default.runtimes[0]].extra
    text = (
        f"With this package as {NAME}:\n\n"
        f"    pip install 'edpct[{extra}]'\n"
        f"    edpct bench --engine {NAME}            # the engine that is best here; --data DIR for mIoU\n"
        f"    edpct bench --engine {NAME}:{default.name}\n"
        "    python run.py IMAGE-OR-FOLDER               # in the unpacked folder\n"
        "    sha256sum -c SHA256SUMS                     # there, too"
    )
    if any(one.path.suffix.lower() in PLANS for one in contents.engines):
        text += "\n\nA plan is code, which TensorRT runs without asking: open one only of somebody whom you trust."
    return text


def _input(card: Card) -> str:
    pre, ignored = card.task.preprocessing, card.task.ignore_index
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    size, count = f"{pre.height}, {pre.width}", card.task.num_classes
    return (
        f"Input `image`: RGB, {pre.height}x{pre.width} pixels (height x width), as (x / 255 - mean) / std with mean "
        f"{mean} and std {std}, float32 (1, 3, {size}). Output `logits`: float32 (1, {count}, {size}). Engines with "
        f"`-fused` in their names normalise or take the argmax themselves (with both: `image` is uint8 (1, {size}, 3), "
        f"and the output `classes` is uint8 (1, {size})). Pixels of label {ignored} count neither in training nor in "
        "scores."
    )


def _classes_table(card: Card) -> Table:
    lines = [
        [str(index), info.name, "#{:02X}{:02X}{:02X}".format(*info.colour), ", ".join(map(str, info.colour))]
        for index, info in enumerate(card.task.classes)
    ]
    return ["index", "class", "colour", "RGB"], lines


def _measured(contents: Contents, report: Report) -> list[str]:
    """The report's own tables, less the rows of engines that are not here; the reference stays to compare with."""
    here = {one.sha256 for one in contents.engines}
    rows = tuple(row for row in report.rows if row.sha256 in here or row.name == report.reference)
    if not any(row.sha256 in here for row in rows):
        return [f"{UNKNOWN}the report beside this card measured none of these engines."]
    shown = report.model_copy(update={"rows": rows})
    tables = [table_of(shown), class_table_of(shown)]
    parts = [headline(shown), *(markdown_table(*table) for table in tables if table[1])]
    return [*parts, explanation_of(shown), machine_line(report)]


def _unmeasured() -> list[str]:
    return [
        f"{UNKNOWN}no report was in the folder that this was packaged from. Measure with:",
        f"    edpct bench --engine {NAME} --data DIR",
    ]


def _training(card: Card, report: Report | None) -> list[str]:
    data = report.data if report is not None else None
    known = []
    if data is not None:
        known.append(
            f"Measured on {data.name}, layout {data.layout}: the {data.split} split, {data.images} "
            f"image{'s' * (data.images != 1)}."
        )
    if card.data is not None:
        known.append(f"Trained on data in the layout {card.data.layout}, on its train split.")
    else:
        known.append(f"{UNKNOWN}what it was trained on; the engine does not say.")
    recipe = (report.recipe or {}) if report is not None else {}
    known += _recipe_sentences(recipe)
    table = stage_table_of(report) if report is not None else ([], [])
    if table[1]:
        known[-1] += "\n\n" + markdown_table(*table, numbers=False) + "\n"
    known.append(f"{UNKNOWN}the licence of the data and of these weights. Whoever passes them on must add it.")
    return known


def _recipe_sentences(recipe: Mapping[str, Any]) -> list[str]:
    """How the student learnt, where the report holds the recipe."""
    distil, found = recipe.get("distil") or {}, []
    if {"steps", "batch", "crop"} <= distil.keys():
        found.append(
            f"Distilled for {distil['steps']} steps of {distil['batch']} crops of {distil['crop']}x{distil['crop']} "
            "pixels."
        )
    if (recipe.get("qat") or {}).get("enabled"):
        found.append(f"Then trained with INT8 rounding for {recipe['qat']['steps']} steps.")
    if "seed" in recipe:
        found.append(f"Seed {recipe['seed']}; how much seeds differ was not measured.")
    return found


def _limits(contents: Contents) -> list[str]:
    report = contents.report
    found = list(cautions_of(report)) if report is not None else []
    if report is not None:
        found += [f"Not measured: {f.name} on {f.runtime}. {f.reason}" for f in report.failures]
        found.append("Speed is that of the machine named above; measure on the one that flies.")
        if any(row.accuracy is not None for row in report.rows):
            found.append(
                "mIoU is that of the ground, sensor and season of the images named above; of others nothing is known."
            )
    found.append(
        f"{UNKNOWN}how it does on images unlike those that it was trained on, and what it was meant for. "
        "Check it on your own before anything depends on it."
    )
    return found
