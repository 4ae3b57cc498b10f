"""``edpct prune``: a network in, a narrower one out, with the width of every layer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpct.bench.report.tables import Table, markdown_table
from edpct.card import Card
from edpct.data.fingerprint import data_fingerprint
from edpct.models.architecture import counted
from edpct.models.checkpoint import load_checkpoint, save_checkpoint
from edpct.progress import Progress
from edpct.pruning.widths import LayerWidth, widths_of_paths
from edpct.recipe import CompressRecipe
from edpct.run.datasets import dataset_of
from edpct.run.folder import RunFolder, full_disk_explained
from edpct.run.plan import Desk, Stage, run_stages
from edpct.run.pruning import Pruning
from edpct.run.stages import pruning_packages, pruning_settings
from edpct.runtimes.artefact import sha256_of

WEIGHTS, TABLE = "pruned.safetensors", "pruned.md"


@dataclass(frozen=True)
class PrunedNetwork:
    """What ``edpct prune`` made.

    Attributes:
        table: Markdown file with the width of every layer.
        facts: what was asked, what came out, and how.
    """

    checkpoint: Path
    table: Path
    teacher: Card
    card: Card
    facts: dict[str, Any]


def prune(
    teacher: Path, data: Path | None, layout: str | None, recipe: CompressRecipe, out: Path, progress: Progress
) -> PrunedNetwork:
    """Prune a checkpoint; what an earlier call finished is verified and skipped.

    Args:
        data: dataset folder; None: where the checkpoint says that its data lay, if it is still there.

    Raises:
        EdpctError: see :class:`edpct.run.pruning.Pruning`.
    """
    card = load_checkpoint(teacher).card
    if recipe.export.size is not None:
        card = card.model_copy(update={"task": card.task.at_size(*recipe.export.size)})
    known = data is not None or (card.data is not None and Path(card.data.directory).is_dir())
    dataset = dataset_of(card, data, layout, teacher) if known else None

    def work(desk: Desk) -> dict[str, Any]:
        checkpoint = load_checkpoint(teacher)
        source = type(checkpoint)(checkpoint.model, checkpoint.architecture, counted(card, checkpoint.model))
        pruning = Pruning(
            source, recipe.prune, dataset, recipe.seed, desk.workspace, desk.progress, recipe.export, recipe.bench
        )
        model = pruning.run()
        pruned = counted(card.model_copy(update={"network": f"{card.network}, pruned"}), model)
        save_checkpoint(desk.workspace / WEIGHTS, model, pruned)
        return {**pruning.facts, "teacher": source.card.model_dump(mode="json"), "card": pruned.model_dump(mode="json")}

    size = [card.task.preprocessing.height, card.task.preprocessing.width]
    fingerprint = data_fingerprint(dataset) if dataset is not None else None
    settings = {**pruning_settings(recipe, fingerprint), "teacher": sha256_of(teacher), "size": size}
    stage = Stage("prune", (), settings, pruning_packages(recipe), work, format=2)
    folder = RunFolder(out)
    with folder.locked(), full_disk_explained(out):
        done = run_stages([stage], folder, progress)["prune"]
        found = PrunedNetwork(
            folder.publish(done.directory / WEIGHTS, WEIGHTS),
            out / TABLE,
            Card.model_validate(done.facts["teacher"]),
            Card.model_validate(done.facts["card"]),
            done.facts,
        )
        found.table.write_text(_markdown(found), encoding="utf-8")
        (out / "pruned.json").write_text(json.dumps(done.facts, indent=1) + "\n", encoding="utf-8")
    return found


def tables_of(found: PrunedNetwork) -> list[Table]:
    """The network before and after; the widths of its paths; the probes of a search for a speed."""
    rows = [
        [card.network, f"{card.macs / 1e9:.3f}", f"{100 * card.macs / found.teacher.macs:.1f}",
         f"{card.parameters / 1e6:.3f}", f"{100 * card.parameters / found.teacher.parameters:.1f}"]
        for card in (found.teacher, found.card)
    ]  # fmt: skip
    widths = [LayerWidth(**row) for row in found.facts["widths"]]
    paths = [
        [path, str(before), str(after), f"{100 * after / before:.0f}"]
        for path, (before, after) in widths_of_paths(widths).items()
    ]
    tables: list[Table] = [
        (["network", "GMACs", "% of MACs", "M parameters", "% of parameters"], rows),
        (["path", "channels before", "after", "%"], paths),
    ]
    if "speed" in found.facts:
        probes = [
            [f"{100 * probe['macs']:.1f}", f"{probe['fps']:.1f}", f"{probe['seconds']:.0f}"]
            for probe in found.facts["speed"]["probes"]
        ]
        tables.append((["% of MACs", "FPS", "seconds to build and time"], probes))
    return tables


def _markdown(found: PrunedNetwork) -> str:
    asked = ", ".join(f"{name} {value:g}" for name, value in found.facts["asked"].items())
    layers = [[row["layer"], row["path"], str(row["before"]), str(row["after"])] for row in found.facts["widths"]]
    tables = [*tables_of(found), (["layer", "path", "channels before", "after"], layers)]
    return "\n\n".join([f"# {found.card.network}\n\nAsked: {asked}.", *(markdown_table(*t) for t in tables)]) + "\n"
