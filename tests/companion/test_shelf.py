"""companion/ is found beside the library, and is no part of it."""

import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import companion
from mmsa_lib.errors import ConfigError
from mmsa_lib.figures import registry
from mmsa_lib.paths import project_root

ROOT = project_root()
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_wheel_holds_the_library_alone():
    found = find_packages(ROOT, **BUILD["packages"]["find"])
    assert "mmsa_lib.figures" in found
    assert {name.partition(".")[0] for name in found} == {"mmsa_lib"}


def test_an_editable_install_finds_it():
    # setuptools puts this folder on the path only where it is named as the home of all packages.
    assert BUILD["package-dir"] == {"": "."}
    assert Path(companion.__file__).parent == ROOT / "companion"


def test_figures_need_a_checkout(monkeypatch, tmp_path):
    for root in (None, tmp_path):
        monkeypatch.setattr(registry, "project_root", lambda root=root: root)
        with pytest.raises(ConfigError, match="drawn by companion/ of a checkout, and there is none"):
            registry.load_figures()
