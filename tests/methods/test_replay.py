import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.collaborative_mmcl import ReplayBuffer


def numbered(first, count):
    return {"state/text": torch.arange(first, first + count).float().unsqueeze(1).expand(-1, 3)}


def test_it_drops_its_older_half_before_it_is_full():
    """The size in the reference code swings between 567 and 992 for batches of 128 and a capacity of 1,000."""
    buffer, expected, sizes = ReplayBuffer(1000), [], []
    for batch in range(200):
        rows = list(range(128 * batch, 128 * (batch + 1)))
        if len(expected) + 128 >= 1000:
            expected = expected[len(expected) // 2 :]
        expected += rows
        buffer.store(numbered(rows[0], 128))
        assert buffer.rows["state/text"][:, 0].tolist() == expected
        sizes.append(len(buffer))
    assert (min(sizes[10:]), max(sizes)) == (567, 992)


def test_samples_are_different_rows():
    buffer = ReplayBuffer(50)
    buffer.store(numbered(0, 20) | {"reward": torch.arange(20).float()})
    torch.manual_seed(0)
    sample = buffer.sample(15)
    assert sample["reward"].unique().numel() == 15
    assert torch.equal(sample["state/text"][:, 0], sample["reward"])


def test_what_is_stored_has_no_graph():
    buffer = ReplayBuffer(9)
    buffer.store({"reward": torch.ones(3, requires_grad=True) * 2})
    assert not buffer.sample(2)["reward"].requires_grad


def test_a_state_can_be_put_back():
    buffer, other = ReplayBuffer(30), ReplayBuffer(30)
    for batch in range(4):
        buffer.store(numbered(8 * batch, 8))
    other.store(numbered(100, 8))
    other.rows = dict(buffer.rows)
    for b in (buffer, other):
        b.store(numbered(50, 8))
    assert torch.equal(buffer.rows["state/text"], other.rows["state/text"])
    other.clear()
    assert len(other) == 0


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="replay_capacity above 60"):
        ReplayBuffer(20).store(numbered(0, 30))
