"""Facts of the public sets against counts made one sample at a time; linear baselines and the leak check."""

import os
from statistics import median

import numpy as np
import pandas as pd
import pytest
import torch

from companion import data_sets
from companion.__main__ import main
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.record import DatasetRecord, FeatureSet, Words
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.paths import tables_folder

LABELS = [-3.0, -0.3, 0.0, 0.2, 0.25, 2.6, 1.0, -1.0, 3.0, 0.0, -0.25, 2.74]
SPLIT = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
WORDS = [2, 0, 1, 2, 2, 5, 1, 1, 3, 4, 4, 0]
SECONDS = [1.0, 0.5, 2.0, 2.9, 3.0, 9.0, 0.0, 1.5, 1.0, 4.0, 4.5, 4.9999]


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
        "times": np.array([[5.0, 5.0 + seconds] for seconds in SECONDS], dtype=np.float32),
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
def test_lengths_and_durations(split):
    tables = data_sets.summarise(make_record())
    rows = rows_of("standard", split)
    words = [WORDS[row] for row in rows]
    assert counts(tables["lengths"], "length", split) == {n: words.count(n) for n in set(words)}
    seconds = [int(SECONDS[row]) for row in rows]
    assert counts(tables["durations"], "seconds", split) == {n: seconds.count(n) for n in set(seconds)}


def test_lengths_without_words_come_from_transcripts_or_features():
    from_transcripts = data_sets.summarise(make_record(words=None))["lengths"]
    assert counts(from_transcripts, "length", "test") == {2: 2, 0: 1}
    from_features = data_sets.summarise(make_record(words=None, transcripts=None))["lengths"]
    assert counts(from_features, "length", "test") == {1: 1, 2: 1, 3: 1}
    assert set(from_features["unit"]) == {"steps"}


def test_without_times_there_are_no_durations():
    assert data_sets.summarise(make_record(times=None))["durations"].empty


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
    for name, datasets in (("labels", 5), ("lengths", 5), ("durations", 2)):
        sums = data_sets.read_summary(name).groupby(["dataset", "split"])["samples"].sum()
        assert len(sums) == 3 * datasets
        pd.testing.assert_series_equal(sums, standard["samples"].reindex(sums.index))


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("MMSA_LIB_MIRROR"), reason="MMSA_LIB_MIRROR is not set")
def test_committed_tables_are_what_the_originals_give(tmp_path):
    for path in data_sets.write_summary(tmp_path, progress=False):
        assert path.read_bytes() == (tables_folder("published") / "dataset_summary" / path.name).read_bytes(), path.name


def test_stores_are_counted_as_the_records_they_hold(tmp_path, monkeypatch):
    from mmsa_lib.data.sources import synthetic
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    record = synthetic.build(samples=(12, 6, 6))
    record.name = "own"
    write_store(record, tmp_path / "stores" / "own.h5")
    counted = data_sets.count_stores(["own"])
    for name, table in data_sets.summarise(record).items():
        if not table.empty:
            pd.testing.assert_frame_equal(counted[name], table)
    assert counted["durations"].empty


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
