"""The numbers of ``data info`` against counts by hand."""

import json

from store_records import emotion_record, full_record

from mmsa_lib.data.record import describe, fingerprint


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


def test_lengths_and_texts():
    found = describe(full_record())
    assert found["features"]["audio5"]["lengths"] == {"min": 1, "median": 2.5, "max": 6}
    assert found["features"]["audio5"]["frames"] == 24
    assert found["texts"] == {
        "transcripts": True,
        "other_languages": ["german"],
        "timed_words": 4,
        "token_ids": "some-model",
    }


def test_the_neutral_class_is_the_middle_of_the_range_not_zero():
    from mmsa_lib.data.task import regression

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
