"""Command lines that nobody should have to debug: each is refused in one line, with exit code 2 and nothing left."""

import shlex

import pytest

from mmsa_lib.cli import COMMANDS, main

LINES = """
--nope
trian
data
data lits
data list x
data info mosi
data info synthetik
data check mosi
data build mosi --mirror nofile
data build mosi --mirror ''
data build synthetic --out ''
data build MOSI
data build ''
data masks mien
data masks synthetic --protocols fames
data masks synthetic --split tets
data import mmsa
data import mmsa table.csv
data import mmsaa table.csv --name x
data import mmsa table.csv --name 'a b'
data import mmsa table.csv --name ../x
data import mmsa table.csv --name mosi
data import mmsa table.csv --name x --range 1 1
data import mmsa table.csv --name x --range nan 3
data import mmsa table.csv --name x --range a b
data import mmsa table.csv --name x --range -3 3 --emotions a
data import mmsa table.csv --name x --metrics mosi
data import mmsa table.csv --name x --out ''
train
train ''
train self_m
train hrlf extra
train early_fusion --dataset ''
train early_fusion --dataset mosy
train early_fusion --fold ''
train early_fusion --fold standrad
train early_fusion --seeds 1.5
train early_fusion --seeds -1
train early_fusion --seeds 4294967296
train early_fusion --set ''
train early_fusion --set =1
train early_fusion --set hidden=
train early_fusion --set hidden=1.5
train early_fusion --set hidden=true
train early_fusion --set hidden=0
train early_fusion --set hidden=[1]
train early_fusion --set hidden={}
train early_fusion --set hidden=1 config.hidden=2
train early_fusion --set confg.hidden=1
train early_fusion --set learning_rate=nan
train early_fusion --set learning_rate=1e400
train early_fusion --set dropout=2
train early_fusion --set batch_size=true
train early_fusion --set batch_size=99999999999999999999999
train early_fusion --set max_epochs=0
train early_fusion --set precision=float16
train early_fusion --set bucket=maybe
train early_fusion --set device=cpu --device cpu
train early_fusion --set seed=1
train early_fusion --set text_model=nope/nope
train early_fusion --set data.text=tokens
train early_fusion --set samples=[1]
train early_fusion --set samples=[0,0,0]
train early_fusion --set samples=[true,2,3]
train early_fusion --set length=999999999
train early_fusion --set data.seed=true
train early_fusion --set max_length=true
train early_fusion --set audio=nope
train early_fusion --device ''
train early_fusion --device gpu
train early_fusion --device cuda:-1
train early_fusion --device cpu:99
train early_fusion --missing stochastc
train early_fusion --protocols frames,subsets
train early_fusion --runs ''
train early_fusion --runs table.csv/x --set max_epochs=1 samples=[9,9,9] --quiet
train early_fusion --metrics mea
train hrlf --missing stochastic
train constant --oracle
predict
predict ''
predict nope
predict nope --split tets
predict nope --out ''
results table
results table nofile
results table table.csv
results table folder
results table table.csv --by
results table folder --level ''
results table folder --intervals item
results table folder --resamples 0
results table folder --resamples 99999999999
results table folder --runs nofile
results table folder --json --out x.csv
results table folder --out x.pdf
results compare folder
results compare folder --reference ''
results compare folder --reference x --alpha x
results export folder
results export folder x.pdf
results export folder ''
results export folder x.tex --summary
figures nope
figures ''
figures --format jpg
figures --format pdf
figures --check ablations
figures list nope
methods
methods info nope
methods info constant
notebooks
notebooks run nope
notebooks run ''
notebooks run 00 --profile fast
notebooks run 00 --jobs x
notebooks run 00 --set x
sweep
sweep nofile
sweep folder
sweep table.csv
sweep table.csv --shard a/b
sweep table.csv --executor dsk
sweep table.csv --cluster slurm
sweep table.csv --resources GPU=1
sweep table.csv --tasks 3
sweep table.csv --runs ''
doctor x
""".strip().splitlines()

FILES = ["nofile", "folder", "empty", "random", "dangling", "loop", "é/ü", "x" * 5000, "table.csv/x", "a\nb", "\udcff"]
READERS = ["data info", "data check", "train early_fusion --dataset", "predict", "results table", "sweep --dry-run"]
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


@pytest.fixture
def refused(tmp_path, capfd):
    def run(words):
        before = set(tmp_path.rglob("*"))
        code = main(words)
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("mmsa-lib: error: ")
        assert err.count("\n") == 1
        assert len(err) < 2100
        assert "unexpectedly" not in err
        assert set(tmp_path.rglob("*")) == before
        return err

    return run


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_line(line, refused):
    refused(shlex.split(line))


@pytest.mark.parametrize("file", FILES, ids=ascii)
@pytest.mark.parametrize("command", READERS)
def test_a_path_that_is_no_good_file(command, file, refused):
    refused([*command.split(), file])


@pytest.mark.parametrize("file", FILES, ids=ascii)
@pytest.mark.parametrize("layout", ["mmsa", "mult", "mag", "mfn", "table"])
def test_a_file_that_is_no_data_set(layout, file, refused):
    refused(["data", "import", layout, file, "--name", "x"])


def test_every_command_has_a_wrong_line():
    assert {line.split()[0] for line in LINES} >= set(COMMANDS)
