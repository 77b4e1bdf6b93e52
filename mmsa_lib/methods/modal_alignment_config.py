"""Values of ``modal_alignment``: those of its parent Self-MM, and of the covariance branch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.methods.evidence import evidence
from mmsa_lib.methods.self_mm_config import SelfMMConfig

PairName = Literal["text-audio", "text-vision", "audio-vision"]
PairMode = Literal["shared", "off", "private"]


def pair_name(pair: Any) -> Any:
    """``("vision", "audio")`` or ``"vision-audio"`` as ``"audio-vision"``; anything else is left to the validation."""
    parts = pair.split("-") if isinstance(pair, str) else pair
    try:
        return "-".join(sorted(parts, key=MODALITIES.index))
    except (TypeError, ValueError):
        return pair


def _named_modes(modes: Any) -> Any:
    return {pair_name(pair): mode for pair, mode in modes.items()} if isinstance(modes, dict) else modes


Pair = Annotated[PairName, BeforeValidator(pair_name)]
PairModes = Annotated[PairMode | dict[PairName, PairMode], BeforeValidator(_named_modes)]


class ModalAlignmentConfig(SelfMMConfig):
    """Values of ``modal_alignment``. Inherited ones come from the parent's code and are tagged P."""

    no_ulgm: bool = evidence(
        False, tag="R", source="ablation of the self-supervised part", meaning="without the private loss L1"
    )
    no_alignment: bool = evidence(
        False, tag="R", source="ablation of the shared part", meaning="lambda_cov = 0: what remains is the host"
    )
    lambda_cov: float = evidence(
        1.0, tag="R", source="the figure merges the losses without weights [A]; 1 is the literal sum",
        meaning="weight of the covariance loss L3; at 1 it is about a thousandth of L1 + L2", ge=0,
    )  # fmt: skip
    pairs: tuple[Pair, ...] | None = evidence(
        None, tag="A", source="authors' figure: only M_a and M_v enter L3",
        meaning=(
            "aligned pairs; None: audio-vision, or with two modalities the only pair there is (a declared variant)"
        ),
    )  # fmt: skip
    pair_mode: PairModes = evidence(
        "shared", tag="R", source="'shared or private information between chosen modalities' [A], form ours",
        meaning="shared pulls a pair's covariances together, private pushes them apart, off leaves them; or per pair",
    )  # fmt: skip
    cov_batch: Literal["micro", "accumulated", "ema"] = evidence(
        "micro", tag="R", source="the plain reading of the parent's loop",
        meaning="samples behind a covariance: the micro-batch, all of one optimiser step, or a moving average",
    )  # fmt: skip
    ema_decay: float = evidence(
        0.9, tag="R", source="ours", meaning="weight of the past with cov_batch='ema'", ge=0, lt=1
    )
    min_cov_samples: int = evidence(
        1, tag="R", source="ours; 8 is worth trying: the noise floor grows as 1/(B-1)",
        meaning="fewer samples than this give no covariance loss", unit="samples", ge=1,
    )  # fmt: skip
    d_M: int = evidence(
        32, tag="R", source="ours, grid 16, 32, 64", meaning="common width of M_t, M_a, M_v", unit="features", ge=1
    )
    activation: Literal["relu", "tanh"] | None = evidence(
        None, tag="R", source="ours; ReLU would confine M to the positive orthant", meaning="activation of M"
    )
    norm: Literal["layernorm"] | None = evidence(
        None, tag="R", source="ours; against minimising L3 by shrinking M", meaning="normalisation of M"
    )
    host: Literal["self_mm", "late_fusion"] = evidence(
        "self_mm", tag="R", source="plug-and-play claim of the abstract [A]; late_fusion ours",
        meaning="network that the covariance branch is plugged into; settings that late_fusion lacks do not reach it",
    )  # fmt: skip


def _inherit_as_parent() -> None:
    """What is read in Self-MM's code [C there] is evidence of a parent here [P]."""
    own = ModalAlignmentConfig.__annotations__
    for name, field in ModalAlignmentConfig.model_fields.items():
        extra = field.json_schema_extra
        if name not in own and extra["tag"] == "C":
            field.json_schema_extra = {**extra, "tag": "P", "source": f"parent: {extra['source']}"}
    ModalAlignmentConfig.per_dataset = {
        dataset: {name: known._replace(tag="P", source=f"parent: {known.source}") for name, known in values.items()}
        for dataset, values in SelfMMConfig.per_dataset.items()
    }


_inherit_as_parent()
