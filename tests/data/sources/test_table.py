"""Tables of one's own: columns, files per sample, archives; the same data in all three forms."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
from layout_files import COUNT, LABELS, STANDARD, assert_frames, padded, ragged_samples

from mmsa_lib.data.check import check_record
from mmsa_lib.data.sources.safe_pickle import UnsafePickleError
from mmsa_lib.data.sources.table import read
from mmsa_lib.data.task import emotions, regression
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
        (_with("id", 9, ""), "empty id"),
        (_with("label", 4, None), "column 'label': the label of sample '004' is nan"),
        (_with("label", 4, "good"), "column 'label': the label of sample '004' is 'good', no number"),
        (_with("label", 4, 5), "label 5 of sample '004' lies outside"),
        (_with("audio:1", 4, "loud"), "'loud' in column 'audio:1' of sample '004' is no number"),
        (columns(**{"audio:0": LABELS, "audio:2": LABELS}), "column 'audio:1' is missing"),
        (columns(**{"label:happy": [0] * COUNT}), "has both 'label' and 'label:happy'"),
        (columns(label=None, **{"label:happy": [0.5] * COUNT}), "emotion labels of sample '000' are not 0 or 1"),
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
