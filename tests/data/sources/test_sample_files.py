"""One file per sample in any format, the table beside them, and one table per split."""

import pickle

import numpy as np
import pandas as pd
import pytest
from layout_files import COUNT, LABELS, STANDARD, VIDEOS, assert_frames, notes_of, ragged_samples

from mmsa_lib.data.sources.table import read
from mmsa_lib.errors import DataError, FileProblems

IDS = [f"s{row}" for row in range(COUNT)]
SPEAKERS = [f"p{i // 2}" for i in range(COUNT)]
SEQUENCES = ragged_samples(1, 3, 6)


def write(folder, save, ending, name="samples.csv", samples=SEQUENCES, **columns):
    (folder / "audio").mkdir(parents=True)
    for one, values in zip(IDS, samples, strict=True):
        save(folder / "audio" / f"{one}{ending}", values)
    columns = {"id": IDS, "split": STANDARD, "label": LABELS, "group": VIDEOS} | columns
    pd.DataFrame({key: values for key, values in columns.items() if values is not None}).to_csv(
        folder / name, index=False
    )
    return folder


def with_header(path, values):
    frame = pd.DataFrame(values, columns=["F0", "loudness", "jitter"])
    frame.insert(0, "frameTime", np.arange(len(values)) / 100)
    frame.to_csv(path, index=False, sep=";")


SAVES = {
    "npy": (np.save, ".npy"),
    "npz": (lambda path, values: np.savez(path, values), ".npz"),
    "npz named": (lambda path, values: np.savez(path, audio=values, hop=np.ones(1)), ".npz"),
    "csv": (lambda path, values: np.savetxt(path, values, delimiter=","), ".csv"),
    "csv with a header": (with_header, ".csv"),
    "tsv": (lambda path, values: np.savetxt(path, values, delimiter="\t"), ".tsv"),
}


@pytest.mark.parametrize("kind", SAVES)
def test_every_format_gives_the_same_frames(tmp_path, kind):
    record = read(write(tmp_path / "a", *SAVES[kind]), "mine")
    assert_frames(record.features["audio"], SEQUENCES)
    left = notes_of(record, "not read")
    assert left == (["not read: audio: column frameTime"] if "header" in kind else [])


@pytest.mark.parametrize("name", ["labels.csv", "label.tsv", "whatever.csv"])
def test_the_table_of_a_folder_may_have_other_names(tmp_path, name):
    folder = write(tmp_path / "a", np.save, ".npy", name)
    if name.endswith(".tsv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(",", "\t"))
    assert f"labels are those of {name}" in read(folder, "mine").notes
    (folder / "other.csv").write_text("x,y\n1,2\n")
    if name == "whatever.csv":
        with pytest.raises(DataError, match=r"found other.csv, whatever.csv; name the table \(--labels FILE\)"):
            read(folder, "mine")
    assert len(read(folder, "mine", labels=folder / name)) == COUNT


def bad_cell(path, values):
    rows = values.astype(str)
    if path.stem == "s3":
        rows[-1, 1] = "loud"
    pd.DataFrame(rows).to_csv(path, index=False, header=False)


def test_every_wrong_file_and_cell_is_told_at_once(tmp_path):
    folder = write(tmp_path / "a", bad_cell, ".csv", label=[*LABELS[:-2], 9, "x"], split=["trian", *STANDARD[1:]])
    (folder / "audio" / "s5.csv").write_text("1,2,3\n4,5\n")
    (folder / "audio" / "s6.csv").write_text("")
    with pytest.raises(FileProblems, match=r"\(\d more: mmsa-lib data check .*\)$") as caught:
        read(folder, "mine")
    found = "\n".join(caught.value.problems)
    for said in (
        "samples.csv: line 2: split 'trian' of sample 's0' is unknown",
        "samples.csv label: line 11: label 'x' of sample 's9' is no number",
        f"s3.csv: line {len(SEQUENCES[3])}, column 2: 'loud' is no number",
        "s5.csv: line 2 has 2 cells, and the first one 3",
        "s6.csv",
    ):
        assert said in found


def test_files_of_a_video_may_lie_in_its_folder(tmp_path):
    folder = write(tmp_path / "a", np.save, ".npy", id=None, group=None, video_id=VIDEOS, clip_id=range(COUNT))
    for row, name in enumerate(IDS):
        (folder / "audio" / VIDEOS[row]).mkdir(exist_ok=True)
        (folder / "audio" / f"{name}.npy").rename(folder / "audio" / VIDEOS[row] / f"{row}.npy")
    record = read(folder, "mine")
    assert_frames(record.features["audio"], SEQUENCES)
    assert notes_of(record, "not read") == []


def meld(folder):
    """MELD's own tables: dialogues are numbered anew in each file."""
    folder.mkdir()
    for name, dialogues in (("train", 6), ("dev", 2), ("test", 3)):
        rows = [(d, u) for d in range(dialogues) for u in range(3)]
        pd.DataFrame(
            {
                "Sr No.": range(1, len(rows) + 1),
                "Utterance": [f"“Hey,” said {d}, {u}" for d, u in rows],
                "Speaker": ["Ross" if u else "Monica" for _, u in rows],
                "Emotion": [["neutral", "joy", "anger"][u] for _, u in rows],
                "Sentiment": [["neutral", "positive", "negative"][u] for _, u in rows],
                "Dialogue_ID": [d for d, _ in rows],
                "Utterance_ID": [u for _, u in rows],
                "Season": 1,
                "Episode": 2,
                "StartTime": "00:16:16,059",
                "EndTime": "00:16:21,731",
            }
        ).to_csv(folder / f"{name}_sent_emo.csv", index=False)
    return folder


def test_tables_of_one_split_each_are_one_set(tmp_path):
    from mmsa_lib.data.task import classes

    folder = meld(tmp_path / "MELD")
    record = read(folder, "meld", task=classes(["neutral", "joy", "anger"]), label_column="Emotion")
    assert record.ids[:2] == ["train_dia0_utt0", "train_dia0_utt1"]
    assert record.ids[-1] == "test_dia2_utt2"
    assert len(set(record.groups)) == 11
    assert record.labels.tolist() == [0, 1, 2] * 11
    assert [int((record.folds["standard"] == s).sum()) for s in ("train", "valid", "test")] == [18, 6, 9]
    record = read(folder, "meld", task=classes(["negative", "neutral", "positive"]))
    assert record.labels[:3].tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="--classes negative neutral positive"):
        read(folder, "meld")
    (folder / "dev_sent_emo.csv").write_text("Utterance\nhey\n")
    with pytest.raises(DataError, match=r"column '.*' is in one of train_sent_emo.csv and dev_sent_emo.csv only"):
        read(folder, "meld")


def test_splits_are_cut_by_the_column_that_is_asked_for(tmp_path):
    folder = write(tmp_path / "a", np.save, ".npy", split=None, group=None, Speaker=SPEAKERS)
    with pytest.raises(DataError, match=r"column 'split' is missing, .*--split 70/10/20 --groups"):
        read(folder, "mine")
    record = read(folder, "mine", split="60/20/20", groups="speaker")
    assert record.groups == SPEAKERS
    assert [int((record.folds["standard"] == s).sum()) for s in ("train", "valid", "test")] == [6, 2, 2]
    assert any(note.startswith("splits cut 60/20/20 by whole groups with seed 0") for note in record.notes)
    record = read(folder, "mine", split="60/20/20")
    assert any(note.startswith("check: each sample is a group of its own") for note in record.notes)
    with pytest.raises(DataError, match="no column 'video' for --groups; found id, label, Speaker"):
        read(folder, "mine", split="60/20/20", groups="video")


def test_groups_follow_from_ids_of_videos_and_a_missing_valid_can_be_cut(tmp_path):
    ids = [f"{video}$_${row}" for row, video in enumerate(VIDEOS)]
    table = pd.DataFrame({"id": ids, "split": ["train"] * 8 + ["test"] * 2, "label": LABELS, "text": "a film"})
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(DataError, match=r"no sample has the split valid.*--cut-valid 0.1"):
        read(tmp_path / "mine.csv", "mine")
    record = read(tmp_path / "mine.csv", "mine", cut_valid=0.25)
    assert record.groups == VIDEOS
    assert [int((record.folds["standard"] == s).sum()) for s in ("train", "valid", "test")] == [6, 2, 2]


@pytest.mark.parametrize("place", ["", "features"])
@pytest.mark.parametrize("ending", [".npz", ".pkl"])
def test_one_file_per_sample_with_all_modalities(tmp_path, place, ending):
    """As MMSA-FET's ``run_single`` writes them."""
    folder = write(tmp_path / "a", np.save, ".npy")
    for path in (folder / "audio").iterdir():
        path.unlink()
    (folder / "audio").rmdir()
    (folder / place).mkdir(exist_ok=True)
    for name, frames in zip(IDS[:-1], SEQUENCES, strict=False):
        parts = {"audio": frames, "video": frames[:, :2], "text_bert": np.zeros((3, 4))}
        path = folder / place / f"{name}{ending}"
        np.savez(path, **parts) if ending == ".npz" else path.write_bytes(pickle.dumps(parts))
    record = read(folder, "mine")
    assert_frames(record.features["audio"], [*SEQUENCES[:-1], np.zeros((1, 3))])
    assert not record.features["vision"].any_frame(record.features["vision"].observed)[-1]
    assert record.features["vision"].width == 2
    assert notes_of(record, "not read") == []
    (folder / place / f"s3{ending}").write_bytes(b"x")
    (folder / place / f"s4{ending}").write_bytes(pickle.dumps([1]))
    with pytest.raises(FileProblems) as caught:
        read(folder, "mine")
    assert len(caught.value.problems) == 2
