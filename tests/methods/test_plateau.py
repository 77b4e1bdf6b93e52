import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmsa_lib.methods.collaborative_mmcl import Plateaus

LOSSES = [1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.8, 0.85, 0.9, 0.9, 0.9]


def optimizers():
    return {name: torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1) for name in ("task", "critic")}


def rate(optimizer):
    return optimizer.param_groups[0]["lr"]


def test_each_optimiser_has_its_own_patience():
    own, plain = optimizers(), optimizers()
    plateaus = Plateaus(0.5, {"task": 4, "critic": 1})
    expected = {name: ReduceLROnPlateau(plain[name], factor=0.5, patience=p) for name, p in plateaus.patience.items()}
    for loss in LOSSES:
        plateaus.step(loss, own)
        for scheduler in expected.values():
            scheduler.step(loss)
        assert {name: rate(o) for name, o in own.items()} == {name: rate(o) for name, o in plain.items()}
    assert rate(own["critic"]) < rate(own["task"])


def test_a_state_can_be_put_back():
    straight, resumed = optimizers(), optimizers()
    first, second = (Plateaus(0.5, {"task": 2, "critic": 1}) for _ in range(2))
    for loss in LOSSES[:5]:
        first.step(loss, straight)
    second.load(first.state())
    for name, optimizer in resumed.items():
        optimizer.load_state_dict(straight[name].state_dict())
    for loss in LOSSES[5:]:
        first.step(loss, straight)
        second.step(loss, resumed)
        assert [rate(o) for o in straight.values()] == [rate(o) for o in resumed.values()]
