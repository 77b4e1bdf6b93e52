"""``collaborative_mmcl``: decoupling by cross-modal similarity, and policies that gate what is specific.

Source: Wang, Liu, Liu, "Multi-Modality Collaborative Learning for Sentiment Analysis", arXiv 2501.12424,
**withdrawn** by its authors, who call its decoupling flawed. The paper's text and tables were not accessible; the
abstract [A] and the code for IEMOCAP (smwanghhh/MMCL, e096810 [C]) were. That code has defects, numbered D1 to D17 here
and listed in notebook 03. ``decoupling="reference"`` keeps those that change the result, ``"corrected"`` repairs them
[R].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import Output, finite_log
from mmsa_lib.methods.collaborative_mmcl_config import CollaborativeMMCLConfig
from mmsa_lib.methods.collaborative_model import CollaborativeModel
from mmsa_lib.methods.collaborative_policy import PerModality, columns
from mmsa_lib.methods.plateau import Plateaus
from mmsa_lib.methods.rewards import joint_reward
from mmsa_lib.nn.decoupling import check_aligned, decouple
from mmsa_lib.nn.heads import to_label_scale

__all__ = ["CollaborativeMMCL", "CollaborativeMMCLConfig", "decouple", "joint_reward"]


class CollaborativeMMCL(CollaborativeModel):
    """The players of :class:`CollaborativeModel` in training: task, critic and gates take turns."""

    id = "collaborative_mmcl"

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: CollaborativeMMCLConfig):
        super().__init__(dims, task, config)
        self._carried: dict[str, Tensor] = {}
        self._plateaus = self._new_plateaus()

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Check that the training samples are word-aligned sequences, note the longest of them, forget the past.

        Raises:
            ConfigError: they are not; names the modality or the sample.
        """
        valid = {m: train.data.valid[m] for m in self.modalities}
        for m, mask in valid.items():
            if int(mask.sum(1).max()) < 2:
                raise ConfigError(
                    f"{self.id} needs a sequence in every modality; {m} of {train.name or 'this data'} "
                    f"({train.feature_names.get(m, 'its features')}) has one position per sample; load word-level "
                    f"features, or leave it out ({m}=None)"
                )
        if self.config.unaligned == "refuse":
            check_aligned(valid, train.ids)
        longest = max(mask.shape[1] for mask in valid.values())
        self.steps.fill_(min(longest, self.config.longest or longest))
        self._carried = {}
        self._plateaus = self._new_plateaus()
        if self.policy is not None:
            self.policy.forget()

    def loss_weights(self) -> dict[str, float]:
        """``weight_task``; actor and critic learn from experience, not from a term of the batch's loss."""
        return {"task": self.config.weight_task}

    def optimizers(self) -> dict[str, Optimizer]:
        """``task``, and with a critic ``actor`` and ``critic``.

        corrected: ``task`` trains everything but the critic, gates included; ``actor`` moves the gates by the reward,
        with moments of its own. reference: ``task`` is the model alone; one Adam, ``actor``, steps gates and predictor
        by the task loss and the gates by the reward in turn (defect D13).
        """
        model = [*self.project.parameters(), *self.attend.parameters()]
        gates = [] if self.policy is None else list(self.policy.gates.parameters())
        predictor = list(self.predictor.parameters())
        plain = {"lr": self.config.learning_rate, "weight_decay": self.config.weight_decay}
        task = model if self._one_actor else [*model, *gates, *predictor]
        made = {"task": Adam([*self.text_parameter_groups(), {"params": task, **plain, "name": "rest"}], fused=True)}
        if self._one_actor:
            made["actor"] = Adam([*gates, *predictor], **plain, fused=True)
        elif self.config.learns_from_reward:
            made["actor"] = Adam(gates, **plain, fused=True)
        if self.config.learns_from_reward:
            made["critic"] = Adam(self.policy.critic.parameters(), **plain, fused=True)
        return made

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """One task step; then one step of critic and gates (before it, where states form a chain).

        Returns:
            ``raw/…`` and ``loss/…`` of task, critic and actor (``loss/total`` is the task's alone), and the means of
            rewards (``policy/reward``) and gates (``policy/gate``).

        Raises:
            RunError: a term is not finite; names it.
        """
        config, log = self.config, {}
        views = self.views(batch)
        state = views.specific
        if self._chained:
            state = self._carried_state(state)
            log |= self._close_transition(state, views.valid, optimizers)
        output, embedded = self.respond(views, state, config.exploration)
        terms = {"task": self.task.loss(output.prediction, batch.labels)}
        log |= finite_log(terms, self.weigh(terms))
        # The reward is that of the prediction which was made, so it comes before the weights move.
        reward = self._reward(output, embedded, batch.labels) if config.learns_from_reward else None
        self._task_step(config.weight_task * terms["task"], optimizers)
        actions = {m: output.auxiliary[f"gates/{m}"].detach() for m in self.modalities}
        log["policy/gate"] = _mean_over_valid(actions, views.valid)
        if reward is None:
            return log
        log["policy/reward"] = reward.mean().item()
        experience = self._experience(state, actions, views.valid) | {"reward": reward}
        if self._chained:
            self._carried = experience
            return log
        self.policy.remember(experience)
        return log | self._learn(len(batch), optimizers)

    def _task_step(self, loss: Tensor, optimizers: Mapping[str, Optimizer]) -> None:
        trained = [optimizers["task"]] + ([optimizers["actor"]] if self._one_actor else [])
        for optimizer in trained:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in trained:
            optimizer.step()

    @torch.no_grad()
    def _reward(self, output: Output, embedded: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """``(B, 1)`` of the training prediction, or one per modality: ``(B, M)``, see :meth:`Predictor.alone`."""
        form = {"variant": self.config.decision_process, "form": self.config.reward_form}
        if self.config.reward == "joint":
            return joint_reward(output.prediction.float(), labels, self.task, **form).unsqueeze(1)
        rewards = []
        self.predictor.eval()  # no dropout, and the running statistics stay those of whole predictions
        for m in self.modalities:
            raw = self.predictor(self.predictor.alone(m, embedded))
            rewards.append(joint_reward(to_label_scale(self.task, raw).float(), labels, self.task, **form))
        self.predictor.train()
        return torch.stack(rewards, dim=1)

    def _experience(self, state: PerModality, actions: PerModality, valid: PerModality) -> dict[str, Tensor]:
        steps = int(self.steps)
        return columns("state", state, steps) | columns("action", actions, steps) | columns("valid", valid, steps)

    def _learn(self, size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        return self.policy.learn(size, optimizers) if self.policy.ready(size) else {}

    # --- states that form a chain: the reference's decision process, or any with a future ---

    @property
    def _one_actor(self) -> bool:
        """Whether one Adam has gates and predictor, as in the code."""
        return self.config.decision_process == "reference" and self.policy is not None

    @property
    def _chained(self) -> bool:
        """Whether a step needs the batch before it: for its gates (D6), or because it is the next state (D8)."""
        config = self.config
        return config.learns_from_reward and (config.decision_process == "reference" or config.discount > 0)

    def _carried_state(self, specific: dict[str, Tensor]) -> dict[str, Tensor]:
        """``reference``: gated by the actions of the batch before, row by row, and detached; else as it is.

        Rows and positions without a counterpart (in the first batch, or a larger one) stay ungated.
        """
        if self.config.decision_process == "corrected":
            return specific
        state = {m: x.detach() for m, x in specific.items()}
        if self._carried:
            state = {m: x * _resized(self._carried[f"action/{m}"], x).unsqueeze(-1) for m, x in state.items()}
        return state

    def _close_transition(
        self, state: PerModality, valid: PerModality, optimizers: Mapping[str, Optimizer]
    ) -> dict[str, float]:
        """This batch is the next state of the one before it: store that, and learn."""
        if not self._carried:
            return {}
        following = columns("next", state, int(self.steps)) | columns("next_valid", valid, int(self.steps))
        transition = self._carried | following
        rows = min(map(len, transition.values()))
        self.policy.remember({name: x[:rows] for name, x in transition.items()})
        return self._learn(rows, optimizers)

    # --- between epochs ---

    def end_validation(self, value: float, optimizers: Mapping[str, Optimizer]) -> None:
        """Lower the learning rates where the validation loss stands still [C]."""
        self._plateaus.step(value, optimizers)

    def training_state(self) -> dict[str, Tensor]:
        """The buffer, the batch before, and the schedulers."""
        replay = {} if self.policy is None else self.policy.buffer.state()
        parts = {"replay": replay, "carried": self._carried, "plateau": self._plateaus.state()}
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back."""
        parts: dict[str, dict[str, Tensor]] = {"replay": {}, "carried": {}, "plateau": {}}
        for key, value in state.items():
            part, _, name = key.partition("/")
            parts[part][name] = value if part == "plateau" else value.to(self.steps.device)
        if self.policy is not None:
            self.policy.buffer.load(parts["replay"])
        self._carried = parts["carried"]
        self._plateaus.load(parts["plateau"])

    def _new_plateaus(self) -> Plateaus:
        config = self.config
        patience = {"actor": config.plateau_patience_rl, "critic": config.plateau_patience_rl}
        return Plateaus(config.plateau_factor, {"task": config.plateau_patience_task, **patience})


def _resized(actions: Tensor, like: Tensor) -> Tensor:
    """Actions ``(b, t)`` in the shape ``(B, T)`` of ``like``; what is new is 1."""
    resized = actions.new_ones(like.shape[:2])
    rows, steps = min(len(actions), len(like)), min(actions.shape[1], like.shape[1])
    resized[:rows, :steps] = actions[:rows, :steps]
    return resized


def _mean_over_valid(actions: PerModality, valid: PerModality) -> float:
    chosen = [actions[m][valid[m]] for m in actions]
    return torch.cat(chosen).float().mean().item()
