"""Valid frames of padded arrays, against a loop over samples and frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmsa_lib.data.sources.columns import (
    Repairs,
    frames_of,
    joined,
    padded_features,
    present_frames,
    ragged_features,
    span,
    valid_frames,
)
from mmsa_lib.errors import DataError

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))


def _build(padded, valid, **options):
    repairs = options.pop("repairs", Repairs())
    return padded_features(padded, valid, modality="audio", level="frame", repairs=repairs, **options)


def test_a_frame_is_present_when_any_number_is_not_zero():
    padded = np.array([[[0, 0], [0, -1], [np.nan, 0], [-np.inf, 0]]])
    assert present_frames(padded).tolist() == [[False, True, True, True]]


@given(present=masks)
@settings(deadline=None)
def test_span_runs_from_first_to_last(present):
    expected = np.zeros_like(present)
    for row, mask in enumerate(present):
        where = np.flatnonzero(mask)
        if len(where):
            expected[row, where[0] : where[-1] + 1] = True
    assert np.array_equal(span(present), expected)


def _slow_valid_frames(present, lengths):
    """Valid frames and the number of cut, left-padded and contradictory samples, one sample after the other."""
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
@settings(max_examples=300, deadline=None)
def test_placed_takes_the_side_that_holds_the_frames(present, data):
    count, steps = present.shape
    lengths = np.array([data.draw(st.integers(0, steps + 2)) for _ in range(count)])
    repairs = Repairs()
    valid = valid_frames(present, lengths, "audio", repairs)
    frames, left, wrong = _slow_valid_frames(present, lengths)
    assert [np.flatnonzero(row).tolist() for row in valid] == frames
    counts = {"longer than the array, cut": int((lengths > steps).sum()), "padded on the left, shifted": left}
    counts["whose length contradicts the data"] = wrong
    assert dict(repairs) == {f"audio: samples {what}": n for what, n in counts.items() if n}


def test_a_sample_that_fits_both_ways_follows_the_file():
    present = np.array([[0, 0, 1, 0], [0, 0, 0, 1]], bool)  # of length 3 with zero ends, and of length 1
    valid = valid_frames(present, np.array([3, 1]), "audio", Repairs())
    assert valid.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    alone = valid_frames(present[:1], np.array([3]), "audio", Repairs())
    assert alone.astype(int).tolist() == [[1, 1, 1, 0]]


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    sides=st.lists(st.booleans(), min_size=5, max_size=5),
    steps=st.integers(5, 8),
)
@settings(deadline=None)
def test_padding_on_either_side_gives_the_same_features(lengths, sides, steps):
    samples = [np.random.default_rng(length).uniform(1, 2, (length, 3)) for length in lengths]
    padded = np.zeros((len(samples), steps, 3))
    for row, (values, left) in enumerate(zip(samples, sides, strict=False)):
        padded[row, steps - len(values) :] = values if left else padded[row, steps - len(values) :]
        padded[row, : len(values)] = padded[row, : len(values)] if left else values
    present = present_frames(padded)
    for valid in (span(present), valid_frames(present, np.array(lengths), "audio", Repairs())):
        found = _build(padded, valid)
        assert found.lengths.tolist() == lengths
        np.testing.assert_array_equal(found.values, np.concatenate(samples).astype(np.float32))
        assert found.observed.all()


def test_inner_zero_frames_are_observed_unless_zero_means_missing():
    padded = np.array([[[1.0], [0], [2], [0]]])
    valid = span(present_frames(padded))
    assert _build(padded, valid).observed.tolist() == [True, True, True]
    assert _build(padded, valid, zero_is_missing=True).observed.tolist() == [True, False, True]


def test_a_sample_of_zeros_is_missing():
    padded = np.array([[[0.0], [0]], [[1], [0]], [[0], [0]]])
    valid = np.array([[True, True], [True, True], [False, False]])
    found = _build(padded, valid)
    assert found.lengths.tolist() == [2, 2, 1]
    assert found.observed.tolist() == [False, False, True, True, False]


def test_a_sample_of_infinities_is_missing_after_the_repair():
    repairs = Repairs()
    found = _build(np.full((1, 2, 1), -np.inf), np.ones((1, 2), bool), repairs=repairs)
    assert found.observed.tolist() == [False, False]
    assert not found.values.any()
    assert dict(repairs)["audio: -inf set to 0"] == 2


def test_what_lies_in_the_padding_is_not_counted():
    repairs = Repairs()
    padded = np.array([[[1.0], [np.nan]]], dtype=np.float32)
    found = _build(padded, np.array([[True, False]]), repairs=repairs)
    assert found.values.tolist() == [[1.0]]
    assert dict(repairs) == {}


def test_samples_that_begin_with_padding_are_counted():
    repairs = Repairs()
    valid_frames(np.array([[False, True], [True, False], [False, False]]), None, "audio", repairs)
    assert dict(repairs) == {"audio: samples padded on the left, shifted": 1}


def test_splits_of_different_width_are_refused():
    one, other = (_build(np.ones((1, 1, width)), np.ones((1, 1), bool)) for width in (2, 3))
    with pytest.raises(DataError, match="f: audio: the splits have 2 and 3 features"):
        joined([one, other], "f: audio")
    both = joined([one, one], "f: audio")
    assert both.values.shape == (2, 2)
    assert both.lengths.tolist() == [1, 1]


IDS = ["a", "b", "c"]


def test_frames_of_an_array_or_of_equal_samples():
    assert frames_of(np.ones((3, 2)), IDS, "f").shape == (3, 1, 2)
    assert frames_of([[1.0, 2], [3, 4], [5, 6]], IDS, "f").shape == (3, 1, 2)
    assert frames_of([np.ones((4, 2))] * 3, IDS, "f").shape == (3, 4, 2)
    assert frames_of(np.ones((3, 1, 1)).astype(object), IDS, "f").dtype == np.float64


def test_unpadded_samples_keep_their_frames_and_nothing_is_missing_unless_it_is():
    rows = [np.ones((2, 3), np.float32), [[1, 2, 3], [0, 0, 0], [0, 0, 0], [7, 8, 9]], None]
    as_objects = np.empty(3, dtype=object)
    as_objects[:] = rows
    for values in (rows, tuple(rows), as_objects):
        found, repairs = frames_of(values, IDS, "f"), Repairs()
        features = ragged_features(found, IDS, "f", modality="audio", level="frame", repairs=repairs)
        assert features.lengths.tolist() == [2, 4, 1]
        np.testing.assert_array_equal(features.values[2:6], rows[1])
        assert features.observed.tolist() == [True] * 6 + [False]
        assert dict(repairs)["audio: samples without frames, missing"] == 1


def test_one_long_sample_takes_no_more_memory_than_itself():
    rows = [np.ones((200_000, 1), np.float32), *[np.ones((1, 1), np.float32)] * 200_000]
    names = [str(i) for i in range(len(rows))]  # padded, these would be 160 GB
    features = ragged_features(rows, names, "f", modality="audio", level="frame", repairs=Repairs())
    assert features.values.shape == (400_000, 1)


def test_unequal_widths_name_a_sample_of_each():
    rows = frames_of([np.ones((1, 2)), np.ones((2, 2)), np.ones((2, 3))], IDS, "f")
    with pytest.raises(DataError, match=r"f: audio features have the widths 2 \(sample 'b'\) and 3 \(sample 'c'\)"):
        ragged_features(rows, IDS, "f", modality="audio", level="frame", repairs=Repairs())


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        "abc",
        {"a": 1},
        np.array(1.0),
        np.ones(3),
        np.ones((3, 0, 2)),
        np.ones((2, 1, 1)),
        np.ones((3, 2), complex),
        np.array([["a"]] * 3),
        [["1"], ["2"], ["3"]],
        [[1, [2]], [1], [1]],
        [[1j], [2], [3]],
        [[b"a"], [1], [2]],
        [np.ones((1, 1, 1, 1))] * 3,
        [{}, {}, {}],
        [[10**400], [1], [2]],
    ],
)
def test_what_are_no_frames_is_refused(wrong):
    with pytest.raises(DataError, match=r"^f: ") as caught:
        frames_of(wrong, IDS, "f")
    assert "\n" not in str(caught.value)
