"""``collaborative_mmcl``: decoupling by cross-modal similarity, and policies that gate what is specific.

Source: Wang, Liu, Liu, "Multi-Modality Collaborative Learning for Sentiment Analysis", arXiv 2501.12424,
**withdrawn** by its authors, who call its decoupling flawed. The paper's text and tables were not accessible; the
abstract [A] and the code for IEMOCAP (smwanghhh/MMCL, e096810 [C]) were. That code has defects, numbered D1 to D17 in
docs/methods/collaborative_mmcl.md and in notebook 03. This file is the method without them, ``"corrected"`` [R]; what
``decoupling="reference"``, ``rl="reference"`` and ``gamma > 0`` change is in :mod:`collaborative_reference`.

Letters: ``B`` samples, ``T`` positions, ``d`` width, ``M`` modalities; ``m`` one of them and ``n`` another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output, backward
from mmsa_lib.methods.evidence import A, C, R, Sourced
from mmsa_lib.nn.adam import Adam
from mmsa_lib.nn.heads import AnySizeBatchNorm, to_label_scale
from mmsa_lib.nn.sequence import attended, masked_mean

__all__ = ["CollaborativeMMCL", "CollaborativeMMCLConfig", "decouple", "joint_reward"]

Variant = Literal["corrected", "reference"]
Comparison = Literal["min", "mean"]
Align = Literal["none", "ln", "center"]
Unaligned = Literal["refuse", "compose"]
RewardForm = Literal["linear", "exponential"]
PerModality = Mapping[str, Tensor]

_CODE = "smwanghhh/MMCL, train.py and network.py, IEMOCAP"
_ABLATION = "ablation: each module's effect is verified"
_SMALL = {
    "width": Sourced(64, "R", "half of the code's 128, for a CPU"),
    "feedforward": Sourced(256, "R", "an eighth of the code's 2048, for a CPU"),
    "patience": Sourced(12, "R", "instead of 30, for a CPU; the best epoch is near 25 [T]"),
}


class CollaborativeMMCLConfig(MethodConfig):
    """Values of ``collaborative_mmcl``; the ``no_…`` switches, ``reward``, ``fusion``, ``comparison``, ``align`` and
    ``gamma`` are its ablations. ``None`` means: what the variant says.
    """

    decoupling: Variant = R("corrected", "defects D3-D5 of the code; 'reference' is the code [C]")
    """reference: softmax(C), softmax(1 - softmax(C)), padding included; corrected: softmax(±C / temperature) over
    valid positions"""
    rl: Variant | None = R(None, "defects D2, D6-D8, D10, D12, D13 of the code")
    """reference: states gated by the batch before, reward as indexed in the code, alternating Adams; corrected: a
    contextual bandit on the sample's own state; None follows decoupling"""
    temperature: float = R(
        0.1, "entropy of the specific weights .89 log T on toy data, .999 and more without it [T]", gt=0
    )
    """temperature of the corrected decoupling"""
    comparison: Comparison = C("min", f"{_CODE}; a figure's caption agrees [A]; the mean is a commented line")
    """how the similarities to the other modalities are joined"""
    align: Align | None = R(None, "ours; an answer to the conceded difference of distributions, without weights")
    """before the cosine: ln (rows to mean 0, variance 1), center (per batch), none; None: ln if corrected, none if
    reference"""
    unaligned: Unaligned = R("refuse", "defect D5 of the code; the composition is ours")
    """sequences that are not word-aligned: refuse them, or compare positions by way of the other modality"""
    longest: int | None = R(
        None, "the code's data have 20 positions [C], those of MAG-BERT and MMSA 50", unit="positions", ge=2
    )
    """positions beyond this are cut; None: none are"""
    width: int = C(128, _CODE, "d, width of the common space", unit="features", ge=1)
    heads: int = C(4, _CODE, "attention heads, and repetitions of an action", ge=1)
    feedforward: int = C(2048, f"{_CODE}: PyTorch's default", "hidden width inside Transformer layers", ge=1)
    dropout: float = C(0.5, _CODE, "dropout in the heads", ge=0, lt=1)
    dropout_attention: float = C(0.0, _CODE, "dropout of the attention inside a modality", ge=0, lt=1)
    dropout_critic: float | None = R(
        None, "ours: a value has no classes to regularise; the code has .5 [C]", ge=0, lt=1
    )
    """dropout in the critic's head; None: as dropout"""
    fusion: Literal["add", "cat"] = C("add", f"{_CODE}; cat is commented out there", "how modalities are joined")
    weight_task: float = C(7.0, _CODE, ge=0)
    """w1, factor of the task loss; without effect under Adam where it stands alone"""
    weight_rl: float = C(13.0, _CODE, "w2, factor of the losses of actor and critic", ge=0)
    gamma: float | None = R(None, "the code has .5 [C]; its next state is another sample (defect D8)", ge=0, lt=1)
    """discount of the next state's value; None: 0 if corrected, .5 if reference"""
    target_rate: float = C(0.01, _CODE, "tau, rate of the target networks, where gamma > 0", gt=0, le=1)
    replay: Literal["buffer", "batch"] = C("buffer", _CODE)
    """what actor and critic learn from: the buffer, or the running batch"""
    replay_capacity: int = C(1000, _CODE, "limit of the buffer; its older half is dropped first", unit="samples", ge=2)
    exploration: float = R(0.0, "ours; the code has no noise [C]", ge=0)
    """deviation of Gaussian noise on the gates before the sigmoid, in training; without it an action is a function of
    its state, and the value of any other action is not in the data"""
    rl_steps: int = C(1, _CODE, "steps of critic and actor after each step of the task", ge=1)
    reward: Literal["joint", "per_modality"] = A("joint", "abstract: policies with a joint reward")
    """one reward for all policies, or each its own, from a prediction with its gated part alone [R]"""
    reward_form: RewardForm = R("linear", "in no source; bounded and monotone in the absolute error")
    """reward for sentiment: 1 - error / range, or exp(-error)"""
    no_decoupling: bool = A(False, _ABLATION, "the projection goes to both branches")
    no_intra_attention: bool = A(False, _ABLATION, "no attention inside a modality on the common part")
    no_policy: bool = A(False, _ABLATION, "all gates are 1")
    no_rl: bool = R(False, "ours: what the reward adds to gates", "gates learn from the task loss alone")
    learning_rate: float = C(3e-4, _CODE, "learning rate of every player", unit="per step", gt=0)
    learning_rate_critic: float | None = R(None, "the code has one rate [C], and 30 times as many steps", gt=0)
    """learning rate of the critic; None: as learning_rate. Its loss weight does nothing under Adam (defect D12)"""
    learning_rate_actor: float | None = R(None, "the code has one rate [C]", gt=0)
    """learning rate of the gates by the reward; None: as learning_rate"""
    weight_decay: float = C(0.0, _CODE, "weight decay of every player", ge=0)
    batch_size: int = C(128, _CODE, "samples per step", unit="samples", ge=1)
    max_epochs: int = C(200, _CODE, "upper limit of epochs", unit="epochs", ge=1)
    patience: int = R(
        30, "ours; the code has no early stop and selects on the test set (defect D9)", unit="epochs", ge=1
    )
    """epochs without a better validation loss before training stops"""
    plateau_patience_task: int = C(30, _CODE, unit="epochs", ge=0)
    """epochs without a better validation loss before the task's rate falls"""
    plateau_patience_rl: int = C(5, _CODE, "the same for actor and critic", unit="epochs", ge=0)
    plateau_factor: float = C(0.95, _CODE, "factor by which a learning rate falls", gt=0, lt=1)

    per_dataset = {
        "synthetic": _SMALL,
        "mosi": _SMALL | {"longest": Sourced(50, "R", "as in MAG-BERT's and MMSA's files; cuts 1 % of the samples")},
        "mmmo": _SMALL | {"batch_size": Sourced(32, "R", "72 to 220 training samples")},
    }

    @model_validator(mode="after")
    def _without_contradiction(self) -> CollaborativeMMCLConfig:
        if self.width % self.heads:
            raise ConfigError(f"width={self.width} is no multiple of heads={self.heads}")
        if self.decoupling == "reference" and self.unaligned == "compose":
            raise ConfigError("unaligned='compose' belongs to decoupling='corrected'")
        if self.no_policy and self.no_rl:
            raise ConfigError("no_policy has no gates to train; leave no_rl out")
        if self.learning_rate_actor and self.decision_process == "reference":
            raise ConfigError(
                "learning_rate_actor belongs to rl='corrected'; in the reference one Adam has gates and predictor"
            )
        of_reward = ("gamma", "exploration", "dropout_critic", "learning_rate_critic", "learning_rate_actor")
        if not self.learns_from_reward and (
            self.reward != "joint" or self.rl_steps > 1 or any(getattr(self, name) for name in of_reward)
        ):
            raise ConfigError(
                "without reinforcement learning there is no reward, no future, no exploration and no critic; "
                "leave their settings out"
            )
        return self

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
    def decoupling_options(self) -> dict[str, Any]:
        """Arguments of :func:`decouple`."""
        same = {name: getattr(self, name) for name in ("temperature", "comparison", "unaligned")}
        return {"variant": self.decoupling, "align": self.alignment, **same}

    @property
    def learns_from_reward(self) -> bool:
        """Whether there is a critic."""
        return not (self.no_policy or self.no_rl)


# --- 1. parameter-free decoupling ---


def decouple(
    z: PerModality,
    valid: Tensor | PerModality,
    *,
    variant: Variant = "corrected",
    temperature: float = 0.1,
    comparison: Comparison = "min",
    align: Align = "none",
    unaligned: Unaligned = "refuse",
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    r"""Common and specific part of each modality, without any parameter.

    With :math:`C^{mn}` the cosines of all positions of two modalities, :math:`C_m=\min_{n\ne m}C^{mn}` says how far
    position :math:`i` of :math:`m` agrees with position :math:`j` of *every* other modality. Rows of
    :math:`Z_m` are then mixed by agreement (common) and by disagreement (specific):

    * ``reference`` [C]: :math:`S=\mathrm{softmax}(C)`, :math:`P=SZ`, :math:`N=\mathrm{softmax}(1-S)Z`. Padding takes
      part. Both weights are nearly uniform: for 20 positions no entry of S exceeds .28 (defects D3 to D5).
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
    _check_sequences(z, masks)
    if temperature <= 0:
        raise ConfigError(f"the decoupling temperature must be above 0, got {temperature}")
    if unaligned == "compose" and variant == "reference":
        raise ConfigError("unaligned='compose' belongs to the corrected decoupling; the reference has no masks")
    if unaligned == "refuse":
        check_aligned(masks)
    if variant == "reference":
        masks = {m: torch.ones_like(mask) for m, mask in masks.items()}
    unit = {m: F.normalize(_align(x, masks[m], align), dim=-1) for m, x in z.items()}  # rows of length 1
    common, specific, weights = {}, {}, {}
    for m, x in z.items():
        similarities = []  # C^mn (B, T_m, T_n); composed (B, T_m, T_m)
        for n in z:
            if n != m:
                cosine = unit[m] @ unit[n].mT
                if unaligned == "compose":
                    there = masked_softmax(cosine / temperature, masks[n])
                    cosine = there @ masked_softmax(cosine.mT / temperature, masks[m])
                similarities.append(cosine)
        joined = torch.stack(similarities)
        similarity = joined.amin(0) if comparison == "min" else joined.mean(0)
        if variant == "reference":
            agree = similarity.softmax(-1)
            differ = (1 - agree).softmax(-1)
        else:
            agree = masked_softmax(similarity / temperature, masks[m])
            differ = masked_softmax(-similarity / temperature, masks[m])
        weights[f"{m}/common"], weights[f"{m}/specific"] = agree, differ
        common[m], specific[m] = agree @ x, differ @ x  # P_m, N_m
    return common, specific, weights


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid positions of the last axis: ``(B, R, T)``, ``(B, T)``; padding gets 0, exactly."""
    ignored = ~valid.unsqueeze(1)
    # The smallest number instead of minus infinity: a row without a valid position would not be a number.
    return scores.masked_fill(ignored, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(ignored, 0)


def _align(x: Tensor, valid: Tensor, align: Align) -> Tensor:
    if align == "ln":
        return F.layer_norm(x, x.shape[-1:])
    if align == "center":
        kept = valid.unsqueeze(-1)
        return x - (x * kept).sum((0, 1)) / kept.sum().clamp_min(1)
    return x


def _check_sequences(z: PerModality, masks: PerModality) -> None:
    if len(z) < 2:
        raise ConfigError(f"decoupling compares modalities; got only {', '.join(z) or 'none'}")
    for m, x in z.items():
        if x.shape[1] < 2:
            raise ConfigError(
                f"{m} has one position per sample: its common and its specific part would both be the input; "
                "decoupling needs sequences (word-level features)"
            )
        if masks[m].shape != x.shape[:2]:
            raise ConfigError(f"{m} is {tuple(x.shape)}, but its mask is {tuple(masks[m].shape)}")


def check_aligned(masks: PerModality, ids: Sequence[str] = ()) -> None:
    """Refuse sequences that are not word by word the same length.

    Args:
        masks: valid positions of each modality, ``(B, T_m)`` bool.
        ids: names of the samples, for the message.

    Raises:
        ConfigError: two modalities differ in their valid positions; names them and a sample.
    """
    first, *others = masks
    for other in others:
        one, two = masks[first], masks[other]
        if one.shape == two.shape and torch.equal(one, two):
            continue
        lengths = one.sum(1), two.sum(1)
        row = int((lengths[0] != lengths[1]).int().argmax())
        sample = f"sample {ids[row]!r}" if ids else f"row {row}"
        raise ConfigError(
            f"{first} and {other} are not word-aligned ({sample} has {int(lengths[0][row])} and "
            f"{int(lengths[1][row])} valid positions, padded to {one.shape[1]} and {two.shape[1]}): "
            "the decoupling compares position by position; use word-aligned features, or unaligned='compose'"
        )


# --- 2. attention inside a modality on the common part, one summary of the specific part ---


class ContextAttention(nn.Module):
    """Self-attention inside one modality: ``LayerNorm(c + W c)`` of the attention context ``c``.

    The residual goes around the context, not around the input [C: network.py, lines 10-54].
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, T, d)``; padding is not attended to."""
        query, key, value = (  # (B, heads, T, d / heads)
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
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

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, d)``; zeros for a sample without a valid position."""
        context, _ = self.attention(x, x, x, key_padding_mask=~attended(valid), need_weights=False)
        states = self.norm_attention(x + context)
        kept = valid.flatten().nonzero().squeeze(1)  # valid positions of the whole batch
        states = states.flatten(0, 1).index_select(0, kept)
        states = self.norm(states + self.reduce(self.expand(states).relu()))
        total = states.new_zeros(len(valid), states.shape[1]).index_add(0, kept // valid.shape[1], states)
        return total / valid.sum(dim=1, keepdim=True).clamp_min(1)


class Predictor(nn.Module):
    """Weigh, join and read the common and the gated specific part of each modality.

    Args:
        modalities: their names, in order.
        outputs: width of the prediction.
        config: ``fusion="add"``: mean of the modalities' embeddings, each times its weight in (0, 1); ``"cat"``:
            embeddings side by side (a commented alternative of the code).
    """

    def __init__(self, modalities: Sequence[str], outputs: int, config: CollaborativeMMCLConfig):
        super().__init__()
        d, self.fusion = config.width, config.fusion
        self.summary = nn.ModuleDict({m: SequenceSummary(d, config.heads, config.feedforward) for m in modalities})
        if self.fusion == "add":
            # Two linear layers without a non-linearity between them, as in the code.
            self.weigh = nn.ModuleDict({m: nn.Sequential(nn.Linear(2 * d, d), nn.Linear(d, 1)) for m in modalities})
            self.head = nn.Sequential(*_hidden(2 * d, d, config.dropout), nn.Linear(d, outputs))
        else:
            half = d * len(modalities)
            self.head = nn.Sequential(
                *_hidden(2 * half, half, config.dropout),
                *(nn.Linear(half, d), nn.Dropout(config.dropout), nn.Linear(d, outputs)),
            )

    def embed(self, common: PerModality, gated: PerModality, valid: PerModality) -> dict[str, Tensor]:
        """``e_m``: the mean of the common part beside the summary of the gated one, ``(B, 2 d)`` per modality."""
        return {
            m: torch.cat([masked_mean(common[m], valid[m]), self.summary[m](gated[m], valid[m])], dim=-1)
            for m in common
        }

    def fuse(self, embedded: PerModality) -> Tensor:
        """Join the modalities: ``1/M sum_m g_m e_m``, ``(B, 2 d)``; with ``"cat"`` ``(B, 2 d M)``."""
        if self.fusion == "cat":
            return torch.cat(list(embedded.values()), dim=-1)
        return torch.stack([self.weigh[m](e).sigmoid() * e for m, e in embedded.items()]).mean(0)

    def alone(self, modality: str, embedded: PerModality) -> dict[str, Tensor]:
        """The embeddings with the gated part of ``modality`` only; the others' are 0, common parts stay."""
        kept = {}
        for m, embedding in embedded.items():
            common, gated = embedding.chunk(2, dim=-1)
            kept[m] = embedding if m == modality else torch.cat([common, torch.zeros_like(gated)], dim=-1)
        return kept

    def forward(self, embedded: PerModality) -> Tensor:
        """A prediction before its shape, ``(B, outputs)``."""
        return self.head(self.fuse(embedded))


def _hidden(inputs: int, width: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, width), nn.Dropout(dropout), nn.ReLU(), AnySizeBatchNorm(width)


# --- 3. policies, their critic and their reward ---


class Actor(nn.Module):
    """One deterministic policy per modality: ``a = sigmoid(w s + b)``, an action in (0, 1) for each position [C]."""

    def __init__(self, modalities: Sequence[str], config: CollaborativeMMCLConfig):
        super().__init__()
        self.score = nn.ModuleDict({m: nn.Linear(config.width, 1) for m in modalities})

    def forward(self, state: PerModality, noise: float = 0.0) -> dict[str, Tensor]:
        """States ``(B, T, d)`` to actions ``(B, T)``; ``noise``: deviation of noise before the sigmoid."""
        actions = {}
        for m, x in state.items():
            score = self.score[m](x).squeeze(-1)
            actions[m] = (score + noise * torch.randn_like(score) if noise else score).sigmoid()
        return actions


class Critic(nn.Module):
    """The value ``Q(s, a)`` of gating states with actions.

    Each state has its action appended ``heads`` times, so that the width stays a multiple of the heads [C].

    Args:
        modalities: their names, in order.
        config: ``reward="joint"``: one value from all modalities [C], ``"per_modality"``: one value for each from its
            own state and action alone [R].
    """

    def __init__(self, modalities: Sequence[str], config: CollaborativeMMCLConfig):
        super().__init__()
        self.heads, self.joint = config.heads, config.reward == "joint"
        inner = config.width + config.heads
        sizes = (inner, config.heads, config.feedforward)
        self.summary = nn.ModuleDict({m: SequenceSummary(*sizes) for m in modalities})
        if self.joint:
            self.value = self._head(inner * len(modalities), config)
        else:
            self.value = nn.ModuleDict({m: self._head(inner, config) for m in modalities})

    @staticmethod
    def _head(inputs: int, config: CollaborativeMMCLConfig) -> nn.Sequential:
        d = config.width
        dropout = config.dropout if config.dropout_critic is None else config.dropout_critic
        return nn.Sequential(nn.Linear(inputs, 2 * d), *_hidden(2 * d, d, dropout), nn.Linear(d, 1))

    def forward(self, state: PerModality, action: PerModality, valid: PerModality) -> Tensor:
        """States ``(B, T, d)``, actions ``(B, T)`` and masks per modality to ``(B, 1)``, or ``(B, M)`` if not joint."""
        seen = {}
        for m, x in state.items():
            repeated = action[m].unsqueeze(-1).expand(-1, -1, self.heads)
            seen[m] = self.summary[m](torch.cat([x, repeated], dim=-1), valid[m])
        if self.joint:
            return self.value(torch.cat(list(seen.values()), dim=-1))
        return torch.cat([self.value[m](x) for m, x in seen.items()], dim=-1)


class ActorCritic(nn.Module):
    """The policies ``gates``, their ``critic`` where there is a reward, and ``target`` copies of both, if any."""

    def __init__(self, modalities: Sequence[str], config: CollaborativeMMCLConfig):
        super().__init__()
        self.gates = Actor(modalities, config)
        self.critic = Critic(modalities, config) if config.learns_from_reward else None
        self.target: nn.ModuleDict | None = None


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
    if task.kind == "emotions" and variant == "reference":
        flat = prediction.flatten(0, 1).softmax(-1)  # (B K, 2)
        return flat[: len(labels)].gather(1, truth).sum(-1)
    probability = prediction.softmax(-1).gather(-1, truth.unsqueeze(-1)).squeeze(-1)  # of the true answers
    return probability if task.kind == "classes" else probability.mean(-1)


class ReplayBuffer:
    """Rows of named tensors: whole batches go in and come out, without a loop over samples.

    Args:
        capacity: it always holds fewer rows; where a batch would fill it up, the older half is dropped first [C].
        last_batch: hold the batch that was stored last and nothing else.

    Attributes:
        rows: the content, ``(n, …)`` by name.
    """

    def __init__(self, capacity: int, last_batch: bool = False):
        self.capacity, self.last_batch = capacity, last_batch
        self.rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()), ()))

    def store(self, rows: Mapping[str, Tensor]) -> None:
        """Append ``rows``: tensors ``(n, …)`` under the same names and shapes each time, as float32 or bool.

        Raises:
            ConfigError: the batch does not fit into the buffer.
        """
        count, older = len(next(iter(rows.values()))), {} if self.last_batch else self.rows
        kept = len(self) if older else 0
        if older and kept + count >= self.capacity:
            older, kept = {name: x[kept // 2 :] for name, x in older.items()}, kept - kept // 2
        if not self.last_batch and kept + count >= self.capacity:
            raise ConfigError(
                f"a replay buffer of {self.capacity} is too small for batches of {count}; "
                f"set replay_capacity above {2 * count}"
            )
        new = {name: x.detach() if x.dtype == torch.bool else x.detach().float() for name, x in rows.items()}
        self.rows = {name: torch.cat([older[name], x]) for name, x in new.items()} if older else new

    def can_sample(self, size: int) -> bool:
        """Whether it holds more than ``size`` rows, as the code asks [C]; of the last batch, so many."""
        return len(self) > size or (self.last_batch and len(self) == size)

    def sample(self, size: int) -> dict[str, Tensor]:
        """``size`` different rows, drawn with the global generator of the CPU."""
        drawn = torch.randperm(len(self))[:size]
        return {name: x[drawn.to(x.device)] for name, x in self.rows.items()}

    def clear(self) -> None:
        """Forget all rows."""
        self.rows = {}


# --- the method ---


class Decoupled(NamedTuple):
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


class CollaborativeMMCL(Method):
    """One projection per modality, the decoupling, attention on the common parts, gates on the specific ones.

    Task, critic and actor take turns. With settings of the reference, or with a future (``gamma > 0``), an instance of
    that subclass in :mod:`collaborative_reference` is made which overrides what differs.

    Representations: per modality ``common`` and ``specific`` (means over valid positions), ``enhanced`` (mean of the
    attended common part) and ``complementary`` (summary of the gated specific part); ``"fusion"``.
    Auxiliary: ``"gates/<modality>"``, ``(B, T)``.

    Raises:
        ConfigError: fewer than two modalities, settings that contradict each other, or input that is not word-aligned.
    """

    id = "collaborative_mmcl"
    Config = CollaborativeMMCLConfig
    config: CollaborativeMMCLConfig
    encoder_modules = ("project", "attend")

    def __new__(cls, dims=None, task=None, config=None):
        if config is None:  # a copy is being made
            return super().__new__(cls)
        from mmsa_lib.methods.collaborative_reference import class_for

        needed = class_for(config)
        if not issubclass(cls, needed) and cls is not CollaborativeMMCL:
            raise ConfigError(
                f"{cls.__qualname__} can't be had with these settings; let it extend {needed.__qualname__}"
            )
        return super().__new__(needed if cls is CollaborativeMMCL else cls)

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: CollaborativeMMCLConfig):
        super().__init__(dims, task, config)
        names = self.modalities
        if len(names) < 2:
            raise ConfigError(f"{self.id} compares modalities; the data has only {names[0]}")
        self.project = nn.ModuleDict({m: nn.Linear(dim, config.width) for m, dim in self.dims.items()})
        self.attend = nn.ModuleDict()
        if not config.no_intra_attention:
            sizes = (config.width, config.heads, config.dropout_attention)
            self.attend.update({m: ContextAttention(*sizes) for m in names})
        # The predictor first: with or without policies and critic it starts from the same weights.
        self.predictor = Predictor(names, task.outputs, config)
        self.policy = None if config.no_policy else ActorCritic(names, config)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of the longest training sample
        self.replay = ReplayBuffer(config.replay_capacity, config.replay == "batch")
        self._plateaus: dict[str, Tensor] = {}

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
        self.replay.clear()
        self._plateaus = {}

    # --- the network ---

    def forward(self, batch: Batch) -> Output:
        """Predict from the common parts and the specific parts gated by the policies; the critic takes no part."""
        parts = self.decouple(batch)
        return self.act(parts, parts.specific)[0]

    def decouple(self, batch: Batch) -> Decoupled:
        """Project and decouple: ``Z_m``, then ``P_m`` and ``N_m``. The matrices are what the notebook draws."""
        config = self.config
        features, valid = self.sequences(self.encode_text(batch))
        z = {m: self.project[m](x) for m, x in features.items()}
        if config.no_decoupling:
            return Decoupled(z, z, valid, {})
        common, specific, weights = decouple(z, valid, **config.decoupling_options)
        return Decoupled(common, specific, valid, weights)

    def sequences(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features ``(B, T, d_m)`` and masks ``(B, T)`` that are decoupled."""
        longest = self.config.longest
        features = {m: batch.features[m][:, :longest] for m in self.modalities}
        valid = {m: batch.valid[m][:, :longest] for m in self.modalities}
        if self.config.unaligned == "refuse":
            check_aligned(valid, batch.ids)
        # Trimming may leave a batch of one-word samples; two positions, one of them padding, give the same result.
        length = min(2, int(self.steps))
        return {m: pad_steps(x, length) for m, x in features.items()}, {
            m: pad_steps(x, length) for m, x in valid.items()
        }

    def act(self, parts: Decoupled, state: PerModality, noise: float = 0.0) -> tuple[Output, dict[str, Tensor]]:
        """The output for the actions ``a = mu(s)`` in ``state``, and the embeddings ``(B, 2 d)`` behind it."""
        common, specific, valid, _ = parts
        if self.policy is None:
            actions = {m: x.new_ones(x.shape[:2]) for m, x in specific.items()}
        else:
            actions = self.policy.gates(state, noise)
        enhanced = {m: self.attend[m](x, valid[m]) if self.attend else x for m, x in common.items()}
        gated = {m: x * actions[m].unsqueeze(-1) for m, x in specific.items()}  # N_m * a_m
        embedded = self.predictor.embed(enhanced, gated, valid)
        fused = self.predictor.fuse(embedded)
        named = {}
        for m in self.modalities:
            named[f"{m}/common"], named[f"{m}/specific"] = (masked_mean(x[m], valid[m]) for x in (common, specific))
            named[f"{m}/enhanced"], named[f"{m}/complementary"] = embedded[m].chunk(2, dim=-1)
        prediction = to_label_scale(self.task, self.predictor.head(fused))
        return Output(prediction, named | {"fusion": fused}, {f"gates/{m}": a for m, a in actions.items()}), embedded

    # --- the objective and its players ---

    def losses(self, batch: Batch, output: Output) -> Losses:
        """``loss = w1 task``; actor and critic learn from experience, not from a term of the batch's loss."""
        task = self.task.loss(output.prediction, batch.labels, batch.labelled)
        return Losses(task=(self.config.weight_task, task))

    def players(self) -> dict[str, list[nn.Module]]:
        """Who trains what: ``task`` all but the critic, gates included, ``actor`` the gates, ``critic`` the critic."""
        policy = [] if self.policy is None else [self.policy.gates]
        players: dict[str, list[nn.Module]] = {"task": [self.project, self.attend, *policy, self.predictor]}
        if self.config.learns_from_reward:
            players |= {"actor": [self.policy.gates], "critic": [self.policy.critic]}
        return players

    def optimizers(self) -> dict[str, Optimizer]:
        """One Adam for each of the :meth:`players`, with moments of its own."""
        config = self.config
        own = {"critic": config.learning_rate_critic, "actor": config.learning_rate_actor}
        made: dict[str, Optimizer] = {}
        for name, modules in self.players().items():
            text = self.text_parameter_groups() if name == "task" else []
            parameters = [p for module in modules for p in module.parameters()]
            plain = {"lr": own.get(name) or config.learning_rate, "weight_decay": config.weight_decay}
            made[name] = Adam([*text, {"params": parameters, **plain, "name": "rest"}], fused=True)
        return made

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """A contextual bandit: one task step; then one step of critic and actor, on the samples' own states.

        Returns:
            ``raw/…`` and ``loss/…`` of task, critic and actor (``loss/total`` is the task's alone), and the means of
            rewards (``policy/reward``) and gates (``policy/gate``).

        Raises:
            RunError: a term is not finite; names it.
        """
        parts = self.decouple(batch)
        experience, log = self.task_step(batch, parts, parts.specific, optimizers)  # s = N, a = mu(s), r
        if self.config.learns_from_reward:
            log |= self.practise(experience, optimizers)
        return log

    def practise(self, experience: Mapping[str, Tensor], optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Store what was experienced, but for samples without a reward; then ``rl_steps`` steps of critic and actor.

        Returns:
            Losses of the last step; nothing while too few samples are stored.
        """
        rewarded = ~experience["reward"].isnan().any(dim=1)
        size = len(rewarded)
        if not rewarded.all():
            experience = {name: x[rewarded] for name, x in experience.items()}
            size = int(rewarded.sum()) if self.replay.last_batch else size
        if rewarded.any():
            self.replay.store(experience)
        log: dict[str, float] = {}
        for _ in range(self.config.rl_steps if size else 0):
            log = self.learn(size, optimizers)
        return log

    def task_step(
        self, batch: Batch, parts: Decoupled, state: PerModality, optimizers: Mapping[str, Optimizer]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Act in ``state``, and one step on the task loss; returns what was experienced by it, and the log.

        The experience holds ``state/<modality>``, ``action/…`` and ``valid/…``, each padded to ``steps`` positions, and
        ``reward`` where there is one: ``(B, 1)``, or ``(B, M)``; NaN for samples that are not labelled.
        """
        output, embedded = self.act(parts, state, self.config.exploration)
        actions = {m: output.auxiliary[f"gates/{m}"].detach() for m in self.modalities}
        experience = self.flatten(state=state, action=actions, valid=parts.valid)
        if self.config.learns_from_reward:
            # The reward is that of the prediction which was made, so it comes before the weights move.
            experience["reward"] = self.rewards(output, embedded, batch)
        stepped = [optimizers[name] for name in self.task_players if name in optimizers]
        for optimizer in stepped:
            optimizer.zero_grad(set_to_none=True)
        log = backward(self.losses(batch, output))
        for optimizer in stepped:
            optimizer.step()
        valid_actions = torch.cat([actions[m][parts.valid[m]] for m in self.modalities])
        if len(valid_actions):
            log["policy/gate"] = valid_actions.float().mean().item()
        rewards = experience.get("reward", torch.empty(0))
        if len(rewards := rewards[~rewards.isnan()]):
            log["policy/reward"] = rewards.mean().item()
        return experience, log

    task_players: tuple[str, ...] = ("task",)

    @torch.no_grad()
    def rewards(self, output: Output, embedded: PerModality, batch: Batch) -> Tensor:
        """``(B, 1)`` of the training prediction, or one per modality: ``(B, M)``, see :meth:`Predictor.alone`.

        Samples that are not labelled have none: their rows are NaN.
        """
        if self.config.reward == "joint":
            predictions = [output.prediction]
        else:
            self.predictor.eval()  # no dropout, and the running statistics stay those of whole predictions
            raw = [self.predictor(self.predictor.alone(m, embedded)) for m in self.modalities]
            self.predictor.train()
            predictions = [to_label_scale(self.task, x) for x in raw]
        if batch.labelled is None:
            return torch.stack([self.reward(x, batch.labels) for x in predictions], dim=1)
        rows = batch.labelled
        rewards = output.prediction.new_full((len(batch), len(predictions)), torch.nan, dtype=torch.float32)
        if rows.any():
            rewards[rows] = torch.stack([self.reward(x[rows], batch.labels[rows]) for x in predictions], dim=1)
        return rewards

    def reward(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """``r``, ``(B,)``."""
        return joint_reward(prediction.float(), labels, self.task, form=self.config.reward_form)

    def learn(self, size: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        r"""One step of critic and actor on ``size`` stored samples, once there are so many; returns their losses.

        Critic: :math:`w_2\,\mathbb E|Q(s,a)-r|`. Actor: :math:`-w_2\,\mathbb EQ(s,\mu(s))`, whose gradient reaches
        nothing but the gates.

        Raises:
            RunError: one of them is not finite.
        """
        if not self.replay.can_sample(size):
            return {}
        policy, sampled = self.policy, self.replay.sample(size)
        state, action, valid = (self.unflatten(sampled, name) for name in ("state", "action", "valid"))
        target = self.targets(sampled)  # (B, 1) or (B, M), as Q
        error = F.l1_loss(policy.critic(state, action, valid), target)
        raw = {"critic": self._step("critic", error, policy.critic, optimizers)}
        value = policy.critic(state, policy.gates(state), valid).mean()
        raw["actor"] = self._step("actor", -value, policy.gates, optimizers)
        weighted = {f"loss/{name}": self.config.weight_rl * loss for name, loss in raw.items()}
        return {f"raw/{name}": loss for name, loss in raw.items()} | weighted

    def targets(self, sampled: PerModality) -> Tensor:
        """What the critic is to say: the reward, since a sample has no next state."""
        return sampled["reward"]

    def _step(self, name: str, loss: Tensor, trained: nn.Module, optimizers: Mapping[str, Optimizer]) -> float:
        """One step of optimiser ``name`` on ``w2 loss``, whose gradient reaches ``trained`` alone."""
        if not loss.isfinite():
            raise RunError(f"loss term {name} is {loss.item()}; lower the learning rate or look at the input features")
        parameters = list(trained.parameters())
        gradients = torch.autograd.grad(self.config.weight_rl * loss, parameters)
        optimizers[name].zero_grad(set_to_none=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizers[name].step()
        return loss.item()

    def flatten(self, **named: PerModality) -> dict[str, Tensor]:
        """Tensors ``(B, T, …)`` per modality as ``"<name>/<modality>"``: detached, padded to ``steps`` positions."""
        steps = int(self.steps)
        return {f"{name}/{m}": pad_steps(x.detach(), steps) for name, own in named.items() for m, x in own.items()}

    def unflatten(self, flat: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
        """What :meth:`flatten` made of ``name``, per modality."""
        return {m: flat[f"{name}/{m}"] for m in self.modalities}

    # --- between epochs ---

    def end_validation(self, value: float, optimizers: Mapping[str, Optimizer]) -> None:
        """Lower the learning rates where the validation loss stands still, each with its own patience [C]."""
        config = self.config
        for name, optimizer in optimizers.items():
            patience = config.plateau_patience_task if name == "task" else config.plateau_patience_rl
            scheduler = ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=patience)
            if name in self._plateaus:
                scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch = self._plateaus[name].tolist()
            scheduler.step(value)
            state = [scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch]
            self._plateaus[name] = torch.tensor(state, dtype=torch.float64)

    def training_state(self) -> dict[str, Tensor]:
        """The buffer, and per optimiser the best validation loss, the epochs since, and the epochs so far."""
        replay = {f"replay/{name}": x for name, x in self.replay.rows.items()}
        return replay | {f"plateau/{name}": x for name, x in self._plateaus.items()}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back."""
        self.replay.rows = {name: x.to(self.steps.device) for name, x in _under("replay", state).items()}
        self._plateaus = _under("plateau", state)


def pad_steps(x: Tensor, steps: int) -> Tensor:
    """``(B, T, …)`` to ``(B, max(T, steps), …)``, with zeros at the end."""
    missing = max(0, steps - x.shape[1])
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x


def _under(part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): x for name, x in state.items() if name.startswith(f"{part}/")}
