"""companion/ is found beside the library and is no part of it; each committed figure shows the numbers of its table."""

import tomllib
from pathlib import Path

import pandas as pd
import pytest
from setuptools import find_packages

import companion
from mmsa_lib.errors import ConfigError
from mmsa_lib.figures import registry
from mmsa_lib.figures.style import style
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


FIGURES = registry.load_figures()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_the_numbers_that_are_committed_beside_it(name):
    entry = FIGURES[name]
    with style():
        drawn = entry.draw(*(registry.read_source(ROOT / source, name) for source in entry.sources))
    picture, numbers = drawn if isinstance(drawn, tuple) else (drawn, None)
    assert all(axis.has_data() for axis in picture.axes)
    committed = ROOT / "figures" / f"{name}.csv"
    assert committed.is_file() == (numbers is not None)
    if numbers is not None:
        again = pd.read_csv(committed)
        assert list(again) == list(numbers)
        for column in again.dropna(axis=1, how="all").select_dtypes("number"):
            assert again[column].tolist() == pytest.approx(
                numbers[column].astype(float).tolist(), rel=1e-6, nan_ok=True
            )


def test_every_figure_has_a_title_and_every_committed_file_a_figure():
    assert all(entry.title for entry in FIGURES.values())
    kinds = {".svg", ".png", ".csv", ".json"}
    assert {path.stem for path in (ROOT / "figures").iterdir() if path.suffix in kinds} == set(FIGURES)
