"""The plain baselines."""

from dataclasses import replace

import pytest
import torch
from method_data import build, make_split

ALL = pytest.mark.parametrize("method_id", ["text_only", "early_fusion", "late_fusion"])


@pytest.fixture
def train():
    return make_split()


def with_frames(data, modality, frames, valid):
    """The batch with other frames of one modality."""
    return replace(
        data,
        features={**data.features, modality: frames},
        valid={**data.valid, modality: valid},
        observed={**data.observed, modality: valid},
    )


def test_text_only_computes_what_it_says_and_sees_only_text(train):
    method = build("text_only", train).eval()
    assert method.modalities == ("text",)
    prediction = method(train.data).prediction
    other = with_frames(train.data, "audio", torch.full((12, 7, 4), 9.0), train.data.valid["audio"])
    assert torch.equal(method(other).prediction, prediction)
    layers = [layer for layer in method.head if isinstance(layer, torch.nn.Linear)]
    for i in range(3):
        words = train.data.features["text"][i, train.data.valid["text"][i]]
        hidden = layers[0](words.mean(0)).relu()
        torch.testing.assert_close(prediction[i], layers[1](hidden).squeeze())


def test_early_fusion_concatenates_frames_of_the_same_step(train):
    steps = train.data.valid["text"]
    aligned = train.data
    for m in ("audio", "vision"):
        frames = torch.randn(12, steps.shape[1], train.dims[m]) * steps.unsqueeze(-1)
        aligned = with_frames(aligned, m, frames, steps.clone())
    method = build("early_fusion", train).eval()
    expected = method.encoder(torch.cat([aligned.features[m] for m in train.modalities], dim=-1), steps)
    assert torch.equal(method(aligned).representations["fusion"], expected)
    assert train.data.features["audio"].shape[1] != steps.shape[1]
    assert method(train.data).prediction.shape == (12,)


def test_early_fusion_repeats_utterance_level_features(train):
    audio, steps = torch.randn(12, 1, 4), train.data.valid["text"]
    method = build("early_fusion", train).eval()
    one = with_frames(train.data, "audio", audio, torch.ones(12, 1, dtype=torch.bool))
    repeated = with_frames(train.data, "audio", audio * steps.unsqueeze(-1), steps)
    torch.testing.assert_close(method(one).prediction, method(repeated).prediction)


def test_mean_encoder_against_a_loop_over_frames(train):
    method = build("late_fusion", train, sequence="mean").eval()
    layer, output = method.encoders["audio"].project, method(train.data)
    for i in range(3):
        frames = train.data.features["audio"][i, train.data.valid["audio"][i]]
        expected = sum(layer(frame).relu() for frame in frames) / len(frames)
        torch.testing.assert_close(output.representations["audio/feature"][i], expected)


@pytest.mark.parametrize("method_id", ["early_fusion", "late_fusion"])
def test_sequence_switch(train, method_id):
    lstm, mean = (build(method_id, train, sequence=kind).eval() for kind in ("lstm", "mean"))
    assert any("lstm" in name for name in lstm.state_dict())
    assert not any("lstm" in name for name in mean.state_dict())
    assert not torch.equal(lstm(train.data).prediction, mean(train.data).prediction)


@pytest.mark.parametrize(("kind", "equal"), [("mean", True), ("lstm", False)])
def test_mean_encoder_ignores_the_order_of_frames_and_the_lstm_does_not(train, kind, equal):
    audio, full = torch.randn(12, 7, 4), torch.ones(12, 7, dtype=torch.bool)
    method = build("late_fusion", train, sequence=kind).eval()
    one, two = (method(with_frames(train.data, "audio", x, full)).prediction for x in (audio, audio.flip(1)))
    assert torch.allclose(one, two, atol=1e-5) is equal


def test_late_fusion_concatenates_the_vectors(train):
    output = build("late_fusion", train, width=5).eval()(train.data)
    parts = [output.representations[f"{m}/feature"] for m in train.modalities]
    assert [part.shape[1] for part in parts] == [6, 5, 5]
    assert torch.equal(output.representations["fusion"], torch.cat(parts, dim=-1))


@ALL
def test_sizes_and_dropout(train, method_id):
    method = build(method_id, train, hidden=7, dropout=0.5)
    assert method.head[1].out_features == 7
    assert method.head[0].p == 0.5
    assert not torch.equal(method(train.data).prediction, method(train.data).prediction)
    assert torch.equal(method.eval()(train.data).prediction, method(train.data).prediction)
