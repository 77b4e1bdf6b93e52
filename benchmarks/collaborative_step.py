"""What a training step of collaborative_mmcl costs, relative to the same step written sample by sample.

"Sample by sample" is our re-enactment of how the published procedure spends its time, with the same networks and sizes
as our variant ``reference``: transitions enter and leave the replay buffer one by one, the gradient also runs through
the target networks, and the actor's step computes the gradients of the critic's weights too. (The published code itself
does not run as uploaded.) One process, the same batches and thread count for all, in turns. Prints median milliseconds
per step and ratios.

    python benchmarks/collaborative_step.py                                 # the code's 128 wide, 2048 inside
    python benchmarks/collaborative_step.py --set width=64 feedforward=256  # the sizes of this companion
    python benchmarks/collaborative_step.py --full                          # no padding at all
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import yaml
from step_timing import milliseconds_of, print_ratios
from torch import Tensor, nn
from torch.nn import functional as F

from mmsa_lib.data import load
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.methods import create
from mmsa_lib.methods.base import Method
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL, ReplayBuffer
from mmsa_lib.training import seed_everything

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {"decoupling": "reference"},
    "corrected": {},
    "corrected, no reward": {"no_rl": True},
    "corrected, no policy": {"no_policy": True},
}
SLOW = "sample by sample"


class ListBuffer(ReplayBuffer):
    """Transitions as a list of dictionaries, one per sample."""

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self.samples: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return len(self.samples)

    def store(self, rows: Mapping[str, Tensor]) -> None:
        count = len(next(iter(rows.values())))
        if len(self) + count >= self.capacity:
            self.samples = self.samples[len(self) // 2 :]
        for row in range(count):
            self.samples.append({name: values[row].detach().clone() for name, values in rows.items()})

    def sample(self, size: int) -> dict[str, Tensor]:
        chosen = random.sample(self.samples, size)
        return {name: torch.stack([row[name] for row in chosen]) for name in chosen[0]}


def slow_learn(self, size, optimizers):
    """The step of critic and actor with every gradient that nobody needs."""
    if not self.replay.can_sample(size):
        return {}
    config, policy, sampled = self.config, self.policy, self.replay.sample(size)
    names = ("state", "action", "valid", "next", "next_valid")
    state, action, valid, following, later = (self.unflatten(sampled, name) for name in names)
    policy.target.requires_grad_(True).train()
    future = policy.target["critic"](following, policy.target["gates"](following), later)
    target = sampled["reward"] + config.discount * future
    loss = config.weight_rl * F.l1_loss(policy.critic(state, action, valid), target)
    optimizers["critic"].zero_grad()
    loss.backward()
    optimizers["critic"].step()
    optimizers["actor"].zero_grad()
    (-config.weight_rl * policy.critic(state, policy.gates(state), valid).mean()).backward()
    optimizers["actor"].step()
    self.soft_update(policy.target, nn.ModuleDict({"gates": policy.gates, "critic": policy.critic}))
    return {}


def main() -> None:
    """Parse the command line, time all variants, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="every sample has 20 positions")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of collaborative_mmcl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in options.set)}
    train = training_samples(options)
    batches = [b.to(options.device) for b in train.batches(options.batch_size) if len(b) == options.batch_size]
    methods = build_all(train, settings, options.device)
    optimizers = {name: method.optimizers() for name, method in methods.items()}
    milliseconds: dict[str, list[float]] = {name: [] for name in methods}
    for step in range(options.rounds + 3):
        for name, method in methods.items():
            batch = batches[step % len(batches)]
            taken = milliseconds_of(partial(method.training_step, batch, optimizers[name]), options.device)
            if step >= 3:  # until then the replay buffers are not full enough to learn from
                milliseconds[name].append(taken)
    report(milliseconds, methods, batches[0], options)


def training_samples(options: argparse.Namespace) -> Utterances:
    """Synthetic emotions (4 x 2 logits) in the widths of IEMOCAP: 300, 74, 35, up to 20 words."""
    train = load("synthetic", task="emotions", samples=(4 * options.batch_size, 10, 10))["train"]
    if not options.full:
        return train
    everywhere = {m: torch.ones_like(v) for m, v in train.data.valid.items()}
    return replace(train, data=replace(train.data, valid=everywhere, observed=everywhere))


def build_all(train: Utterances, settings: dict[str, Any], device: str) -> dict[str, Method]:
    """The slow re-enactment and all variants."""
    methods: dict[str, Method] = {}
    for name, switches in {SLOW: {"decoupling": "reference"}, **VARIANTS}.items():
        seed_everything(0)
        methods[name] = create("collaborative_mmcl", train.dims, train.task, **{**settings, **switches})
        methods[name].to(device).train().start_phase("train", train)
    slow = methods[SLOW]
    assert isinstance(slow, CollaborativeMMCL)
    slow.replay = ListBuffer(slow.config.replay_capacity)
    slow.learn = slow_learn.__get__(slow)
    return methods


def report(
    milliseconds: dict[str, list[float]], methods: dict[str, Method], batch: Batch, options: argparse.Namespace
) -> None:
    """Print one line per variant."""
    valid = batch.valid["text"].float().mean().item()
    print(
        f"batch {len(batch)}, {batch.valid['text'].shape[1]} positions ({valid:.0%} valid), 3 modalities; "
        f"{options.device}, {options.threads} thread(s), median of {options.rounds} steps, "
        f"settings {' '.join(options.set) or 'of the code: width=128 feedforward=2048'}"
    )
    print_ratios(milliseconds, methods, SLOW)


if __name__ == "__main__":
    main()
