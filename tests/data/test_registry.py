"""Names of data sets lead to files, or to one line that says what to do."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from records import full_record

from mmsa_lib.data import registry
from mmsa_lib.data.store import write_store
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_default_folder_is_looked_through(home):
    write_store(full_record(), home / "stores" / "mine.h5")
    assert registry.store_path("mine") == home / "stores" / "mine.h5"
    assert {"mine", "mosi", "synthetic"} <= set(registry.known_names())


def test_another_folder_can_be_given(home, tmp_path):
    write_store(full_record(), tmp_path / "there" / "mine.h5")
    assert registry.store_path("mine", folder=tmp_path / "there") == tmp_path / "there" / "mine.h5"
    with pytest.raises(UnknownNameError):
        registry.store_path("mine")


def test_a_path_is_taken_as_it_is(tmp_path):
    write_store(full_record(), tmp_path / "mine.h5")
    assert registry.store_path(str(tmp_path / "mine.h5")) == tmp_path / "mine.h5"
    with pytest.raises(DataError, match=r"other\.h5 is not a file"):
        registry.store_path(str(tmp_path / "other.h5"))


def test_unknown_names_are_answered_with_the_nearest(home):
    write_store(full_record(), home / "stores" / "mine.h5")
    with pytest.raises(UnknownNameError, match=r"unknown data set 'mossi'; did you mean mosi"):
        registry.store_path("mossi")
    with pytest.raises(UnknownNameError, match=r"did you mean mine\?"):
        registry.store_path("minee")


def test_what_is_not_built_says_how_to_build_it():
    with pytest.raises(DataError, match="data set 'mosi' is not built; run: mmsa-lib data build mosi"):
        registry.store_path("mosi")
    for name in registry.GENERATED:
        with pytest.raises(ConfigError, match=f"'{name}' is generated when it is loaded"):
            registry.store_path(name)


def test_stores_elsewhere_are_remembered_until_they_are_gone(home, tmp_path):
    write_store(full_record(), tmp_path / "there" / "mine.h5")
    registry.register("mine", tmp_path / "there" / "mine.h5")
    assert json.loads((home / "registry.json").read_text()) == {"mine": str(tmp_path / "there" / "mine.h5")}
    assert registry.store_path("mine") == tmp_path / "there" / "mine.h5"
    (tmp_path / "there" / "mine.h5").unlink()
    with pytest.raises(DataError, match="the store of 'mine' is gone from"):
        registry.store_path("mine")


def test_the_last_entry_wins_over_the_default_folder_and_the_reverse(home, tmp_path):
    registry.register("mine", tmp_path / "there" / "mine.h5")
    write_store(full_record(), home / "stores" / "mine.h5")
    registry.register("mine", home / "stores" / "mine.h5")
    assert json.loads((home / "registry.json").read_text()) == {}
    assert registry.store_path("mine") == home / "stores" / "mine.h5"
    write_store(full_record(), tmp_path / "there" / "mine.h5")
    registry.register("mine", tmp_path / "there" / "mine.h5")
    assert registry.store_path("mine") == tmp_path / "there" / "mine.h5"


def test_many_at_once_lose_no_entry(home, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: registry.register(f"set{i}", tmp_path / f"set{i}.h5"), range(24)))
    assert len(json.loads((home / "registry.json").read_text())) == 24


@pytest.mark.parametrize("content", ["{broken", "[1, 2]", '{"a": 3}'])
def test_a_damaged_registry_is_named(home, content):
    home.mkdir()
    (home / "registry.json").write_text(content)
    with pytest.raises(DataError, match=r"registry\.json .*delete it"):
        registry.known_names()


def test_a_home_that_cannot_be_written_is_named(home, tmp_path):
    home.write_text("I am no folder")
    with pytest.raises(DataError, match=r"cannot write .*MMSA_LIB_DATA"):
        registry.register("mine", tmp_path / "mine.h5")


@pytest.mark.parametrize(
    "name", ["mosi", "synthetic", "", "a/b", "../up", "mine.h5", "-x", "a b", "x" * 65, "con", "NUL", "com1"]
)
def test_names_that_cannot_be_given(name):
    assert registry.check_name("IEMOCAP_aligned-2") == "IEMOCAP_aligned-2"
    with pytest.raises(ConfigError):
        registry.check_name(name)


@pytest.mark.parametrize("command", [["list"], ["info", "synthetic"], ["info", "mine"], ["check", "mine"]])
def test_data_sets_are_listed_and_described_without_torch(home, command):
    write_store(full_record(), home / "stores" / "mine.h5")
    code = f"import sys; from mmsa_lib.cli import main; main(['data', *{command}]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
