"""Bad input from end to end: one clear line on stderr, exit code 2, stdout empty, nothing new or half written."""

import errno
import os
import pickle
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mmsa_lib import files as library_files
from mmsa_lib.cli import COMMANDS, main
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.store import write_store
from mmsa_lib.data.task import regression

COUNTS = {"train": 6, "valid": 3, "test": 3}
COUNT = sum(COUNTS.values())
QUICK = ("--set", "max_epochs=1", "--device", "cpu", "--quiet")

BEGINNINGS = """
data: | lits | list x | info mosi | info synthetik | check mosi | masks mien | masks synthetic --protocols fames
data: masks synthetic --split tets
data build: mosi --mirror nofile | mosi --mirror '' | synthetic --out '' | MOSI | ''
data import mmsa: | table.csv | table.csv --name 'a b' | table.csv --name x --range nan 3
data import mmsa: table.csv --name x --range a b | table.csv --name x --range -3 3 --emotions a
data import mmsa: table.csv --name x --out ''
train: '' | hrlf extra | hrlf --missing stochastic | constant --seeds 3 | constant --device cpu
train early_fusion: --dataset '' | --fold '' | --seeds 4294967296 | --device '' | --device cuda:-1 | --device cpu:99
train early_fusion: --runs '' | --runs table.csv/x --set max_epochs=1 samples=[9,9,9] --quiet
train early_fusion: --protocols frames,subsets
train early_fusion --set: '' | =1 | hidden= | hidden=1.5 | hidden=true | hidden=0 | hidden=[1] | hidden={}
train early_fusion --set: hidden=1 config.hidden=2 | confg.hidden=1 | learning_rate=nan | learning_rate=1e400
train early_fusion --set: dropout=2 | batch_size=true | batch_size=99999999999999999999999 | max_epochs=0
train early_fusion --set: precision=float16 | bucket=maybe | seed=1 | text_model=nope/nope | data.text=tokens
train early_fusion --set: samples=[1] | samples=[0,0,0] | samples=[true,2,3] | length=999999999 | data.seed=true
train early_fusion --set: max_length=true | audio=nope
extract: '' | nofile.mp4 | table.csv --fps nan | table.csv --vision all | folder --transcript no | table.csv --out ''
predict: | '' | nope --split tets | nope --out ''
results table: | table.csv | folder | table.csv --by | folder --level '' | folder --resamples 99999999999
results table: folder --json --out x.csv | folder --runs nofile | folder --intervals item
results compare folder: | --reference '' | --reference x --alpha x
results export folder: | x.pdf | '' | x.tex --summary
figures: nope | '' | --format jpg | --format pdf | --format svg | list nope | --check --format pdf --out x | x --json
methods: | info nope
notebooks: | run '' | run 00 --profile fast | run 00 --jobs x | run 00 --set x
sweep: | nofile | folder | table.csv | table.csv --shard a/b | table.csv --executor dsk | table.csv --cluster slurm
sweep: table.csv --resources GPU=1 | table.csv --tasks 3 | table.csv --runs ''
demo: x | --port x | --port -1 | --runs | --runs ''
doctor: x
"""
BEGINNINGS = [line.split(":", 1) for line in BEGINNINGS.strip().splitlines()]
"""Beginnings of command lines, and wrong ends of each."""

SAID = """
--nope -> required: COMMAND
trian -> invalid choice: 'trian'
data info mien -> unknown data set 'mien'; did you mean
data info moosi -> did you mean mosi
data info mosi -> not built; run: mmsa-lib data build mosi
data check there/none.h5 -> there/none.h5 is not a file
data build mosy -> did you mean mosi
data import mmsa table.csv -> --name
data import msa table.csv --name x -> invalid choice: 'msa'
data import mmsa table.csv --name ../x -> can't name a data set
data import mmsa table.csv --name mosi -> built in; choose another
data import mmsa table.csv --name x --range 1 1 -> low < high
data import mmsa table.csv --name x --metrics mosi -> --metrics needs --range
data import mfn folder --name x --cut-valid 0.25 -> --cut-valid is for pickles
train -> METHOD
train self_m -> did you mean self_mm?
train Self-MM -> did you mean self_mm?
train early_fusion --dataset mosy -> unknown data set 'mosy'; did you mean
train early_fusion --fold standrad -> unknown fold of synthetic 'standrad'; did you mean standard
train early_fusion --seeds 1.5 -> invalid int value
train early_fusion --seeds -1 -> seed=-1
train early_fusion --set device=cpu --device cpu -> given twice
train early_fusion --set lerning_rate=1 -> did you mean learning_rate
train early_fusion --set patience=never -> config.patience='never'
train early_fusion --device gpu -> device='gpu'
train early_fusion --missing stochastc -> unknown missing recipe 'stochastc'; did you mean stochastic?
train early_fusion --protocols frames subset -> unknown protocol 'subset'; did you mean subsets
train early_fusion --metrics -> expected at least one argument
train early_fusion --metrics '' -> argument --metrics: is empty
predict demo --text '' -> argument --text: is empty
train early_fusion --metrics mea -> unknown metric 'mea'; did you mean mae
train early_fusion --metrics mae --set task=emotions -> unknown metric 'mae'
train constant --oracle -> not trained
train constant --runs runs -> not trained
train constant --set a=1 -> no settings
train constant --protocols frames -> changes no constant
train constant --metrics mea -> unknown metric 'mea'
train early_fusion --dataset mine.h5 --fold standrad -> did you mean standard?
train early_fusion --dataset mine.h5 --set data.audio=audoi -> did you mean audio?
train early_fusion --dataset mine.h5 --set data.text=wrods -> did you mean words
train early_fusion --dataset mine.h5 --set hiden=3 -> did you mean hidden
train early_fusion --dataset mine.h5 --set data.text=words -> no transcripts
train early_fusion --dataset mine.h5 --set text=null audio=null -> nothing of mine is left
train text_only --dataset mine.h5 --set text=null -> text_only uses text; the data has audio
train modal_alignment --dataset mine.h5 --set text=null -> only audio
predict nope -> no finished run
predict mine.h5 -> is no finished run
demo --port 99999999 -> is no port
demo --runs folder -> no finished run
results table nofile -> no finished run in nofile
results table folder --resamples 0 -> outside [1, 1,000,000]
results table folder --out x.pdf -> suffix of
results table mine.h5 -> can't be read as a table
figures --check ablations -> leave the names out
methods info constant -> unknown method 'constant'
notebooks run nope -> unknown notebook
""".strip().splitlines()
"""A wrong command line, and what the answer must say."""

FILES = ["nofile", "folder", "empty", "random", "dangling", "loop", "é/ü", "x" * 5000, "table.csv/x", "a\nb", "\udcff"]
FILES += ["pipe"] if hasattr(os, "mkfifo") else []
READERS = ["data info", "data check", "train early_fusion --dataset", "predict", "results table", "sweep --dry-run"]
READERS += [f"data import {layout} --name x" for layout in ("mmsa", "mult", "mag", "mfn", "table")]
"""Commands that take the path of a file last."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MMSA_LIB_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "random").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    if "pipe" in FILES:
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(mmsa_tree()))
    write_store(record(), tmp_path / "mine.h5")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "mine.h5"


@pytest.fixture
def refused(capfd, tmp_path):
    """Run a command line that must be refused: its one line. Nothing new may lie anywhere, and stdout stays empty."""

    def run(*words, report=False):
        before = files_below(tmp_path)
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert (code, bool(out)) == (2, report), err
        assert err.startswith("mmsa-lib: error: ")
        assert err.count("\n") == 1
        assert len(err) < 2100
        assert "Traceback" not in err
        assert "unexpectedly" not in err
        assert files_below(tmp_path) == before
        return err

    return run


def files_below(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return {name for name in found if not name.endswith(".lock")}


@pytest.mark.parametrize("line", [f"{head} {end}" for head, ends in BEGINNINGS for end in ends.split(" | ")] + SAID)
def test_a_wrong_line(line, refused):
    words, _, said = line.partition(" -> ")
    assert said in refused(*shlex.split(words))


def test_every_command_has_a_wrong_line():
    assert {line.split()[0] for line in SAID} | {head.split()[0] for head, _ in BEGINNINGS} >= set(COMMANDS)


@pytest.mark.parametrize("file", FILES, ids=ascii)
@pytest.mark.parametrize("command", READERS)
def test_a_path_that_is_no_good_file(command, file, refused):
    words = command.split()
    refused(*words[:3], file, *words[3:]) if words[1:2] == ["import"] else refused(*words, file)


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


def test_the_store_of_these_tests_is_good(store, capfd):
    assert main(["data", "check", str(store)]) == 0
    assert main(["train", "early_fusion", "--dataset", str(store), *QUICK]) == 0
    assert "constant_mean" in capfd.readouterr().out


def set_value(name, row, value):
    def change(file):
        file[name][row] = value

    return change


DAMAGE = {
    "not a number": (set_value("features/audio/values", 3, np.nan), "NaN or infinite values, first in sample 'v1_1'"),
    "label out of range": (set_value("labels", 2, 17), "labels are outside [-3, 3], first 17 of sample 'v2_1'"),
    "fold missing": (lambda file: file.__delitem__("folds"), "there is no fold"),
    "lengths": (set_value("features/audio/lengths", 0, 3), "lengths add up to 25, values have 24 rows"),
    "labels missing": (lambda file: file.__delitem__("labels"), "mine.h5 is damaged"),
}
"""Of each kind of damage one; all are in tests/data/test_store.py."""


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


class Code:
    """Pickled, it asks for a system command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


TREES = {
    "code": (lambda tree: tree["train"].update(audio=Code()), "refused to load, because the pickle asks for"),
    "split missing": (lambda tree: tree.pop("valid"), "split valid is missing"),
    "unequal": (lambda tree: tree["train"].update(audio=np.zeros((5, 4, 4))), "[train] audio: 5 rows for 6 samples"),
    "field missing": (lambda tree: tree["train"].pop("id"), "field 'id' is missing"),
    "label": (lambda tree: tree["train"]["regression_labels"].__setitem__(1, 9), "label 9 of sample"),
}
"""Of each kind of mistake one; all are in tests/data/sources."""


@pytest.mark.parametrize("name", TREES)
def test_a_pickle_that_cannot_be_imported(name, tmp_path, refused):
    change, reason = TREES[name]
    tree = mmsa_tree()
    change(tree)
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(tree))
    assert reason in refused("data", "import", "mmsa", "file.pkl", "--name", "new")


def test_another_layout_than_the_one_that_is_named(refused):
    assert "this looks like the MMSA layout" in refused("data", "import", "mult", "good.pkl", "--name", "new")


@pytest.mark.parametrize(("size", "reason"), [(900, "cut short"), (0, "is empty")])
def test_a_file_that_is_no_whole_pickle(size, reason, tmp_path, refused):
    (tmp_path / "file.pkl").write_bytes((tmp_path / "good.pkl").read_bytes()[:size])
    assert reason in refused("data", "import", "mmsa", "file.pkl", "--name", "new")


def test_originals_with_a_wrong_checksum(tmp_path, refused):
    folder = tmp_path / "mirror" / "ch-sims-text" / "original" / "sims"
    folder.mkdir(parents=True)
    assert "label.npz is missing in the mirror" in refused("data", "build", "sims_text", "--mirror", "mirror")
    for name in ("label.npz", "transcription-engchi-polish.csv"):
        (folder / name).write_bytes(b"something else")
    line = refused("data", "build", "sims_text", "--mirror", "mirror")
    assert "wrong checksum, expected " in line
    assert "ch-sims-text" in line


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
    line = refused(*words.split(), *(QUICK if words.startswith("train") else ()))
    assert "blocked" in line
    assert "choose another folder" in line


def test_a_store_that_cannot_be_registered_is_not_left_behind(tmp_path, monkeypatch, refused):
    (tmp_path / "blocked").write_text("")
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
