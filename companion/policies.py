"""What the policies of ``collaborative_mmcl`` see and are rewarded for, in training and in evaluation."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL, Variant, joint_reward
from mmsa_lib.nn.sequence import masked_mean


def reward_dependence(prediction: Tensor, labels: Tensor, task: Task, variant: Variant) -> Tensor:
    """Whose logits the reward of each sample depends on.

    Args:
        prediction: ``(B, K, 2)`` logits, or ``(B,)`` sentiment.
        labels: ``(B, K)`` or ``(B,)``.
        task: what is predicted.
        variant: of the reward.

    Returns:
        ``(B, B)``: entry (i, j) is the length of the gradient of reward i with respect to the prediction for sample j.
    """
    leaf = prediction.detach().clone().requires_grad_()
    rewards = joint_reward(leaf, labels, task, variant=variant)
    gradients = [torch.autograd.grad(reward, leaf, retain_graph=True)[0] for reward in rewards]
    return torch.stack([g.flatten(1).norm(dim=1) if g.ndim > 1 else g.abs() for g in gradients])


def critic_skill(method: CollaborativeMMCL, data: Utterances) -> dict[str, float]:
    """What the critic knows about single samples, beside a constant.

    Args:
        method: with a critic of one joint value.
        data: the samples; their predictions earn the rewards as ``corrected`` counts them.

    Returns:
        ``error`` (mean distance of the value from the reward), ``constant`` (that of the median reward, the best
        constant), ``correlation`` of value and reward (NaN where one does not vary), ``reward`` (mean) and ``gain``:
        mean value with the gates minus that with open gates, what the gates are worth by the critic's own account.
        With a discount the values hold a future too, and ``error`` says little.

    Raises:
        ConfigError: the method has no critic, or one value per modality.
    """
    if not method.config.learns_from_reward or method.config.reward != "joint":
        raise ConfigError("this method has no critic with a joint value (no_policy, no_rl or reward='per_modality')")
    with evaluation_mode(method):
        views = method.decouple(data.data)
        output, _ = method.act(views, views.specific)
        gates = {m: output.auxiliary[f"gates/{m}"] for m in method.modalities}
        value = method.policy.critic(views.specific, gates, views.valid).flatten()
        opened = {m: torch.ones_like(gate) for m, gate in gates.items()}
        without = method.policy.critic(views.specific, opened, views.valid).flatten()
        reward = joint_reward(output.prediction, data.labels, data.task, form=method.config.reward_form)
    return {
        "error": float((value - reward).abs().mean()),
        "constant": float((reward - reward.median()).abs().mean()),
        "correlation": float(torch.corrcoef(torch.stack([value, reward]).double())[0, 1]),
        "reward": float(reward.mean()),
        "gain": float((value - without).mean()),
    }


def training_states(method: CollaborativeMMCL, data: Utterances, batch_size: int, seed: int = 0) -> pd.DataFrame:
    """States and gates of the policies in training beside those in evaluation, for the same weights.

    Batches are drawn in a random order as in training, and nothing is trained. With the decision process
    ``reference`` a training state is gated by the actions for the batch before, row by row, which are those of *other*
    samples (defect D6); in evaluation it is not gated (D7). In ``corrected`` both are the same.

    Args:
        method: with gates.
        data: the samples; batches without a full batch before them are left out.
        batch_size: samples per step.
        seed: of the order.

    Returns:
        One row per sample and modality: ``id, modality``; ``norm_evaluation`` and ``norm_training`` (mean length of the
        state over words), ``gate_evaluation`` and ``gate_training`` (mean gate over words), ``carried_from`` (the
        sample whose gates were applied, or empty) and ``carried`` (their mean over the words of this sample, or 1).

    Raises:
        ConfigError: the method has no gates, or there are fewer than two full batches.
    """
    if method.policy is None:
        raise ConfigError("this method was built with no_policy=True; it has no gates")
    if len(data) < 2 * batch_size:
        raise ConfigError(f"{len(data)} samples are fewer than two batches of {batch_size}; take smaller batches")
    carries = method.config.decision_process == "reference"
    parts: list[pd.DataFrame] = []
    before, ids = None, ()
    with evaluation_mode(method):
        for batch in data.batches(batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed)):
            if len(batch) < batch_size:
                break
            raw = method.decouple(batch).specific
            factor = {m: torch.ones(x.shape[:2]) for m, x in raw.items()}
            if carries and before is not None:
                factor = {m: _of_length(before[m], x.shape[1]) for m, x in raw.items()}
            state = {m: x * factor[m].unsqueeze(-1) for m, x in raw.items()}
            own, seen = method.policy.gates(raw), method.policy.gates(state)
            if before is not None:
                for m in method.modalities:
                    values = {
                        "norm_evaluation": raw[m].norm(dim=-1), "norm_training": state[m].norm(dim=-1),
                        "gate_evaluation": own[m], "gate_training": seen[m], "carried": factor[m],
                    }  # fmt: skip
                    means = {name: _over_words(x, batch.valid[m]) for name, x in values.items()}
                    source = ids if carries else ""
                    parts.append(pd.DataFrame({"id": batch.ids, "modality": m, **means, "carried_from": source}))
            before, ids = seen, batch.ids
    return pd.concat(parts, ignore_index=True)


def _of_length(gates: Tensor, steps: int) -> Tensor:
    """Gates ``(B, t)`` for ``steps`` positions; new ones are 1, as in training."""
    return F.pad(gates, (0, max(0, steps - gates.shape[1])), value=1.0)[:, :steps]


def _over_words(values: Tensor, valid: Tensor) -> list[float]:
    """Mean of ``(B, T)`` over the words of each sample; sequences may be padded further than ``valid``."""
    words = F.pad(valid, (0, values.shape[1] - valid.shape[1]))
    return masked_mean(values.unsqueeze(-1), words).squeeze(-1).tolist()
