from dataclasses import replace

import pytest
import torch

from mmsa_lib.data.batch import BERT_UNKNOWN, Batch, Utterances
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import DataError

LENGTHS = {"text": [5, 2, 7, 3, 1, 6], "audio": [2, 4, 1, 3, 4, 2]}


@pytest.fixture
def batch():
    """Six samples, text as tokens (1 opens, 2 closes, 0 pads) and as features, audio with missing frames."""
    generator = torch.Generator().manual_seed(0)
    valid = {m: torch.arange(max(n)) < torch.tensor(n)[:, None] for m, n in LENGTHS.items()}
    observed = {m: v.clone() for m, v in valid.items()}
    observed["audio"][1, 2] = False
    features = {m: torch.rand(*v.shape, 3, generator=generator) + 1 for m, v in valid.items()}
    features = {m: x * observed[m].unsqueeze(-1) for m, x in features.items()}
    tokens = torch.zeros(6, 7, dtype=torch.int64)
    for row, length in enumerate(LENGTHS["text"]):
        tokens[row, :length] = torch.arange(10, 10 + length)
        tokens[row, length - 1], tokens[row, 0] = 2, 1
    return Batch(
        features=features,
        valid=valid,
        observed=observed,
        labels=torch.linspace(-3, 3, 6),
        index=torch.arange(6),
        ids=tuple("abcdef"),
        tokens=tokens,
        unimodal_labels={"audio": torch.arange(6.0)},
        labelled=torch.tensor([True, False, True, True, False, True]),
    )


@pytest.fixture
def utterances(batch):
    return Utterances(
        data=batch,
        task=regression(),
        groups=tuple("uuvvww"),
        factors={"shared": torch.arange(12.0).reshape(6, 2)},
        transcripts=tuple("ABCDEF"),
    )


def tensors(batch):
    parts = [batch.labels, batch.labelled, batch.index, batch.tokens, *batch.unimodal_labels.values()]
    for part in (batch.features, batch.valid, batch.observed):
        parts += part.values()
    return parts


def test_to_moves_every_tensor_and_modalities_keep_their_order(batch):
    turned = replace(batch, features=dict(reversed(batch.features.items())))
    assert turned.modalities == ("text", "audio")
    assert {x.device.type for x in tensors(batch.to("meta"))} == {"meta"}
    assert {x.device.type for x in tensors(batch)} == {"cpu"}


def test_select_takes_rows_in_the_given_order(batch):
    chosen = batch.select(torch.tensor([4, 1]))
    assert chosen.ids == ("e", "b")
    assert chosen.index.tolist() == [4, 1]
    for whole, part in zip(tensors(batch), tensors(chosen), strict=True):
        assert torch.equal(part, whole[[4, 1]])


def test_hidden_frames_are_zero_valid_and_not_observed(batch):
    keep = torch.ones(6, 4, dtype=torch.bool)
    keep[0, 1] = keep[3, 0] = False
    hidden = batch.hide({"audio": keep})
    for row in range(6):
        for frame in range(4):
            seen = bool(batch.observed["audio"][row, frame] and keep[row, frame])
            assert bool(hidden.observed["audio"][row, frame]) == seen
            expected = batch.features["audio"][row, frame] if seen else torch.zeros(3)
            assert torch.equal(hidden.features["audio"][row, frame], expected)
    assert torch.equal(hidden.valid["audio"], batch.valid["audio"])
    assert torch.equal(hidden.features["text"], batch.features["text"])
    assert torch.equal(hidden.tokens, batch.tokens)
    assert batch.features["audio"][0, 1].any(), "the original batch has changed"
    again = batch.hide({"audio": torch.ones(6, 4, dtype=torch.bool)})
    assert torch.equal(again.observed["audio"], batch.observed["audio"]), "what is missing came back"


@pytest.mark.parametrize("unknown", [BERT_UNKNOWN, 77])
def test_hidden_tokens_become_unknown_but_the_ends_stay(batch, unknown):
    batch = replace(batch, unknown_token=unknown)
    hidden = batch.hide({"text": torch.zeros(6, 7, dtype=torch.bool)})
    for row, length in enumerate(LENGTHS["text"]):
        expected = batch.tokens[row].tolist()
        for place in range(1, length - 1):
            expected[place] = unknown
        assert hidden.tokens[row].tolist() == expected
    assert not hidden.observed["text"].any()


def test_hide_refuses_a_wrong_mask(batch):
    with pytest.raises(DataError, match="'vision'; this batch carries text, audio"):
        batch.hide({"vision": torch.ones(6, 4, dtype=torch.bool)})
    with pytest.raises(DataError, match=r"shape \(6, 3\), expected \(6, 4\)"):
        batch.hide({"audio": torch.ones(6, 3, dtype=torch.bool)})


def test_with_text_replaces_the_text_alone(batch):
    encoded = batch.with_text(torch.ones(6, 7, 9))
    assert encoded.features["text"].shape == (6, 7, 9)
    assert encoded.features["audio"] is batch.features["audio"]


def test_batches_cover_all_samples_in_order_and_are_trimmed(utterances):
    batches = list(utterances.batches(4))
    assert [b.ids for b in batches] == [tuple("abcd"), tuple("ef")]
    assert batches[0].features["text"].shape == (4, 7, 3)
    assert batches[1].features["text"].shape == (2, 6, 3)
    assert batches[1].tokens.shape == (2, 6)
    assert batches[1].features["audio"].shape == (2, 4, 3)
    for part in batches:
        for modality in part.modalities:
            width = part.valid[modality].shape[1]
            for name in ("features", "valid", "observed"):
                whole = getattr(utterances.data, name)[modality]
                assert torch.equal(getattr(part, name)[modality], whole[part.index, :width])
            assert not utterances.data.valid[modality][part.index, width:].any()
        assert torch.equal(part.labels, utterances.labels[part.index])
        assert torch.equal(part.labelled, utterances.data.labelled[part.index])
        assert torch.equal(part.unimodal_labels["audio"], part.index.float())


def test_the_order_follows_the_generator(utterances):
    def order(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return [b.ids for b in utterances.batches(2, shuffle=True, generator=generator, **options)]

    assert order(1) == order(1)
    assert order(1, bucket=True) == order(1, bucket=True)
    assert len({str(order(seed)) for seed in range(8)}) > 1
    assert sorted(sum(order(3), ())) == list("abcdef")
    generator = torch.Generator().manual_seed(0)
    epochs = {str([b.ids for b in utterances.batches(2, shuffle=True, generator=generator)]) for _ in range(8)}
    assert len(epochs) > 1, "the generator draws anew each epoch"


def test_buckets_hold_similar_lengths_and_each_sample_once(utterances):
    lengths, firsts = utterances.lengths("text"), set()
    assert lengths.tolist() == LENGTHS["text"]
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        found = [b.index for b in utterances.batches(2, shuffle=True, generator=generator, bucket=True)]
        assert sorted(torch.cat(found).tolist()) == list(range(6))
        assert sorted(sorted(lengths[rows].tolist()) for rows in found) == [[1, 2], [3, 5], [6, 7]]
        firsts.add(int(lengths[found[0]].sum()))
    assert firsts == {3, 8, 13}, "batches come in random order"


def test_a_batch_needs_a_sample(utterances):
    with pytest.raises(DataError, match="at least one sample"):
        next(utterances.batches(0))


def test_a_selected_split_counts_from_zero(utterances):
    part = utterances.select(torch.tensor([5, 2]))
    assert part.ids == ("f", "c")
    assert part.data.index.tolist() == [0, 1]
    assert part.groups == ("w", "v")
    assert part.transcripts == ("F", "C")
    assert part.factors["shared"].tolist() == [[10, 11], [4, 5]]
    assert torch.equal(part.labels, utterances.labels[[5, 2]])
    assert part.dims == {"text": 3, "audio": 3}


@pytest.mark.parametrize(
    ("task", "shape", "labels", "squared"),
    [
        (regression(), (4,), [1.0, 2.0, -1.5, 0.5], False),
        (regression(), (4,), [1.0, 2.0, -1.5, 0.5], True),
        (classes("abc"), (4, 3), [0.0, 2.0, 1.0, 1.0], False),
        (emotions("ab"), (4, 2, 2), [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], False),
    ],
)
def test_the_task_loss_is_the_mean_over_labelled_samples_alone(task, shape, labels, squared):
    raw = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prediction, truth = raw.requires_grad_(), torch.tensor(labels, dtype=torch.float64)
    labelled = torch.tensor([True, False, True, False])
    per_sample = []
    for row, known in zip(prediction, truth, strict=True):
        if task.kind == "regression":
            per_sample.append((row - known).abs() ** (2 if squared else 1))
        else:
            pairs = [(row, known)] if task.kind == "classes" else list(zip(row, known, strict=True))
            per_sample.append(sum(-x.log_softmax(-1)[int(y)] for x, y in pairs) / len(pairs))
    assert torch.isclose(task.loss(prediction, truth, squared=squared), sum(per_sample) / 4)
    hidden = truth.clone()
    hidden[~labelled] = float("nan")  # an unlabelled sample's label must not be read
    loss = task.loss(prediction, hidden, labelled, squared=squared)
    assert torch.isclose(loss, (per_sample[0] + per_sample[2]) / 2)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient[labelled].any()
    assert not gradient[~labelled].any()
    nothing = task.loss(prediction, hidden, torch.zeros(4, dtype=torch.bool), squared=squared)
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, prediction)[0].any()
