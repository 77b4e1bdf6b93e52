"""Values of ``self_mm``, with MMSA's own per data set."""

from __future__ import annotations

from typing import Any, Literal

from mmsa_lib.methods.accumulation import AccumulationConfig
from mmsa_lib.methods.evidence import Sourced, evidence

TaskLetter = Literal["M", "T", "A", "V"]

_DATASETS = ("mosi", "mosei", "sims", "simsv2")

# MMSA config_regression.json at a94e65d, one column per data set in the order above.
_MMSA: dict[str, tuple[Any, Any, Any, Any]] = {
    "batch_size": (16, 32, 32, 16),
    "learning_rate": (1e-3, 1e-3, 1e-3, 1e-3),
    "learning_rate_text": (5e-5, 5e-5, 5e-5, 5e-5),
    "learning_rate_audio": (5e-3, 5e-3, 5e-3, 1e-3),
    "learning_rate_vision": (5e-3, 1e-4, 5e-3, 1e-3),
    "weight_decay": (1e-3, 1e-2, 1e-3, 1e-3),
    "weight_decay_text": (1e-3, 1e-3, 1e-3, 1e-2),
    "weight_decay_audio": (1e-3, 0.0, 1e-2, 0.0),
    "weight_decay_vision": (1e-3, 0.0, 1e-2, 0.0),
    "audio_hidden": (16, 16, 16, 16),
    "vision_hidden": (32, 32, 64, 64),
    "audio_out": (16, 16, 16, 16),
    "vision_out": (32, 32, 32, 32),
    "post_fusion_dim": (128, 128, 128, 128),
    "post_text_dim": (32, 32, 64, 64),
    "post_audio_dim": (16, 16, 16, 32),
    "post_vision_dim": (32, 32, 32, 32),
    "post_fusion_dropout": (0.0, 0.1, 0.0, 0.0),
    "post_text_dropout": (0.1, 0.0, 0.1, 0.0),
    "post_audio_dropout": (0.1, 0.0, 0.1, 0.1),
    "post_vision_dropout": (0.0, 0.0, 0.0, 0.0),
    "label_bound": (3.0, 3.0, 1.0, 3.0),
}


def _tuned(name: str, meaning: str, unit: str = "", **constraints: Any) -> Any:
    """A field that MMSA tuned per data set; elsewhere its value for MOSI is our choice."""
    source = "MMSA's value for MOSI, on data sets that MMSA has no values for"
    return evidence(_MMSA[name][0], tag="R", source=source, meaning=meaning, unit=unit, **constraints)


class SelfMMConfig(AccumulationConfig):
    """Values of ``self_mm``; the switches are its ablations."""

    batch_size: int = _tuned("batch_size", "samples per micro-batch", "samples", ge=1)
    learning_rate: float = _tuned("learning_rate", "learning rate of all other parameters", "per step", gt=0)
    learning_rate_text: float = _tuned(
        "learning_rate_text", "learning rate of a fine-tuned text encoder", "per step", gt=0
    )
    learning_rate_audio: float = _tuned("learning_rate_audio", "learning rate of the audio encoder", "per step", gt=0)
    learning_rate_vision: float = _tuned(
        "learning_rate_vision", "learning rate of the vision encoder", "per step", gt=0
    )
    weight_decay: float = _tuned("weight_decay", "weight decay of all other parameters", ge=0)
    weight_decay_text: float = _tuned(
        "weight_decay_text", "weight decay of a fine-tuned text encoder; biases and norms have none", ge=0
    )
    weight_decay_audio: float = _tuned("weight_decay_audio", "weight decay of the audio encoder", ge=0)
    weight_decay_vision: float = _tuned("weight_decay_vision", "weight decay of the vision encoder", ge=0)
    audio_hidden: int = _tuned("audio_hidden", "state size of the audio LSTM", ge=1)
    vision_hidden: int = _tuned("vision_hidden", "state size of the vision LSTM", ge=1)
    audio_out: int = _tuned("audio_out", "width of Feature_a", ge=1)
    vision_out: int = _tuned("vision_out", "width of Feature_v", ge=1)
    post_fusion_dim: int = _tuned("post_fusion_dim", "width of the fusion feature F*_m", ge=1)
    post_text_dim: int = _tuned("post_text_dim", "width of the text feature F*_t", ge=1)
    post_audio_dim: int = _tuned("post_audio_dim", "width of the audio feature F*_a", ge=1)
    post_vision_dim: int = _tuned("post_vision_dim", "width of the vision feature F*_v", ge=1)
    post_fusion_dropout: float = _tuned("post_fusion_dropout", "dropout before the fusion layer", ge=0, lt=1)
    post_text_dropout: float = _tuned("post_text_dropout", "dropout before the text layer", ge=0, lt=1)
    post_audio_dropout: float = _tuned("post_audio_dropout", "dropout before the audio layer", ge=0, lt=1)
    post_vision_dropout: float = _tuned("post_vision_dropout", "dropout before the vision layer", ge=0, lt=1)
    label_bound: float | None = evidence(
        None, tag="R", source="MMSA: 3 on labels -3..3, 1 on -1..1; half the label range gives the same", gt=0,
        meaning="H, generated labels are clipped to [-H, H] around neutral; None: half of the task's label range",
        unit="label units",
    )  # fmt: skip
    tasks: tuple[TaskLetter, ...] = evidence(
        ("M", "T", "A", "V"), tag="C", source="MMSA, multi-task heads", min_length=1,
        meaning="heads that are trained; letters of modalities that the data lacks are left out",
    )  # fmt: skip
    single_task: bool = evidence(
        False, tag="C", source="Self-MM, ablation", meaning="train the multimodal head alone (tasks = M)"
    )
    no_ulgm: bool = evidence(
        False, tag="C", source="Self-MM, ablation",
        meaning="no generated labels: they stay the multimodal label (with weighting, that trains M alone)",
    )  # fmt: skip
    no_weighting: bool = evidence(
        False, tag="C", source="Self-MM, ablation", meaning="weight every unimodal sample with 1, not tanh|y_s - y_m|"
    )
    no_momentum: bool = evidence(
        False, tag="C", source="Self-MM, ablation", meaning="use the label of this epoch alone, not the weighted mean"
    )
    distance: Literal["l2", "scaled_sq"] = evidence(
        "l2", tag="C", source="Self-MM code; scaled_sq is said to be the paper's form [P, unverified]",
        meaning="distance to a class centre: L2, or squared L2 over sqrt(width)",
    )  # fmt: skip
    relative: Literal["pos", "centers"] = evidence(
        "pos", tag="C", source="Self-MM code; centers is a commented-out alternative in it",
        meaning="what divides D_n - D_p: the distance to the positive centre, or between the centres",
    )  # fmt: skip
    exclude_zero: bool = evidence(
        True, tag="C", source="MMSA config_regression.json, excludeZero",
        meaning="samples with generated label 0 count for no centre; otherwise for the positive one",
    )  # fmt: skip

    per_dataset = {
        dataset: {
            name: Sourced(values[column], "C", f"MMSA config_regression.json, Self-MM on {dataset}")
            for name, values in _MMSA.items()
        }
        for column, dataset in enumerate(_DATASETS)
    }
