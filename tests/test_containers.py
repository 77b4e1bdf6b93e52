"""What Docker and Binder install is the lock and the project, as `make setup` does; no image is built here."""

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").exists(), reason="not a checkout")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def lines(name):
    return [line for line in read(name).splitlines() if line and not line.startswith("#")]


def instructions():
    """Pairs of an instruction of the Dockerfile and its argument."""
    return [tuple(line.split(maxsplit=1)) for line in lines("Dockerfile")]


def python():
    return re.search(r"tested on Python (\d+\.\d+)\.", read("requirements.lock")).group(1)


def pip_commands(text):
    """What `pip install` is called with, options about its talk left out."""
    found = re.findall(r"python -m pip install (.*)", text)
    return [re.sub(r"--quiet |--disable-pip-version-check ", "", command) for command in found]


def test_docker_installs_what_make_setup_installs():
    setup = read("Makefile").partition("\n$(READY):")[2]
    assert pip_commands(read("Dockerfile")) == pip_commands(setup)
    assert len(pip_commands(read("Dockerfile"))) == 2


def test_binder_installs_the_lock_and_the_project():
    asked = []
    for line in lines("binder/requirements.txt"):
        included = re.fullmatch(r"-r (\S+)", line)
        path = (ROOT / "binder" / included[1]).resolve() if included else None
        asked += lines(path.relative_to(ROOT)) if path else [line]
    assert asked == [*lines("requirements.lock"), "-e ."]


def test_one_python_everywhere():
    assert read("binder/runtime.txt") == f"python-{python()}\n"
    assert re.fullmatch(rf"python:{re.escape(python())}-slim-\w+", dict(instructions())["FROM"])


def test_the_image_is_sound():
    names = [name for name, _ in instructions()]
    assert set(names) <= {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "CMD"}
    assert names.count("FROM") == 1
    assert (names[0], names[-1]) == ("FROM", "CMD")
    values = dict(instructions())
    assert values["USER"] != "root", "a notebook runs any code"
    copied = [argument for name, argument in instructions() if name == "COPY"]
    assert copied == ["requirements.lock ./", "--chown=reader . ./"], "the lock alone first: its layer is kept"
    program, *options = json.loads(values["CMD"])
    assert program in {script.name for script in entry_points(group="console_scripts")}
    assert (ROOT / options[-1]).is_file()
    assert not any(re.search("root|token|password", option) for option in options), "the printed address has a token"


def test_what_git_ignores_stays_out_of_the_image():
    anywhere = [f"**/{line.strip('/')}" for line in lines(".gitignore") if not line.startswith("/")]
    here = [line.strip("/") for line in lines(".gitignore") if line.startswith("/")]
    assert sorted(lines(".dockerignore")) == sorted([".git", *anywhere, *here])
