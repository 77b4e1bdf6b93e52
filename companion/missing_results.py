"""Curated results of the missing-modality benchmark.

``python -m companion.missing_results RUNS`` reads the folders ``synthetic``, ``mosi``, ``mmmo`` and
``mosi_timed`` of runs (``mmsa-lib train … --protocols frames subsets rate``) below ``RUNS`` and writes into
``data/results/``: ``missing_<name>.csv`` (test metrics of all cells), ``missing_spread.csv`` (how far predictions
differ between samples) and ``missing_runs.csv`` (every run, failed ones with their error, and the fingerprint of the
masks that it was tested under). Folders that are not there yet are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from companion.curation import curation_command
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.protocols import LEVEL_SEPARATOR
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import collect, curate

TABLES = ("synthetic", "mosi", "mmmo", "mosi_timed")

METRICS = ("mae", "corr", "acc7", "acc2_neg_pos", "f1_neg_nonneg", "f1_neg_pos", "f1_neg_pos_macro", "acc2")
"""Of the headline of evaluation.md, section 5: F1 by both definitions, Acc-2 by one, so that files stay small. ``acc5``
is kept where there is no ``acc7``."""

DIGITS = 4
"""Digits after the point: a test sample more or less moves an accuracy by .001 and more."""

SPREAD_PROTOCOLS = ("frames", "subsets", "rate")

RUN_COLUMNS = (
    "table", "run_id", "method", "variant", "dataset", "fold", "seed", "state", "masks", "best_epoch", "error",
)  # fmt: skip
SAME_RUN = ["table", "method", "variant", "dataset", "fold", "seed"]

FINISHED, FAILED = "finished", "failed"


def results(found: pd.DataFrame, target: Path) -> pd.DataFrame:
    """Test metrics of every cell of ``found`` (:func:`~mmsa_lib.experiments.results.collect`), written to ``target``.

    Raises:
        DataError: a run whose complete input differs from rate 0 or from the subset of all.
    """
    found = found[found["split"] == "test"]
    names = set(found["metric"])
    found = found[found["metric"].isin(METRICS if "acc7" in names else (*METRICS, "acc5"))]
    _check_complete(found)
    return curate(found.assign(value=found["value"].round(DIGITS)), target)


def spread(runs: Mapping[Path, pd.DataFrame]) -> pd.DataFrame:
    """How far the predictions of each run differ between test samples.

    Args:
        runs: folder of runs to what was collected from it.

    Returns:
        The identity of the run, then protocol, level, sd, entropy and one_class.
    """
    parts = []
    for folder, found in runs.items():
        for run_id, own in _tested(found).iterrows():
            table = pd.read_csv(folder / run_id / files.SPREAD, dtype={"level": str})
            table = table[(table["split"] == "test") & table["protocol"].isin(SPREAD_PROTOCOLS)].drop(columns="split")
            keys = {"table": folder.name, "run_id": run_id, **own}
            parts.append(table.assign(**keys)[[*keys, *table.columns]])
    return pd.concat(parts, ignore_index=True)


def run_states(runs: Mapping[Path, pd.DataFrame]) -> pd.DataFrame:
    """One row per run, finished or failed: the columns of :data:`RUN_COLUMNS`.

    A failed run that was repeated with success (with other code) is left out, and so is an older failure of it.

    Args:
        runs: folder of runs to what was collected from it.
    """
    rows = []
    for folder, found in runs.items():
        for run_id, own in _tested(found).iterrows():
            facts = files.read_json(folder / run_id / files.ENVIRONMENT)
            rows.append(
                {
                    "table": folder.name, "run_id": run_id, **own, "state": FINISHED,
                    "masks": facts["mask_fingerprint"], "best_epoch": facts["training"]["best_epoch"], "error": "",
                }
            )  # fmt: skip
        rows += [_failed(folder, error) for error in sorted(folder.glob(f"*/{files.ERROR}"), key=_age, reverse=True)]
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS)).drop_duplicates(SAME_RUN)
    return frame.astype({"best_epoch": "Int64"}).sort_values([*SAME_RUN, "state"], kind="stable", ignore_index=True)


def _tested(found: pd.DataFrame) -> pd.DataFrame:
    """The runs whose cells count, the newest of each configuration: index run_id; method, variant, …, seed."""
    tested = found[(found["run_id"] != "") & (found["split"] == "test") & found["protocol"].isin(SPREAD_PROTOCOLS)]
    keys = ["method", "variant", "dataset", "fold", "seed"]
    return tested.drop_duplicates("run_id").set_index("run_id")[keys]


def _failed(folder: Path, error: Path) -> dict:
    stored, problem = files.read_json(error.parent / files.CONFIG), files.read_json(error)
    config = RunConfig(**stored["config"])
    variant = files.describe_changes(files.as_json(config.changes), files.as_json(config.data_changes))
    return {
        "table": folder.name, "run_id": error.parent.name, "method": config.method, "variant": variant,
        "dataset": config.dataset, "fold": config.fold, "seed": config.seed, "state": FAILED, "masks": "",
        "error": " ".join(f"{problem['type']}: {problem['message']}".split()),
    }  # fmt: skip


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.parent.name


def _check_complete(found: pd.DataFrame) -> None:
    """Complete input, rate 0 and the subset of all modalities are one and the same."""
    runs = found[found["run_id"] != ""]
    size = runs["level"].map(lambda level: level.count(LEVEL_SEPARATOR))
    subsets = runs["protocol"] == "subsets"
    same = ((runs["protocol"] == "frames") & (runs["level"] == "0.0")) | (subsets & (size == size[subsets].max()))
    keys = ["run_id", "metric"]
    whole = runs.loc[runs["protocol"] == "complete", [*keys, "value"]]
    pairs = runs[same].merge(whole, on=keys, suffixes=("", "_complete"))
    differ = pairs[
        (pairs["value"] != pairs["value_complete"]) & ~(pairs["value"].isna() & pairs["value_complete"].isna())
    ]
    for row in differ.itertuples():
        raise DataError(
            f"run {row.run_id} has {row.metric} {row.value} under {row.protocol} {row.level} and {row.value_complete} "
            "on complete input; repeat the run"
        )


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has the folders for; their names."""
    there = [name for name in TABLES if any((runs / name).glob(f"*/{files.DONE}"))]
    if not there:
        raise DataError(f"{runs} has no finished run in any of {', '.join(TABLES)}")
    collected = {runs / name: collect(runs / name) for name in there}
    for folder, found in collected.items():
        results(found, target / f"missing_{folder.name}.csv")
    table = spread(collected)
    rounded = table.assign(sd=table["sd"].round(DIGITS), entropy=table["entropy"].round(DIGITS))
    files.write_table(target / "missing_spread.csv", rounded.sort_values(SAME_RUN, kind="stable", ignore_index=True))
    files.write_table(target / "missing_runs.csv", run_states(collected))
    return [*there, "spread", "runs"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; 2 where runs are missing."""
    return curation_command("missing", write, "the missing-modality benchmark", arguments)


if __name__ == "__main__":
    sys.exit(main())
