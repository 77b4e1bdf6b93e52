"""The MAG-BERT layout: words, one row of vision and audio per word."""

import numpy as np
import pytest
from layout_files import COUNT, FRAMES, LABELS, LENGTHS, SIZES, WORDS, changed, columns_of, mag_tree, observed_of, write

from mmsa_lib.data import load
from mmsa_lib.data.sources.mag_pickle import read
from mmsa_lib.data.store import write_store
from mmsa_lib.errors import DataError

NUMBERS = "numbers of words (their vocabulary is not in the file)"


def _read(tmp_path, **changes):
    return read(write(tmp_path, mag_tree(columns_of("mag", **changes)), "mosi.pkl"), "mine")


def _at(row, **values):
    """Columns with other values in one row."""
    columns = columns_of("mag")
    return {key: changed(columns[key], row, value) for key, value in values.items()}


def _misa(lengths=(), **changes):
    """The pickle as MISA has it, or (with lengths) MMIM: numbers for words, and the words behind."""
    tree = mag_tree(columns_of("mag", **changes))
    return {
        split: [((np.arange(len(w)), v, a, w, *lengths), [[label]], s) for (w, v, a), label, s in samples]
        for split, samples in tree.items()
    }


def test_the_imported_set_loads_aligned_by_word(tmp_path, tiny_text_model):
    record = _read(tmp_path)
    assert {f.level for f in record.features.values()} == {"word"}
    assert record.words is None
    write_store(record, tmp_path / "mine.h5")
    splits = load(str(tmp_path / "mine.h5"), text_model=str(tiny_text_model), max_length=40)
    for modality in ("text", "audio", "vision"):
        assert splits["train"].lengths(modality).tolist() == LENGTHS[: SIZES["train"]]


def test_labels_segments_and_words_of_other_types(tmp_path):
    labels, segments = [np.array([[label]]) for label in LABELS], columns_of("mag")["id"]
    ids = [np.array(["video9", "1.5", "2.5"]), *(segment.encode() for segment in segments[1:])]
    record = _read(tmp_path, labels=labels, id=ids, words=[np.array(words) for words in WORDS])
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.ids == ["video9_1.5_2.5", *segments[1:]]
    assert record.transcripts == [" ".join(words) for words in WORDS]


def test_a_sample_without_words_and_one_of_missing_words(tmp_path):
    columns = _at(1, words=[], vision=np.zeros((0, 20)), audio=[]) | {}
    columns["words"] = changed(columns["words"], 5, [None] * LENGTHS[5])
    record = _read(tmp_path, **columns)
    assert (record.transcripts[1], record.transcripts[5]) == ("", "")
    for modality in ("audio", "vision"):
        assert observed_of(record.features[modality])[1].tolist() == [False]
        assert record.features[modality].lengths[5] == LENGTHS[5]
    assert record.repairs["words: missing, left empty"] == LENGTHS[5]


def test_words_that_would_not_stay_one_word(tmp_path):
    record = _read(tmp_path, **_at(5, words=["New York", "", "\t", "was", "good"]))
    assert record.transcripts[5] == "NewYork [UNK] [UNK] was good"
    assert record.repairs["words: empty, replaced by [UNK]"] == 2
    assert record.repairs["words: blanks inside a word removed"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (_at(1, vision=np.ones((1, 20))), r"\[train\] sample 1 \('video0\[1\]'\): 5 words and visual of shape"),
        (_at(7, audio=np.ones((1, 5))), r"\[valid\] sample 1.*acoustic of shape \(1, 5\)"),
        (_at(5, words=np.arange(5)), "numbers of a vocabulary"),
        (_at(5, words=[["a"]] * 5), "a word is itself a list"),
        (_at(5, id=""), "sample 5 segment: row 0 has an empty id"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, changes, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, **changes)
    assert "mosi.pkl" in str(caught.value)


def test_pickles_of_misa_hold_the_words_behind(tmp_path):
    record = read(write(tmp_path, _misa()), "mine")
    assert record.transcripts == [" ".join(words) for words in WORDS]
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    np.testing.assert_array_equal(record.features["audio"].values, np.concatenate(FRAMES["audio"]).astype(np.float32))
    assert f"not read: {NUMBERS}" in record.notes


def test_pickles_of_mmim_may_have_rows_of_their_own(tmp_path):
    record = read(write(tmp_path, _misa(lengths=[4, 9], **_at(0, vision=np.ones((9, 20))))), "mine")
    assert record.features["vision"].lengths[0] == 9
    assert record.features["vision"].level == "frame"
    assert f"not read: {NUMBERS}, lengths of visual and acoustic (the arrays have them)" in record.notes
    assert len(record.ids) == COUNT
