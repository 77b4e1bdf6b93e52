"""Numbers as the cells of a table, and which of them stand out."""

from __future__ import annotations

import math

import pandas as pd

from mmsa_lib.evaluation.metrics import Metric
from mmsa_lib.evaluation.protocols import COMPLETE
from mmsa_lib.files import level_name


def cell_text(described: Metric, numbers: pd.Series | None) -> str:
    """``mean ± sd [low, high]`` as far as they are defined; a dash where the metric is undefined in every run.

    Where it is undefined in some runs (the correlation of a constant), the number of the others is added.
    """
    if numbers is None or math.isnan(numbers["mean"]):
        return "–"
    factor, digits = (100, 2) if described.percent else (1, 3)
    texts = {key: f"{factor * numbers[key]:.{digits}f}" for key in ("mean", "sd", "low", "high")}
    spread = "" if math.isnan(numbers["sd"]) else f" ± {texts['sd']}"
    bounds = "" if math.isnan(numbers["low"]) else f" [{texts['low']}, {texts['high']}]"
    return f"{texts['mean']}{spread}{bounds}{_count(numbers)}"


def short_text(described: Metric, numbers: pd.Series | None) -> str:
    """``mean ± half``; half the width of the 95 % interval."""
    if numbers is None or math.isnan(numbers["mean"]):
        return "–"
    factor, digits = (100, 1) if described.percent else (1, 3)
    mean, half = factor * numbers["mean"], factor * (numbers["high"] - numbers["mean"])
    return f"{mean:.{digits}f}{'' if math.isnan(half) else f' ± {half:.{digits}f}'}{_count(numbers)}"


def cell_words(protocol: str, level: float | str) -> str:
    """A protocol cell in a title; nothing is said of complete input."""
    return "" if protocol == COMPLETE else f", protocol {protocol} at {level_name(level)}"


def _count(numbers: pd.Series) -> str:
    undefined = numbers["undefined"]
    return f" (n={int(numbers['n'])})" if pd.notna(undefined) and undefined else ""


def ranks(means: list[float], higher: bool) -> tuple[frozenset[int], frozenset[int]]:
    """Positions of the best mean, and of the next one; no best of a single row, no second of two."""
    known = sorted({value for value in means if not math.isnan(value)}, reverse=higher)
    rows = sum(not math.isnan(value) for value in means)
    wanted = (known[:1] if rows > 1 else [], known[1:2] if rows > 2 else [])
    best, second = (frozenset(i for i, value in enumerate(means) if value in target) for target in wanted)
    return best, second
