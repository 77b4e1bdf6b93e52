"""Evidence tags: where each default of a method comes from.

Tags: A the authors' abstract or figure; P a paper read in full or a parent method's code; C the reference code; R our
reconstruction or recommendation; T measured by us; X not available.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mmsa_lib.data.registry import GENERATED, SYNTHETIC
from mmsa_lib.errors import invalid_value, unknown_name

Tag = Literal["A", "P", "C", "R", "T", "X"]


class Sourced(NamedTuple):
    """A value with the evidence behind it."""

    value: Any
    tag: Tag
    source: str


def numbers_only(given: Any, read: Any) -> Any:
    """``read``, what ``given`` was read as, unless true or false in it was read as a number.

    Raises:
        ValueError: it was.
    """
    if isinstance(given, bool) and isinstance(read, int | float) and not isinstance(read, bool):
        raise ValueError(f"{str(given).lower()} is no number")
    if isinstance(given, list | tuple) and isinstance(read, list | tuple):
        for one, other in zip(given, read, strict=False):
            numbers_only(one, other)
    return read


def _setting(default: Any, source: str, meaning: str = "", *, tag: Tag, unit: str = "", **constraints: Any) -> Any:
    """A config field with its evidence, meaning and unit; ``constraints`` are pydantic's (``gt``, ``le`` …)."""
    extra = {"tag": tag, "source": source, "unit": unit}
    return Field(default, description=meaning or None, json_schema_extra=extra, **constraints)


A, P, C, R, T, X = (partial(_setting, tag=tag) for tag in get_args(Tag))
"""A setting is written with the constructor of its tag: ``heads: int = R(4, "ours", "attention heads", ge=1)``.

A longer meaning may stand below it, as the docstring of the setting.
"""


class EvidencedConfig(BaseModel):
    """A frozen set of values, each with an evidence tag. Unknown names and wrong types are errors.

    ``per_dataset`` holds, for each data set, the values that differ from the defaults, with their own evidence.
    ``parent`` is the config of a parent method, where there is one: what is inherited from it and was read in the
    parent's code [C] counts as evidence of a parent [P].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    per_dataset: ClassVar[Mapping[str, Mapping[str, Sourced]]] = {}
    parent: ClassVar[type[EvidencedConfig] | None] = None

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        return numbers_only(value, check(value))

    @classmethod
    def for_dataset(cls, name: str, **overrides: Any):
        """The values for data set ``name`` (defaults where none are known), changed by ``overrides``.

        Raises:
            ConfigError: an override is unknown, ill-typed or out of range, or overrides contradict each other; an
                unknown one is answered with the nearest known fields.
        """
        for key in overrides:
            if key not in cls.model_fields:
                raise unknown_name(f"setting of {cls.__qualname__.removesuffix('.Config')}", key, cls.model_fields)
        values = {key: sourced.value for key, sourced in cls._of_dataset(name).items()}
        try:
            return cls(**{**values, **overrides})
        except ValidationError as error:
            raise invalid_value(error, cls.__qualname__, cls) from error

    @classmethod
    def _of_dataset(cls, name: str) -> Mapping[str, Sourced]:
        """What is known for a data set; generated ones without values of their own have those of ``synthetic``."""
        family = SYNTHETIC if name in GENERATED else name
        return cls.per_dataset.get(name, cls.per_dataset.get(family, {}))

    @classmethod
    def _defaults(cls, name: str, dataset: str) -> list[Sourced]:
        """The default of field ``name`` for a data set, and the general one, each with its evidence."""
        field = cls.model_fields[name]
        extra: dict[str, Any] = dict(field.json_schema_extra or {})  # type: ignore[arg-type]
        found = [Sourced(field.default, extra.get("tag", ""), extra.get("source", ""))]
        found[:0] = [value for key, value in cls._of_dataset(dataset).items() if key == name]
        if cls.parent is None or name in cls.__annotations__:
            return found
        return [one._replace(tag="P", source=f"parent: {one.source}") if one.tag == "C" else one for one in found]


def provenance(config: type[EvidencedConfig] | EvidencedConfig, dataset: str = "") -> pd.DataFrame:
    """Every field with its value, unit, meaning, tag and source. A changed value is tagged R, with the default named.

    Args:
        config: a config class (its defaults) or an instance (its values).
        dataset: name of the data set whose known values count as sourced.
    """
    cls = config if isinstance(config, type) else type(config)
    values = cls.for_dataset(dataset) if isinstance(config, type) else config
    rows = []
    for name, field in cls.model_fields.items():
        value, defaults = getattr(values, name), cls._defaults(name, dataset)
        changed = Sourced(value, "R", f"changed; the default is {defaults[0].value!r} [{defaults[-1].tag}]")
        known = next((default for default in defaults if default.value == value), changed)
        rows.append(
            {
                "setting": name,
                "value": repr(value) if isinstance(value, str) else str(value),
                "unit": (field.json_schema_extra or {}).get("unit", ""),  # type: ignore[union-attr]
                "tag": known.tag,
                "source": known.source,
                "meaning": " ".join((field.description or "").split()),
            }
        )
    return pd.DataFrame(rows)
