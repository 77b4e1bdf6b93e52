"""What a policy of ``collaborative_mmcl`` is rewarded for: the quality of the joint prediction."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmsa_lib.data.task import Task
from mmsa_lib.nn.decoupling import Variant

RewardForm = Literal["linear", "exponential"]


def joint_reward(
    prediction: Tensor, labels: Tensor, task: Task, *, variant: Variant = "corrected", form: RewardForm = "linear"
) -> Tensor:
    r"""One reward per sample, shared by the policies of all modalities ("joint").

    Emotions. ``corrected``: :math:`r_i=\frac1K\sum_k\mathrm{softmax}(o_{ik})[y_{ik}]\in(0,1)`, the mean probability of
    the true answers; the code intends their sum [C intended], the mean does not depend on the number of emotions [R].
    ``reference``: the code's ``gather`` as written [C, defect D2]. The logits are flattened to ``(B K, 2)`` and row
    :math:`i` of the labels meets flattened row :math:`i`, which is sample :math:`\lfloor i/K\rfloor`, emotion
    :math:`i\bmod K`: :math:`r_i=\sum_kq_i[y_{ik}]`.

    Sentiment: :math:`\mathrm{clip}(1-|\hat y_i-y_i|/R,0,1)` with :math:`R` the label range, or
    :math:`\exp(-|\hat y_i-y_i|)` with ``form="exponential"``. No source gives a reward for regression: ours [R],
    bounded and monotone in the absolute error; the same in both variants.

    Classes: the probability of the true class, as ``corrected`` has it for one emotion; the same in both variants [R].

    Args:
        prediction: ``(B,)`` sentiment, or logits ``(B, K, 2)`` of emotions or ``(B, K)`` of classes.
        labels: ``(B,)`` sentiment or class ids, or ``(B, K)`` with entries 0 and 1.
        task: what is predicted.
        variant: of the reward for emotions.
        form: of the reward for sentiment.

    Returns:
        ``(B,)``.
    """
    if task.kind == "regression":
        error = (prediction - labels).abs()
        if form == "exponential":
            return (-error).exp()
        return (1 - error / (task.range[1] - task.range[0])).clamp(0, 1)
    truth = labels.long()
    if task.kind == "classes":
        return prediction.softmax(-1).gather(-1, truth.unsqueeze(-1)).squeeze(-1)
    if variant == "reference":
        flat = prediction.flatten(0, 1).softmax(-1)
        return flat[: len(labels)].gather(1, truth).sum(-1)
    return prediction.softmax(-1).gather(-1, truth.unsqueeze(-1)).squeeze(-1).mean(-1)
