"""Curated results of ``hrlf``: which weights were tried, what its parts do, and what is inside its trained runs.

``python -m companion.hrlf_results RUNS`` reads below ``RUNS`` the folders ``tune`` (the grid over weights),
``synthetic``, ``mosi`` and ``mmmo`` (printed and chosen weights; all their runs join the grid) and ``ablations``
(switches on top of the chosen weights, synthetic), and the file ``CHOICE``. It writes ``hrlf_<name>.csv`` into
``data/results/``. Folders that are not there yet are left out; runs that failed are named, never dropped. The data sets
of the runs must be built.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from companion.curation import curation_command
from companion.hrlf_collapse import frf_alone
from companion.hrlf_inside import inside_tables
from companion.hrlf_runs import (
    PRINTED,
    HRLFRun,
    chosen_values,
    ended_runs,
    failed,
    last_spread,
    spread_trace,
    switch,
)
from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.baselines import constant_values
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.evaluation.missing_summary import run_summaries
from mmsa_lib.evaluation.protocols import COMPLETE, STOCHASTIC
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import DECIMALS

SETS = ("synthetic", "mosi", "mmmo")
METRICS = ("mae", "corr", "acc2_neg_pos", "f1_neg_pos")
WEIGHTS = ("lambda_frf", "lambda_hmi", "lambda_hal", "lambda_kl", "frf_warmup")
CHOSEN = "chosen weights"
COLLAPSE_STEPS = (*range(0, 20, 2), *range(20, 201, 10))


def weights(runs: Iterable[HRLFRun], chosen: dict[str, Any]) -> pd.DataFrame:
    """The grid over weights: one row per run, with what its validation samples say; the test samples have no part.

    Returns:
        Columns dataset, weights, chosen, seed, run_id, ``stochastic_mae`` and ``stochastic_corr`` (validation samples
        under the fixed masks of the recipe, which select the epoch), ``complete_mae``, ``complete_corr``, ``constant``
        (validation error of the training median), ``teacher_spread`` and ``student_spread`` (of Z over samples at the
        end of the phase, relative to its start) and ``error``. A failed run has its error and no metrics; those that
        predict a constant have no correlation.
    """
    rows = []
    for run in runs:
        data = _splits(run)
        trace = spread_trace(run, data["train"])
        row = {
            "dataset": run.config.dataset,
            "weights": run.weights,
            "chosen": switch(run, chosen) == "",
            "seed": run.config.seed,
            "run_id": run.folder.name,
            **_validation(run),
            "constant": _constant_error(data),
            **{f"{phase}_spread": last_spread(trace, phase) for phase in ("teacher", "student")},
            "error": run.error,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def grid(ended: Mapping[str, list[HRLFRun]]) -> list[HRLFRun]:
    """The runs of ``tune``, and runs of the sets that change nothing but weights.

    Of runs with the same data set, weights and seed the first counts.
    """
    others = [run for name in SETS for run in ended[name] if set(run.changes) <= set(WEIGHTS)]
    found: dict[tuple, HRLFRun] = {}
    for run in (*ended["tune"], *others):
        found.setdefault((run.config.dataset, run.weights, run.config.seed), run)
    return list(found.values())


def summaries(runs: Iterable[HRLFRun], label: str, names: dict[str, str]) -> pd.DataFrame:
    """Test numbers of finished runs: complete input, and one number per protocol of missing data.

    Args:
        runs: finished runs.
        label: column for what each run is called.
        names: run identifier to that.

    Returns:
        Columns dataset, ``label``, seed, run_id, protocol, summary, metric, value, as
        :func:`mmsa_lib.evaluation.missing_summary.run_summaries`; ``complete`` input has the summary ``value``.
    """
    parts = []
    for run in runs:
        table = run.result.metrics
        table = table[(table["split"] == "test") & table["metric"].isin(METRICS)]
        whole = table[table["protocol"] == COMPLETE].assign(summary="value")
        found = [whole]
        if (table["protocol"] != COMPLETE).any():
            found.append(run_summaries(table))
        numbers = pd.concat(found, ignore_index=True).assign(run_id=run.folder.name)
        numbers[label] = names[run.folder.name]
        parts.append(numbers)
    columns = ["dataset", label, "seed", "run_id", "protocol", "summary", "metric", "value"]
    return pd.concat(parts, ignore_index=True)[columns]


def named(runs: Iterable[HRLFRun], chosen: dict[str, Any]) -> dict[str, str]:
    """Which runs have the printed or the chosen weights and no other change: run identifier to that name."""
    found = {run.folder.name: PRINTED for run in runs if run.weights == PRINTED}
    return found | {run.folder.name: CHOSEN for run in runs if switch(run, chosen) == ""}


def beside_constant(table: pd.DataFrame, runs: Iterable[HRLFRun]) -> pd.DataFrame:
    """Rows of :func:`summaries` with a column ``constant``: what the median of the training labels scores on the test
    samples, which no mask changes; NaN where a constant has no value of the metric."""
    parts = [run.result.constants.query("method == 'constant_median'") for run in runs]
    known = pd.concat(parts).drop_duplicates(["dataset", "metric"])[["dataset", "metric", "value"]]
    return table.merge(known.rename(columns={"value": "constant"}), on=["dataset", "metric"], how="left")


def curves(runs: Iterable[HRLFRun], names: dict[str, str]) -> pd.DataFrame:
    """:func:`~companion.hrlf_runs.spread_trace` of each run; a failed one ends before its last epoch."""
    parts = [
        spread_trace(run, _splits(run)["train"]).assign(
            dataset=run.config.dataset, weights=names[run.folder.name], seed=run.config.seed, run_id=run.folder.name
        )
        for run in runs
    ]
    return pd.concat(parts, ignore_index=True)[["dataset", "weights", "seed", "run_id", "phase", "epoch", "share"]]


def collapse(steps: Sequence[int] = COLLAPSE_STEPS, **options: Any) -> pd.DataFrame:
    """FRF alone, with the targets as printed and detached; ``share`` is the spread of Z relative to its start."""
    parts = [frf_alone(steps, detach_targets=flag, **options) for flag in (False, True)]
    return pd.concat([part.assign(share=part["z_sd"] / part["z_sd"].iloc[0]) for part in parts], ignore_index=True)


def inside(
    base: list[HRLFRun], switched: list[HRLFRun], tried: list[HRLFRun], names: dict[str, str]
) -> dict[str, pd.DataFrame]:
    """What is looked at inside which trained runs on the synthetic set.

    The factorization for all weights, agreement with the teacher for all switches, and probes with FRF and without.
    """
    weighted = [run for run in tried if run.config.dataset == "synthetic" and not run.error]
    weighted = [
        run for run in weighted if (run.weights, run.config.seed) not in {(b.weights, b.config.seed) for b in base}
    ]
    called = names | {run.folder.name: run.weights for run in weighted}
    without = [run for run in switched if run.config.method_config.no_frf]
    return (
        inside_tables([*base, *weighted], called, ["inside"])
        | inside_tables([*base, *switched], names, ["agreement"])
        | inside_tables([*base, *without], names, ["probes"])
    )


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has the folders for; their names.

    Raises:
        DataError: no ended run of the method in any folder, or no choice.
    """
    ended = {name: ended_runs(runs / name) for name in ("tune", *SETS, "ablations")}
    if not any(ended.values()):
        raise DataError(f"{runs} has no ended run of hrlf in any of {', '.join(ended)}")
    chosen = chosen_values(runs)
    tables = {"collapse": collapse()}
    tried = grid(ended)
    if tried:
        tables["weights"] = weights(tried, chosen)
    main = [run for name in SETS for run in ended[name]]
    names = named(main, chosen)
    main = [run for run in main if run.folder.name in names]
    done = [run for run in main if not run.error]
    if main:
        tables["curves"] = curves([run for run in main if run.config.dataset == "synthetic"] or main, names)
    if done:
        tables["named"] = beside_constant(summaries(done, "weights", names), done)
    base = [run for run in done if run.config.dataset == "synthetic" and names[run.folder.name] == CHOSEN]
    switched = [run for run in ended["ablations"] if not run.error]
    names = {run.folder.name: switch(run, chosen) or CHOSEN for run in (*base, *switched)}
    if base and switched:
        tables["ablations"] = summaries([*base, *switched], "switch", names)
    if base:
        tables |= inside(base, switched, tried, names)
    tables["failed"] = pd.concat(
        [failed(found).assign(folder=name) for name, found in ended.items()], ignore_index=True
    )
    for name, table in tables.items():
        numbers = {column: table[column].round(DECIMALS) for column in table.select_dtypes("float")}
        files.write_table(target / f"hrlf_{name}.csv", table.assign(**numbers))
    return list(tables)


def _validation(run: HRLFRun) -> dict[str, float]:
    """Validation metrics of a run, NaN for a failed one."""
    values = dict.fromkeys(
        (f"{kind}_{metric}" for kind in ("stochastic", "complete") for metric in ("mae", "corr")), float("nan")
    )
    if not run.error:
        for row in run.result.metrics.query("split == 'valid'").itertuples():
            if row.protocol in (COMPLETE, STOCHASTIC) and f"{row.protocol}_{row.metric}" in values:
                values[f"{row.protocol}_{row.metric}"] = row.value
    return values


def _constant_error(data: dict[str, Utterances]) -> float:
    """Validation error of the median of the training labels."""
    task, valid = data["train"].task, data["valid"].labels
    median = float(constant_values(task, data["train"].labels)["constant_median"])
    return task_metrics(task, [median] * len(valid), valid)["mae"]


def _splits(run: HRLFRun) -> dict[str, Utterances]:
    """The data of a run; most runs of a set share them."""
    return _load(run.config.dataset, run.config.fold, json.dumps(run.config.load_options))


@lru_cache(maxsize=2)
def _load(dataset: str, fold: str, options: str) -> dict[str, Utterances]:
    return load(dataset, fold, **json.loads(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; 2 where runs, data or the choice are missing."""
    return curation_command("hrlf", write, "hrlf", arguments)


if __name__ == "__main__":
    sys.exit(main())
