"""``mmsa-lib data``: answers, exit codes, one line for each mistake, nothing left behind."""

import json
import pickle
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from mmsa_lib.cli import main
from mmsa_lib.data import sources
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.store import Frames, read_store, write_store
from mmsa_lib.data.task import regression


def small(name="mine", seed=0):
    values = np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)
    audio = FeatureSet("audio", values, np.ones(6, int), np.ones(6, bool), level="utterance")
    return DatasetRecord(
        name=name,
        task=regression((-3, 3)),
        ids=[f"v{i}_1" for i in range(6)],
        groups=[f"v{i}" for i in range(6)],
        labels=np.array([-2, 0, 1, 2, -1, 3], np.float32),
        folds={"standard": np.array(["train", "train", "train", "valid", "test", "test"])},
        features={"audio": audio},
        defaults={"*": {"audio": "audio"}},
        terms="Ask the owner.",
        repairs={"audio: -inf set to 0": 3},
        notes=["official file recognised"],
    )


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("MMSA_LIB_MIRROR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def say(capsys):
    """Run a command line: exit code, stdout, stderr."""

    def run(*words):
        code = main(["data", *map(str, words)])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def reader(monkeypatch):
    """Stands in for a reader of an official layout; remembers how it was called."""
    calls = []

    def read(path, name, *, task=None):
        calls.append((path, name, task))
        return small(name, seed=len(path.read_text()))

    monkeypatch.setitem(sys.modules, "mmsa_lib.data.sources.mmsa_pickle", SimpleNamespace(read=read))
    return calls


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".registry.lock")


def assert_one_line(answer, *parts):
    assert answer.code == 2
    assert answer.err.startswith("mmsa-lib: error: ")
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    for part in parts:
        assert part in answer.err


def test_list_tells_built_imported_generated_and_gone(say, home, tmp_path):
    write_store(small("mosi"), home / "stores" / "mosi.h5")
    write_store(small(), home / "stores" / "mine.h5")
    (home / "registry.json").write_text(json.dumps({"lost": str(tmp_path / "lost.h5")}))
    answer = say("list", "--json")
    states = {row["name"]: row["state"] for row in json.loads(answer.out)["datasets"]}
    assert answer.code == 0
    assert states["synthetic"] == "generated"
    assert (states["mosi"], states["mine"], states["lost"], states["mmmo"]) == (
        "built",
        "imported",
        "gone",
        "not built",
    )
    assert "mine" in say("list").out


def test_info_shows_folds_classes_and_terms(say, home, monkeypatch):
    monkeypatch.setattr(Frames, "read", None)  # a store may be larger than memory
    write_store(small(), home / "stores" / "mine.h5")
    text = say("info", "mine").out
    assert "test   2 samples, 2 videos; negative 1, neutral 0, positive 1" in text
    assert "audio, 4 per utterance" in text
    assert "Ask the owner." in text
    assert "audio: -inf set to 0: 3" in text
    found = json.loads(say("info", "mine", "--json").out)
    assert found["folds"]["standard"]["train"]["classes"] == {"negative": 1, "neutral": 1, "positive": 1}
    assert found["fingerprint"] in text


def test_info_and_check_know_the_generated_set(say):
    assert "planted_text: text, 300 per word" in say("info", "synthetic").out
    answer = say("check", "synthetic")
    assert answer.code == 0
    assert "synthetic: 0 errors" in answer.out


def test_check_is_0_with_warnings_and_2_with_errors(say, home):
    path = home / "stores" / "mine.h5"
    record = small()
    record.groups[5] = "v0"
    write_store(record, path)
    answer = say("check", "mine")
    assert answer.code == 0
    assert answer.out.startswith("warning: folds/standard: 1 videos have samples in both train and test")
    with h5py.File(path, "r+") as file:
        file["features/audio/values"][1, 2] = np.nan
    answer = say("check", path, "--json")
    assert answer.code == 2
    found = json.loads(answer.out)
    assert found["errors"] == 2
    assert {problem["where"] for problem in found["problems"]} == {"fingerprint", "features/audio"}
    assert answer.err.endswith("(and 1 more)\n")
    assert "sample 'v1_1'" in say("check", path).out


@pytest.fixture
def builds(monkeypatch):
    """Replaces the building of the public sets; counts how often it happens."""
    calls = []

    def build(name, mirror=None, progress=True):
        calls.append((name, mirror, progress))
        return small(name)

    monkeypatch.setattr(sources, "build", build)
    return calls


def test_build_writes_once_shows_the_terms_and_does_nothing_the_second_time(say, home, builds, tmp_path):
    answer = say("build", "mosi", "--mirror", tmp_path, "--quiet")
    assert answer.code == 0
    assert builds == [("mosi", tmp_path, False)]
    assert answer.err.count("terms of mosi") == 1
    assert files(home) == ["mosi.h5"]
    again = say("build", "mosi")
    assert "mosi is up to date" in again.out
    assert again.err == ""
    assert len(builds) == 1
    say("build", "mosi", "--force")
    assert len(builds) == 2


def test_build_replaces_a_damaged_store(say, home, builds):
    say("build", "mosi")
    sound = (home / "stores" / "mosi.h5").read_bytes()
    (home / "stores" / "mosi.h5").write_bytes(sound[:-300])
    answer = say("build", "mosi")
    assert "building mosi again:" in answer.err
    assert (home / "stores" / "mosi.h5").read_bytes() == sound


def test_build_replaces_a_store_of_another_release(say, home, builds):
    say("build", "mosi")
    with h5py.File(home / "stores" / "mosi.h5", "r+") as file:
        file.attrs["library"] = "0.0.1"
    assert "written by mmsa_lib 0.0.1" in say("build", "mosi").err
    assert len(builds) == 2


def test_build_elsewhere_is_found_by_name_afterwards(say, builds, tmp_path):
    found = json.loads(say("build", "mosi", "--out", tmp_path / "there", "--json").out)
    assert found["path"] == str(tmp_path / "there" / "mosi.h5")
    assert (found["result"], found["samples"]) == ("built", 6)
    assert store_path("mosi") == tmp_path / "there" / "mosi.h5"


def test_build_of_the_generated_set_writes_a_store(say, home):
    answer = say("build", "synthetic")
    assert answer.code == 0
    assert read_store(home / "stores" / "synthetic.h5").name == "synthetic"


def test_import_stores_reports_repairs_and_registers(say, home, reader, tmp_path):
    (tmp_path / "aligned.pkl").write_text("x")
    answer = say("import", "mmsa", tmp_path / "aligned.pkl", "--name", "mine")
    assert answer.code == 0
    assert "audio: -inf set to 0: 3" in answer.out
    assert "official file recognised" in answer.out
    assert reader == [(tmp_path / "aligned.pkl", "mine", None)]
    assert read_store(store_path("mine")).repairs == {"audio: -inf set to 0": 3}
    elsewhere = json.loads(
        say("import", "mmsa", tmp_path / "aligned.pkl", "--name", "other", "--out", tmp_path / "there", "--json").out
    )
    assert store_path("other") == tmp_path / "there" / "other.h5"
    assert elsewhere["repairs"] == {"audio: -inf set to 0": 3}


def official_pickle(path, copies=0):
    """A file in the layout of MulT; the first ``copies`` test recordings repeat training recordings."""
    generator = np.random.default_rng(0)

    def split(count):
        widths = {"text": 6, "audio": 4, "vision": 3}
        arrays = {name: generator.normal(size=(count, 5, width)) for name, width in widths.items()}
        return {**arrays, "labels": generator.uniform(-3, 3, (count, 1, 1))}

    parts = {"train": split(8), "valid": split(3), "test": split(4)}
    for name in ("audio", "vision"):
        parts["test"][name][:copies] = parts["train"][name][:copies]
    parts["train"]["audio"][4, 2, 1] = -np.inf
    path.write_bytes(pickle.dumps(parts))


def test_import_of_an_official_layout_from_end_to_end(say, tmp_path):
    official_pickle(tmp_path / "mosi_data.pkl")
    found = json.loads(say("import", "mult", tmp_path / "mosi_data.pkl", "--name", "mine", "--json").out)
    assert found["repairs"]["audio: -inf set to 0"] == 1
    assert found["folds"]["standard"]["valid"]["samples"] == 3
    assert say("check", "mine").code == 0


def test_import_says_at_once_what_check_will_find(say, tmp_path):
    official_pickle(tmp_path / "mosi_data.pkl", copies=2)
    answer = say("import", "mult", tmp_path / "mosi_data.pkl", "--name", "mine")
    assert answer.code == 0
    assert "error: folds/standard: 2 recordings are in both train and test" in answer.err
    assert say("check", "mine").code == 2


def test_import_passes_the_task_on(say, reader, tmp_path):
    (tmp_path / "a.pkl").write_text("x")
    say("import", "mmsa", tmp_path / "a.pkl", "--name", "a", "--range", "-1", "1")
    say("import", "mmsa", tmp_path / "a.pkl", "--name", "b", "--emotions", "happy", "sad")
    say("import", "mmsa", tmp_path / "a.pkl", "--name", "c", "--range", "0", "10", "--metrics", "mosi")
    tasks = [task for _, _, task in reader]
    assert (tasks[0].range, tasks[0].metrics) == ((-1.0, 1.0), "sims")
    assert tasks[1].names == ("happy", "sad")
    assert (tasks[2].range, tasks[2].metrics) == ((0.0, 10.0), "mosi")


def test_import_does_not_overwrite_another_data_set_unasked(say, reader, tmp_path):
    (tmp_path / "a.pkl").write_text("x")
    (tmp_path / "b.pkl").write_text("another")
    say("import", "mmsa", tmp_path / "a.pkl", "--name", "mine")
    before = store_path("mine").read_bytes()
    assert say("import", "mmsa", tmp_path / "a.pkl", "--name", "mine").code == 0  # the same content again
    assert_one_line(say("import", "mmsa", tmp_path / "b.pkl", "--name", "mine"), "another data set 'mine'", "--force")
    assert store_path("mine").read_bytes() == before
    assert say("import", "mmsa", tmp_path / "b.pkl", "--name", "mine", "--force").code == 0
    assert store_path("mine").read_bytes() != before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("left"), "a.pkl can't be read (KeyError: 'left'); please report this"),
        (IndexError("two\nlines"), "IndexError: two lines"),
        (MemoryError(), "a.pkl: not enough memory to read it"),
        (RecursionError("deep"), "a.pkl: something in it is nested too deeply"),
    ],
)
def test_what_no_reader_foresaw_is_one_line(say, home, reader, monkeypatch, error, said):
    def read(path, name, *, task=None):
        raise error

    monkeypatch.setattr(sys.modules["mmsa_lib.data.sources.mmsa_pickle"], "read", read)
    assert_one_line(say("import", "mmsa", "a.pkl", "--name", "mine"), said)
    assert files(home) == []


def test_import_warns_of_what_was_not_read(say, tmp_path):
    official_pickle(tmp_path / "a.pkl")
    parts = pickle.loads((tmp_path / "a.pkl").read_bytes())
    parts["test"]["gaze"] = parts["info"] = 1
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(parts))
    answer = say("import", "mult", tmp_path / "a.pkl", "--name", "mine")
    assert answer.code == 0
    assert "warning: not read: gaze, info\n" in answer.err


def test_import_cuts_a_validation_split_when_asked(say, tmp_path):
    official_pickle(tmp_path / "a.pkl")
    parts = pickle.loads((tmp_path / "a.pkl").read_bytes())
    del parts["valid"]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(parts))
    assert_one_line(say("import", "mult", tmp_path / "a.pkl", "--name", "mine"), "--cut-valid 0.1")
    answer = say("import", "mult", tmp_path / "a.pkl", "--name", "mine", "--cut-valid", "0.25", "--json")
    assert json.loads(answer.out)["folds"]["standard"]["valid"]["samples"] == 2
