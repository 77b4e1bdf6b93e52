"""Values of ``hrlf``. The paper was read in full; it gives no network sizes and no distribution of missing data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import MethodConfig
from mmsa_lib.methods.evidence import Sourced, evidence

ScaleMerge = Literal["concat", "mean"]

_DATASETS = ("mosi", "mosei", "iemocap")

# HRLF, implementation details, one column per data set in the order above [P].
_PAPER: dict[str, tuple[Any, Any, Any]] = {
    "batch_size": (128, 16, 32),
    "learning_rate": (1e-3, 2e-3, 4e-3),
    "max_epochs": (50, 20, 30),
    "heads": (10, 8, 10),
}


def _stated(name: str, meaning: str, unit: str = "", **constraints: Any) -> Any:
    """A field that the paper states per data set; elsewhere its value for MOSI is our choice."""
    source = "the paper's value for MOSI [P], on data sets that it has no values for"
    return evidence(_PAPER[name][0], tag="R", source=source, meaning=meaning, unit=unit, **constraints)


class HRLFConfig(MethodConfig):
    """Values of ``hrlf``; the ``no_…`` switches are its ablations."""

    text_encoder: Literal["precomputed"] = evidence(
        "precomputed", tag="P", source="GloVe features",
        meaning="text features come from the data set; teacher and student would each need an encoder of their own",
    )  # fmt: skip
    batch_size: int = _stated("batch_size", "samples per step", "samples", ge=1)
    learning_rate: float = _stated("learning_rate", "learning rate of all networks (Adam)", "per step", gt=0)
    weight_decay: float = evidence(0.0, tag="R", source="the paper mentions none", meaning="weight decay", ge=0)
    max_epochs: int = _stated("max_epochs", "limit of epochs of the teacher, and of the student", "epochs", ge=1)
    patience: int = evidence(
        50, tag="R", source="the paper states epochs and no early stop, so all of them are run",
        meaning="epochs without a better validation loss before a phase stops", unit="epochs", ge=1,
    )  # fmt: skip
    width: int = evidence(40, tag="P", source="HRLF", meaning="d, width of states Z", unit="features", ge=1)
    heads: int = _stated("heads", "attention heads", ge=1)
    layers: int = evidence(2, tag="R", source="ours; the paper gives no depth", meaning="Transformer layers", ge=1)
    feedforward: int = evidence(
        160, tag="R", source="ours, 4 d", meaning="hidden width inside Transformer layers", ge=1
    )
    dropout: float = evidence(0.1, tag="R", source="ours", meaning="dropout in Transformer layers", ge=0, lt=1)
    qu_dim: int = evidence(
        20, tag="R", source="d/2: the only width for which H, joined from Q and U, is 3 d wide as the paper says",
        meaning="width of Q and of U; with another one a first layer brings H to n d", unit="features", ge=1,
    )  # fmt: skip
    scale_merge: ScaleMerge = evidence(
        "concat", tag="R", source="the paper says concatenated, but prints the widths (3d, 2d, d) of means",
        meaning="how features of one scale are joined: widths (2nd, 4d, d), or (nd, 2d, d) with mean",
    )  # fmt: skip
    critic_hidden: int = evidence(
        64, tag="R", source="ours", meaning="hidden width of statistics networks and discriminators", ge=1
    )
    msm: Literal["stochastic", "none"] = evidence(
        "stochastic", tag="R", source="the strategy is the paper's, its distribution ours",
        meaning="what the student sees: incomplete copies of the samples, or the samples; validation sees the same",
    )  # fmt: skip
    hal: Literal["saturating", "nonsaturating"] = evidence(
        "saturating", tag="P", source="HRLF, equation 9",
        meaning="what the student minimises: equation 9, or -log D of itself",
    )  # fmt: skip
    frf_detach: bool = evidence(
        False, tag="P", source="HRLF prints no stopped gradient", meaning="no gradient through the targets of FRF"
    )
    frf_warmup: int = evidence(
        0, tag="R", source="the paper has no schedule; with one for the teacher alone the student still collapses [T]",
        meaning="epochs of each phase over which lambda_frf rises from 0 to its value", unit="epochs", ge=0,
    )  # fmt: skip
    lambda_frf: float = evidence(1.0, tag="P", source="HRLF prints no coefficient", meaning="weight of FRF", ge=0)
    lambda_hmi: float = evidence(1.0, tag="P", source="HRLF prints no coefficient", meaning="weight of HMI", ge=0)
    lambda_hal: float = evidence(1.0, tag="P", source="HRLF prints no coefficient", meaning="weight of HAL", ge=0)
    lambda_kl: float = evidence(1.0, tag="P", source="HRLF prints no coefficient", meaning="weight of KL", ge=0)
    collapse_guard: float = evidence(
        0.01, tag="R", source="ours; FRF alone makes Z a constant [T]",
        meaning="a run fails when the spread of Z over samples is below this share of its start; 0 never", ge=0, lt=1,
    )  # fmt: skip
    no_frf: bool = evidence(
        False, tag="P", source="HRLF, Table 3; two plain projections in its place are ours [R]",
        meaning="lambda_frf = 0, no decoder, Q and U are linear in Z",
    )  # fmt: skip
    no_hmi: bool = evidence(False, tag="P", source="HRLF, Table 3", meaning="lambda_hmi = 0")
    no_hal: bool = evidence(False, tag="P", source="HRLF, Table 3", meaning="lambda_hal = 0, no discriminator")
    no_kl: bool = evidence(False, tag="R", source="ours", meaning="lambda_kl = 0")
    no_teacher: bool = evidence(
        False, tag="R", source="ours: what the method adds over training with missing data",
        meaning="train the student alone: no teacher phase, no HMI, HAL and KL",
    )  # fmt: skip

    per_dataset = {
        dataset: {
            name: Sourced(values[column], "P", f"HRLF, implementation details, {dataset}")
            for name, values in _PAPER.items()
        }
        for column, dataset in enumerate(_DATASETS)
    }

    @field_validator("text_encoder", mode="before")
    @classmethod
    def _refuse_tokens(cls, value: Any) -> Any:
        if value == "bert":
            raise ConfigError("hrlf reads precomputed text features; leave text_encoder='bert' out")
        return value
