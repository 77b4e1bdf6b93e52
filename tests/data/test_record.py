"""Fingerprints follow the content and nothing else; the numbers of ``data info`` against counts by hand."""

import json

import numpy as np
import pytest
from records import emotion_record, full_record

from mmsa_lib.data.record import describe, digests, fingerprint
from mmsa_lib.data.task import regression


def test_type_byte_order_and_layout_of_arrays_do_not_matter():
    record = full_record()
    record.labels = record.labels.astype(np.float64)
    record.folds = {name: splits.astype(object) for name, splits in reversed(record.folds.items())}
    audio = record.features["audio5"]
    audio.values = np.asfortranarray(audio.values.astype(">f4"))
    audio.lengths = audio.lengths.astype(np.int32)
    assert fingerprint(record) == fingerprint(full_record())


def test_name_terms_and_remarks_do_not_matter():
    record = full_record("other name")
    record.terms, record.citation, record.notes, record.sources, record.repairs = "", "", [], [], {}
    record.features["audio5"].description = "something else"
    assert fingerprint(record) == fingerprint(full_record())


CHANGES = {
    "task": lambda r: setattr(r, "task", regression((-4, 4), metrics="mosi")),
    "defaults": lambda r: r.defaults["*"].pop("audio"),
    "ids": lambda r: r.ids.__setitem__(0, "other"),
    "groups": lambda r: r.groups.__setitem__(0, "other"),
    "labels": lambda r: r.labels.__setitem__(0, -2.9),
    "folds/standard": lambda r: r.folds["standard"].__setitem__(0, "test"),
    "features/audio5": lambda r: r.features["audio5"].values.__setitem__((0, 0), 0.5),
    "features/vision3": lambda r: setattr(r.features["vision3"], "label_trained_on", "standard:train"),
    "transcripts": lambda r: r.transcripts.__setitem__(1, "now with words"),
    "other_transcripts/german": lambda r: r.other_transcripts["german"].__setitem__(0, "anders"),
    "words": lambda r: r.words.word.__setitem__(0, "the"),
    "token_ids": lambda r: setattr(r.token_ids, "model", "another-model"),
    "unimodal_labels/text": lambda r: r.unimodal_labels["text"].__setitem__(0, 0.25),
    "factors/shared": lambda r: r.factors["shared"].__setitem__((0, 0), 0.0),
    "times": lambda r: r.times.__setitem__((0, 1), 9.0),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_change_shows_in_its_part_and_in_the_fingerprint(part):
    record, before = full_record(), digests(full_record())
    assert {*CHANGES, "folds/by/part"} == set(before)
    CHANGES[part](record)
    assert [name for name, digest in digests(record).items() if digest != before[name]] == [part]
    assert fingerprint(record) != fingerprint(full_record())


@pytest.mark.parametrize("field", ["values", "lengths", "observed"])
def test_each_array_of_a_feature_set_counts(field):
    record = full_record()
    array = getattr(record.features["audio5"], field)
    array[0] = ~array[0] if array.dtype == bool else array[0] + 1
    assert fingerprint(record) != fingerprint(full_record())


def test_classes_sizes_and_absences_of_each_split():
    record = full_record()
    vision = record.features["vision3"]
    vision.values[6:], vision.observed[:] = 0, True
    vision.observed[6:] = False
    found = describe(record)
    # labels of test: 3, -0.2, 1; its last two samples have no vision
    assert found["folds"]["standard"]["test"] == {
        "samples": 3,
        "videos": 3,
        "classes": {"negative": 1, "neutral": 0, "positive": 2},
        "absent": {"vision3": 2},
    }
    assert found["folds"]["standard"]["train"]["classes"] == {"negative": 2, "neutral": 1, "positive": 0}
    assert found["features"]["vision3"]["absent_samples"] == found["features"]["vision3"]["missing_frames"] == 2
    assert found["features"]["audio5"]["lengths"] == {"min": 1, "median": 2.5, "max": 6}
    assert found["features"]["audio5"]["frames"] == 24
    texts = {"transcripts": True, "other_languages": ["german"], "timed_words": 4, "token_ids": "some-model"}
    assert found["texts"] == texts


def test_the_neutral_class_is_the_middle_of_the_range_not_zero():
    record = full_record()
    record.task = regression((1, 5))
    record.unimodal_labels = {}
    record.labels[:] = [1, 3, 3, 4, 2, 3, 5, 2.5]
    classes = describe(record)["folds"]["standard"]
    assert classes["train"]["classes"] == {"negative": 1, "neutral": 2, "positive": 0}


def test_emotions_are_counted_one_by_one_and_all_fits_into_json():
    record = emotion_record()
    found = json.loads(json.dumps(describe(record)))
    assert found["folds"]["standard"]["test"]["classes"] == {"happy": 1, "sad": 2}
    assert found["fingerprint"] == fingerprint(record)
