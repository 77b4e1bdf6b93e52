import pytest
import torch

from mmsa_lib.data.text import load_text_model, tokenize
from mmsa_lib.nn.text_encoder import TextEncoder

TEXTS = ["the film was very good", "bad", "not great at all"]


@pytest.fixture
def encoder(tiny_text_model):
    return TextEncoder(tiny_text_model).eval()


@pytest.fixture
def batch(tiny_text_model):
    return tokenize(TEXTS, tiny_text_model, max_length=20)


def test_states_are_those_of_each_text_alone(encoder, batch, tiny_text_model):
    tokens, valid = batch
    states = encoder(tokens, valid)
    assert states.shape == (*tokens.shape, encoder.width)
    alone = load_text_model(tiny_text_model).double()
    for row, state, length in zip(tokens, states, valid.sum(-1).tolist(), strict=True):
        expected = alone(input_ids=row[None, :length]).last_hidden_state[0]
        torch.testing.assert_close(state[:length].double(), expected, atol=1e-5, rtol=0)


def test_padding_is_zero_and_changes_nothing(encoder, batch):
    tokens, valid = batch
    states = encoder(tokens, valid)
    assert not states[~valid].any()
    wider = encoder(torch.nn.functional.pad(tokens, (0, 6)), torch.nn.functional.pad(valid, (0, 6)))
    torch.testing.assert_close(wider[:, : tokens.shape[1]], states, atol=1e-6, rtol=0)
    assert not wider[:, tokens.shape[1] :].any()


def test_a_row_without_valid_tokens_stays_finite(encoder, batch):
    tokens, valid = batch
    valid = valid.clone()
    valid[1] = False
    states = encoder(tokens, valid)
    states.sum().backward()
    assert not states[1].any()
    assert all(p.requires_grad and p.grad.isfinite().all() for p in encoder.parameters())
    assert torch.equal(encoder(tokens, valid), states)
    assert not torch.equal(encoder.train()(tokens, valid), states)  # dropout


def test_two_encoders_share_no_weights(tiny_text_model):
    first, second = TextEncoder(tiny_text_model), TextEncoder(tiny_text_model)
    with torch.no_grad():
        for p in first.parameters():
            p.zero_()
    assert any(p.any() for p in second.parameters())


def test_the_packaged_model_knows_its_language():
    tokens, valid = tokenize(["a wonderful movie", "a fantastic film", "the invoice is overdue"])
    encoder = TextEncoder().eval()
    assert encoder.width == 384
    with torch.no_grad():
        states = encoder(tokens, valid)
    means = torch.nn.functional.normalize(states.sum(1) / valid.sum(1, keepdim=True), dim=-1)
    likeness = means @ means.T
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 2]
