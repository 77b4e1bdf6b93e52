"""Equal tuning: of each method's trials the one with the lowest mean validation MAE, as presets of later sweeps.

``notebooks/sweeps/tune.yaml`` makes the trials, the same number for every method and data set, with seeds that nothing
reported uses. :func:`write` reads their validation numbers alone.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from companion import names
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import check_code, check_seeds, collect, curate, is_constant
from mmsa_lib.files import write_text

METRIC = "mae"
VALIDATION = {"split": "valid", "protocol": "complete", "metric": METRIC}

SAME_VALUES = {
    **dict.fromkeys(("synthetic", "synthetic_private", "synthetic_synergy"), ("synthetic_redundant",)),
    "mmmo": ("mosi_timed", "mosi"),
}
"""Data sets on which nothing is tuned, and whose values they take: of several, those of the last that has the method.
ICT-MMMO's 40 validation videos can't choose."""

HEAD = """\
# Values of each method by data set, below those of a sweep that names this file under `presets`. Written by
#   python -m companion tune RUNS
# from the trials in data/results/tuning.csv: the lowest mean validation MAE over the seeds {seeds}. {{}}: the defaults.
"""


def validation_rows(folder: Path) -> pd.DataFrame:
    """Validation MAE of every trial below ``folder``, with the name of its data in ``data``."""
    found = collect(folder)
    rows = found[~is_constant(found)]
    for column, value in VALIDATION.items():
        rows = rows[rows[column] == value]
    rows = rows.assign(data=names.data_of(rows))
    check_seeds(rows)
    check_code(rows)
    return rows


def choose_trials(rows: pd.DataFrame) -> pd.DataFrame:
    """The best trial of each method on each data set.

    Args:
        rows: of :func:`validation_rows`.

    Returns:
        Columns data, method, label, changes, mean, seeds (how many), trials (that finished with every seed), run_id (of
        one of its runs). A trial that failed with a seed is not chosen.

    Raises:
        DataError: no trial of a method finished with every seed.
    """
    wanted = rows["seed"].nunique()
    groups = rows.groupby(["data", "method", "changes"], sort=True)
    trials = groups.agg(
        label=("label", "min"), mean=("value", "mean"), seeds=("value", "count"), run_id=("run_id", "first")
    )
    whole = trials[trials["seeds"] == wanted].reset_index()
    for key in trials.reset_index()[["data", "method"]].drop_duplicates().itertuples(index=False, name=None):
        if key not in set(whole[["data", "method"]].itertuples(index=False, name=None)):
            raise DataError(f"no trial of {key[1]} on {key[0]} finished with all {wanted} seeds; look at its failures")
    whole["trials"] = whole.groupby(["data", "method"])["label"].transform("count")
    best = whole.sort_values(["mean", "label"], kind="stable").drop_duplicates(["data", "method"])
    return names.in_order(best, "data", "method").reset_index(drop=True)


def presets(folder: Path, chosen: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Data set to method to what the chosen trial was asked for: ``config`` and ``settings``."""
    found: dict[str, dict[str, Any]] = {}
    for row in chosen.itertuples(index=False):
        run = RunConfig(**files.read_json(folder / row.run_id / files.CONFIG, config=dict)["config"])
        settings = run.settings.model_dump(mode="json", exclude_defaults=True, exclude={"device", "threads"})
        parts = {"config": run.config, "settings": settings}
        found.setdefault(row.data, {})[row.method] = {name: part for name, part in parts.items() if part}
    for name, others in SAME_VALUES.items():
        if there := [found[other] for other in others if other in found]:
            found[name] = reduce(or_, there)  # of one, that itself: equal parts become anchors
    return found


def write(folder: Path, table: Path, target: Path) -> pd.DataFrame:
    """Write all trials to ``table`` (CSV) and the chosen values to ``target`` (YAML); the chosen trials.

    Raises:
        DataError: there is no finished trial, or the trials come from different code.
    """
    rows = validation_rows(folder)
    chosen = choose_trials(rows)
    curate(rows[list(files.RESULT_COLUMNS)], table)
    head = HEAD.format(seeds=", ".join(map(str, sorted(rows["seed"].unique()))))
    # Equal parts become anchors, so that who takes whose values stands in the file.
    write_text(target, head + yaml.safe_dump(presets(folder, chosen), sort_keys=True, width=110))
    return chosen
