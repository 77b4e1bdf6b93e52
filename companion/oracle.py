"""What selection on the test set would have claimed, beside what selection on validation data gives.

Runs made with ``mmsa-lib train … --oracle`` record test metrics after every epoch; they decide nothing. The best of
them over all epochs is an oracle: it has seen the test labels. Its distance from the value at the epoch that validation
chose is the optimism of reporting such maxima (defect D9 of the code of ``collaborative_mmcl``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import DECIMALS, collect, finished_runs
from mmsa_lib.training.fit import HISTORY_COLUMNS

ORACLE = "oracle"
"""Split of the rows of a history that hold test metrics."""

ORACLE_COLUMNS = (
    "run_id", "method", "variant", "dataset", "fold", "seed", "metric", "epoch", "value", "oracle_epoch", "oracle",
    "gap",
)  # fmt: skip


def oracle_gap(folder: Path | str) -> pd.DataFrame:
    """Validation-selected and best-over-epochs test metrics of all runs below ``folder`` that recorded them.

    Args:
        folder: a folder of runs, or one run; runs without such a record are left out, of runs that differ only in code
            or data the newest counts.

    Returns:
        One row per run and metric: ``run_id, method, variant, dataset, fold, seed, metric``, then ``epoch`` (chosen by
        the validation loss), ``value`` (the test metric there), ``oracle_epoch`` (the first with the best test metric),
        ``oracle`` and ``gap``: by how much the oracle is better, never negative. A metric that is undefined in every
        epoch, or at the chosen one, has no row.

    Raises:
        DataError: no finished run, none with test metrics after each epoch, or a run whose history lacks its own epoch.
    """
    newest = set(collect(folder)["run_id"])
    rows = [row for run in finished_runs(folder) if run.name in newest for row in _gaps(run)]
    if not rows:
        raise DataError(f"no run in {folder} recorded test metrics after each epoch; train with --oracle")
    frame = pd.DataFrame(rows, columns=list(ORACLE_COLUMNS)).astype({"seed": "Int64"})
    keys = ["dataset", "fold", "method", "variant", "seed", "run_id"]
    return frame.sort_values(keys, kind="stable", ignore_index=True)


def curate_oracle(
    folders: Sequence[Path | str], target: Path | str, variants: Sequence[str] | None = None
) -> pd.DataFrame:
    """Write :func:`oracle_gap` of several folders to one small CSV, rounded.

    Args:
        folders: folders of runs.
        target: the CSV file.
        variants: keep only these, all by default.

    Returns:
        The rows that were written.

    Raises:
        DataError: as :func:`oracle_gap`, or nothing is left.
    """
    frame = pd.concat([oracle_gap(folder) for folder in folders], ignore_index=True).drop_duplicates()
    if variants is not None:
        frame = frame[frame["variant"].isin(variants)].reset_index(drop=True)
    if frame.empty:
        raise DataError(f"no run is left of the variants asked for; nothing was written to {target}")
    frame = frame.assign(**{name: frame[name].round(DECIMALS) for name in ("value", "oracle", "gap")})
    files.write_table(Path(target), frame)
    return frame


def _gaps(run: Path) -> list[dict]:
    """One row per metric of one run."""
    history = files.read_csv(run / files.HISTORY, HISTORY_COLUMNS, "history")
    if history.empty:
        return []
    observed = history[(history["split"] == ORACLE) & (history["phase"] == history["phase"].iloc[-1])]
    if observed.empty:
        return []
    own = files.read_table(run / files.METRICS).iloc[0]
    chosen = files.read_json(run / files.ENVIRONMENT, training=dict)["training"].get("best_epoch")
    if not (observed["epoch"] == chosen).any():
        raise DataError(f"{run / files.HISTORY} has no test metric of epoch {chosen}, which was kept; repeat the run")
    rows = []
    for name, values in observed.groupby("name", sort=False):
        by_epoch = values.set_index("epoch")["value"].dropna()
        if chosen not in by_epoch.index:
            continue
        rising = describe(str(name)).higher_is_better
        best = by_epoch.idxmax() if rising else by_epoch.idxmin()
        difference = by_epoch[best] - by_epoch[chosen]
        rows.append(
            {
                **{key: own[key] for key in ("run_id", "method", "variant", "dataset", "fold", "seed")},
                "metric": name, "epoch": chosen, "value": by_epoch[chosen], "oracle_epoch": best,
                "oracle": by_epoch[best], "gap": difference if rising else -difference,
            }
        )  # fmt: skip
    return rows
