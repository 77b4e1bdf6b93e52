"""``collaborative_mmcl`` as its published code has it [C: smwanghhh/MMCL, e096810]: these classes are the defects.

Each override names its defect in docs/methods/collaborative_mmcl.md. Two variants of the method are independent of each
other, ``decoupling`` and ``rl``, so each has a class; :func:`class_for` says which one settings ask for.

===  ====================================================================  ===========================================
D1   the first step fails: a counter is never defined                      repaired everywhere
D2   the reward of a sample is read from another sample's logits           :meth:`ReferenceProcess.reward`
D3   specific weights are nearly uniform                                   ``decouple(variant="reference")``
D4   so are the common ones                                                ``decouple(variant="reference")``
D5   padding takes part                                                    :meth:`ReferenceDecoupling.sequences`
D6   a state is gated by the actions for other samples                     :meth:`ReferenceProcess.state`
D7   states of evaluation are not gated                                    :meth:`ReferenceProcess.state`
D8   the next state of a sample is another sample                          :meth:`Chained.training_step`
D9   the best epoch is selected on the test set                            repaired everywhere: validation loss
D10  targets start elsewhere, with dropout and statistics of their own     :class:`ReferenceProcess`, three overrides
D11  the target is not detached                                            repaired everywhere; changes no number
D12  factors of losses that are stepped apart do nothing under Adam        ``weight_task``, ``weight_rl``
D13  one Adam has gates and predictor, and steps for task and reward       :meth:`ReferenceProcess.players`
D14  stored states are those of an older encoder; ``add()`` is dead code   ``replay="buffer"``, see ``"batch"``
===  ====================================================================  ===========================================

D15 to D17 (seed parser, an argument that PyTorch dropped, robustness) are repaired everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.methods.collaborative_mmcl import (
    Actor,
    CollaborativeMMCL,
    CollaborativeMMCLConfig,
    Critic,
    Decoupled,
    PerModality,
    _under,
    joint_reward,
    pad_steps,
)


class ReferenceDecoupling(CollaborativeMMCL):
    """``decoupling="reference"``: D3 and D4 are in its formulas, D5 in what they read."""

    def sequences(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """D5: padding takes part in similarity, attention and means.

        So its amount has to be fixed: every sequence has the length of the longest training sample, as in the code's
        data.
        """
        features, valid = super().sequences(batch)
        features = {m: pad_steps(x, int(self.steps)) for m, x in features.items()}
        return features, {m: torch.ones_like(pad_steps(mask, int(self.steps))) for m, mask in valid.items()}


class Chained(CollaborativeMMCL):
    """States form a chain: ``gamma > 0``, also without any other defect.

    A batch can be stored only once its next state is there, so critic and actor step at the start of the next batch.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.carried: dict[str, Tensor] = {}
        if self.config.discount > 0 and self.config.learns_from_reward:
            self.policy.target = self.new_target().requires_grad_(False)

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """D8: row i of this batch is the next state of row i of the batch before, which is another sample."""
        if not self.config.learns_from_reward:
            return super().training_step(batch, optimizers)
        parts = self.decouple(batch)
        state, log = self.state(parts), {}
        if self.carried:
            transition = self.carried | self.flatten(next=state, next_valid=parts.valid)
            rows = min(map(len, transition.values()))
            log = self.practise({name: x[:rows] for name, x in transition.items()}, optimizers)
        self.carried, of_task = self.task_step(batch, parts, state, optimizers)
        return log | of_task

    def state(self, parts: Decoupled) -> dict[str, Tensor]:
        """What the policies read, ``(B, T, d)`` per modality: the specific parts."""
        return parts.specific

    def targets(self, sampled: PerModality) -> Tensor:
        """``r + gamma Q'(s', mu'(s'))``, without a terminal state."""
        target = self.policy.target
        if target is None:
            return super().targets(sampled)
        state, valid = self.unflatten(sampled, "next"), self.unflatten(sampled, "next_valid")
        target.train(self.trains_target)
        with torch.no_grad():
            return sampled["reward"] + self.config.discount * target["critic"](state, target["gates"](state), valid)

    trains_target = False

    def learn(self, size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Critic and actor; then the targets follow them."""
        log = super().learn(size, optimizers)
        if log and self.policy.target is not None:
            self.soft_update(self.policy.target, self._online())
        return log

    @torch.no_grad()
    def soft_update(self, target: nn.Module, online: nn.Module) -> None:
        """Move the targets by ``tau`` towards the online networks, running statistics too."""
        rate = self.config.target_rate
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)
        for mine, theirs in zip(target.buffers(), online.buffers(), strict=True):
            mine.lerp_(theirs, rate) if mine.is_floating_point() else mine.copy_(theirs)

    def new_target(self) -> nn.ModuleDict:
        """Target networks ``gates`` and ``critic``: copies of the online ones."""
        return deepcopy(self._online())

    def _online(self) -> nn.ModuleDict:
        return nn.ModuleDict({"gates": self.policy.gates, "critic": self.policy.critic})

    def start_phase(self, phase: str, train: Utterances) -> None:
        """As without a chain; the batch before is forgotten too."""
        super().start_phase(phase, train)
        self.carried = {}

    def training_state(self) -> dict[str, Tensor]:
        """Also the batch before."""
        return super().training_state() | {f"carried/{name}": x for name, x in self.carried.items()}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back."""
        super().load_training_state(state)
        self.carried = {name: x.to(self.steps.device) for name, x in _under("carried", state).items()}


class ReferenceProcess(Chained):
    """``rl="reference"``: the decision process of the code, by default with ``gamma = .5``."""

    def reward(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """D2: of emotions, ``gather`` on flattened logits, so that row i reads sample i // K."""
        form = self.config.reward_form
        return joint_reward(prediction.float(), labels, self.task, variant="reference", form=form)

    def state(self, parts: Decoupled) -> dict[str, Tensor]:
        """D6: gated by the actions for the batch before, row by row, and detached. D7: in evaluation nothing is.

        Rows and positions without a counterpart (in the first batch, or a larger one) stay ungated.
        """
        state = {m: x.detach() for m, x in parts.specific.items()}
        if not self.carried:
            return state
        gated = {}
        for m, x in state.items():
            before = self.carried[f"action/{m}"]
            factor = before.new_ones(x.shape[:2])  # (B, T)
            rows, steps = min(len(before), len(x)), min(before.shape[1], x.shape[1])
            factor[:rows, :steps] = before[:rows, :steps]
            gated[m] = x * factor.unsqueeze(-1)
        return gated

    def new_target(self) -> nn.ModuleDict:
        """D10: networks of their own start, which are no copies."""
        networks = {"gates": Actor, "critic": Critic}
        return nn.ModuleDict({name: made(self.modalities, self.config) for name, made in networks.items()})

    trains_target = True
    """D10: the targets are never in evaluation mode: they have dropout, and batch statistics of their own."""

    @torch.no_grad()
    def soft_update(self, target: nn.Module, online: nn.Module) -> None:
        """D10: parameters follow, running statistics don't."""
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), self.config.target_rate)

    def players(self) -> dict[str, list[nn.Module]]:
        """D13: ``actor`` has gates and predictor; it steps both by the task, and the gates by the reward, in turn."""
        players = super().players()
        if self.policy is not None:
            players = {"task": [self.project, self.attend], "actor": [self.policy.gates, self.predictor]} | {
                name: modules for name, modules in players.items() if name == "critic"
            }
        return players

    task_players = ("task", "actor")
    """D13: the task steps both."""


class Reference(ReferenceDecoupling, ReferenceProcess):
    """The code with all of its defects: ``decoupling="reference"`` alone."""


class ChainedReferenceDecoupling(ReferenceDecoupling, Chained):
    """``decoupling="reference", rl="corrected", gamma > 0``."""


def class_for(config: CollaborativeMMCLConfig) -> type[CollaborativeMMCL]:
    """The class that does what ``config`` says."""
    decoupling = config.decoupling == "reference"
    if config.decision_process == "reference":
        return Reference if decoupling else ReferenceProcess
    if config.discount > 0:
        return ChainedReferenceDecoupling if decoupling else Chained
    return ReferenceDecoupling if decoupling else CollaborativeMMCL
