"""Fingerprints follow the content and nothing else."""

import numpy as np
import pytest
from store_records import full_record

from mmsa_lib.data.record import digests, fingerprint
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


def test_every_part_has_a_case_below():
    parts = digests(full_record())
    assert {*CHANGES, "folds/by/part"} == set(parts)


@pytest.mark.parametrize("part", CHANGES)
def test_a_change_shows_in_its_part_and_in_the_fingerprint(part):
    record, before = full_record(), digests(full_record())
    CHANGES[part](record)
    assert [name for name, digest in digests(record).items() if digest != before[name]] == [part]
    assert fingerprint(record) != fingerprint(full_record())


@pytest.mark.parametrize("field", ["values", "lengths", "observed"])
def test_each_array_of_a_feature_set_counts(field):
    record = full_record()
    array = getattr(record.features["audio5"], field)
    array[0] = ~array[0] if array.dtype == bool else array[0] + 1
    assert fingerprint(record) != fingerprint(full_record())
