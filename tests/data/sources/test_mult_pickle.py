"""The MulT layout: IEMOCAP's one-hot emotions, sentiment of odd shapes, aligned and not, padded on the left."""

import numpy as np
import pytest
from layout_files import (
    ANYTHING,
    COUNT,
    LABELS,
    SPLITS,
    STANDARD,
    assert_frames,
    frames_of,
    mmsa_tree,
    padded,
    read_or_refuse,
    write,
)

from mmsa_lib.data.sources.mult_pickle import read, sample_names
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

WIDTHS = {"text": 6, "audio": 4, "vision": 3}
STEPS = 7
GENERATOR = np.random.default_rng(3)
LENGTHS = GENERATOR.integers(3, STEPS, COUNT)
EMOTIONS = GENERATOR.integers(0, 2, (COUNT, 4))
IDS = np.array([f"Ses0{1 + row // 2}F_impro01_{'FM'[row % 2]}{row:03d}" for row in range(COUNT)])


def _samples(seed: int, width: int, lengths=LENGTHS) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.uniform(1, 2, (length, width)) for length in lengths]


SAMPLES = {m: _samples(seed, width) for seed, (m, width) in enumerate(WIDTHS.items())}


def one_hot(emotions_of_samples=EMOTIONS) -> np.ndarray:
    """``(N, 4, 2)``: (no, yes) per emotion."""
    return np.stack([1 - emotions_of_samples, emotions_of_samples], axis=-1)


def iemocap(left=True, **changes) -> dict:
    columns = {m: padded(samples, STEPS, left) for m, samples in SAMPLES.items()}
    columns |= {"labels": one_hot(), "id": IDS}
    return {key: values for key, values in {**columns, **changes}.items() if values is not None}


def _read(tmp_path, columns, **options):
    return read(write(tmp_path, mmsa_tree(columns), "iemocap_data.pkl"), "mine", **options)


def test_iemocap(tmp_path):
    record = _read(tmp_path, iemocap())
    assert record.task == emotions(["neutral", "happy", "sad", "angry"])
    np.testing.assert_array_equal(record.labels, EMOTIONS.astype(np.float32))
    assert record.ids == IDS.tolist()
    assert record.groups == [i[:14] for i in IDS]
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    for modality, samples in SAMPLES.items():
        assert_frames(record.features[modality], samples)
        assert record.features[modality].level == "word"
        assert record.repairs[f"{modality}: samples padded on the left, shifted"] == COUNT
    assert record.transcripts is None
    assert [p for p in check_record(record) if p.severity == "error"] == []


@pytest.mark.parametrize("left", [True, False, [row % 3 == 0 for row in range(COUNT)]])
def test_padding_on_either_side_gives_the_same_frames(tmp_path, left):
    record = _read(tmp_path, iemocap(left))
    for modality, samples in SAMPLES.items():
        assert_frames(record.features[modality], samples)


def test_aligned_modalities_share_the_span_of_all_of_them(tmp_path):
    columns = iemocap()
    columns["audio"] = columns["audio"].copy()
    columns["audio"][:, -1] = 0  # the last word has no audio: the frame stays, so that words and audio keep in step
    columns["vision"] = np.zeros_like(columns["vision"])
    columns["vision"][:, -1] = 1
    record = _read(tmp_path, columns)
    for modality in WIDTHS:
        assert record.features[modality].lengths.tolist() == LENGTHS.tolist()
        assert record.features[modality].observed.all()
    for values, expected in zip(frames_of(record.features["audio"]), SAMPLES["audio"], strict=True):
        np.testing.assert_array_equal(values[:-1], expected[:-1].astype(np.float32))
        assert not values[-1].any()


def test_files_that_are_not_aligned_keep_each_modalitys_own_span(tmp_path):
    long_audio = _samples(9, 4, GENERATOR.integers(1, 15, COUNT))
    record = _read(tmp_path, iemocap(audio=padded(long_audio, 15, True)))
    assert_frames(record.features["text"], SAMPLES["text"])
    assert_frames(record.features["audio"], long_audio)
    assert [record.features[m].level for m in WIDTHS] == ["word", "frame", "frame"]


def test_a_modality_that_is_zero_in_a_sample_is_missing_there(tmp_path):
    columns = iemocap()
    columns["vision"] = columns["vision"].copy()
    columns["vision"][4] = 0
    vision = _read(tmp_path, columns).features["vision"]
    observed = np.split(vision.observed, vision.offsets[1:-1])
    assert [mask.all() for mask in observed] == [row != 4 for row in range(COUNT)]
    assert len(observed[4]) == LENGTHS[4]


def test_infinities_in_audio_become_zero_and_are_counted(tmp_path):
    columns = iemocap()
    columns["audio"] = columns["audio"].copy()
    columns["audio"][:, -1, 0] = -np.inf
    columns["audio"][0, -1, 1] = np.nan
    record = _read(tmp_path, columns)
    assert record.repairs["audio: -inf set to 0"] == COUNT
    assert record.repairs["audio: NaN set to 0"] == 1
    assert all(values[-1, 0] == 0 for values in frames_of(record.features["audio"]))


@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1), (COUNT, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sentiment_labels(tmp_path, shape, dtype):
    record = _read(tmp_path, iemocap(labels=LABELS.reshape(shape).astype(dtype), id=None))
    assert record.task == regression((-3, 3))
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))


def test_without_ids_samples_are_named_by_split_and_row(tmp_path):
    record = _read(tmp_path, iemocap(id=None))
    assert record.ids[:2] == ["train_0", "train_1"]
    assert record.ids[-1] == "test_1"
    assert record.groups == record.ids


@pytest.mark.parametrize("as_bytes", [True, False])
def test_ids_of_video_start_and_stop(tmp_path, as_bytes):
    rows = np.array([[f"video{r // 2}", f"{r}.5", f"{r + 1}.25"] for r in range(COUNT)], dtype=object)
    raw = np.array([[value.encode() for value in row] for row in rows], dtype=object) if as_bytes else rows
    record = _read(tmp_path, iemocap(labels=LABELS, id=raw))
    assert record.ids[3] == "video1[3.5:4.25]"
    assert record.groups == [row[0] for row in rows]
    np.testing.assert_array_equal(record.times, rows[:, 1:].astype(np.float32))
    assert [p for p in check_record(record) if p.severity == "error"] == []


def test_emotions_that_are_not_iemocaps(tmp_path):
    columns = iemocap(labels=one_hot()[:, :3])
    with pytest.raises(DataError, match="holds 3 emotion labels"):
        _read(tmp_path, columns)
    assert _read(tmp_path, columns, task=emotions(["a", "b", "c"])).task.names == ("a", "b", "c")
    with pytest.raises(DataError, match="holds 4 emotion labels"):
        _read(tmp_path, iemocap(), task=regression())


def test_emotions_as_zeros_and_ones(tmp_path):
    np.testing.assert_array_equal(_read(tmp_path, iemocap(labels=EMOTIONS.astype(float))).labels, EMOTIONS)


def test_fewer_modalities(tmp_path):
    record = _read(tmp_path, iemocap(vision=None))
    assert list(record.features) == ["text", "audio"]
    assert record.defaults == {"*": {"text": "text", "audio": "audio"}}


def _changed(key, place, value):
    columns = iemocap(labels=LABELS) if key == "sentiment" else iemocap()
    key = "labels" if key == "sentiment" else key
    columns[key] = columns[key].copy()
    columns[key][place] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            _changed("labels", (7, 1), (1, 1)),
            rf"\[valid\] labels: label 1 of sample '{IDS[7]}' is in a pair",
        ),
        (_changed("labels", (0, 1, 1), 5), f"label 5 of sample '{IDS[0]}' is in a pair .*, and neither 0 nor 1"),
        (_changed("sentiment", 9, np.nan), f"label nan of sample '{IDS[9]}'"),
        (_changed("sentiment", 9, 4), f"label 4 of sample '{IDS[9]}' lies outside"),
        (_changed("id", 9, IDS[0]), "occurs twice"),
        (iemocap(id=np.zeros((COUNT, 2))), "id: row 0: the id is an array"),
        (iemocap(text=None, audio=None, vision=None), "nothing to learn from"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, columns, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, columns)
    assert "iemocap_data.pkl" in str(caught.value)


def test_splits_must_agree(tmp_path):
    tree = mmsa_tree(iemocap())
    del tree["test"]["vision"]
    with pytest.raises(DataError, match=r"\[test\]: field 'vision' is missing"):
        read(write(tmp_path, tree), "mine")
    tree = mmsa_tree(iemocap())
    tree["valid"]["audio"] = tree["valid"]["audio"][:-1]
    with pytest.raises(DataError, match=r"\[valid\] audio: 1 rows for 2 samples"):
        read(write(tmp_path, tree), "mine")
    tree = mmsa_tree(iemocap())
    tree["valid"] = {key: values[:0] for key, values in tree["valid"].items()}
    with pytest.raises(DataError, match="split valid is empty"):
        read(write(tmp_path, tree), "mine")


def test_names_of_one_column():
    ids, groups, times = sample_names(np.array([["Ses01F_script_M001"], ["other_1"]]), 2, "train", "f")
    assert (ids, groups, times) == (["Ses01F_script_M001", "other_1"], ["Ses01F_script", "other_1"], None)


def test_split_order_is_train_valid_test_whatever_the_file_says(tmp_path):
    tree = mmsa_tree(iemocap())
    record = read(write(tmp_path, {split: tree[split] for split in reversed(SPLITS)}), "mine")
    assert record.ids == IDS.tolist()


def test_ids_that_one_split_lacks_are_missed(tmp_path):
    tree = mmsa_tree(iemocap())
    del tree["valid"]["id"]
    with pytest.raises(DataError, match="field 'id' is missing in split valid"):
        read(write(tmp_path, tree), "mine")


def test_unpadded_samples_and_other_names(tmp_path):
    tree = mmsa_tree(iemocap())
    for split in SPLITS:
        rows = np.flatnonzero(split == STANDARD)
        tree[split]["covarep"] = [SAMPLES["audio"][row] for row in rows]
        tree[split]["facet"] = tree[split].pop("vision")
        del tree[split]["audio"]
    record = read(write(tmp_path, tree), "mine")
    for modality, samples in SAMPLES.items():
        assert_frames(record.features[modality], samples)
    assert "'covarep' read as audio" in record.notes


@pytest.mark.parametrize("key", ["id", "labels", "text", "audio", "vision"])
@pytest.mark.parametrize("kind", ANYTHING)
@pytest.mark.filterwarnings("error")
def test_a_field_of_any_type_is_read_or_refused_in_one_line(tmp_path, key, kind):
    tree = mmsa_tree(iemocap(labels=LABELS))
    tree["test"][key] = ANYTHING[kind]
    read_or_refuse(read, write(tmp_path, tree))
