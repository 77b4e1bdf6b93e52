"""Write ``requirements.lock`` and ``environment.yml``: exact versions of all that pyproject.toml needs, read from here.

``make lock`` runs it in the project's own environment, after the tests have passed there. It follows the requirements
of the installed packages, starting from the project's dependencies and its extras, so packages that merely happen to
be installed stay out. ``environment.yml`` repeats the versions for conda instead of referring to the lock, since
micromamba looks for a file named there in a temporary folder of its own.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("lab", "demo", "cluster", "book", "test")
HEADER = """\
# Exact versions of what pyproject.toml asks for, all its extras but extract included, as tested on Python {python}.
# Written by `make lock` (tools/lock.py); do not edit. `make setup` installs from it.
# The local part of a version is left out: torch {torch} may be a CPU or a CUDA build, whichever your index offers.
"""
ENVIRONMENT = """\
# The environment of requirements.lock for conda, mamba and micromamba; run from the project folder:
#   conda env create -f environment.yml
# Written by `make lock` (tools/lock.py); do not edit. Everything but Python comes through pip, because two sources of
# torch in one environment break it.
name: mmsa-lib
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={python}
  - pip>=24
  - pip:
{pins}
      - -e .
"""


def project_requirements() -> list[Requirement]:
    """What pyproject.toml lists: its dependencies and those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    return [Requirement(line) for group in groups for line in group]


def closure(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Installed version by canonical name of ``requirements`` and of all that they require in this environment.

    Raises:
        SystemExit: one of them is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise SystemExit(f"lock: {requirement} is needed but not installed; run `make setup` first") from None
        versions[name] = Version(distribution.version).public
        for asked in {"", *requirement.extras}:
            if (name, asked) not in seen:
                seen.add((name, asked))
                waiting += [(Requirement(line), asked) for line in distribution.requires or ()]
    return versions


def main() -> None:
    """Write both files and say how many packages they hold."""
    versions = closure(project_requirements())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = [f"{name}=={version}" for name, version in sorted(versions.items())]
    header = HEADER.format(python=python, torch=versions["torch"])
    (ROOT / "requirements.lock").write_text(header + "\n".join(pins) + "\n", encoding="utf-8")
    environment = ENVIRONMENT.format(python=python, pins="\n".join(f"      - {pin}" for pin in pins))
    (ROOT / "environment.yml").write_text(environment, encoding="utf-8")
    print(f"requirements.lock and environment.yml: {len(pins)} packages")


if __name__ == "__main__":
    main()
