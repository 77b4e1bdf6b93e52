"""What files seem to be: recognised by their content, whatever they are called."""

import gzip
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from mmsa_lib.cli import main
from mmsa_lib.data.formats import COMPUTATIONAL_SEQUENCE, kind_of
from mmsa_lib.data.sources.table import read as read_table
from mmsa_lib.errors import DataError


def write_csd(path):
    """A computational sequence as the CMU-Multimodal SDK writes it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("glove/data/video1")
        group["features"], group["intervals"] = np.ones((3, 2)), np.ones((3, 2))
        file.create_group("glove/metadata")
    return path


def write_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return path.read_bytes()


CONTENTS = {
    "empty": (b"", "an empty file"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "git annex": (b"/annex/objects/SHA256E-s3--0.pkl\n", "git annex get"),
    "dvc": (b"outs:\n- md5: 0\n  path: mosi.pkl\n", "dvc pull"),
    "page": (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "a web page"),
    "pickle": (pickle.dumps({"train": 1}), "data import mmsa"),
    "parquet": (b"PAR1\x15", "Parquet"),
    "table": ("id;split;label\na;train;0,5 \N{MINUS SIGN}\n".encode(), "data import table"),
    "readme": (b"# CMU-MOSI\n\nDownload it from there.\n", "a text file"),
    "long text cut in a character": ("ü".encode() * 3000, "a text file"),
    "zeros": (bytes(600), "did not finish"),
    "damaged hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "a damaged HDF5 file"),
    "damaged zip": (b"PK\x03\x04abc", "a damaged zip archive"),
    "noise": (bytes(range(1, 256)), ""),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_tells_what_a_file_is(name, tmp_path):
    content, said = CONTENTS[name]
    (tmp_path / "file.h5").write_bytes(content)
    found = kind_of(tmp_path / "file.h5")
    assert said in found if said else found == ""


def test_archives_are_told_apart(tmp_path):
    for names, said in {("xl/book.xml",): "spreadsheet", ("archive/data.pkl",): "torch", ("a.txt",): "unpack"}.items():
        write_zip(tmp_path / "file", *names)
        assert said in kind_of(tmp_path / "file")
    np.savez(tmp_path / "own.npz", id=np.arange(3))
    assert "numpy archive" in kind_of(tmp_path / "own.npz")


def test_a_computational_sequence_without_metadata(tmp_path):
    with h5py.File(write_csd(tmp_path / "aligned.h5"), "a") as file:
        del file["glove/metadata"]
    assert kind_of(tmp_path / "aligned.h5") == COMPUTATIONAL_SEQUENCE
    with h5py.File(tmp_path / "aligned.h5", "a") as file:
        del file["glove/data/video1/features"]
    assert "for the MFN layout" in kind_of(tmp_path / "aligned.h5")
    (tmp_path / "aligned.h5").rename(tmp_path / "aligned.csd")
    assert kind_of(tmp_path / "aligned.csd") == COMPUTATIONAL_SEQUENCE


def test_folders_links_and_nothing(tmp_path):
    assert kind_of(tmp_path) == "an empty folder"
    assert kind_of(tmp_path / "nothing") == ""
    (tmp_path / "link").symlink_to(".git/annex/objects/x")
    assert "which is not here" in kind_of(tmp_path / "link")
    (tmp_path / "y_train.h5").touch()
    assert "data import mfn" in kind_of(tmp_path)
    write_csd(tmp_path / "glove.csd")
    assert COMPUTATIONAL_SEQUENCE in kind_of(tmp_path)
    with pytest.raises(DataError, match="computational sequence"):
        read_table(tmp_path, "mine")


@pytest.mark.parametrize("name", ["glove.csd", "glove.h5", "glove.pkl", "glove.npz", "glove.csv"])
@pytest.mark.parametrize("command", ["check", "info", "mmsa", "mult", "mag", "mfn", "table"])
def test_a_computational_sequence_is_named_by_every_command(name, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_csd(tmp_path / name)
    arguments = [command, name] if command in ("check", "info") else ["import", command, name, "--name", "own"]
    assert main(["data", *arguments]) == 2
    said = capsys.readouterr().err
    assert "computational sequence" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "mmsa", "mult", "mag", "mfn", "table"])
@pytest.mark.parametrize("kind", ["page", "readme", "git lfs", "empty", "pickle", "damaged hdf5", "noise", "folder"])
def test_wrong_files_are_one_line(command, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    path = tmp_path / "file.npz"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(CONTENTS[kind][0])
    arguments = [command, path] if command == "check" else ["import", command, path, "--name", "own"]
    assert main(["data", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(path) in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_check_of_a_folder_reads_it_in_its_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mfn").mkdir()
    (tmp_path / "mfn" / "y_train.h5").touch()
    assert main(["data", "check", "mfn"]) == 2
    assert "mfn: no file for split train; expected X_train.h5" in capsys.readouterr().err
