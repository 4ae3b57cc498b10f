"""What can be said of the Dockerfiles without building them. docker/build.sh builds them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edpct.runtimes.table import RUNTIMES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
Steps = list[tuple[str, str]]


def steps(path: Path) -> Steps:
    """Instructions with their arguments, comments left out and lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(found: Steps, name: str) -> list[str]:
    return [rest for other, rest in found if other == name]


def last_stage(found: Steps) -> Steps:
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


def shell(found: Steps) -> str:
    return " && ".join(of(found, "RUN"))


def bases(found: Steps) -> list[str]:
    """The images that the stages stand on, arguments replaced by their defaults."""
    defaults = dict(argument.split("=", 1) for argument in of(found, "ARG") if "=" in argument)
    return [re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], rest.split()[0]) for rest in of(found, "FROM")]


def test_there_is_one_for_each_target() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "gpu.Dockerfile", "jetson.Dockerfile"]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def found(request: pytest.FixtureRequest) -> Steps:
    return steps(request.param)


def test_bases_have_the_tag_of_an_exact_version(found: Steps) -> None:
    for base in bases(found):
        assert re.search(r":r?\d+\.\d+\.\d+(-[\w.-]+)?$", base), base


def test_it_does_not_run_as_root(found: Steps) -> None:
    last = last_stage(found)
    (user,) = of(last, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = [name for name, _ in last[[name for name, _ in last].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_the_health_check_asks_for_runtimes_that_exist(found: Steps) -> None:
    (check,) = of(last_stage(found), "HEALTHCHECK")
    words = re.findall(r'"([^"]+)"', check.split("CMD", 1)[1])
    assert words[:2] == ["edpct", "doctor"]
    assert words[2::2] == ["--require"] * len(words[3::2])
    assert words[3::2] and set(words[3::2]) <= set(RUNTIMES)


def test_it_starts_edpct_in_data(found: Steps) -> None:
    last = last_stage(found)
    assert of(last, "ENTRYPOINT") == ['["edpct"]']
    assert of(last, "WORKDIR") == ["/data"]
    assert of(last, "STOPSIGNAL") == ["SIGINT"]


def test_it_runs_with_a_root_that_cannot_be_written(found: Steps) -> None:
    settings = " ".join(of(last_stage(found), "ENV"))
    assert "HOME=/tmp " in settings
    assert "XDG_CACHE_HOME=/tmp/.cache" in settings


def test_the_extras_are_those_of_pyproject(found: Steps) -> None:
    (extras,) = [argument.removeprefix("EXTRAS=") for argument in of(found, "ARG") if argument.startswith("EXTRAS=")]
    assert set(extras.split(",")) <= set(EXTRAS)


def test_copied_files_are_there_and_travel_to_the_builder(found: Steps) -> None:
    travels = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    for words in (shlex.split(rest) for rest in of(found, "COPY")):
        if not words[0].startswith("--from="):
            assert set(words[:-1]) <= travels
            assert [name for name in words[:-1] if not (ROOT / name).exists()] == []


def test_packages_have_versions(found: Steps) -> None:
    """From constraints.txt, or named with one; edpct itself comes from the source."""
    for command in re.split(r"&&|;|\|\|", shell(found)):
        words = shlex.split(command)
        if not words or not words[0].endswith("/pip") or words[1] == "uninstall":
            continue
        assert "constraints.txt" in words or "--no-deps" in words, command
        named = [word for word in words if re.fullmatch(r"[a-z][a-z0-9-]*(==.*)?", word)][1:]
        names = [word for word in named if word not in ("wheels", "pycuda") and "==" not in word]
        assert names == [], command


def test_nothing_of_the_build_is_left_in_the_last_stage(found: Steps) -> None:
    last = last_stage(found)
    assert "pip" not in shell(last)
    assert "g++" not in shell(last) and "-dev" not in shell(last)
    assert of(last, "COPY") == ["--from=build /opt/edpct /opt/edpct"]
    for command in of(found, "RUN"):
        if "apt-get" in command:
            assert "--no-install-recommends" in command and command.endswith("rm -rf /var/lib/apt/lists/*")


def test_nothing_is_fetched_and_run(found: Steps) -> None:
    assert not re.search(r"\b(curl|wget)\b", shell(found))
    assert of(found, "ADD") == []


def test_labels_say_what_it_is(found: Steps) -> None:
    (labels,) = of(last_stage(found), "LABEL")
    names = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))
    assert {"title", "description", "licenses", "version", "revision"} <= names


def test_the_build_script_is_sound_shell() -> None:
    script = ROOT / "docker/build.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    refused = subprocess.run(["bash", str(script), "toaster"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (2, "There is no docker/toaster.Dockerfile.\n")
