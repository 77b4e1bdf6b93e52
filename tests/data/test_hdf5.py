"""HDF5 files appear whole or not at all, also on a full disk."""

import errno
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa_lib.data.hdf5 import add_array, add_texts, read_hdf5, read_texts, write_hdf5
from mmsa_lib.errors import DataError


def fill(file):
    add_array(file, "numbers", np.arange(200_000, dtype=">f8").reshape(-1, 2))


def test_arrays_are_little_endian_and_compressed(tmp_path):
    write_hdf5(tmp_path / "a.h5", fill)
    with read_hdf5(tmp_path / "a.h5", "try again") as file:
        assert file["numbers"].dtype == np.dtype("<f8")
        assert file["numbers"].compression == "gzip"
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
