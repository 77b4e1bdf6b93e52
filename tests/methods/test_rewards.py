"""The joint reward of collaborative_mmcl: as intended, as the code has it, and for sentiment."""

import math

import pytest
import torch

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.methods.collaborative_mmcl import joint_reward

TASK = emotions(("neutral", "happy", "sad", "angry"))


@pytest.fixture
def logits():
    return torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.randint(0, 2, (8, 4), generator=torch.Generator().manual_seed(1)).double()


def probability(logits, i, k, answer):
    a, b = logits[i, k].tolist()
    return math.exp((a, b)[answer]) / (math.exp(a) + math.exp(b))


def test_corrected_is_the_mean_probability_of_the_true_answers(logits, labels):
    expected = [sum(probability(logits, i, k, int(labels[i, k])) for k in range(4)) / 4 for i in range(8)]
    assert joint_reward(logits, labels, TASK).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_classes_are_rewarded_by_the_probability_of_the_true_one(logits, variant):
    answers = torch.arange(8) % 4
    rewards = joint_reward(logits[..., 0], answers.float(), classes("abcd"), variant=variant)
    for row, answer, reward in zip(logits[..., 0].tolist(), answers.tolist(), rewards.tolist(), strict=True):
        assert reward == pytest.approx(math.exp(row[answer]) / sum(map(math.exp, row)))


def test_reference_reads_another_sample(logits, labels):
    """Row i of the labels meets flattened row i: sample i // 4, emotion i % 4."""
    expected = [sum(probability(logits, i // 4, i % 4, int(labels[i, k])) for k in range(4)) for i in range(8)]
    assert joint_reward(logits, labels, TASK, variant="reference").tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("variant", "touched"), [("corrected", 5), ("reference", 1)])
def test_which_sample_a_reward_depends_on(logits, labels, variant, touched):
    logits.requires_grad_()
    joint_reward(logits, labels, TASK, variant=variant)[5].backward()
    assert logits.grad.abs().sum((1, 2)).nonzero().flatten().tolist() == [touched]


def test_the_reference_reward_says_nothing_about_its_own_sample():
    generator = torch.Generator().manual_seed(2)
    correlations = []
    for _ in range(50):
        logits = torch.randn(128, 4, 2, generator=generator)
        labels = torch.randint(0, 2, (128, 4), generator=generator).float()
        both = [joint_reward(logits, labels, TASK, variant=v) for v in ("reference", "corrected")]
        correlations.append(torch.corrcoef(torch.stack(both))[0, 1].item())
    assert abs(sum(correlations) / 50) < 0.05


@pytest.mark.parametrize("task", [regression(), regression((1, 5))])
@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_sentiment(task, variant):
    labels = torch.tensor([task.range[0], task.center, task.range[1]], dtype=torch.float64)
    prediction = labels + torch.tensor([0.5, 20.0, -1.0])
    width = task.range[1] - task.range[0]
    expected = [1 - 0.5 / width, 0.0, 1 - 1 / width]
    assert joint_reward(prediction, labels, task, variant=variant).tolist() == pytest.approx(expected)
    exponential = joint_reward(prediction, labels, task, variant=variant, form="exponential").tolist()
    assert exponential == pytest.approx([math.exp(-0.5), math.exp(-20), math.exp(-1)])
