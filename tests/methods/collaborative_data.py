"""What the tests of collaborative_mmcl share."""

from method_data import build, train_epochs
from torch import nn

from mmsa_lib.data.task import emotions

SMALL = {"width": 8, "heads": 2, "feedforward": 16, "replay_capacity": 100, "batch_size": 4}
EMOTIONS = emotions(("neutral", "happy", "sad", "angry"))


def small(train, **config):
    return build("collaborative_mmcl", train, **{**SMALL, **config})


def after_training(train, epochs=4, size=4, **config):
    """A trained method and the logs of its steps."""
    method = small(train, **config)
    return method, train_epochs(method, train, epochs=epochs, size=size)[0]


def online(method):
    return nn.ModuleDict({"gates": method.policy.gates, "critic": method.policy.critic})


def owners(method):
    """Identities of the parameters of each optimiser."""
    return {name: {id(p) for g in o.param_groups for p in g["params"]} for name, o in method.optimizers().items()}


def own(module):
    return {id(p) for p in module.parameters()}
