"""A prediction is a sample's own: no padding, no other sample and no order changes it, whatever the sample lacks."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_data import DIMS, build, make_split, pad

from mmsa_lib.data.task import classes, emotions
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import METHODS

ALIGNED = {"collaborative_mmcl"}  # expects words, one frame of each modality per word
TASKS = {"sentiment": None, "classes": classes(["a", "b", "c"]), "emotions": emotions(["joy", "fear"])}


@functools.cache
def prepared(method_id, task):
    """A split with ragged lengths, and the method in eval mode; ``None`` where the method has no such task."""
    split = make_split(size=10, task=TASKS[task], seed=4, aligned=method_id in ALIGNED)
    try:
        return split, build(method_id, split).eval()
    except ConfigError:
        return split, None


@st.composite
def gaps(draw, split):
    """The split with frames missing here and there and whole modalities of some samples, each keeping something."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    keep, rate = {}, draw(st.sampled_from([0.0, 0.3, 0.9]))
    present = torch.rand(len(split), len(DIMS), generator=generator) < draw(st.sampled_from([0.5, 1.0]))
    present[torch.arange(len(split)), torch.randint(0, len(DIMS), (len(split),), generator=generator)] = True
    for column, m in enumerate(split.modalities):
        frames = torch.rand(split.data.valid[m].shape, generator=generator) >= rate
        keep[m] = frames & present[:, column, None]
    return split.hide(keep).data


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method_id", sorted(METHODS))
@settings(max_examples=8)
@given(data=st.data())
def test_a_prediction_is_the_same_alone_among_others_and_padded(method_id, task, data):
    split, method = prepared(method_id, task)
    if method is None:
        return
    batch = data.draw(gaps(split))
    rows = data.draw(st.lists(st.integers(0, len(split) - 1), min_size=1, max_size=6))
    frames, garbage = data.draw(st.integers(0, 6)), data.draw(st.sampled_from([0.0, 50.0, -1e4]))
    among = batch.select(torch.tensor(rows))
    with torch.inference_mode():
        together = method(pad(among, frames, garbage) if frames else among).prediction
        alone = [method(batch.select(torch.tensor([row]))).prediction[0] for row in rows]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert together.isfinite().all()
