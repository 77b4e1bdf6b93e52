"""What one run is: method, data, training settings, seed. Everything is checked before anything is loaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from mmsa_lib.data.loading import load
from mmsa_lib.data.missing import stochastic_missing
from mmsa_lib.data.registry import GENERATED, is_generated, source_options
from mmsa_lib.data.sources.synthetic import Settings, settings_for
from mmsa_lib.errors import ConfigError, DataError, invalid_value, unknown_name
from mmsa_lib.evaluation.protocols import COMPLETE, PROTOCOLS, STOCHASTIC, protocol
from mmsa_lib.experiments.files import as_json
from mmsa_lib.experiments.options import fitting, parse_assignment, typed_value
from mmsa_lib.files import read_yaml
from mmsa_lib.methods import METHODS, method_class
from mmsa_lib.methods.base import Method, MethodConfig
from mmsa_lib.methods.evidence import numbers_only
from mmsa_lib.training.fit import Augment
from mmsa_lib.training.settings import IN_EFFECT_ONLY, TrainSettings

NO_MISSING = "none"
RECIPES: dict[str, Augment | None] = {NO_MISSING: None, STOCHASTIC: stochastic_missing}
"""How training samples can be made incomplete: nothing, or HRLF's stochastic missing strategy."""

PLACES_ONLY = frozenset({"folder", "in_memory"})
"""Data options that say where samples lie, not what they are."""

SECTIONS = ("config", "settings", "data")
DECIDED_BY_SETTINGS = ("batch_size", "max_epochs", "patience")
"""Values of a method's config that the training settings take over or replace; a run's identity holds them once."""


class RunConfig(BaseModel):
    """One run. Values that are not given take the defaults of the method for the data set.

    Attributes:
        method: a key of :data:`mmsa_lib.methods.METHODS`.
        config: values of the method's ``Config`` that differ from its defaults for this data set.
        dataset, fold: what :func:`mmsa_lib.data.load` takes.
        data: further options of ``load``; with ``text_encoder="bert"`` the tokens of its ``text_model`` are implied.
        missing: how training samples are made incomplete, a key of :data:`RECIPES`; the validation split that decides
            about the best epoch is then incomplete as well, once and for all methods alike.
        protocols: how the test samples are made incomplete, keys of
            :data:`mmsa_lib.evaluation.protocols.PROTOCOLS`; ``complete`` always comes first.
        settings: the training loop's.
        seed: of everything random in training.
        label: what people call this configuration, for instance the name of an ablation; it changes no number.
        oracle: also record the test metrics after every epoch, to show what selection on the test set would claim;
            they decide nothing.

    Raises:
        ConfigError: something is unknown, ill-typed, out of range or contradictory; unknown names are answered with
            the nearest known ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    method: str
    config: dict[str, Any] = Field(default_factory=dict)
    dataset: str = "synthetic"
    fold: str = "standard"
    data: dict[str, Any] = Field(default_factory=dict)
    missing: str = NO_MISSING
    protocols: tuple[str, ...] = (COMPLETE,)
    settings: TrainSettings = Field(default_factory=TrainSettings)
    seed: int = Field(1111, ge=0, lt=2**32)
    oracle: bool = False
    label: str = Field("", max_length=100)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise invalid_value(error, "run setting", type(self)) from error

    @field_validator("config", "data", mode="before")
    @classmethod
    def _plain(cls, values: Any, info: ValidationInfo) -> Any:
        # Tuples and lists mean the same here; after a round trip through JSON or YAML only lists are left.
        plain = {}
        for key, value in values.items() if isinstance(values, Mapping) else ():
            try:
                plain[key] = json.loads(json.dumps(value, default=_plain_value))
            except TypeError as error:
                raise ConfigError(f"{info.field_name}.{key}={value!r} is no plain value: {error}") from None
        return plain if isinstance(values, Mapping) else values

    @field_validator("seed", mode="wrap")
    @classmethod
    def _seed_is_a_number(cls, value: Any, check: Callable[[Any], int]) -> int:
        return numbers_only(value, check(value))

    @field_validator("protocols")
    @classmethod
    def _known_protocols(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        asked = {protocol(value).name for value in values}
        return (COMPLETE, *(name for name in PROTOCOLS if name in asked - {COMPLETE}))

    @field_validator("label")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("a label is one line of plain text")
        return value.strip()

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        method = method_class(self.method)
        if self.missing not in RECIPES:
            raise unknown_name("missing recipe", self.missing, RECIPES)
        check_data_options(self.dataset, self.data)
        if self.missing != NO_MISSING and method.own_missing:
            raise ConfigError(
                f"{self.method} makes training samples incomplete itself; leave missing={self.missing!r} out"
            )
        own = self.method_config
        for key, needed in self._implied.items():
            if self.data.get(key, needed) != needed:
                raise ConfigError(
                    f"data.{key}={self.data[key]!r} contradicts text_encoder='bert' with "
                    f"text_model={own.text_model!r}; leave data.{key} out"
                )
        if own.text_encoder == "bert":
            return self
        if "text_model" in self.config:
            raise ConfigError(
                f"config.text_model={own.text_model!r} has no effect without text_encoder='bert'; leave it out (the "
                "model of frozen text is data.text_model)"
            )
        if self.data.get("text") == "tokens":
            raise ConfigError("data.text='tokens' needs a text encoder in the method: set text_encoder='bert'")
        return self

    @property
    def method_config(self) -> MethodConfig:
        """The method's values, defaults for this data set included."""
        return method_class(self.method).Config.for_dataset(self.dataset, **self.config)

    @property
    def load_options(self) -> dict[str, Any]:
        """Options for :func:`mmsa_lib.data.load`, implied ones included."""
        return {**self._implied, **check_data_options(self.dataset, self.data)}

    @property
    def _implied(self) -> dict[str, Any]:
        """Data options that follow from the method's values."""
        own = self.method_config
        return {"text": "tokens", "text_model": own.text_model} if own.text_encoder == "bert" else {}

    @property
    def changes(self) -> dict[str, Any]:
        """Config values, settings and the missing recipe that differ from the defaults for this data set."""
        missing = {"missing": self.missing} if self.missing != NO_MISSING else {}
        settings = self.settings.model_dump(mode="json", exclude_defaults=True, exclude={*IN_EFFECT_ONLY, "device"})
        if self.method not in METHODS:  # of a stored run, whose defaults are not known here
            return {**missing, **self.config, **settings}
        usual = method_class(self.method).Config.for_dataset(self.dataset).model_dump(mode="json")
        values = self.method_config.model_dump(mode="json")
        return {**missing, **{k: values[k] for k in self.config if values[k] != usual[k]}, **settings}

    @property
    def data_changes(self) -> dict[str, Any]:
        """Data options that differ from the defaults; those that only say where samples lie are left out."""
        known = {name: default for name, (_, default) in data_options(self.dataset).items()}
        if self.method in METHODS:
            known |= self._implied
        usual = json.loads(json.dumps({name: known[name] for name in self.data if name in known}, default=str))
        return {k: v for k, v in self.data.items() if k not in PLACES_ONLY and (k not in usual or v != usual[k])}

    def described(self) -> dict[str, str]:
        """The columns of tables that name this configuration: label, and changes and data options as JSON."""
        return {"label": self.label, "changes": as_json(self.changes), "data_options": as_json(self.data_changes)}

    def resolved(self, method: Method) -> dict[str, Any]:
        """Every value that can change a number, defaults included, as plain JSON (the data enter by fingerprint)."""
        return {
            "method": self.method,
            "config": method.config.model_dump(mode="json", exclude=set(DECIDED_BY_SETTINGS)),
            "dims": method.dims,
            "task": asdict(method.task),
            "fold": self.fold,
            "missing": self.missing,
            "protocols": list(self.protocols),
            "settings": self.settings.resolve(method).identity(),
            "seed": self.seed,
            **({"oracle": True} if self.oracle else {}),
        }

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> RunConfig:
        """What a run folder says was run; a method that this process does not know is taken as it is.

        Raises:
            ConfigError: something else is wrong with the values.
        """
        if values.get("method") in METHODS or not isinstance(values.get("method"), str):
            return cls(**values)
        known = cls(**{**values, "method": next(iter(METHODS)), "config": {}, "data": {}, "missing": NO_MISSING})
        return known.model_copy(update={name: values[name] for name in ("method", "config", "data", "missing")})

    @classmethod
    def describe_stored(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """As :meth:`described`, for what a run folder says was run; values that are valid no more are all changes.

        Raises:
            ConfigError: the values are not those of a run.
        """
        try:
            return cls.stored(values).described()
        except ConfigError:
            config, data = values.get("config"), values.get("data")
            if not (isinstance(config, Mapping) and isinstance(data, Mapping)):
                raise
            own = {key: value for key, value in data.items() if key not in PLACES_ONLY}
            return {"label": str(values.get("label", "")), "changes": as_json(config), "data_options": as_json(own)}

    def to_json(self) -> str:
        """As JSON; :meth:`from_file` reads it back."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"

    def to_yaml(self) -> str:
        """As YAML; :meth:`from_file` reads it back."""
        from ruamel.yaml import YAML  # it sets filters of warnings, which a kernel's cells would see

        writer, text = YAML(typ="safe", pure=True), StringIO()  # as the reader: PyYAML leaves 1e-3 and 0o17 unquoted
        writer.default_flow_style = writer.allow_unicode = False
        writer.dump(self.model_dump(mode="json"), text)
        return text.getvalue()

    @classmethod
    def from_file(cls, path: Path | str) -> RunConfig:
        """Read a configuration from a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            DataError: no such file, or not a mapping in that format.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else read_yaml(path)
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise DataError(f"cannot read {path} as a run configuration: {' '.join(str(error).split())}") from error
        if not isinstance(values, Mapping):
            raise DataError(f"{path} holds no run configuration (a mapping with method, dataset, …)")
        return cls(**values)

    @classmethod
    def parse_settings(cls, method: str, items: Iterable[str], dataset: str = "synthetic") -> dict[str, dict[str, Any]]:
        """Sort ``key=value`` texts into the sections config, settings and data, each value typed by its field.

        A key may name its section (``config.``, ``settings.``, ``data.``); without one the method's config comes
        first, then the training settings, then the data options. A value is read as JSON, else as a Python literal,
        else as text; where text is expected it stays text.

        Raises:
            ConfigError: no ``=``, a key twice, an unknown key (answered with the nearest), or a value of a wrong type.
        """
        types = {
            "config": {name: field.annotation for name, field in method_class(method).Config.model_fields.items()},
            "settings": {name: field.annotation for name, field in TrainSettings.model_fields.items()},
            "data": {name: kind for name, (kind, _) in data_options(dataset).items()},
        }
        sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for item in items:
            key, raw = parse_assignment(item)
            section, name = cls._section(method, key, types)
            if name in sections[section]:
                raise ConfigError(f"{key} is set twice; give it once")
            sections[section][name] = typed_value(f"{section}.{name}", raw, types[section].get(name, Any))
        return sections

    @classmethod
    def _section(cls, method: str, key: str, known: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
        """Section and name of the setting that ``key`` means."""
        section, dot, name = key.partition(".")
        if dot and section in known:
            if name not in known[section] and "**" not in known[section]:
                raise unknown_name(f"{section} key of {method}", name, known[section])
            return section, name
        if key in cls.model_fields and key not in known["config"]:
            raise ConfigError(f"{key} has an option of its own and is no setting (data.{key} means the data's)")
        for candidate in SECTIONS:
            if key in known[candidate]:
                return candidate, key
        raise unknown_name(f"setting of {method}", key, {name for names in known.values() for name in names})


def _plain_value(value: Any) -> Any:
    """A path as text, a scalar of numpy as Python's."""
    if isinstance(value, Path | np.generic):
        return str(value) if isinstance(value, Path) else value.item()
    raise TypeError("give text, numbers, lists or mappings")


def data_options(dataset: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option that :func:`mmsa_lib.data.load` takes for ``dataset``."""
    types, given = get_type_hints(load), inspect.signature(load).parameters.values()
    options = {p.name: (types[p.name], p.default) for p in given if p.kind is p.KEYWORD_ONLY}
    if dataset in GENERATED:
        usual = settings_for(dataset)
        options |= {name: (kind, getattr(usual, name)) for name, kind in get_type_hints(Settings).items()}
    elif is_generated(dataset):
        options |= source_options(dataset)
    return options


def check_data_options(dataset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the types that the options have (a list from JSON becomes a tuple, for instance).

    Raises:
        ConfigError: an option is unknown (answered with the nearest ones) or of another type.
    """
    known = data_options(dataset)
    known = {**dict.fromkeys(values if "**" in known else (), (Any, None)), **known}
    for name in values:
        if name not in known:
            raise unknown_name(f"data option of {dataset}", name, known)
    return {name: fitting(f"data.{name}", [value], known[name][0]) for name, value in values.items()}
