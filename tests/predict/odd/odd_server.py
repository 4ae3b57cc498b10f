"""The real command, many times and fast: one process imports it, and forks children that answer some calls each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 30  # after which a child is ended: it hangs
BYTES = 8 << 30  # of address space of a child, so that a claim that is believed does not take the machine with it
AT_A_TIME = 50
SERVER = f"""
import json, os, resource, signal, sys, traceback
import edpct.archive.locate, PIL.Image, onnxruntime, pyogrio.raw, rasterio.features, rasterio.shutil, rasterio.warp, shapely
import edpct.predict.pictures, edpct.predict.raster.job, edpct.predict.video
import typer.main
import edpct.cli.main as cli
cli.app = typer.main.get_command(cli.app)  # built once; it takes as long as a small image
main = cli.main
PIL.Image.init()
sys.argv = ["edpct", "predict", "--engine", "none", "--input", "none.tif", "--out", "none"]
try:
    main()  # imports what a command imports; it says that there is no none.tif
except SystemExit:
    pass
print("ready", flush=True)

def line():
    text = b""
    while not text.endswith(b"\\n"):
        more = os.read(0, 1 << 20)
        if not more:
            os._exit(0)
        text += more
    return json.loads(text)

def answer(job):
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(job["log"] + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(job["cwd"])
    sys.argv = ["edpct", *job["arguments"]]
    signal.alarm({SECONDS})
    code = 70
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    signal.alarm(0)
    sys.stdout.flush(); sys.stderr.flush()
    return code

replies = os.dup(1)
while True:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, ({BYTES}, {BYTES}))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for _ in range({AT_A_TIME}):
            os.write(replies, b"%d\\n" % answer(line()))
        os._exit(3)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended == 0:
        break
    if ended != 3:  # a signal, in the middle of a command
        os.write(replies, b"%d\\n" % ended)
"""


@dataclass(frozen=True)
class Answer:
    """How the command ended; a code below 0 is the signal that ended it, -14 that it hung."""

    code: int
    out: str
    err: str


Edpct = Callable[..., Answer]
"""edpct(folder to run in, *arguments)"""


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[Edpct]:
    """What runs the command. What it says goes to files beside the folder that it runs in."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def run(here: Path, *arguments: object) -> Answer:
            assert process.stdin is not None and process.stdout is not None
            log = f"{here}."
            job = {"arguments": [str(argument) for argument in arguments], "cwd": str(here), "log": log}
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            said = (Path(log + name).read_text(encoding="utf-8", errors="backslashreplace") for name in ("out", "err"))
            return Answer(code, *said)

        yield run
        process.stdin.close()
