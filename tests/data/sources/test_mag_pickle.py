"""The MAG-BERT layout: words, one row of vision and audio per word."""

import numpy as np
import pytest
from layout_files import ANYTHING, COUNT, LABELS, SIZES, STANDARD, assert_frames, read_or_refuse, write

from mmsa_lib.data import load
from mmsa_lib.data.sources.mag_pickle import read, video_of
from mmsa_lib.data.store import write_store
from mmsa_lib.data.task import regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import DataError

GENERATOR = np.random.default_rng(5)
WORDS = [["it", "was", "good", "not", "great"][: 1 + row % 5] for row in range(COUNT)]
VISUAL = [GENERATOR.normal(size=(len(words), 47)) for words in WORDS]
ACOUSTIC = [GENERATOR.normal(size=(len(words), 74)) for words in WORDS]
SEGMENTS = [f"video{row // 2}[{row % 2}]" for row in range(COUNT)]


def samples() -> list:
    return [
        [[words, visual, acoustic], label, segment]
        for words, visual, acoustic, label, segment in zip(WORDS, VISUAL, ACOUSTIC, LABELS, SEGMENTS, strict=True)
    ]


def as_tree(rows: list) -> dict:
    tuples = [(tuple(row[0]), row[1], row[2]) for row in rows]
    starts = np.cumsum([0, *SIZES.values()])
    return {name: tuples[a:b] for name, a, b in zip(("train", "dev", "test"), starts[:-1], starts[1:], strict=True)}


def _read(tmp_path, rows, **options):
    return read(write(tmp_path, as_tree(rows), "mosi.pkl"), "mine", **options)


def test_words_and_their_rows(tmp_path):
    record = _read(tmp_path, samples())
    assert record.ids == SEGMENTS
    assert record.groups == [f"video{row // 2}" for row in range(COUNT)]
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert record.task == regression((-3, 3))
    assert record.transcripts == [" ".join(words) for words in WORDS]
    assert record.words is None
    assert_frames(record.features["vision"], VISUAL)
    assert_frames(record.features["audio"], ACOUSTIC)
    assert {f.level for f in record.features.values()} == {"word"}
    assert record.defaults == {"*": {"text": "words", "audio": "audio", "vision": "vision"}}
    assert [p for p in check_record(record) if p.severity == "error"] == []


def test_the_imported_set_loads_aligned_by_word(tmp_path, tiny_text_model):
    write_store(_read(tmp_path, samples()), tmp_path / "mine.h5")
    splits = load(str(tmp_path / "mine.h5"), text_model=str(tiny_text_model), max_length=40)
    lengths = [len(words) for words in WORDS[: SIZES["train"]]]
    for modality in ("text", "audio", "vision"):
        assert splits["train"].lengths(modality).tolist() == lengths


def test_labels_segments_and_words_of_other_types(tmp_path):
    rows = samples()
    for row in rows:
        row[1] = np.array([[row[1]]])
        row[2] = row[2].encode()
        row[0][0] = np.array(row[0][0])
    rows[0][2] = np.array(["video9", "1.5", "2.5"])
    record = _read(tmp_path, rows)
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.ids == ["video9_1.5_2.5", *SEGMENTS[1:]]
    assert record.transcripts == [" ".join(words) for words in WORDS]


def test_zeros_infinities_and_a_sample_without_words(tmp_path):
    rows = samples()
    rows[1][0] = [[], np.zeros((0, 47)), np.zeros((0, 74))]
    rows[2][0][2] = ACOUSTIC[2].copy()
    rows[2][0][2][0, :3] = [-np.inf, np.nan, np.inf]
    rows[3][0][1] = np.zeros_like(VISUAL[3])
    record = _read(tmp_path, rows)
    assert record.transcripts[1] == ""
    assert record.features["audio"].lengths[1] == 1
    audio, vision = (
        np.split(record.features[m].observed, record.features[m].offsets[1:-1]) for m in ("audio", "vision")
    )
    assert not audio[1].any()
    assert not vision[1].any()
    assert not vision[3].any()
    assert audio[3].all()
    found = {what: n for what, n in record.repairs.items() if "set to 0" in what}
    assert found == {"audio: -inf set to 0": 1, "audio: NaN set to 0": 1, "audio: +inf set to 0": 1}


def test_words_that_would_not_stay_one_word(tmp_path):
    rows = samples()
    rows[4][0][0] = ["New York", "", "\t", "was", "good"]
    record = _read(tmp_path, rows)
    assert record.transcripts[4] == "NewYork [UNK] [UNK] was good"
    assert record.repairs["words: empty, replaced by [UNK]"] == 2
    assert record.repairs["words: blanks inside a word removed"] == 2


def _with(row, change):
    rows = samples()
    change(rows[row])
    return rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (_with(1, lambda s: s[0].__setitem__(1, s[0][1][:1])), r"\[train\] sample 1 \('video0\[1\]'\): 2 words"),
        (_with(7, lambda s: s[0].__setitem__(2, s[0][2][0])), r"\[valid\] sample 1.*acoustic of shape \(1, 74\)"),
        (_with(0, lambda s: s[0].__setitem__(2, s[0][2][:, :5])), "audio features have the widths 5 .* and 74"),
        (_with(9, lambda s: s.__setitem__(1, float("nan"))), r"label nan of sample 'video4\[1\]'"),
        (_with(9, lambda s: s.__setitem__(1, 9.0)), "label 9 of sample"),
        (_with(9, lambda s: s.__setitem__(1, "good")), "good"),
        (
            _with(9, lambda s: s.__setitem__(1, [1.0, 2.0])),
            r"sample 'video4\[1\]' has shape \(2,\).* expected one number",
        ),
        (_with(9, lambda s: s.__setitem__(2, SEGMENTS[0])), r"occurs twice \(splits train and test\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, rows, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, rows)
    assert "mosi.pkl" in str(caught.value)


def test_an_empty_split_is_named(tmp_path):
    tree = {**as_tree(samples()), "dev": []}
    with pytest.raises(DataError, match="split valid is empty"):
        read(write(tmp_path, tree), "mine")


def test_video_of():
    assert [video_of(s) for s in ("a_b[12]", "a_b_3", "-x[0]", "plain")] == ["a_b", "a_b", "-x", "plain"]


def as_misa(rows, lengths=False):
    """The samples as MISA has them, or (with lengths) as MMIM has them when audio and vision are not aligned."""
    more = [[4, 9], [7, 9]] if lengths else []
    return [[[np.arange(len(s[0][0])), s[0][1], s[0][2], s[0][0], *more[:2]], np.array([[s[1]]]), s[2]] for s in rows]


def test_pickles_of_misa_hold_the_words_behind(tmp_path):
    record, expected = _read(tmp_path, as_misa(samples())), _read(tmp_path, samples())
    assert record.transcripts == expected.transcripts
    np.testing.assert_array_equal(record.labels, expected.labels)
    np.testing.assert_array_equal(record.features["audio"].values, expected.features["audio"].values)
    assert "not read: numbers of words (their vocabulary is not in the file)" in record.notes


def test_pickles_of_mmim_may_have_rows_of_their_own(tmp_path):
    rows = as_misa(samples(), lengths=True)
    rows[0][0][1] = np.ones((9, 47))
    record = _read(tmp_path, rows)
    assert record.features["vision"].lengths[0] == 9
    assert record.features["vision"].level == "frame"


def test_words_that_are_numbers_of_a_vocabulary_are_refused(tmp_path):
    rows = samples()
    rows[4][0][0] = np.arange(len(rows[4][0][0]))
    with pytest.raises(DataError, match="numbers of a vocabulary"):
        _read(tmp_path, rows)


def test_a_sample_of_missing_words_has_no_text_at_all(tmp_path):
    rows = samples()
    rows[4][0][0] = [None] * len(rows[4][0][0])
    record = _read(tmp_path, rows)
    assert record.transcripts[4] == ""
    assert record.repairs["words: missing, left empty"] == len(WORDS[4])
    assert record.features["audio"].lengths[4] == len(WORDS[4])


@pytest.mark.parametrize("place", ["words", "visual", "acoustic", "label", "segment", "pieces", "sample"])
@pytest.mark.parametrize("anything", ANYTHING)
@pytest.mark.filterwarnings("error")
def test_a_piece_of_any_type_is_read_or_refused_in_one_line(tmp_path, place, anything):
    tree = as_tree(samples())
    pieces, label, segment = tree["test"][1]
    pieces, value = list(pieces), ANYTHING[anything]
    if place in ("words", "visual", "acoustic"):
        pieces[("words", "visual", "acoustic").index(place)] = value
    changed = {"label": (pieces, value, segment), "segment": (pieces, label, value), "pieces": (value, label, segment)}
    tree["test"][1] = value if place == "sample" else changed.get(place, (pieces, label, segment))
    read_or_refuse(read, write(tmp_path, tree, "mosi.pkl"))
