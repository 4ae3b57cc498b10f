r"""The Dubai run: train a teacher, compress it, train its rivals, measure all in turns, and write the README's table.

    python benchmarks/dubai.py --data DIR [--without-rivals] [--work runs/dubai] [--out benchmarks/results/dubai]

DIR is the dataset "Semantic segmentation of aerial imagery" (MBRSC and Humans in the Loop, CC0). Goes on where it was
stopped. These are the commands that it runs, after which the rivals are trained as benchmarks/ablation.py does, with
as many crops as the teacher and the learning rate that was best there:

    edpct train --data DIR --layout dubai --out WORK/teacher --recipe benchmarks/recipes/dubai-train.toml
    edpct compress --teacher WORK/teacher/teacher.pt --data DIR --layout dubai --out WORK/run \
        --recipe benchmarks/recipes/dubai-compress.toml
    python benchmarks/peers.py --data DIR --engine WORK/run/teacher.onnx --student ... --weights NAME=FILE ...
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ablation import RIVALS, Budget, trained
from peers import rivalry
from study import Study, by_seed

from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import headline, machine_line
from edpct.bench.report.schema import Report, read_report
from edpct.bench.report.tables import class_table_of, markdown_table, table_of
from edpct.cli.screen import screen
from edpct.data.layouts import open_dataset
from edpct.recipe import CompressRecipe, TrainRecipe
from edpct.recipe.file import load_recipe

BEGIN, END = "<!-- dubai:begin -->", "<!-- dubai:end -->"
HERE = Path(os.path.relpath(Path(__file__).parent))  # relative: the reports name the commands
RECIPES = HERE / "recipes"
USUAL_RATE = 1e-3  # of a rival that the ablation has not tuned yet
ENGINES = ("student-fp16", "student-int8-fused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/dubai"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dubai"))
    parser.add_argument("--without-rivals", action="store_true", help="teacher and student alone, in half an hour")
    asked = parser.parse_args()
    teacher, run = asked.work / "teacher", asked.work / "run"
    data = ("--data", asked.data, "--layout", "dubai")
    edpct("train", *data, "--out", teacher, "--recipe", RECIPES / "dubai-train.toml")
    recipe = RECIPES / "dubai-compress.toml"
    edpct("compress", "--teacher", teacher / "teacher.pt", *data, "--out", run, "--recipe", recipe)
    keep(teacher, run, asked.out)
    own = read_report(asked.out / "report.json")
    if asked.without_rivals:
        refresh_readme(own, own)
        return
    rivals = train_rivals(asked.data, asked.work / "rivals")
    beside = [part for name in ("teacher", *ENGINES) for part in ("--engine", run / f"{name}.onnx")]
    students = ("--student", run / "student.onnx", "--student-int8", run / "student-int8.onnx")
    given = [part for name, file in rivals.items() for part in ("--only", name, "--weights", f"{name}={file}")]
    argmax = load_recipe(CompressRecipe, recipe, {}).fuse.argmax
    where = ("--fuse-argmax", argmax, "--work", asked.work / "peers", "--out", asked.out / "peers")
    python(HERE / "peers.py", *data, *students, *beside, *given, *where)
    refresh_readme(own, read_report(asked.out / "peers" / "report.json"))


def edpct(*arguments: object) -> None:
    """Run an edpct command, its progress on this terminal; stop with its exit code if it fails."""
    python("-m", "edpct", *arguments)


def python(*arguments: object) -> None:
    """The same with any module or file of Python."""
    code = subprocess.run([sys.executable, *map(str, arguments)], check=False).returncode
    if code:
        sys.exit(code)


def train_rivals(data: Path, work: Path) -> dict[str, Path]:
    """Weights of every rival, trained with the teacher's seed and crops; those that are there are kept."""
    recipe = load_recipe(TrainRecipe, RECIPES / "dubai-train.toml", {})
    settings, progress = recipe.train, screen()
    budget = Budget(recipe.preset, settings.steps, settings.batch, settings.crop)
    tuned = Study(HERE / "results" / "ablation" / "ablation.json", progress).runs
    dataset, found = open_dataset(data, "dubai"), {}
    for name in RIVALS:
        best = by_seed(name, tuned)
        rate = best[0].value if best else USUAL_RATE
        found[name] = budget.file(work, name, rate, recipe.seed)
        if not found[name].exists():
            progress.say(f"Training {name}, learning rate {rate:g}")
            run = trained(name, rate, recipe.seed, dataset, budget, work)
            progress.say(f"{name}: mIoU {run.miou:.2f} % in {run.seconds / 60:.0f} minutes")
    return found


def keep(teacher: Path, run: Path, out: Path) -> None:
    """Copy what is worth committing: the page, its data and pictures, and the teacher's training curve."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "report.md", "report.json", "pictures.png"):
        shutil.copyfile(run / name, out / name)
    shutil.copyfile(teacher / "training.json", out / "teacher-training.json")
    taught = json.loads((out / "teacher-training.json").read_text(encoding="utf-8"))
    print(f"Teacher trained in {taught['seconds'] / 60:.1f} minutes; results in {out}.")


def refresh_readme(own: Report, shown: Report, readme: Path = Path(__file__).parents[1] / "README.md") -> None:
    """Put the claims, the tables, the cautions and the machine between the README's marks.

    Args:
        own: of edpct compress, for the claim about teacher and student.
        shown: for everything else: of peers.py, all engines in turns, or ``own`` itself.
    """
    first = shown.rows[0].runtime  # the classes of one runtime will do: the report has the others
    alone = shown.model_copy(update={"rows": tuple(row for row in shown.rows if row.runtime == first)})
    tables = [markdown_table(*table) for table in (table_of(shown), class_table_of(alone))]
    cautions = "\n".join(f"- {caution}" for caution in cautions_of(shown))
    parts = [headline(own), *rivalry(shown), *tables, cautions, machine_line(shown)]
    middle = "\n\n".join(filter(None, parts))
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(f"{head}{BEGIN}\n{middle}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
