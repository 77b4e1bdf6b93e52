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


def evidence(default: Any, source: str, meaning: str, *, tag: Tag, unit: str = "", **constraints: Any) -> Any:
    """A config field with its evidence, meaning and unit; ``constraints`` are pydantic's (``gt``, ``le`` …).

    Written with the tag's own constructor: ``heads: int = R(4, "ours", "attention heads", ge=1)``.
    """
    return Field(
        default, description=meaning, json_schema_extra={"tag": tag, "source": source, "unit": unit}, **constraints
    )


A, P, C, R, T, X = (partial(evidence, tag=tag) for tag in get_args(Tag))


class EvidencedConfig(BaseModel):
    """A frozen set of values, each with an evidence tag. Unknown names and wrong types are errors.

    ``per_dataset`` holds, for each data set, the values that differ from the defaults, with their own evidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    per_dataset: ClassVar[Mapping[str, Mapping[str, Sourced]]] = {}

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        return numbers_only(value, check(value))

    @classmethod
    def for_dataset(cls, name: str, **overrides: Any):
        """The values for data set ``name`` (defaults where none are known), changed by ``overrides``.

        Raises:
            ConfigError: an override is unknown, ill-typed or out of range; names the nearest known fields.
        """
        for key in overrides:
            if key not in cls.model_fields:
                raise unknown_name(f"setting of {cls.__qualname__.removesuffix('.Config')}", key, cls.model_fields)
        values = {key: sourced.value for key, sourced in cls.per_dataset.get(name, {}).items()}
        try:
            return cls(**{**values, **overrides})
        except ValidationError as error:
            raise invalid_value(error, cls.__qualname__, cls) from error


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
        extra: dict[str, Any] = dict(field.json_schema_extra or {})  # type: ignore[arg-type]
        value, tag, source = getattr(values, name), extra.get("tag", ""), extra.get("source", "")
        known = cls.per_dataset.get(dataset, {}).get(name)
        if known is not None and value == known.value:
            tag, source = known.tag, known.source
        elif value != field.default:
            expected = field.default if known is None else known.value
            tag, source = "R", f"changed; the default is {expected!r} [{extra.get('tag', '')}]"
        rows.append(
            {
                "setting": name,
                "value": repr(value) if isinstance(value, str) else str(value),
                "unit": extra.get("unit", ""),
                "tag": tag,
                "source": source,
                "meaning": field.description or "",
            }
        )
    return pd.DataFrame(rows)
