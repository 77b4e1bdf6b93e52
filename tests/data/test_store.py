"""One record through the store and back, and every way in which a store can be unfit to read."""

import json
import random
import time
from dataclasses import fields

import h5py
import numpy as np
import pytest
from damaged_files import damaged
from records import emotion_record, full_record

from mmsa_lib.data import hdf5, load
from mmsa_lib.data.record import DatasetRecord, combine, describe, fingerprint
from mmsa_lib.data.store import check_store, open_store, read_header, read_store, write_store
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


def as_an_earlier_release_wrote(path):
    """Compressed and without a checksum."""

    def pack(group):
        for name in list(group):
            if isinstance(group[name], h5py.Group):
                pack(group[name])
                continue
            values, dtype = group[name][()], group[name].dtype
            del group[name]
            group.create_dataset(name, data=values, dtype=dtype, chunks=(2, *values.shape[1:]), compression="gzip")

    edit(path, pack)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_runs_of_frames_are_read_without_the_rest(store, packed):
    whole = full_record().features["audio5"]
    with open_store(as_an_earlier_release_wrote(store) if packed else store) as opened:
        stored = opened.record.features["audio5"]
        np.testing.assert_array_equal(stored.values[3:8], whole.values[3:8])
        np.testing.assert_array_equal(stored.lengths, whole.lengths)
        assert stored.values.shape == whole.values.shape
        frames = np.empty((4, 5), np.float32)
        opened.frames("audio5").read_into(20, frames)
        np.testing.assert_array_equal(frames, whole.values[20:24])


def test_a_store_that_is_cut_while_it_is_open_is_named(store):
    def read_cut():
        with open_store(store) as opened:
            store.write_bytes(b"")
            opened.frames("audio5").read_into(0, np.empty((8, 5), np.float32))

    with pytest.raises(DataError, match=r"tiny\.h5 .*ends before its row 8|tiny\.h5 is empty"):
        read_cut()


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
        place = file["features/audio5/values"].id.get_offset()
    content = bytearray(store.read_bytes())
    content[place + 40] ^= 0xFF
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


def replace(file, name, values):
    del file[name]
    file[name] = values


def describe_store(path):
    return describe(read_store(path))


def check_store_or_raise(path):
    for problem in check_store(path):
        if problem.severity == "error" and problem.where != "fingerprint":
            raise DataError(f"{path}: {problem}")


def open_only(path):
    with open_store(path):
        pass


READERS = [read_store, read_header, open_only, lambda path: read_store(path, ()), check_store]


def set_header(key, value):
    return lambda file: file.attrs.__setitem__(key, value)


def edit_header(key, **values):
    return lambda file: file.attrs.__setitem__(key, json.dumps({**json.loads(file.attrs[key]), **values}))


def other_digest(file):
    digests = {**json.loads(file.attrs["digests"]), "labels": "0" * 64}
    file.attrs["digests"] = json.dumps(digests)
    file.attrs["fingerprint"] = combine(digests)


HEADERS = {
    "another fingerprint": (set_header("fingerprint", "0" * 64), "header's fingerprint is not that of its digests"),
    "another digest": (edit_header("digests", labels="0" * 64), "header's fingerprint is not that of its digests"),
    "no fingerprint": (lambda file: file.attrs.__delitem__("fingerprint"), "header field fingerprint"),
    "a fingerprint of numbers": (set_header("fingerprint", np.arange(3)), "header field fingerprint"),
    "an empty fingerprint": (set_header("fingerprint", h5py.Empty("S1")), "header field fingerprint"),
    "no digests": (lambda file: file.attrs.__delitem__("digests"), "header field digests"),
    "digests in a list": (set_header("digests", "[]"), "header field digests"),
    "a short digest": (edit_header("digests", labels="abc"), "header field digests.labels"),
    "a digest of another type": (edit_header("digests", labels=5), "header field digests.labels"),
    "no library": (lambda file: file.attrs.__delitem__("library"), "header field library"),
    "no version": (lambda file: file.attrs.__delitem__("version"), "header field version"),
    "a version in words": (set_header("version", "one"), "header field version"),
    "a version of many": (set_header("version", [1, 2]), "header field version"),
    "version 0": (set_header("version", 0), "header field version"),
    "a name of bytes": (set_header("name", np.void(b"tiny")), "header field name"),
    "a task of another kind": (edit_header("task", kind="guess"), "header field task.*kind"),
    "a range of one": (edit_header("task", range=[1]), "header field task.*range"),
    "a range of words": (edit_header("task", range=["low", "high"]), "header field task.*range"),
    "a task that is a list": (set_header("task", "[]"), "header field task"),
    "defaults of numbers": (set_header("defaults", '{"*": {"audio": 5}}'), "header field defaults"),
    "defaults of an unknown modality": (set_header("defaults", '{"*": {"smell": "x"}}'), "header field defaults"),
    "notes of numbers": (set_header("notes", "[1]"), "header field notes"),
    "nested notes": (set_header("notes", "[" * 60_000), "attributes can't be read"),
    "repairs without counts": (set_header("repairs", '{"a": "b"}'), "header field repairs"),
    "JSON that is none": (set_header("sources", np.arange(3)), "attributes can't be read"),
    "a format of numbers": (set_header("format", np.arange(3)), "not a data set of mmsa_lib"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HEADERS)
def test_what_the_header_claims_is_recomputed(store, name, reader):
    change, message = HEADERS[name]
    edit(store, change)
    with pytest.raises(DataError, match=message) as caught:
        reader(store)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_digest_that_is_not_that_of_the_data_is_noticed_by_every_reader(store):
    edit(store, other_digest)
    for reader in (read_store, read_header, lambda path: read_store(path, ("audio5",))):
        with pytest.raises(DataError, match="labels changed since the store was written"):
            reader(store)
    assert [problem.where for problem in check_store(store) if problem.severity == "error"] == ["fingerprint"]


def test_a_change_in_a_feature_set_that_is_not_asked_for_is_noticed(store):
    edit(store, replace_first("features/vision3/values", 5))
    for reader in (read_header, lambda path: read_store(path, ("audio5",))):
        with pytest.raises(DataError, match="features/vision3"):
            reader(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["features/audio5"].attrs.__delitem__("level"), "level"),
        (lambda file: file["features/audio5"].attrs.__setitem__("level", np.arange(2)), "features/audio5 field level"),
        (lambda file: file["features/audio5"].attrs.__setitem__("modality", 5), "features/audio5 field modality"),
        (lambda file: file["features/audio5"].attrs.__setitem__("label_trained_on", np.void(b"a")), "label_trained_on"),
        (lambda file: replace(file, "ids", np.arange(8)), "ids holds int64"),
        (lambda file: replace(file, "ids", np.array([b"\xff"] * 8)), "is damaged"),
        (lambda file: replace(file, "transcripts", np.zeros((8, 2), "S3")), "transcripts holds"),
        (lambda file: replace(file, "labels", np.zeros(8, "S3")), "labels: holds values"),
        (lambda file: replace(file, "labels", np.zeros(8, "c8")), "labels: holds values"),
        (lambda file: replace(file, "labels", np.float32(1)), "labels: shape"),
        (lambda file: replace(file, "folds/standard", np.zeros(8)), "folds/standard holds"),
        (lambda file: replace(file, "features/audio5/lengths", np.array([b"a"] * 8)), "features/audio5"),
        (lambda file: replace(file, "features/audio5/lengths", np.full(8, 3.5)), "features/audio5: lengths"),
        (lambda file: replace(file, "features/audio5/observed", np.array([b"a"] * 24)), "features/audio5: observed"),
        (lambda file: replace(file, "features/audio5/observed", np.ones((24, 2), bool)), "features/audio5: observed"),
        (lambda file: replace(file, "features/audio5/values", np.zeros((24, 0), "f4")), "features/audio5"),
        (lambda file: replace(file, "words/offset", np.array([b"a"] * 9)), "words"),
        (lambda file: replace(file, "words/offset", np.zeros((9, 1), "i4")), "words"),
        (lambda file: replace(file, "words/interval", np.array([[b"a", b"b"]] * 4)), "words"),
        (lambda file: replace(file, "token_ids/ids", np.array([[b"a"] * 4] * 8)), "token_ids"),
        (lambda file: replace(file, "token_ids/valid", np.array([[b"a"] * 4] * 8)), "token_ids"),
        (lambda file: file["token_ids"].attrs.__delitem__("model"), "model"),
        (lambda file: replace(file, "times", np.array([[b"a", b"b"]] * 8)), "times"),
        (lambda file: replace(file, "factors/shared", np.array([[b"a", b"b"]] * 8)), "factors"),
        (lambda file: replace(file, "unimodal_labels/text", np.array([b"a"] * 8)), "unimodal_labels"),
        (lambda file: replace(file, "folds", np.zeros(3)), "is damaged"),
        (lambda file: replace(file, "features", np.zeros(3)), "is damaged"),
        (lambda file: replace(file, "features/audio5", np.zeros(3)), "is damaged|audio5"),
        (lambda file: file.__delitem__("labels") or file.create_group("labels"), "is damaged"),
        (lambda file: file.__delitem__("ids") or file.create_group("ids"), "is damaged"),
    ],
)
@pytest.mark.parametrize(
    "reader", [read_store, describe_store, check_store_or_raise, load], ids=["read", "info", "check", "load"]
)
def test_a_part_of_another_kind_is_named_in_one_line(store, change, message, reader):
    edit(store, change)
    with pytest.raises(DataError, match=message) as caught:
        reader(store)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_store_is_read_as_it_was_or_refused(store, sealed):
    expected, whole = fingerprint(full_record()), store.read_bytes()
    if not sealed:  # as an earlier release wrote it
        whole = whole[: -hdf5._SEAL_BYTES]
    generator = random.Random(5)
    for i in range(30 if sealed else 10):
        path = store.with_name(f"damaged{i}.h5")
        path.write_bytes(damaged(whole, generator))
        try:
            record = read_store(path)
        except DataError as error:
            assert "\n" not in f"{error}"  # noqa: PT017
        else:
            assert fingerprint(record) == expected


def test_a_store_that_an_earlier_release_wrote_is_read_from_any_folder(store, tmp_path):
    old = tmp_path / "elsewhere" / "renamed.h5"
    old.parent.mkdir()
    old.write_bytes(as_an_earlier_release_wrote(store).read_bytes())
    assert_same(read_store(old), full_record())
    assert read_header(old) == read_header(store)
    assert [p for p in check_store(old) if p.severity == "error"] == []


def test_a_record_with_an_error_is_not_written(tmp_path):
    record = full_record()
    record.labels[2] = 9
    with pytest.raises(DataError, match="outside"):
        write_store(record, tmp_path / "bad.h5")
    assert list(tmp_path.iterdir()) == []
