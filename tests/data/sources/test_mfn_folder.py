"""MFN's HDF5 folders: joint and apart, padding on mixed sides, missing frames, missing training text."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from layout_files import COUNT, LABELS, STANDARD, assert_frames, by_split, padded

from mmsa_lib.data import hdf5
from mmsa_lib.data.check import check_record
from mmsa_lib.data.sources import build
from mmsa_lib.data.sources.mfn_folder import JOINT_WIDTHS, read
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

STEPS = 8
GENERATOR = np.random.default_rng(11)
LENGTHS = GENERATOR.integers(3, STEPS, COUNT)
SIDES = [bool(side) for side in GENERATOR.integers(0, 2, COUNT)]
SAMPLES = {m: [GENERATOR.uniform(1, 2, (n, width)) for n in LENGTHS] for m, width in JOINT_WIDTHS.items()}
ARRAYS = {m: padded(samples, STEPS, SIDES) for m, samples in SAMPLES.items()}
FILES = {"text": "text_{}_emb.h5", "audio": "audio_{}.h5", "vision": "video_{}.h5"}


def _write(folder, name, values, key="data"):
    with h5py.File(folder / name, "w") as file:
        file[key] = values


def write_joint(folder, arrays=None, labels=LABELS):
    joint = np.concatenate([(arrays or ARRAYS)[m] for m in JOINT_WIDTHS], axis=2)
    for split, values in by_split(joint).items():
        _write(folder, f"X_{split}.h5", values)
    write_labels(folder, labels)
    return folder


def write_apart(folder, arrays=None, labels=LABELS, key="d1"):
    for modality, array in (arrays or ARRAYS).items():
        for split, values in by_split(array).items():
            _write(folder, FILES[modality].format(split), values, key)
    write_labels(folder, labels)
    return folder


def write_labels(folder, labels):
    for split, values in by_split(labels).items():
        _write(folder, f"y_{split}.h5", values)


@pytest.mark.parametrize("arrange", [write_joint, write_apart])
def test_both_arrangements(tmp_path, arrange):
    record = read(arrange(tmp_path), "mine")
    for modality, samples in SAMPLES.items():
        assert_frames(record.features[modality], samples)
        assert record.features[modality].observed.all()
        assert record.features[modality].level == "word"
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.task == regression((-3, 3))
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.ids[0] == "train_0"
    assert record.ids[-1] == "test_1"
    assert record.repairs["all modalities: samples padded on the left, shifted"] == sum(SIDES)
    assert [p for p in check_record(record) if p.severity == "error"] == []


def test_a_zero_step_inside_is_missing_and_steps_are_shared(tmp_path):
    arrays = {m: values.copy() for m, values in ARRAYS.items()}
    start = STEPS - LENGTHS[2] if SIDES[2] else 0
    arrays["vision"][2, start + 1] = 0  # a face that was not found
    arrays["text"][2, start] = 0  # a word without a vector; audio says that there is one
    arrays["vision"][2, : start + 1] = 1  # vision outside the words counts for nothing
    record = read(write_apart(tmp_path, arrays), "mine")
    rows = slice(*record.features["vision"].offsets[[2, 3]])
    assert {f.lengths.tolist()[2] for f in record.features.values()} == {int(LENGTHS[2])}
    inner = [True] * (int(LENGTHS[2]) - 2)
    assert record.features["vision"].observed[rows].tolist() == [True, False, *inner]
    assert record.features["text"].observed[rows].tolist() == [False, True, *inner]
    assert record.features["audio"].observed[rows].all()


def test_training_text_may_be_absent(tmp_path):
    write_apart(tmp_path)
    (tmp_path / "text_train_emb.h5").unlink()
    record = read(tmp_path, "mine")
    text, offsets = record.features["text"], record.features["text"].offsets
    assert text.lengths.tolist() == LENGTHS.tolist()
    assert not text.observed[: offsets[6]].any()
    assert text.observed[offsets[6] :].all()
    assert record.features["audio"].observed.all()


def test_other_files_are_looked_at_by_one_process_and_not_followed_elsewhere(tmp_path, monkeypatch):
    write_joint(tmp_path)
    asked = []
    probe = hdf5._probe
    monkeypatch.setattr(hdf5, "_probe", lambda paths: asked.append(len(paths)) or probe(paths))
    read(tmp_path, "mine")
    assert asked == [6]
    with h5py.File(tmp_path / "X_test.h5", "w") as file:
        file.create_dataset("data", (2, 3, 325), "u1", external=[("/etc/passwd", 0, 2 * 3 * 325)])
    with pytest.raises(DataError, match=r"X_test\.h5 keeps /data in another file"):
        read(tmp_path, "mine")


def test_the_label_range_of_ict_mmmo(tmp_path):
    assert read(write_apart(tmp_path, labels=LABELS / 3 * 2 + 3), "mine").task == regression((1, 5))
    write_labels(tmp_path, np.clip(LABELS, 1, 3))
    assert read(tmp_path, "mine").task == regression((-3, 3))
    assert read(tmp_path, "mine", task=regression((1, 5))).task == regression((1, 5))


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read(tmp_path / "nothing", "mine")
    with pytest.raises(DataError, match=r"no file for split train.* an empty folder"):
        read(tmp_path, "mine")
    write_joint(tmp_path)
    _write(tmp_path, "X_valid.h5", np.ones((2, STEPS, 324)))
    with pytest.raises(DataError, match=r"X_valid\.h5: 324 columns, expected 325"):
        read(tmp_path, "mine")
    _write(tmp_path, "X_valid.h5", np.ones((1, STEPS, 325)))
    with pytest.raises(DataError, match=r"\[valid\]: 2 labels and"):
        read(tmp_path, "mine")
    _write(tmp_path, "X_valid.h5", np.ones((2, 325)))
    with pytest.raises(DataError, match=r"X_valid\.h5: shape"):
        read(tmp_path, "mine")
    (tmp_path / "X_valid.h5").write_text("<html>")
    with pytest.raises(DataError, match=r"X_valid\.h5 is not an HDF5 file: it seems to be a web page"):
        read(tmp_path, "mine")
    (tmp_path / "X_valid.h5").unlink()
    with pytest.raises(DataError, match=r"X_valid\.h5 is missing"):
        read(tmp_path, "mine")


def test_wrong_labels_are_named(tmp_path):
    labels = LABELS.copy()
    labels[7] = np.nan
    with pytest.raises(DataError, match=r"y_valid\.h5: the label of sample 'valid_1' is nan"):
        read(write_apart(tmp_path, labels=labels), "mine")
    with h5py.File(tmp_path / "y_valid.h5", "a") as file:
        file["other"] = 1
    with pytest.raises(DataError, match="expected one array, found data, other"):
        read(tmp_path, "mine")


@pytest.mark.real_data
def test_ict_mmmo_equals_its_own_reader():
    mirror = os.environ.get("MMSA_LIB_MIRROR")
    if not mirror:
        pytest.skip("MMSA_LIB_MIRROR is not set")
    record = read(Path(mirror) / "ict-mmmo", "mine")
    other = build("mmmo", Path(mirror), progress=False)
    assert record.task == other.task
    np.testing.assert_array_equal(record.labels, other.labels)
    for one, two in zip(record.features.values(), other.features.values(), strict=True):
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_array_equal(one.lengths, two.lengths)
        np.testing.assert_array_equal(one.observed, two.observed)
    assert any("github.com/pliang279/MFN" in note for note in record.notes)
