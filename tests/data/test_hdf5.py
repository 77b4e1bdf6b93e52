"""HDF5 files appear whole or not at all, also on a full disk."""

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa_lib.data import hdf5
from mmsa_lib.data.hdf5 import (
    add_array,
    add_texts,
    is_sealed,
    look_at_all,
    read_array,
    read_hdf5,
    read_texts,
    write_hdf5,
)
from mmsa_lib.errors import DataError


def fill(file):
    add_array(file, "numbers", np.arange(200_000, dtype=">f8").reshape(-1, 2))


def test_arrays_are_little_endian_and_real_numbers_are_not_packed(tmp_path):
    write_hdf5(tmp_path / "a.h5", lambda file: (fill(file), add_array(file, "seen", np.ones((9, 4), bool))))
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert file["numbers"].dtype == np.dtype("<f8")
        assert (file["numbers"].compression, file["seen"].compression) == (None, "gzip")
        np.testing.assert_array_equal(file["numbers"][()], np.arange(200_000).reshape(-1, 2))


@pytest.mark.parametrize("texts", [["a", "", "zwölf", "三个字"], ["", ""], []])
def test_texts_of_any_language_come_back(tmp_path, texts):
    write_hdf5(tmp_path / "a.h5", lambda file: add_texts(file, "texts", texts))
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert read_texts(file["texts"]) == texts


def test_a_text_that_hdf5_would_cut_is_refused(tmp_path):
    with pytest.raises(DataError, match="texts: text 1 ends in a NUL"):
        write_hdf5(tmp_path / "a.h5", lambda file: add_texts(file, "texts", ["a", "b\0"]))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_gives_one_line_and_no_file(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_text("the one before")

    def no_space(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(DataError, match=r"cannot write .*a\.h5: No space left on device; free space"):
        write_hdf5(tmp_path / "a.h5", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "the one before"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_write_that_the_system_refuses_is_survived(tmp_path):
    """A real refusal by the kernel halfway through the file; HDF5's own file output would crash the process."""
    script = (
        "import resource, sys, numpy as np\n"
        "from mmsa_lib.data.hdf5 import add_array, write_hdf5\n"
        "from mmsa_lib.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "values = np.random.default_rng(0).random(100_000)\n"
        "try:\n"
        "    write_hdf5(sys.argv[1], lambda file: add_array(file, 'values', values))\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot write")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(DataError, match=r"cannot write .*a\.h5: .*file is a file, not a folder; choose another"):
        write_hdf5(tmp_path / "file" / "a.h5", fill)
    assert (tmp_path / "file").read_text() == "I am no folder"


def test_two_files_can_be_written_at_once(tmp_path):
    def fill_while_another_is_written(file):
        fill(file)
        write_hdf5(tmp_path / "inner.h5", fill)

    write_hdf5(tmp_path / "outer.h5", fill_while_another_is_written)
    assert (tmp_path / "outer.h5").read_bytes() == (tmp_path / "inner.h5").read_bytes()


def test_an_interrupted_fill_leaves_nothing(tmp_path):
    def broken(file: h5py.File):
        fill(file)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hdf5(tmp_path / "a.h5", broken)
    assert list(tmp_path.iterdir()) == []


# ---- damage and deceit ---------------------------------------------------------------------------------------------


def refusal(path):
    """What is said about ``path``, one line, when it is opened and all of it is read."""
    with pytest.raises(DataError) as caught, read_hdf5(path, "fetch it again") as file:
        file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def virtual(file):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


def many_small(file):
    for i in range(300):
        file.create_dataset(str(i), (4 * 10**6,), "f4", chunks=(10**6,))


def many_names(file):
    file.create_dataset("x", (4 * 10**6,), "f4", chunks=(10**6,))
    for i in range(150):
        file[f"hard{i}"], file[f"soft{i}"] = file["x"], h5py.SoftLink("/x")


def array(*shape, of="f4", **options):
    return lambda file: file.create_dataset("x", shape, of, **options)


def link(name, target):
    """A group ``a``, and ``name`` that leads to ``target``."""
    return lambda file: file.create_group("a") and file.__setitem__(name, target(file))


REFUSED = [
    (link("a/up", lambda file: file["/"]), "gives a group a second name, /a/up"),
    (link("b", lambda file: file["a"]), "gives a group a second name, /b"),
    (link("b", lambda _: h5py.SoftLink("/a")), "has a link at /b that leads to no array"),
    (link("b", lambda _: h5py.SoftLink("/nowhere")), "has a link at /b that leads to no array"),
    (link("link", lambda _: h5py.ExternalLink("/etc/passwd", "/x")), "refers to another file at /link"),
    (link("a/b/link", lambda _: h5py.ExternalLink("other.h5", "/x")), "refers to another file at /a/b/link"),
    (array(100, of="u1", external=[("/etc/passwd", 0, 100)]), "keeps /x in another file"),
    (virtual, "puts /x together from other places"),
    (array(10**9, chunks=(10**6,), compression="gzip"), "announces 4.0 GB at /x and stores 0 MB"),
    (array(10**5, 10**5, of="f8", fillvalue=1.5), "announces 80.0 GB at /x"),
    (array(1, of=h5py.string_dtype("utf-8", 2 * 10**9)), "announces 2.0 GB at /x"),
    (array(10**9, of=h5py.string_dtype(), chunks=(10**6,)), "announces 8.0 GB at /x"),
    (many_small, "announces 4.8 GB of arrays"),
    (many_names, "announces 4.8 GB of arrays"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
@pytest.mark.parametrize("sealed", [True, False])
def test_what_lies_elsewhere_or_is_not_there_is_refused_unread(tmp_path, monkeypatch, make, message, sealed):
    monkeypatch.chdir(tmp_path)
    with h5py.File("other.h5", "w") as other:
        other["x"] = np.zeros(3, "f4")
    if sealed:
        write_hdf5(tmp_path / "a.h5", make)
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file)
    assert message in refusal(tmp_path / "a.h5")


def test_links_to_arrays_inside_the_file_are_followed(tmp_path):
    def fill_linked(file):
        fill(file)
        file["group/again"] = h5py.SoftLink("/numbers")
        file["group/same"] = file["numbers"]

    write_hdf5(tmp_path / "a.h5", fill_linked)
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert file["group/again"].shape == file["group/same"].shape == (100_000, 2)


def test_texts_of_variable_length_are_not_read_unasked(tmp_path):
    """Any number of them may point to one place."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=["a", "b"], dtype=h5py.string_dtype())
    with pytest.raises(DataError, match="/x holds values of variable length"), read_hdf5(tmp_path / "a.h5", "no") as f:
        read_array(f["x"])


def test_well_packed_arrays_are_read(tmp_path):
    write_hdf5(tmp_path / "a.h5", lambda file: add_array(file, "x", np.zeros((2 * 10**7, 2), "i4")))
    assert (tmp_path / "a.h5").stat().st_size < 10**6
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert read_array(file["x"]).shape == (2 * 10**7, 2)


def test_an_array_larger_than_the_memory_is_one_line(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "a.h5", fill)
    monkeypatch.setattr(hdf5, "available_memory", lambda: 1000)
    message = r"a\.h5 does not fit in memory \(/numbers takes 0\.0 GB"
    with pytest.raises(DataError, match=message), read_hdf5(tmp_path / "a.h5", "try again") as file:
        read_array(file["numbers"])


def test_every_changed_byte_is_noticed_before_hdf5_sees_the_file(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "a.h5", fill)
    whole = (tmp_path / "a.h5").read_bytes()
    generator = np.random.default_rng(0)
    monkeypatch.setattr(h5py, "File", None)
    for place in generator.integers(0, len(whole) - hdf5._SEAL_BYTES, 50):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / "b.h5").write_bytes(changed)
        assert "b.h5 is damaged (its SHA-256 is not the one" in refusal(tmp_path / "b.h5")


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    hashed = []
    original = hdf5._read_seal
    monkeypatch.setattr(hdf5, "_read_seal", lambda *args: hashed.append(args) or original(*args))
    write_hdf5(tmp_path / "a.h5", fill)
    for _ in range(3):
        with read_hdf5(tmp_path / "a.h5", "try again") as file:
            assert "numbers" in file
    assert len(hashed) == 1
    write_hdf5(tmp_path / "a.h5", lambda file: add_texts(file, "more", ["a"]))
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert "more" in file
    assert len(hashed) == 2


def test_a_file_of_another_program_is_looked_at_by_another_process(tmp_path):
    for name in "abc":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = np.arange(5)
            file["x"].attrs["unit"] = "s"
    look_at_all(tmp_path.glob("*.h5"))
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert file["x"][()].tolist() == [0, 1, 2, 3, 4]
    assert not is_sealed(tmp_path / "a.h5")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_file_that_keeps_hdf5_busy_for_ever_is_refused(tmp_path):
    """As a broken download leaves it: 512 zeros in the table of attributes, in which HDF5 goes round in circles."""
    from records import full_record

    from mmsa_lib.data.store import write_store

    write_store(full_record(), tmp_path / "a.h5")
    content = bytearray((tmp_path / "a.h5").read_bytes()[: -hdf5._SEAL_BYTES])
    content[3690 : 3690 + 512] = bytes(512)
    (tmp_path / "a.h5").write_bytes(content)
    assert "is damaged" in refusal(tmp_path / "a.h5")
