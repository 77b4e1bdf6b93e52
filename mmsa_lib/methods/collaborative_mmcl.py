"""``collaborative_mmcl``: decoupling by cross-modal similarity, and policies that gate what is specific.

Source: Wang, Liu, Liu, "Multi-Modality Collaborative Learning for Sentiment Analysis", arXiv 2501.12424,
**withdrawn** by its authors, who call its decoupling flawed. The paper's text and tables were not accessible; the
abstract [A] and the code for IEMOCAP (smwanghhh/MMCL, e096810 [C]) were. That code has defects, numbered D1 to D17 here
and listed in notebook 03. ``decoupling="reference"`` keeps those that change the result, ``"corrected"`` repairs them
[R].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.base import Method, MethodConfig, Output, finite_log
from mmsa_lib.methods.evidence import Sourced, evidence
from mmsa_lib.nn.heads import AnySizeBatchNorm, to_label_scale
from mmsa_lib.nn.sequence import masked_mean

Variant = Literal["corrected", "reference"]
Comparison = Literal["min", "mean"]
Align = Literal["none", "ln", "center"]
Unaligned = Literal["refuse", "compose"]
Sequences = dict[str, Tensor]


def decouple(
    z: Mapping[str, Tensor],
    valid: Tensor | Mapping[str, Tensor],
    *,
    variant: Variant = "corrected",
    temperature: float = 0.1,
    comparison: Comparison = "min",
    align: Align = "none",
    unaligned: Unaligned = "refuse",
) -> tuple[Sequences, Sequences, Sequences]:
    r"""Common and specific part of each modality, without any parameter.

    With :math:`C^{mn}` the cosines of all positions of two modalities, :math:`C_m=\min_{n\ne m}C^{mn}` says how far
    position :math:`i` of :math:`m` agrees with position :math:`j` of *every* other modality. Rows of
    :math:`Z_m` are then mixed by agreement (common) and by disagreement (specific):

    * ``reference`` [C]: :math:`S=\mathrm{softmax}(C)`, :math:`P=SZ`, :math:`N=\mathrm{softmax}(1-S)Z`. Padding takes
      part. Both weights are nearly uniform: for 20 positions no entry of S exceeds .28.
    * ``corrected`` [R]: :math:`S=\mathrm{softmax}(C/\tau)`, :math:`P=SZ`, :math:`N=\mathrm{softmax}(-C/\tau)Z`, over
      valid positions only.

    Position ``j`` of another modality weighs position ``j`` of the own one, so positions must be the same words.

    Args:
        z: per modality ``(B, T, d)``; at least two, of one width.
        valid: ``(B, T)`` bool for all modalities, or one per modality.
        variant: see above.
        temperature: :math:`\tau` of ``corrected``.
        comparison: ``"min"`` [C], or ``"mean"`` of the similarities (a commented line of the code).
        align: what is done to each modality before the cosine [R, ours]: ``"ln"`` brings every row to mean 0 and
            variance 1, ``"center"`` subtracts the mean over the valid rows of the batch, ``"none"`` nothing.
        unaligned: ``"refuse"`` sequences whose valid positions differ, or ``"compose"`` [R]:
            :math:`C_m=\min_n\mathrm{softmax}(C^{mn}/\tau)\,\mathrm{softmax}(C^{nm}/\tau)`, the similarity of two
            positions of m by way of n (``corrected`` only).

    Returns:
        ``(common, specific, weights)``: ``(B, T_m, d)`` per modality, twice, and the matrices ``(B, T_m, T_m)`` under
        ``"<modality>/common"`` and ``"<modality>/specific"``. Rows sum to 1; in ``corrected`` padding has weight 0 (and
        a sample without a valid position has no weights at all).

    Raises:
        ConfigError: fewer than two modalities, sequences of length 1, unaligned sequences, or a bad setting.
    """
    masks = {m: valid[m] if isinstance(valid, Mapping) else valid for m in z}
    _check(z, masks, variant, temperature, unaligned)
    if variant == "reference":
        masks = {m: torch.ones_like(mask) for m, mask in masks.items()}
    unit = {m: F.normalize(_align(x, masks[m], align), dim=-1) for m, x in z.items()}
    common, specific, weights = {}, {}, {}
    for m, sequence in z.items():
        similarity = _similarity(m, unit, masks, comparison, temperature if unaligned == "compose" else None)
        agree, differ = _weights(similarity, masks[m], variant, temperature)
        weights[f"{m}/common"], weights[f"{m}/specific"] = agree, differ
        common[m], specific[m] = agree @ sequence, differ @ sequence
    return common, specific, weights


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid positions of the last axis: ``(B, R, T)``, ``(B, T)``; padding gets 0, exactly."""
    ignored = ~valid.unsqueeze(1)
    # The smallest number instead of minus infinity: a row without a valid position would not be a number.
    return scores.masked_fill(ignored, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(ignored, 0)


def _similarity(own: str, unit: Sequences, masks: Sequences, comparison: Comparison, compose: float | None) -> Tensor:
    """How far all other modalities agree: ``(B, T_own, T_own)``."""
    per_other = []
    for other, rows in unit.items():
        if other == own:
            continue
        cosine = unit[own] @ rows.transpose(1, 2)
        if compose is not None:
            there = masked_softmax(cosine / compose, masks[other])
            cosine = there @ masked_softmax(cosine.transpose(1, 2) / compose, masks[own])
        per_other.append(cosine)
    stacked = torch.stack(per_other)
    return stacked.amin(0) if comparison == "min" else stacked.mean(0)


def _weights(similarity: Tensor, valid: Tensor, variant: Variant, temperature: float) -> tuple[Tensor, Tensor]:
    if variant == "reference":
        agree = similarity.softmax(-1)
        return agree, (1 - agree).softmax(-1)
    return masked_softmax(similarity / temperature, valid), masked_softmax(-similarity / temperature, valid)


def _align(sequence: Tensor, valid: Tensor, align: Align) -> Tensor:
    if align == "ln":
        return F.layer_norm(sequence, sequence.shape[-1:])
    if align == "center":
        kept = valid.unsqueeze(-1)
        return sequence - (sequence * kept).sum((0, 1)) / kept.sum().clamp_min(1)
    return sequence


def _check(z: Mapping[str, Tensor], masks: Sequences, variant: str, temperature: float, unaligned: str) -> None:
    if len(z) < 2:
        raise ConfigError(f"decoupling compares modalities; got only {', '.join(z) or 'none'}")
    if temperature <= 0:
        raise ConfigError(f"the decoupling temperature must be above 0, got {temperature}")
    if unaligned == "compose" and variant == "reference":
        raise ConfigError("unaligned='compose' belongs to the corrected decoupling; the reference has no masks")
    for m, sequence in z.items():
        if sequence.shape[1] < 2:
            raise ConfigError(
                f"{m} has one position per sample: its common and its specific part would both be the input; "
                "decoupling needs sequences (word-level features)"
            )
        if masks[m].shape != sequence.shape[:2]:
            raise ConfigError(f"{m} is {tuple(sequence.shape)}, but its mask is {tuple(masks[m].shape)}")
    if unaligned == "refuse":
        check_aligned(masks)


def check_aligned(masks: Mapping[str, Tensor], ids: Sequence[str] = ()) -> None:
    """Refuse sequences that are not word by word the same length.

    Args:
        masks: valid positions of each modality, ``(B, T_m)`` bool.
        ids: names of the samples, for the message.

    Raises:
        ConfigError: two modalities differ in their valid positions; names them and a sample.
    """
    first, *others = masks
    for other in others:
        lengths = masks[first].sum(1), masks[other].sum(1)
        differs = (lengths[0] != lengths[1]).nonzero().flatten()
        if not len(differs) and masks[first].shape == masks[other].shape and torch.equal(masks[first], masks[other]):
            continue
        row = int(differs[0]) if len(differs) else 0
        sample = f"sample {ids[row]!r}" if ids else f"row {row}"
        raise ConfigError(
            f"{first} and {other} are not word-aligned ({sample} has {int(lengths[0][row])} and "
            f"{int(lengths[1][row])} valid positions, padded to {masks[first].shape[1]} and {masks[other].shape[1]}): "
            "the decoupling compares position by position; use word-aligned features, or unaligned='compose'"
        )


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


Fusion = Literal["add", "cat"]


def attended(valid: Tensor) -> Tensor:
    """``(B, T)`` bool: positions that attention may read; the first one where a sample has no valid position."""
    first = torch.arange(valid.shape[1], device=valid.device) == 0
    return valid | (first & ~valid.any(dim=1, keepdim=True))


class ContextAttention(nn.Module):
    """Self-attention inside one modality: ``LayerNorm(c + W c)`` of the attention context ``c``.

    The residual goes around the context, not around the input [C: network.py, lines 10-54].
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, T, d)``; padding is not attended to."""
        query, key, value = (
            layer(sequence).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attended(valid)[:, None, None], dropout_p=self.dropout * self.training
        )
        context = context.transpose(1, 2).flatten(2)
        return self.norm(context + self.output(context))


class SequenceSummary(nn.Module):
    """One Transformer layer (normalised after each block, ReLU, no dropout) and the mean over valid positions [C].

    The same computation as ``nn.TransformerEncoderLayer``; but its feed-forward block, where nearly all of the time
    goes, runs over the valid positions alone.
    """

    def __init__(self, width: int, heads: int, feedforward: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.expand, self.reduce = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm_attention, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, d)``; zeros for a sample without a valid position."""
        ignored = ~attended(valid)
        context, _ = self.attention(sequence, sequence, sequence, key_padding_mask=ignored, need_weights=False)
        states = self.norm_attention(sequence + context)
        kept = valid.flatten().nonzero().squeeze(1)
        rows = states.flatten(0, 1).index_select(0, kept)
        rows = self.norm(rows + self.reduce(self.expand(rows).relu()))
        total = rows.new_zeros(len(valid), rows.shape[1]).index_add(0, kept // valid.shape[1], rows)
        return total / valid.sum(dim=1, keepdim=True).clamp_min(1)


class Predictor(nn.Module):
    """Weigh, join and read the common and the gated specific part of each modality.

    Args:
        modalities: their names, in order.
        width: features of each part.
        heads, feedforward: of the Transformer layer over the gated sequences.
        dropout: in the head.
        fusion: ``"add"``: mean of the modalities' embeddings, each times its weight in (0, 1); ``"cat"``: embeddings
            side by side (a commented alternative of the code).
        outputs: width of the prediction.
    """

    def __init__(
        self, modalities: Sequence[str], width: int, heads: int, feedforward: int, dropout: float, fusion: Fusion,
        outputs: int,
    ):  # fmt: skip
        super().__init__()
        self.fusion = fusion
        self.summary = nn.ModuleDict({m: SequenceSummary(width, heads, feedforward) for m in modalities})
        joint = 2 * width * len(modalities)
        if fusion == "add":
            # Two linear layers without a non-linearity between them, as in the code.
            self.weigh = nn.ModuleDict(
                {m: nn.Sequential(nn.Linear(2 * width, width), nn.Linear(width, 1)) for m in modalities}
            )
            self.head = nn.Sequential(
                nn.Linear(2 * width, width), nn.Dropout(dropout), nn.ReLU(), AnySizeBatchNorm(width),
                nn.Linear(width, outputs),
            )  # fmt: skip
        else:
            self.head = nn.Sequential(
                nn.Linear(joint, joint // 2), nn.Dropout(dropout), nn.ReLU(), AnySizeBatchNorm(joint // 2),
                nn.Linear(joint // 2, width), nn.Dropout(dropout), nn.Linear(width, outputs),
            )  # fmt: skip

    def embed(
        self, common: Mapping[str, Tensor], gated: Mapping[str, Tensor], valid: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Per modality the mean of its common part beside the summary of its gated part, ``(B, 2 d)``."""
        return {
            m: torch.cat([masked_mean(common[m], valid[m]), self.summary[m](gated[m], valid[m])], dim=-1)
            for m in common
        }

    def fuse(self, embedded: Mapping[str, Tensor]) -> Tensor:
        """Join the modalities: ``(B, 2 d)`` with ``"add"``, ``(B, 2 d M)`` with ``"cat"``."""
        if self.fusion == "cat":
            return torch.cat(list(embedded.values()), dim=-1)
        return torch.stack([self.weigh[m](e).sigmoid() * e for m, e in embedded.items()]).mean(0)

    def alone(self, modality: str, embedded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The embeddings with the gated part of ``modality`` only; the others' are 0, common parts stay."""
        kept = {}
        for m, embedding in embedded.items():
            common, gated = embedding.chunk(2, dim=-1)
            kept[m] = embedding if m == modality else torch.cat([common, torch.zeros_like(gated)], dim=-1)
        return kept

    def forward(self, embedded: Mapping[str, Tensor]) -> Tensor:
        """A prediction before its shape, ``(B, outputs)``."""
        return self.head(self.fuse(embedded))


class Critic(nn.Module):
    """The value of gating states with actions.

    Each state has its action appended ``heads`` times, so that the width stays a multiple of the heads [C].

    Args:
        modalities: their names, in order.
        width: features of a state.
        heads, feedforward: of the Transformer layer over each modality.
        dropout: in the head.
        joint: one value from all modalities [C], or else one value for each from its own state and action alone [R].
    """

    def __init__(
        self, modalities: Sequence[str], width: int, heads: int, feedforward: int, dropout: float, joint: bool = True
    ):
        super().__init__()
        if width % heads:
            raise ConfigError(f"a critic of width {width} can't have {heads} heads; choose a divisor of the width")
        self.heads, self.joint = heads, joint
        inner = width + heads
        self.summary = nn.ModuleDict({m: SequenceSummary(inner, heads, feedforward) for m in modalities})
        if joint:
            self.value = _value_head(inner * len(modalities), width, dropout)
        else:
            self.value = nn.ModuleDict({m: _value_head(inner, width, dropout) for m in modalities})

    def forward(self, state: Mapping[str, Tensor], action: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """States ``(B, T, d)``, actions ``(B, T)`` and masks per modality to ``(B, 1)``, or ``(B, M)`` if not joint."""
        seen = {}
        for m, sequence in state.items():
            repeated = action[m].unsqueeze(-1).expand(-1, -1, self.heads)
            seen[m] = self.summary[m](torch.cat([sequence, repeated], dim=-1), valid[m])
        if self.joint:
            return self.value(torch.cat(list(seen.values()), dim=-1))
        return torch.cat([self.value[m](x) for m, x in seen.items()], dim=-1)


def _value_head(inputs: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 2 * width), nn.Linear(2 * width, width), nn.Dropout(dropout), nn.ReLU(),
        AnySizeBatchNorm(width), nn.Linear(width, 1),
    )  # fmt: skip


_CODE = "smwanghhh/MMCL, train.py and network.py, IEMOCAP"
_SMALL = {
    "width": Sourced(64, "R", "half of the code's 128, for a CPU"),
    "feedforward": Sourced(256, "R", "an eighth of the code's 2048, for a CPU"),
    "patience": Sourced(12, "R", "instead of 30, for a CPU; the best epoch is near 25 [T]"),
}


class CollaborativeMMCLConfig(MethodConfig):
    """Values of ``collaborative_mmcl``; the ``no_…`` switches, ``reward``, ``fusion``, ``comparison``, ``align`` and
    ``gamma`` are its ablations. ``None`` means: what the variant says.
    """

    decoupling: Variant = evidence(
        "corrected", tag="R", source="defects D3-D5 of the code; 'reference' is the code [C]",
        meaning=(
            "reference: softmax(C), softmax(1 - softmax(C)), padding included; "
            "corrected: softmax(±C / temperature) over valid positions"
        ),
    )  # fmt: skip
    rl: Variant | None = evidence(
        None, tag="R", source="defects D2, D6-D8, D10, D12, D13 of the code",
        meaning=(
            "reference: states gated by the batch before, reward as indexed in the code, alternating Adams; "
            "corrected: a contextual bandit on the sample's own state; None follows decoupling"
        ),
    )  # fmt: skip
    temperature: float = evidence(
        0.1, tag="R", source="entropy of the specific weights .89 log T on toy data, .999 and more without it [T]",
        meaning="temperature of the corrected decoupling", gt=0,
    )  # fmt: skip
    comparison: Comparison = evidence(
        "min", tag="C", source=f"{_CODE}; a figure's caption agrees [A]; the mean is a commented line",
        meaning="how the similarities to the other modalities are joined",
    )  # fmt: skip
    align: Align | None = evidence(
        None, tag="R", source="ours; an answer to the conceded difference of distributions, without weights",
        meaning="before the cosine: ln (rows to mean 0, variance 1), center (per batch), none; "
        "None: ln if corrected, none if reference",
    )  # fmt: skip
    unaligned: Unaligned = evidence(
        "refuse", tag="R", source="defect D5 of the code; the composition is ours",
        meaning="sequences that are not word-aligned: refuse them, or compare positions by way of the other modality",
    )  # fmt: skip
    longest: int | None = evidence(
        None, tag="R", source="the code's data have 20 positions [C], those of MAG-BERT and MMSA 50",
        meaning="positions beyond this are cut; None: none are", unit="positions", ge=2,
    )  # fmt: skip
    width: int = evidence(128, tag="C", source=_CODE, meaning="d, width of the common space", unit="features", ge=1)
    heads: int = evidence(4, tag="C", source=_CODE, meaning="attention heads, and repetitions of an action", ge=1)
    feedforward: int = evidence(
        2048, tag="C", source=f"{_CODE}: PyTorch's default", meaning="hidden width inside Transformer layers", ge=1
    )
    dropout: float = evidence(0.5, tag="C", source=_CODE, meaning="dropout in the heads", ge=0, lt=1)
    dropout_attention: float = evidence(
        0.0, tag="C", source=_CODE, meaning="dropout of the attention inside a modality", ge=0, lt=1
    )
    fusion: Fusion = evidence(
        "add", tag="C", source=f"{_CODE}; cat is commented out there", meaning="how modalities are joined"
    )
    weight_task: float = evidence(
        7.0, tag="C", source=_CODE, ge=0,
        meaning="w1, factor of the task loss; without effect under Adam where it stands alone",
    )  # fmt: skip
    weight_rl: float = evidence(
        13.0, tag="C", source=_CODE, meaning="w2, factor of the losses of actor and critic", ge=0
    )
    gamma: float | None = evidence(
        None, tag="R", source="the code has .5 [C]; its next state is another sample (defect D8)",
        meaning="discount of the next state's value; None: 0 if corrected, .5 if reference", ge=0, lt=1,
    )  # fmt: skip
    target_rate: float = evidence(
        0.01, tag="C", source=_CODE, meaning="tau, rate of the target networks, where gamma > 0", gt=0, le=1
    )
    replay: Literal["buffer", "batch"] = evidence(
        "buffer", tag="C", source=_CODE, meaning="what actor and critic learn from: the buffer, or the running batch"
    )
    replay_capacity: int = evidence(
        1000, tag="C", source=_CODE, meaning="limit of the buffer; its older half is dropped first", unit="samples",
        ge=2,
    )  # fmt: skip
    exploration: float = evidence(
        0.0, tag="R", source="ours; the code has no noise [C]",
        meaning="deviation of Gaussian noise on the gates before the sigmoid, in training", ge=0,
    )  # fmt: skip
    reward: Literal["joint", "per_modality"] = evidence(
        "joint", tag="A", source="abstract: policies with a joint reward",
        meaning="one reward for all policies, or each its own, from a prediction with its gated part alone [R]",
    )  # fmt: skip
    reward_form: RewardForm = evidence(
        "linear", tag="R", source="in no source; bounded and monotone in the absolute error",
        meaning="reward for sentiment: 1 - error / range, or exp(-error)",
    )  # fmt: skip
    no_decoupling: bool = evidence(
        False,
        tag="A",
        source="ablation: each module's effect is verified",
        meaning="the projection goes to both branches",
    )
    no_intra_attention: bool = evidence(
        False, tag="A", source="ablation: each module's effect is verified",
        meaning="no attention inside a modality on the common part",
    )  # fmt: skip
    no_policy: bool = evidence(
        False, tag="A", source="ablation: each module's effect is verified", meaning="all gates are 1"
    )
    no_rl: bool = evidence(
        False, tag="R", source="ours: what the reward adds to gates", meaning="gates learn from the task loss alone"
    )
    learning_rate: float = evidence(
        3e-4, tag="C", source=_CODE, meaning="learning rate of every player", unit="per step", gt=0
    )
    weight_decay: float = evidence(0.0, tag="C", source=_CODE, meaning="weight decay of every player", ge=0)
    batch_size: int = evidence(128, tag="C", source=_CODE, meaning="samples per step", unit="samples", ge=1)
    max_epochs: int = evidence(200, tag="C", source=_CODE, meaning="upper limit of epochs", unit="epochs", ge=1)
    patience: int = evidence(
        30, tag="R", source="ours; the code has no early stop and selects on the test set (defect D9)",
        meaning="epochs without a better validation loss before training stops", unit="epochs", ge=1,
    )  # fmt: skip
    plateau_patience_task: int = evidence(
        30, tag="C", source=_CODE, meaning="epochs without a better validation loss before the task's rate falls",
        unit="epochs", ge=0,
    )  # fmt: skip
    plateau_patience_rl: int = evidence(
        5, tag="C", source=_CODE, meaning="the same for actor and critic", unit="epochs", ge=0
    )
    plateau_factor: float = evidence(
        0.95, tag="C", source=_CODE, meaning="factor by which a learning rate falls", gt=0, lt=1
    )

    per_dataset = {
        "synthetic": _SMALL,
        "mosi": _SMALL | {"longest": Sourced(50, "R", "as in MAG-BERT's and MMSA's files; cuts 1 % of the samples")},
        "mmmo": _SMALL | {"batch_size": Sourced(32, "R", "72 to 220 training samples")},
    }

    @property
    def decision_process(self) -> Variant:
        """Variant of the reinforcement learning."""
        return self.rl or self.decoupling

    @property
    def discount(self) -> float:
        """Discount of the next state's value."""
        if self.gamma is not None:
            return self.gamma
        return 0.5 if self.decision_process == "reference" else 0.0

    @property
    def alignment(self) -> Align:
        """What is done to each modality before the cosine."""
        return self.align or ("ln" if self.decoupling == "corrected" else "none")

    @property
    def learns_from_reward(self) -> bool:
        """Whether there is a critic."""
        return not (self.no_policy or self.no_rl)


class ReplayBuffer:
    """Rows of named tensors. When a batch would fill it up, the older half is dropped first [C].

    Args:
        capacity: the buffer always holds fewer rows than this.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.size = 0
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self.size

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Append ``rows``: tensors ``(n, …)`` under the same names and shapes each time.

        Raises:
            ConfigError: the batch does not fit into the buffer.
        """
        count = len(next(iter(rows.values())))
        if self.size + count >= self.capacity:
            self._drop_older_half()
        if self.size + count >= self.capacity:
            raise ConfigError(
                f"a replay buffer of {self.capacity} is too small for batches of {count}; "
                f"set replay_capacity above {2 * count}"
            )
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = values.new_empty((self.capacity, *values.shape[1:]))
            self._columns[name][self.size : self.size + count] = values.detach()
        self.size += count

    def sample(self, size: int) -> dict[str, Tensor]:
        """``size`` different rows, drawn with the global generator of the CPU."""
        chosen = torch.randperm(self.size)[:size]
        return {name: values[chosen.to(values.device)] for name, values in self._columns.items()}

    def state(self) -> dict[str, Tensor]:
        """The rows in the buffer, by name."""
        return {name: values[: self.size] for name, values in self._columns.items()}

    def load(self, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        """Replace the content by what :meth:`state` gave."""
        self.size, self._columns = 0, {}
        if state:
            self.add({name: values.to(device) for name, values in state.items()})

    def _drop_older_half(self) -> None:
        dropped = self.size // 2
        for values in self._columns.values():
            values[: self.size - dropped] = values[dropped : self.size].clone()
        self.size -= dropped


class Plateaus:
    """``ReduceLROnPlateau`` for several optimisers, whose state can go into a checkpoint.

    Args:
        factor: by which a rate falls.
        patience: per optimiser, epochs without a better value before that.
    """

    def __init__(self, factor: float, patience: Mapping[str, int]):
        self.factor, self.patience = factor, dict(patience)
        self._schedulers: dict[str, ReduceLROnPlateau] = {}
        self._loaded: dict[str, Tensor] = {}

    def step(self, value: float, optimizers: Mapping[str, Optimizer]) -> None:
        """Take note of a validation loss."""
        for name, optimizer in optimizers.items():
            if name not in self._schedulers:
                self._schedulers[name] = self._scheduler(name, optimizer)
            self._schedulers[name].step(value)

    def state(self) -> dict[str, Tensor]:
        """Per optimiser the best value, the epochs since, and the epochs so far; rates are the optimisers' own."""
        return {
            name: torch.tensor([s.best, s.num_bad_epochs, s.last_epoch], dtype=torch.float64)
            for name, s in self._schedulers.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._schedulers, self._loaded = {}, dict(state)

    def _scheduler(self, name: str, optimizer: Optimizer) -> ReduceLROnPlateau:
        scheduler = ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience[name])
        if name in self._loaded:
            best, bad, epoch = self._loaded[name].tolist()
            scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch = best, int(bad), int(epoch)
        return scheduler


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


@dataclass(frozen=True)
class Views:
    """What the decoupling makes of a batch.

    Attributes:
        common, specific: per modality ``(B, T, d)``.
        valid: per modality ``(B, T)``; in ``reference`` all True, since padding takes part there.
        weights: matrices ``(B, T, T)`` under ``"<modality>/common"`` and ``"<modality>/specific"``; empty with
            ``no_decoupling``.
    """

    common: dict[str, Tensor]
    specific: dict[str, Tensor]
    valid: dict[str, Tensor]
    weights: dict[str, Tensor]


class CollaborativeModel(Method):
    """One projection per modality, the decoupling, attention on the common parts, gates on the specific ones.

    Representations: per modality ``common`` and ``specific`` (means over valid positions), ``enhanced`` (mean of the
    attended common part) and ``complementary`` (summary of the gated specific part); ``"fusion"``.
    Auxiliary: ``"gates/<modality>"``, ``(B, T)``.

    In ``reference`` every sequence has the length of the longest training sample, as in the code's data.

    Raises:
        ConfigError: fewer than two modalities, settings that contradict each other, or input that is not word-aligned.
    """

    Config = CollaborativeMMCLConfig
    config: CollaborativeMMCLConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: CollaborativeMMCLConfig):
        super().__init__(dims, task, config)
        self._check_settings()
        names = self.modalities
        self.project = nn.ModuleDict({m: nn.Linear(dim, config.width) for m, dim in self.dims.items()})
        self.attend = nn.ModuleDict()
        if not config.no_intra_attention:
            make = (config.width, config.heads, config.dropout_attention)
            self.attend.update({m: ContextAttention(*make) for m in names})
        # The predictor first: with or without policies and critic it starts from the same weights.
        self.predictor = Predictor(
            names, config.width, config.heads, config.feedforward, config.dropout, config.fusion, task.outputs
        )
        self.policy = None if config.no_policy else ActorCritic(names, config)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Output:
        """Predict from the common parts and the specific parts gated by the policies; the critic takes no part."""
        views = self.views(batch)
        return self.respond(views, views.specific)[0]

    def views(self, batch: Batch) -> Views:
        """Project and decouple. The matrices are what the notebook draws."""
        config = self.config
        sequences, valid = self._sequences(self.encode_text(batch))
        z = {m: self.project[m](x) for m, x in sequences.items()}
        if config.no_decoupling:
            return Views(z, z, valid, {})
        common, specific, weights = decouple(
            z, valid, variant=config.decoupling, temperature=config.temperature, comparison=config.comparison,
            align=config.alignment, unaligned=config.unaligned,
        )  # fmt: skip
        return Views(common, specific, valid, weights)

    def respond(self, views: Views, state: PerModality, noise: float = 0.0) -> tuple[Output, dict[str, Tensor]]:
        """The output for actions chosen in ``state``, and the embeddings that the predictor read."""
        if self.policy is None:
            actions = {m: x.new_ones(x.shape[:2]) for m, x in views.specific.items()}
        else:
            actions = self.policy.gates(state, noise)
        enhanced = {m: self.attend[m](x, views.valid[m]) if self.attend else x for m, x in views.common.items()}
        gated = {m: x * actions[m].unsqueeze(-1) for m, x in views.specific.items()}
        embedded = self.predictor.embed(enhanced, gated, views.valid)
        fused = self.predictor.fuse(embedded)
        output = Output(
            to_label_scale(self.task, self.predictor.head(fused)),
            self._representations(views, embedded) | {"fusion": fused},
            {f"gates/{m}": a for m, a in actions.items()},
        )
        return output, embedded

    def _representations(self, views: Views, embedded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {}
        for m in self.modalities:
            named[f"{m}/common"] = masked_mean(views.common[m], views.valid[m])
            named[f"{m}/specific"] = masked_mean(views.specific[m], views.valid[m])
            named[f"{m}/enhanced"], named[f"{m}/complementary"] = embedded[m].chunk(2, dim=-1)
        return named

    def _sequences(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features and masks in the length that the variant works with."""
        longest = self.config.longest
        features = {m: batch.features[m][:, :longest] for m in self.modalities}
        valid = {m: batch.valid[m][:, :longest] for m in self.modalities}
        if self.config.unaligned == "refuse":
            check_aligned(valid, batch.ids)
        # Trimming may leave a batch of one-word samples; two positions, one of them padding, give the same result.
        length = int(self.steps) if self._pads else min(2, int(self.steps))
        features = {m: pad_steps(x, length) for m, x in features.items()}
        valid = {m: pad_steps(x, length) for m, x in valid.items()}
        if self._pads:
            valid = {m: torch.ones_like(x) for m, x in valid.items()}
        return features, valid

    @property
    def _pads(self) -> bool:
        """Whether padding takes part, so that its amount has to be fixed."""
        return self.config.decoupling == "reference"

    def _check_settings(self) -> None:
        config = self.config
        reference = config.decoupling == "reference"
        policy_off = config.no_policy or config.no_rl
        contradictions = {
            f"{self.id} compares modalities; the data has only {self.modalities[0]}": len(self.modalities) < 2,
            f"width={config.width} is no multiple of heads={config.heads}": config.width % config.heads > 0,
            "unaligned='compose' belongs to decoupling='corrected'": reference and config.unaligned == "compose",
            "no_policy has no gates to train; leave no_rl out": config.no_policy and config.no_rl,
            "without reinforcement learning there is no reward, no future and no exploration; leave them out": (
                policy_off and (config.reward != "joint" or bool(config.gamma) or config.exploration > 0)
            ),
        }
        for message, found in contradictions.items():
            if found:
                raise ConfigError(message)


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
