"""Samples to be predicted: every form that is imported, without labels and splits."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest

from mmsa_lib.data.sources import mmsa_pickle, mult_pickle, table
from mmsa_lib.data.sources.samples import open_samples, sources_of
from mmsa_lib.data.store import write_store
from mmsa_lib.errors import DataError, MMSAError

WIDTHS = {"text": 12, "audio": 8, "vision": 6}


def arrays(count, seed=0):
    draw = np.random.default_rng(seed)
    return {m: draw.normal(size=(count, 5, d)) for m, d in WIDTHS.items()}


def part(count, seed=0, **more):
    ids = [f"v{seed}$_${row}" for row in range(count)]
    return {"id": ids, "raw_text": ["good film"] * count, **arrays(count, seed), **more}


def labelled():
    labels = {"train": [1.0, -2.0], "valid": [0.5], "test": [0.0, 2.5]}
    return {
        split: part(len(values), seed, regression_labels=np.array(values))
        for seed, (split, values) in enumerate(labels.items())
    }


def word_sample(label):
    return (["good", "film"], np.ones((2, 6)), np.ones((2, 8))), label, "v_1"


def opened(content, folder, name="samples.pkl"):
    if name.endswith(".pkl"):
        (folder / name).write_bytes(pickle.dumps(content))
    with open_samples(folder / name) as record:
        return record


def test_a_whole_pickle_is_read_as_by_the_import(tmp_path):
    record = opened(labelled(), tmp_path)
    expected = mmsa_pickle.read(tmp_path / "samples.pkl", "x")
    assert record.ids == expected.ids
    assert np.array_equal(record.labels, expected.labels)
    for name, features in expected.features.items():
        assert np.array_equal(record.features[name].values, features.values)
        assert np.array_equal(record.features[name].lengths, features.lengths)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ({"test": part(2)}, ["v0$_$0", "v0$_$1"]),  # no labels, one split
        (part(2), ["v0$_$0", "v0$_$1"]),
        ({"test": arrays(2)}, ["test_0", "test_1"]),  # MulT's, without ids
        (arrays(2), ["0", "1"]),
        ({"dev": [word_sample(None)]}, ["v_1"]),  # MAG-BERT's
        ([word_sample(1.0)], ["v_1"]),
        ({m: x[0] for m, x in arrays(1).items()}, ["1"]),  # MMSA-FET's, of one video
        ({**{m: x[0] for m, x in arrays(1).items()}, "id": "clip", "raw_text": "good"}, ["clip"]),
        ([{"text": "good"}, {"text": "bad", "audio": np.ones((3, 8))}], ["1", "2"]),
    ],
)  # fmt: skip
def test_pickles_without_labels_and_splits(tmp_path, content, ids):
    assert opened(content, tmp_path).ids == ids


def test_padding_is_told_as_by_the_import(tmp_path):
    """MulT pads on the left: the valid frames of a file without labels are those of the same file with labels."""
    padded = arrays(3)
    for values in padded.values():
        values[1, :3] = 0
    record = opened({"test": padded}, tmp_path)
    whole = {split: {**padded, "labels": np.array([[[1.5]], [[0.5]], [[0.3]]])} for split in ("train", "valid", "test")}
    for seed, split in enumerate(("train", "valid")):
        whole[split] = {**arrays(3, seed + 1), "labels": whole[split]["labels"]}
    (tmp_path / "whole.pkl").write_bytes(pickle.dumps(whole))
    expected = mult_pickle.read(tmp_path / "whole.pkl", "x")
    assert record.features["audio"].lengths.tolist() == [5, 2, 5]
    assert np.array_equal(record.features["audio"].values, expected.features["audio"].values[-12:])  # noqa: PD011


def test_a_folder_of_one_split_without_labels(tmp_path):
    for name, values in (("audio", np.ones((2, 4, 8))), ("video", np.ones((2, 4, 6)))):
        with h5py.File(tmp_path / f"{name}_test.h5", "w") as file:
            file["data"] = values
    with open_samples(tmp_path) as record:
        assert record.ids == ["test_0", "test_1"]
        assert record.labels is None
        assert {m: features.width for m, features in record.features.items()} == {"audio": 8, "vision": 6}


def test_a_store_by_its_path(tmp_path):
    (tmp_path / "labelled.pkl").write_bytes(pickle.dumps(labelled()))
    expected = mmsa_pickle.read(tmp_path / "labelled.pkl", "mine")
    write_store(expected, tmp_path / "mine.h5")
    with open_samples(tmp_path / "mine.h5") as record:
        assert record.ids == expected.ids
        assert np.array_equal(record.features["audio"].values[:], expected.features["audio"].values)  # noqa: PD011


def test_tables(tmp_path):
    (tmp_path / "t.csv").write_text("text,audio:0,audio:1\ngood,1,2\n,0.5,1\n")
    record = opened(None, tmp_path, "t.csv")
    frame = pd.DataFrame({"text": ["good", None], "audio:0": [1, 0.5], "audio:1": [2.0, 1.0]})
    with open_samples(frame) as other:
        assert other.ids == record.ids == ["1", "2"]
        assert other.transcripts == record.transcripts == ["good", ""]
        assert np.array_equal(other.features["audio"].values, record.features["audio"].values)
    (tmp_path / "l.csv").write_text("id,label,text\n1,0.5,good\n2,-1,bad\n")
    assert opened(None, tmp_path, "l.csv").labels.tolist() == [0.5, -1]
    with open_samples([{"text": "good", "label": 10**400}]) as huge:
        assert huge.labels.tolist() == [str(10**400)]
    (tmp_path / "l.csv").write_text("id,label,text\n1,happy,good\n2,sad,bad\n")
    assert opened(None, tmp_path, "l.csv").labels.tolist() == ["happy", "sad"]


def test_a_labelled_table_is_read_as_by_the_import(tmp_path):
    rows = "".join(f"{i},{s},v{i},0.{i},good,{i},{-i}\n" for i, s in enumerate(["train", "valid", "test"], 1))
    (tmp_path / "t.csv").write_text(f"id,split,group,label,text,audio:0,audio:1\n{rows}")
    record, expected = opened(None, tmp_path, "t.csv"), table.read(tmp_path / "t.csv", "x")
    assert (record.ids, record.groups, record.transcripts) == (expected.ids, expected.groups, expected.transcripts)
    assert np.array_equal(record.features["audio"].values, expected.features["audio"].values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text\n1,a\n1,b\n", "id '1' occurs twice"),
        ("a.csv", b"id,audio:0\n1,nan\n2,1\n", "audio of sample|missing|not finite"),
        ("a.csv", b"id,audio:0,audio:1\nx,1,\n", "audio of sample 'x' holds a value that is not finite"),
        ("a.csv", b"id,audio:0\nx,inf\n", "audio of sample 'x' holds a value that is not finite"),
        ("a.csv", b"id,audio:0\nx,loud\n", "'loud' in column 'audio:0' of sample 'x' is no number"),
        ("a.csv", b"id,text\n", "no row below"),
        ("a.csv", b"\xff\xfe\x00", "readable table"),
        ("a.txt", b"\xff\xff", "can't be read as UTF-8"),
        ("a.txt", b"\n \n", "no sample"),
        ("a.npy", b"\x93NUMPY\x01\x00", "does not say of what"),
        ("a.pkl", pickle.dumps({"a": 1}), "a.pkl"),
        ("a.pkl", pickle.dumps([]), "a.pkl"),
        ("a.pkl", b"\x80\x04cos\nsystem\n.", "a.pkl"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "a.h5"),
        ("a.mp4", b"\x00\x00\x00\x18ftyp", "a.mp4"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    if "missing" in message:  # an empty row of features is a missing modality
        with open_samples(tmp_path / name) as record:
            assert record.features["audio"].observed.tolist() == [False, True]
        return
    with pytest.raises(DataError, match=message) as told, open_samples(tmp_path / name):
        pass
    assert "\n" not in str(told.value)


def test_sources(tmp_path):
    sentences = sources_of(["a good film", "a bad film"])
    assert sentences == [[{"text": "a good film"}, {"text": "a bad film"}]] == sources_of((*sentences[0],))
    assert sources_of("a good film") == [[{"text": "a good film"}]]
    (tmp_path / "a good.csv").touch()
    assert sources_of(str(tmp_path / "a good.csv")) == [str(tmp_path / "a good.csv")]
    assert sources_of([tmp_path, ["one two"]]) == [tmp_path, [{"text": "one two"}]]
    assert sources_of("my samples.csv") == ["my samples.csv"], "a mistyped path is no sentence"
    with pytest.raises(MMSAError, match="no sample"):
        sources_of([])
