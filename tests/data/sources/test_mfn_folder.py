"""MFN's HDF5 folders: joint and apart, padding on mixed sides, missing frames, missing training text."""

import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
from layout_files import COUNT, LABELS, STANDARD, assert_frames, by_split, padded

from mmsa_lib.data import hdf5
from mmsa_lib.data.sources import build, mfn_folder
from mmsa_lib.data.sources.mfn_folder import JOINT_WIDTHS, read
from mmsa_lib.data.task import regression
from mmsa_lib.data.validate import check_record
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
    with pytest.raises(DataError, match=r"y_valid\.h5: label nan of sample 'valid_1'"):
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


def _linked(path):
    path.unlink()
    path.symlink_to("../.git/annex/objects/x")


def _as_folder(path):
    path.unlink()
    path.mkdir()


def _edited(change):
    def edit(path):
        with h5py.File(path, "a") as file:
            change(file)

    return edit


def _external(file):
    del file["d1"]
    file["d1"] = h5py.ExternalLink("other.h5", "/d1")


def _elsewhere(file):
    del file["d1"]
    file.create_dataset("d1", (6, STEPS, 5), "u1", external=[("other.raw", 0, 6 * STEPS * 5)])


def _announcing(file):
    del file["d1"]
    file.create_dataset("d1", (6, 10**9, 5), "f4", chunks=(1, 1000, 5))


def _of(values):
    def change(file):
        (key,) = file
        del file[key]
        file[key] = values

    return change


LOST = {
    "link": (_linked, "which is not here"),
    "folder": (_as_folder, "an empty folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-500]), "is truncated"),
    "external link": (_edited(_external), "refers to another file"),
    "external storage": (_edited(_elsewhere), "in another file"),
    "announced": (_edited(_announcing), "announces"),
    "group": (_edited(lambda file: file.move("d1", "group/d1")), "expected one array, found none"),
    "nothing": (_edited(_of(h5py.Empty("f4"))), "no array of samples"),
    "scalar": (_edited(_of(3.0)), "no array of samples"),
    "complex": (_edited(_of(np.ones((6, STEPS, 5), complex))), "expected numbers"),
    "strings": (_edited(_of(["a"] * 6)), "values of variable length"),
    "no frames": (_edited(_of(np.ones((6, 0, 5)))), "expected numbers"),
    "fewer": (_edited(_of(np.ones((5, STEPS, 5)))), "6 labels and"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_or_wrong_array_is_refused_in_one_line(tmp_path, kind):
    change, said = LOST[kind]
    change(write_apart(tmp_path) / "audio_train.h5")
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, "mine")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("change", [_linked, _as_folder, lambda path: path.unlink(), _edited(_of(np.ones((6, 0, 3))))])
def test_lost_labels_are_refused(tmp_path, change):
    change(write_apart(tmp_path) / "y_train.h5")
    with pytest.raises(DataError, match=r"y_train\.h5"):
        read(tmp_path, "mine")


def test_a_split_without_one_of_its_arrays_is_said(tmp_path):
    (write_apart(tmp_path) / "audio_train.h5").unlink()
    record = read(tmp_path, "mine")
    assert "split train has no audio, which counts as missing there" in record.notes
    found = [str(problem) for problem in check_record(record)]
    assert any(f.startswith("features/audio: missing for all 6 samples of split train") for f in found)


def test_other_names_are_read_and_other_files_are_named(tmp_path):
    write_apart(tmp_path)
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        (tmp_path / f"video_{split}.h5").rename(tmp_path / f"facet_{name}.h5")
    (tmp_path / "y_valid.h5").rename(tmp_path / "y_dev.h5")
    (tmp_path / "README.md").touch()
    _edited(lambda file: file.create_group("meta"))(tmp_path / "audio_test.h5")
    record = read(tmp_path, "mine")
    for modality, samples in SAMPLES.items():
        assert_frames(record.features[modality], samples)
    assert "not read: README.md, audio_test.h5/meta" in record.notes
    _write(tmp_path, "covarep_train.h5", ARRAYS["audio"][:6])
    with pytest.raises(DataError, match=r"has both audio_train\.h5 and covarep_train\.h5"):
        read(tmp_path, "mine")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_damaged_arrays_lose_no_sample(tmp_path, compression):
    generator = random.Random(0)
    path = write_apart(tmp_path) / "audio_train.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d1", data=ARRAYS["audio"][:6], compression=compression)
    whole = path.read_bytes()
    for _ in range(60):
        start = generator.randrange(len(whole))
        damaged = bytearray(whole[:start] if generator.random() < 0.3 else whole)
        damaged[start : start + generator.choice((1, 4, 64))] = generator.randbytes(generator.choice((0, 1, 64)))
        path.write_bytes(damaged)
        found = _frames_or_error(path)
        assert isinstance(found, str) or found.shape == (6, STEPS, 5)
        assert not isinstance(found, str) or "\n" not in found


def _frames_or_error(path):
    try:
        return mfn_folder._frames(path, [])
    except DataError as error:
        return str(error)
