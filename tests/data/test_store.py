"""One record through the store and back, and every way in which a store can be unfit to read."""

import time
from dataclasses import fields

import h5py
import numpy as np
import pytest
from store_records import emotion_record, full_record

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.store import fingerprint, list_features, read_header, read_spans, read_store, write_store
from mmsa_lib.errors import DataError, UnknownNameError


def assert_same(one, other):
    """Equal field by field, arrays by value and type."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif hasattr(one, "__dataclass_fields__"):
        for part in fields(one):
            assert_same(getattr(one, part.name), getattr(other, part.name))
    else:
        assert one == other


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "tiny.h5"
    write_store(full_record(), path)
    return path


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize("record", [full_record(), emotion_record()], ids=["full", "emotions"])
def test_a_record_comes_back_as_it_was(tmp_path, record):
    written = write_store(record, tmp_path / "a.h5")
    back = read_store(tmp_path / "a.h5")
    assert_same(record, back)
    assert written == fingerprint(record) == fingerprint(back) == read_header(tmp_path / "a.h5")["fingerprint"]


def test_a_record_without_optional_parts_comes_back_as_it_was(tmp_path):
    full = full_record()
    bare = DatasetRecord("bare", full.task, full.ids, full.groups, full.labels, {"standard": full.folds["standard"]})
    write_store(bare, tmp_path / "bare.h5")
    assert_same(bare, read_store(tmp_path / "bare.h5"))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    write_store(full_record(), tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 time stamps count seconds
    write_store(full_record(), tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_only_the_feature_sets_asked_for_are_read(store):
    record = read_store(store, features=["audio5"])
    assert list(record.features) == ["audio5"]
    assert record.defaults == {"*": {"text": "words", "audio": "audio5"}, "by/part": {}}
    assert read_store(store, features=()).features == {}
    with pytest.raises(UnknownNameError, match=r"'audio6'; did you mean audio5\?"):
        read_store(store, features=["audio6"])


def test_runs_of_frames_are_read_without_the_rest(store):
    whole = full_record().features["audio5"]
    first, second = read_spans(store, "audio5", [(3, 8), (20, 24)])
    np.testing.assert_array_equal(first, whole.values[3:8])
    np.testing.assert_array_equal(second, whole.values[20:24])
    listed = list_features(store)["audio5"]
    np.testing.assert_array_equal(listed.lengths, whole.lengths)
    assert listed.values.shape == whole.values.shape
    with pytest.raises(UnknownNameError, match="vision3"):
        read_spans(store, "vision", [(0, 1)])


def test_a_truncated_file_is_named_with_the_remedy(store):
    store.write_bytes(store.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"tiny\.h5 is truncated .*; build or import") as caught:
        read_store(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"<html>not found</html>" * 200, "is not an HDF5 file")]
)
def test_a_file_of_another_kind_is_named(tmp_path, content, reason):
    (tmp_path / "odd.h5").write_bytes(content)
    with pytest.raises(DataError, match=rf"odd\.h5 {reason}"):
        read_store(tmp_path / "odd.h5")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            read_store(path)


def test_hdf5_of_another_layout_is_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["X"] = np.zeros(3)
    with pytest.raises(DataError, match="not a data set of mmsa_lib: it seems to be an HDF5 file"):
        read_store(tmp_path / "foreign.h5")


def test_a_store_of_a_newer_release_is_refused(store):
    edit(store, lambda file: file.attrs.modify("version", 99))
    with pytest.raises(DataError, match=r"newer release .*layout 99.*; upgrade mmsa_lib"):
        read_store(store)


def test_a_flipped_byte_inside_the_features_is_noticed(store):
    with h5py.File(store) as file:
        chunk = file["features/audio5/values"].id.get_chunk_info(0)
    content = bytearray(store.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    store.write_bytes(content)
    with pytest.raises(DataError, match=r"tiny\.h5.*(is damaged|changed|NaN)"):
        read_store(store)


def replace_first(path, value):
    def change(file):
        values = file[path][()]
        values.flat[0] = value
        file[path][...] = values

    return change


def shorten(path):
    def change(file):
        values = file[path][()]
        del file[path]
        file[path] = values[:-1]

    return change


def only_training(file):
    file["folds/standard"][...] = file["folds/standard"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            replace_first("features/audio5/values", np.nan),
            r"features/audio5: 1 frames hold NaN .* sample 'video0_1'; set",
        ),
        (replace_first("features/vision3/values", np.inf), "features/vision3: 1 frames hold NaN or infinite"),
        (replace_first("labels", 7), r"labels: 1 labels are outside \[-3, 3\], first 7 of sample 'video0_1'; correct"),
        (replace_first("labels", np.nan), "labels: 1 labels are outside .* first nan of sample 'video0_1'"),
        (shorten("labels"), r"labels: shape \(7,\), expected \(8,\)"),
        (shorten("features/audio5/lengths"), "features/audio5: 7 lengths for 8 samples"),
        (shorten("features/audio5/values"), "features/audio5: lengths add up to 24, values have 23 rows"),
        (shorten("transcripts"), "transcripts: 7 entries for 8 samples"),
        (only_training, "folds/standard: no sample in valid and test; assign"),
        (replace_first("labels", 1), "labels changed since the store was written; build or import"),
        (lambda file: file.pop("words"), "words changed since the store was written"),
        (lambda file: file.pop("features/audio5"), "defaults: audio of fold '.' is 'audio5', which is not here"),
        (lambda file: file.pop("ids"), "is damaged .*ids"),
        (lambda file: file.attrs.pop("task"), "is damaged .*task"),
        (lambda file: file.attrs.modify("task", "{"), "is damaged"),
    ],
)
def test_what_would_break_training_is_refused_in_one_line(store, change, message):
    edit(store, change)
    with pytest.raises(DataError, match=message) as caught:
        read_store(store)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_with_an_error_is_not_written(tmp_path):
    record = full_record()
    record.labels[2] = 9
    with pytest.raises(DataError, match="outside"):
        write_store(record, tmp_path / "bad.h5")
    assert list(tmp_path.iterdir()) == []
