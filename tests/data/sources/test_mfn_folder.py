"""MFN's HDF5 folders: joint and apart, padding on mixed sides, missing frames, missing training text."""

import random

import h5py
import numpy as np
import pytest
from damaged_files import damaged
from layout_files import (
    COUNT,
    FRAMES,
    LABELS,
    LENGTHS,
    STEPS,
    WIDTHS,
    assert_frames,
    by_split,
    observed_of,
    padded,
    write_array,
    write_layout,
)

from mmsa_lib.data import hdf5
from mmsa_lib.data.sources import build
from mmsa_lib.data.sources.mfn_folder import read
from mmsa_lib.data.task import regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

SIDES = [row % 3 == 1 for row in range(COUNT)]


@pytest.fixture
def joint(tmp_path):
    frames = np.concatenate([padded(samples, left=SIDES) for samples in FRAMES.values()], axis=2)
    for name, column in (("X", frames), ("y", LABELS)):
        for split, values in by_split(column).items():
            write_array(tmp_path / f"{name}_{split}.h5", values)
    return tmp_path


@pytest.fixture
def apart(tmp_path):
    return write_layout("mfn", tmp_path, SIDES)


def test_joint_files_are_cut_into_modalities(joint):
    record = read(joint, "mine")
    for modality, samples in FRAMES.items():
        assert_frames(record.features[modality], samples)
        assert record.features[modality].observed.all()
        assert record.features[modality].level == "word"
    assert (record.ids[0], record.ids[-1]) == ("train_0", "test_1")
    assert record.repairs["all modalities: samples padded on the left, shifted"] == sum(SIDES)


def test_a_zero_step_inside_is_missing_and_steps_are_shared(tmp_path):
    frames = {m: [values.copy() for values in samples] for m, samples in FRAMES.items()}
    frames["vision"][2][1] = 0  # a face that was not found
    frames["text"][2][0] = 0  # a word without a vector; audio says that there is one
    write_layout("mfn", tmp_path, **frames)
    vision = padded(frames["vision"])
    vision[2, LENGTHS[2] :] = 1  # vision outside the words counts for nothing
    write_array(tmp_path / "video_train.h5", by_split(vision)["train"])
    record = read(tmp_path, "mine")
    assert {f.lengths.tolist()[2] for f in record.features.values()} == {LENGTHS[2]}
    assert observed_of(record.features["vision"])[2].tolist() == [True, False]
    assert observed_of(record.features["text"])[2].tolist() == [False, True]
    assert observed_of(record.features["audio"])[2].all()


def test_a_split_may_lack_a_modality_which_is_said(apart):
    (apart / "text_train.h5").unlink()
    record = read(apart, "mine")
    text, offsets = record.features["text"], record.features["text"].offsets
    assert text.lengths.tolist() == LENGTHS
    assert not text.observed[: offsets[6]].any()
    assert text.observed[offsets[6] :].all()
    assert record.features["audio"].observed.all()
    assert "split train has no text, which counts as missing there" in record.notes
    found = [str(problem) for problem in check_record(record)]
    assert any(f.startswith("features/text: missing for all 6 samples of split train") for f in found)


def test_other_files_are_looked_at_by_one_process_and_not_followed_elsewhere(joint, monkeypatch):
    asked = []
    probe = hdf5._probe
    monkeypatch.setattr(hdf5, "_probe", lambda paths: asked.append(len(paths)) or probe(paths))
    read(joint, "mine")
    assert asked == [6]
    with h5py.File(joint / "X_test.h5", "w") as file:
        file.create_dataset("data", (2, 3, 325), "u1", external=[("/etc/passwd", 0, 2 * 3 * 325)])
    with pytest.raises(DataError, match=r"X_test\.h5 keeps /data in another file"):
        read(joint, "mine")


def test_the_label_range_of_ict_mmmo(tmp_path):
    assert read(write_layout("mfn", tmp_path, labels=LABELS / 3 * 2 + 3), "mine").task == regression((1, 5))
    write_layout("mfn", tmp_path, labels=np.clip(LABELS, 1, 3))
    assert read(tmp_path, "mine").task == regression((-3, 3))
    assert read(tmp_path, "mine", task=regression((1, 5))).task == regression((1, 5))


def test_other_names_are_read_and_other_files_are_named(apart):
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        (apart / f"video_{split}.h5").rename(apart / f"facet_{name}.h5")
    (apart / "y_valid.h5").rename(apart / "y_dev.h5")
    (apart / "text_test.h5").rename(apart / "text_test_emb.h5")
    (apart / "README.md").touch()
    _edit(lambda file: file.create_group("meta"))(apart / "audio_test.h5")
    record = read(apart, "mine")
    for modality, samples in FRAMES.items():
        assert_frames(record.features[modality], samples)
    assert "not read: README.md, audio_test.h5/meta" in record.notes
    write_array(apart / "covarep_train.h5", np.ones(6))
    with pytest.raises(DataError, match=r"has both audio_train\.h5 and covarep_train\.h5"):
        read(apart, "mine")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((2, STEPS, 324)), r"X_valid\.h5: 324 columns, expected 325"),
        (np.ones((1, STEPS, 325)), r"\[valid\]: 2 labels and"),
        (np.ones((2, 325)), r"X_valid\.h5: shape"),
        ("<html>", r"X_valid\.h5 is not an HDF5 file: it seems to be a web page"),
        (None, r"X_valid\.h5 is missing"),
    ],
)
def test_a_wrong_joint_file_is_named(joint, values, said):
    path = joint / "X_valid.h5"
    path.unlink()
    if isinstance(values, str):
        path.write_text(values)
    elif values is not None:
        write_array(path, values)
    with pytest.raises(DataError, match=said):
        read(joint, "mine")


def test_what_is_no_folder_of_mfn(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read(tmp_path / "nothing", "mine")
    with pytest.raises(DataError, match=r"no file for split train.* an empty folder"):
        read(tmp_path, "mine")


def _linked(path):
    path.unlink()
    path.symlink_to("../.git/annex/objects/x")


def _as_folder(path):
    path.unlink()
    path.mkdir()


def _edit(change):
    def edit(path):
        with h5py.File(path, "a") as file:
            change(file)

    return edit


def _instead(fill):
    """An edit that puts something in place of the array."""

    def change(file):
        del file["data"]
        fill(file)

    return _edit(change)


def _of(values):
    return _instead(lambda file: file.create_dataset("data", data=values))


def _elsewhere(file):
    file.create_dataset("data", (6, STEPS, 5), "u1", external=[("other.raw", 0, 6 * STEPS * 5)])


def _external(file):
    file["data"] = h5py.ExternalLink("other.h5", "/data")


LOST = {
    "link": (_linked, "which is not here"),
    "folder": (_as_folder, "an empty folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-500]), "is truncated"),
    "external link": (_instead(_external), "refers to another file"),
    "external storage": (_instead(_elsewhere), "in another file"),
    "announced": (
        _instead(lambda file: file.create_dataset("data", (6, 10**9, 5), "f4", chunks=(1, 1000, 5))),
        "announces",
    ),
    "group": (_edit(lambda file: file.move("data", "group/data")), "expected one array, found none"),
    "two": (_edit(lambda file: file.create_dataset("other", data=1)), "expected one array, found data, other"),
    "nothing": (_of(h5py.Empty("f4")), "no array of samples"),
    "scalar": (_of(3.0), "no array of samples"),
    "complex": (_of(np.ones((6, STEPS, 5), complex)), "expected numbers|complex128"),
    "strings": (_of(["a"] * 6), "values of variable length"),
    "no frames": (_of(np.ones((6, 0, 5))), r"expected numbers|shape \(6, 0, 5\)"),
    "fewer": (_of(np.ones((5, STEPS, 5))), "6 labels and|for 5 samples"),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("name", ["audio_train.h5", "y_train.h5"])
def test_a_lost_or_wrong_array_is_refused_in_one_line(apart, name, kind):
    change, said = LOST[kind]
    change(apart / name)
    with pytest.raises(DataError, match=said) as caught:
        read(apart, "mine")
    assert "\n" not in str(caught.value)
    assert str(apart) in str(caught.value)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_damaged_arrays_lose_no_sample(apart, compression):
    path, generator = apart / "audio_train.h5", random.Random(0)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=padded(FRAMES["audio"])[:6], compression=compression)
    whole = path.read_bytes()
    for _ in range(40):
        path.write_bytes(damaged(whole, generator))
        try:
            assert read(apart, "mine").features["audio"].width == WIDTHS["audio"]
        except DataError as error:
            said = str(error)
            assert "\n" not in said


@pytest.mark.real_data
def test_ict_mmmo_equals_its_own_reader(mirror):
    record = read(mirror / "ict-mmmo", "mine")
    other = build("mmmo", mirror, progress=False)
    assert record.task == other.task
    np.testing.assert_array_equal(record.labels, other.labels)
    for one, two in zip(record.features.values(), other.features.values(), strict=True):
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_array_equal(one.lengths, two.lengths)
        np.testing.assert_array_equal(one.observed, two.observed)
    assert any("github.com/pliang279/MFN" in note for note in record.notes)
