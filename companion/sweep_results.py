"""Curated results of the sweeps in ``notebooks/sweeps``: the rows, their summaries and their comparisons.

``python -m companion.sweep_results RUNS`` reads the folders ``main``, ``ablations`` and ``sensitivity`` of
runs below ``RUNS`` (``mmsa-lib sweep notebooks/sweeps/main.yaml --runs RUNS/main`` and so on) and writes into
``data/results/`` the metrics per run (``sweep_main.csv``, …), means with intervals over seeds and over seeds and test
items (``sweep_main_summary.csv``) and paired comparisons (``sweep_main_comparison.csv``, …). Every number has the
identifiers of the runs behind it. Folders that are not there yet are left out.

A configuration that ``RUNS`` lacks is taken from the tables of :data:`EARLIER` where one of them has it: the same
configuration, trained before. Its predictions are not at hand, so it has no intervals over test items.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd

from companion.curation import curation_command
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.missing_summary import run_summaries
from mmsa_lib.experiments import files
from mmsa_lib.experiments.comparisons import NUMBERS as COMPARED_NUMBERS
from mmsa_lib.experiments.comparisons import compare
from mmsa_lib.experiments.results import DECIMALS, SAME_RUN, collect, curate, read_results
from mmsa_lib.experiments.summaries import curate_summary
from mmsa_lib.methods import METHODS

PRIMARY = "mae"
"""The metric of all tests: it needs no threshold and uses every sample. More metrics would weaken each test."""

CONTROLS = ("early_fusion", "text_only")
"""What a method is compared with: plain fusion of the same input, and the text alone."""

FULL = {
    "contrastive_mmcl": "",
    "collaborative_mmcl": "",
    "modal_alignment": "",
    "hrlf": "lambda_frf=0.01; lambda_hal=0.01",
}
"""The variant that the ablations of a method change; ``hrlf`` has weights chosen on validation data (notebook 05)."""


EARLIER = {
    "main": (("hrlf",), ("missing_synthetic.csv", "missing_mmmo.csv", "missing_mosi.csv")),
    "ablations": (
        ("contrastive_mmcl", "collaborative_mmcl"),
        ("contrastive_synthetic.csv", "contrastive_ablations.csv", "collaborative_synthetic.csv",
         "collaborative_ablations.csv"),
    ),
}  # fmt: skip
"""Folder of runs to methods and to curated tables that have runs of their configurations on complete samples."""

SPELLED_OUT = frozenset(("audio=audio73", "text=words", "vision=None"))
"""Options of MOSI that earlier runs name and that equal its defaults."""


def main_tables(folder: Path, target: Path) -> None:
    """``sweep_main.csv``, ``sweep_main_summary.csv`` and ``sweep_main_comparison.csv``."""
    found = _with_earlier(_without_macro(collect(folder)), target, *EARLIER["main"])
    curate(found, target / "sweep_main.csv", split="test", protocol="complete")
    curate_summary(found, target / "sweep_main_summary.csv", runs=folder, split="test", protocol="complete")
    parts = [
        compare(rows, control, [PRIMARY], runs=folder, split="test", protocol="complete")
        for control in CONTROLS
        for rows in _same_input(found)
        if control in set(rows["method"])
    ]
    _write(pd.concat(parts, ignore_index=True), target / "sweep_main_comparison.csv")


def ablation_tables(folder: Path, target: Path) -> None:
    """``sweep_ablations.csv``, with averages over subsets of modalities where runs have them, and the comparison."""
    found = _without_macro(collect(folder))
    complete = found[(found["protocol"] == "complete") & (found["split"] == "test")]
    constants = complete[complete["run_id"] == ""]
    earlier = _earlier(complete, target, *EARLIER["ablations"], beside=set(FULL.values()))
    rows = pd.concat([complete, _subset_averages(found), earlier], ignore_index=True)
    curate(rows, target / "sweep_ablations.csv")
    parts = []
    for method, full in FULL.items():
        # A variant is compared with the full method of its own batch: processors differ in the last digits, and
        # training makes much of that, so runs of two batches don't share their seeds' luck.
        for batch in (complete, earlier):
            own = pd.concat([batch[batch["method"] == method], constants], ignore_index=True)
            if set(own.loc[own["run_id"] != "", "variant"]) > {full}:
                reference = f"{method}:{full}" if full else method
                parts.append(compare(own, reference, [PRIMARY], runs=folder, split="test", protocol="complete"))
    if not parts:
        raise DataError(f"{folder} has no method with its full variant and another one")
    _write(pd.concat(parts, ignore_index=True), target / "sweep_ablations_comparison.csv")


def sensitivity_tables(folder: Path, target: Path) -> None:
    """``sweep_sensitivity.csv``: validation and test errors, since only the former may choose a value.

    The run with all defaults belongs to every value that is varied, whichever asked for it: its variant is empty.
    """
    found = _without_macro(collect(folder))
    kinds = zip(found["method"], found["dataset"], found["variant"], strict=True)
    found = found.assign(variant=[_without_own_defaults(*kind) for kind in kinds])
    curate(found, target / "sweep_sensitivity.csv", metric=[PRIMARY, "corr"], protocol="complete")


TABLES: dict[str, Callable[[Path, Path], None]] = {
    "main": main_tables,
    "ablations": ablation_tables,
    "sensitivity": sensitivity_tables,
}
"""Folder of runs to what is written from it."""


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has a folder for; their names."""
    there = [name for name in TABLES if any((runs / name).glob(f"*/{files.DONE}"))]
    if not there:
        raise DataError(f"{runs} has no finished run in any of {', '.join(TABLES)}")
    for name in there:
        TABLES[name](runs / name, target)
    return there


def _with_earlier(found: pd.DataFrame, target: Path, methods: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """``found`` and, of ``methods``, what only the curated tables ``names`` have on the same data."""
    return pd.concat([found, _earlier(found, target, methods, names)], ignore_index=True)


def _earlier(
    found: pd.DataFrame, target: Path, methods: Sequence[str], names: Sequence[str], beside: Collection[str] = ()
) -> pd.DataFrame:
    """Test rows of ``methods`` that the curated tables ``names`` have and ``found`` lacks, on its data and metrics.

    Rows of the variants ``beside`` are given even where ``found`` has them, to be compared with.
    """
    tables = [read_results(target / name) for name in names if (target / name).is_file()]
    if not tables:
        return found.iloc[:0]
    rows = _without_macro(pd.concat(tables, ignore_index=True))
    rows = rows[(rows["protocol"] == "complete") & (rows["split"] == "test") & rows["method"].isin(methods)]
    rows = rows.assign(variant=rows["variant"].map(_without_defaults))
    there = set(found[list(SAME_RUN)].itertuples(index=False, name=None))
    known = set(zip(found["dataset"], found["metric"], strict=True))
    keys = rows[list(SAME_RUN)].itertuples(index=False, name=None)
    pairs = zip(rows["dataset"], rows["metric"], rows["variant"], strict=True)
    new = [
        (key not in there or variant in beside) and (dataset, metric) in known
        for key, (dataset, metric, variant) in zip(keys, pairs, strict=True)
    ]
    return rows[new].drop_duplicates([*SAME_RUN, "metric"]).reset_index(drop=True)


def _without_defaults(variant: str) -> str:
    parts = variant.split(files.VARIANT_SEPARATOR)
    kept = parts if not set(parts) >= SPELLED_OUT else [part for part in parts if part not in SPELLED_OUT]
    return files.VARIANT_SEPARATOR.join(kept)


def _without_own_defaults(method: str, dataset: str, variant: str) -> str:
    """A variant without the values that are the method's defaults on the data set."""
    if method not in METHODS:
        return variant
    defaults = {key: str(value) for key, value in METHODS[method].Config.for_dataset(dataset).model_dump().items()}
    parts = [part.partition("=") for part in variant.split(files.VARIANT_SEPARATOR)]
    kept = ["".join(part) for part in parts if defaults.get(part[0]) != part[2]]
    return files.VARIANT_SEPARATOR.join(kept)


def _without_macro(found: pd.DataFrame) -> pd.DataFrame:
    return found[~found["metric"].str.endswith("_macro")].reset_index(drop=True)


def _same_input(found: pd.DataFrame) -> list[pd.DataFrame]:
    """Parts whose runs saw the same features of the same samples: only within them methods are compared."""
    options = found["variant"].str.split(files.VARIANT_SEPARATOR).map(_data_options)
    constant = found["run_id"] == ""
    keys = [*dict.fromkeys(zip(found["dataset"], found["fold"], options, strict=True))]
    parts = []
    for dataset, fold, used in keys:
        same = (found["dataset"] == dataset) & (found["fold"] == fold)
        part = found[same & ((options == used) | constant)]
        if (part["run_id"] != "").any():
            parts.append(part)
    return parts


def _data_options(changes: Sequence[str]) -> str:
    """Those changes of a variant that concern the data."""
    from mmsa_lib.experiments.options import data_options

    known = set(data_options("mosi"))
    return files.VARIANT_SEPARATOR.join(change for change in changes if change.partition("=")[0] in known)


def _subset_averages(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the incomplete subsets of modalities, as rows of results with level ``average``."""
    runs = found[(found["run_id"] != "") & (found["protocol"] == "subsets") & (found["split"] == "test")]
    if runs.empty:
        return runs
    averages = run_summaries(runs, ["subsets"])
    averages = averages[averages["summary"] == "average"].assign(level="average", split="test")
    names = ["run_id", "label", "changes", "data_options"]
    identity = runs.drop_duplicates(["method", "variant", "seed"])[["method", "variant", "seed", *names]]
    averages = averages.drop(columns=names, errors="ignore").merge(identity, on=["method", "variant", "seed"])
    return averages[[*files.METRIC_COLUMNS, "variant"]]


def _write(table: pd.DataFrame, path: Path) -> None:
    numbers = list(COMPARED_NUMBERS)
    files.write_table(path, table.assign(**table[numbers].round(DECIMALS)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; 2 where runs are missing."""
    return curation_command("sweep", write, "the sweeps in notebooks/sweeps", arguments)


if __name__ == "__main__":
    sys.exit(main())
