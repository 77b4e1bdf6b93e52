"""Methods: a network, its objective and its step, one file per paper."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmsa_lib.errors import ConfigError, UnknownNameError, unknown_name
from mmsa_lib.plugins import Registry

if TYPE_CHECKING:
    from mmsa_lib.data.record import Modality
    from mmsa_lib.data.task import Task
    from mmsa_lib.methods.base import Method, MethodConfig, Output
    from mmsa_lib.methods.evidence import provenance

__all__ = ["METHODS", "Method", "MethodConfig", "Output", "create", "method_class", "provenance"]

_OURS = {
    "contrastive_mmcl": "contrastive_mmcl:ContrastiveMMCL",
    "collaborative_mmcl": "collaborative_mmcl:CollaborativeMMCL",
    "self_mm": "self_mm:SelfMM",
    "modal_alignment": "modal_alignment:ModalAlignment",
    "hrlf": "hrlf:HRLF",
    "text_only": "fusion_baselines:TextOnly",
    "early_fusion": "fusion_baselines:EarlyFusion",
    "late_fusion": "fusion_baselines:LateFusion",
    "mult": "mult:MulT",
    "misa": "misa:MISA",
}
"""Module and class of each method of this package; the names alone are known without waiting for torch."""


def _check(method_id: str, cls: Any, where: str) -> None:
    """Raise a ConfigError, with ``where`` it comes from, unless ``cls`` is a method."""
    from mmsa_lib.methods.base import Method, MethodConfig

    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"{where} is {cls!r}; register a class that extends mmsa_lib.methods.Method")
    name, wrong = cls.__qualname__, ""
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, MethodConfig)):
        wrong = f"{name}.Config must be a class that extends mmsa_lib.methods.MethodConfig"
    elif not isinstance(getattr(cls, "id", None), str):
        wrong = f"{name} has no id; write id = {method_id!r} into the class"
    elif hasattr(cls, "loss_terms"):
        wrong = f"{name} defines loss_terms, which nothing calls; define losses(batch, output)"
    elif cls.__abstractmethods__:
        wrong = f"{name} must define {', '.join(sorted(cls.__abstractmethods__))}"
    if wrong:
        raise ConfigError(f"{where}: {wrong}")


def _check_offered(method_id: str, cls: Any, where: str) -> None:
    _check(method_id, cls, where)
    if cls.id != method_id:
        raise ConfigError(f"{where}: {cls.__qualname__} has id {cls.id!r}; write id = {method_id!r} into the class")


METHODS: Registry[type[Method]] = Registry(
    "mmsa_lib.methods",
    {name: f"{__name__}.{place}" for name, place in _OURS.items()},
    taken=lambda name: name.partition("_")[0] in ("constant", "oracle"),
    check=_check_offered,
)
"""Every trainable method by its id, those of installed packages included (docs/your_method.md). One of a notebook
joins with ``METHODS["mine"] = Mine``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'evidence' if name == 'provenance' else 'base'}"), name)


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
    _check(method_id, cls, f"METHODS[{method_id!r}]")
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
    ours = METHODS.ours.get(method_id)
    if ours and f"{cls.__module__}:{cls.__qualname__}" != ours:
        raise ConfigError(
            f"{method_id!r} is a method of mmsa_lib, and tables could not tell {cls.__qualname__} from it; register it "
            "under another name"
        )
    return cls(dims, task, cls.Config.for_dataset(dataset, **config))
