"""Summaries of many runs: mean, spread and intervals, over seeds, and over seeds and test items at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.bootstrap import RESAMPLES, interval_over_runs
from mmsa_lib.evaluation.metrics import METRICS
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments import files
from mmsa_lib.experiments.item_scores import ItemScores, ScoredRuns
from mmsa_lib.experiments.results import DECIMALS, check_seeds, choose, failures, read_results, warn_of_mixed_machines

GROUP = ["method", "variant", "dataset", "fold"]
CELL = ["protocol", "level", "split"]

SUMMARY_COLUMNS = (
    *GROUP, *CELL, "metric", "constant", "n", "undefined", "failed", "mean", "sd", "low", "high", "item_low",
    "item_high", "item_undefined", "groups", "coverage", "runs", "note",
)  # fmt: skip
NUMBERS = ("mean", "sd", "low", "high", "item_low", "item_high", "coverage")
COUNTS = ("n", "undefined", "failed", "item_undefined", "groups")


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of results, the folder that holds their runs, and the runs that failed.

    Attributes:
        frame: tidy rows.
        folder: where predictions can be read, if anywhere.
        failed: rows of :func:`mmsa_lib.experiments.results.failures`.
    """

    frame: pd.DataFrame
    folder: Path | None
    failed: pd.DataFrame


def open_source(source: Path | str | pd.DataFrame, runs: Path | str | None = None) -> Source:
    """Results from a folder of runs, a curated table or a frame of :func:`~mmsa_lib.experiments.results.collect`.

    Args:
        source: where they are.
        runs: the folder of the runs behind a table or frame, for intervals over test items and failed runs.

    Raises:
        DataError: nothing there, or no table of results.
    """
    if isinstance(source, pd.DataFrame):
        frame, folder = source, runs
    else:
        frame = read_results(source)
        folder = Path(source) if Path(source).is_dir() else runs
    frame = frame.assign(variant=frame["variant"].fillna(""), run_id=frame["run_id"].fillna(""))
    if folder is not None and folder is runs:
        warn_of_mixed_machines(Path(folder) / run for run in frame["run_id"].unique() if run)
    failed = failures(folder) if folder is not None else pd.DataFrame(columns=["run_id", *GROUP, "seed"])
    return Source(frame, Path(folder) if folder is not None else None, failed)


def summarise(
    source: Path | str | pd.DataFrame,
    *,
    runs: Path | str | None = None,
    items: bool | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = 0,
    coverage: float = 0.95,
    **chosen: Any,
) -> pd.DataFrame:
    """Mean, spread and intervals per method, variant, data set, fold, protocol cell, split and metric.

    Args:
        source: a folder of runs, a curated table, or a frame of :func:`~mmsa_lib.experiments.results.collect`.
        runs: the folder of the runs behind a table or frame; without it there are no intervals over test items.
        items: whether to read predictions for intervals over seeds and test items: by default where they are at hand;
            ``True`` makes their absence an error, ``False`` is quick.
        resamples, bootstrap_seed: of the bootstrap.
        coverage: of the intervals.
        **chosen: values that a column must have, as :func:`~mmsa_lib.experiments.results.curate` takes them.

    Returns:
        Columns of :data:`SUMMARY_COLUMNS`: ``n`` seeds with a defined value and ``undefined`` ones, ``failed`` runs,
        ``mean``, ``sd`` and the t interval ``low`` … ``high`` over seeds; the bootstrap interval ``item_low`` …
        ``item_high`` over seeds and over ``groups`` of test items (videos, speakers, or single items), with
        ``item_undefined`` resamples in which a drawn run was undefined; ``runs``, the identifiers behind the numbers;
        and a ``note`` in words. Constant baselines have a mean alone. A configuration of which every run failed has
        rows with ``n`` = 0.

    Raises:
        DataError: no row is left, a seed occurs twice, or predictions are missing, damaged or of different items.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie in (0, 1), got {coverage}")
    opened = open_source(source, runs)
    rows = choose(opened.frame, **chosen)
    if not (rows["run_id"] != "").any():
        raise DataError(f"no run is left after choosing {chosen}" if chosen else "there is no run to summarise")
    check_seeds(rows)
    keys = [*GROUP, *CELL, "metric"]
    table = summarise_seeds(rows, by=keys, level=coverage)
    table["constant"] = [run == "" for run in rows.groupby(keys, sort=False, dropna=False)["run_id"].first()]
    ids = rows.groupby(keys, sort=False, dropna=False)["run_id"].agg(lambda own: " ".join(sorted(set(own))))
    table = table.assign(
        runs=ids.to_numpy(), coverage=coverage, **dict.fromkeys(("item_low", "item_high"), float("nan"))
    )
    table = table.assign(item_undefined=pd.NA, groups=pd.NA, note="")
    table = _with_failed(table, _chosen_failures(opened.failed, chosen))
    if items is not False:
        _add_items(table, rows, item_reader(opened, items, resamples, bootstrap_seed), items, coverage, bootstrap_seed)
    table["note"] = [_note(row) for row in table.to_dict("records")]
    table = table.astype(dict.fromkeys(COUNTS, "Int64"))
    return sort_summary(table)[list(SUMMARY_COLUMNS)]


def curate_summary(source: Path | str | pd.DataFrame, target: Path | str, **options: Any) -> pd.DataFrame:
    """Write :func:`summarise` to a small CSV, rounded and always in one order; :func:`read_summary` reads it back.

    Returns:
        The rows that were written.
    """
    table = summarise(source, **options)
    table[list(NUMBERS)] = table[list(NUMBERS)].round(DECIMALS)
    files.write_table(Path(target), table)
    return table


def is_summary(frame: pd.DataFrame) -> bool:
    """Whether a frame holds means over seeds and not single runs."""
    return {"mean", "metric", "runs"} <= set(frame.columns)


def read_summary(path: Path | str) -> pd.DataFrame:
    """A table that :func:`curate_summary` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    return read_curated(path, SUMMARY_COLUMNS, NUMBERS, COUNTS, ("constant",), "summary")


def read_curated(path, columns, numbers, counts, flags, what: str) -> pd.DataFrame:
    """A curated CSV with the types that it was written with: texts, numbers, whole numbers with gaps, flags."""
    types = dict.fromkeys(columns, str) | dict.fromkeys(numbers, float) | dict.fromkeys(counts, "Int64")
    empty = {name: [""] for name in (*numbers, *counts)}
    types |= dict.fromkeys(flags, bool)
    return files.read_csv(path, columns, f"{what} of results", dtype=types, keep_default_na=False, na_values=empty)


def sort_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Runs first, then constants; inside them by data, method and cell; metrics in the order of their definition."""
    place = {key: position for position, key in enumerate(METRICS)}
    keys = ["dataset", "fold", "method", "variant", *CELL]
    ordered = table.assign(_metric=table["metric"].map(lambda key: place.get(key, len(place))))
    return ordered.sort_values(["constant", *keys, "_metric", "metric"], kind="stable", ignore_index=True)


def item_reader(opened: Source, items: bool | None, resamples: int, seed: int) -> ItemScores | None:
    """A reader of predictions, if there are any."""
    if opened.folder is None:
        if items:
            raise DataError(
                "intervals over test items need the folder of the runs; give it with --runs (runs= in Python)"
            )
        return None
    return ItemScores(opened.folder, resamples, seed)


def _add_items(table, rows, scores: ItemScores | None, items, coverage, seed) -> None:
    for key, scored, metrics in score_groups(rows, scores, strict=bool(items)):
        own = (table[[*GROUP, *CELL]] == list(key)).all(axis=1) & ~table["constant"]
        if isinstance(scored, str):
            table.loc[own, "note"] = scored
            continue
        for metric in metrics:
            found = interval_over_runs(scored.scores, metric, level=coverage, seed=seed)
            values = [found.low, found.high, found.undefined, found.groups]
            table.loc[own & (table["metric"] == metric), ["item_low", "item_high", "item_undefined", "groups"]] = values


def score_groups(
    rows: pd.DataFrame, scores: ItemScores | None, *, strict: bool
) -> Iterator[tuple[tuple, ScoredRuns | str, list[str]]]:
    """Per method, variant, data and cell its scored runs, or in words why there are none; and its metrics."""
    for key, part in rows[rows["run_id"] != ""].groupby([*GROUP, *CELL], sort=False):
        metrics = list(part["metric"].unique())
        if scores is None:
            yield key, "no item interval: it needs the run folders", metrics
            continue
        seeds = part.drop_duplicates("seed").set_index("seed")["run_id"].to_dict()
        gone = scores.missing(list(seeds.values()))
        if gone and strict:
            raise DataError(f"run {gone[0]} has no predictions in {scores.folder}; give the folder that holds it")
        if gone:
            yield key, f"no item interval: no predictions of {_few(gone)}", metrics
            continue
        stored = {metric: own.set_index("seed")["value"].to_dict() for metric, own in part.groupby("metric")}
        runs = {seed: seeds[seed] for seed in sorted(seeds)}
        yield key, scores.score(runs, key[len(GROUP) :], {metric: stored[metric] for metric in metrics}), metrics


def _few(names: Sequence[str]) -> str:
    """One or two names, or how many there are."""
    return ", ".join(names) if len(names) < 3 else f"{len(names)} runs"


def _chosen_failures(failed: pd.DataFrame, chosen: dict[str, Any]) -> pd.DataFrame:
    for column in set(chosen) & {*GROUP, "seed", "run_id"}:
        wanted = chosen[column]
        keep = failed[column].isin(wanted if isinstance(wanted, list | tuple) else [wanted])
        failed = failed[keep | (failed["method"] == "unknown")]
    return failed


def _with_failed(table: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the number of failed runs, and rows without numbers where no run of a configuration finished."""
    counts = failed.value_counts(GROUP).to_dict()
    own = list(table[GROUP].itertuples(index=False, name=None))
    table = table.assign(failed=[counts.get(key, 0) for key in own])
    rows = []
    for key, count in counts.items():
        if key in own:
            continue
        cells = table[~table["constant"]]
        here = cells[(cells["dataset"] == key[2]) & (cells["fold"] == key[3])]
        for cell in (here if len(here) else cells)[[*CELL, "metric", "coverage"]].drop_duplicates().to_dict("records"):
            rows.append(
                {**dict(zip(GROUP, key, strict=True)), **cell, "constant": False, "n": 0, "undefined": 0,
                 "failed": count, "item_undefined": pd.NA, "groups": pd.NA, "runs": "", "note": ""}
            )  # fmt: skip
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if rows else table


def _note(row: dict[str, Any]) -> str:
    """What a reader must know before reading the numbers."""
    if row["constant"]:
        return "a constant: no seeds"
    notes = [row["note"]] if row["note"] else []
    if row["failed"]:
        notes.append(f"{row['failed']} failed")
    if row["undefined"]:
        notes.append(f"undefined in {row['undefined']} of {row['undefined'] + row['n']} runs")
    if row["n"] == 1:
        notes.append("one run: no spread over seeds")
    return "; ".join(notes)
