"""Each thing that can be wrong with a data set is found, placed and given a repair."""

import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from records import emotion_record, full_record

from mmsa_lib.data.store import check_store, write_store
from mmsa_lib.data.task import classes
from mmsa_lib.data.validate import blocking_problems, check_record


def set_item(name, position, value):
    return lambda record: getattr(record, name).__setitem__(position, value)


def set_field(feature_set, **values):
    def change(record):
        for field, value in values.items():
            setattr(record.features[feature_set], field, value)

    return change


def drop_last(name):
    return lambda record: setattr(record, name, getattr(record, name)[:-1])


def no_folds(record):
    record.folds, record.defaults = {}, {}
    record.features["vision3"].label_trained_on = ""


BROKEN = [
    (drop_last("groups"), "groups", "7 entries for 8 samples"),
    (drop_last("times"), "times", r"shape \(7, 2\), expected \(8, 2\)"),
    (drop_last("labels"), "labels", r"shape \(7,\), expected \(8,\)"),
    (lambda r: r.folds.update(odd=np.array(["train"])), "folds/odd", r"shape \(1,\)"),
    (lambda r: r.folds.update(odd=np.array(["dev"] * 8)), "folds/odd", "unknown split 'dev'"),
    (no_folds, "folds", "there is no fold"),
    (lambda r: r.folds.update(odd=np.array(["train"] * 4 + ["test"] * 4)), "folds/odd", "no sample in valid"),
    (set_item("labels", 3, np.nan), "labels", "first nan of sample 'video3_1'"),
    (set_item("labels", 3, -3.1), "labels", r"outside \[-3, 3\], first -3.1 of sample 'video3_1'"),
    (lambda r: r.unimodal_labels["text"].__setitem__(2, 5), "unimodal_labels/text", "first 5 of sample 'video2_1'"),
    (lambda r: r.factors["shared"].__setitem__((0, 0), np.inf), "factors/shared", "1 values are NaN or infinite"),
    (lambda r: r.factors.update(odd=np.zeros(8)), "factors/odd", r"shape \(8,\), expected \(8, k\)"),
    (set_item("times", (0, 0), np.nan), "times", "1 values are NaN"),
    (set_item("ids", 5, "video0_1"), "ids", "used twice, first 'video0_1' .in train, test of fold standard"),
    (set_item("transcripts", 4, "cut \ud83d"), "transcripts", "sample 'video4_1' is not valid Unicode"),
    (set_field("audio5", lengths=np.ones(8, int)), "features/audio5", "add up to 8, values have 24 rows"),
    (set_field("audio5", lengths=np.array([3, 1, 4, 1, 5, 2, 0, 8])), "features/audio5", "a length of 0"),
    (set_field("audio5", observed=np.ones(3, bool)), "features/audio5", "observed has 3"),
    (set_field("audio5", values=np.zeros(24)), "features/audio5", r"shape \(24,\), expected \(frames, width\)"),
    # lengths 3, 1, 4, 1: row 8 is the only one of sample 3
    (lambda r: r.features["audio5"].values.__setitem__((8, 2), np.nan), "features/audio5", "in sample 'video3_1'"),
    (set_field("audio5", modality="smell"), "features/audio5", "modality 'smell'"),
    (set_field("audio5", observed=np.zeros(24, bool)), "features/audio5", "not observed and yet not zero"),
    (set_field("vision3", label_trained_on="train"), "features/vision3", "label_trained_on is 'train'"),
    (set_field("vision3", label_trained_on="no:train"), "features/vision3", "label_trained_on is 'no:train'"),
    (lambda r: r.defaults["*"].update(vision="v9"), "defaults", "vision of fold '.' is 'v9', which is not here"),
    (lambda r: r.defaults.update(other={}), "defaults", "unknown fold 'other'"),
    (lambda r: setattr(r, "transcripts", None) or setattr(r, "token_ids", None), "defaults", "needs transcripts"),
    (lambda r: setattr(r.words, "offset", r.words.offset[::-1]), "words", "offsets don't cut"),
    (lambda r: setattr(r.words, "interval", np.zeros((3, 2))), "words", r"intervals have shape \(3, 2\)"),
    (lambda r: setattr(r.token_ids, "valid", np.ones((8, 3), bool)), "token_ids", r"valid \(8, 3\)"),
]


@pytest.mark.parametrize(("change", "where", "what"), BROKEN, ids=[f"{case[1]}-{i}" for i, case in enumerate(BROKEN)])
def test_an_error_is_found_placed_and_given_a_repair(change, where, what):
    record = full_record()
    assert blocking_problems(record) == []
    change(record)
    found = blocking_problems(record)
    assert [problem.where for problem in found] == [where]
    assert found[0].severity == "error"
    assert found[0].repair
    assert re.search(what, found[0].what)


def test_no_samples_and_emotion_labels_that_are_not_0_or_1_are_errors():
    record = full_record()
    record.ids = []
    assert "there are no samples" in [problem.what for problem in blocking_problems(record)]
    record = emotion_record()
    assert blocking_problems(record) == []
    record.labels[4, 1] = 0.5
    (problem,) = blocking_problems(record)
    assert "first 'sad' of sample 'video4_1'" in problem.what


def warnings(record):
    found = check_record(record)
    assert all(problem.severity == "warning" for problem in found)
    return [f"{problem.where}: {problem.what}" for problem in found]


def test_a_sound_record_has_only_the_warning_on_its_empty_transcript():
    assert warnings(full_record()) == ["transcripts: 1 transcripts are empty, first 'video1_1'"]


@pytest.mark.parametrize(("missing", "said"), [(5, "all 5 samples of split train"), (4, "4 of 5"), (0, "")])
def test_a_modality_that_is_missing_for_many_samples_of_a_split_is_said(missing, said):
    record = full_record()
    record.folds["standard"] = np.array(["train"] * 5 + ["valid"] * 1 + ["test"] * 2)
    audio = record.features["audio5"]
    audio.observed = np.ones(len(audio.values), bool)
    audio.observed[: audio.offsets[missing]] = False
    audio.values[~audio.observed] = 0
    found = [problem for problem in warnings(record) if problem.startswith("features/audio5: missing for")]
    assert [said in problem for problem in found] == ([True] if said else [])


def test_a_class_that_training_does_not_hold_is_said():
    record = full_record()
    record.task, record.unimodal_labels = classes(["a", "b", "c"]), {}
    record.labels = np.array([0, 1, 0, 1, 0, 0, 2, 1], np.float32)
    record.folds["standard"] = np.array(["train"] * 5 + ["valid"] * 1 + ["test"] * 2)
    assert "folds/standard: no sample of train is 'c'" in warnings(record)


def test_a_recording_in_two_splits_is_an_error_of_that_fold_only():
    record = full_record()
    for features in record.features.values():  # sample 5 (test) becomes a copy of sample 0 (train), lengths included
        rows = np.split(features.values, features.offsets[1:-1])
        seen = np.split(features.observed, features.offsets[1:-1])
        rows[5], seen[5] = rows[0], seen[0]
        features.lengths[5] = features.lengths[0]
        features.values, features.observed = np.concatenate(rows), np.concatenate(seen)
    errors = [problem for problem in check_record(record) if problem.severity == "error"]
    assert [problem.where for problem in errors] == ["folds/standard"]  # in fold by/part, sample 0 is unused
    assert "1 recordings are in both train and test" in errors[0].what
    assert "'video0_1' and 'video5_1'" in errors[0].what


def test_absent_recordings_are_not_taken_for_copies():
    record = full_record()
    for features in record.features.values():
        features.lengths = np.ones(8, int)
        features.values = np.zeros((8, features.width), np.float32)
        features.observed = np.zeros(8, bool)
    assert not [problem for problem in check_record(record) if problem.severity == "error"]


def test_equal_transcripts_warn_only_with_equal_labels():
    record = full_record()
    record.transcripts[5] = f" {record.transcripts[0]}"
    assert not [line for line in warnings(record) if "with equal labels" in line]
    record.labels[5] = record.labels[0]
    (line,) = [line for line in warnings(record) if "with equal labels" in line]
    assert line.startswith("folds/standard: 1 transcripts with equal labels are in both train and test")


def test_a_video_in_two_splits_warns():
    record = full_record()
    record.groups[3] = record.groups[0]
    (line,) = [line for line in warnings(record) if "videos have samples" in line]
    assert line.startswith("folds/standard: 1 videos have samples in both train and valid")


def test_columns_and_samples_without_content_warn():
    record = full_record()
    audio, vision = record.features["audio5"], record.features["vision3"]
    audio.values[:, 1] = np.where(audio.observed, 7, 0)
    vision.values[0] = 0
    found = warnings(record)
    assert "features/audio5: 1 of 5 columns are constant" in found
    assert "features/vision3: 1 samples are observed but all zero, first 'video0_1'" in found
    vision.values[:], vision.observed[:] = 0, False
    assert "features/vision3: no frame is observed" in warnings(record)


def test_a_store_that_was_edited_is_found_out(tmp_path):
    write_store(full_record(), tmp_path / "a.h5")
    assert not [problem for problem in check_store(tmp_path / "a.h5") if problem.severity == "error"]
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["labels"][0] = 1.5
        file["features/audio5/values"][0, 0] = np.nan
    found = [str(problem) for problem in check_store(tmp_path / "a.h5")]
    assert found[0].startswith("fingerprint: features/audio5, labels changed since the store was written")
    assert found[1].startswith("features/audio5: 1 frames hold NaN")


@pytest.mark.real_data
@pytest.mark.skipif("MMSA_LIB_MIRROR" not in os.environ, reason="MMSA_LIB_MIRROR is not set")
@pytest.mark.parametrize(("name", "overlap"), [("mosi", None), ("mmmo", None), ("sims_text", "59 videos")])
def test_the_real_sets_have_no_errors_and_the_known_overlaps(tmp_path, name, overlap):
    from mmsa_lib.data.sources import build

    record = build(name, mirror=Path(os.environ["MMSA_LIB_MIRROR"]), progress=False)
    write_store(record, tmp_path / "real.h5")
    problems = check_store(tmp_path / "real.h5")
    assert not [str(problem) for problem in problems if problem.severity == "error"]
    shared = [problem.what for problem in problems if "videos have samples in both train and test" in problem.what]
    assert [what.split(" have")[0] for what in shared] == ([overlap] if overlap else [])
