"""CH-SIMS text: labels through the restricted loader, transcripts joined by name."""

import os

import numpy as np
import pytest

from mmsa_lib.data.sources import build, text_only
from mmsa_lib.data.sources.safe_pickle import UnsafePickleError
from mmsa_lib.errors import DataError

CORPORA = {
    "train_corpus": {"video_0002_0001": 0.4, "video_0001_0001": -1.0, "test3_00004": np.float64(0.2)},
    "val_corpus": {"video_0001_0002": 0.0},
    "test_corpus": {"video_0001_0003": 1.0},
}
TABLE = """name,chinese,english
video_0001_0001,一,"One, two"
video_0001_0002,二,NA
video_0001_0003,三,Three
video_0002_0001,四,Four
test3_00004,五,Five
"""


def write_labels(path, corpora):
    wrapped = {key: {i: {"emo": 0, "val": v} for i, v in corpus.items()} for key, corpus in corpora.items()}
    np.savez(path, **{key: np.array(value, dtype=object) for key, value in wrapped.items()})


@pytest.fixture
def files(monkeypatch, tmp_path):
    sizes = {"train": 3, "valid": 1, "test": 1}
    monkeypatch.setattr(text_only, "SIZES", {"sims_text": sizes, "simsv2_text": sizes})
    write_labels(tmp_path / "label.npz", CORPORA)
    (tmp_path / "transcription-engchi-polish.csv").write_text(TABLE, encoding="utf-8")
    return {name: tmp_path / name for name in text_only.SIMS_FILES}


def test_record(files):
    record = text_only.build_sims(files)
    assert record.ids == ["test3_00004", "video_0001_0001", "video_0002_0001", "video_0001_0002", "video_0001_0003"]
    assert record.groups == ["test3", "video_0001", "video_0002", "video_0001", "video_0001"]
    np.testing.assert_array_equal(record.labels, np.float32([0.2, -1, 0.4, 0, 1]))
    assert record.folds["standard"].tolist() == ["train"] * 3 + ["valid", "test"]
    assert record.transcripts == ["Five", "One, two", "Four", "NA", "Three"]
    assert record.other_transcripts == {"chinese": ["五", "一", "四", "二", "三"]}
    assert record.task.range == (-1, 1)
    assert record.notes[-1].endswith("1 source videos have clips in both train and test")


def test_versions_have_their_own_name_and_citation(files):
    first, second = text_only.build_sims(files), text_only.build_sims(files, "simsv2_text")
    assert (first.name, second.name) == ("sims_text", "simsv2_text")
    assert "ICMI 2022" in second.citation
    assert "ICMI 2022" not in first.citation


def test_wrong_labels_are_named(files):
    path = files["label.npz"]
    write_labels(path, {key: corpus for key, corpus in CORPORA.items() if key != "val_corpus"})
    with pytest.raises(DataError, match=r"label\.npz: val_corpus is missing"):
        text_only.build_sims(files)
    write_labels(path, {**CORPORA, "test_corpus": {"video_0001_0002": 0.0}})
    with pytest.raises(DataError, match="clip video_0001_0002 is in two splits"):
        text_only.build_sims(files)
    write_labels(path, {**CORPORA, "test_corpus": {}})
    with pytest.raises(DataError, match="test_corpus has 0 clips, expected 1"):
        text_only.build_sims(files)


def test_transcripts_of_other_clips_are_refused(files):
    path = files["transcription-engchi-polish.csv"]
    path.write_text(TABLE.replace("test3_00004", "test3_00005"), encoding="utf-8")
    with pytest.raises(DataError, match="name different clips"):
        text_only.build_sims(files)
    path.write_text(TABLE + "test3_00004,五,Five\n", encoding="utf-8")
    with pytest.raises(DataError, match="name different clips"):
        text_only.build_sims(files)


class Intruder:
    """Its pickle would create a folder on loading."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_labels_that_carry_code_are_refused(files, tmp_path):
    np.savez(files["label.npz"], train_corpus=np.array({"a": Intruder(tmp_path / "ran")}, dtype=object))
    with pytest.raises(UnsafePickleError):
        text_only.build_sims(files)
    assert not (tmp_path / "ran").exists()


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("MMSA_LIB_MIRROR"), reason="MMSA_LIB_MIRROR is not set")
@pytest.mark.parametrize(
    ("name", "classes", "overlap"),
    [
        ("sims_text", [[742, 207, 419], [248, 69, 139], [248, 69, 140]], 59),
        ("simsv2_text", [[1310, 318, 1094], [325, 92, 230], [488, 123, 423]], 128),
    ],
)
def test_whole_sets(name, classes, overlap):
    record = build(name)
    fold, groups = record.folds["standard"], np.array(record.groups)
    signs = np.sign(record.labels)
    assert [[int((signs[fold == s] == c).sum()) for c in (-1, 0, 1)] for s in ("train", "valid", "test")] == classes
    assert len(set(groups[fold == "train"]) & set(groups[fold == "test"])) == overlap
    assert f"{overlap} source videos" in record.notes[-1]
    tenths = record.labels.astype(np.float64) * 10
    np.testing.assert_allclose(tenths, np.round(tenths), atol=1e-5)
    assert all(
        any("\u4e00" <= character <= "\u9fff" for character in text) for text in record.other_transcripts["chinese"]
    )
