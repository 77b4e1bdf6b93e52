"""Methods: a network, its objective and its step, one file per paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, UnknownNameError, unknown_name
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL
from mmsa_lib.methods.contrastive_mmcl import ContrastiveMMCL
from mmsa_lib.methods.evidence import provenance
from mmsa_lib.methods.fusion_baselines import EarlyFusion, LateFusion, TextOnly
from mmsa_lib.methods.hrlf import HRLF
from mmsa_lib.methods.modal_alignment import ModalAlignment
from mmsa_lib.methods.self_mm import SelfMM

__all__ = ["METHODS", "Method", "MethodConfig", "Output", "create", "method_class", "provenance"]

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
"""Every trainable method by its id. A method of one's own joins with ``METHODS["mine"] = Mine``."""

_OURS = dict(METHODS)


def method_class(method_id: str) -> type[Method]:
    """The class that is registered as ``method_id``.

    Raises:
        UnknownNameError: there is none; names the nearest ones.
        ConfigError: what is registered is no method.
    """
    if method_id not in METHODS:
        unknown = unknown_name("method", method_id, METHODS)
        raise UnknownNameError(f"{unknown} (a method of your own is registered with METHODS[name] = class)")
    cls = METHODS[method_id]
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"METHODS[{method_id!r}] is {cls!r}; register a class that extends mmsa_lib.methods.Method")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, MethodConfig)):
        raise ConfigError(f"{cls.__qualname__}.Config must be a class that extends mmsa_lib.methods.MethodConfig")
    if not isinstance(getattr(cls, "id", None), str):
        raise ConfigError(f"{cls.__qualname__} has no id; write id = {method_id!r} into the class")
    if cls.__abstractmethods__:
        raise ConfigError(f"{cls.__qualname__} must define {', '.join(sorted(cls.__abstractmethods__))}")
    return cls


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
        ConfigError: a setting is ill-typed or out of range, the data does not suit the method, or a class of one's own
            took the name of a method of this library.
    """
    if method_id.partition("_")[0] == "constant":
        raise ConfigError(
            f"{method_id!r} is not trained; its metrics come from mmsa_lib.evaluation.baselines.constant_metrics"
        )
    cls = method_class(method_id)
    ours = _OURS.get(method_id)
    if ours is not None and (cls.__module__, cls.__qualname__) != (ours.__module__, ours.__qualname__):
        raise ConfigError(
            f"{method_id!r} is a method of mmsa_lib, and tables could not tell {cls.__qualname__} from it; register it "
            "under another name"
        )
    return cls(dims, task, cls.Config.for_dataset(dataset, **config))
