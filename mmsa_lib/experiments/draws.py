"""Random search: named draws from a space of parameters, equal on every machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmsa_lib.errors import ConfigError, unknown_name

TRIAL = "trial_"
DIGITS = 3
"""Significant digits of a drawn number, more in a narrow range: it reads well, and last bits don't matter."""

LARGEST = 1e300
"""Of the ends of a range, so that its width is a number."""

MOST_TRIALS = 1000


class Random(BaseModel):
    """What a sweep's file asks for; a block gives what its file leaves out.

    Attributes:
        n: different draws.
        seed: of the draws.
        space: parameter (dots as elsewhere) to a list of choices or to ``{low, high}``: uniform, both ends included,
            whole numbers where both ends are; with ``log: true`` uniform in the logarithm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: Annotated[int, Field(strict=True, ge=1, le=MOST_TRIALS)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] | None = None
    space: dict[str, Any] = Field(default_factory=dict)

    def trials(self) -> dict[str, dict[str, Any]]:
        """``trial_01`` … and the parameters of each.

        A parameter's values depend on the seed and on its own name and range alone, so methods that share a parameter
        are tried with the same values of it.

        Raises:
            ConfigError: ``n``, ``seed`` or ``space`` is missing, a range is none, or there are too few different draws.
        """
        for name, value in vars(self).items():
            if value in (None, {}):
                raise ConfigError(f"random.{name} is missing; give n, seed and space, here or for all blocks")
        for key, given in self.space.items():
            _check(f"random.space.{key}", given)
        streams = {key: np.random.Generator(np.random.PCG64([self.seed, *key.encode()])) for key in self.space}
        found: dict[str, dict[str, Any]] = {}
        for _ in range(100 * self.n):
            draw = {key: _value(given, float(streams[key].random())) for key, given in self.space.items()}
            found.setdefault(json.dumps(draw, sort_keys=True), draw)
            if len(found) == self.n:
                break
        else:
            raise ConfigError(f"random.space has about {len(found)} different draws, not {self.n}; lower n or widen it")
        return {f"{TRIAL}{number:02d}": draw for number, draw in enumerate(found.values(), 1)}


def _check(where: str, given: Any) -> None:
    """Raise a :class:`ConfigError` where ``given`` is neither choices nor a range."""
    if isinstance(given, list):
        if not given:
            raise ConfigError(f"{where} is empty; give at least one choice or leave it out")
        return
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given):
        raise ConfigError(f"{where} must be a list of choices or {{low: …, high: …}}, not {given!r}")
    for key in set(given) - {"low", "high", "log"}:
        raise unknown_name(f"key of {where}", str(key), ("low", "high", "log"))
    low, high, log = given["low"], given["high"], given.get("log", False)
    if any(isinstance(end, bool) or not isinstance(end, int | float) or not abs(end) <= LARGEST for end in (low, high)):
        raise ConfigError(f"{where}: low and high must be numbers, not {low!r:.40} and {high!r:.40}")
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log must be true or false, not {log!r}")
    if not low < high or (log and low <= 0):
        raise ConfigError(f"{where}: {'0 < ' if log else ''}low < high must hold, not {low} and {high}")


def _value(given: Any, share: float) -> Any:
    """The value at ``share`` in [0, 1) of choices or of a range."""
    if isinstance(given, list):
        return given[int(share * len(given))]
    low, high = given["low"], given["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    if given.get("log"):
        value = low * (high / low) ** share
        return round(value) if whole else _rounded(value, low, high)
    return low + int(share * (high - low + 1)) if whole else _rounded(low + share * (high - low), low, high)


def _rounded(value: float, low: float, high: float) -> float:
    narrow = max(0, math.floor(math.log10(max(-low, high) / (high - low))))
    digits = DIGITS + narrow + 1 if narrow else DIGITS
    return float(min(max(float(f"{value:.{digits}g}"), low), high))
