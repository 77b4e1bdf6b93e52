"""A file appears whole or not at all, and what stands in the way is said."""

import errno
import os

import pytest

from mmsa_lib.errors import DataError
from mmsa_lib.files import atomic_path, write_text


def test_a_whole_file_replaces_the_old_one_and_is_readable(tmp_path):
    write_text(tmp_path / "a" / "x.txt", "old")
    write_text(tmp_path / "a" / "x.txt", "new")
    assert (tmp_path / "a" / "x.txt").read_text() == "new"
    assert os.listdir(tmp_path / "a") == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "x.txt", "old")
    expected = DataError if isinstance(error, OSError) else RuntimeError

    def write_and_fail():
        with atomic_path(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected) as caught:
        write_and_fail()
    assert (tmp_path / "x.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]
    if expected is DataError:
        assert "x.txt: No space left on device; free space or choose another folder" in str(caught.value)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    write_text(tmp_path / "file", "")
    for target in (tmp_path / "file" / "x.txt", tmp_path / "file" / "deeper" / "x.txt"):
        with pytest.raises(DataError, match=r"file is a file, not a folder; choose another folder"):
            write_text(target, "")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("data/stores/x.h5", "choose another folder with MMSA_LIB_DATA or --out"),
        ("data/downloads/x", "choose another folder with MMSA_LIB_DATA"),
        ("data/masks/x.h5", "choose another folder with MMSA_LIB_MASKS"),
        ("runs/x/run.json", "choose another folder with MMSA_LIB_RUNS"),
        ("elsewhere/x", "choose another folder"),
    ],
)
def test_a_folder_that_may_only_be_read_is_answered_with_its_variable(tmp_path, monkeypatch, code, place, said):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MMSA_LIB_MASKS", raising=False)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(DataError) as caught:
        write_text(tmp_path / place, "")
    assert str(caught.value) == f"cannot write {tmp_path / place}: {os.strerror(code)}; {said}"


def test_a_folder_is_no_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot write "):
        write_text(".", "text")
    assert list(tmp_path.iterdir()) == []
