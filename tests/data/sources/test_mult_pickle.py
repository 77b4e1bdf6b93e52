"""The MulT layout: IEMOCAP's one-hot emotions, ids of three kinds, aligned and not, padded on the left."""

import numpy as np
import pytest
from layout_files import (
    COUNT,
    FRAMES,
    LABELS,
    LENGTHS,
    SPLITS,
    STEPS,
    assert_frames,
    frames_of,
    padded,
    ragged_samples,
    tree_of,
    write,
)

from mmsa_lib.data.sources.mult_pickle import read
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

EMOTIONS = np.random.default_rng(3).integers(0, 2, (COUNT, 4))
PAIRS = np.stack([1 - EMOTIONS, EMOTIONS], axis=-1)
"""``(N, 4, 2)``: (no, yes) per emotion."""
IDS = [f"Ses0{1 + row // 2}F_impro01_{'FM'[row % 2]}{row:03d}" for row in range(COUNT)]


def iemocap(**changes) -> dict:
    columns = {m: padded(samples, left=True) for m, samples in FRAMES.items()}
    return {**columns, "labels": PAIRS, "id": np.array(IDS), **changes}


def _read(tmp_path, columns, **options):
    return read(write(tmp_path, tree_of(columns), "iemocap_data.pkl"), "mine", **options)


def test_iemocap(tmp_path):
    record = _read(tmp_path, iemocap())
    assert record.task == emotions(["neutral", "happy", "sad", "angry"])
    np.testing.assert_array_equal(record.labels, EMOTIONS.astype(np.float32))
    assert record.ids == IDS
    assert record.groups == [i[:14] for i in IDS]
    for modality, samples in FRAMES.items():
        assert_frames(record.features[modality], samples)
        assert record.features[modality].level == "word"
        assert record.repairs[f"{modality}: samples padded on the left, shifted"] == COUNT
    assert [p for p in check_record(record) if p.severity == "error"] == []
    np.testing.assert_array_equal(_read(tmp_path, iemocap(labels=EMOTIONS.astype(float))).labels, EMOTIONS)


def test_aligned_modalities_share_the_span_of_all_of_them(tmp_path):
    columns = iemocap(vision=np.zeros((COUNT, STEPS, 3)))
    columns["audio"][:, -1] = 0  # the last word has no audio: the frame stays, so that words and audio keep in step
    columns["vision"][:, -1] = 1
    record = _read(tmp_path, columns)
    for modality in FRAMES:
        assert record.features[modality].lengths.tolist() == LENGTHS
        assert record.features[modality].observed.all()
    for values, expected in zip(frames_of(record.features["audio"]), FRAMES["audio"], strict=True):
        np.testing.assert_array_equal(values[:-1], expected[:-1].astype(np.float32))
        assert not values[-1].any()


def test_files_that_are_not_aligned_keep_each_modalitys_own_span(tmp_path):
    long_audio = ragged_samples(9, 4, 15)
    record = _read(tmp_path, iemocap(audio=padded(long_audio, 15, True)))
    assert_frames(record.features["text"], FRAMES["text"])
    assert_frames(record.features["audio"], long_audio)
    assert [record.features[m].level for m in FRAMES] == ["word", "frame", "frame"]


def test_without_ids_samples_are_named_by_split_and_row(tmp_path):
    record = _read(tmp_path, iemocap(id=None, vision=None))
    assert [record.ids[0], record.ids[1], record.ids[-1]] == ["train_0", "train_1", "test_1"]
    assert record.groups == record.ids
    assert record.defaults == {"*": {"text": "text", "audio": "audio"}}


@pytest.mark.parametrize("as_bytes", [True, False])
def test_ids_of_video_start_and_stop(tmp_path, as_bytes):
    rows = [[f"video{r // 2}", f"{r}.5", f"{r + 1}.25"] for r in range(COUNT)]
    raw = np.array([[value.encode() if as_bytes else value for value in row] for row in rows], dtype=object)
    record = _read(tmp_path, iemocap(labels=LABELS, id=raw))
    assert record.ids[3] == "video1[3.5:4.25]"
    assert record.groups == [row[0] for row in rows]
    np.testing.assert_array_equal(record.times, np.array(rows)[:, 1:].astype(np.float32))
    assert [p for p in check_record(record) if p.severity == "error"] == []


def test_ids_of_one_column(tmp_path):
    assert _read(tmp_path, iemocap(id=np.array(IDS)[:, None])).ids == IDS


def test_emotions_that_are_not_iemocaps(tmp_path):
    columns = iemocap(labels=PAIRS[:, :3])
    with pytest.raises(DataError, match="holds 3 emotion labels"):
        _read(tmp_path, columns)
    assert _read(tmp_path, columns, task=emotions(["a", "b", "c"])).task.names == ("a", "b", "c")
    with pytest.raises(DataError, match="holds 4 emotion labels"):
        _read(tmp_path, iemocap(), task=regression())


def _pairs(place, value):
    pairs = PAIRS.copy()
    pairs[place] = value
    return pairs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": _pairs((7, 1), (1, 1))}, rf"\[valid\] labels: label 1 of sample '{IDS[7]}' is in a pair"),
        ({"labels": _pairs((0, 1, 1), 5)}, f"label 5 of sample '{IDS[0]}' is in a pair .*, and neither 0 nor 1"),
        ({"id": np.zeros((COUNT, 2))}, "id: row 0: the id is an array"),
        ({"id": np.array([["a", "x", 2]] * COUNT)}, "expected video, start and stop"),
        ({"id": np.array([["a", "1", "inf"]] * COUNT)}, "a start or stop time is not finite"),
        ({"text": None, "audio": None, "vision": None}, "nothing to learn from"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, changes, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, iemocap(**changes))
    assert "iemocap_data.pkl" in str(caught.value)


def test_split_order_is_train_valid_test_whatever_the_file_says(tmp_path):
    tree = tree_of(iemocap())
    assert read(write(tmp_path, {split: tree[split] for split in reversed(SPLITS)}), "mine").ids == IDS
