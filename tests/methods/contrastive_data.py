"""What the tests of contrastive_mmcl share."""

import torch
from method_data import build

SMALL = {
    "width": 8, "heads": 2, "feedforward": 16, "capsules": 3, "capsule_dim": 4, "layers_specific": 1, "dropout": 0.0,
}  # fmt: skip
STAGES = ("specific", "shared")


def small(train, **config):
    return build("contrastive_mmcl", train, **{**SMALL, **config})


def terms_of(train, **config):
    """A method in training mode and the raw terms of its first step."""
    method = small(train, **config)
    return method, method.losses(train.data, method(train.data)).raw


def reached(method, loss):
    """First parts of the names of the parameters that ``loss`` reaches."""
    method.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}


def normalised_capsules(method, train, stage):
    """What a module contrasts, step by step from the states."""
    output = method(train.data)
    vectors = {}
    for m in train.modalities:
        capsules = method.routing[stage](output.auxiliary[f"states/{m}/{stage}"], train.data.valid[m])
        rows = capsules.detach().double().reshape(len(train), -1)
        vectors[m] = rows / rows.norm(dim=1, keepdim=True)
    return vectors


def changed(method, before):
    return {name.split(".")[0] for name, x in method.state_dict().items() if not torch.equal(x, before[name])}
