"""Columns: texts, names and frames; valid frames of padded arrays against a loop over samples and frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmsa_lib.data.sources.columns import (
    describe,
    features_of,
    frames_of,
    joined,
    names_of,
    present_frames,
    span,
    texts,
    valid_frames,
)
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.errors import DataError

IDS = ["a", "b", "c"]
masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))


def build(frames, valid=None, ids=IDS, repairs=None, **options):
    repairs = Repairs() if repairs is None else repairs
    options |= {"modality": "audio", "level": "frame", "repairs": repairs, "description": ""}
    return features_of(frames, ids, "f", valid=None if valid is None else np.array(valid), **options)


def test_texts_come_from_anything():
    assert texts(np.array([b"a", b"b"]), "f") == ["a", "b"]
    assert texts(np.array([["a"], ["b"]]), "f") == ["a", "b"]
    repairs = Repairs()
    column = [None, float("nan"), np.float32("nan"), ["good", b"film"], np.array(["a", "b"]), b"caf\xe9", 7, "", "我"]
    assert texts(column, "file raw_text", repairs) == ["", "", "", "good film", "a b", "café", "7", "", "我"]
    assert repairs == {
        "raw_text: missing, left empty": 3,
        "raw_text: list of words, joined by blanks": 2,
        "raw_text: bytes that are not UTF-8, read as cp1252": 1,
        "raw_text: number, read as text": 1,
    }
    for wrong in ({"a"}, {"a": 1}, [["a"]], True, 1j, "很好".encode("gbk")):
        with pytest.raises(DataError, match="f raw_text: row 1 "):
            texts(["fine", wrong], "f raw_text")
    for wrong in ("abc", b"abc", None, {"a"}, 3, np.array(3)):
        with pytest.raises(DataError, match="f raw_text: expected a list"):
            texts(wrong, "f raw_text")


def test_ids_are_text_or_whole_numbers():
    assert names_of(np.array([[b"a"], [b"b"]]), "f") == ["a", "b"]
    assert names_of([1, np.int64(2), 3.0, "d"], "f") == ["1", "2", "3", "d"]
    for wrong in (None, float("nan"), "", " ", b"", ["a"], 1.5, True, {}):
        with pytest.raises(DataError, match="f: row 1"):
            names_of(["a", wrong], "f")


def test_describe_stays_short():
    assert len(describe({str(i): {str(j): 0 for j in range(100)} for i in range(100)})) < 120


def test_a_frame_is_present_when_any_number_is_not_zero():
    padded = np.array([[[0, 0], [0, -1], [np.nan, 0], [-np.inf, 0]]])
    assert present_frames(padded).tolist() == [[False, True, True, True]]


@given(present=masks)
def test_span_runs_from_first_to_last(present):
    expected = np.zeros_like(present)
    for row, mask in enumerate(present):
        where = np.flatnonzero(mask)
        if len(where):
            expected[row, where[0] : where[-1] + 1] = True
    assert np.array_equal(span(present), expected)
    repairs = Repairs()
    assert np.array_equal(valid_frames(present, None, "audio", repairs), expected)
    on_left = int((expected.any(axis=1) & ~expected[:, 0]).sum())
    assert repairs == ({"audio: samples padded on the left, shifted": on_left} if on_left else {})


def _slow_valid(present, lengths):
    """Valid frames and the number of left-padded and contradictory samples, one sample after the other."""
    steps = present.shape[1]
    lengths = [min(int(length), steps) for length in lengths]
    where = [np.flatnonzero(row) for row in present]
    first = [not len(w) or w[-1] < n for w, n in zip(where, lengths, strict=True)]
    last = [not len(w) or w[0] >= steps - n for w, n in zip(where, lengths, strict=True)]
    whole_file_left = all(last) and not all(first)
    frames, left, wrong = [], 0, 0
    for w, n, fits_first, fits_last in zip(where, lengths, first, last, strict=True):
        if fits_last and (whole_file_left or not fits_first):
            frames.append(list(range(steps - n, steps)))
            left += n < steps
        elif fits_first:
            frames.append(list(range(n)))
        else:
            frames.append(list(range(w[0], w[-1] + 1)))
            wrong += 1
    return frames, left, wrong


@given(present=masks, data=st.data())
@settings(max_examples=300)
def test_known_lengths_take_the_side_that_holds_the_frames(present, data):
    count, steps = present.shape
    lengths = np.array([data.draw(st.integers(0, steps + 2)) for _ in range(count)])
    repairs = Repairs()
    valid = valid_frames(present, lengths, "audio", repairs)
    frames, left, wrong = _slow_valid(present, lengths)
    assert [np.flatnonzero(row).tolist() for row in valid] == frames
    counts = {"longer than the array, cut": int((lengths > steps).sum()), "padded on the left, shifted": left}
    counts["whose length contradicts the data"] = wrong
    assert repairs == {f"audio: samples {what}": n for what, n in counts.items() if n}


def test_a_sample_that_fits_both_ways_follows_the_file():
    present = np.array([[0, 0, 1, 0], [0, 0, 0, 1]], bool)  # of length 3 with zero ends, and of length 1
    valid = valid_frames(present, np.array([3, 1]), "audio", Repairs())
    assert valid.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    alone = valid_frames(present[:1], np.array([3]), "audio", Repairs())
    assert alone.astype(int).tolist() == [[1, 1, 1, 0]]


def test_inner_zero_frames_are_observed_unless_zero_means_missing():
    padded = np.array([[[1.0], [0], [2], [0]]])
    assert build(padded).observed.tolist() == [True, True, True]
    assert build(padded, zero_is_missing=True).observed.tolist() == [True, False, True]


def test_samples_of_zeros_without_frames_or_of_infinities_are_missing():
    repairs = Repairs()
    padded = np.array([[[0.0], [0]], [[1], [np.nan]], [[0], [np.inf]], [[-np.inf], [-np.inf]]])
    valid = [[True, True], [True, False], [False, False], [True, True]]
    found = build(padded, valid, ids=[*IDS, "d"], repairs=repairs)
    assert found.lengths.tolist() == [2, 1, 1, 2]
    assert found.observed.tolist() == [False, False, True, False, False, False]
    assert found.values.ravel().tolist() == [0, 0, 1, 0, 0, 0]
    del repairs["audio: float64 stored as float32"]
    assert repairs == {"audio: -inf set to 0": 2}  # what lies in the padding is not counted
    said = "audio: 2 values are not finite (NaN, infinite or too large for float32), set to 0: 2 of sample 'd'"
    assert repairs.remarks() == [said]


def test_samples_that_are_not_finite_are_named_up_to_a_few():
    repairs = Repairs()
    for ids in ("abcd", "efgh"):  # of two splits
        build(np.full((4, 1, 2), np.nan), ids=list(ids), repairs=repairs)
    (said,) = repairs.remarks()
    assert said.startswith("audio: 16 values are not finite")
    assert said.endswith("2 of sample 'e', and those of 3 more samples")


def test_texts_are_no_features():
    with pytest.raises(DataError, match="audio: expected numbers"):
        Repairs().finite(np.array([["a"]]), "audio", ["a"], np.array([0]))


def test_splits_are_joined_and_of_different_width_refused():
    one, other = (build(np.ones((1, 1, width))) for width in (2, 3))
    with pytest.raises(DataError, match="f: audio: the splits have 2 and 3 features"):
        joined([one, other], "f: audio")
    both = joined([one, one], "f: audio")
    assert both.values.shape == (2, 2)
    assert both.lengths.tolist() == [1, 1]


def test_frames_of_an_array_or_of_equal_samples():
    assert frames_of(np.ones((3, 2)), IDS, "f").shape == (3, 1, 2)
    assert frames_of([[1.0, 2], [3, 4], [5, 6]], IDS, "f").shape == (3, 1, 2)
    assert frames_of([np.ones((4, 2))] * 3, IDS, "f").shape == (3, 4, 2)
    assert frames_of(np.ones((3, 1, 1)).astype(object), IDS, "f").dtype == np.float64


def test_unpadded_samples_keep_their_frames_and_nothing_is_missing_unless_it_is():
    rows = [np.ones((2, 3), np.float32), [[1, 2, 3], [0, 0, 0], [0, 0, 0], [7, 8, 9]], None]
    for values in (rows, tuple(rows), np.array([*rows], dtype=object)):
        repairs = Repairs()
        found = build(frames_of(values, IDS, "f"), repairs=repairs, lengths=np.array([2, 9, 0]))
        assert found.lengths.tolist() == [2, 4, 1]
        np.testing.assert_array_equal(found.values[2:6], rows[1])
        assert found.observed.tolist() == [True] * 6 + [False]
        assert repairs["audio: samples without frames, missing"] == 1
        assert repairs["audio: samples whose length contradicts the data"] == 1


def test_one_long_sample_takes_no_more_memory_than_itself():
    rows = [np.ones((200_000, 1), np.float32), *[np.ones((1, 1), np.float32)] * 200_000]
    names = [str(i) for i in range(len(rows))]  # padded, these would be 160 GB
    assert build(rows, ids=names).values.shape == (400_000, 1)


def test_unequal_widths_name_a_sample_of_each():
    rows = frames_of([np.ones((1, 2)), np.ones((2, 2)), np.ones((2, 3))], IDS, "f")
    with pytest.raises(DataError, match=r"f: audio features have the widths 2 \(sample 'b'\) and 3 \(sample 'c'\)"):
        build(rows)
    with pytest.raises(DataError, match=r"widths 1 .* and 1 more; .* \(all have 5 rows, so that they may be \(d, T\)"):
        build([np.ones((5, steps)) for steps in (1, 2, 3, 4)], ids=list("abcd"))


NO_FRAMES = {
    **{str(i): wrong for i, wrong in enumerate((None, 3, "abc", {"a": 1}, np.array(1.0), np.ones(3)))},
    "no steps": np.ones((3, 0, 2)),
    "rows lost": np.ones((2, 1, 1)),
    "complex": np.ones((3, 2), complex),
    "words": np.array([["a"]] * 3),
    "numbers as words": [["1"], ["2"], ["3"]],
    "unequal": [[1, [2]], [1], [1]],
    "a complex number": [[1j], [2], [3]],
    "bytes": [[b"a"], [1], [2]],
    "four axes": [np.ones((1, 1, 1, 1))] * 3,
    "dicts": [{}, {}, {}],
    "huge": [[10**400], [1], [2]],
}


@pytest.mark.parametrize("kind", NO_FRAMES)
def test_what_are_no_frames_is_refused(kind):
    with pytest.raises(DataError, match=r"^f: ") as caught:
        frames_of(NO_FRAMES[kind], IDS, "f")
    assert "\n" not in str(caught.value)
