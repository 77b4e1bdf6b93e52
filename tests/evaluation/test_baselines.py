"""Constant baselines: the measured values of docs/evaluation.md, and the exact prior against simulation."""

import csv
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.baselines import constant_metrics, constant_values, expected_f1
from mmsa_lib.evaluation.metrics import f1_score, task_metrics

BASELINES = ["constant_majority", "constant_mean", "constant_median", "constant_neutral", "constant_prior"]
SIMS = regression((-1, 1))


@pytest.fixture
def mirror():
    folder = os.environ.get("MMSA_LIB_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set MMSA_LIB_MIRROR to a folder with the real data sets")
    return Path(folder)


def test_rows_and_columns():
    table = constant_metrics(regression(), torch.tensor([-1.0, 1.2, 2.0]), torch.tensor([0.4, -1.0, 0.0]))
    assert list(table.index) == [*BASELINES, "oracle_test_majority"]
    assert set(table.columns) == set(task_metrics(regression(), [0.1, 1.0], [1.0, 0.0]))
    assert table["corr"].drop("constant_prior").isna().all()
    assert table.drop(columns="corr").notna().all(axis=None)


def test_values_are_those_of_the_training_labels():
    values = constant_values(regression((1, 5)), [1.0, 4.0, 4.5, 5.0])
    assert {name: float(v) for name, v in values.items()} == {
        "constant_majority": 4.0,
        "constant_mean": 3.625,
        "constant_median": 4.25,
        "constant_neutral": 3.0,
    }
    assert float(constant_values(regression(), [0.0, 0.0, 1.0])["constant_majority"]) == 0


def test_train_and_oracle_differ_where_the_balance_flips():
    table = constant_metrics(regression(), [1.0, 2.0, -1.0], [-1.0, -2.0, 1.0])
    assert table.loc["constant_majority", "acc2_neg_pos"] == pytest.approx(1 / 3)
    assert table.loc["oracle_test_majority", "acc2_neg_pos"] == pytest.approx(2 / 3)


def uniform(generator, task, count, high=1.0):
    step = 5 if task.bound != 2 else 2
    return np.round(generator.uniform(task.range[0], high * task.range[1], count) * step) / step


def emotional(generator, count):
    return np.eye(3)[generator.choice(3, count, p=[0.5, 0.3, 0.2])]


@pytest.mark.parametrize(
    "task", [regression(), SIMS, regression((1, 5)), emotions(["neutral", "happy", "sad"]), classes(["a", "b", "c"])]
)
def test_the_prior_is_the_mean_over_many_draws(task):
    generator = np.random.default_rng(1)
    if task.kind == "classes":
        train, test = generator.choice(3, 40, p=[0.6, 0.3, 0.1]), np.array([0, 0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 0])
    elif task.kind == "emotions":
        train, test = emotional(generator, 50), emotional(generator, 12)
    else:
        train, test = uniform(generator, task, 40, 0.9), uniform(generator, task, 15)
    predicted = {"classes": lambda y: np.eye(3)[y], "emotions": lambda y: np.stack([1 - y, y], -1)}
    table = constant_metrics(task, train, test)
    draws = []
    for _ in range(3000):
        drawn = train[generator.integers(len(train), size=len(test))]
        draws.append(task_metrics(task, predicted.get(task.kind, np.array)(drawn), test))
    for key, value in table.loc["constant_prior"].items():
        sample = np.array([d[key] for d in draws])
        assert abs(sample.mean() - value) < 4 * sample.std() / np.sqrt(len(sample)) + 1e-12, key
    if task.kind == "classes":
        assert table.loc["constant_majority", "acc"] == pytest.approx(0.5)
        assert list(table.index) == ["constant_majority", "constant_prior", "oracle_test_majority"]


def test_constants_are_undefined_where_the_truth_is_one_sided():
    table = constant_metrics(regression(), [-1.0, 2.0, 1.0], [0.5, 1.0, 2.0])
    assert table[[key for key in table if "neg" in key]].isna().all(axis=None)
    assert table["acc7"].notna().all()


def test_emotion_majority_is_never_for_rare_emotions():
    task = emotions(["rare", "common"])
    table = constant_metrics(task, [[0, 1], [0, 1], [1, 0]], [[1, 0], [0, 1], [0, 1], [0, 1]])
    assert list(table.index) == ["constant_majority", "constant_prior", "oracle_test_majority"]
    assert table.loc["constant_majority", "rare_acc"] == 0.75
    assert table.loc["constant_majority", "rare_f1_positive"] == 0
    assert table.loc["constant_majority", "acc2"] == 0.75


@pytest.mark.parametrize("average", ["weighted", "macro", "positive"])
@pytest.mark.parametrize("truth", [[0, 1, 1], [1, 1, 1], [0, 0], [0]])
@pytest.mark.parametrize("positive", [0.0, 0.3, 1.0])
def test_expected_f1_sums_over_all_outcomes(average, truth, positive):
    truth = np.array(truth)
    total = 0.0
    for code in range(2 ** len(truth)):
        guess = np.array([(code >> bit) & 1 for bit in range(len(truth))])
        probability = positive ** guess.sum() * (1 - positive) ** (len(truth) - guess.sum())
        total += probability * f1_score(guess, truth, average)
    assert expected_f1(positive, truth, average) == pytest.approx(total)


def test_wrong_labels_are_refused():
    with pytest.raises(DataError, match="labels"):
        constant_metrics(regression(), [1.0], [float("nan")])
    with pytest.raises(DataError, match="no sample"):
        constant_metrics(regression(), [], [1.0])
    with pytest.raises(DataError, match="expected"):
        constant_metrics(emotions(["a"]), [1.0], [1.0])


def mosi_labels(mirror, split, part):
    with h5py.File(mirror / "cmu-mosi" / "mosi_merged.h5") as file:
        return file["label"][:][file[split][:].astype(str) == part]


def mosei_labels(mirror, _, part):
    path = mirror / "cmu-mosei-text" / "original" / f"mosei_{part}.tsv"
    with path.open(newline="", encoding="utf-8") as file:
        return [float(r["label"]) for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def sims_labels(mirror, name, part):
    # allow_pickle: this file comes from the verified mirror; the library itself reads it with its restricted loader.
    file = np.load(mirror / "ch-sims-text" / "original" / name / "label.npz", allow_pickle=True)
    return [entry["val"] for entry in file[f"{part}_corpus"].tolist().values()]


def mmmo_labels(mirror, _, part):
    with h5py.File(mirror / "ict-mmmo" / f"y_{part}.h5") as file:
        return file["d1"][:].ravel()


MOSI_KEYS = ("acc2_neg_nonneg", "f1_neg_nonneg", "acc2_neg_pos", "f1_neg_pos", "acc7")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("task", "labels", "split", "row", "mae", "expected"),
    [
        (regression(), mosi_labels, "split", "constant_mean", 1.464, [44.75, 27.67, 42.23, 25.07, 15.45]),
        (regression(), mosi_labels, "split", "constant_median", 1.456, [44.75, 27.67, 42.23, 25.07, 15.45]),
        (regression(), mosi_labels, "split", "constant_neutral", 1.417, [44.75, 27.67, 57.77, 42.31, 15.45]),
        (regression(), mosi_labels, "split", "oracle_test_majority", 1.411, [55.25, 39.32, 57.77, 42.31, 21.14]),
        (regression(), mosi_labels, "split_poria", "constant_mean", 1.335, [37.90, 20.83, 39.53, 22.40, 18.88]),
        (regression(), mosi_labels, "split_poria", "constant_median", 1.362, [37.90, 20.83, 39.53, 22.40, 18.88]),
        (regression(), mosei_labels, "", "constant_mean", 0.841, [71.02, 58.99, 62.85, 48.51, 41.36]),
        (regression(), mosei_labels, "", "constant_median", 0.838, [71.02, 58.99, 37.15, 20.12, 41.36]),
        (SIMS, sims_labels, "sims", "constant_mean", 0.589, [69.37, 56.82, 54.27, 21.23]),
        (SIMS, sims_labels, "sims", "constant_median", 0.589, [69.37, 56.82, 54.27, 21.23]),
        (SIMS, sims_labels, "sims", "constant_neutral", 0.606, [69.37, 56.82, 15.10, 15.10]),
        (SIMS, sims_labels, "simsv2", "constant_mean", 0.544, [59.09, 43.90, 11.90, 11.90]),
        (regression((1, 5)), mmmo_labels, "", "constant_mean", 1.360, []),
        (regression((1, 5)), mmmo_labels, "", "constant_median", 1.181, []),
    ],
)
def test_measured_values(mirror, task, labels, split, row, mae, expected):
    table = constant_metrics(task, labels(mirror, split, "train"), labels(mirror, split, "test"))
    assert round(table.loc[row, "mae"], 3) == mae
    keys = MOSI_KEYS if task == regression() else ("acc2", "f1", "acc3", "acc5") if task == SIMS else ()
    assert [round(100 * table.loc[row, key], 2) for key in keys] == expected
