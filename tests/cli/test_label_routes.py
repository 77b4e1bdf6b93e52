"""From a file of labels that are no sentiment to the printed table: binary, K classes, emotions, one column."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from mmsa_lib import predict
from mmsa_lib.cli import main
from mmsa_lib.data import load

SIZES = {"train": 24, "valid": 8, "test": 16}
WIDTHS = {"text": 6, "audio": 4, "vision": 3}
TRAINED = ("text_only", "early_fusion", "late_fusion", "contrastive_mmcl", "collaborative_mmcl", "hrlf")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line in a folder of its own: exit code, stdout, stderr."""
    for name in ("DATA", "RUNS"):
        monkeypatch.setenv(f"MMSA_LIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def write(path, labels, seed=0):
    """A pickle in the MulT layout with ``labels(count)`` in each split, which the first text feature gives away."""
    generator = np.random.default_rng(seed)
    tree = {}
    for split, count in SIZES.items():
        values = labels(count, generator)
        tree[split] = {m: generator.normal(size=(count, 4, width)) for m, width in WIDTHS.items()} | {"labels": values}
    path.write_bytes(pickle.dumps(tree))


def thirds(count, generator):
    return generator.permutation(np.arange(count) % 3)


def halves(count, generator):
    return generator.permutation(np.arange(count) % 2)[:, None]


def seven(count, generator):
    emotions = generator.choice([0, 1 / 3, 3], (count, 6))
    return np.column_stack([generator.uniform(-3, 3, count), emotions])[:, None]


ROUTES = {
    "binary": (halves, ["--emotions", "funny"], {"funny_acc", "funny_f1_positive", "mean_f1"}, "constant_majority"),
    "classes": (thirds, ["--classes", "a", "b", "c"], {"acc", "f1", "f1_macro", "f1_b"}, "constant_prior"),
    "one-hot": (lambda n, g: np.eye(3)[thirds(n, g)], ["--classes", "a", "b", "c"], {"acc", "f1_c"}, "constant_prior"),
    "mosei": (seven, ["--emotions", "happy", "sad", "anger", "surprise", "disgust", "fear"], {"fear_acc", "mean_f1"},
              "constant_prior"),
    "column": (seven, ["--column", "sentiment"], {"mae", "acc7", "acc2_neg_pos"}, "constant_mean"),
    "range": (lambda n, g: g.uniform(0, 1, n), ["--range", "0", "1", "--metrics", "plain"], {"mae", "acc2", "f1"},
              "constant_mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_from_the_file_to_the_table(run, tmp_path, name):
    labels, options, metrics, constant = ROUTES[name]
    write(tmp_path / "f.pkl", labels)
    if name != "range":
        code, _, err = run("data", "import", "mult", "f.pkl", "--name", "mine")
        assert code == 2
        assert options[0] in err
        assert len(err.splitlines()) == 1
    assert run("data", "import", "mult", "f.pkl", "--name", "mine", *options)[0] == 0
    assert run("data", "check", "mine")[0] == 0
    assert run("data", "info", "mine")[0] == 0
    arguments = ("train", "early_fusion", "--dataset", "mine", "--set", "max_epochs=2", "--quiet")
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    report = json.loads(out)
    assert metrics <= set(report["over_seeds"])
    assert set(report["constants"][constant]) == set(report["over_seeds"])
    code, out, _ = run(*arguments)
    assert code == 0
    assert constant in out
    assert run("results", "table", tmp_path / "runs", "--intervals", "items")[0] == 0
    code, out, _ = run("predict", report["runs"][0]["folder"])
    assert code == 0
    assert len(out.splitlines()) == 1 + SIZES["test"]
    code, out, _ = run("predict", report["runs"][0]["folder"], "mine")  # the store, all of it
    assert code == 0
    assert len(out.splitlines()) == 1 + sum(SIZES.values())


def test_predictions_of_classes_are_words(run, tmp_path):
    write(tmp_path / "f.pkl", thirds)
    run("data", "import", "mult", "f.pkl", "--name", "mine", "--classes", "a", "b", "c")
    _, out, _ = run("train", "text_only", "--dataset", "mine", "--set", "max_epochs=1", "--quiet", "--json")
    folder = json.loads(out)["runs"][0]["folder"]
    labels = [
        "abc"[label] for split in SIZES for label in pickle.loads((tmp_path / "f.pkl").read_bytes())[split]["labels"]
    ]
    _, out, _ = run("predict", folder, "mine", "--json")
    assert [row["label"] for row in json.loads(out)["predictions"]] == labels
    few = load("mine", labelled=6)["train"]
    told = predict(folder, few)["label"]
    assert list(told[few.data.labelled.numpy()]) == [
        x for x, known in zip(labels, few.data.labelled, strict=False) if known
    ]
    assert list(told).count("") == SIZES["train"] - 6
    _, out, _ = run("predict", folder)
    header, first, *_ = out.splitlines()
    assert header.startswith("id,group,label,prediction,probability_a,probability_b,probability_c,sd,without_text,")
    words, numbers = first.split(",")[2:4], [float(x) for x in first.split(",")[4:7]]
    assert {*words} <= {"a", "b", "c"}
    assert words[1] == "abc"[int(np.argmax(numbers))]
    assert sum(numbers) == pytest.approx(1, abs=1e-5)


def test_every_method_takes_classes_or_says_that_it_does_not(run, tmp_path):
    write(tmp_path / "f.pkl", thirds)
    run("data", "import", "mult", "f.pkl", "--name", "mine", "--classes", "a", "b", "c")
    for method in TRAINED:
        code, out, err = run("train", method, "--dataset", "mine", "--set", "max_epochs=1", "--quiet")
        assert code == 0, err
        assert "F1 of c" in out
    for method in ("self_mm", "modal_alignment"):
        code, _, err = run("train", method, "--dataset", "mine", "--quiet")
        assert code == 2
        assert "needs" in err or "the task here is classes" in err
        assert len(err.splitlines()) == 1
    for setting in ("task_loss=mse", "categories=bins7", "categories=ranked"):
        code, _, err = run("train", "contrastive_mmcl", "--dataset", "mine", "--quiet", "--set", setting)
        assert (code, len(err.splitlines())) == (2, 1)


@pytest.mark.parametrize("options", [["--range", "-3", "3"], ["--range", "0", "1", "--metrics", "mosi"]])
def test_labels_called_sentiment_against_appearance_give_a_warning_and_no_100_percent(run, tmp_path, options):
    write(tmp_path / "f.pkl", halves)
    code, _, err = run("data", "import", "mult", "f.pkl", "--name", "mine", *options)
    assert code == 0
    assert "warning: labels: the labels take 2 values only (0, 1)" in err
    assert "warning" in run("data", "check", "mine")[1]
    code, out, err = run("train", "early_fusion", "--dataset", "mine", "--set", "max_epochs=1", "--quiet")
    assert code == 0
    assert "Acc-2 (neg/pos) –" in out
    assert "100.00" not in out
    assert "learned nothing" not in err
    assert err.count("not defined") == 1
    for words in (("train", "constant", "--dataset", "mine"), ("results", "table", tmp_path / "runs")):
        code, out, err = run(*words)
        assert code == 0
        assert "100.00" not in out
        assert "not defined" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--range", "0", "1"], "add --metrics plain"),
        (["--emotions", "a", "a", "a"], "named twice"),
        (["--emotions", "mean"], "taken by a metric"),
        (["--classes", "a"], "two names or more"),
        (["--classes", "a", "b", "--emotions", "c"], "not allowed with"),
        (["--classes", "a", "b"], "label 2 of sample"),
        (["--column", "1"], "leave --column out"),
    ],
)
def test_mistakes_are_answered_in_options_of_the_command_line(run, tmp_path, options, said):
    write(tmp_path / "f.pkl", thirds)
    code, _, err = run("data", "import", "mult", "f.pkl", "--name", "mine", *options)
    assert code == 2
    assert said in err
    assert "metrics='" not in err
    assert not (tmp_path / "data" / "stores").exists() or not list((tmp_path / "data" / "stores").iterdir())
