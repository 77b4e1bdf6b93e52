"""Facts of the public sets against counts made one sample at a time; linear baselines and the leak check."""

import os
from statistics import median

import numpy as np
import pandas as pd
import pytest
import torch

from companion import data_sets
from companion.__main__ import main
from mmsa_lib.data import load
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.record import DatasetRecord, FeatureSet, Words
from mmsa_lib.data.sources import synthetic
from mmsa_lib.data.sources.synthetic_bayes import bayes_error
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.paths import tables_folder

LABELS = [-3.0, -0.3, 0.0, 0.2, 0.25, 2.6, 1.0, -1.0, 3.0, 0.0, -0.25, 2.74]
SPLIT = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
WORDS = [2, 0, 1, 2, 2, 5, 1, 1, 3, 4, 4, 0]


def make_record(**changes) -> DatasetRecord:
    count = len(LABELS)
    lengths = np.array([1 + row % 3 for row in range(count)])
    observed = np.concatenate([np.full(n, row % 4 > 0) for row, n in enumerate(lengths)])
    offset = np.concatenate([[0], np.cumsum(WORDS)]).astype(np.int32)
    fields = {
        "name": "small",
        "task": regression((-3, 3)),
        "ids": [f"v{row // 2}_{row}" for row in range(count)],
        "groups": [f"v{row // 2}" for row in range(count)],
        "labels": np.array(LABELS, dtype=np.float32),
        "folds": {"standard": np.array(SPLIT), "other-0": np.array(["", "train", "valid", "test"] * 3)},
        "features": {
            "audio2": FeatureSet(
                "audio", np.ones((lengths.sum(), 2), "f4"), lengths, observed, "frame", "other-0:train"
            )
        },
        "transcripts": [f"secret{row} text" if row % 5 else " " for row in range(count)],
        "words": Words(np.array(["w"] * sum(WORDS), dtype=object), np.zeros((sum(WORDS), 2), "f4"), offset),
    }
    return DatasetRecord(**{**fields, **changes})


def rows_of(fold, split):
    return [row for row, found in enumerate(make_record().folds[fold]) if found == split]


def test_splits_count_samples_videos_and_classes():
    table = data_sets.summarise(make_record())["splits"].set_index(["fold", "split"])
    assert len(table) == 6
    for (fold, split), found in table.iterrows():
        rows = rows_of(fold, split)
        labels = [float(np.float32(LABELS[row])) for row in rows]
        assert found["samples"] == len(rows)
        assert found["videos"] == len({row // 2 for row in rows})
        assert found["negative"] == sum(label < 0 for label in labels)
        assert found["neutral"] == sum(label == 0 for label in labels)
        assert found["positive"] == sum(label > 0 for label in labels)
        mean = sum(labels) / len(labels)
        sd = (sum((label - mean) ** 2 for label in labels) / (len(labels) - 1)) ** 0.5
        assert found["label_mean"] == pytest.approx(mean)
        assert found["label_sd"] == pytest.approx(sd)
        assert found["label_median"] == pytest.approx(median(labels))


def test_labels_count_for_the_nearest_multiple_of_the_step():
    table = data_sets.summarise(make_record())["labels"]
    train = table[table["split"] == "train"]
    assert dict(zip(train["label"], train["samples"], strict=True)) == {-3.0: 1, -0.5: 1, 0.0: 2, 0.5: 1, 2.5: 1}
    test = table[table["split"] == "test"]
    assert dict(zip(test["label"], test["samples"], strict=True)) == {0.0: 2, 2.5: 1}
    assert set(table["step"]) == {0.5}
    narrow = make_record(task=regression((-1, 1)), labels=np.float32([-0.55, 0.2, 0.75] * 4))
    table = data_sets.summarise(narrow)["labels"]
    assert sorted(set(table["label"])) == [-0.6, 0.2, 0.8]
    assert set(table["step"]) == {0.2}


def counts(table, column, split):
    part = table[table["split"] == split]
    return dict(zip(part[column], part["samples"], strict=True))


@pytest.mark.parametrize("split", data_sets.SPLITS)
def test_lengths(split):
    tables = data_sets.summarise(make_record())
    rows = rows_of("standard", split)
    words = [WORDS[row] for row in rows]
    assert counts(tables["lengths"], "length", split) == {n: words.count(n) for n in set(words)}


def test_lengths_without_words_come_from_transcripts_or_features():
    from_transcripts = data_sets.summarise(make_record(words=None))["lengths"]
    assert counts(from_transcripts, "length", "test") == {2: 2, 0: 1}
    from_features = data_sets.summarise(make_record(words=None, transcripts=None))["lengths"]
    assert counts(from_features, "length", "test") == {1: 1, 2: 1, 3: 1}
    assert set(from_features["unit"]) == {"steps"}


def test_availability_counts_frames():
    table = data_sets.summarise(make_record())["availability"].set_index(["fold", "split", "features"])
    for fold in ("standard", "other-0"):
        for split in data_sets.SPLITS:
            rows = rows_of(fold, split)
            audio = table.loc[(fold, split, "audio2")]
            lengths = [1 + row % 3 for row in rows]
            assert audio["samples_without"] == sum(row % 4 == 0 for row in rows)
            assert audio["frames"] == sum(lengths)
            assert audio["observed_frames"] == sum(n for row, n in zip(rows, lengths, strict=True) if row % 4)
            assert audio["longest"] == max(lengths)
            assert audio["mean_length"] == pytest.approx(sum(lengths) / len(lengths))
            assert audio["label_trained_on"] == "other-0:train"
            assert table.loc[(fold, split, "transcripts"), "samples_without"] == sum(row % 5 == 0 for row in rows)


def test_written_tables_hold_no_text_and_no_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(data_sets, "build", lambda name, mirror, progress: make_record(name=name))
    written = data_sets.write_summary(tmp_path)
    assert [path.stem for path in written] == list(data_sets.TABLES)
    text = "".join(path.read_text() for path in written)
    assert "secret" not in text
    assert "v1_2" not in text
    assert set(data_sets.read_summary("splits", tmp_path)["dataset"]) == set(data_sets.DATASETS)
    first = {path.name: path.read_bytes() for path in written}
    assert {path.name: path.read_bytes() for path in data_sets.write_summary(tmp_path)} == first


def test_unknown_or_absent_tables(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean splits"):
        data_sets.read_summary("split")
    with pytest.raises(DataError, match=r"splits\.csv is missing"):
        data_sets.read_summary("splits", tmp_path)


def test_command_line_says_what_is_missing(tmp_path, capsys):
    assert main(["tables", "--mirror", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("companion: error: the mirror ")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_committed_tables_agree_with_each_other():
    splits = data_sets.read_summary("splits")
    standard = splits[splits["fold"] == "standard"].set_index(["dataset", "split"])
    assert (standard["samples"] == standard[["negative", "neutral", "positive"]].sum(axis=1)).all()
    for name, datasets in (("labels", 5), ("lengths", 5)):
        sums = data_sets.read_summary(name).groupby(["dataset", "split"])["samples"].sum()
        assert len(sums) == 3 * datasets
        pd.testing.assert_series_equal(sums, standard["samples"].reindex(sums.index))


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("MMSA_LIB_MIRROR"), reason="MMSA_LIB_MIRROR is not set")
def test_committed_tables_are_what_the_originals_give(tmp_path):
    for path in data_sets.write_summary(tmp_path, progress=False):
        assert path.read_bytes() == (tables_folder("published") / "dataset_summary" / path.name).read_bytes(), path.name


def test_committed_floors_are_those_of_the_documentation_and_of_the_generator():
    rows = pd.read_csv(tables_folder("results") / data_sets.BAYES)
    test = rows[rows["split"] == "test"]
    page = (tables_folder("results").parents[1] / "docs/data.md").read_text(encoding="utf-8")
    for row in test[test["modalities"].isin(["text", "audio", "vision", "text+audio+vision"])].itertuples():
        numbers = (row.mae, row.corr, row.mae_clean, row.corr_clean)
        assert f"| `{row.dataset}` | {row.modalities} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |" in page
    again = bayes_error(synthetic.build(), draws=200).set_index("modalities")["mae"]
    pd.testing.assert_series_equal(data_sets.read_bayes("synthetic"), again, atol=0.01)
    assert set(rows["dataset"]) == set(synthetic.PRESETS)
    assert set(rows["split"]) == {"valid", "test"}


def test_the_table_of_floors_has_every_set_and_split(monkeypatch):
    small = {"samples": (2, 4, 4), "dims": (8, 8, 8), "length": 4}
    monkeypatch.setattr(data_sets, "PRESETS", {"synthetic": {}})
    monkeypatch.setattr(data_sets.synthetic, "build", lambda name, build=synthetic.build: build(name, **small))
    table = data_sets.bayes_table()
    assert list(table.columns) == list(pd.read_csv(tables_folder("results") / data_sets.BAYES, nrows=0).columns)
    assert table.groupby("split").size().to_dict() == {"test": 7, "valid": 7}


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, {"best possible from the text": "text", "best possible from everything": "text+audio+vision"}),
        ({"vision": None}, {"best possible from the text": "text", "best possible from everything": "text+audio"}),
        ({"audio": None, "vision": None}, {"best possible from the text": "text"}),
        ({"text": None}, {"best possible from everything": "audio+vision"}),
    ],
)
def test_floors_are_of_the_modalities_that_are_there(options, lines):
    data = load("synthetic", **options)
    found = data_sets.floors(data, "valid").set_index("baseline")["value"]
    best = data_sets.read_bayes("synthetic", "valid")
    assert found.drop("best constant").to_dict() == {name: best[subset] for name, subset in lines.items()}
    labels, train = data["valid"].labels.numpy(), data["train"].labels.numpy()
    candidates = [np.abs(labels - c).mean() for c in (np.median(train), train.mean(), 0.0, 1.0, -1.0)]
    assert np.isclose(candidates, found["best constant"]).any()
    assert found["best constant"] <= np.abs(labels - np.median(train)).mean() + 1e-6


def test_floors_of_data_that_nobody_generated_are_the_best_constant():
    data = {"train": split(40, 0), "test": split(20, 1)}
    assert list(data_sets.floors(data)["baseline"]) == ["best constant"]


def test_no_table_of_floors(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.csv").touch()
    monkeypatch.setenv("MMSA_LIB_TABLES", str(tmp_path))
    with pytest.raises(DataError, match=r"bayes\.csv is missing"):
        data_sets.read_bayes("synthetic")


def test_a_spoken_utterance_has_its_words_at_their_times(tmp_path, monkeypatch):
    monkeypatch.setattr(data_sets, "store_path", lambda name: tmp_path)
    audio = FeatureSet(
        "audio", np.arange(24.0).reshape(12, 2).astype("f4"), np.ones(12, int), np.ones(12, bool), "utterance"
    )
    record = make_record(ids=["a$b"] * 12, features={"audio73": audio, "vision100": audio})
    record.words.interval[3:5] = [[0, 1], [1, 3]]
    monkeypatch.setattr(data_sets, "read_store", lambda path: record)
    above, below, last = data_sets.spoken(3).axes
    assert [(text.get_position()[0], text.get_text()) for text in above.texts] == [(0.5, "w"), (2.0, "w")]
    assert above.get_title() == "a$b, label 0.2"
    usual = np.arange(24.0).reshape(12, 2)[:6]
    expected = (usual[3] - usual.mean(0)) / usual.std(0)
    for axis in (below, last):
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], expected, rtol=1e-5)


def split(count: int, seed: int, weight: float = 1.0, task=None) -> Utterances:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(count, generator=generator).clamp(-3, 3)
    text = torch.randn(count, 4, 3, generator=generator) * 0.3 + weight * labels[:, None, None]
    valid = torch.ones(count, 4, dtype=torch.bool)
    valid[:, 3] = False
    text[:, 3] = 0
    batch = Batch(
        features={"text": text},
        valid={"text": valid},
        observed={"text": valid.clone()},
        labels=labels,
        index=torch.arange(count),
        ids=tuple(map(str, range(count))),
    )
    return Utterances(batch, task or regression())


def test_pooling_counts_observed_frames_only():
    data = split(3, 0)
    data.data.observed["text"][0, 1] = False
    data.data.observed["text"][2] = False
    pooled = data_sets.pooled_features(data)
    kept = data.data.features["text"][0, [0, 2]].double().mean(0)
    np.testing.assert_allclose(pooled[0], kept, rtol=1e-6)
    np.testing.assert_allclose(pooled[2], 0)


def test_ridge_finds_a_linear_signal_and_none_where_there_is_none():
    strong = data_sets.ridge_metrics({"train": split(200, 0), "test": split(100, 1)})
    nothing = data_sets.ridge_metrics({"train": split(200, 0, weight=0), "test": split(100, 1, weight=0)})
    assert strong["corr"] > 0.9
    assert strong["mae"] < 0.5 * nothing["mae"]


def test_ridge_refuses_an_emotion_task():
    with pytest.raises(ConfigError, match="emotion"):
        data_sets.ridge_metrics({"train": split(5, 0, task=emotions(["happy"])), "test": split(5, 1)})


def test_leak_check_reports_each_split_beside_its_majority():
    table = data_sets.leak_check({"train": split(200, 0), "test": split(50, 1)}).set_index("split")
    labels = split(50, 1).labels
    positive = float((labels >= 0).float().mean())
    assert table.loc["test", "majority"] == pytest.approx(max(positive, 1 - positive))
    assert table.loc["train", "accuracy"] > 0.9
