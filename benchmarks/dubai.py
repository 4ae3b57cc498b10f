r"""The Dubai run: train a teacher, compress it, and keep the report, the pictures and the log of stages.

    python benchmarks/dubai.py --data DIR [--work runs/dubai] [--out benchmarks/results/dubai]

DIR is the dataset "Semantic segmentation of aerial imagery" (MBRSC and Humans in the Loop, CC0). Goes on where it was
stopped. These are the two commands that it runs:

    edpct train --data DIR --layout dubai --out WORK/teacher --recipe benchmarks/recipes/dubai-train.toml
    edpct compress --teacher WORK/teacher/teacher.pt --data DIR --layout dubai --out WORK/run \
        --recipe benchmarks/recipes/dubai-compress.toml
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edpct.bench.report.cautions import cautions_of
from edpct.bench.report.claim import headline, machine_line
from edpct.bench.report.schema import read_report
from edpct.bench.report.tables import class_table_of, markdown_table, table_of

BEGIN, END = "<!-- dubai:begin -->", "<!-- dubai:end -->"
RECIPES = Path(os.path.relpath(Path(__file__).parent / "recipes"))  # relative: the report names the command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/dubai"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dubai"))
    asked = parser.parse_args()
    teacher, run = asked.work / "teacher", asked.work / "run"
    data = ("--data", asked.data, "--layout", "dubai")
    edpct("train", *data, "--out", teacher, "--recipe", RECIPES / "dubai-train.toml")
    recipe = RECIPES / "dubai-compress.toml"
    edpct("compress", "--teacher", teacher / "teacher.pt", *data, "--out", run, "--recipe", recipe)
    keep(teacher, run, asked.out)
    refresh_readme(asked.out / "report.json")


def edpct(*arguments: object) -> None:
    """Run an edpct command, its progress on this terminal; stop with its exit code if it fails."""
    code = subprocess.run([sys.executable, "-m", "edpct", *map(str, arguments)], check=False).returncode
    if code:
        sys.exit(code)


def keep(teacher: Path, run: Path, out: Path) -> None:
    """Copy what is worth committing: the page, its data and pictures, and the teacher's training curve."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "report.md", "report.json", "pictures.png"):
        shutil.copyfile(run / name, out / name)
    shutil.copyfile(teacher / "training.json", out / "teacher-training.json")
    taught = json.loads((out / "teacher-training.json").read_text(encoding="utf-8"))
    print(f"Teacher trained in {taught['seconds'] / 60:.1f} minutes; results in {out}.")


def refresh_readme(path: Path, readme: Path = Path(__file__).parents[1] / "README.md") -> None:
    """Put the report's claim, main tables, cautions and machine between the README's marks."""
    report = read_report(path)
    first = report.rows[0].runtime  # the classes of one runtime will do: the report has the others
    alone = report.model_copy(update={"rows": tuple(row for row in report.rows if row.runtime == first)})
    tables = (table_of(report), class_table_of(alone))
    cautions = "\n".join(f"- {caution}" for caution in cautions_of(report))
    shown = [headline(report), *(markdown_table(*table) for table in tables), cautions, machine_line(report)]
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(head + BEGIN + "\n" + "\n\n".join(filter(None, shown)) + "\n" + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
