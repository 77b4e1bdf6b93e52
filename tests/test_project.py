"""The project's own files agree with each other: requirements, lock, environment, citation, commands, text."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mmsa_lib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAPERS = ("10.1145/3652583.3658004", "arXiv:2501.12424", "arXiv:2305.08473", "arXiv:2411.02793", "arXiv:2102.04830")

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="not a checkout")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def lock():
    """Version by name; every line that is no comment must be a plain pin."""
    pins = {}
    for line in read("requirements.lock").splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line).groups()
            assert name not in pins
            pins[name] = version
    return pins


def requirements():
    """What is asked for, but the extra ``extract``: it pins itself, and most who set up need none of its 300 MB."""
    extras = {name: lines for name, lines in PYPROJECT["project"]["optional-dependencies"].items() if name != "extract"}
    lines = [*PYPROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    return [Requirement(line) for line in lines]


def tracked_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def make_targets():
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.MULTILINE))


def make_commands(text):
    """Targets of the `make …` calls in ``text``, those in prose not counted."""
    return re.findall(r"(?:^|`|\$ )make ([a-z][a-z-]*)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_the_lock_holds_an_allowed_version_of_every_requirement(requirement):
    name = canonicalize_name(requirement.name)
    assert name in lock(), "run `make lock`"
    assert requirement.specifier.contains(lock()[name]), f"{requirement} does not allow {lock()[name]}; run `make lock`"


def test_the_lock_holds_what_is_needed_and_nothing_else():
    python = re.search(r"tested on Python (\d+)\.(\d+)\.", read("requirements.lock")).groups()
    if (sys.version_info[:2], sys.platform) != (tuple(map(int, python)), "linux"):
        pytest.skip("other Pythons and systems need other packages")
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert set(tool.closure(tool.project_requirements())) == set(lock())


def test_environment_yml_is_the_lock_for_conda():
    from rattler import MatchSpec

    environment = yaml.safe_load(read("environment.yml"))
    assert environment["name"] == PYPROJECT["project"]["name"]
    *conda, pip = environment["dependencies"]
    specs = {spec.name.normalized: spec for spec in (MatchSpec(line, strict=True) for line in conda)}
    assert set(specs) == {"python", "pip"}
    (python,) = [line.removeprefix("python=") for line in conda if line.startswith("python=")]
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(f"{python}.9")
    assert pip["pip"] == [*(f"{name}=={version}" for name, version in lock().items()), "-e ."]


def test_one_version_everywhere():
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d{2}-\d{2}$", read("CHANGELOG.md"), flags=re.MULTILINE).group(1)
    assert {mmsa_lib.__version__, PYPROJECT["project"]["version"], citation["version"], newest} == {newest}


def test_the_citation_names_the_papers():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= citation.keys()
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year", "identifiers"} <= reference.keys()
        assert all(author["family-names"] for author in reference["authors"])
    found = [str(each["value"]) for reference in citation["references"] for each in reference["identifiers"]]
    assert len(citation["references"]) == len(PAPERS)
    assert set(PAPERS) <= set(found)


def test_the_licence_is_the_one_that_is_declared():
    assert PYPROJECT["project"]["license"] == yaml.safe_load(read("CITATION.cff"))["license"] == "MIT"
    assert read("LICENSE").startswith("MIT License\n")


def test_readme_and_ci_call_targets_that_exist():
    in_readme, in_ci = make_commands(read("README.md")), make_commands(read(".ci/run"))
    assert {"reproduce", "test"} <= set(in_readme)
    assert set(in_readme) | set(in_ci) <= make_targets()
    assert set(in_ci) <= set(in_readme), "README.md must say what .ci/run runs"
    assert {"reproduce", "test", "figures-check"} <= set(in_ci)


def test_ci_run_is_an_executable_strict_script():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert read(".ci/run").startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in read(".ci/run")


def test_make_lists_every_target():
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    assert set(re.findall(r"^ +make ([a-z-]+)", done.stdout, flags=re.MULTILINE)) == make_targets()


def test_no_file_names_a_machine_or_a_package_host():
    # Written so that this file does not contain what it looks for.
    forbidden = re.compile(r"/wor[k]/|/roo[t]/|py[p]i\.org|pythonhoste[d]|index-ur[l]|file:/[/]")
    found = []
    for path in tracked_files():
        text = path.read_bytes()
        if b"\0" not in text:
            lines = text.decode("utf-8").splitlines()
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if forbidden.search(line)]
    assert found == []


def test_every_code_folder_is_a_package_and_ships_its_data():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mmsa_lib"]
    suffixes = {pattern.rsplit("*", 1)[1] for pattern in patterns}
    for path in tracked_files():
        if path.is_relative_to(ROOT / "mmsa_lib/demo_model"):
            assert "demo_model/**/*" in patterns
        elif path.is_relative_to(ROOT / "mmsa_lib"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"
            assert path.suffix == ".py" or path.suffix in suffixes, f"{path} is not in a wheel"


def test_no_module_imports_a_private_name_of_another():
    files = [path for folder in ("mmsa_lib", "companion") for path in (ROOT / folder).rglob("*.py")]
    imports = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
               if isinstance(node, ast.ImportFrom)]  # fmt: skip
    found = [(path.name, one.name) for path, node in imports for one in node.names if re.match("_[^_]", one.name)]
    assert found == [("collaborative_reference.py", "_under")]  # the source of a method is part of its runs' identity


def test_test_files_have_names_of_their_own():
    # pytest imports them by base name; of two equal ones the second can't be collected beside the first.
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
