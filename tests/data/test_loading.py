import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from records import COUNT, small_record

from mmsa_lib.data import load, loading, summary
from mmsa_lib.data.record import FeatureSet, Words
from mmsa_lib.data.scaling import fit_scaling
from mmsa_lib.data.store import write_store
from mmsa_lib.data.task import classes
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError

real_data = pytest.mark.real_data
STARTS = {"train": 0, "valid": 20, "test": 30}


@pytest.fixture
def record():
    return small_record()


@pytest.fixture
def small(tmp_path, monkeypatch, record):
    """Path of the stored record; caches go to the same temporary folder."""
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    path = tmp_path / "stores" / "small.h5"
    write_store(record, path)
    return path


def test_every_frame_is_where_it_belongs(small, record):
    data = load("small", vision="vision3", standardise=False)
    assert list(data) == ["train", "valid", "test"]
    for split, utterances in data.items():
        assert utterances.modalities == ("text", "audio", "vision")
        for modality, name in [("text", "text5"), ("audio", "audio4"), ("vision", "vision3")]:
            features = record.features[name]
            for row in range(len(utterances)):
                sample = STARTS[split] + row
                start, length = features.offsets[sample], features.lengths[sample]
                values = utterances.data.features[modality][row]
                np.testing.assert_array_equal(values[:length], features.values[start : start + length])
                assert not values[length:].any()
                assert utterances.data.valid[modality][row].sum() == length
                observed = utterances.data.observed[modality][row]
                assert observed[:length].tolist() == features.observed[start : start + length].tolist()
                assert not observed[length:].any()
        assert utterances.data.features["text"].dtype == torch.float32
        rows = slice(STARTS[split], STARTS[split] + len(utterances))
        assert utterances.ids == tuple(record.ids[rows])
        assert utterances.groups == tuple(record.groups[rows])
        assert utterances.transcripts == tuple(record.transcripts[rows])
        assert utterances.data.index.tolist() == list(range(len(utterances)))
        np.testing.assert_array_equal(utterances.labels, record.labels[rows])
        np.testing.assert_array_equal(utterances.data.unimodal_labels["audio"], record.unimodal_labels["audio"][rows])
        np.testing.assert_array_equal(utterances.factors["shared"], record.factors["shared"][rows])
        assert (utterances.name, utterances.fold, utterances.split) == ("small", "standard", split)
        assert utterances.task == record.task


def test_audio_and_vision_are_standardised_by_training_frames_and_text_is_not(small):
    raw, scaled = load("small", vision="vision3", standardise=False), load("small", vision="vision3")
    for modality in ("audio", "vision"):
        seen = raw["train"].data.observed[modality]
        frames = raw["train"].data.features[modality][seen].double()
        mean, deviation = frames.mean(0), frames.std(0, correction=0)
        for split in raw:
            x, observed = raw[split].data.features[modality].double(), raw[split].data.observed[modality]
            expected = ((x - mean) / deviation) * observed.unsqueeze(-1)
            torch.testing.assert_close(scaled[split].data.features[modality].double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(raw["test"].data.features["text"], scaled["test"].data.features["text"])


def test_modalities_are_chosen_by_default_by_name_and_by_fold(small):
    assert load("small")["train"].feature_names == {"text": "text5", "audio": "audio4"}
    assert load("small", audio=None)["train"].modalities == ("text",)
    assert load("small", "other")["train"].feature_names["vision"] == "vision3"
    assert load("small", "other", text=None, vision="vision_trained")["train"].dims == {"audio": 4, "vision": 2}


def test_a_path_is_a_name_and_a_folder_can_be_given(small, tmp_path):
    assert load(small)["train"].fingerprint == load("small")["train"].fingerprint
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    small.rename(elsewhere / "mine.h5")
    assert len(load("mine", folder=elsewhere)["train"]) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "smal"}, "unknown data set 'smal'; did you mean small"),
        ({"fold": "standart"}, "unknown fold of small 'standart'; did you mean standard?"),
        ({"audio": "audio5"}, "unknown audio features of small 'audio5'; did you mean audio4?"),
        ({"vision": "audio4"}, "unknown vision features of small 'audio4'"),
        ({"text": "word"}, "unknown text features of small 'word'; did you mean words"),
        ({"standardize": True}, "unknown option of load 'standardize'; did you mean standardise?"),
        ({"samples": (1, 1, 1)}, "unknown option of load 'samples'"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(small, options, message):
    with pytest.raises(UnknownNameError) as caught:
        load(**{"name": "small", **options})
    assert str(caught.value).startswith(message)


def test_a_data_set_without_a_modality_says_so(small, record):
    with pytest.raises(DataError, match="nothing of small is left"):
        load("small", text=None, audio=None)
    del record.features["audio4"], record.defaults["*"]["audio"]
    write_store(record, small)
    assert load("small")["train"].modalities == ("text",)
    with pytest.raises(DataError, match="small has no audio features, got audio='covarep'; leave it out with audio=No"):
        load("small", audio="covarep")


def test_features_that_saw_test_labels_are_refused_or_loaded_on_demand_and_noted(small, caplog):
    said = "vision_trained of small.*6 of 10 test samples of fold standard.*allow_leak=True"
    with pytest.raises(DataError, match=said):
        load("small", vision="vision_trained")
    data = load("small", vision="vision_trained", allow_leak=True)
    assert data["test"].dims["vision"] == 2
    for utterances in data.values():
        assert [note[:5] for note in utterances.notes] == ["LEAK:"]
    assert "6 of 10 test samples" in caplog.text


def test_contaminated_validation_is_noted_but_not_refused(small, caplog):
    with caplog.at_level(logging.WARNING):
        data = load("small", "other", vision="vision_trained")
    assert "24 of 24 training and 4 of 4 validation samples of fold other" in data["train"].notes[0]
    assert "over-trusts" in caplog.text
    assert load("small", "cv", vision="vision_trained")["train"].notes == ()
    assert load("small", "other")["train"].notes == ()


def test_parts_of_a_cross_validation(small):
    first, second = load("small", "cv"), load("small", "cv", part=1)
    assert first["test"].fold == "cv-0"
    assert first["test"].ids == ("v3_6", "v3_7")
    assert second["test"].ids == ("v16_32", "v16_33")
    assert load("small", "cv-1")["test"].fingerprint == second["test"].fingerprint
    with pytest.raises(ConfigError, match="parts 0 to 1, got part=2"):
        load("small", "cv", part=2)
    with pytest.raises(ConfigError, match="has no parts"):
        load("small", part=1)


def test_words_and_sentences_come_from_the_text_model(small, tiny_text_model):
    from mmsa_lib.data.text import sentence_features, word_features

    options = {"text_model": tiny_text_model, "max_length": 20}
    words = load("small", text="words", **options)["valid"]
    expected = word_features(small_record().transcripts[20:30], tiny_text_model, 20)
    assert words.lengths("text").tolist() == expected.lengths.tolist()
    frames = words.data.features["text"][words.data.valid["text"]]
    np.testing.assert_allclose(frames, expected.values, atol=1e-5)
    assert words.data.observed["text"].any(-1).tolist() == [bool(t) for t in words.transcripts]
    assert words.text_model == tiny_text_model
    sentence = load("small", text="sentence", **options)["valid"]
    assert sentence.data.features["text"].shape == (10, 1, 16)
    expected = sentence_features(small_record().transcripts[20:30], tiny_text_model, 20)
    np.testing.assert_allclose(sentence.data.features["text"][:, 0], expected.values, atol=1e-5)


def test_timed_words_come_from_the_words_with_times(small, record, tiny_text_model):
    """One frame per word with a time, whatever the transcript says, so that text and timing are aligned."""
    from mmsa_lib.data.sources.mosi import word_timing
    from mmsa_lib.data.text import word_features

    with pytest.raises(DataError, match="small has no words with times; choose text='words'"):
        load("small", text="timed_words", text_model=tiny_text_model)
    counts = [i % 4 for i in range(len(record))]
    spelled = [word for n in counts for word in ["good", "the", "fi lm"][:n]]
    ends = np.cumsum([0, *counts]).astype(np.int32)
    starts = np.concatenate([np.arange(n) for n in counts]).astype(np.float32)
    record.words = Words(np.array(spelled, dtype=object), np.stack([starts, starts + 0.5], 1), ends)
    record.features["timing"] = word_timing(record.words)
    write_store(record, small)
    options = {"text": "timed_words", "text_model": tiny_text_model}
    valid = load("small", audio="timing", max_length=20, **options)["valid"]
    assert torch.equal(valid.data.valid["text"], valid.data.valid["audio"])
    assert valid.lengths("text").tolist() == [max(1, n) for n in counts[20:30]]
    expected = word_features(["", "good", "good the", "good the film"], tiny_text_model, 20).values
    np.testing.assert_allclose(valid.data.features["text"][3, :3], expected[-3:], atol=1e-5)
    assert valid.data.observed["text"].any(-1).tolist() == [n > 0 for n in counts[20:30]]
    other = load("small", audio="timing", max_length=20, text="words", text_model=tiny_text_model)["valid"]
    assert other.fingerprint != valid.fingerprint
    with pytest.raises(DataError, match=r"lose words with max_length=4 \(first 'v1_3': 3 words.*raise max_length"):
        load("small", max_length=4, **options)


def test_tokens_come_from_the_transcripts(small, tiny_text_model):
    train = load("small", text="tokens", text_model=tiny_text_model, max_length=20)["train"]
    assert train.dims == {"text": 0, "audio": 4}
    assert train.data.unknown_token == 1
    assert train.data.tokens[0].tolist()[:6] == [2, 5, 6, 7, 8, 3]
    assert train.data.tokens[2].tolist()[:2] == [2, 3]
    assert train.lengths("text")[:3].tolist() == [6, 3, 2]
    assert train.data.observed["text"].any(-1).tolist() == [bool(t) for t in train.transcripts]
    batch = next(train.batches(2))
    assert batch.tokens.shape == batch.valid["text"].shape == (2, 6)
    assert batch.features["text"].shape == (2, 6, 0)


def test_ready_made_tokens_are_taken_where_the_model_is_theirs(small, record, tiny_text_model, tmp_path, caplog):
    data = load("small", text="tokens", text_model="bert-base-uncased")
    valid = data["valid"].data
    expected = record.token_ids.ids[20:30]
    np.testing.assert_array_equal(valid.tokens, expected)
    assert data["valid"].lengths("text").tolist() == [2, 3, 4, 5, 6] * 2
    assert valid.unknown_token == 100
    assert valid.observed["text"].any(-1).tolist() == [False, True, True, True, True] * 2
    short = load("small", text="tokens", text_model="bert-base-uncased", max_length=4)["valid"].data
    assert short.tokens[4].tolist() == [*expected[4, :3], expected[4, 5]]
    assert short.tokens[2].tolist() == expected[2, :4].tolist()
    beyond = (record.token_ids.valid.sum(-1) - 4).clip(0)
    assert f"{beyond.sum()} tokens of {(beyond > 0).sum()} samples lie beyond max_length=4 and are cut" in caplog.text
    folder = shutil.copytree(tiny_text_model, tmp_path / "bert-base-uncased")
    np.testing.assert_array_equal(load("small", text="tokens", text_model=str(folder))["valid"].data.tokens, expected)


def test_text_that_cannot_be_computed_is_explained(small, record, tiny_text_model):
    record.transcripts = None
    write_store(record, small)
    with pytest.raises(DataError, match=r"no transcripts.*--set text_encoder=bert text_model=bert-base-uncased"):
        load("small", text="words", text_model=tiny_text_model)


@pytest.mark.parametrize("options", [{"text_model": "nope/nope"}, {"max_length": 999_999_999}])
def test_options_without_effect_are_said(options, small, caplog):
    load("small", **options)
    assert "has no effect: text is " in caplog.text


def test_the_fingerprint_changes_with_what_changes_numbers_only(small, record, tiny_text_model):
    base = load("small")["train"].fingerprint
    assert load("small")["train"].fingerprint == base
    assert load("small", in_memory=False)["train"].fingerprint == base
    assert load("small", max_length=20)["train"].fingerprint == base, "no text is computed"
    computed = [{"fold": "other"}, {"audio": None}, {"standardise": False}]
    for text, length in (("tokens", 20), ("tokens", 19), ("words", 20), ("sentence", 20)):
        computed.append({"text": text, "text_model": tiny_text_model, "max_length": length})
    others = [load("small")["test"], *(load("small", **options)["train"] for options in computed)]
    others += [load("synthetic", samples=(20, 10, 10), seed=seed)["train"] for seed in (0, 1)]
    record.labels[0] = 2.5
    write_store(record, small)
    others.append(load("small")["train"])
    assert len({base, *(u.fingerprint for u in others)}) == len(others) + 1


def test_synthetic_takes_the_options_of_its_generator():
    data = load("synthetic", samples=[30, 10, 10], seed=3, length=5)
    assert [len(u) for u in data.values()] == [30, 10, 10]
    assert data["train"].modalities == ("text", "audio", "vision")
    assert max(u.lengths("text").max() for u in data.values()) <= 5
    assert data["train"].factors["shared"].shape == (30, 1)
    other = load("synthetic", samples=(30, 10, 10), seed=4, length=5)
    assert not torch.equal(data["train"].labels, other["train"].labels)
    with pytest.raises(UnknownNameError, match="did you mean samples"):
        load("synthetic", sample=(3, 3, 3))
    with pytest.raises(ConfigError, match="option dims"):
        load("synthetic", dims={"text": 3})


def test_loading_twice_does_not_share_tensors():
    first = load("synthetic", samples=(30, 10, 10))
    first["train"].data.features["text"].zero_()
    first["train"].labels.zero_()
    again = load("synthetic", samples=(30, 10, 10))
    assert again["train"].data.features["text"].any()
    assert again["train"].labels.any()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_large_zeros_are_private_to_a_process():
    zeros = loading._zeros((2**10, 2**11))
    child = os.fork()
    if child == 0:
        zeros[0, 0] = 1
        os._exit(0)
    os.waitpid(child, 0)
    zeros[1, 0] = 2
    assert (zeros.shape, zeros.dtype, float(zeros.sum())) == ((2**10, 2**11), np.float32, 2)


def test_large_generated_data_are_not_kept_and_are_the_same(monkeypatch):
    monkeypatch.setattr(loading, "_generated", {})
    options = {"samples": (30, 10, 10), "seed": 9}
    first = load("synthetic", **options)
    assert len(loading._generated) == 1
    monkeypatch.setattr(loading, "_generated", {})
    monkeypatch.setattr(loading, "_KEPT", 0)
    again = load("synthetic", **options)
    assert loading._generated == {}
    for split in first:
        assert first[split].fingerprint == again[split].fingerprint
        for m in first[split].modalities:
            assert first[split].data.features[m].equal(again[split].data.features[m])


def test_the_summary_counts_what_is_there(small):
    data = load("small", vision="vision3")
    table = summary(data).set_index(["split", "modality"])
    assert len(table) == 9
    row = table.loc[("train", "vision")]
    assert row[["samples", "groups", "features", "width"]].tolist() == [20, 10, "vision3", 3]
    assert row["longest"] == int(data["train"].lengths("vision").max())
    features = small_record().features["vision3"]
    assert row["missing_frames"] == pytest.approx(1 - features.observed[: features.offsets[20]].mean())
    assert summary(data)["samples"].sum() == 3 * COUNT


@pytest.fixture(scope="session")
def mosi(tmp_path_factory):
    """Path of CMU-MOSI, built from the local mirror."""
    if not os.environ.get("MMSA_LIB_MIRROR"):
        pytest.skip("set MMSA_LIB_MIRROR to a folder with the original files")
    from mmsa_lib.data.sources import build

    path = tmp_path_factory.mktemp("mosi") / "mosi.h5"
    write_store(build("mosi", Path(os.environ["MMSA_LIB_MIRROR"]), progress=False), path)
    return path


@real_data
@pytest.mark.parametrize("options", [{"vision": "vision100"}, {"text": "textcnn100"}])
def test_mosi_refuses_label_trained_features_on_the_standard_fold(mosi, options):
    with pytest.raises(DataError, match="558 of 686 test samples"):
        load(mosi, "A", **{"text": "tokens", **options})
    assert "LEAK" in load(mosi, "A", allow_leak=True, **{"text": "tokens", **options})["test"].notes[0]


@real_data
def test_mosi_folds_have_their_sizes(mosi):
    tokens = {"text": "tokens"}
    assert [len(u) for u in load(mosi, "A", **tokens).values()] == [1284, 229, 686]
    train, valid, test = load(mosi, "B", **tokens).values()
    assert (len(train) + len(valid), len(test)) == (1447, 752)
    assert "over-trusts" in train.notes[0]
    parts = [load(mosi, "C", part=part, **tokens) for part in range(5)]
    assert {sum(len(u) for u in data.values()) for data in parts} == {752}
    assert sum(len(data["test"]) for data in parts) == 752
    assert all(not data["test"].notes for data in parts)
    assert train.labels.dtype == torch.float32


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 6, size=700)
    observed = generator.random(lengths.sum()) > 0.3
    values = generator.normal(size=(lengths.sum(), 4)) * [1, 100, 0.01, 0] + [0, 1e4, -2, 0.1]
    values = np.where(observed[:, None], values, 0).astype(np.float32)
    return FeatureSet("audio", values, lengths, observed, level="frame")


def test_columns_have_mean_zero_and_deviation_one_over_observed_training_frames(features):
    train = np.arange(0, 700, 2)
    scaling = fit_scaling(features, train)
    seen = [
        features.values[frame].astype(np.float64)
        for sample in train
        for frame in range(features.offsets[sample], features.offsets[sample + 1])
        if features.observed[frame]
    ]
    mean = sum(seen) / len(seen)
    deviation = np.sqrt(sum((x - mean) ** 2 for x in seen) / len(seen))
    np.testing.assert_allclose(scaling.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(scaling.scale[:3], deviation[:3], rtol=1e-6)
    scaled = (np.array(seen) - mean)[:, :3] / deviation[:3]
    chosen = np.concatenate([np.arange(*features.offsets[i : i + 2]) for i in train])
    chosen = chosen[features.observed[chosen]]
    found = scaling.apply(features.values, features.observed)[chosen, :3]
    np.testing.assert_allclose(found, scaled, atol=1e-3)  # a deviation of 0.01 around -2 has 4 digits in float32


def test_constant_columns_and_missing_frames_become_exactly_zero(features):
    scaling = fit_scaling(features, np.arange(700))
    scaled = scaling.apply(features.values, features.observed)
    assert scaling.scale[3] == 1
    assert not scaled[:, 3].any()
    assert scaled.dtype == np.float32
    assert not scaled[~features.observed].any()
    assert scaled[features.observed][:, :3].any(axis=1).all()
    features.observed[:] = False
    scaling = fit_scaling(features, np.arange(10))
    assert scaling.mean.tolist() == [0] * 4
    assert scaling.scale.tolist() == [1] * 4


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", ["regression", "classes"])
def test_few_labels_are_left_and_nothing_else_changes(small, record, in_memory, kind):
    if kind == "classes":
        record.task, record.labels = classes("abc"), np.arange(COUNT, dtype=np.float32) % 3
        write_store(record, small)
    whole = load("small", in_memory=in_memory)
    few, more, other = (
        load("small", in_memory=in_memory, labelled=n, labelled_seed=seed) for n, seed in ((6, 0), (9, 0), (6, 1))
    )
    known = few["train"].data.labelled
    assert known.dtype == torch.bool
    assert known.sum() == 6
    assert more["train"].data.labelled[known].all(), "a larger number adds to the same samples"
    assert not torch.equal(known, other["train"].data.labelled)
    assert torch.equal(few["train"].labels[known], whole["train"].labels[known])
    assert few["train"].labels[~known].isnan().all()
    assert few["train"].data.unimodal_labels["audio"].isnan().equal(~known)
    for m in ("text", "audio", "vision")[:2]:
        assert torch.equal(few["train"].data.observed[m], whole["train"].data.observed[m])
    for one, same in zip(few["train"].batches(7), whole["train"].batches(7), strict=True):
        assert torch.equal(one.features["audio"], same.features["audio"]), "standardised by all samples"
        assert torch.equal(one.labelled, known[one.index])
    assert few["train"].select(torch.tensor([3, 1])).data.labelled.tolist() == known[[3, 1]].tolist()
    for split in ("valid", "test"):
        assert few[split].data.labelled is None
        assert torch.equal(few[split].labels, whole[split].labels)
    assert "6 of 20 training samples have a label (labelled_seed=0)" in few["train"].notes
    assert len({x["train"].fingerprint for x in (whole, few, more, other)}) == 4
    assert load("small", labelled=6)["train"].fingerprint == few["train"].fingerprint


@pytest.mark.parametrize("name", ["small", "synthetic_redundant"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labelled": 0}, "labelled=0: .* has 20 training samples in fold standard; give 1 to 20"),
        ({"labelled": 21}, "labelled=21: .* give 1 to 20"),
        ({"labelled": 2.5}, "labelled=2.5 is no whole number"),
        ({"labelled": True}, "labelled=True is no whole number"),
        ({"labelled": 5, "labelled_seed": -1}, "labelled_seed=-1 is below 0"),
        ({"labelled_seed": 1}, "labelled_seed=1 draws the samples of labelled; give labelled too"),
    ],
)
def test_a_wrong_number_of_labels_is_refused_in_one_line(small, name, options, words):
    more = {} if name == "small" else {"samples": (20, 10, 10)}
    with pytest.raises(ConfigError, match=words):
        load(name, **options, **more)
