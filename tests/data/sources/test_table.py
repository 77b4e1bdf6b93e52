"""Tables of one's own: columns, files per sample, archives; the same data in all three forms."""

import os
import pickle
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damaged_files import damaged
from layout_files import (
    COUNT,
    LABELS,
    STANDARD,
    VIDEOS,
    Call,
    assert_frames,
    changed,
    frames_of,
    notes_of,
    observed_of,
    padded,
    ragged_samples,
)

from mmsa_lib.cli import main
from mmsa_lib.data.sources.safe_pickle import UnsafePickleError
from mmsa_lib.data.sources.samples import open_samples
from mmsa_lib.data.sources.table import read
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError, MMSAError

IDS = [f"{row:03d}" for row in range(COUNT)]
TEXTS = [f'NA, said "{row}"' for row in range(COUNT)]
AUDIO = np.random.default_rng(0).uniform(1, 2, (COUNT, 3)).astype(np.float32)
SEQUENCES = ragged_samples(4, 3, 6)
CELLS = {f"audio:{i}": AUDIO[:, i].astype(float).tolist() for i in range(3)}
THIRDS = (LABELS / 3).tolist()


def columns(**changes) -> dict:
    """The columns of a table; ``None`` drops one."""
    base = {"id": IDS, "split": STANDARD.tolist(), "label": LABELS.tolist(), "text": TEXTS, "group": VIDEOS}
    return {key: values for key, values in {**base, **changes}.items() if values is not None}


def write_table(path: Path, mark: str = "", **changes) -> Path:
    mark = mark or ("\t" if path.suffix == ".tsv" else ",")
    pd.DataFrame(columns(**changes)).to_csv(path, index=False, sep=mark)
    return path


def write_archive(path: Path, **arrays) -> Path:
    base = {key: np.array(values) for key, values in columns().items()}
    np.savez(path, **{key: values for key, values in {**base, **arrays}.items() if values is not None})
    return path


def write_folder(folder: Path, samples, ids=IDS) -> Path:
    (folder / "audio").mkdir()
    for name, values in zip(ids, samples, strict=True):
        if values is not None:
            np.save(folder / "audio" / f"{name}.npy", values)
    write_table(folder / "samples.csv", id=ids)
    return folder


def _table(tmp_path, **changes):
    return read(write_table(tmp_path / "mine.csv", **changes), "mine")


def _archive(tmp_path, **arrays):
    return read(write_archive(tmp_path / "mine.npz", **arrays), "mine")


def _assert_columns(record):
    assert record.ids == IDS  # 000 stays 000
    assert record.groups == VIDEOS
    assert record.transcripts == TEXTS  # NA stays NA
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.task == regression((-3, 3))
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert [p for p in check_record(record) if p.severity == "error"] == []


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv"])
def test_table_with_feature_columns_in_any_order(tmp_path, name):
    cells = dict(reversed(CELLS.items())) | {f"vision:{i}": (LABELS + i).tolist() for i in (11, *range(11))}
    record = read(write_table(tmp_path / name, **cells), "mine")
    _assert_columns(record)
    np.testing.assert_array_equal(record.features["audio"].values, AUDIO)
    np.testing.assert_array_equal(
        record.features["vision"].values, (LABELS[:, None] + np.arange(12)).astype(np.float32)
    )
    assert record.features["audio"].level == "utterance"
    assert record.defaults == {"*": {"text": "words", "audio": "audio", "vision": "vision"}}


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False])
def test_archive_with_sequences(tmp_path, left, with_lengths):
    lengths = {"audio_lengths": np.array([len(x) for x in SEQUENCES])} if with_lengths else {}
    record = _archive(tmp_path, audio=padded(SEQUENCES, 9, left), **lengths)
    _assert_columns(record)
    assert_frames(record.features["audio"], SEQUENCES)
    assert record.features["audio"].level == "frame"


def test_arrays_called_text_may_hold_features_or_transcripts(tmp_path):
    record = _archive(tmp_path, text_features=AUDIO, text=np.array(TEXTS, dtype=object))
    _assert_columns(record)
    assert record.defaults == {"*": {"text": "text"}}
    np.testing.assert_array_equal(record.features["text"].values, AUDIO)
    record = _archive(tmp_path, text=AUDIO, raw_text=np.array(TEXTS))
    np.testing.assert_array_equal(record.features["text"].values, AUDIO)
    assert record.transcripts == TEXTS
    assert "'text' read as text_features" in record.notes


def test_ragged_arrays_of_an_archive(tmp_path):
    record = _archive(tmp_path, visual=np.array([*changed(SEQUENCES, 4, None)], dtype=object))
    assert not observed_of(record.features["vision"])[4].any()
    np.testing.assert_array_equal(frames_of(record.features["vision"])[5], SEQUENCES[5].astype(np.float32))
    with pytest.raises(DataError, match="widths"):
        _archive(tmp_path, visual=np.array([*changed(SEQUENCES, 4, np.ones((2, 9)))], dtype=object))


def test_folder_with_a_file_per_sample(tmp_path):
    samples = changed(SEQUENCES, 4, None)
    record = read(write_folder(tmp_path, samples), "mine")
    _assert_columns(record)
    assert f"check: 1 of {COUNT} samples have no file in audio, the first is {IDS[4]!r}" in record.notes
    assert_frames(record.features["audio"], [np.zeros((1, 3)) if x is None else x for x in samples])
    assert [mask.all() for mask in observed_of(record.features["audio"])] == [row != 4 for row in range(COUNT)]


def test_folder_with_one_row_per_sample(tmp_path):
    record = read(write_folder(tmp_path, list(AUDIO)), "mine")
    np.testing.assert_array_equal(record.features["audio"].values, AUDIO)
    assert record.features["audio"].level == "utterance"


def test_empty_rows_are_missing_and_single_empty_cells_are_repaired(tmp_path):
    cells = {name: changed(values, 3, None) for name, values in CELLS.items()}
    cells["audio:0"][2] = None
    cells["audio:1"][5] = float("-inf")
    record = _table(tmp_path, **cells)
    assert record.features["audio"].observed.tolist() == [row != 3 for row in range(COUNT)]
    assert record.repairs["audio: NaN set to 0"] == record.repairs["audio: -inf set to 0"] == 1
    expected = AUDIO.copy()
    expected[2, 0] = expected[5, 1] = expected[3] = 0
    np.testing.assert_array_equal(record.features["audio"].values, expected)


def test_emotions_and_classes_from_columns_of_their_names(tmp_path):
    happy, sad = [row % 2 for row in range(COUNT)], [1 - row % 2 for row in range(COUNT)]
    path = write_table(tmp_path / "mine.csv", label=None, **{"label:happy": happy, "label:sad": sad})
    record = read(path, "mine")
    assert record.task == emotions(["happy", "sad"])
    np.testing.assert_array_equal(record.labels, np.stack([happy, sad], axis=1))
    swapped = read(path, "mine", task=emotions(["sad", "happy"]))
    np.testing.assert_array_equal(swapped.labels, np.stack([sad, happy], axis=1))
    np.testing.assert_array_equal(read(path, "mine", task=classes(["happy", "sad"])).labels, sad)
    with pytest.raises(DataError, match="not the task that was asked for"):
        read(path, "mine", task=emotions(["sad"]))
    intense = {"label:happy": [2.5 * x for x in happy], "label:sad": sad}
    path = write_table(tmp_path / "mine.csv", label=None, **intense)
    with pytest.raises(DataError, match=r"emotion labels such as '2.5' are not 0 or 1.*--emotions happy sad"):
        read(path, "mine")
    np.testing.assert_array_equal(read(path, "mine", task=emotions(["happy", "sad"])).labels[:, 0], happy)


def test_words_as_labels(tmp_path):
    words = ["Neg", "pos", "neu", "pos", "neg"] * 2
    path = write_table(tmp_path / "mine.csv", label=words)
    assert read(path, "mine", task=classes(["neg", "neu", "pos"])).labels.tolist() == [0, 2, 1, 2, 0] * 2
    with pytest.raises(DataError, match="label: the labels are words"):
        read(path, "mine")


def test_split_names_and_byte_order_mark(tmp_path):
    names = {"train": "Train", "valid": "dev", "test": "TEST"}
    path = write_table(tmp_path / "mine.csv", split=[names[s] for s in STANDARD])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path, "mine").folds["standard"].tolist() == STANDARD.tolist()


def _cell(key, row, value):
    return {**CELLS, key: changed(columns(**CELLS)[key], row, value)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "column 'id' is missing, found split, label"),
        ({"split": None}, "column 'split' is missing, .*files of one split each.*a table has the columns"),
        ({"label": None}, "column 'label' is missing"),
        ({"text": None}, "nothing to learn from"),
        ({"split": ["train"] * COUNT}, "no sample has the split valid"),
        (_cell("split", 3, "trian"), "line 5: split 'trian' of sample '003' is unknown"),
        (_cell("id", 9, ""), "line 11: an empty id; fill"),
        (_cell("split", 9, " "), "line 11: an empty split of sample '009'; fill"),
        (_cell("label", 4, None), "line 6: an empty label of sample '004'; fill"),
        (_cell("label", 4, "nan"), "label: label nan of sample '004'"),
        (_cell("label", 4, "good"), "label: label 'good' of sample '004' is no number"),
        (_cell("audio:1", 4, "loud"), "'loud' in column 'audio:1' of sample '004' is no number"),
        ({"audio:0": LABELS, "audio:2": LABELS}, "column 'audio:1' is missing"),
        ({"label:happy": [0] * COUNT}, "has both 'label' and 'label:happy'"),
        ({"label": ["1,5", "1.5"] * 5}, "line 2: '1,5' has a comma, and '1.5' in line 3 a point"),
        ({"label": ["1,500"] * COUNT}, "line 2: '1,500' may be a decimal or thousands"),
        ({"label": ["1,5", "good"] * 5}, "'good'"),
        ({"audio:00": LABELS, "audio_0": LABELS}, "has both 'audio:00' and 'audio_0'"),
        ({"audio_1": LABELS, "audio_2": LABELS}, "column 'audio_0' is missing"),
        ({"audio.0": LABELS, "audio.2": LABELS, "audio.3": LABELS}, r"column 'audio\.1' is missing"),
        ({"audio:0": ["1_0"] * COUNT}, "line 2: '1_0' in column 'audio:0' of sample '000' is no number"),
        ({"id": None, "segment": IDS, "Sample ID": IDS}, "has both 'segment' and 'Sample ID' for id"),
        ({"id": None, "clip_id": [""] * COUNT}, "line 2: an empty clip_id"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, changes, said):
    with pytest.raises(DataError, match=said) as caught:
        read(write_table(tmp_path / "mine.csv", ";", **{"text": ["x"] * COUNT, **changes}), "mine")
    assert "mine.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        *((name, f"column '{name}' is read as") for name in ("id", "split", "group", "text", "audio:0")),
        ("lable", "unknown column of .*mine.csv 'lable'; did you mean label"),
    ],
)
def test_a_column_that_holds_no_labels_is_refused(tmp_path, column, said):
    more = {"text": ["x"] * COUNT, "group": IDS, "audio:0": LABELS, "label_text": LABELS}
    path = write_table(tmp_path / "mine.csv", ";", **more)
    with pytest.raises(MMSAError, match=said):
        read(path, "mine", label_column=column)
    assert read(path, "mine", label_column="label_text").labels.tolist() == pytest.approx(list(LABELS))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing.csv", None, "No such file"),
        (".", None, r"needs a table samples\.csv"),
        ("mine.xlsx", b"PK", r"give a \.csv"),
        ("mine.csv", b"", "not a readable table"),
        ("mine.csv", b"id,split\na,train,x,y\n", "not a readable table"),
        ("mine.npz", b"id,split\n", r"is not an \.npz archive"),
    ],
)
def test_tables_that_are_none(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name, "mine")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"label": np.array(3.0)}, "'label' is a single object"),
        ({"audio": padded(SEQUENCES, 9), "audio_lengths": np.ones(3, int)}, "audio_lengths: 3 lengths for 10 samples"),
        ({"label": LABELS[:-1]}, r"label: shape \(9,\) for 10 samples"),
        ({"group": np.array(VIDEOS[:-1])}, "group: 9 entries for 10 samples"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said):
        _archive(tmp_path, **arrays)


def test_names_that_people_use_are_read_and_named(tmp_path):
    """CH-SIMS's own label table, with features."""
    content = {
        **dict.fromkeys(columns()),
        "video_id": VIDEOS,
        "clip_id": [f"{row % 2:04d}" for row in range(COUNT)],
        "text": TEXTS,
        "label": THIRDS,
        **{f"label_{letter}": THIRDS for letter in "TAV"},
        "annotation": ["Positive"] * COUNT,
        "mode": STANDARD.tolist(),
        **{f"{name}{i}": AUDIO[:, i].tolist() for name in ("acoustic_", "visual.") for i in range(3)},
    }
    record = read(write_table(tmp_path / "label.csv", **content), "mine")
    assert record.ids == [f"{group}$_${row % 2:04d}" for row, group in enumerate(VIDEOS)]
    assert record.groups == VIDEOS
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.task == regression((-1, 1))
    assert sorted(record.unimodal_labels) == ["audio", "text", "vision"]
    for modality in ("audio", "vision"):
        np.testing.assert_allclose(record.features[modality].values, AUDIO)
    assert {"not read: annotation", "'mode' read as split", "'label_T' read as label_text"} <= set(record.notes)


def test_what_is_not_read_is_named(tmp_path):
    record = _table(tmp_path, **CELLS, duration=LABELS, Speaker=VIDEOS, covarep_0=LABELS, label_T=[None] * COUNT)
    (note,) = notes_of(record, "not read")
    assert note == "not read: duration, Speaker, covarep_0, label_T (no value for 10 of 10 samples)"
    assert record.unimodal_labels == {}
    record = _archive(tmp_path, extra=LABELS, scalar=np.array(3), vision_lengths=np.ones(COUNT, int))
    assert notes_of(record, "not read") == ["not read: extra, scalar, vision_lengths"]
    record = _archive(tmp_path, audio=np.full((COUNT, 3, 2), np.nan), audio_lengths=np.ones(COUNT, int))
    assert record.features == {}
    assert "not read: audio_lengths, audio (no value)" in record.notes


def test_a_folder_names_what_it_does_not_read(tmp_path):
    write_folder(tmp_path, SEQUENCES)
    (tmp_path / "audio").rename(tmp_path / "acoustic")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("README.md", "log.txt", "acoustic/stranger.npy", "acoustic/000.npz"):
        (tmp_path / name).touch()
    record = read(tmp_path, "mine")
    assert_frames(record.features["audio"], SEQUENCES)
    strange = "acoustic/000.npz (no sample of that id), acoustic/stranger.npy (no sample of that id)"
    assert notes_of(record, "not read") == [f"not read: log.txt, notes, {strange}"]
    assert "folder 'acoustic' read as audio" in record.notes


def test_missing_texts_and_groups_stay_missing(tmp_path):
    texts = ["", "nan", "NaN", "<NA>", "NA", "None", *TEXTS[6:]]
    record = _table(tmp_path, text=texts, **CELLS)
    assert record.transcripts == ["", "", "", "", "NA", "None", *TEXTS[6:]]
    assert record.repairs["text: cells that say nan, left empty"] == 3
    assert any("check: 1 transcripts are 'None'" in note for note in record.notes)
    record = _table(tmp_path, text=[""] * COUNT, **CELLS)
    assert record.transcripts is None
    assert "not read: text (no values)" in record.notes
    missing = np.array([None, float("nan"), *TEXTS[2:]], dtype=object)
    assert _archive(tmp_path, text=missing).transcripts == ["", "", *TEXTS[2:]]
    record = _table(tmp_path, group=["", *VIDEOS[1:]])
    assert record.groups == [IDS[0], *VIDEOS[1:]]
    assert any("group: 1 cells are empty" in note for note in record.notes)
    assert _table(tmp_path, group=[""] * COUNT).groups == IDS


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas_and_typographic_minus_signs(tmp_path, mark):
    labels = [f"{label:g}".replace("-", "\N{MINUS SIGN}").replace(".", ",") for label in LABELS]
    cells = {name: [f"{x:.4f}".replace(".", ",") for x in values] for name, values in CELLS.items()}
    record = read(write_table(tmp_path / "mine.csv", mark, label=labels, text=["plain, text"] * COUNT, **cells), "mine")
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    np.testing.assert_allclose(record.features["audio"].values, AUDIO, atol=1e-4)
    assert record.repairs["typographic minus signs read as minus"] == int((LABELS < 0).sum())
    assert record.repairs["decimal commas read as points"] == sum("," in cell for cell in labels) + 3 * COUNT
    assert record.transcripts == ["plain, text"] * COUNT


def test_code_in_archives_and_arrays_does_not_run(tmp_path):
    witness = tmp_path / "witness"
    call = Call(os.mkdir, str(witness))
    with pytest.raises(UnsafePickleError, match="text"):
        _archive(tmp_path, text=np.array([call] * COUNT, dtype=object))
    (tmp_path / "data").mkdir()
    folder = write_folder(tmp_path / "data", SEQUENCES)
    (folder / "audio" / "003.npy").write_bytes(pickle.dumps(call))
    with pytest.raises(DataError, match=r"003\.npy: no array of numbers"):
        read(folder, "mine")
    assert not witness.exists()


def test_an_id_can_not_leave_the_folder(tmp_path):
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "secret.npy", np.ones((1, 3)))
    write_folder(tmp_path / "data", [None] * COUNT, changed(IDS, 0, "../../secret"))
    with pytest.raises(DataError, match="can't be a file name"):
        read(tmp_path / "data", "mine")


def _text(text):
    return lambda path, whole: path.write_text(text)


def _array(values):
    return lambda path, whole: np.save(path, values, allow_pickle=True)


LOST = {
    "link": (lambda path, whole: path.symlink_to("../.git/annex/objects/003"), "which is not here"),
    "folder": (lambda path, whole: path.mkdir(), "an empty folder"),
    "lfs": (_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "annex": (_text("/annex/objects/0\n"), "git annex get"),
    "empty": (lambda path, whole: path.touch(), "no array of numbers"),
    "text": (_text("abc"), "no array of numbers"),
    "tail": (lambda path, whole: path.write_bytes(whole + b"\0"), "it announces"),
    "objects": (_array(np.array([[None]])), "it holds pickled objects"),
    "strings": (_array(np.array([["1"]])), "expected numbers"),
    "complex": (_array(np.ones((2, 3), complex)), "expected numbers"),
    "width": (_array(np.ones((2, 5))), r"widths 3 \(sample '.*'\) and 5 \(sample '003'\)"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_or_wrong_file_is_not_a_missing_one(tmp_path, kind):
    path = write_folder(tmp_path, SEQUENCES) / "audio" / "003.npy"
    whole, (change, said) = path.read_bytes(), LOST[kind]
    path.unlink()
    change(path, whole)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, "mine")
    assert "003" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_modality_that_is_no_folder_is_refused(tmp_path):
    write_folder(tmp_path, SEQUENCES)
    (tmp_path / "video").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"video must be a folder.*nowhere, which is not here"):
        read(tmp_path, "mine")
    (tmp_path / "video").unlink()
    (tmp_path / "visual").mkdir()
    (tmp_path / "facet").mkdir()
    with pytest.raises(DataError, match="has both 'facet' and 'visual' for vision"):
        read(tmp_path, "mine")


def test_a_linked_table_that_is_not_here(tmp_path):
    write_folder(tmp_path, SEQUENCES)
    (tmp_path / "samples.csv").unlink()
    (tmp_path / "samples.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match="a link to nowhere, which is not here"):
        read(tmp_path, "mine")


def test_a_folder_without_arrays_of_a_split_or_of_any_sample(tmp_path):
    write_folder(tmp_path, [None if row < 6 else values for row, values in enumerate(SEQUENCES)])
    found = [str(problem) for problem in check_record(read(tmp_path, "mine"))]
    assert any("missing for all 6 samples of split train" in problem for problem in found)
    for path in (tmp_path / "audio").iterdir():
        path.unlink()
    assert "not read: audio (an empty folder)" in read(tmp_path, "mine").notes
    np.save(tmp_path / "audio" / "0.npy", SEQUENCES[0])
    with pytest.raises(DataError, match=r"no file is called after a sample, as 000\.npy would be, found 0\.npy"):
        read(tmp_path, "mine")


def one_line(error: DataError) -> str:
    assert "\n" not in str(error)
    return str(error)


def _loaded(path):
    try:
        return read(path, "mine")
    except DataError as error:
        return one_line(error)


def test_arrays_cut_anywhere_are_refused_and_damaged_ones_are_one_line(tmp_path):
    path, generator = write_folder(tmp_path, SEQUENCES) / "audio" / "003.npy", random.Random(0)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert isinstance(_loaded(tmp_path), str)
    for _ in range(100):
        path.write_bytes(damaged(whole, generator))
        _loaded(tmp_path)


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_damaged_archives_lose_nothing(tmp_path, save):
    save(tmp_path / "whole.npz", **{key: np.array(values) for key, values in columns(audio=AUDIO).items()})
    whole, path, generator = (tmp_path / "whole.npz").read_bytes(), tmp_path / "mine.npz", random.Random(0)
    expected = read(tmp_path / "whole.npz", "mine")
    for _ in range(150):
        path.write_bytes(damaged(whole, generator))
        found = _loaded(path)
        if not isinstance(found, str):  # a date or a flag of the archive
            assert (found.ids, found.transcripts, found.groups) == (expected.ids, expected.transcripts, expected.groups)
            np.testing.assert_array_equal(found.features["audio"].values, AUDIO)


def test_an_import_warns_of_what_is_not_read_and_what_may_be_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    path = write_table(tmp_path / "mine.csv", duration=LABELS)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert main(["data", "import", "table", str(path), "--name", "mine"]) == 0
    said = capsys.readouterr().err
    assert "warning: not read: duration\n" in said
    assert "warning: check: mine.csv does not end in a line end" in said
    assert main(["data", "import", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("video_id and clip_id", "split (train, valid or test", "audio:0, audio:1", "samples.csv"):
        assert word in said


def test_a_frame_of_nan_in_an_archive_is_missing_too(tmp_path):
    audio = np.arange(1.0, COUNT * 6 + 1).reshape(COUNT, 2, 3)
    audio[2, 0] = np.nan
    record = _archive(tmp_path, audio=audio)
    assert np.flatnonzero(~record.features["audio"].observed).tolist() == [4]
    assert not [problem for problem in check_record(record) if problem.severity == "error"]


def test_a_row_of_nan_in_a_folder_is_a_frame_that_is_missing(tmp_path):
    folder = tmp_path / "folder"
    (folder / "vision").mkdir(parents=True)
    names = ["a", "b", "c"]
    rows = [f"{name},{split},1.0" for name, split in zip(names, ["train", "valid", "test"], strict=True)]
    (folder / "samples.csv").write_text("\n".join(["id,split,label", *rows, ""]))
    (folder / "extract.json").write_text("{}")
    np.save(folder / "vision" / "a.npy", np.array([[1.0, 2.0], [np.nan, np.nan], [0.0, 3.0]], np.float32))
    np.save(folder / "vision" / "b.npy", np.array([[np.nan, 4.0]], np.float32))
    record = read(folder, "x")
    features = record.features["vision"]
    assert features.lengths.tolist() == [3, 1, 1]
    assert features.observed.tolist() == [True, False, True, True, False]
    assert np.array_equal(features.values, [[1, 2], [0, 0], [0, 3], [0, 4], [0, 0]])
    assert record.repairs["vision: frames that are NaN as a whole, missing"] == 1
    assert record.repairs["vision: NaN set to 0"] == 1
    assert any("1 of sample 'b'" in note for note in record.notes)
    (folder / "vision" / "b.npy").unlink()
    with open_samples(folder) as unlabelled:
        assert unlabelled.features["vision"].observed.tolist() == [True, False, True, False, False]
    assert not [note for note in record.notes if "extract.json" in note]
