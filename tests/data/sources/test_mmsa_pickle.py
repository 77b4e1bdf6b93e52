"""The MMSA layout: every quirk of the official files, and exactly what must come out of them."""

import numpy as np
import pytest
from layout_files import (
    COUNT,
    LABELS,
    LENGTHS,
    SIZES,
    assert_frames,
    changed,
    frames_of,
    notes_of,
    observed_of,
    padded,
    ragged_samples,
    tree_of,
    write,
)

from mmsa_lib.data.sources import official
from mmsa_lib.data.sources.mmsa_pickle import read
from mmsa_lib.data.sources.official import KnownSet
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

STEPS, TEXT_LENGTHS = 10, np.array(LENGTHS) + 2
TEXT = [np.pad(x, ((1, 1), (0, 0)), constant_values=3) for x in ragged_samples(0, 8)]  # [CLS] words [SEP]
AUDIO, VISION = ragged_samples(1, 5, 9), ragged_samples(2, 4, 7)
NAMES = [f"video{row // 2}$_${row % 2}" for row in range(COUNT)]
AUDIO_LENGTHS = np.array([len(x) for x in AUDIO])
CLASSES = "annotations and classification_labels (categories follow from the labels; --classes reads them)"


def text_bert(lengths=TEXT_LENGTHS, steps=STEPS) -> np.ndarray:
    """``(N, 3, steps)``: ids 101, 1000, ..., 102, then the mask, then segment ids."""
    array = np.zeros((len(lengths), 3, steps))
    for row, length in enumerate(lengths):
        array[row, 0, :length] = [101, *range(1000, 1000 + length - 2), 102]
        array[row, 1, :length] = 1
    return array


def unaligned(**changes) -> dict:
    """Columns of an unaligned file; ``None`` drops a column."""
    return {
        "raw_text": np.array([f"it was take {row}" for row in range(COUNT)]),
        "audio": padded(AUDIO, 12),
        "vision": padded(VISION, 8),
        "id": np.array(NAMES),
        "text": padded(TEXT, STEPS),
        "text_bert": text_bert(),
        "audio_lengths": AUDIO_LENGTHS,
        "vision_lengths": np.array([len(x) for x in VISION]),
        "annotations": np.array(["Positive"] * COUNT),
        "classification_labels": np.ones(COUNT),
        "regression_labels": LABELS,
        **changes,
    }


def aligned(**changes) -> dict:
    """Columns of an aligned file: all modalities as long as the text, [CLS] and [SEP] without audio and vision."""
    rows = [np.pad(np.full((length - 2, 5), 1.0 + row), ((1, 1), (0, 0))) for row, length in enumerate(TEXT_LENGTHS)]
    lengths = {"audio_lengths": None, "vision_lengths": None}
    return unaligned(audio=padded(rows, STEPS), vision=padded(rows, STEPS), **lengths, **changes)


def _read(tmp_path, columns, **options):
    return read(write(tmp_path, tree_of(columns)), "mine", **options)


def test_unaligned_file(tmp_path):
    record = _read(tmp_path, unaligned())
    assert record.ids == NAMES
    assert record.groups == [i.split("$_$")[0] for i in NAMES]
    for name, samples in {"text": TEXT, "audio": AUDIO, "vision": VISION}.items():
        assert_frames(record.features[name], samples)
    assert [record.features[m].level for m in ("text", "audio", "vision")] == ["token", "frame", "frame"]
    assert record.token_ids.model == "bert-base-uncased"
    assert record.token_ids.valid.sum(axis=1).tolist() == TEXT_LENGTHS.tolist()
    np.testing.assert_array_equal(record.token_ids.ids, text_bert()[:, 0])
    assert set(record.repairs) == {f"{m}: float64 stored as float32" for m in ("text", "audio", "vision")}
    assert notes_of(record, "not read") == [f"not read: {CLASSES}"]
    assert check_record(record) == []


@pytest.mark.parametrize("left", [True, False])
def test_aligned_file_keeps_the_modalities_in_step(tmp_path, left):
    columns = aligned()
    if left:
        rolled = [np.roll(x, STEPS - n, axis=0) for x, n in zip(columns["audio"], TEXT_LENGTHS, strict=True)]
        columns["audio"] = np.stack(rolled)
    record = _read(tmp_path, columns)
    for name in ("text", "audio", "vision"):
        assert record.features[name].lengths.tolist() == TEXT_LENGTHS.tolist()
        assert record.features[name].level == "token"
        assert record.features[name].observed.all()
    for row, values in enumerate(frames_of(record.features["audio"])):
        assert not values[[0, -1]].any()
        assert (values[1:-1] == 1 + row).all()
    assert not any("contradicts" in what for what in record.repairs)
    assert ("audio: samples padded on the left, shifted" in record.repairs) == left


@pytest.mark.parametrize("with_lengths", [True, False])
def test_lengths_hold_for_padding_on_either_side(tmp_path, with_lengths):
    lengths = {} if with_lengths else {"audio_lengths": None}
    record = _read(tmp_path, unaligned(audio=padded(AUDIO, 12, [row % 2 == 0 for row in range(COUNT)]), **lengths))
    assert_frames(record.features["audio"], AUDIO)


def test_a_missing_modality_keeps_its_length(tmp_path):
    record = _read(tmp_path, unaligned(audio=padded(changed(AUDIO, 3, AUDIO[3] * 0), 12)))
    assert observed_of(record.features["audio"])[3].tolist() == [False] * len(AUDIO[3])  # the file says how long it was


@pytest.mark.parametrize(("length", "said"), [(100, "longer than the array, cut"), (1, "whose length contradicts")])
def test_lengths_beyond_the_array_and_lengths_that_are_wrong(tmp_path, length, said):
    longest = int(AUDIO_LENGTHS.argmax())
    columns = unaligned(audio=padded(AUDIO, AUDIO_LENGTHS.max()))
    columns["audio_lengths"] = np.array(changed(AUDIO_LENGTHS, longest, length))
    record = _read(tmp_path, columns)
    assert_frames(record.features["audio"], AUDIO)
    assert [n for what, n in record.repairs.items() if said in what] == [1]


@pytest.mark.parametrize("value", [[3.5] * COUNT, [-1] * COUNT, [np.nan, *[1] * 9], ["a"] * COUNT, [1j] * COUNT])
def test_lengths_that_are_no_whole_numbers_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="audio_lengths: expected one whole number"):
        _read(tmp_path, unaligned(audio_lengths=np.array(value)))


def test_lengths_that_one_split_lacks_are_named(tmp_path):
    tree = tree_of(unaligned())
    del tree["test"]["audio_lengths"]
    record = read(write(tmp_path, tree), "mine")
    assert_frames(record.features["audio"], AUDIO)
    said = "audio_lengths (missing in test, where the frames that are not zero count)"
    assert said in notes_of(record, "not read")[0]


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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["good"] * COUNT, "a single str of sample 'video0$_$0' is no number"),
        *(([nothing] * COUNT, "no value for 10 of 10 samples") for nothing in (np.nan, "", None)),
        *(([0.5] * 3 + [nothing] * 7, "no value for 7 of 10 samples") for nothing in (np.nan, "", None)),
    ],
)
def test_unimodal_labels_that_are_not_there_do_not_stop_a_file(tmp_path, values, said):
    labels = np.round(LABELS / 3, 1)
    columns = unaligned(regression_labels=labels, label_T=np.array(values, dtype=object), label_A=labels)
    record = _read(tmp_path, columns)
    assert list(record.unimodal_labels) == ["audio"]
    assert f"label_T ({said})" in notes_of(record, "not read: ")[0]


def test_utterance_features_and_files_with_fewer_modalities(tmp_path):
    columns = unaligned(audio=np.arange(3 * COUNT, dtype=np.float32).reshape(COUNT, 3), audio_lengths=None, vision=None)
    record = _read(tmp_path, columns)
    assert list(record.features) == ["text", "audio"]
    assert record.features["audio"].level == "utterance"
    only_tokens = _read(tmp_path, unaligned(text=None, audio=None, vision=None))
    assert only_tokens.defaults == {"*": {"text": "tokens"}}
    only_words = _read(tmp_path, unaligned(text=None, text_bert=None, audio=None, vision=None))
    assert only_words.defaults == {"*": {"text": "words"}}
    with pytest.raises(DataError, match="nothing to learn from"):
        _read(tmp_path, unaligned(**dict.fromkeys(("raw_text", "text", "text_bert", "audio", "vision"))))


@pytest.mark.parametrize("protocol", [2, 5])
def test_text_without_token_ids_uses_its_own_frames(tmp_path, protocol):
    path = write(tmp_path, tree_of(unaligned(text_bert=None)), protocol=protocol)
    assert_frames(read(path, "mine").features["text"], TEXT)
    kept = _read(tmp_path, aligned(text_bert=None))
    assert kept.token_ids is None
    assert kept.features["audio"].lengths.tolist() == TEXT_LENGTHS.tolist()


UNUSABLE = {
    "two rows": (text_bert()[:, :2], "shape"),
    "negative": (text_bert() - 1, "a mask of 0 and 1"),
    "no numbers": (text_bert() * np.nan, "a mask of 0 and 1"),
    "no token": (text_bert() * 0, "no sample has a valid token"),
    "another model": (text_bert() + np.array([40_000, 0, 0])[:, None], "token id 41004 is none of the 30522"),
    "huge": (text_bert() + np.array([1e300, 0, 0])[:, None], "token id 1e\\+300"),
    "words": (np.array(["?"] * COUNT), "shape"),
    "complex": (np.array([[[1j]]] * COUNT), "shape"),
    "nones": (np.array([None] * COUNT), "shape"),
    "dicts": (np.array([{"input_ids": [1]}] * COUNT), "shape"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_token_ids_that_can_t_be_used_stop_only_a_file_without_text(tmp_path, kind):
    raw, said = UNUSABLE[kind]
    record = _read(tmp_path, unaligned(text_bert=raw))
    assert record.token_ids is None
    assert_frames(record.features["text"], TEXT)
    assert "text_bert (" in notes_of(record, "not read: ")[0]
    with pytest.raises(DataError, match=rf"\[train\] text_bert: .*{said}"):
        _read(tmp_path, unaligned(text_bert=raw, text=None, raw_text=None))


def test_token_ids_padded_on_the_left_or_in_columns_are_turned(tmp_path):
    raw = text_bert()
    left = np.stack([np.roll(x, STEPS - n, axis=-1) for x, n in zip(raw, TEXT_LENGTHS, strict=True)])
    for values, repaired in ((left, 0), (raw.transpose(0, 2, 1), COUNT)):
        record = _read(tmp_path, unaligned(text_bert=values))
        np.testing.assert_array_equal(record.token_ids.ids, raw[:, 0])
        np.testing.assert_array_equal(record.token_ids.valid, raw[:, 1] == 1)
        assert record.repairs.get("text_bert: samples (L, 3), read as (3, L)", 0) == repaired
    raw = text_bert([3] * COUNT, 3)  # told apart by the mask
    for values in (raw, raw.transpose(0, 2, 1)):
        np.testing.assert_array_equal(_read(tmp_path, unaligned(text_bert=values)).token_ids.ids, raw[:, 0])


def test_token_ids_of_a_chinese_set_without_transcripts(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "KNOWN_SETS", (KnownSet("CH-SIMS", tuple(SIZES.values()), "cited"),))
    record = _read(tmp_path, unaligned(raw_text=None))
    assert record.token_ids.model == "bert-base-chinese"
    assert record.citation == "cited"
    assert "sizes are those of CH-SIMS" in record.notes


def test_a_sample_without_tokens_has_no_text(tmp_path):
    record = _read(tmp_path, unaligned(text_bert=np.array(changed(text_bert(), 2, np.zeros((3, STEPS))))))
    assert not record.token_ids.valid[2].any()
    assert record.repairs["text_bert: samples without a valid token, text missing"] == 1


def test_missing_transcripts_stay_missing(tmp_path):
    column = np.array([f"take {row}" for row in range(COUNT)], dtype=object)
    column[:6] = [None, float("nan"), "", ["good", "film"], b"caf\xe9 noir", "it was"]
    record = _read(tmp_path, unaligned(raw_text=column))
    assert record.transcripts[:6] == ["", "", "", "good film", "caf\xe9 noir", "it was"]
    assert record.repairs["raw_text: missing, left empty"] == 2
    assert _read(tmp_path, unaligned(raw_text=np.full(COUNT, None))).transcripts is None


def test_classes_have_a_field_of_their_own(tmp_path):
    columns = unaligned(classification_labels=np.sign(LABELS) + 1)
    polar = classes(["neg", "neu", "pos"])
    assert _read(tmp_path, columns, task=polar).labels.tolist() == (np.sign(LABELS) + 1).tolist()
    with pytest.raises(DataError, match="to read annotations name the classes"):
        _read(tmp_path, columns | {"regression_labels": None, "classification_labels": None})
    with pytest.raises(DataError, match="not emotions"):
        _read(tmp_path, columns, task=emotions(["happy"]))
    with pytest.raises(DataError, match=r"\[train\]: field 'regression_labels' is missing"):
        _read(tmp_path, columns | {"regression_labels": None, "classification_labels": None, "annotations": None})


@pytest.mark.parametrize("key", ["audio", "text_bert", "raw_text", "audio_lengths", "regression_labels"])
def test_columns_of_unequal_length_are_refused(tmp_path, key):
    tree = tree_of(unaligned())
    tree["test"][key] = tree["test"][key][:-1]
    with pytest.raises(DataError, match=rf"\[test\] {key}"):
        read(write(tmp_path, tree), "mine")
