"""What distinguishes the rows of a table: a method, and the changed values that its run configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.experiments.files import VARIANT_SEPARATOR

DEFAULT = "default"
"""How the variant without changes of its own is asked for."""


def changes(variant: str) -> list[str]:
    """The changed values of a variant, one by one."""
    return variant.split(VARIANT_SEPARATOR) if variant else []


def shared_changes(variants: Sequence[str]) -> list[str]:
    """What all of them have in common; it is said once, in a title."""
    found = [changes(variant) for variant in variants]
    return [part for part in found[0] if all(part in other for other in found)] if found else []


def own_changes(variant: str, shared: Sequence[str]) -> list[str]:
    """What a variant changes beyond what all have in common."""
    return [part for part in changes(variant) if part not in shared]


def values_of(variant: str) -> dict[str, str]:
    """The changed values of a variant by their keys."""
    return {key: value for key, _, value in (part.partition("=") for part in changes(variant))}


def swept_parameters(variants: Sequence[str], asked: Sequence[str] = ()) -> list[str]:
    """The parameters that get a column each: those ``asked`` for, or all in which the variants differ.

    Raises:
        UnknownNameError: no variant changes a parameter that is asked for; names the nearest.
    """
    found = [values_of(variant) for variant in variants]
    known = sorted({key for values in found for key in values})
    for key in asked:
        if key not in known:
            raise unknown_name("swept parameter", key, known)
    return list(dict.fromkeys(asked)) or [key for key in known if len({values.get(key) for values in found}) > 1]


def with_parameters(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """``frame`` with a column for each swept parameter, empty where a variant doesn't change it."""
    values = frame["variant"].map(values_of)
    return frame.assign(**{key: values.map(lambda own, key=key: own.get(key, "")) for key in keys})


def row_label(method: str, own: Sequence[str]) -> str:
    """The name of a row: the method, with its own changes in brackets."""
    return f"{method} ({', '.join(own)})" if own else method


def find_references(rows: pd.DataFrame, wanted: str, others: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """The method and variant that each method of one data set is compared with.

    Args:
        rows: runs of one data set and fold, with ``method`` and ``variant``.
        wanted: a method (its variant that all its others extend), ``METHOD:VARIANT``, or a variant alone, which every
            method is then compared with in itself. A variant is spelt in full or without what all runs share, its parts
            in any order; ``default`` is the one without changes of its own.
        others: names that would do as well, for the answer to an unknown one.

    Returns:
        Method to (method, variant) of its reference; methods without one are left out.

    Raises:
        UnknownNameError: no method or variant is called so. ConfigError: a method has several variants and none is the
            base of the others.
    """
    shared = shared_changes(sorted(rows["variant"].unique()))
    variants = {m: sorted(part["variant"].unique()) for m, part in rows.groupby("method", sort=True)}
    method, colon, text = wanted.partition(":")
    if method in variants:
        chosen = _named(variants[method], text, shared) if colon else _base(variants[method])
        if chosen is None and colon:
            raise unknown_name(f"variant of {method}", text, _spellings(variants[method], shared))
        if chosen is None:
            known = " or ".join(f"'{method}:{name}'" for name in _spellings(variants[method], shared))
            raise ConfigError(f"{method} has several variants and none is the base of the others; say {known}")
        return dict.fromkeys(variants, (method, chosen))
    inside = {name: _named(own, wanted, shared) for name, own in variants.items()}
    found = {name: (name, chosen) for name, chosen in inside.items() if chosen is not None}
    if not found:
        spellings = {name for own in variants.values() for name in _spellings(own, shared)}
        raise unknown_name("reference", wanted, [*variants, *spellings, *others])
    return found


def _named(variants: Iterable[str], text: str, shared: Sequence[str]) -> str | None:
    asked = set() if text == DEFAULT else {part.strip() for part in text.split(VARIANT_SEPARATOR.strip())} - {""}
    for variant in variants:
        if asked in (set(changes(variant)), set(own_changes(variant, shared))):
            return variant
    return None


def _base(variants: Sequence[str]) -> str | None:
    """The variant whose changes all others have as well."""
    for variant in variants:
        if all(set(changes(variant)) <= set(changes(other)) for other in variants):
            return variant
    return None


def _spellings(variants: Iterable[str], shared: Sequence[str]) -> list[str]:
    return [VARIANT_SEPARATOR.join(own_changes(variant, shared)) or DEFAULT for variant in variants]
