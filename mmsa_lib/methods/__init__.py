"""Methods: a network, its objective and its step, one file per paper."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmsa_lib.errors import ConfigError, UnknownNameError, unknown_name

if TYPE_CHECKING:
    from mmsa_lib.data.record import Modality
    from mmsa_lib.data.task import Task
    from mmsa_lib.methods.base import Method, MethodConfig, Output
    from mmsa_lib.methods.evidence import provenance

__all__ = ["METHODS", "Method", "MethodConfig", "Output", "create", "method_class", "provenance"]

_OURS = {
    "contrastive_mmcl": ("contrastive_mmcl", "ContrastiveMMCL"),
    "collaborative_mmcl": ("collaborative_mmcl", "CollaborativeMMCL"),
    "self_mm": ("self_mm", "SelfMM"),
    "modal_alignment": ("modal_alignment", "ModalAlignment"),
    "hrlf": ("hrlf", "HRLF"),
    "text_only": ("fusion_baselines", "TextOnly"),
    "early_fusion": ("fusion_baselines", "EarlyFusion"),
    "late_fusion": ("fusion_baselines", "LateFusion"),
    "mult": ("mult", "MulT"),
    "misa": ("misa", "MISA"),
}
"""Module and class of each method of this package; the names alone are known without waiting for torch."""


class _Registry(dict):
    """Classes by id. One of this package is imported when it is first asked for."""

    def __getitem__(self, name: str) -> type[Method]:
        if (cls := super().__getitem__(name)) is None:
            module, class_name = _OURS[name]
            cls = self[name] = getattr(import_module(f"{__name__}.{module}"), class_name)
        return cls

    def __iter__(self) -> Iterator[str]:  # with it, dict(METHODS) asks for the classes too
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401

    def values(self) -> ValuesView:
        return ValuesView(self)

    def items(self) -> ItemsView:
        return ItemsView(self)


METHODS: dict[str, type[Method]] = _Registry(dict.fromkeys(_OURS))
"""Every trainable method by its id. A method of one's own joins with ``METHODS["mine"] = Mine``."""


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
    from mmsa_lib.methods.base import Method, MethodConfig

    cls = METHODS[method_id]
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ConfigError(f"METHODS[{method_id!r}] is {cls!r}; register a class that extends mmsa_lib.methods.Method")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, MethodConfig)):
        raise ConfigError(f"{cls.__qualname__}.Config must be a class that extends mmsa_lib.methods.MethodConfig")
    if not isinstance(getattr(cls, "id", None), str):
        raise ConfigError(f"{cls.__qualname__} has no id; write id = {method_id!r} into the class")
    if hasattr(cls, "loss_terms"):
        raise ConfigError(f"{cls.__qualname__} defines loss_terms, which nothing calls; define losses(batch, output)")
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
    module, class_name = _OURS.get(method_id, ("", ""))
    if module and (cls.__module__, cls.__qualname__) != (f"{__name__}.{module}", class_name):
        raise ConfigError(
            f"{method_id!r} is a method of mmsa_lib, and tables could not tell {cls.__qualname__} from it; register it "
            "under another name"
        )
    return cls(dims, task, cls.Config.for_dataset(dataset, **config))
