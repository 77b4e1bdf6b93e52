"""ICT-MMMO: the padding rules on small files, and the counts of the real set where it is at hand."""

import os

import h5py
import numpy as np
import pytest

from mmsa_lib.data.sources import build, mmmo
from mmsa_lib.errors import DataError

SIZES = {"train": 3, "valid": 3, "test": 3}
WIDTHS = {"text": 4, "audio": 3, "vision": 2}
STEPS = 6


@pytest.fixture
def small(monkeypatch):
    """The reader with small sizes."""
    monkeypatch.setattr(mmmo, "SIZES", SIZES)
    monkeypatch.setattr(mmmo, "WIDTHS", WIDTHS)
    monkeypatch.setattr(mmmo, "STEPS", STEPS)


def frames(present: str, width: int) -> np.ndarray:
    """One sample from a picture such as ``..xx.x``: ``x`` a frame (its step number plus 1), ``.`` a zero frame."""
    steps = np.array([float(step + 1) if mark == "x" else 0.0 for step, mark in enumerate(present)])
    return np.repeat(steps[:, None], width, axis=1)


PICTURES = {
    "train": {"audio": ["xxxx..", "..xxxx", ".xxxx."], "vision": ["x.xx..", "......", "..xx.."]},
    "valid": {
        "text": ["xxxxxx", "..xxxx", "xx.x.."],
        "audio": ["xxxxxx", "..xxxx", "xxxx.."],
        "vision": ["xxxxxx", "...x.x", "xx...."],
    },
    "test": {
        "text": ["..xx..", "xxx...", "...xxx"],
        "audio": [".xxxx.", "xxx...", "...xxx"],
        "vision": ["xxxxxx", "xxx...", "...xxx"],
    },
}


@pytest.fixture
def files(small, tmp_path):
    paths = {}

    def write(name, values):
        paths[name] = tmp_path / name
        with h5py.File(paths[name], "w") as file:
            file["d1"] = values

    for split, pictures in PICTURES.items():
        for modality, samples in pictures.items():
            stem = {"text": f"text_{split}_emb.h5", "audio": f"audio_{split}.h5", "vision": f"video_{split}.h5"}
            write(stem[modality], np.stack([frames(picture, WIDTHS[modality]) for picture in samples]))
        write(f"y_{split}.h5", np.array([1.0, 3.0, 4.5]))
    return paths


def rows(record, name, sample):
    """First feature and observed flag of each frame of a sample."""
    features = record.features[name]
    first, last = features.offsets[sample : sample + 2]
    return features.values[first:last, 0].tolist(), features.observed[first:last].tolist()


def test_padding_on_either_side_is_shifted_away(files):
    record = mmmo.build(files)
    assert rows(record, "audio3", 0) == ([1, 2, 3, 4], [True] * 4)
    assert rows(record, "audio3", 1) == ([3, 4, 5, 6], [True] * 4)
    assert rows(record, "audio3", 2) == ([2, 3, 4, 5], [True] * 4)
    assert rows(record, "text4", 4) == ([3, 4, 5, 6], [True] * 4)


def test_zero_frames_inside_are_valid_but_not_observed(files):
    record = mmmo.build(files)
    assert rows(record, "vision2", 0) == ([1, 0, 3, 4], [True, False, True, True])
    assert rows(record, "vision2", 4) == ([0, 4, 0, 6], [False, True, False, True])
    assert rows(record, "text4", 5) == ([1, 2, 0, 4], [True, True, False, True])
    assert rows(record, "vision2", 5) == ([1, 2, 0, 0], [True, True, False, False])


def test_span_is_the_union_of_text_and_audio(files):
    """Sample test_0: audio is longer than text; vision frames outside the union are not part of the sample."""
    record = mmmo.build(files)
    assert rows(record, "audio3", 6) == ([2, 3, 4, 5], [True] * 4)
    assert rows(record, "text4", 6) == ([0, 3, 4, 0], [False, True, True, False])
    assert rows(record, "vision2", 6) == ([2, 3, 4, 5], [True] * 4)


def test_all_modalities_of_a_sample_stay_aligned(files):
    lengths = [features.lengths.tolist() for features in mmmo.build(files).features.values()]
    assert lengths[0] == lengths[1] == lengths[2] == [4, 4, 4, 6, 4, 4, 4, 3, 3]


def test_absent_training_text_is_unobserved_and_present_text_is_used(files, tmp_path):
    record = mmmo.build(files)
    assert rows(record, "text4", 1) == ([0] * 4, [False] * 4)
    assert any("training text is absent" in note for note in record.notes)

    files[mmmo.TRAINING_TEXT] = tmp_path / mmmo.TRAINING_TEXT
    with h5py.File(files[mmmo.TRAINING_TEXT], "w") as file:
        file["d1"] = np.stack([frames(picture, 4) for picture in ("xxxx..", "..xxxx", "xxxxx.")])
    record = mmmo.build(files)
    assert rows(record, "text4", 1) == ([3, 4, 5, 6], [True] * 4)
    assert rows(record, "audio3", 2) == ([0, 2, 3, 4, 5], [False, True, True, True, True])
    assert not any("training text is absent" in note for note in record.notes)


def test_folds_labels_and_defaults(files):
    record = mmmo.build(files)
    assert record.folds["standard"].tolist() == ["train"] * 3 + ["valid"] * 3 + ["test"] * 3
    complete = [record.folds[f"complete_cv-{k}"] for k in range(5)]
    assert all((fold[:3] == "").all() and (fold[3:] != "").all() for fold in complete)
    assert record.labels.tolist() == [1, 3, 4.5] * 3
    assert record.defaults == {"*": {"text": "text4", "audio": "audio3", "vision": "vision2"}}
    assert set(record.defaults["*"].values()) == set(record.features)


def test_wrong_files_are_named(files):
    with pytest.raises(DataError, match=r"audio_train\.h5 is needed"):
        mmmo.build({name: path for name, path in files.items() if name != "audio_train.h5"})
    with h5py.File(files["audio_test.h5"], "a") as file:
        file["d1"][1, 2, 0] = np.nan
    with pytest.raises(DataError, match=r"audio_test\.h5: array 'd1' holds NaN"):
        mmmo.build(files)
    with h5py.File(files["video_valid.h5"], "w") as file:
        file["d1"] = np.zeros((3, STEPS, 7))
    with pytest.raises(DataError, match=r"video_valid\.h5: array 'd1' has shape \(3, 6, 7\), expected \(3, 6, 2\)"):
        mmmo.build(files)
    with h5py.File(files["y_train.h5"], "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(DataError, match=r"y_train\.h5: array 'd1' can't be read"):
        mmmo.build({**files, "video_valid.h5": files["video_train.h5"], "audio_test.h5": files["audio_valid.h5"]})


@pytest.fixture(scope="module")
def originals():
    """The arrays of the real files, read without the library."""
    if not os.environ.get("MMSA_LIB_MIRROR"):
        pytest.skip("MMSA_LIB_MIRROR is not set")
    folder = os.path.join(os.environ["MMSA_LIB_MIRROR"], "ict-mmmo")
    names = [name for name in os.listdir(folder) if name.endswith(".h5")]
    return {name: h5py.File(os.path.join(folder, name))["d1"][()] for name in names}


def sides(values: np.ndarray) -> list[int]:
    """Samples that are padded on the left only, on the right only, not at all; ``(N, T, d)``."""
    found = [0, 0, 0]
    for sample in values:
        left, right = not sample[0].any(), not sample[-1].any()
        if not (left and right):
            found[0 if left else 1 if right else 2] += 1
    return found


def inner_zeros(values: np.ndarray) -> int:
    """Zero steps between the first and the last step that is not zero, step by step."""
    count = 0
    for sample in values:
        present = [step for step in range(len(sample)) if sample[step].any()]
        count += present[-1] - present[0] + 1 - len(present)
    return count


@pytest.mark.real_data
def test_padding_counts_of_the_originals(originals):
    assert sides(originals["text_test_emb.h5"]) == [10, 25, 45]
    assert sides(originals["text_valid_emb.h5"]) == [5, 10, 25]
    for split, steps in (("valid", 1), ("test", 2)):
        text, audio = originals[f"text_{split}_emb.h5"].any(-1), originals[f"audio_{split}.h5"].any(-1)
        assert int((text != audio).sum()) == int((audio & ~text).sum()) == steps
        assert inner_zeros(originals[f"text_{split}_emb.h5"]) == steps
        assert inner_zeros(originals[f"audio_{split}.h5"]) == 0
    assert [inner_zeros(originals[f"video_{split}.h5"]) for split in ("valid", "test", "train")] == [65, 144, 438]


@pytest.mark.real_data
def test_whole_set(originals):
    record = build("mmmo")
    assert len(record) == 340
    start = 0
    for split, size in (("train", 220), ("valid", 40), ("test", 80)):
        for row in range(size):
            audio = originals[f"audio_{split}.h5"][row]
            spoken = np.flatnonzero(audio.any(-1))
            span = slice(spoken[0], spoken[-1] + 1)
            sample = start + row
            for name, key in (("audio74", f"audio_{split}.h5"), ("vision36", f"video_{split}.h5")):
                features = record.features[name]
                first, last = features.offsets[sample : sample + 2]
                expected = originals[key][row][span]
                np.testing.assert_array_equal(features.values[first:last], expected.astype("f4"))
                np.testing.assert_array_equal(features.observed[first:last], expected.any(-1))
        start += size
    text = record.features["text300"]
    train_frames = int(text.lengths[:220].sum())
    if "text_train_emb.h5" not in originals:
        assert not text.observed[:train_frames].any()
    assert int((~text.observed[train_frames:]).sum()) == 3
    for split, mean, median in (("train", 3.361, 4.0), ("valid", 3.488, 4.0), ("test", 3.594, 4.5)):
        labels = record.labels[record.folds["standard"] == split]
        assert labels.mean() == pytest.approx(mean, abs=6e-4)
        assert np.median(labels) == median
