"""Small random splits for the tests of methods."""

from dataclasses import replace

import torch
from torch import nn

from mmsa_lib.data.batch import MODALITIES, Batch, Utterances
from mmsa_lib.data.task import regression
from mmsa_lib.methods import create

DIMS = {"text": 6, "audio": 4, "vision": 3}
STEPS = {"text": 5, "audio": 7, "vision": 6}


def make_split(size=12, modalities=MODALITIES, task=None, seed=0, labels=None, tokens=False, aligned=False):
    """A split with ragged lengths, in all modalities the same if ``aligned``, and features of :data:`DIMS`."""
    task = task or regression()
    generator = torch.Generator().manual_seed(seed)
    features, valid = {}, {}
    for m in modalities:
        if aligned and valid:
            valid[m] = next(iter(valid.values()))
        else:
            length = torch.randint(1, STEPS[m] + 1, (size,), generator=generator)
            length[0] = STEPS[m]
            valid[m] = torch.arange(STEPS[m]) < length.unsqueeze(1)
        width = 0 if tokens and m == "text" else DIMS[m]
        features[m] = torch.randn(size, valid[m].shape[1], width, generator=generator) * valid[m].unsqueeze(-1)
    if labels is None and task.kind == "regression":
        labels = (torch.rand(size, generator=generator) * 2 - 1) * task.bound + task.center
    elif labels is None and task.kind == "classes":
        labels = torch.randint(0, len(task.names), (size,), generator=generator).float()
    elif labels is None:
        labels = torch.randint(0, 2, (size, len(task.names)), generator=generator).float()
    ids = None
    if tokens:
        ids = torch.randint(1, 50, valid["text"].shape, generator=generator) * valid["text"]
    data = Batch(
        features=features,
        valid=valid,
        observed=dict(valid),
        labels=labels,
        index=torch.arange(size),
        ids=tuple(f"s{i}" for i in range(size)),
        tokens=ids,
    )
    return Utterances(data=data, task=task, name="random", split="train")


def without_labels(train, rows):
    """The split with unknown labels of these rows."""
    labelled = torch.ones(len(train), dtype=torch.bool)
    labelled[rows] = False
    labels = train.labels.masked_fill(~labelled, float("nan"))
    return replace(train, data=replace(train.data, labels=labels, labelled=labelled))


def build(method_id, train, seed=0, phase=None, **config):
    """A method with seeded weights, ready for the first epoch of ``phase`` (by default the last one)."""
    torch.manual_seed(seed)
    method = create(method_id, train.dims, train.task, **config)
    for started in method.phases[: method.phases.index(phase) + 1 if phase else None]:
        method.start_phase(started, train)
    return method.train()


def train_epochs(method, train, epochs=1, size=3, optimizers=None):
    """The plain loop; returns the logs of the steps and those of the epochs."""
    optimizers = optimizers or method.optimizers()
    steps, ends = [], []
    for epoch in range(1, epochs + 1):
        method.train()
        method.start_epoch(epoch)
        steps += [method.training_step(batch, optimizers) for batch in train.batches(size)]
        ends.append(method.end_epoch(epoch, optimizers))
    return steps, ends


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    """Names of what differs from an earlier :func:`state`."""
    now = module.state_dict()
    assert now.keys() == before.keys()
    return {name for name, value in now.items() if not torch.equal(value, before[name])}


def reached(loss, method):
    """First parts of the names of the parameters that ``loss`` reaches."""
    method.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}


def pad(batch, frames=3, value=50.0):
    """The same batch with ``frames`` more steps of padding that hold garbage."""

    def longer(x, fill):
        return torch.cat([x, x.new_full((x.shape[0], frames, *x.shape[2:]), fill)], dim=1)

    return replace(
        batch,
        features={m: longer(x, value) for m, x in batch.features.items()},
        valid={m: longer(x, False) for m, x in batch.valid.items()},
        observed={m: longer(x, False) for m, x in batch.observed.items()},
    )


class TinyTextEncoder(nn.Module):
    """Stands in for a transformers model: an embedding of 50 ids."""

    width = 8

    def __init__(self, name="tiny"):
        super().__init__()
        self.embed = nn.Embedding(128, self.width)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, tokens, valid):
        return self.norm(self.embed(tokens)) * valid.unsqueeze(-1)
