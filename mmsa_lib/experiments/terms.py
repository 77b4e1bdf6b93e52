"""What each term of the loss was in a training: its weight, its share, and how hard it pulled on the encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

TERM_COLUMNS = ("phase", "term", "weight", "share", "gradient", "relative")
TASK = "task"
"""The term with which gradients are compared."""


def term_table(history: pd.DataFrame, phases: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per phase and term, columns :data:`TERM_COLUMNS`; means over the epochs up to the best one of each phase.

    ``weight`` is the weighted term divided by the raw one, NaN where that is always 0; ``share`` its part of the loss;
    ``gradient`` the norm of the weighted term's gradient on the encoders, over the epochs in which it was measured,
    and ``relative`` the same divided by that of the task's term. Both are NaN where the term was not measured: actors
    and critics do not reach the encoders. An epoch without the term counts as 0 (docs/evaluation.md).

    Args:
        history, phases: of a :class:`~mmsa_lib.training.fit.FitResult`.
    """
    rows = []
    for phase in phases:
        own = history[(history["phase"] == phase["phase"]) & (history["split"] == "train")]
        own = own[own["epoch"] <= phase["best_epoch"]]
        parts = own["name"].str.partition("/")
        values = own.assign(kind=parts[0], term=parts[2])
        found = {
            kind: values[values["kind"] == kind].pivot_table(
                index="epoch", columns="term", values="value", aggfunc="sum", sort=False
            )
            for kind in ("loss", "raw", "share", "gradient")
        }
        pulls = found["gradient"].fillna(0).mean()
        shares = found["share"].fillna(0).mean()
        for term in found["loss"].columns.drop("total", errors="ignore"):
            raw = found["raw"][term].sum() if term in found["raw"] else 0.0
            pull, reference = pulls.get(term, float("nan")), pulls.get(TASK, 0.0)
            rows.append({
                "phase": phase["phase"], "term": term,
                "weight": found["loss"][term].sum() / raw if raw else float("nan"),
                "share": shares.get(term, 0.0), "gradient": pull,
                "relative": pull / reference if reference else float("nan"),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(TERM_COLUMNS))
