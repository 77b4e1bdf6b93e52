"""The MMSA layout: small files with every quirk of the official ones, and exactly what must come out of them."""

import numpy as np
import pytest
from layout_files import (
    ANYTHING,
    COUNT,
    LABELS,
    SIZES,
    STANDARD,
    assert_frames,
    frames_of,
    mmsa_ids,
    mmsa_tree,
    padded,
    ragged_samples,
    read_or_refuse,
    text_bert,
    write,
)

from mmsa_lib.data import load
from mmsa_lib.data.sources import official
from mmsa_lib.data.sources.mmsa_pickle import read, video_of
from mmsa_lib.data.sources.official import KnownSet
from mmsa_lib.data.store import read_store, write_store
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

STEPS = 6
TEXT = [np.pad(x, ((1, 1), (0, 0)), constant_values=3) for x in ragged_samples(0, 8, STEPS - 2)]  # [CLS] words [SEP]
TEXT_LENGTHS = np.array([len(x) for x in TEXT])
AUDIO = ragged_samples(1, 5, 9, np.float64)
VISION = ragged_samples(2, 4, 7, np.float64)
NAMES = [str(i) for i in mmsa_ids()]


def unaligned(**changes) -> dict:
    """Columns of an unaligned file; ``None`` drops a column."""
    columns = {
        "raw_text": np.array([f"it was take {row}" for row in range(COUNT)]),
        "audio": padded(AUDIO, 10),
        "vision": padded(VISION, 8),
        "id": mmsa_ids(),
        "text": padded(TEXT, STEPS),
        "text_bert": text_bert(TEXT_LENGTHS, STEPS),
        "audio_lengths": np.array([len(x) for x in AUDIO]),
        "vision_lengths": np.array([len(x) for x in VISION]),
        "annotations": np.array(["Positive"] * COUNT),
        "classification_labels": np.ones(COUNT),
        "regression_labels": LABELS,
    }
    return {key: values for key, values in {**columns, **changes}.items() if values is not None}


def aligned(**changes) -> dict:
    """Columns of an aligned file: all modalities as long as the text, [CLS] and [SEP] without audio and vision."""
    per_token = {"audio": 5, "vision": 4}
    arrays = {}
    for modality, width in per_token.items():
        rows = [np.full((length, width), 1.0 + row) for row, length in enumerate(TEXT_LENGTHS)]
        for values in rows:
            values[0] = values[-1] = 0
        arrays[modality] = padded(rows, STEPS)
    return unaligned(**{**arrays, "audio_lengths": None, "vision_lengths": None, **changes})


def _read(tmp_path, columns, **options):
    return read(write(tmp_path, mmsa_tree(columns)), "mine", **options)


def test_unaligned_file(tmp_path):
    record = _read(tmp_path, unaligned())
    assert record.name == "mine"
    assert record.ids == NAMES
    assert record.groups == [i.split("$_$")[0] for i in NAMES]
    assert record.task == regression((-3, 3))
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.transcripts == [f"it was take {row}" for row in range(COUNT)]
    for name, samples in {"text": TEXT, "audio": AUDIO, "vision": VISION}.items():
        assert_frames(record.features[name], samples)
        assert record.features[name].observed.all()
    assert [record.features[m].level for m in ("text", "audio", "vision")] == ["token", "frame", "frame"]
    assert record.defaults == {"*": {"text": "text", "audio": "audio", "vision": "vision"}}
    assert record.token_ids.model == "bert-base-uncased"
    assert record.token_ids.valid.sum(axis=1).tolist() == TEXT_LENGTHS.tolist()
    np.testing.assert_array_equal(record.token_ids.ids, text_bert(TEXT_LENGTHS, STEPS)[:, 0])
    assert set(record.repairs) == {"audio: float64 stored as float32", "vision: float64 stored as float32"}
    assert record.sources[0].startswith("file.pkl: SHA-256 ")
    assert check_record(record) == []


def test_aligned_file_keeps_the_modalities_in_step(tmp_path):
    record = _read(tmp_path, aligned())
    for name in ("text", "audio", "vision"):
        assert record.features[name].lengths.tolist() == TEXT_LENGTHS.tolist()
        assert record.features[name].level == "token"
        assert record.features[name].observed.all()
    for row, values in enumerate(frames_of(record.features["audio"])):
        assert not values[[0, -1]].any()
        assert (values[1:-1] == 1 + row).all()
    assert not any("contradicts" in what for what in record.repairs)


@pytest.mark.parametrize("left", [True, False, [row % 2 == 0 for row in range(COUNT)]])
@pytest.mark.parametrize("with_lengths", [True, False])
def test_padding_on_either_side_gives_the_same_frames(tmp_path, left, with_lengths):
    lengths = {} if with_lengths else {"audio_lengths": None, "vision_lengths": None}
    columns = unaligned(audio=padded(AUDIO, 10, left), vision=padded(VISION, 8, left), **lengths)
    record = _read(tmp_path, columns)
    assert_frames(record.features["audio"], AUDIO)
    assert_frames(record.features["vision"], VISION)
    moved = sum(on_left and len(x) < 10 for x, on_left in zip(AUDIO, np.broadcast_to(left, COUNT), strict=True))
    assert record.repairs.get("audio: samples padded on the left, shifted", 0) == moved


def test_audio_of_an_aligned_file_that_is_padded_on_the_left_is_moved_to_the_text(tmp_path):
    right = _read(tmp_path, aligned())
    columns = aligned()
    columns["audio"] = np.stack(
        [np.roll(values, STEPS - length, axis=0) for values, length in zip(columns["audio"], TEXT_LENGTHS, strict=True)]
    )
    left = _read(tmp_path, columns)
    np.testing.assert_array_equal(left.features["audio"].values, right.features["audio"].values)
    assert left.repairs["audio: samples padded on the left, shifted"] > 0


def test_infinities_and_nan_become_zero_and_are_counted(tmp_path):
    audio = padded(AUDIO, 10)
    audio[0, 0, :2] = -np.inf
    audio[1, 0, 0] = np.nan
    audio[2, 0, 0] = np.inf
    vision = padded(VISION, 8)
    vision[0, 0, 0] = np.nan
    record = _read(tmp_path, unaligned(audio=audio, vision=vision))
    assert {what: n for what, n in record.repairs.items() if "set to 0" in what} == {
        "audio: -inf set to 0": 2,
        "audio: NaN set to 0": 1,
        "audio: +inf set to 0": 1,
        "vision: NaN set to 0": 1,
    }
    expected = [x.copy() for x in AUDIO]
    expected[0][0, :2] = expected[1][0, 0] = expected[2][0, 0] = 0
    assert_frames(record.features["audio"], expected)


def test_a_modality_that_is_zero_in_a_sample_is_missing_there(tmp_path):
    audio = padded(AUDIO, 10)
    audio[3] = 0
    record = _read(tmp_path, unaligned(audio=audio))
    observed = np.split(record.features["audio"].observed, record.features["audio"].offsets[1:-1])
    assert [mask.all() for mask in observed] == [row != 3 for row in range(COUNT)]
    assert not observed[3].any()
    assert len(observed[3]) == len(AUDIO[3])  # the file says how long it was


def test_lengths_beyond_the_array_and_lengths_that_are_wrong(tmp_path):
    lengths = np.array([len(x) for x in AUDIO])
    longest = int(np.argmax(lengths))
    audio = padded(AUDIO, lengths.max())
    too_long = lengths.copy()
    too_long[longest] += 100
    record = _read(tmp_path, unaligned(audio=audio, audio_lengths=too_long))
    assert_frames(record.features["audio"], AUDIO)
    assert record.repairs["audio: samples longer than the array, cut"] == 1
    wrong = lengths.copy()
    wrong[longest] = 1
    record = _read(tmp_path, unaligned(audio=audio, audio_lengths=wrong))
    assert_frames(record.features["audio"], AUDIO)
    assert record.repairs["audio: samples whose length contradicts the data"] == 1


@pytest.mark.parametrize("shape", [(COUNT, 1), (COUNT, 1, 1)])
def test_labels_of_odd_shape(tmp_path, shape):
    record = _read(tmp_path, unaligned(regression_labels=LABELS.reshape(shape)))
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert sum(n for what, n in record.repairs.items() if "flattened" in what) == COUNT


def test_ch_sims_with_unimodal_labels(tmp_path):
    labels = np.round(LABELS / 3, 1)
    unimodal = {letter: np.roll(labels, k + 1) for k, letter in enumerate("TAV")}
    columns = unaligned(
        regression_labels=labels,
        raw_text=np.array([f"我很喜欢{row}" for row in range(COUNT)]),
        **{f"regression_labels_{letter}": values for letter, values in unimodal.items()},
    )
    record = _read(tmp_path, columns)
    assert record.task == regression((-1, 1))
    assert record.token_ids.model == "bert-base-chinese"
    for modality, letter in zip(("text", "audio", "vision"), "TAV", strict=True):
        np.testing.assert_array_equal(record.unimodal_labels[modality], unimodal[letter].astype(np.float32))
    assert check_record(record) == []
    assert _read(tmp_path, columns, task=regression((-3, 3))).task == regression((-3, 3))


def test_utterance_features_and_files_with_fewer_modalities(tmp_path):
    columns = unaligned(audio=np.arange(3 * COUNT, dtype=np.float32).reshape(COUNT, 3), audio_lengths=None, vision=None)
    record = _read(tmp_path, {**columns, "vision_lengths": np.ones(COUNT)})
    assert list(record.features) == ["text", "audio"]
    assert record.features["audio"].level == "utterance"
    assert record.features["audio"].lengths.tolist() == [1] * COUNT
    only_tokens = _read(tmp_path, unaligned(text=None, audio=None, vision=None))
    assert only_tokens.defaults == {"*": {"text": "tokens"}}
    only_words = _read(tmp_path, unaligned(text=None, text_bert=None, audio=None, vision=None))
    assert only_words.defaults == {"*": {"text": "words"}}


def test_text_without_token_ids_uses_its_own_frames(tmp_path):
    record = _read(tmp_path, unaligned(text_bert=None))
    assert_frames(record.features["text"], TEXT)
    assert record.token_ids is None
    kept = _read(tmp_path, aligned(text_bert=None))
    assert kept.features["audio"].lengths.tolist() == TEXT_LENGTHS.tolist()


def test_token_ids_padded_on_the_left_are_shifted(tmp_path):
    raw = text_bert(TEXT_LENGTHS, STEPS)
    left = np.stack([np.roll(x, STEPS - n, axis=-1) for x, n in zip(raw, TEXT_LENGTHS, strict=True)])
    record = _read(tmp_path, unaligned(text_bert=left))
    np.testing.assert_array_equal(record.token_ids.ids, raw[:, 0])
    np.testing.assert_array_equal(record.token_ids.valid, raw[:, 1] == 1)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_split_names_lists_and_protocols(tmp_path, protocol):
    tree = mmsa_tree(unaligned())
    for part in tree.values():
        part.update({key: part[key].tolist() for key in ("id", "raw_text", "audio_lengths", "regression_labels")})
    tree = {"train": tree["train"], "dev": tree["valid"], "test": tree["test"]}
    record = read(write(tmp_path, tree, protocol=protocol), "mine")
    assert record.ids == NAMES
    assert_frames(record.features["audio"], AUDIO)


def test_the_imported_set_loads_after_a_round_trip(tmp_path):
    record = _read(tmp_path, aligned())
    write_store(record, tmp_path / "mine.h5")
    assert read_store(tmp_path / "mine.h5").repairs == record.repairs
    splits = load(str(tmp_path / "mine.h5"), standardise=False)
    assert {split: len(utterances) for split, utterances in splits.items()} == SIZES
    assert splits["train"].dims == {"text": 8, "audio": 5, "vision": 4}
    assert splits["test"].lengths("audio").tolist() == TEXT_LENGTHS[-2:].tolist()


def _without(key):
    return unaligned(**{key: None})


def _changed(key, row, value):
    columns = unaligned()
    columns[key] = columns[key].copy()
    columns[key][row] = value
    return columns


def _only_tokens():
    return unaligned(text=None, raw_text=None)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (_without("id"), r"\[train\]: field 'id' is missing"),
        (_without("regression_labels"), r"\[train\]: field 'regression_labels' is missing"),
        (_changed("regression_labels", 6, np.nan), rf"\[valid\].*label nan of sample '{NAMES[6].replace('$', '.')}'"),
        (_changed("regression_labels", 8, 7), rf"label 7 of sample '{NAMES[8].replace('$', '.')}' lies outside"),
        (_changed("id", 9, NAMES[0]), r"occurs twice \(splits train and test\)"),
        (unaligned(audio=padded(AUDIO, 10)[..., 0]), None),
        (unaligned(audio=np.array(["a"] * COUNT)), r"\[train\] audio: shape"),
        ({**_only_tokens(), "text_bert": text_bert(TEXT_LENGTHS, STEPS)[:, :2]}, "text_bert: shape"),
        ({**_only_tokens(), "text_bert": text_bert(TEXT_LENGTHS, STEPS) * 0}, "no sample has a valid token"),
        ({**_only_tokens(), "text_bert": text_bert(TEXT_LENGTHS, STEPS) - 1}, "a mask of 0 and 1"),
        (_changed("audio_lengths", 2, -1), "audio_lengths"),
        (
            unaligned(**dict.fromkeys(("raw_text", "text", "text_bert", "audio", "vision"))),
            "nothing to learn from",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, columns, said):
    if said is None:  # (N, d) is legal: one frame per sample
        assert _read(tmp_path, columns).features["audio"].level == "utterance"
        return
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, columns)
    assert "file.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["audio", "text_bert", "raw_text", "audio_lengths", "regression_labels"])
def test_arrays_of_unequal_length_are_refused(tmp_path, key):
    tree = mmsa_tree(unaligned())
    tree["test"][key] = tree["test"][key][:-1]
    with pytest.raises(DataError, match=rf"\[test\] {key}"):
        read(write(tmp_path, tree), "mine")


def test_splits_must_agree(tmp_path):
    tree = mmsa_tree(unaligned())
    del tree["test"]["vision"]
    with pytest.raises(DataError, match="\\[test\\]: field 'vision' is missing"):
        read(write(tmp_path, tree), "mine")
    tree = mmsa_tree(unaligned())
    tree["valid"]["vision"] = tree["valid"]["vision"][..., :2]
    with pytest.raises(DataError, match="vision: the splits have 2 and 4 features"):
        read(write(tmp_path, tree), "mine")
    tree = mmsa_tree(unaligned())
    del tree["valid"]
    with pytest.raises(DataError, match="split valid is missing"):
        read(write(tmp_path, tree), "mine")
    tree = mmsa_tree(unaligned())
    tree["valid"] = {key: values[:0] for key, values in tree["valid"].items()}
    with pytest.raises(DataError, match="split valid is empty"):
        read(write(tmp_path, tree), "mine")


def notes_of(record, start):
    return [note for note in record.notes if note.startswith(start)]


@pytest.mark.parametrize(
    "raw",
    [
        text_bert(TEXT_LENGTHS, STEPS)[:, :2],
        text_bert(TEXT_LENGTHS, STEPS) - 1,
        text_bert(TEXT_LENGTHS, STEPS) * np.nan,
        text_bert(TEXT_LENGTHS, STEPS) + np.array([40_000, 0, 0])[:, None],
        text_bert(TEXT_LENGTHS, STEPS) + np.array([1e300, 0, 0])[:, None],
        np.array(["?"] * COUNT),
        np.array([[[1j]]] * COUNT),
        np.array([None] * COUNT),
        np.array([{"input_ids": [1]}] * COUNT),
    ],
)
def test_token_ids_that_can_t_be_used_do_not_stop_a_file_that_has_text(tmp_path, raw):
    record = _read(tmp_path, unaligned(text_bert=raw))
    assert record.token_ids is None
    assert_frames(record.features["text"], TEXT)
    assert "text_bert (" in notes_of(record, "not read: ")[0]


def test_token_ids_of_a_chinese_set_without_transcripts(tmp_path, monkeypatch):
    known = KnownSet("CH-SIMS", tuple(SIZES.values()), "")
    monkeypatch.setattr(official, "KNOWN_SETS", (known,))
    assert _read(tmp_path, unaligned(raw_text=None)).token_ids.model == "bert-base-chinese"


def test_token_ids_in_columns_are_turned(tmp_path):
    expected = _read(tmp_path, unaligned()).token_ids
    turned = _read(tmp_path, unaligned(text_bert=text_bert(TEXT_LENGTHS, STEPS).transpose(0, 2, 1)))
    np.testing.assert_array_equal(turned.token_ids.ids, expected.ids)
    np.testing.assert_array_equal(turned.token_ids.valid, expected.valid)
    assert turned.repairs["text_bert: samples (L, 3), read as (3, L)"] == COUNT


def test_three_tokens_in_three_rows_or_columns_are_told_apart_by_the_mask(tmp_path):
    raw = text_bert([3] * COUNT, 3)
    for values in (raw, raw.transpose(0, 2, 1)):
        record = _read(tmp_path, unaligned(text=None, text_bert=values))
        np.testing.assert_array_equal(record.token_ids.ids, raw[:, 0])


def test_a_sample_without_tokens_has_no_text(tmp_path):
    record = _read(tmp_path, _changed("text_bert", 2, 0))
    assert not record.token_ids.valid[2].any()
    assert record.repairs["text_bert: samples without a valid token, text missing"] == 1


def test_other_names_of_the_fields_are_read_and_said(tmp_path):
    columns = {"vision": "Visual", "audio": "COVAREP", "raw_text": "transcripts", "audio_lengths": "covarep_lengths"}
    record = _read(tmp_path, {columns.get(key, key): values for key, values in unaligned().items()})
    expected = _read(tmp_path, unaligned())
    for name in ("text", "audio", "vision"):
        np.testing.assert_array_equal(record.features[name].values, expected.features[name].values)
    assert record.transcripts == expected.transcripts
    assert "'Visual' read as vision" in record.notes
    assert "'COVAREP' read as audio" in record.notes


def test_two_names_for_one_modality_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\[train\]: has both 'vision' and 'visual'"):
        _read(tmp_path, unaligned(visual=padded(VISION, 8)))


def test_what_is_not_read_is_named_in_one_line(tmp_path):
    tree = {**mmsa_tree(unaligned(gaze=np.ones(COUNT), speaker=np.ones(COUNT))), "config": 1}
    record = read(write(tmp_path, tree), "mine")
    assert notes_of(record, "not read: ") == [
        "not read: gaze, speaker, config, annotations and classification_labels (categories follow from the labels; "
        "--classes reads them)"
    ]


def test_dicts_with_keys_in_bytes_are_read(tmp_path):
    tree = {k.encode(): {key.encode(): v for key, v in part.items()} for k, part in mmsa_tree(unaligned()).items()}
    assert_frames(read(write(tmp_path, tree), "mine").features["audio"], AUDIO)


def test_missing_transcripts_stay_missing(tmp_path):
    column = np.array([f"take {row}" for row in range(COUNT)], dtype=object)
    column[:6] = [None, float("nan"), "", ["good", "film"], b"caf\xe9 noir", "it was"]
    record = _read(tmp_path, unaligned(raw_text=column))
    assert record.transcripts[:6] == ["", "", "", "good film", "caf\xe9 noir", "it was"]
    assert record.repairs["raw_text: missing, left empty"] == 2
    nothing = _read(tmp_path, unaligned(raw_text=np.full(COUNT, None)))
    assert nothing.transcripts is None


def test_unpadded_frames_are_read(tmp_path):
    tree = mmsa_tree(unaligned(audio_lengths=None))
    for split, rows in {"train": AUDIO[:6], "valid": AUDIO[6:8], "test": AUDIO[8:]}.items():
        tree[split]["audio"] = rows if split == "train" else [values.tolist() for values in rows]
    record = read(write(tmp_path, tree), "mine")
    assert_frames(record.features["audio"], AUDIO)
    assert record.features["audio"].observed.all()


@pytest.mark.parametrize("nothing", [[np.nan] * COUNT, [""] * COUNT, [None] * COUNT])
def test_unimodal_labels_without_values_do_not_stop_a_file(tmp_path, nothing):
    labels = np.round(LABELS / 3, 1)
    columns = unaligned(regression_labels=labels, label_T=np.array(nothing), label_A=labels, label_V=labels[::-1])
    record = _read(tmp_path, columns)
    assert list(record.unimodal_labels) == ["audio", "vision"]
    assert "label_T (no value for 10 of 10 samples)" in notes_of(record, "not read: ")[0]
    some = np.array([0.5] * COUNT, dtype=object)
    some[3:] = nothing[3:]
    record = _read(tmp_path, {**columns, "label_T": some})
    assert "label_T (no value for 7 of 10 samples)" in notes_of(record, "not read: ")[0]


def test_unimodal_labels_that_are_no_numbers_are_named(tmp_path):
    record = _read(tmp_path, unaligned(label_T=np.array(["good"] * COUNT)))
    assert record.unimodal_labels == {}
    assert "label_T (" in notes_of(record, "not read: ")[0]


def test_ids_that_begin_again_in_each_split(tmp_path):
    ids = np.array([0, 1, 2, 3, 4, 5, 0, 1, 0, 1])
    record = _read(tmp_path, unaligned(id=ids))
    assert record.ids[:2] + record.ids[-2:] == ["train_0", "train_1", "test_0", "test_1"]
    assert record.groups == record.ids
    assert notes_of(record, "ids are numbers that begin at 0")


@pytest.mark.parametrize("value", [[3.5] * COUNT, [-1] * COUNT, [np.nan, *[1] * 9], ["a"] * COUNT, [1j] * COUNT])
def test_lengths_that_are_no_whole_numbers_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="audio_lengths: expected one whole number"):
        _read(tmp_path, unaligned(audio_lengths=np.array(value)))


def test_emotions_are_no_task_for_this_layout(tmp_path):
    with pytest.raises(DataError, match="not emotions"):
        _read(tmp_path, unaligned(), task=emotions(["happy"]))


def test_video_of():
    assert video_of("a_b$_$3") == "a_b"
    assert video_of("a$_$b$_$3") == "a$_$b"
    assert video_of("plain_7") == "plain_7"


def test_lengths_that_one_split_lacks_are_named(tmp_path):
    tree = mmsa_tree(unaligned())
    del tree["test"]["audio_lengths"]
    record = read(write(tmp_path, tree), "mine")
    assert_frames(record.features["audio"], AUDIO)
    assert (
        "audio_lengths (missing in test, where the frames that are not zero count)" in notes_of(record, "not read")[0]
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([str(value) for value in LABELS], {"labels: text, read": COUNT}),
        ([True, *LABELS[1:].tolist()], {"labels: true and false, read as 1 and 0": 1}),
        (LABELS, {}),
    ],
)
def test_labels_that_are_not_plain_numbers_are_counted(tmp_path, values, said):
    tree = mmsa_tree(unaligned())
    for split in SIZES:
        tree[split]["regression_labels"] = [values[row] for row in np.flatnonzero(split == STANDARD)]
    record = read(write(tmp_path, tree), "mine")
    np.testing.assert_array_equal(record.labels[1:], LABELS[1:].astype(np.float32))
    assert {what: n for what, n in record.repairs.items() if what.startswith("labels")} == said


@pytest.mark.parametrize("key", sorted({*unaligned(), "regression_labels_T"}))
@pytest.mark.parametrize("kind", ANYTHING)
@pytest.mark.filterwarnings("error")
def test_a_field_of_any_type_is_read_or_refused_in_one_line(tmp_path, key, kind):
    tree = mmsa_tree(unaligned(regression_labels_T=LABELS))
    tree["test"][key] = ANYTHING[kind]
    read_or_refuse(read, write(tmp_path, tree))


def test_transcripts_in_place_of_features_are_told_where_they_belong(tmp_path):
    tree = mmsa_tree(unaligned())
    for part in tree.values():
        part["text"] = ["it was good"] * len(part["id"])
    with pytest.raises(
        DataError, match=r"text: sample '.*' is a single str, .*transcripts belong into a field raw_text"
    ):
        read(write(tmp_path, tree), "mine")
