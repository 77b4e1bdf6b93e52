"""``data check`` on what is not imported yet, and imports whose layout is told from the file."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from mmsa_lib.cli import main
from mmsa_lib.data.sources.template import write_template


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(list(map(str, words)))
        return code, *capsys.readouterr()

    return call


def test_a_sound_folder_has_no_problem_and_nothing_is_written(run, tmp_path):
    write_template("mine")
    assert run("data", "check", "mine") == (0, "mine: 0 errors, 0 warnings\n", "")
    assert not (tmp_path / "home").exists()


def test_all_that_is_wrong_is_listed_with_its_cell(run):
    write_template("mine")
    table = pd.read_csv("mine/samples.csv", dtype=str)
    table.loc[2, "label"], table.loc[5, "label"], table.loc[7, "label"] = "7", "good", ""
    table.loc[9, "split"], table.loc[12, "id"] = "trian", table.loc[11, "id"]
    table.to_csv("mine/samples.csv", index=False)
    np.save(f"mine/audio/{table.loc[20, 'id']}.npy", np.ones((4, 9)))
    np.save(f"mine/vision/{table.loc[21, 'id']}.npy", np.array([["a"]]))
    code, out, err = run("data", "check", "mine", "--json")
    assert code == 2
    problems = json.loads(out)["problems"]
    assert json.loads(out)["errors"] == len(problems)
    for where, what in [
        ("mine/samples.csv", "line 9: an empty label of sample 'video03_2'"),
        ("mine/samples.csv", "line 11: split 'trian' of sample 'video04_1' is unknown"),
        ("mine", "id 'video04_3' occurs twice"),
        ("mine/samples.csv label", "line 7: label 'good' of sample 'video02_3' is no number"),
        ("mine/vision/video08_1.npy", "type <U1"),
        ("mine/audio", "sample 'video07_3' has 9 audio features per frame, and most have 5"),
    ]:
        assert any(one["where"] == where and what in one["what"] for one in problems), (where, what, problems)
    assert len(err.splitlines()) == 1
    code, _, err = run("data", "import", "mine", "--name", "x")
    assert code == 2
    assert f"({len(problems) - 1} more: mmsa-lib data check mine)" in err


def test_several_missing_columns_are_told_together(run):
    pd.DataFrame({"text": ["a", "b"]}).to_csv("mine.csv", index=False)
    code, out, _ = run("data", "check", "mine.csv")
    assert code == 2
    assert [f"column '{name}' is missing" in out for name in ("id", "split", "label")] == [True] * 3


def test_options_of_the_import_are_those_of_the_check(run):
    write_template("mine", "classes")
    table = pd.read_csv("mine/samples.csv").drop(columns="split")
    table.to_csv("mine/samples.csv", index=False)
    options = ["--split", "60/20/20", "--groups", "group", "--classes", "negative", "neutral", "positive"]
    assert run("data", "check", "mine", *options)[0] == 0
    code, out, _ = run("data", "import", "mine", "--name", "x", "--seed", "3", *options, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["layout"] == "table"
    sizes = {split: part["videos"] for split, part in found["folds"]["standard"].items()}
    assert sizes == {"train": 7, "valid": 2, "test": 3} or sum(sizes.values()) == 12
    _, out, _ = run("data", "info", "x")
    assert "splits cut 60/20/20 by whole groups with seed 3" in out
    first = json.loads(run("data", "info", "x", "--json")[1])["fingerprint"]
    assert first == found["fingerprint"]
    run("data", "import", "mine", "--name", "y", "--seed", "3", *options)
    assert json.loads(run("data", "info", "y", "--json")[1])["fingerprint"] == first


def mult(labels):
    parts = {"train": 12, "valid": 4, "test": 4}
    return {s: {"text": np.ones((n, 3, 4)), "labels": labels(n)} for s, n in parts.items()}


@pytest.mark.parametrize("first", ["auto", None])
def test_the_layout_is_told_from_the_file(run, tmp_path, first):
    generator = np.random.default_rng(0)
    tree = mult(lambda n: generator.uniform(-3, 3, (n, 1, 1)))
    (tmp_path / "mult.pkl").write_bytes(pickle.dumps(tree))
    for part in tree.values():
        part["id"] = [f"v$_${i}" for i in generator.integers(0, 10**9, len(part["labels"]))]
        part["regression_labels"] = part.pop("labels").ravel()
    (tmp_path / "mmsa.pkl").write_bytes(pickle.dumps(tree))
    for layout in ("mult", "mmsa"):
        words = [first, f"{layout}.pkl"] if first else [f"{layout}.pkl"]
        name = ["--name", layout]
        for line in (
            [*words, *name],
            [*name, "--range", "-3", "3", "--force", *words],
            [*words[:-1], *name, words[-1]],
        ):
            code, out, err = run("data", "import", *line)
            assert code == 0, err
            assert f"read as {layout}: pickle of M" in out
    code, _, err = run("data", "import", "none.pkl", "--name", "x")
    assert code == 2
    assert "invalid choice: 'none.pkl'" in err
    code, _, err = run("data", "import", "auto", "none.pkl", "--name", "x")
    assert "none.pkl: no such file or folder" in err


def test_all_that_is_wrong_in_a_pickle_is_listed(run, tmp_path):
    generator, tree = np.random.default_rng(0), {}
    for split, n in {"train": 12, "valid": 4, "test": 4}.items():
        ids = [f"{split}$_${i}" for i in range(n)]
        tree[split] = {"id": ids, "regression_labels": generator.uniform(-3, 3, n), "audio": np.ones((n, 3, 4))}
    tree["train"]["regression_labels"][[2, 5]] = np.nan
    tree["valid"]["audio"] = tree["valid"]["audio"][1:]
    tree["test"]["id"][3] = tree["test"]["id"][2]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tree))
    code, out, err = run("data", "check", "a.pkl")
    assert code == 2
    for said in (
        "'test$_$2' occurs twice",
        "'train$_$2' is no finite",
        "'train$_$5' is no finite",
        "3 rows for 4 samples",
    ):
        assert said in out
    assert "a.pkl: 4 errors" in out
    assert len(err.splitlines()) == 1
