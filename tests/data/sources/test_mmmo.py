"""ICT-MMMO: the padding rules on small files, and the counts of the real set where it is at hand."""

import h5py
import numpy as np
import pytest
from layout_files import write_array

from mmsa_lib.data.sources import build, mmmo
from mmsa_lib.errors import DataError

WIDTHS, STEPS = {"text": 4, "audio": 3, "vision": 2}, 6
FILES = {"text": "text_{}_emb.h5", "audio": "audio_{}.h5", "vision": "video_{}.h5"}
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


def frames(pictures, width: int) -> np.ndarray:
    """Samples from pictures such as ``..xx.x``: ``x`` a frame (its step number plus 1), ``.`` a zero frame."""
    steps = [[step + 1.0 if mark == "x" else 0 for step, mark in enumerate(picture)] for picture in pictures]
    return np.repeat(np.array(steps)[..., None], width, axis=2)


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setattr(mmmo, "SIZES", {"train": 3, "valid": 3, "test": 3})
    monkeypatch.setattr(mmmo, "WIDTHS", WIDTHS)
    monkeypatch.setattr(mmmo, "STEPS", STEPS)
    arrays = {f"y_{split}.h5": np.array([1.0, 3.0, 4.5]) for split in PICTURES}
    arrays |= {FILES[m].format(s): frames(rows, WIDTHS[m]) for s, of in PICTURES.items() for m, rows in of.items()}
    return {name: write_array(tmp_path / name, values, "d1") for name, values in arrays.items()}


def rows(record, name, sample):
    """First feature of each frame of a sample, ``None`` where it is not observed."""
    features = record.features[name]
    span = slice(*features.offsets[sample : sample + 2])
    pairs = zip(features.values[span, 0].tolist(), features.observed[span].tolist(), strict=True)
    return [value if seen else None for value, seen in pairs]


@pytest.mark.parametrize(
    ("name", "sample", "expected"),
    [
        # padding on either side is shifted away
        ("audio3", 0, [1, 2, 3, 4]),
        ("audio3", 1, [3, 4, 5, 6]),
        ("audio3", 2, [2, 3, 4, 5]),
        ("text4", 4, [3, 4, 5, 6]),
        # zero frames inside are valid but not observed
        ("vision2", 0, [1, None, 3, 4]),
        ("vision2", 4, [None, 4, None, 6]),
        ("text4", 5, [1, 2, None, 4]),
        ("vision2", 5, [1, 2, None, None]),
        # the span is the union of text and audio; vision frames outside are not part of the sample
        ("audio3", 6, [2, 3, 4, 5]),
        ("text4", 6, [None, 3, 4, None]),
        ("vision2", 6, [2, 3, 4, 5]),
        # absent training text
        ("text4", 1, [None] * 4),
    ],
)
def test_frames_of_a_sample(files, name, sample, expected):
    assert rows(mmmo.build(files), name, sample) == expected


def test_all_modalities_stay_aligned_in_folds_with_labels_and_defaults(files):
    record = mmmo.build(files)
    assert {tuple(f.lengths.tolist()) for f in record.features.values()} == {(4, 4, 4, 6, 4, 4, 4, 3, 3)}
    assert record.folds["standard"].tolist() == ["train"] * 3 + ["valid"] * 3 + ["test"] * 3
    complete = [record.folds[f"complete_cv-{k}"] for k in range(5)]
    assert all((fold[:3] == "").all() and (fold[3:] != "").all() for fold in complete)
    assert record.labels.tolist() == [1, 3, 4.5] * 3
    assert record.defaults == {"*": {"text": "text4", "audio": "audio3", "vision": "vision2"}}
    assert any("training text is absent" in note for note in record.notes)


def test_present_training_text_is_used(files, tmp_path):
    values = frames(("xxxx..", "..xxxx", "xxxxx."), 4)
    record = mmmo.build(files | {mmmo.TRAINING_TEXT: write_array(tmp_path / mmmo.TRAINING_TEXT, values, "d1")})
    assert rows(record, "text4", 1) == [3, 4, 5, 6]
    assert rows(record, "audio3", 2) == [None, 2, 3, 4, 5]
    assert not any("training text is absent" in note for note in record.notes)


@pytest.mark.parametrize(
    ("name", "key", "values", "said"),
    [
        ("audio_train.h5", "", None, r"audio_train\.h5 is needed"),
        ("audio_test.h5", "d1", np.full((3, STEPS, 3), np.nan), r"audio_test\.h5: array 'd1' holds NaN"),
        ("video_valid.h5", "d1", np.zeros((3, STEPS, 7)), r"has shape \(3, 6, 7\), expected \(3, 6, 2\)"),
        ("y_train.h5", "other", np.zeros(3), r"y_train\.h5: array 'd1' can't be read"),
    ],
)
def test_wrong_files_are_named(files, name, key, values, said):
    path = files.pop(name)
    if values is not None:
        files[name] = write_array(path, values, key)
    with pytest.raises(DataError, match=said):
        mmmo.build(files)


@pytest.fixture(scope="module")
def originals(mirror):
    """The arrays of the real files, read without the library."""
    return {path.name: h5py.File(path)["d1"][()] for path in (mirror / "ict-mmmo").glob("*.h5")}


def inner_zeros(values: np.ndarray) -> int:
    """Zero steps between the first and the last step that is not zero, step by step."""
    count = 0
    for sample in values:
        present = [step for step in range(len(sample)) if sample[step].any()]
        count += present[-1] - present[0] + 1 - len(present)
    return count


@pytest.mark.real_data
def test_padding_counts_of_the_originals(originals):
    for name, expected in (("text_test_emb.h5", [10, 25, 45]), ("text_valid_emb.h5", [5, 10, 25])):
        left, right = ~originals[name][:, 0].any(-1), ~originals[name][:, -1].any(-1)  # padded on that side
        assert [int((left & ~right).sum()), int((right & ~left).sum()), int((~left & ~right).sum())] == expected
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
            spoken = np.flatnonzero(originals[f"audio_{split}.h5"][row].any(-1))
            for name, key in (("audio74", f"audio_{split}.h5"), ("vision36", f"video_{split}.h5")):
                features = record.features[name]
                first, last = features.offsets[start + row : start + row + 2]
                expected = originals[key][row][spoken[0] : spoken[-1] + 1]
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
