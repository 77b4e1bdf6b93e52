"""The sets of texts alone: agreement of two kinds of table, labels through the restricted loader; and the real sets."""

import os

import numpy as np
import pytest
from layout_files import Call

from mmsa_lib.data.sources import PUBLIC_SETS, build, fetch_originals, text_only
from mmsa_lib.data.sources.safe_pickle import UnsafePickleError, load_npz
from mmsa_lib.data.sources.text_only import build_mosei, build_sims
from mmsa_lib.errors import DataError

SIZES = {"train": 3, "valid": 1, "test": 1}
SEGMENTS = {
    "train": [("vb", 10, 1.5), ("vb", 9, -0.5), ("7", 0, 0.0)],
    "valid": [("-vc", 0, 3.0)],
    "test": [("vd", 0, -3.0)],
}
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


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(text_only, "SIZES", dict.fromkeys(("mosei_text", "sims_text", "simsv2_text"), SIZES))


@pytest.fixture
def mosei(tmp_path):
    table = ["video_id,clip_id,text,label,annotation,mode,label_by"]
    for split, segments in SEGMENTS.items():
        lines = ["vid\tstart\tstop\tlabel\tcid\ttext"]
        for video, clip, label in segments:
            lines.append(f'{video}\t{clip}.25\t{clip + 2}.5\t{label}\t{clip}\t"He said ""{clip}"" "')
            table.append(f'{video},{clip},"He said ""{clip}""",{label},x,{split},0')
        (tmp_path / f"mosei_{split}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / text_only.LABEL_TABLE).write_text("\n".join(table) + "\n")
    return {name: tmp_path / name for name in PUBLIC_SETS["mosei_text"].required}


@pytest.fixture
def sims(tmp_path):
    write_labels(tmp_path / "label.npz", CORPORA)
    (tmp_path / "transcription-engchi-polish.csv").write_text(TABLE, encoding="utf-8")
    return {name: tmp_path / name for name in PUBLIC_SETS["sims_text"].required}


def write_labels(path, corpora):
    wrapped = {key: {i: {"emo": 0, "val": v} for i, v in corpus.items()} for key, corpus in corpora.items()}
    np.savez(path, **{key: np.array(value, dtype=object) for key, value in wrapped.items()})


def test_mosei(mosei):
    record = build_mosei(mosei)
    assert record.ids == ["7_0", "vb_9", "vb_10", "-vc_0", "vd_0"]
    assert record.groups == ["7", "vb", "vb", "-vc", "vd"]
    assert record.labels.tolist() == [0.0, -0.5, 1.5, 3.0, -3.0]
    assert record.folds["standard"].tolist() == ["train"] * 3 + ["valid", "test"]
    assert record.transcripts == ['He said "0"', 'He said "9"', 'He said "10"', 'He said "0"', 'He said "0"']
    assert record.times.tolist() == [[0.25, 2.5], [9.25, 11.5], [10.25, 12.5], [0.25, 2.5], [0.25, 2.5]]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("MOSEI-label.csv", ",1.5,x", ",1.0,x", "label or split of vb_10 differs"),
        ("MOSEI-label.csv", "x,valid", "x,train", "label or split of -vc_0 differs"),
        ("MOSEI-label.csv", "vd,0", "vd,1", "segment vd_0 is only in one"),
        ("MOSEI-label.csv", "vb,9", "vb,10", "segment vb_10 appears twice"),
        ("mosei_test.tsv", "label", "sentiment", r"mosei_test\.tsv: column 'label' is missing"),
        ("mosei_valid.tsv", "-vc\t0", "-vc\t0\t1\t2\t3\tx\n-vc\t1", r"mosei_valid\.tsv: 2 segments, expected 1"),
    ],
)
def test_disagreement_of_the_tables_of_mosei_is_named(mosei, name, old, new, message):
    text = mosei[name].read_text()
    assert old in text
    mosei[name].write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        build_mosei(mosei)


def test_sims(sims):
    record, second = build_sims(sims), build_sims(sims, "simsv2_text")
    assert record.ids == ["test3_00004", "video_0001_0001", "video_0002_0001", "video_0001_0002", "video_0001_0003"]
    assert record.groups == ["test3", "video_0001", "video_0002", "video_0001", "video_0001"]
    np.testing.assert_array_equal(record.labels, np.float32([0.2, -1, 0.4, 0, 1]))
    assert record.folds["standard"].tolist() == ["train"] * 3 + ["valid", "test"]
    assert record.transcripts == ["Five", "One, two", "Four", "NA", "Three"]
    assert record.other_transcripts == {"chinese": ["五", "一", "四", "二", "三"]}
    assert record.task.range == (-1, 1)
    assert record.notes[-1].endswith("1 source videos have clips in both train and test")
    assert (record.name, second.name) == ("sims_text", "simsv2_text")


@pytest.mark.parametrize(
    ("changes", "table", "said"),
    [
        ({"val_corpus": None}, TABLE, r"label\.npz: val_corpus is missing"),
        ({"test_corpus": {"video_0001_0002": 0.0}}, TABLE, "clip video_0001_0002 is in two splits"),
        ({"test_corpus": {}}, TABLE, "test_corpus has 0 clips, expected 1"),
        ({}, TABLE.replace("test3_00004", "test3_00005"), "name different clips"),
        ({}, TABLE + "test3_00004,五,Five\n", "name different clips"),
    ],
)
def test_wrong_files_of_sims_are_named(sims, changes, table, said):
    corpora = {key: corpus for key, corpus in (CORPORA | changes).items() if corpus is not None}
    write_labels(sims["label.npz"], corpora)
    sims["transcription-engchi-polish.csv"].write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        build_sims(sims)


def test_labels_that_carry_code_are_refused(sims, tmp_path):
    np.savez(sims["label.npz"], train_corpus=np.array({"a": Call(os.mkdir, str(tmp_path / "ran"))}, dtype=object))
    with pytest.raises(UnsafePickleError):
        build_sims(sims)
    assert not (tmp_path / "ran").exists()


SETS = {
    "mosei_text": [[4738, 3540, 8048], [506, 433, 932], [1350, 1025, 2284]],
    "sims_text": [[742, 207, 419], [248, 69, 139], [248, 69, 140]],
    "simsv2_text": [[1310, 318, 1094], [325, 92, 230], [488, 123, 423]],
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", SETS)
def test_whole_sets(name, mirror, monkeypatch):
    monkeypatch.undo()
    record = build(name, mirror)
    fold, groups, signs = record.folds["standard"], np.array(record.groups), np.sign(record.labels)
    splits = ("train", "valid", "test")
    assert [[int((signs[fold == s] == c).sum()) for c in (-1, 0, 1)] for s in splits] == SETS[name]
    if name == "mosei_text":
        assert [len(set(groups[fold == split])) for split in splits] == [2249, 300, 676]
        assert (record.times[:, 1] - record.times[:, 0]).mean() == pytest.approx(7.6, abs=0.05)
        assert all(text.strip() for text in record.transcripts)
        return
    overlap = {"sims_text": 59, "simsv2_text": 128}[name]
    assert len(set(groups[fold == "train"]) & set(groups[fold == "test"])) == overlap
    assert f"{overlap} source videos" in record.notes[-1]
    tenths = record.labels.astype(np.float64) * 10
    np.testing.assert_allclose(tenths, np.round(tenths), atol=1e-5)
    assert all(any("\u4e00" <= c <= "\u9fff" for c in text) for text in record.other_transcripts["chinese"])


@pytest.mark.real_data
def test_a_third_source_of_mosei_agrees(mirror, monkeypatch):
    """Ids, labels and splits of a third repository, which the build does not read."""
    monkeypatch.undo()
    corpora = load_npz(mirror / "cmu-mosei-text" / "original" / "merbench_label.npz")
    record = build_mosei(fetch_originals("mosei_text", mirror))
    for split, key in (("train", "train_corpus"), ("valid", "val_corpus"), ("test", "test_corpus")):
        rows = np.flatnonzero(record.folds["standard"] == split)
        expected = {identifier: float(entry["val"]) for identifier, entry in corpora[key].items()}
        found = {record.ids[row]: float(record.labels[row]) for row in rows}
        assert found == pytest.approx(expected, abs=1e-6)
