"""The plain baselines."""

from dataclasses import replace

import pytest
import torch
from method_data import build, make_split, train_epochs

from mmsa_lib.data.task import emotions
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import create


@pytest.fixture
def train():
    return make_split()


def test_text_only_sees_only_text(train):
    method = build("text_only", train).eval()
    other = replace(train.data, features={**train.data.features, "audio": torch.full((12, 7, 4), 9.0)})
    assert method.modalities == ("text",)
    assert torch.equal(method(train.data).prediction, method(other).prediction)


def test_text_only_needs_text():
    train = make_split(modalities=("audio",))
    with pytest.raises(ConfigError, match="text_only uses text"):
        create("text_only", train.dims, train.task)


def test_text_only_computes_what_it_says(train):
    method = build("text_only", train).eval()
    layers = [layer for layer in method.head if isinstance(layer, torch.nn.Linear)]
    for i in range(3):
        words = train.data.features["text"][i, train.data.valid["text"][i]]
        hidden = layers[0](words.mean(0)).relu()
        torch.testing.assert_close(method(train.data).prediction[i], layers[1](hidden).squeeze())


def test_early_fusion_concatenates_frames_of_the_same_step(train):
    text = train.data.features["text"]
    aligned = replace(
        train.data,
        features={m: torch.randn(12, 5, d) * train.data.valid["text"].unsqueeze(-1) for m, d in train.dims.items()},
        valid=dict.fromkeys(train.modalities, train.data.valid["text"]),
        observed=dict.fromkeys(train.modalities, train.data.valid["text"]),
    )
    method = build("early_fusion", train).eval()
    joint = torch.cat([aligned.features[m] for m in train.modalities], dim=-1)
    expected = method.encoder(joint, aligned.valid["text"])
    assert torch.equal(method(aligned).representations["fusion"], expected)
    assert method(train.data).prediction.shape == (12,)
    assert text.shape[1] != train.data.features["audio"].shape[1]


def test_early_fusion_repeats_utterance_level_features(train):
    audio = torch.randn(12, 1, 4)
    one = torch.ones(12, 1, dtype=torch.bool)
    steps = train.data.valid["text"]
    data = train.data

    def with_audio(x, valid):
        return replace(
            data,
            features={**data.features, "audio": x},
            valid={**data.valid, "audio": valid},
            observed={**data.observed, "audio": valid},
        )

    method = build("early_fusion", train).eval()
    repeated = with_audio(audio * steps.unsqueeze(-1), steps)
    torch.testing.assert_close(method(with_audio(audio, one)).prediction, method(repeated).prediction)


def test_mean_encoder_against_a_loop_over_frames(train):
    method = build("late_fusion", train, sequence="mean").eval()
    layer, output = method.encoders["audio"].project, method(train.data)
    for i in range(3):
        frames = train.data.features["audio"][i, train.data.valid["audio"][i]]
        expected = sum(layer(frame).relu() for frame in frames) / len(frames)
        torch.testing.assert_close(output.representations["audio/feature"][i], expected)


@pytest.mark.parametrize("method_id", ["early_fusion", "late_fusion"])
def test_sequence_switch(train, method_id):
    lstm, mean = (build(method_id, train, sequence=kind) for kind in ("lstm", "mean"))
    names = {kind: set(m.state_dict()) for kind, m in (("lstm", lstm), ("mean", mean))}
    assert any("lstm" in name for name in names["lstm"])
    assert not any("lstm" in name for name in names["mean"])
    assert not torch.equal(lstm.eval()(train.data).prediction, mean.eval()(train.data).prediction)


def test_mean_encoder_ignores_the_order_of_frames_and_the_lstm_does_not():
    train = make_split()
    full = torch.ones_like(train.data.valid["audio"])
    audio = torch.randn(12, 7, 4)
    data = replace(
        train.data, valid={**train.data.valid, "audio": full}, observed={**train.data.observed, "audio": full}
    )
    for kind, equal in (("mean", True), ("lstm", False)):
        method = build("late_fusion", train, sequence=kind).eval()
        one, two = (
            method(replace(data, features={**data.features, "audio": x})).prediction for x in (audio, audio.flip(1))
        )
        assert torch.allclose(one, two, atol=1e-5) is equal


def test_late_fusion_concatenates_the_vectors(train):
    output = build("late_fusion", train, width=5).eval()(train.data)
    parts = [output.representations[f"{m}/feature"] for m in train.modalities]
    assert [part.shape[1] for part in parts] == [6, 5, 5]
    assert torch.equal(output.representations["fusion"], torch.cat(parts, dim=-1))


@pytest.mark.parametrize("method_id", ["text_only", "early_fusion", "late_fusion"])
def test_sizes_and_dropout(train, method_id):
    method = build(method_id, train, hidden=7, dropout=0.5)
    assert method.head[1].out_features == 7
    assert method.head[0].p == 0.5
    assert not torch.equal(method(train.data).prediction, method(train.data).prediction)
    assert torch.equal(method.eval()(train.data).prediction, method(train.data).prediction)


@pytest.mark.parametrize("method_id", ["text_only", "early_fusion", "late_fusion"])
def test_emotions(method_id):
    train = make_split(task=emotions(["happy", "sad", "angry"]))
    method = build(method_id, train)
    steps, _ = train_epochs(method, train)
    assert method(train.data).prediction.shape == (12, 3, 2)
    assert steps[-1]["raw/task"] > 0


@pytest.mark.parametrize("method_id", ["text_only", "early_fusion", "late_fusion"])
def test_training_lowers_the_loss(method_id):
    train = make_split(size=32, seed=3)
    labels = train.data.features["text"].sum(1)[:, 0] / train.data.valid["text"].sum(1)
    train = replace(train, data=replace(train.data, labels=labels))
    method = build(method_id, train, learning_rate=1e-2)
    steps, _ = train_epochs(method, train, epochs=30, size=16)
    assert steps[-1]["raw/task"] < 0.6 * steps[0]["raw/task"]
