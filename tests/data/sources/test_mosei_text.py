"""CMU-MOSEI text: agreement of the two kinds of table, and the real set where it is at hand."""

import os

import numpy as np
import pytest

from mmsa_lib.data.sources import build, fetch_originals, safe_pickle, text_only
from mmsa_lib.errors import DataError

SIZES = {"train": 3, "valid": 1, "test": 1}
SEGMENTS = {
    "train": [("vb", 10, 1.5), ("vb", 9, -0.5), ("7", 0, 0.0)],
    "valid": [("-vc", 0, 3.0)],
    "test": [("vd", 0, -3.0)],
}


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setitem(text_only.SIZES, "mosei_text", SIZES)
    table = ["video_id,clip_id,text,label,annotation,mode,label_by"]
    for split, segments in SEGMENTS.items():
        lines = ["vid\tstart\tstop\tlabel\tcid\ttext"]
        for video, clip, label in segments:
            lines.append(f'{video}\t{clip}.25\t{clip + 2}.5\t{label}\t{clip}\t"He said ""{clip}"" "')
            table.append(f'{video},{clip},"He said ""{clip}""",{label},x,{split},0')
        (tmp_path / f"mosei_{split}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / text_only.LABEL_TABLE).write_text("\n".join(table) + "\n")
    return {name: tmp_path / name for name in text_only.MOSEI_FILES}


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))


def test_record(files):
    record = text_only.build_mosei(files)
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
def test_disagreement_is_named(files, name, old, new, message):
    edit(files[name], old, new)
    with pytest.raises(DataError, match=message):
        text_only.build_mosei(files)


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("MMSA_LIB_MIRROR"), reason="MMSA_LIB_MIRROR is not set")
def test_whole_set():
    record = build("mosei_text")
    fold, labels = record.folds["standard"], record.labels
    found = {s: [int((np.sign(labels[fold == s]) == c).sum()) for c in (-1, 0, 1)] for s in ("train", "valid", "test")}
    assert found == {"train": [4738, 3540, 8048], "valid": [506, 433, 932], "test": [1350, 1025, 2284]}
    groups = np.array(record.groups)
    assert [len(set(groups[fold == split])) for split in ("train", "valid", "test")] == [2249, 300, 676]
    assert (record.times[:, 1] - record.times[:, 0]).mean() == pytest.approx(7.6, abs=0.05)
    assert all(text.strip() for text in record.transcripts)


@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("MMSA_LIB_MIRROR"), reason="MMSA_LIB_MIRROR is not set")
def test_third_source_agrees():
    """Ids, labels and splits of a third repository, which the build does not read."""
    path = os.path.join(os.environ["MMSA_LIB_MIRROR"], "cmu-mosei-text", "original", "merbench_label.npz")
    corpora = safe_pickle.load_npz(path)
    record = text_only.build_mosei(fetch_originals("mosei_text"))
    for split, key in (("train", "train_corpus"), ("valid", "val_corpus"), ("test", "test_corpus")):
        rows = np.flatnonzero(record.folds["standard"] == split)
        expected = {identifier: float(entry["val"]) for identifier, entry in corpora[key].items()}
        found = {record.ids[row]: float(record.labels[row]) for row in rows}
        assert found == pytest.approx(expected, abs=1e-6)
