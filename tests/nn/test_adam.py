import subprocess
import sys

import pytest
import torch

from mmsa_lib.nn.adam import Adam

STEP = """
import sys, torch
from mmsa_lib.nn.adam import Adam
weight = torch.nn.Parameter(torch.ones(3))
optimizer = Adam([{"params": [weight], "weight_decay": 0.1}], fused=True)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
optimizer.zero_grad(set_to_none=True)
weight.sum().backward()
optimizer.step()
scheduler.step(1.0)
optimizer.load_state_dict(optimizer.state_dict())
assert not weight.grad.requires_grad and "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize("fused", [False, True])
def test_every_step_is_that_of_torch(fused):
    torch.manual_seed(0)
    start, gradients = torch.randn(5, 3), torch.randn(6, 5, 3)
    results = []
    for kind in (torch.optim.Adam, Adam, torch.optim.Adam, Adam):  # whichever was used first
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([{"params": [weight], "lr": 0.05, "weight_decay": 0.1}], fused=fused)
        for number, gradient in enumerate(gradients):
            if number == 3:  # goes on from a state that was saved
                state = optimizer.state_dict()
                optimizer = kind([weight], fused=fused)
                optimizer.load_state_dict(state)
            weight.grad = gradient.clone()
            optimizer.step()
        results.append(weight.detach())
    assert all(torch.equal(result, results[0]) for result in results)


def test_it_does_not_load_the_compiler():
    subprocess.run([sys.executable, "-c", STEP], check=True, timeout=600)
