"""Values of ``collaborative_mmcl``. The paper is withdrawn and gave no readable text; most are from its code [C]."""

from __future__ import annotations

from typing import Literal

from mmsa_lib.methods.base import MethodConfig
from mmsa_lib.methods.collaborative_networks import Fusion
from mmsa_lib.methods.evidence import Sourced, evidence
from mmsa_lib.methods.rewards import RewardForm
from mmsa_lib.nn.decoupling import Align, Comparison, Unaligned, Variant

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
