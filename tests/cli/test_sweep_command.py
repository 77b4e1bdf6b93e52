"""``mmsa-lib sweep``: what it prints, its exit codes, and that mistakes are one line."""

import json
import re

import pytest
from sweep_files import executions, write_notebook, write_sweep

from mmsa_lib.cli import main


@pytest.fixture
def folder(tmp_path):
    write_notebook(tmp_path / "tiny.ipynb", "if name == 'bad':\n    raise ValueError('no luck')")
    return tmp_path


def command(folder, *arguments):
    return main(["sweep", str(folder / "s.yaml"), "--runs", str(folder / "runs"), *arguments])


def test_a_dry_run_lists_every_point_and_executes_nothing(folder, capsys):
    write_sweep(folder / "s.yaml", ablations={"full": {}, "flat": {"rate": 0.0}}, seeds=[1, 2])
    assert command(folder, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all("missing" in line for line in lines[:4])
    assert lines[2].endswith("flat rate=0.0 seed=1")
    assert lines[-1] == "4 points, 4 to run"
    assert not (folder / "runs").exists()
    assert command(folder, "--dry-run", "--only", "flat", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["to_run"] == 2
    assert [point["ablation"] for point in facts["points"]] == ["flat", "flat"]
    assert facts["points"][0]["parameters"] == {"rate": 0.0, "seed": 1}


def test_a_sweep_prints_its_summary_and_exits_with_1_where_a_point_failed(folder, capsys):
    marks = folder / "marks"
    write_sweep(folder / "s.yaml", parameters={"marks": str(marks)}, grid={"name": ["good", "bad"]})
    assert command(folder, "--cold", "--workers", "1") == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("s.yaml: 1 ran, 1 failed")
    assert "cell 4 (`if name == 'bad':`): ValueError: no luck" in captured.out
    assert "[1/2] ok" in captured.err
    assert "[2/2] FAILED name=bad" in captured.err

    assert command(folder, "--json", "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    facts = json.loads(captured.out)
    assert [point["outcome"] for point in facts["points"]] == ["finished before", "failed"]
    assert facts["points"][1]["cell"] == 4
    assert facts["ok"] is False
    assert len(executions(marks)) == 2

    assert command(folder, "--only", "name=good") == 0
    assert capsys.readouterr().out.startswith("s.yaml: 1 finished before")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"parameters": {"raet": 1}}, [], "did you mean rate"),
        ({"grid": {"rate": ["fast"]}}, [], "parameter 'rate' cannot be 'fast'"),
        ({"seed": [1]}, [], "did you mean seeds"),
        ({"notebook": "none.ipynb"}, [], "none"),
        ({}, ["--only", "name=x"], "unknown part of this sweep"),
        ({}, ["--shard", "1"], "--shard 1 must read K/N"),
        ({}, ["--shard", "2/2"], "shard 2/2 does not exist"),
        ({}, ["--workers", "0"], "at least 1"),
        ({}, ["--resources", "GPU=1"], "--resources belongs to --executor dask"),
        ({}, ["--executor", "dask", "--resources", "GPU=no"], "GPU=no must be a positive number"),
        ({}, ["--executor", "dask", "--cluster", "slrum"], "did you mean slurm"),
        ({}, ["--executor", "dask", "--cluster-option", "queue"], "--cluster-option"),
        ({}, ["--executor", "dsak"], "invalid choice"),
        ({}, ["--emit-slurm", "x.sh", "--sbatch=gpu"], "is no option of sbatch"),
        ({}, ["--emit-slurm", "x.sh", "--shard", "0/2"], "--shard has no effect on an array script"),
        ({}, ["--emit-slurm", "x.sh", "--executor", "dask"], "--executor dask has no effect on an array script"),
        ({}, ["--executor", "slurm-script", "--workers", "2"], "--workers has no effect on an array script"),
        ({}, ["--emit-slurm", "x.sh", "--resources", "GPU=1"], "--resources has no effect on an array script"),
        ({}, ["--tasks", "0"], "--tasks belongs to --executor slurm-script"),
        ({}, ["--emit-slurm", "x.sh", "--tasks", "0"], "tasks must be at least 1"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, capsys, monkeypatch, content, arguments, message):
    monkeypatch.chdir(folder)
    write_sweep(folder / "s.yaml", **content or {"seeds": [1, 2]})
    assert command(folder, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (folder / "x.sh").exists()
    assert not (folder / "runs").exists()


def test_data_that_are_not_built_are_named_with_their_command(folder, capsys, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(folder))
    write_sweep(folder / "s.yaml", notebook="06_train", grid={"dataset": ["mosi", "mmmo"]})
    assert command(folder) == 2
    assert re.search("mmsa-lib data build mosi; .*mmsa-lib data build mmmo", capsys.readouterr().err)
    assert command(folder, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "needed first: data set 'mosi' is not built" in out
    assert "needed first: data set 'mmmo' is not built" in out
