"""Methods: a network, its objective and its step, one file per paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL
from mmsa_lib.methods.contrastive_mmcl import ContrastiveMMCL
from mmsa_lib.methods.evidence import provenance
from mmsa_lib.methods.fusion_baselines import EarlyFusion, LateFusion, TextOnly
from mmsa_lib.methods.hrlf import HRLF
from mmsa_lib.methods.modal_alignment import ModalAlignment
from mmsa_lib.methods.self_mm import SelfMM

__all__ = ["METHODS", "Method", "MethodConfig", "Output", "create", "provenance"]

METHODS: dict[str, type[Method]] = {
    method.id: method
    for method in (
        ContrastiveMMCL,
        CollaborativeMMCL,
        SelfMM,
        ModalAlignment,
        HRLF,
        TextOnly,
        EarlyFusion,
        LateFusion,
    )
}
"""Every trainable method by its id."""


def create(method_id: str, dims: Mapping[Modality, int], task: Task, *, dataset: str = "", **config: Any) -> Method:
    """A fresh method with the values known for ``dataset``, changed by ``config``.

    Args:
        method_id: a key of :data:`METHODS`.
        dims: feature width of each modality, as :attr:`mmsa_lib.data.batch.Utterances.dims` gives it.
        task: what is predicted.
        dataset: name of the data set, for ``Config.for_dataset``.
        config: values that differ from those.

    Raises:
        UnknownNameError: no such method or setting; names the nearest ones.
        ConfigError: a setting is ill-typed or out of range, or the data does not suit the method.
    """
    if method_id.partition("_")[0] == "constant":
        raise ConfigError(
            f"{method_id!r} is not trained; its metrics come from mmsa_lib.evaluation.baselines.constant_metrics"
        )
    if method_id not in METHODS:
        raise unknown_name("method", method_id, METHODS)
    cls = METHODS[method_id]
    return cls(dims, task, cls.Config.for_dataset(dataset, **config))
