"""Values of ``contrastive_mmcl``. The paper gives none of them, so nearly all are our choice."""

from __future__ import annotations

from typing import Literal

from mmsa_lib.losses.contrastive import Modulation
from mmsa_lib.losses.contrastive_pairs import Decouple, Positives
from mmsa_lib.methods.base import MethodConfig
from mmsa_lib.methods.evidence import evidence
from mmsa_lib.nn.routing import Squash

Categories = Literal["sign", "bins7", "ranked"]


class ContrastiveMMCLConfig(MethodConfig):
    """Values of ``contrastive_mmcl``; the ``no_…`` switches and ``single_stage`` are its ablations."""

    batch_size: int = evidence(
        64, tag="R", source="HSCL has 128 [P]; contrast needs negatives, so never below 32",
        meaning="samples per step; also the samples that are contrasted with each other", unit="samples", ge=1,
    )  # fmt: skip
    encoder: Literal["transformer", "lstm"] = evidence(
        "transformer", tag="R", source="ConFEDE and HSCL have Transformers, Self-MM an LSTM [P]; not available [X]",
        meaning="encoders of both stages",
    )  # fmt: skip
    width: int = evidence(
        64, tag="R", meaning="d, width of projections and states",
        source="half of HSCL's and Semi-IIN's 128 [P]: about equal validation error in under half the time [T]",
        unit="features", ge=1,
    )  # fmt: skip
    layers_specific: int = evidence(
        2, tag="R", source="ConFEDE 2, HSCL 3 [P]", meaning="layers of each modality's own encoder", ge=1
    )
    layers_shared: int = evidence(
        1, tag="R", source="ours; one encoder for all modalities as in MISA and DMD [P]",
        meaning="layers of the encoder that modalities share", ge=1,
    )  # fmt: skip
    heads: int = evidence(4, tag="R", source="ours", meaning="attention heads", ge=1)
    feedforward: int = evidence(
        128, tag="R", source="ours, twice the width", meaning="hidden width inside Transformer layers", ge=1
    )
    dropout: float = evidence(0.1, tag="R", source="ours", meaning="dropout in Transformer layers", ge=0, lt=1)
    capsules: int = evidence(
        8, tag="R", source="GraphCAGE 20 [P], reduced for batches of 64", meaning="K, capsules per sequence", ge=1
    )
    capsule_dim: int = evidence(
        32, tag="R", source="GraphCAGE [P]", meaning="d_c, width of one capsule", unit="features", ge=1
    )
    routing_iterations: int = evidence(
        3, tag="R", source="GraphCAGE [P]", meaning="r, computations of the coupling coefficients", ge=1
    )
    squash: Squash = evidence(
        "squash", tag="R", source="Sabour et al.; tanh in GraphCAGE [P]", meaning="activation of capsules"
    )
    temperature_cmc: float = evidence(
        0.1, tag="R", source="DCL .1, SupCon .07, ConFEDE and HSCL .5 [P]", meaning="temperature of CMC", gt=0
    )
    temperature_smc: float = evidence(0.1, tag="R", source="DCL .1 [P]", meaning="temperature of SMC", gt=0)
    modulation: Modulation = evidence(
        "focal", tag="R", source="weights grow with distance [A], formula ours",
        meaning="formula of the self-modulation factors in both modules",
    )  # fmt: skip
    gamma: float = evidence(
        1.0, tag="R", source="ours; larger values cost class separation on toy data [T]",
        meaning="exponent of the focal factors; 0 is plain SupCon", ge=0,
    )  # fmt: skip
    decoupled_cmc: bool = evidence(
        False, tag="R", source="SupCon keeps positives in the denominator [P]",
        meaning="only samples of other categories in the denominator of CMC",
    )  # fmt: skip
    decouple: Decouple = evidence(
        "cross_only", tag="R", source="'decoupling the self-contrast of all modalities' [A], reading ours",
        meaning="denominator of SMC: other samples of the other modality; all but the anchor itself (self_only); other "
        "samples of both modalities (keep_intra); cross_only plus a uniformity term inside each modality",
    )  # fmt: skip
    uniformity_weight: float = evidence(
        1.0, tag="R", source="ours", meaning="weight of that term with decouple='uniformity'", ge=0
    )
    positives: Positives = evidence(
        "instance", tag="R", source="SMC forms pairs by modality, in contrast to category [A]",
        meaning="positives of SMC: the same sample, or also samples of the same category",
    )  # fmt: skip
    categories: Categories = evidence(
        "sign", tag="R", source="classification_labels of the MMSA files [P]; ranked: HSCL's SupConR [P]",
        meaning="categories of CMC: sign of the label (or emotion pattern), seven bins over the label range, or none "
        "but a ranking by label distance (then temperature_cmc=0.5 as in HSCL)",
    )  # fmt: skip
    contrast_absent: bool = evidence(
        False, tag="R", source="ours: a modality without one observed frame has the same vector in every sample",
        meaning="contrast wholly missing modalities as well",
    )  # fmt: skip
    lambda_cmc: float = evidence(0.1, tag="R", source="ConFEDE .1, HSCL .01 and .1 [P]", meaning="weight of CMC", ge=0)
    lambda_smc: float = evidence(0.1, tag="R", source="ConFEDE .1, HSCL .01 and .1 [P]", meaning="weight of SMC", ge=0)
    task_loss: Literal["l1", "mse"] = evidence(
        "l1", tag="R", source="Self-MM, MMSA, HSCL; ConFEDE has the mean squared error [P]",
        meaning="loss of a sentiment value; emotions have cross-entropy",
    )  # fmt: skip
    schedule: Literal["T1", "T2"] = evidence(
        "T1", tag="R", source="two stages of one network with stopped gradients [A]; T2 as ConFEDE trains [P]",
        meaning="T1 trains both stages jointly; T2 first the specific stage, then the shared one on top",
    )  # fmt: skip
    finetune_epoch: int = evidence(
        6, tag="R", source="ours; ConFEDE unfreezes at a configured epoch [P]",
        meaning="first epoch of T2's second phase in which the specific stage is trained again", unit="epoch", ge=1,
    )  # fmt: skip
    no_cmc: bool = evidence(False, tag="R", source="ablation of a claimed module", meaning="lambda_cmc = 0")
    no_smc: bool = evidence(False, tag="R", source="ablation of a claimed module", meaning="lambda_smc = 0")
    no_modulation: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="all factors 1 (gamma = 0) in both modules"
    )
    no_routing: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="contrast masked means over time, not capsules"
    )
    no_stop_gradient: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="SMC also reaches the specific stage"
    )
    no_self_decoupling: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="decouple = self_only"
    )
    single_stage: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="one encoder per modality, both losses act on it"
    )
