"""Folders are found, or one line says which variable names them."""

from pathlib import Path

import pytest

from mmsa_lib import paths
from mmsa_lib.errors import ConfigError

VARIABLES = ("MMSA_LIB_DATA", "MMSA_LIB_RUNS", "MMSA_LIB_MASKS", "XDG_CACHE_HOME")


@pytest.fixture
def no_home(monkeypatch):
    """A wheel, run by a user number without an entry in the list of users."""

    def none(*_):
        raise RuntimeError("Could not determine home directory.")

    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(paths, "project_root", lambda: None)
    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setattr(Path, "expanduser", lambda path: none() if str(path).startswith("~") else path)


@pytest.mark.parametrize("folder", [paths.data_root, paths.stores_folder, paths.masks_folder, paths.runs_folder])
def test_without_a_home_folder_the_variable_is_named(no_home, monkeypatch, tmp_path, folder):
    with pytest.raises(ConfigError, match="no home folder; set MMSA_LIB_DATA"):
        folder()
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    assert folder().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("variable", "folder"),
    list(zip(VARIABLES, (paths.data_root, paths.runs_folder, paths.masks_folder), strict=False)),
)
def test_a_variable_that_needs_a_home_folder_is_named(no_home, monkeypatch, variable, folder):
    monkeypatch.setenv(variable, "~/data")
    with pytest.raises(ConfigError, match=f"{variable}=~/data: there is no such home folder; give a full path"):
        folder()
