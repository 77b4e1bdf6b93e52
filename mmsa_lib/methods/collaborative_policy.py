"""Policies and their critic: the deterministic actor-critic of ``collaborative_mmcl`` [C], its defects apart [R]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mmsa_lib.errors import RunError
from mmsa_lib.methods.collaborative_mmcl_config import CollaborativeMMCLConfig
from mmsa_lib.methods.collaborative_networks import Critic
from mmsa_lib.methods.replay import ReplayBuffer

PerModality = Mapping[str, Tensor]


class Gates(nn.Module):
    """One deterministic policy per modality: an action in (0, 1) for each position, ``sigmoid(w s + b)`` [C]."""

    def __init__(self, modalities: Sequence[str], width: int):
        super().__init__()
        self.score = nn.ModuleDict({m: nn.Linear(width, 1) for m in modalities})

    def forward(self, state: PerModality, noise: float = 0.0) -> dict[str, Tensor]:
        """States ``(B, T, d)`` to actions ``(B, T)``; ``noise``: deviation of noise before the sigmoid."""
        actions = {}
        for m, sequence in state.items():
            score = self.score[m](sequence).squeeze(-1)
            actions[m] = (score + noise * torch.randn_like(score) if noise else score).sigmoid()
        return actions


class ActorCritic(nn.Module):
    """Gates, their critic, the targets of both where the future counts, and what was experienced.

    Args:
        modalities: their names, in order.
        config: the method's values.
    """

    def __init__(self, modalities: Sequence[str], config: CollaborativeMMCLConfig):
        super().__init__()
        self.modalities, self.config = tuple(modalities), config
        self.gates = Gates(modalities, config.width)
        self.critic: Critic | None = None
        self.target: nn.ModuleDict | None = None
        if config.learns_from_reward:
            self.critic = self._new_critic()
        if self.critic is not None and config.discount > 0:
            self.target = self._new_target()
        self.forget()

    def forget(self) -> None:
        """Empty the buffer."""
        self.buffer = ReplayBuffer(self.config.replay_capacity)

    def remember(self, experience: Mapping[str, Tensor]) -> None:
        """Store one batch: :func:`columns` of state, action and valid (and next, next_valid), and the reward.

        With ``replay="batch"`` only this batch is kept.
        """
        if self.config.replay == "batch":
            self.buffer = ReplayBuffer(len(experience["reward"]) + 1)
        self.buffer.add({name: x if x.dtype == torch.bool else x.float() for name, x in experience.items()})

    def ready(self, size: int) -> bool:
        """Whether there is enough experience for a step of ``size`` samples."""
        return len(self.buffer) >= size if self.config.replay == "batch" else len(self.buffer) > size

    def learn(self, size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        r"""One step of the critic, one of the gates, one of the targets.

        Critic: :math:`w_2\,\mathbb E|Q(s,a)-(r+\gamma Q'(s',\mu'(s')))|`. Gates: :math:`-w_2\,\mathbb EQ(s,\mu(s))`,
        whose gradient reaches nothing but the gates.

        Returns:
            Both losses, raw and weighted.

        Raises:
            RunError: one of them is not finite.
        """
        sampled = self.buffer.sample(size)
        state, action, valid = (self._column(sampled, name) for name in ("state", "action", "valid"))
        aim = sampled["reward"]
        if self.target is not None:
            aim = aim + self.config.discount * self._future(sampled)
        critic_loss = F.l1_loss(self.critic(state, action, valid), aim)
        optimizers["critic"].zero_grad(set_to_none=True)
        (self.config.weight_rl * _finite("critic", critic_loss)).backward()
        optimizers["critic"].step()

        actor_loss = -self.critic(state, self.gates(state), valid).mean()
        parameters = list(self.gates.parameters())
        gradients = torch.autograd.grad(self.config.weight_rl * _finite("actor", actor_loss), parameters)
        optimizers["actor"].zero_grad(set_to_none=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizers["actor"].step()
        self._follow()
        raw = {"critic": critic_loss.item(), "actor": actor_loss.item()}
        weighted = {f"loss/{name}": self.config.weight_rl * value for name, value in raw.items()}
        return {f"raw/{name}": value for name, value in raw.items()} | weighted

    def _future(self, sampled: Mapping[str, Tensor]) -> Tensor:
        state, valid = self._column(sampled, "next"), self._column(sampled, "next_valid")
        # The code never switches its targets to evaluation mode (defect D10).
        self.target.train(self.config.decision_process == "reference")
        with torch.no_grad():
            return self.target["critic"](state, self.target["gates"](state), valid)

    def _follow(self) -> None:
        """Move the targets a little towards the online networks."""
        if self.target is None:
            return
        online = nn.ModuleDict({"gates": self.gates, "critic": self.critic})
        rate = self.config.target_rate
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(online.parameters()), rate)
            if self.config.decision_process == "corrected":
                for mine, theirs in zip(self.target.buffers(), online.buffers(), strict=True):
                    mine.lerp_(theirs, rate) if mine.is_floating_point() else mine.copy_(theirs)

    def _new_critic(self) -> Critic:
        c = self.config
        return Critic(self.modalities, c.width, c.heads, c.feedforward, c.dropout, joint=c.reward == "joint")

    def _new_target(self) -> nn.ModuleDict:
        """Copies of the online networks; in ``reference`` networks of their own start (defect D10)."""
        if self.config.decision_process == "reference":
            copies = {"gates": Gates(self.modalities, self.config.width), "critic": self._new_critic()}
        else:
            copies = {"gates": deepcopy(self.gates), "critic": deepcopy(self.critic)}
        return nn.ModuleDict(copies).requires_grad_(False)

    def _column(self, sampled: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
        return {m: sampled[f"{name}/{m}"] for m in self.modalities}


def columns(name: str, values: PerModality, steps: int) -> dict[str, Tensor]:
    """Tensors ``(B, T, …)`` per modality as columns of a buffer: detached, padded to ``steps`` positions."""
    return {f"{name}/{m}": pad_steps(x.detach(), steps) for m, x in values.items()}


def pad_steps(x: Tensor, steps: int) -> Tensor:
    """``(B, T, …)`` to ``(B, max(T, steps), …)``, with zeros at the end."""
    missing = max(0, steps - x.shape[1])
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x


def _finite(name: str, loss: Tensor) -> Tensor:
    if not loss.isfinite():
        raise RunError(f"loss term {name} is {loss.item()}; lower the learning rate or look at the input features")
    return loss
