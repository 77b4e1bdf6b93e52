"""What holds for every layout: the same samples come out of each, damage is repaired and counted, or refused."""

import numpy as np
import pytest
from layout_files import (
    ANYTHING,
    COUNT,
    FRAMES,
    LABELS,
    READERS,
    SIZES,
    STANDARD,
    VIDEOS,
    WORDS,
    assert_frames,
    changed,
    columns_of,
    mag_tree,
    notes_of,
    observed_of,
    read_or_refuse,
    tree_of,
    write,
    write_layout,
)

from mmsa_lib.data import load
from mmsa_lib.data.sources.labels import MOSEI_COLUMNS
from mmsa_lib.data.sources.layouts import DOUBT
from mmsa_lib.data.store import read_store, write_store
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

LAYOUTS = tuple(READERS)
PADDED = tuple(layout for layout in LAYOUTS if layout != "mag")
PICKLES = ("mmsa", "mult", "mag")


def errors_of(record):
    return [problem for problem in check_record(record) if problem.severity == "error"]


@pytest.mark.parametrize("left", [False, True, [row % 3 == 0 for row in range(COUNT)]])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_samples_come_out_of_every_layout(tmp_path, layout, left):
    record = READERS[layout](write_layout(layout, tmp_path, left), "mine")
    assert record.name == "mine"
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.task == regression((-3, 3))
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.groups == (VIDEOS if layout in ("mmsa", "mag", "table") else record.ids)
    carried = [m for m in FRAMES if m in record.features]
    assert carried == [m for m in FRAMES if layout != "mag" or m != "text"]
    for modality in carried:
        assert_frames(record.features[modality], FRAMES[modality])
        assert record.features[modality].observed.all()
        assert record.repairs[f"{modality}: float64 stored as float32"] == sum(x.size for x in FRAMES[modality])
    words = layout in ("mmsa", "mag", "table")
    assert record.transcripts == ([" ".join(of) for of in WORDS] if words else None)
    text = "words" if layout == "mag" else "text"
    assert record.defaults == {"*": {"text": text, "audio": "audio", "vision": "vision"}}
    shifted = [n for what, n in record.repairs.items() if "padded on the left, shifted" in what]
    assert set(shifted) == ({COUNT if left is True else 4} if left and layout != "mag" else set())
    assert all("SHA-256" in line for line in record.sources)
    assert errors_of(record) == []


@pytest.mark.parametrize("layout", PADDED)
def test_an_imported_set_loads_after_a_round_trip(tmp_path, layout):
    record = READERS[layout](write_layout(layout, tmp_path), "mine")
    write_store(record, tmp_path / "mine.h5")
    assert read_store(tmp_path / "mine.h5").repairs == record.repairs
    splits = load(str(tmp_path / "mine.h5"), standardise=False)
    assert {split: len(utterances) for split, utterances in splits.items()} == SIZES


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_finite_becomes_zero_and_is_counted_and_zeros_are_missing(tmp_path, layout):
    audio = [values.copy() for values in FRAMES["audio"]]
    audio[0][0, :4] = -np.inf, np.nan, np.inf, 1e300
    audio[3][:] = 0
    record = READERS[layout](write_layout(layout, tmp_path, audio=audio), "mine")
    assert {what: n for what, n in record.repairs.items() if "set to 0" in what} == {
        f"audio: {what} set to 0": 1 for what in ("-inf", "+inf", "NaN", "too large for float32,")
    }
    said = f"set to 0: 4 of sample {record.ids[0]!r}"
    assert [note for note in record.notes if note.startswith(DOUBT + "audio: 4 values") and note.endswith(said)]
    audio[0][0, :4] = 0
    found = record.features["audio"]
    assert [mask.all() for mask in observed_of(found)] == [row != 3 for row in range(COUNT)]
    assert not observed_of(found)[3].any()
    lengths = [1 if layout == "table" and row == 3 else len(values) for row, values in enumerate(audio)]
    assert found.lengths.tolist() == lengths
    np.testing.assert_array_equal(found.values[:3], audio[0].astype(np.float32))


@pytest.mark.parametrize("layout", ["mmsa", "mult", "mag", "table"])
def test_frames_may_come_unpadded(tmp_path, layout):
    audio = [values.tolist() if row % 2 else values for row, values in enumerate(FRAMES["audio"])]
    if layout == "table":
        path = write_layout(layout, tmp_path)
        np.savez(path, **(dict(np.load(path)) | {"audio": np.array([*map(np.array, audio)], dtype=object)}))
    else:
        columns = columns_of(layout) | {"audio": audio}
        path = write(tmp_path, mag_tree(columns) if layout == "mag" else tree_of(columns))
    record = READERS[layout](path, "mine")
    assert_frames(record.features["audio"], FRAMES["audio"])
    assert record.features["audio"].observed.all()


ANY, LISTS = LAYOUTS, ("mmsa", "mult", "mag")
DAMAGE = {
    "no number": (ANY, "labels", 6, np.nan, "label nan of sample '.*' is no finite number .1 such"),
    "out of range": (ANY, "labels", 8, 7, r"label 7 of sample '.*' lies outside \[-3, 3\] .*--range"),
    "a word": (LISTS, "labels", 9, "good", "label 'good' of sample '.*' is no number"),
    "two numbers": (LISTS, "labels", 9, [1.0, 2.0], r"sample '.*' has shape \(2,\), the first"),
    "a width": (LISTS, "audio", 8, np.ones((4, 9)), "audio features have the widths"),
}


@pytest.mark.parametrize(("layout", "kind"), [(layout, kind) for kind in DAMAGE for layout in DAMAGE[kind][0]])
def test_damage_is_named_with_its_place(tmp_path, layout, kind):
    _, key, row, value, said = DAMAGE[kind]
    column = changed({"labels": LABELS.tolist(), **FRAMES}[key], row, value)
    path = write_layout(layout, tmp_path, **{key: np.array(column) if layout == "mfn" else column})
    with pytest.raises(DataError, match=said) as caught:
        READERS[layout](path, "mine")
    assert str(caught.value).startswith(str(path.with_suffix("")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", ["mmsa", "mult", "mag", "table"])
def test_ids_must_be_unique_and_may_begin_again_in_each_split(tmp_path, layout):
    ids = columns_of(layout)["id"]
    with pytest.raises(DataError, match=r"occurs twice \(splits train and test\)"):
        READERS[layout](write_layout(layout, tmp_path, id=changed(ids, 9, ids[0])), "mine")
    with pytest.raises(DataError, match="empty id"):
        READERS[layout](write_layout(layout, tmp_path, id=changed(ids, 3, "")), "mine")
    if layout != "table":
        record = READERS[layout](write_layout(layout, tmp_path, id=[0, 1, 2, 3, 4, 5, 0, 1, 0, 1]), "mine")
        assert record.ids[:2] + record.ids[-2:] == ["train_0", "train_1", "test_0", "test_1"]
        assert record.groups == record.ids
        assert notes_of(record, "ids are numbers that begin at 0")


@pytest.mark.parametrize(
    ("layout", "groups"),
    [
        ("mmsa", {"a_b$_$3": "a_b", "a$_$b$_$3": "a$_$b", "plain_7": "plain_7"}),
        ("mag", {"a_b[12]": "a_b", "c_b_3": "c_b", "-x[0]": "-x", "plain": "plain"}),
        ("mult", {"Ses01F_script_M001": "Ses01F_script", "other_1": "other_1"}),
    ],
)
def test_the_video_of_a_sample_is_told_from_its_id(tmp_path, layout, groups):
    record = READERS[layout](
        write_layout(layout, tmp_path, id=[*groups, *columns_of(layout)["id"][len(groups) :]]), "x"
    )
    assert record.groups[: len(groups)] == list(groups.values())


def _tree(layout):
    columns = columns_of(layout)
    return mag_tree(columns) if layout == "mag" else tree_of(columns)


def _drop(split, key):
    return lambda tree: tree[split].pop(key)


def _replace(split, key, change):
    return lambda tree: tree[split].update({key: change(tree[split][key])})


SPLIT_DAMAGE = {
    "a field less": (_drop("test", "vision"), r"\[test\]: field 'vision' is missing, and present in another split"),
    "other widths": (_replace("valid", "vision", lambda x: x[..., :2]), "vision: the splits have 2 and 20 features"),
    "rows lost": (_replace("valid", "audio", lambda x: x[:-1]), r"\[valid\] audio: 1 rows for 2 samples"),
    "texts": (_replace("train", "audio", lambda x: ["so"] * len(x)), "sample '.*' is a single str.*field raw_text"),
    "flat": (_replace("train", "audio", lambda x: np.array(["so"] * len(x))), r"\[train\] audio: shape"),
    "no ids": (_drop("valid", "id"), r"field 'id' is missing"),
    "no split": (lambda tree: tree.pop("valid"), "split valid is missing"),
    "empty": (_replace("valid", "id", lambda x: x[:0]), "split valid is empty|entries for 0 samples|[02] entries for"),
    "two names": (lambda tree: tree["train"].update(visual=1), r"\[train\]: has both 'vision' and 'visual' for vision"),
    "same": (lambda tree: tree.update(valid=tree["test"]), "splits valid and test hold the same samples"),
}


@pytest.mark.parametrize("kind", SPLIT_DAMAGE)
@pytest.mark.parametrize("layout", ["mmsa", "mult"])
def test_splits_that_do_not_fit_together_are_named(tmp_path, layout, kind):
    tree = _tree(layout)
    change, said = SPLIT_DAMAGE[kind]
    change(tree)
    with pytest.raises(DataError, match=said) as caught:
        READERS[layout](write(tmp_path, tree), "mine")
    assert "file.pkl" in str(caught.value)


@pytest.mark.parametrize("layout", PICKLES)
def test_an_empty_split_is_named(tmp_path, layout):
    tree = _tree(layout)
    valid = "dev" if layout == "mag" else "valid"
    tree[valid] = [] if layout == "mag" else {key: values[:0] for key, values in tree[valid].items()}
    with pytest.raises(DataError, match=r"split valid is empty.*--cut-valid 0\.1"):
        READERS[layout](write(tmp_path, tree), "mine")


@pytest.mark.parametrize("layout", ["mmsa", "mult"])
def test_other_names_are_read_and_said_and_what_is_not_read_is_named(tmp_path, layout):
    columns = columns_of(layout)
    columns["Visual"], columns["COVAREP"] = columns.pop("vision"), columns.pop("audio")
    tree = {**tree_of(columns | {"gaze": LABELS, "speaker": VIDEOS}), "config": 1}
    record = READERS[layout](write(tmp_path, {k.encode(): part for k, part in tree.items()}), "mine")
    for modality, samples in FRAMES.items():
        assert_frames(record.features[modality], samples)
    assert {"'Visual' read as vision", "'COVAREP' read as audio"} <= set(record.notes)
    assert notes_of(record, "not read: ") == ["not read: gaze, speaker, config"]


@pytest.mark.parametrize("layout", LAYOUTS)
class TestLabels:
    """What labels can be is told in test_labels; here that each layout asks."""

    def test_binary(self, tmp_path, layout):
        labels = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0.0])
        path, read = write_layout(layout, tmp_path, labels=labels), READERS[layout]
        with pytest.raises(DataError, match="0 and 1 only"):
            read(path, "mine")
        record = read(path, "mine", task=emotions(["funny"]))
        np.testing.assert_array_equal(record.labels, labels[:, None])
        assert errors_of(record) == []
        assert any("take 2 values only" in str(p) for p in check_record(read(path, "mine", task=regression())))

    def test_classes(self, tmp_path, layout):
        labels = np.array([0, 1, 2, 0, 1, 0, 2, 1, 2, 0])
        path = write_layout(layout, tmp_path, labels=labels)
        with pytest.raises(DataError, match="as class ids are"):
            READERS[layout](path, "mine")
        record = READERS[layout](path, "mine", task=classes(["neg", "neu", "pos"]))
        np.testing.assert_array_equal(record.labels, labels)
        assert errors_of(record) == []

    def test_the_seven_columns_of_mosei(self, tmp_path, layout):
        labels = np.round(np.random.default_rng(0).uniform(0.1, 3, (10, 7)), 1) * [[-1, 0, 1, 1, 1, 1, 1]]
        path, read = write_layout(layout, tmp_path, labels=labels[:, None]), READERS[layout]
        with pytest.raises(DataError, match="7 numbers per sample"):
            read(path, "mine")
        record = read(path, "mine", label_column="sentiment")
        np.testing.assert_array_equal(record.labels, labels[:, 0].astype(np.float32))
        record = read(path, "mine", task=emotions(MOSEI_COLUMNS[1:]))
        np.testing.assert_array_equal(record.labels, labels[:, 1:] > 0)
        warned = [str(p) for p in check_record(record) if p.where == "labels"]
        assert "'happy' is never true" in warned[0]
        assert "'sad' is true of every sample" in warned[1]

    @pytest.mark.parametrize("shape", [(COUNT, 1), (COUNT, 1, 1)])
    def test_axes_of_size_one_go_and_are_counted(self, tmp_path, layout, shape):
        record = READERS[layout](write_layout(layout, tmp_path, labels=LABELS.reshape(shape)), "mine")
        np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
        assert sum(n for what, n in record.repairs.items() if "flattened" in what) == COUNT * (layout != "mag")


@pytest.mark.parametrize("layout", PICKLES)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([str(value) for value in LABELS], {"labels: text, read": COUNT}),
        ([True, *LABELS[1:].tolist()], {"labels: true and false, read as 1 and 0": 1}),
        (LABELS.tolist(), {}),
    ],
)
def test_labels_that_are_not_plain_numbers_are_counted(tmp_path, layout, values, said):
    record = READERS[layout](write_layout(layout, tmp_path, labels=values), "mine")
    np.testing.assert_array_equal(record.labels[1:], LABELS[1:].astype(np.float32))
    assert {what: n for what, n in record.repairs.items() if what.startswith("labels")} == said


FIELDS = {
    "mmsa": ("id", "raw_text", "text_bert", "text", "audio", "audio_lengths", "regression_labels", "label_T"),
    "mult": ("id", "labels", "text", "audio"),
    "mag": ("words", "visual", "acoustic", "label", "segment", "pieces", "sample"),
    "table": ("id", "split", "label", "raw_text", "audio", "audio_lengths", "label_T", "group", "clip_id", "label:x"),
}


@pytest.mark.parametrize(("layout", "key"), [(layout, key) for layout, keys in FIELDS.items() for key in keys])
@pytest.mark.parametrize("kind", ANYTHING)
@pytest.mark.filterwarnings("error")
def test_a_field_of_any_type_is_read_or_refused_in_one_line(tmp_path, layout, key, kind):
    value = ANYTHING[kind]
    if layout == "table":
        path = write_layout(layout, tmp_path)
        array = np.empty(COUNT, dtype=object)
        array[:] = [value] * COUNT
        if isinstance(value, np.ndarray) and value.dtype != object:
            array = np.concatenate([value.reshape(1, -1)] * COUNT)
        np.savez(path, **(dict(np.load(path)) | {key: array}))
        return read_or_refuse(READERS[layout], path)
    if layout == "mag":
        tree = _tree(layout)
        (words, visual, acoustic), label, segment = tree["test"][1]
        sample = {"words": words, "visual": visual, "acoustic": acoustic, "label": label, "segment": segment}
        sample |= {key: value}
        pieces = value if key == "pieces" else (sample["words"], sample["visual"], sample["acoustic"])
        tree["test"][1] = value if key == "sample" else (pieces, sample["label"], sample["segment"])
    else:
        tree = tree_of(columns_of(layout) | ({"label_T": LABELS} if layout == "mmsa" else {}))
        tree["test"][key] = value
    return read_or_refuse(READERS[layout], write(tmp_path, tree))
