"""Bad input from end to end: one clear line on stderr, exit code 2, nothing half written."""

import errno
import json
import os
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mmsa_lib import files as library_files
from mmsa_lib.cli import main
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.store import write_store
from mmsa_lib.data.task import regression

COUNTS = {"train": 6, "valid": 3, "test": 3}
COUNT = sum(COUNTS.values())
QUICK = ("--set", "max_epochs=1", "--device", "cpu", "--quiet")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MMSA_LIB_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def refused(capfd, tmp_path):
    """Run a command line that must be refused: its one line. Nothing new may lie anywhere, and stdout stays empty."""

    def run(*words, report=False, new=()):
        before = files_below(tmp_path)
        assert main([str(word) for word in words]) == 2
        out, err = capfd.readouterr()
        assert err.startswith("mmsa-lib: error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert bool(out) is report
        assert files_below(tmp_path) - before == set(new)
        return err

    return run


def files_below(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".lock")}


def record():
    generator = np.random.default_rng(0)
    sets = {
        name: FeatureSet(
            name, generator.normal(size=(2 * COUNT, width)).astype("f4"), np.full(COUNT, 2), np.ones(2 * COUNT, bool),
            level="frame",
        )
        for name, width in (("text", 5), ("audio", 4))
    }  # fmt: skip
    return DatasetRecord(
        name="mine",
        task=regression((-3, 3)),
        ids=[f"v{i}_1" for i in range(COUNT)],
        groups=[f"v{i}" for i in range(COUNT)],
        labels=np.linspace(-2.5, 2.5, COUNT).astype(np.float32),
        folds={"standard": np.repeat(list(COUNTS), list(COUNTS.values()))},
        features=sets,
        defaults={"*": {"text": "text", "audio": "audio"}},
    )


@pytest.fixture
def store(tmp_path):
    write_store(record(), tmp_path / "mine.h5")
    return tmp_path / "mine.h5"


def test_the_store_of_these_tests_is_good(store, capfd):
    assert main(["data", "check", str(store)]) == 0
    assert main(["train", "early_fusion", "--dataset", str(store), *QUICK]) == 0
    assert "constant_mean" in capfd.readouterr().out


def replace_dataset(file, name, values):
    del file[name]
    file[name] = values


def set_value(name, row, value):
    def change(file):
        file[name][row] = value

    return change


DAMAGE = {
    "not a number": (set_value("features/audio/values", 3, np.nan), "NaN or infinite values, first in sample 'v1_1'"),
    "infinite": (set_value("features/text/values", 3, np.inf), "NaN or infinite values, first in sample 'v1_1'"),
    "label out of range": (set_value("labels", 2, 17), "labels are outside [-3, 3], first 17 of sample 'v2_1'"),
    "label missing": (set_value("labels", 2, np.nan), "first nan of sample 'v2_1'"),
    "split missing": (
        lambda file: replace_dataset(file, "folds/standard", np.array([b"train"] * 9 + [b"test"] * 3)),
        "no sample in valid",
    ),
    "fold missing": (lambda file: file.__delitem__("folds"), "there is no fold"),
    "too few labels": (
        lambda file: replace_dataset(file, "labels", file["labels"][:-2]),
        "shape (10,), expected (12,)",
    ),
    "lengths": (set_value("features/audio/lengths", 0, 3), "lengths add up to 25, values have 24 rows"),
    "labels of text": (lambda file: replace_dataset(file, "labels", np.array([b"a"] * COUNT)), "labels: holds values"),
    "features of text": (
        lambda file: replace_dataset(file, "features/audio/values", np.array([[b"a"] * 4] * 24)),
        "features/audio: values are of type",
    ),
    "features without width": (
        lambda file: replace_dataset(file, "features/audio/values", np.zeros(24, "f4")),
        "(24,), expected (frames, width)",
    ),
    "labels missing": (lambda file: file.__delitem__("labels"), "mine.h5 is damaged"),
    "task missing": (lambda file: file.attrs.__delitem__("task"), "mine.h5 is damaged"),
    "defaults of another kind": (lambda file: file.attrs.__setitem__("defaults", "[1]"), "mine.h5 is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store(name, store, refused):
    change, reason = DAMAGE[name]
    with h5py.File(store, "r+") as file:
        change(file)
    assert reason in refused("data", "info", store)
    assert reason in refused("train", "early_fusion", "--dataset", store, "--json", *QUICK)
    unreadable = "is damaged" in reason
    line = refused("data", "check", store, "--json", report=not unreadable)
    assert str(store) in line
    assert reason in line


CONTENTS = {
    "truncated": (lambda whole: whole[:-300], "is truncated"),
    "very short": (lambda whole: whole[:900], "is truncated"),
    "empty": (lambda whole: b"", "is empty"),
    "of another kind": (lambda whole: b"id,label\n", "is not an HDF5 file"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("command", [["data", "check"], ["data", "info"], ["train", "early_fusion", "--dataset"]])
def test_a_file_that_is_no_whole_store(name, command, store, refused):
    change, reason = CONTENTS[name]
    store.write_bytes(change(store.read_bytes()))
    line = refused(*command, store)
    assert f"{store} {reason}" in line
    assert "build or import the data set again" in line


def mmsa_tree():
    generator = np.random.default_rng(1)

    def split(name, count):
        arrays = {m: generator.normal(size=(count, 4, w)) for m, w in (("text", 5), ("audio", 4), ("vision", 3))}
        ids = np.array([f"{name}{i}$_$0" for i in range(count)])
        return {**arrays, "id": ids, "regression_labels": generator.uniform(-3, 3, count)}

    return {name: split(name, count) for name, count in COUNTS.items()}


def mult_tree():
    generator = np.random.default_rng(1)

    def split(count):
        arrays = {m: generator.normal(size=(count, 4, w)) for m, w in (("text", 5), ("audio", 4), ("vision", 3))}
        return {**arrays, "labels": np.eye(2)[generator.integers(0, 2, (count, 4))]}

    return {name: split(count) for name, count in COUNTS.items()}


class Code:
    """Pickled, it asks for a system command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def edit(split, key, function):
    def change(tree):
        tree[split][key] = function(tree[split][key])

    return change


def with_value(row, value):
    def change(values):
        values[row] = value
        return values

    return change


TREES = {
    "code": ("mmsa", edit("train", "audio", lambda a: Code()), "refused to load, because the pickle asks for"),
    "split missing": ("mmsa", lambda tree: tree.pop("valid"), "split valid is missing"),
    "unequal numbers": ("mmsa", edit("train", "audio", lambda a: a[:-1]), "[train] audio: 5 rows for 6 samples"),
    "unequal widths": ("mmsa", edit("test", "audio", lambda a: a[..., :2]), "audio: the splits have 2 and 4 features"),
    "label out of range": ("mmsa", edit("train", "regression_labels", with_value(1, 9)), "label 9 of sample"),
    "label missing": ("mmsa", edit("train", "regression_labels", with_value(1, np.nan)), "is nan"),
    "field missing": ("mmsa", lambda tree: tree["train"].pop("id"), "field 'id' is missing"),
    "sample twice": (
        "mmsa",
        edit("test", "id", lambda a: np.array(["train0$_$0", *a[1:]])),
        "id 'train0$_$0' occurs twice",
    ),
    "another layout": ("mult", None, "this looks like the MMSA layout"),
    "emotions differ": ("mult", edit("train", "labels", lambda a: a[:, :3]), "3 and 4 labels per sample"),
    "no 0 or 1": ("mult", edit("train", "labels", lambda a: 5 * a), "entries other than 0 and 1"),
}


@pytest.mark.parametrize("name", TREES)
def test_a_pickle_that_cannot_be_imported(name, tmp_path, refused):
    layout, change, reason = TREES[name]
    tree = mmsa_tree() if layout == "mmsa" or change is None else mult_tree()
    if change is not None:
        change(tree)
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(tree))
    assert reason in refused("data", "import", layout, "file.pkl", "--name", "new")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (pickle.dumps(mmsa_tree())[:900], "cut short"),
        (b"\0" * 90, "did not finish"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_whole_pickle(content, reason, tmp_path, refused):
    if content is not None:
        (tmp_path / "file.pkl").write_bytes(content)
    assert reason in refused("data", "import", "mmsa", "file.pkl", "--name", "new")


def test_originals_with_a_wrong_checksum(tmp_path, refused):
    folder = tmp_path / "mirror" / "ch-sims-text" / "original" / "sims"
    folder.mkdir(parents=True)
    assert "label.npz is missing in the mirror" in refused("data", "build", "sims_text", "--mirror", "mirror")
    for name in ("label.npz", "transcription-engchi-polish.csv"):
        (folder / name).write_bytes(b"something else")
    assert "wrong checksum, expected " in refused("data", "build", "sims_text", "--mirror", "mirror")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("data info mien", "unknown data set 'mien'; did you mean"),
        ("data build mosy", "did you mean mosi"),
        ("train self_m", "did you mean self_mm?"),
        ("train Self-MM", "did you mean self_mm?"),
        ("train early_fusion --dataset mine.h5 --fold standrad", "did you mean standard?"),
        ("train early_fusion --dataset mine.h5 --set data.audio=audoi", "did you mean audio?"),
        ("train early_fusion --dataset mine.h5 --set data.text=wrods", "did you mean words"),
        ("train early_fusion --dataset mine.h5 --set hiden=3", "did you mean hidden"),
        ("train early_fusion --dataset mine.h5 --set data.text=words", "no transcripts"),
        ("train early_fusion --dataset mine.h5 --set text=null audio=null", "nothing of mine is left"),
        ("train text_only --dataset mine.h5 --set text=null", "text_only uses text; the data has audio"),
        ("train modal_alignment --dataset mine.h5 --set text=null", "only audio"),
        ("predict mine.h5", "is no finished run"),
        ("results table runs", "no finished run in runs"),
        ("results table mine.h5", "can't be read as a table"),
    ],
)
def test_names_and_values_that_do_not_fit(words, reason, store, refused):
    assert reason in refused(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "train early_fusion --dataset mine.h5 --runs blocked",
        "data build synthetic --out blocked",
        "data import mmsa good.pkl --name new --out blocked",
        "data import mmsa good.pkl --name new --out blocked/deeper",
    ],
)
def test_a_folder_that_cannot_be_written(words, store, tmp_path, refused):
    # A file stands where the folder should be: refused for every user, while permissions don't stop root.
    (tmp_path / "blocked").write_text("")
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(mmsa_tree()))
    line = refused(*words.split(), *(QUICK if words.startswith("train") else ()))
    assert "blocked" in line
    assert "choose another folder" in line


def test_a_store_that_cannot_be_registered_is_not_left_behind(tmp_path, monkeypatch, refused):
    (tmp_path / "blocked").write_text("")
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(mmsa_tree()))
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "blocked"))
    assert "registry.json" in refused("data", "import", "mmsa", "good.pkl", "--name", "new", "--out", "there")


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full once a file of this name is to be kept."""

    def fill(name):
        replace = os.replace

        def fail(source, target):
            if os.path.basename(target) == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(library_files.os, "replace", fail)

    return fill


def test_a_full_disk_during_build_and_import(tmp_path, full_disk, refused):
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(mmsa_tree()))
    full_disk("new.h5")
    assert "new.h5: No space left" in refused("data", "import", "mmsa", "good.pkl", "--name", "new")
    full_disk("synthetic.h5")
    assert "free space or choose another folder" in refused("data", "build", "synthetic")


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.csv", "model.safetensors", "DONE"])
def test_a_full_disk_during_training_leaves_no_finished_run(name, store, tmp_path, full_disk, capfd):
    full_disk(name)
    assert main(["train", "early_fusion", "--dataset", "mine.h5", *QUICK]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"{name}: No space left on device; free space" in err
    assert not [path for path in tmp_path.rglob("*") if path.name in ("DONE", name) or path.suffix == ".part"]


LIMITED = """
import resource, sys
from mmsa_lib.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
@pytest.mark.parametrize(
    "words", ["data import mmsa good.pkl --name new", "train early_fusion --dataset mine.h5 --runs runs"]
)
def test_a_write_that_the_system_stops_in_the_middle(words, store, tmp_path):
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(mmsa_tree()))
    before = files_below(tmp_path)
    more = QUICK if words.startswith("train") else ()
    done = subprocess.run([sys.executable, "-c", LIMITED, *words.split(), *more], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mmsa-lib: error: cannot write ")
    assert done.stderr.count("\n") == 1
    left = {name.rpartition("/")[2] for name in files_below(tmp_path) - before}
    assert left <= {"config.json", "environment.json", "error.json"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["data", "list"], ["data", "list", "--json"]])
def test_output_that_cannot_be_written(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mmsa_lib", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("mmsa-lib: error: No space left on device")
    assert done.stderr.count("\n") == 1


def test_json_of_a_check_is_one_document(store, capfd):
    with h5py.File(store, "r+") as file:
        file["labels"][2] = 17
    assert main(["data", "check", str(store), "--json"]) == 2
    out, err = capfd.readouterr()
    assert {problem["where"] for problem in json.loads(out)["problems"]} == {"labels", "fingerprint"}
    assert "mine.h5: labels: 1 labels are outside [-3, 3]" in err
    assert err.endswith("(and 1 more)\n")
