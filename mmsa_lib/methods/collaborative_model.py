"""The network of ``collaborative_mmcl``: projections, decoupling, attention, gates, predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import Batch, Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import Method, Output
from mmsa_lib.methods.collaborative_mmcl_config import CollaborativeMMCLConfig
from mmsa_lib.methods.collaborative_networks import ContextAttention, Predictor
from mmsa_lib.methods.collaborative_policy import ActorCritic, PerModality, pad_steps
from mmsa_lib.nn.decoupling import check_aligned, decouple
from mmsa_lib.nn.heads import to_label_scale
from mmsa_lib.nn.sequence import masked_mean


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
