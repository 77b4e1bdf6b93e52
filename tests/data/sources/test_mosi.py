"""CMU-MOSI: the merge step by step on small files, and the whole set where the originals are at hand."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mmsa_lib.data.sources import build, fetch_originals, mosi
from mmsa_lib.data.sources.mosi import check_digests, digest, merged_arrays
from mmsa_lib.data.sources.official import MOSI_DIGESTS
from mmsa_lib.errors import DataError

SEGMENT_TABLE = pd.DataFrame(
    {
        "id": ["a_1", "a_2", "b_1"],
        "vid": ["a", "a", "b"],
        "cid": [1, 2, 1],
        "start": [1.0, 2.0, 0.5],
        "stop": [2.0, 4.0, 0.5],
        "text": ["ONE", "TWO", ""],
        "label": [-1.0, 2.4, 0.0],
    }
)


def write_words(path: Path):
    """Video a: a pause, words on either side of a bound, one word across it with its midpoint in the second segment."""
    spoken = [("sp", 0.0, 1.0), ("one", 0.95, 1.35), ("sp", 1.4, 1.6), ("across", 1.9, 2.3), ("two", 3.0, 3.5)]
    late = [("late", 4.5, 5.0)]
    with h5py.File(path, "w") as file:
        for video, tokens in (("a", spoken + late), ("b", late)):
            group = file.create_group(f"CMU_MOSI_ModifiedTimestampedWords/data/{video}")
            group["features"] = np.array([[token.encode()] for token, _, _ in tokens], dtype="S12")
            group["intervals"] = np.array([[start, end] for _, start, end in tokens])


def write_labels(path: Path, labels):
    with h5py.File(path, "w") as file:
        for video, values in labels.items():
            file[f"Opinion Segment Labels/data/{video}/features"] = np.array(values, dtype="f4")[:, None]


def test_words_belong_to_the_segment_that_holds_their_midpoint(tmp_path):
    write_words(tmp_path / "words.csd")
    arrays = mosi._words(tmp_path / "words.csd", SEGMENT_TABLE)
    assert arrays["word"].tolist() == [b"one", b"across", b"two"]
    assert arrays["word_offset"].tolist() == [0, 1, 3, 3]
    np.testing.assert_allclose(arrays["word_interval"], [[-0.05, 0.35], [-0.1, 0.3], [1.0, 1.5]], atol=1e-6)


def test_labels_go_to_clips_in_increasing_number_and_must_agree(tmp_path):
    path = tmp_path / "labels.csd"
    write_labels(path, {"a": [-1.0, 2.4], "b": [0.0]})
    np.testing.assert_array_equal(mosi._labels(path, SEGMENT_TABLE), np.float32([-1.0, 2.4, 0.0]))
    write_labels(path, {"a": [2.4, -1.0], "b": [0.0]})
    with pytest.raises(DataError, match="label of a_"):
        mosi._labels(path, SEGMENT_TABLE)
    write_labels(path, {"a": [-1.0], "b": [0.0]})
    with pytest.raises(DataError, match="video a has 1 labels for 2 segments"):
        mosi._labels(path, SEGMENT_TABLE)


def bc_lstm_files(tmp_path) -> dict[str, Path]:
    """Three segments: rows 2 and 0 of the transcript file are training rows, row 1 is a test row."""
    texts = {"transcripts.csv": '"b_1","B","2","0"\n"a_1","A","2","1"\n"a_2","C","2","1"\n'}
    texts |= {"text_train.csv": '"2","9"\n"0","9"\n', "text_test.csv": '"1","9"\n'}
    for kind, width in (("audio", 73), ("video", 100), ("text", 100)):
        for part, rows in (("train", [2, 0]), ("test", [1])):
            lines = [",".join(f'"{row + column / 1000}"' for column in range(width)) + ',"1"' for row in rows]
            texts[f"{kind}_{part}0.csv"] = "\n".join(lines) + "\n"
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in texts}


def test_bc_lstm_rows_are_joined_by_segment_id(tmp_path):
    arrays = mosi._bc_lstm_features(bc_lstm_files(tmp_path), SEGMENT_TABLE["id"])
    assert arrays["split_poria"].tolist() == [b"test", b"train", b"train"]
    for name, width in (("audio73", 73), ("vision100", 100), ("textcnn100", 100)):
        expected = np.array([1, 2, 0])[:, None] + np.arange(width) / 1000
        np.testing.assert_array_equal(arrays[name], expected.astype("f4"))


def test_bc_lstm_files_of_other_segments_are_refused(tmp_path):
    files = bc_lstm_files(tmp_path)
    with pytest.raises(DataError, match="bc-LSTM files differ"):
        mosi._bc_lstm_features(files, pd.Series(["a_1", "a_2", "c_1"]))
    with pytest.raises(DataError, match="bc-LSTM files differ"):
        mosi._bc_lstm_features(files, pd.Series(["a_1", "a_2", "b_1", "b_2"]))


def test_missing_or_damaged_originals_are_named(tmp_path):
    with pytest.raises(DataError, match=r"mosi_train\.tsv is needed"):
        merged_arrays({})
    (tmp_path / "mosi_train.tsv").write_text("id\tstart\n")
    with pytest.raises(DataError, match=r"mosi_train\.tsv: column 'stop' is missing"):
        merged_arrays({"mosi_train.tsv": tmp_path / "mosi_train.tsv"})
    (tmp_path / "words.csd").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    with pytest.raises(DataError, match=r"words\.csd is damaged"):
        mosi._words(tmp_path / "words.csd", SEGMENT_TABLE)


def test_another_array_is_named():
    with pytest.raises(DataError, match="merged array 'id' has SHA-256"):
        check_digests({name: np.zeros(3) for name in MOSI_DIGESTS})


@pytest.fixture(scope="module")
def record(mirror):
    return build("mosi", mirror)


@pytest.mark.real_data
def test_rebuild_equals_the_merged_file_byte_for_byte(mirror):
    arrays = merged_arrays(fetch_originals("mosi", mirror))
    with h5py.File(mirror / "cmu-mosi" / "mosi_merged.h5") as merged:
        assert set(merged) == set(arrays) == set(MOSI_DIGESTS)
        for name, array in arrays.items():
            expected = merged[name].asstr()[()] if name == "text" else merged[name][()]
            assert array.dtype == expected.dtype
            assert array.shape == expected.shape
            assert digest(array) == digest(expected) == MOSI_DIGESTS[name]


@pytest.mark.real_data
def test_folds_of_the_whole_set(record):
    count = {
        name: [int((fold == split).sum()) for split in ("train", "valid", "test")]
        for name, fold in record.folds.items()
    }
    assert count["standard"] == [1284, 229, 686]
    assert count["bc_lstm"][2] == 752
    assert sum(count["bc_lstm"]) == 2199
    assert [sum(count[f"bc_lstm_test_cv-{k}"]) for k in range(5)] == [752] * 5
    groups = np.array(record.groups)
    videos = {
        name: [len(set(groups[fold == s])) for s in ("train", "valid", "test")] for name, fold in record.folds.items()
    }
    assert videos["standard"] == [52, 10, 31]
    assert videos["bc_lstm"] == [53, 9, 31]
    assert all(sum(videos[f"bc_lstm_test_cv-{k}"]) == 31 for k in range(5))


@pytest.mark.real_data
def test_leak_counts(record):
    label_trained = record.folds["bc_lstm"] != "test"
    standard = record.folds["standard"]
    assert [int((label_trained & (standard == s)).sum()) for s in ("train", "valid", "test")] == [694, 195, 558]
    assert "558 of the 686" in record.notes[0]
    trained_on = {name: features.label_trained_on for name, features in record.features.items()}
    assert trained_on["vision100"] == trained_on["textcnn100"] == "bc_lstm:train"
    assert trained_on["audio73"] == trained_on["timing"] == trained_on["timing_utterance"] == ""
    leaking = {name for name, source in trained_on.items() if source}
    assert not leaking & set(record.defaults["standard"].values())
    for fold in record.folds:
        assert set(record.defaults[fold].values()) - {"words"} <= set(record.features)


@pytest.mark.real_data
def test_words_and_timing_of_the_whole_set(record):
    assert len(record.words.word) == 27645
    assert record.words.word[0] == record.words.word[0].lower()
    silent = record.ids.index("2WGyTLYerpo_44")
    counts = np.diff(record.words.offset)
    assert np.flatnonzero(counts == 0).tolist() == [silent]
    timing = record.features["timing"]
    assert (timing.lengths == np.maximum(counts, 1)).all()
    assert int((~timing.observed).sum()) == 1
    assert np.flatnonzero(~record.features["timing_utterance"].observed).tolist() == [silent]
    assert all(np.isfinite(features.values).all() for features in record.features.values())
    vision = record.features["vision100"]
    assert int((np.ptp(vision.values, axis=0) == 0).sum()) == 32


@pytest.mark.real_data
def test_class_counts_and_sources(record):
    categories = np.sign(record.labels)
    standard = record.folds["standard"]
    found = [[int((categories[standard == s] == c).sum()) for c in (-1, 0, 1)] for s in ("train", "valid", "test")]
    assert found == [[552, 53, 679], [92, 13, 124], [379, 30, 277]]
    assert len(record.sources) == 14
    assert all("sha256:" in line for line in record.sources)


@pytest.mark.real_data
def test_timing_summaries_carry_a_weak_signal(record):
    """The correlation of a ridge over the eight summaries, 5-fold by video over all segments, is near .108."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = make_pipeline(StandardScaler(), Ridge(alpha=100))
    summaries = record.features["timing_utterance"]
    predicted = cross_val_predict(ridge, summaries.values, record.labels, groups=record.groups, cv=GroupKFold(5))
    assert np.corrcoef(predicted, record.labels)[0, 1] == pytest.approx(0.108, abs=0.03)
