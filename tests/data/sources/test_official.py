"""Published files are named by their checksums; a file that only has the name of one is a warning."""

import dataclasses
import hashlib
import re

import pytest

from mmsa_lib.data.sources import official
from mmsa_lib.data.sources.official import KNOWN_SETS, OFFICIAL_FILES, identify, known_set
from mmsa_lib.errors import DataError

MOSI = (1284, 229, 686)
CONTENT = b"not really the official file"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(CONTENT)
    return path


def test_checksums_are_well_formed_and_differ():
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in OFFICIAL_FILES)
    assert all(re.fullmatch("[0-9a-f]{40}", file.sha1) for file in OFFICIAL_FILES)
    assert len({file.sha256 for file in OFFICIAL_FILES} | {file.sha1 for file in OFFICIAL_FILES}) == 10


@pytest.mark.parametrize("kind", ["sha256", "sha1"])
def test_an_official_file_is_named_by_either_checksum(path, monkeypatch, kind):
    digest = hashlib.new(kind, CONTENT).hexdigest()
    known = OFFICIAL_FILES[1]._replace(**{kind: digest})
    monkeypatch.setattr(official, "OFFICIAL_FILES", (known,))
    line, remarks = identify(path, MOSI)
    assert line == f"aligned_50.pkl: SHA-256 {hashlib.sha256(CONTENT).hexdigest()}"
    assert len(remarks) == 1
    assert "is the official MOSI/Processed/aligned_50.pkl" in remarks[0]
    assert "SHA-256 of" in remarks[0] if kind == "sha256" else "SHA-1 of" in remarks[0]


def test_a_file_of_the_manifest_is_named_by_its_git_blob(path, monkeypatch):
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    entry = next(entry for entry in official.manifest() if entry.name == "mosi.pkl")
    monkeypatch.setattr(official, "manifest", lambda: (dataclasses.replace(entry, git_blob_sha1=blob),))
    assert "MIB_github/datasets/mosi.pkl of github.com/TmacMai" in identify(path, MOSI)[1][0]


def test_another_content_under_an_official_name_warns_with_both_checksums(path, caplog):
    _, remarks = identify(path, MOSI)
    assert "older release" in caplog.text
    for checksum in (OFFICIAL_FILES[1].sha256, OFFICIAL_FILES[1].sha1, hashlib.sha256(CONTENT).hexdigest()):
        assert checksum in remarks[0]


def test_any_other_file_is_no_warning(path, caplog):
    assert "not that of a published file" in identify(path, (6, 2, 2))[1][0]
    assert caplog.text == ""


def test_no_folder_name_gets_into_the_record(path):
    line, remarks = identify(path, (6, 2, 2))
    assert str(path.parent) not in " ".join([line, *remarks])


def test_known_sets():
    assert known_set(MOSI).name == "CMU-MOSI"
    assert known_set((1, 2, 3)) is None
    assert len({known.sizes for known in KNOWN_SETS}) == len(KNOWN_SETS)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        identify(tmp_path / "nothing.pkl", MOSI)
