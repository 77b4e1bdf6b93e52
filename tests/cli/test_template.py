"""The example of ``data template``: it imports as it is, is filled in, and is never written over unasked."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest

from mmsa_lib.cli import main
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.store import read_store


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    for name in ("DATA", "RUNS"):
        monkeypatch.setenv(f"MMSA_LIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0):
        assert main(list(map(str, words))) == code
        out, err = capsys.readouterr()
        return out if code == 0 else err

    call.warned = lambda *words: (main(list(map(str, words))), capsys.readouterr().err)[1]
    return call


@pytest.mark.parametrize("kind", ["regression", "classes", "emotions"])
def test_an_example_imports_as_it_is_without_a_warning_and_trains(run, tmp_path, kind):
    found = json.loads(run("data", "template", "--kind", kind, "--out", "my set", "--json"))
    assert found["files"] == sorted(str(p.relative_to(tmp_path / "my set")) for p in (tmp_path / "my set").rglob("*.*"))
    for column in pd.read_csv(tmp_path / "my set" / "samples.csv").columns:
        assert f"`{column}" in (tmp_path / "my set" / "README.md").read_text()
    readme = (tmp_path / "my set" / "README.md").read_text()
    check, bring, _ = (line.strip() for line in readme.splitlines() if line.startswith("    mmsa-lib"))
    assert "0 errors, 0 warnings" in run(*shlex.split(check)[1:])
    assert bring == found["import"]
    assert run.warned(*shlex.split(bring)[1:]) == ""
    record = read_store(store_path("mine"))
    assert record.task.kind == kind
    assert {m: len(f.lengths) for m, f in record.features.items()} == {"audio": 36, "vision": 36}
    assert "mine: 0 errors, 0 warnings" in run("data", "check", "mine")
    run("train", "early_fusion", "--dataset", "mine", "--set", "max_epochs=1", "--quiet")


@pytest.mark.parametrize("modalities", [["text"], ["text", "audio"], ["audio", "vision"]])
def test_an_example_of_fewer_modalities(run, tmp_path, modalities):
    run("data", "template", "--modalities", *modalities)
    folders = {path.name for path in (tmp_path / "my_data").iterdir() if path.is_dir()}
    assert folders == {*modalities} - {"text"}
    assert run.warned("data", "import", "table", "my_data", "--name", "mine") == ""
    assert set(read_store(store_path("mine")).defaults["*"]) == {*modalities}


def test_what_lies_there_is_not_written_over_unasked(run, tmp_path):
    run("data", "template")
    table, own = tmp_path / "my_data" / "samples.csv", tmp_path / "my_data" / "audio" / "own.npy"
    table.write_text("mine\n")
    np.save(own, np.ones((2, 5)))
    assert "my_data holds something; choose another folder with --out, or add --force" in run(
        "data", "template", code=2
    )
    assert table.read_text() == "mine\n"
    run("data", "template", "--force")
    assert table.read_text() != "mine\n"
    assert own.is_file()
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob(".template*"))
    (tmp_path / "file").touch()
    assert "file holds something" in run("data", "template", "--out", "file", "--force", code=2)
    (tmp_path / "empty").mkdir()
    run("data", "template", "--out", "empty")
