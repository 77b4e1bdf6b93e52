"""Tables of one's own: columns, files per sample, archives; the same data in all three forms."""

import os
import pickle
import random

import numpy as np
import pandas as pd
import pytest
from layout_files import COUNT, LABELS, STANDARD, assert_frames, padded, ragged_samples

from mmsa_lib.cli import main
from mmsa_lib.data.sources.safe_pickle import UnsafePickleError
from mmsa_lib.data.sources.table import read
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

IDS = [f"{row:03d}" for row in range(COUNT)]
GROUPS = [f"video{row // 2}" for row in range(COUNT)]
TEXTS = [f'NA, said "{row}"' for row in range(COUNT)]
AUDIO = np.random.default_rng(0).uniform(1, 2, (COUNT, 3)).astype(np.float32)
SEQUENCES = ragged_samples(4, 3, 6)


def columns(**changes) -> dict:
    base = {"id": IDS, "split": STANDARD.tolist(), "label": LABELS.tolist(), "text": TEXTS, "group": GROUPS}
    return {key: values for key, values in {**base, **changes}.items() if values is not None}


def audio_columns(values=AUDIO) -> dict:
    return {f"audio:{i}": values[:, i].astype(float).tolist() for i in range(values.shape[1])}


def write_table(path, content):
    pd.DataFrame(content).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def write_archive(path, **arrays):
    base = {key: np.array(values) for key, values in columns().items()}
    np.savez(path, **{key: values for key, values in {**base, **arrays}.items() if values is not None})
    return path


def write_folder(folder, samples, ids=IDS, **changes):
    (folder / "audio").mkdir()
    for name, values in zip(ids, samples, strict=True):
        if values is not None:
            np.save(folder / "audio" / f"{name}.npy", values)
    write_table(folder / "samples.csv", columns(id=ids, **changes))
    return folder


def _assert_columns(record):
    assert record.ids == IDS  # 000 stays 000
    assert record.groups == GROUPS
    assert record.transcripts == TEXTS  # NA stays NA
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.task == regression((-3, 3))
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert [p for p in check_record(record) if p.severity == "error"] == []


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv"])
def test_table_with_feature_columns(tmp_path, name):
    record = read(write_table(tmp_path / name, columns(**audio_columns())), "mine")
    _assert_columns(record)
    np.testing.assert_array_equal(record.features["audio"].values, AUDIO)
    assert record.features["audio"].level == "utterance"
    assert record.defaults == {"*": {"text": "words", "audio": "audio"}}


def test_feature_columns_in_any_order_and_beyond_ten(tmp_path):
    values = np.random.default_rng(1).uniform(1, 2, (COUNT, 12)).astype(np.float32)
    shuffled = dict(reversed(audio_columns(values).items()))
    record = read(write_table(tmp_path / "mine.csv", columns(**shuffled)), "mine")
    np.testing.assert_array_equal(record.features["audio"].values, values)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False])
def test_archive_with_sequences(tmp_path, left, with_lengths):
    lengths = {"audio_lengths": np.array([len(x) for x in SEQUENCES])} if with_lengths else {}
    path = write_archive(tmp_path / "mine.npz", audio=padded(SEQUENCES, 9, left), **lengths)
    record = read(path, "mine")
    _assert_columns(record)
    assert_frames(record.features["audio"], SEQUENCES)
    assert record.features["audio"].level == "frame"


def test_archive_with_text_features_and_objects(tmp_path):
    path = write_archive(tmp_path / "mine.npz", text_features=AUDIO, text=np.array(TEXTS, dtype=object))
    record = read(path, "mine")
    _assert_columns(record)
    assert record.defaults == {"*": {"text": "text"}}
    np.testing.assert_array_equal(record.features["text"].values, AUDIO)


def test_folder_with_a_file_per_sample(tmp_path):
    samples = [None if row == 4 else values for row, values in enumerate(SEQUENCES)]
    record = read(write_folder(tmp_path, samples), "mine")
    _assert_columns(record)
    assert_frames(record.features["audio"], [np.zeros((1, 3)) if x is None else x for x in samples])
    observed = np.split(record.features["audio"].observed, record.features["audio"].offsets[1:-1])
    assert [mask.all() for mask in observed] == [row != 4 for row in range(COUNT)]


def test_folder_with_one_row_per_sample(tmp_path):
    record = read(write_folder(tmp_path, list(AUDIO)), "mine")
    np.testing.assert_array_equal(record.features["audio"].values, AUDIO)
    assert record.features["audio"].level == "utterance"


def test_empty_rows_are_missing_and_single_empty_cells_are_repaired(tmp_path):
    cells = audio_columns()
    cells["audio:0"][2] = None
    cells["audio:1"][5] = float("-inf")
    for name in cells:
        cells[name][3] = None
    audio_set = read(write_table(tmp_path / "mine.csv", columns(**cells)), "mine")
    assert audio_set.features["audio"].observed.tolist() == [row != 3 for row in range(COUNT)]
    assert audio_set.repairs["audio: NaN set to 0"] == 1
    assert audio_set.repairs["audio: -inf set to 0"] == 1
    expected = AUDIO.copy()
    expected[2, 0] = expected[5, 1] = expected[3] = 0
    np.testing.assert_array_equal(audio_set.features["audio"].values, expected)


def test_emotions_and_unimodal_labels(tmp_path):
    happy, sad = [row % 2 for row in range(COUNT)], [row % 3 == 0 for row in range(COUNT)]
    content = columns(label=None, **{"label:happy": happy, "label:sad": [int(x) for x in sad]})
    path = write_table(tmp_path / "mine.csv", content)
    record = read(path, "mine")
    assert record.task == emotions(["happy", "sad"])
    np.testing.assert_array_equal(record.labels, np.stack([happy, sad], axis=1))
    swapped = read(path, "mine", task=emotions(["sad", "happy"]))
    np.testing.assert_array_equal(swapped.labels, np.stack([sad, happy], axis=1))
    with pytest.raises(DataError, match="not the task that was asked for"):
        read(path, "mine", task=emotions(["sad"]))
    unimodal = columns(label=(LABELS / 3).tolist(), label_audio=(LABELS / -3).tolist())
    record = read(write_table(tmp_path / "mine.csv", unimodal), "mine")
    assert record.task == regression((-1, 1))
    np.testing.assert_array_equal(record.unimodal_labels["audio"], (LABELS / -3).astype(np.float32))


def test_split_names_and_byte_order_mark(tmp_path):
    names = {"train": "Train", "valid": "dev", "test": "TEST"}
    path = write_table(tmp_path / "mine.csv", columns(split=[names[s] for s in STANDARD]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path, "mine").folds["standard"].tolist() == STANDARD.tolist()


def _with(key, row, value):
    content = columns(**audio_columns())
    content[key] = [value if i == row else old for i, old in enumerate(content[key])]
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (columns(id=None), "column 'id' is missing, found split, label"),
        (columns(split=None), "column 'split' is missing"),
        (columns(label=None), "column 'label' is missing"),
        (columns(text=None), "nothing to learn from"),
        (columns(split=["train"] * COUNT), "no sample has the split valid"),
        (_with("split", 3, "trian"), "split 'trian' of sample '003' is unknown"),
        (_with("id", 9, "000"), "id '000' occurs twice"),
        (_with("id", 9, ""), "line 11: an empty id; fill"),
        (_with("split", 9, " "), "line 11: an empty split of sample '009'; fill"),
        (_with("label", 4, None), "line 6: an empty label of sample '004'; fill"),
        (_with("label", 4, "nan"), "label: label nan of sample '004'"),
        (_with("label", 4, "good"), "label: label 'good' of sample '004' is no number"),
        (_with("label", 4, 5), "label 5 of sample '004' lies outside"),
        (_with("audio:1", 4, "loud"), "'loud' in column 'audio:1' of sample '004' is no number"),
        (columns(**{"audio:0": LABELS, "audio:2": LABELS}), "column 'audio:1' is missing"),
        (columns(**{"label:happy": [0] * COUNT}), "has both 'label' and 'label:happy'"),
        (columns(label=None, **{"label:happy": [0.5] * COUNT}), "emotion labels such as '0.5' are not 0 or 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_sample(tmp_path, content, said):
    with pytest.raises(DataError, match=said) as caught:
        read(write_table(tmp_path / "mine.csv", content), "mine")
    assert "mine.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_that_are_none(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "nothing.csv", "mine")
    with pytest.raises(DataError, match=r"needs a table samples\.csv"):
        read(tmp_path, "mine")
    (tmp_path / "mine.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"give a \.csv"):
        read(tmp_path / "mine.xlsx", "mine")
    for content in (b"", b"id,split\na,train,x,y\n", b"\xff\xfe\x00"):
        (tmp_path / "mine.csv").write_bytes(content)
        with pytest.raises(DataError, match="not a readable table"):
            read(tmp_path / "mine.csv", "mine")


def test_files_that_do_not_fit_together(tmp_path):
    samples = list(SEQUENCES)
    samples[3] = np.ones((2, 5))
    with pytest.raises(DataError, match=r"3 \(sample '.*'\) and 5 \(sample '003'\)"):
        read(write_folder(tmp_path, samples), "mine")
    np.save(tmp_path / "audio" / "003.npy", np.array([["a"]]))
    with pytest.raises(DataError, match=r"003\.npy: shape"):
        read(tmp_path, "mine")
    (tmp_path / "audio" / "003.npy").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"003\.npy: no array of numbers"):
        read(tmp_path, "mine")


def test_an_id_can_not_leave_the_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(tmp_path / "secret.npy", np.ones((1, 3)))
    ids = ["../../secret", *IDS[1:]]
    (folder / "audio").mkdir()
    write_table(folder / "samples.csv", columns(id=ids))
    with pytest.raises(DataError, match="can't be a file name"):
        read(folder, "mine")


class _Call:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_archives_and_arrays_does_not_run(tmp_path):
    witness = tmp_path / "witness"
    path = write_archive(tmp_path / "mine.npz", text=np.array([_Call(witness)] * COUNT, dtype=object))
    with pytest.raises(UnsafePickleError, match="text"):
        read(path, "mine")
    (tmp_path / "data").mkdir()
    folder = write_folder(tmp_path / "data", list(SEQUENCES))
    (folder / "audio" / "003.npy").write_bytes(pickle.dumps(_Call(witness)))
    with pytest.raises(DataError, match=r"003\.npy: no array of numbers"):
        read(folder, "mine")
    assert not witness.exists()


def test_archive_columns_must_be_arrays(tmp_path):
    with pytest.raises(DataError, match="'label' is a single object"):
        read(write_archive(tmp_path / "mine.npz", label=np.array(3.0)), "mine")
    with pytest.raises(DataError, match="audio_lengths"):
        read(write_archive(tmp_path / "mine.npz", audio=padded(SEQUENCES, 9), audio_lengths=np.ones(3, int)), "mine")
    with pytest.raises(DataError, match="label"):
        read(write_archive(tmp_path / "mine.npz", label=LABELS[:-1]), "mine")


def lines_of(content, mark=",", **changes):
    """The table of ``content`` as text, cells unquoted."""
    rows = [list(content), *map(list, zip(*content.values(), strict=True))]
    return "\n".join(mark.join(map(str, row)) for row in rows) + "\n"


def test_names_that_people_use_are_read_and_named(tmp_path):
    """CH-SIMS's own label table, with features."""
    content = {
        "video_id": GROUPS,
        "clip_id": [f"{row % 2:04d}" for row in range(COUNT)],
        "text": TEXTS,
        "label": (LABELS / 3).tolist(),
        **{f"label_{letter}": (LABELS / 3).tolist() for letter in "TAV"},
        "annotation": ["Positive"] * COUNT,
        "mode": STANDARD.tolist(),
        **{f"acoustic_{i}": AUDIO[:, i].tolist() for i in range(3)},
        **{f"visual.{i}": AUDIO[:, i].tolist() for i in range(3)},
    }
    record = read(write_table(tmp_path / "label.csv", content), "mine")
    assert record.ids == [f"{group}$_${row % 2:04d}" for row, group in enumerate(GROUPS)]
    assert record.groups == GROUPS
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.task == regression((-1, 1))
    assert sorted(record.unimodal_labels) == ["audio", "text", "vision"]
    np.testing.assert_allclose(record.features["audio"].values, AUDIO)
    np.testing.assert_allclose(record.features["vision"].values, AUDIO)
    assert "not read: annotation" in record.notes
    assert "'mode' read as split" in record.notes


def test_what_is_not_read_is_named(tmp_path):
    content = columns(**audio_columns(), duration=LABELS, Speaker=GROUPS, covarep_0=LABELS, label_T=[None] * COUNT)
    record = read(write_table(tmp_path / "mine.csv", content), "mine")
    (note,) = [note for note in record.notes if note.startswith("not read")]
    for name in ("duration", "Speaker", "covarep_0", "label_T (no value for 10 of 10 samples)"):
        assert name in note
    assert record.unimodal_labels == {}
    path = write_archive(tmp_path / "mine.npz", extra=LABELS, scalar=np.array(3), vision_lengths=np.ones(COUNT, int))
    (note,) = [note for note in read(path, "mine").notes if note.startswith("not read")]
    assert note == "not read: extra, scalar, vision_lengths"


def test_a_folder_names_what_it_does_not_read(tmp_path):
    write_folder(tmp_path, list(SEQUENCES))
    (tmp_path / "audio").rename(tmp_path / "acoustic")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").touch()
    for name in ("stranger.npy", "000.npz"):
        (tmp_path / "acoustic" / name).touch()
    record = read(tmp_path, "mine")
    assert_frames(record.features["audio"], SEQUENCES)
    (note,) = [note for note in record.notes if note.startswith("not read")]
    for name in ("README.md", "notes", "acoustic/stranger.npy (no sample of that id)", "acoustic/000.npz"):
        assert name in note
    assert ".cache" not in note
    assert "folder 'acoustic' read as audio" in record.notes


def test_ragged_arrays_of_an_archive(tmp_path):
    ragged = np.empty(COUNT, object)
    ragged[:] = SEQUENCES
    record = read(write_archive(tmp_path / "mine.npz", visual=ragged), "mine")
    assert_frames(record.features["vision"], SEQUENCES)
    ragged[4] = None
    record = read(write_archive(tmp_path / "mine.npz", visual=ragged), "mine")
    assert not record.features["vision"].observed[slice(*record.features["vision"].offsets[[4, 5]])].any()
    ragged[4] = np.ones((2, 9))
    with pytest.raises(DataError, match="widths"):
        read(write_archive(tmp_path / "mine.npz", visual=ragged), "mine")


def test_an_array_called_text_may_hold_features(tmp_path):
    record = read(write_archive(tmp_path / "mine.npz", text=AUDIO, raw_text=np.array(TEXTS)), "mine")
    np.testing.assert_array_equal(record.features["text"].values, AUDIO)
    assert record.transcripts == TEXTS


def test_missing_texts_stay_missing(tmp_path):
    texts = ["", "nan", "NaN", "<NA>", "NA", "None", *TEXTS[6:]]
    record = read(write_table(tmp_path / "mine.csv", columns(text=texts, **audio_columns())), "mine")
    assert record.transcripts == ["", "", "", "", "NA", "None", *TEXTS[6:]]
    assert record.repairs["text: cells that say nan, left empty"] == 3
    assert any("check: 1 transcripts are 'None'" in note for note in record.notes)
    record = read(write_table(tmp_path / "mine.csv", columns(text=[""] * COUNT, **audio_columns())), "mine")
    assert record.transcripts is None
    assert "not read: text (no values)" in record.notes
    missing = np.array([None, float("nan"), *TEXTS[2:]], dtype=object)
    assert read(write_archive(tmp_path / "mine.npz", text=missing), "mine").transcripts == ["", "", *TEXTS[2:]]


def test_some_empty_groups_are_groups_of_their_own(tmp_path):
    record = read(write_table(tmp_path / "mine.csv", columns(group=["", *GROUPS[1:]])), "mine")
    assert record.groups == [IDS[0], *GROUPS[1:]]
    assert any("group: 1 cells are empty" in note for note in record.notes)
    assert read(write_table(tmp_path / "mine.csv", columns(group=[""] * COUNT)), "mine").groups == IDS


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas_and_typographic_minus_signs(tmp_path, mark):
    labels = [f"{label:g}".replace("-", "\N{MINUS SIGN}").replace(".", ",") for label in LABELS]
    cells = {name: [f"{x:.4f}".replace(".", ",") for x in values] for name, values in audio_columns().items()}
    content = columns(label=labels, text=["plain, text"] * COUNT, **cells)
    (tmp_path / "mine.csv").write_text(lines_of(content, mark), encoding="utf-8")
    record = read(tmp_path / "mine.csv", "mine")
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    np.testing.assert_allclose(record.features["audio"].values, AUDIO, atol=1e-4)
    assert record.repairs["typographic minus signs read as minus"] == int((LABELS < 0).sum())
    assert record.repairs["decimal commas read as points"] == sum("," in cell for cell in labels) + 3 * COUNT
    assert record.transcripts == ["plain, text"] * COUNT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": ["1,5", "1.5"] * 5}, "line 2: '1,5' has a comma, and '1.5' in line 3 a point"),
        ({"label": ["1,500"] * COUNT}, "line 2: '1,500' may be a decimal or thousands"),
        ({"label": ["1,5", "good"] * 5}, "'good'"),
        ({"split": None}, "files of one split each.*a table has the columns"),
        ({"audio:00": LABELS, "audio_0": LABELS}, "has both 'audio:00' and 'audio_0'"),
        ({"audio_1": LABELS, "audio_2": LABELS}, "column 'audio_0' is missing"),
        ({"audio.0": LABELS, "audio.2": LABELS, "audio.3": LABELS}, r"column 'audio\.1' is missing"),
        ({"audio:0": ["1_0"] * COUNT}, "line 2: '1_0' in column 'audio:0' of sample '000' is no number"),
        ({"id": None, "segment": IDS, "Sample ID": IDS}, "has both 'segment' and 'Sample ID' for id"),
        ({"id": None, "clip_id": [""] * COUNT}, "line 2: an empty clip_id"),
    ],
)
def test_cells_that_can_not_be_meant_are_quoted_with_their_line(tmp_path, changes, said):
    (tmp_path / "mine.csv").write_text(lines_of(columns(text=["x"] * COUNT, **changes), ";"), encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read(tmp_path / "mine.csv", "mine")


def test_a_folder_without_arrays_of_a_split_is_warned_about(tmp_path):
    write_folder(tmp_path, [None if row < 6 else values for row, values in enumerate(SEQUENCES)])
    found = [str(problem) for problem in check_record(read(tmp_path, "mine"))]
    assert any("missing for all 6 samples of split train" in problem for problem in found)


@pytest.mark.parametrize("kind", ["link", "folder", "lfs", "annex", "objects", "strings", "complex", "empty", "tail"])
def test_a_lost_file_is_not_a_missing_one(tmp_path, kind):
    path = write_folder(tmp_path, list(SEQUENCES)) / "audio" / "003.npy"
    whole = path.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to("../.git/annex/objects/003")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("lfs", "annex"):
        path.write_text({"lfs": "version https://git-lfs.github.com/spec/v1\n", "annex": "/annex/objects/0\n"}[kind])
    elif kind in ("empty", "tail"):
        path.write_bytes(b"" if kind == "empty" else whole + b"\0")
    else:
        values = {"objects": np.array([[None]]), "strings": np.array([["1"]]), "complex": np.ones((2, 3), complex)}
        np.save(path, values[kind], allow_pickle=True)
    with pytest.raises(DataError, match=r"003\.npy") as caught:
        read(tmp_path, "mine")
    assert "\n" not in str(caught.value)


def test_a_modality_that_is_no_folder_is_refused(tmp_path):
    write_folder(tmp_path, list(SEQUENCES))
    (tmp_path / "video").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"video must be a folder.*nowhere, which is not here"):
        read(tmp_path, "mine")
    (tmp_path / "video").unlink()
    (tmp_path / "visual").mkdir()
    (tmp_path / "facet").mkdir()
    with pytest.raises(DataError, match="has both facet and visual for vision"):
        read(tmp_path, "mine")


def test_a_linked_table_that_is_not_here(tmp_path):
    write_folder(tmp_path, list(SEQUENCES))
    (tmp_path / "samples.csv").unlink()
    (tmp_path / "samples.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match="a link to nowhere, which is not here"):
        read(tmp_path, "mine")


def _damaged(whole, generator):
    damaged = bytearray(whole)
    start = generator.randrange(len(whole))
    if generator.random() < 0.3:
        return bytes(damaged[:start])
    damaged[start : start + generator.choice((0, 1, 4))] = generator.randbytes(generator.choice((0, 1, 8)))
    return bytes(damaged)


def _loaded(path):
    try:
        return read(path, "mine")
    except DataError as error:
        return str(error)


def test_arrays_cut_anywhere_are_refused(tmp_path):
    path = write_folder(tmp_path, list(SEQUENCES)) / "audio" / "003.npy"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = _loaded(tmp_path)
        assert isinstance(found, str)
        assert "\n" not in found


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_archives_lose_nothing(tmp_path, compressed):
    generator = random.Random(0)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "whole.npz", **{key: np.array(values) for key, values in columns(audio=AUDIO).items()})
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "mine.npz"
    expected = read(tmp_path / "whole.npz", "mine")
    for _ in range(150):
        path.write_bytes(_damaged(whole, generator))
        found = _loaded(path)
        if isinstance(found, str):
            assert "\n" not in found
        else:  # a date or a flag of the archive
            assert (found.ids, found.transcripts, found.groups) == (expected.ids, expected.transcripts, expected.groups)
            np.testing.assert_array_equal(found.features["audio"].values, AUDIO)


def test_damaged_arrays_are_one_line(tmp_path):
    generator = random.Random(0)
    path = write_folder(tmp_path, list(SEQUENCES)) / "audio" / "003.npy"
    whole = path.read_bytes()
    for _ in range(150):
        path.write_bytes(_damaged(whole, generator))
        found = _loaded(tmp_path)
        assert not isinstance(found, str) or "\n" not in found


def test_an_import_warns_of_what_is_not_read_and_what_may_be_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "home"))
    path = write_table(tmp_path / "mine.csv", columns(duration=LABELS))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert main(["data", "import", "table", str(path), "--name", "mine"]) == 0
    said = capsys.readouterr().err
    assert "warning: not read: duration\n" in said
    assert "warning: check: mine.csv does not end in a line end" in said
    assert main(["data", "import", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("video_id and clip_id", "split (train, valid or test", "audio:0, audio:1", "samples.csv"):
        assert word in said


def test_a_folder_without_any_array_of_a_sample(tmp_path):
    write_folder(tmp_path, [None] * COUNT)
    assert "not read: audio (an empty folder)" in read(tmp_path, "mine").notes
    np.save(tmp_path / "audio" / "0.npy", SEQUENCES[0])
    with pytest.raises(DataError, match=r"no file is called after a sample, as 000\.npy would be, found 0\.npy"):
        read(tmp_path, "mine")


def test_an_array_without_any_value_is_left_out_and_named(tmp_path):
    empty = np.full((COUNT, 3, 2), np.nan)
    record = read(write_archive(tmp_path / "mine.npz", audio=empty, audio_lengths=np.ones(COUNT, int)), "mine")
    assert record.features == {}
    assert "not read: audio_lengths, audio (no value)" in record.notes
