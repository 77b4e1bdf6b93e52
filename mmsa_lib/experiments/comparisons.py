"""Methods and variants compared with a reference: paired tests over seeds, intervals over seeds and test items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.bootstrap import RESAMPLES, interval_over_runs
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.protocols import COMPLETE
from mmsa_lib.evaluation.statistics import SAME, compare_seeds, holm, signed_rank_floor, signed_rank_pairs
from mmsa_lib.experiments import files
from mmsa_lib.experiments.item_scores import ItemScores, check_same_items
from mmsa_lib.experiments.results import DECIMALS, check_names, check_seeds, choose
from mmsa_lib.experiments.summaries import CELL, GROUP, item_reader, open_source, read_curated, score_groups
from mmsa_lib.experiments.variants import find_references

COMPARISON_COLUMNS = (
    *GROUP, *CELL, "metric", "reference_method", "reference_variant", "n", "unpaired", "mean", "reference",
    "difference", "sd", "low", "high", "p", "p_holm", "wilcoxon", "wilcoxon_floor", "item_low", "item_high",
    "item_undefined", "groups", "alpha", "verdict", "note", "runs", "reference_runs",
)  # fmt: skip
NUMBERS = (
    "mean", "reference", "difference", "sd", "low", "high", "p", "p_holm", "wilcoxon", "wilcoxon_floor", "item_low",
    "item_high", "alpha",
)  # fmt: skip
COUNTS = ("n", "unpaired", "item_undefined", "groups")

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
PAIRS_NEEDED = 2
"""A t-test needs the spread of the differences."""


def compare(
    source: Path | str | pd.DataFrame,
    reference: str,
    metrics: Sequence[str] | None = None,
    *,
    alpha: float = 0.05,
    runs: Path | str | None = None,
    items: bool | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = 0,
    **chosen: Any,
) -> pd.DataFrame:
    """Compare every method and variant with a reference, paired over seeds and over test items.

    Args:
        source: a folder of runs, a curated table, or a frame of :func:`~mmsa_lib.experiments.results.collect`.
        reference: a method, ``METHOD:VARIANT``, a variant that each method is compared with in itself, or a constant
            baseline; see :func:`~mmsa_lib.experiments.variants.find_references`.
        metrics: keys, by default all but the macro averages. Each counts as a comparison of its own.
        alpha: level of the verdicts; the intervals cover 1 - alpha.
        runs, items, resamples, bootstrap_seed: as :func:`~mmsa_lib.experiments.summaries.summarise` takes them.
        **chosen: values that a column must have; by default ``split="test"``, and ``protocol="complete"`` where no
            protocol is named. ``method`` and ``variant`` choose what is compared; the reference stays.

    Returns:
        Columns of :data:`COMPARISON_COLUMNS`. ``n`` pairs of seeds and ``unpaired`` runs; ``mean`` and ``reference``
        over the pairs, ``difference`` (method minus reference) with ``sd`` and t interval ``low`` … ``high``; ``p`` of
        the paired t-test and ``p_holm``, corrected for all comparisons of the table; ``wilcoxon``, the exact p of the
        signed-rank test, and ``wilcoxon_floor``, the smallest that so many pairs can reach; ``item_low`` …
        ``item_high``, the paired bootstrap over seeds and test items; ``verdict``: ``better`` or ``worse`` where
        ``p_holm`` is below ``alpha`` and the item interval, if there is one, leaves out 0; ``no difference shown``; or
        ``too few seeds``; and a ``note`` in words.

    Raises:
        DataError: no row is left, there is nothing to compare, a seed occurs twice, predictions are missing or damaged,
            or the runs of a comparison were tested on different items (named).
        UnknownNameError: no such reference, metric or chosen value; names the nearest.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha must lie in (0, 1), got {alpha}")
    opened = open_source(source, runs)
    rows = _rows(opened.frame, reference, metrics, dict(chosen))
    paired = _with_references(rows, reference, set(opened.frame.loc[opened.frame["run_id"] == "", "method"]))
    by = [*GROUP[2:], *CELL, "metric", "reference_method", "reference_variant"]
    parts = [_compared(key, part, alpha) for key, part in paired.groupby(by, sort=False)]
    table = pd.DataFrame([row for part in parts for row in part])
    for column in ("method", "variant"):
        if column in chosen and len(table):
            wanted = chosen[column]
            table = table[table[column].isin([wanted] if isinstance(wanted, str) else wanted)]
    if table.empty:
        raise DataError(f"there is nothing to compare with {reference!r}; it needs a second method or variant")
    table = table.reset_index(drop=True).assign(p_holm=holm(table["p"].to_numpy(dtype=float)), alpha=alpha)
    table = table.assign(item_low=np.nan, item_high=np.nan, item_undefined=pd.NA, groups=pd.NA, _items="")
    if items is not False:
        reader = item_reader(opened, items, resamples, bootstrap_seed)
        _add_items(table, rows, reader, items, 1 - alpha, bootstrap_seed)
    lost = opened.failed.value_counts(GROUP).to_dict()
    records = table.to_dict("records")
    table["verdict"] = [_verdict(row) for row in records]
    table["note"] = [
        "; ".join(_notes({**row, "verdict": v}, lost)) for row, v in zip(records, table["verdict"], strict=True)
    ]
    table = table.astype(dict.fromkeys(COUNTS, "Int64"))
    return table[list(COMPARISON_COLUMNS)]


def curate_comparison(
    source: Path | str | pd.DataFrame,
    reference: str,
    target: Path | str,
    metrics: Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Write :func:`compare` to a small CSV, rounded and always in one order; :func:`read_comparison` reads it back.

    Returns:
        The rows that were written.
    """
    table = compare(source, reference, metrics, **options)
    table[list(NUMBERS)] = table[list(NUMBERS)].round(DECIMALS)
    files.write_table(Path(target), table)
    return table


def read_comparison(path: Path | str) -> pd.DataFrame:
    """A table that :func:`curate_comparison` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    return read_curated(path, COMPARISON_COLUMNS, NUMBERS, COUNTS, (), "comparison")


def _rows(frame: pd.DataFrame, reference: str, metrics: Sequence[str] | None, chosen: dict[str, Any]) -> pd.DataFrame:
    """The rows that are compared, constants only where they are the reference; in a fixed order."""
    chosen.setdefault("split", "test")
    chosen.setdefault("protocol", COMPLETE)
    check_names(frame, **chosen)
    rows = choose(frame, **{column: value for column, value in chosen.items() if column not in ("method", "variant")})
    if metrics:
        check_names(rows, metric=list(metrics))
    keep = rows["metric"].isin(metrics) if metrics else ~rows["metric"].str.endswith("_macro")
    rows = rows[keep & ((rows["run_id"] != "") | (rows["method"] == reference))]
    if not (rows["run_id"] != "").any():
        raise DataError(f"no run is left after choosing {chosen}")
    check_seeds(rows)
    order = {key: position for position, key in enumerate(metrics or dict.fromkeys(rows["metric"]))}
    keys = ["dataset", "fold", *CELL, "_metric", "method", "variant", "seed"]
    return rows.assign(_metric=rows["metric"].map(order)).sort_values(keys, kind="stable", ignore_index=True)


def _with_references(rows: pd.DataFrame, reference: str, constants: set[str]) -> pd.DataFrame:
    """Rows of runs with what they are compared with; rows of methods without a reference are left out."""
    constant = rows["run_id"] == ""
    if constant.any():
        return rows[~constant].assign(
            reference_method=reference, reference_variant="", _constant=_spread(rows, constant)
        )
    parts = []
    for (dataset, fold), part in rows.groupby(["dataset", "fold"], sort=False):
        try:
            found = find_references(part, reference, constants)
        except ConfigError as error:
            raise type(error)(f"{error} ({dataset}, fold {fold})") from error
        part = part[part["method"].isin(found)]
        names = part["method"].map(found)
        parts.append(part.assign(reference_method=names.str[0], reference_variant=names.str[1], _constant=np.nan))
    return pd.concat(parts)


def _spread(rows: pd.DataFrame, constant: pd.Series) -> pd.Series:
    """The value of the constant for each row of a run; no mask changes a constant."""
    values = rows[constant].set_index(["dataset", "fold", "split", "metric"])["value"].to_dict()
    keys = zip(rows["dataset"], rows["fold"], rows["split"], rows["metric"], strict=True)
    return pd.Series([values.get(key, np.nan) for key in keys], index=rows.index)


def _compared(key: tuple, part: pd.DataFrame, alpha: float) -> list[dict[str, Any]]:
    """One row per method and variant of one metric in one cell, against one reference."""
    known = dict(zip([*GROUP[2:], *CELL, "metric", "reference_method", "reference_variant"], key, strict=True))
    base = _row_name(*key[-2:])
    part = part.assign(row=[_row_name(*pair) for pair in zip(part["method"], part["variant"], strict=True)])
    if part["_constant"].notna().any():
        constant = part.drop_duplicates("seed").assign(row=base, value=lambda rows: rows["_constant"], run_id="")
        part = pd.concat([part, constant], ignore_index=True)
    if base not in set(part["row"]) or part["row"].nunique() < 2:
        return []
    table = compare_seeds(part, base, by=["metric"], column="row", alpha=alpha)
    wide = part.pivot(index="seed", columns="row", values="value")  # noqa: PD010 (must not average)
    ids = part.groupby("row")["run_id"].agg(lambda found: " ".join(sorted(set(found) - {""})))
    rows = []
    for numbers in table.drop(columns=["p_holm", "verdict"]).to_dict("records"):
        name = numbers.pop("row")
        method, _, variant = name.partition(":")
        pairs = wide.reindex(columns=[name, base]).astype(float)
        both = pairs.dropna().to_numpy()
        different = int((np.round(both[:, 0] - both[:, 1], SAME) != 0).sum())
        floor = signed_rank_floor(different) if len(both) >= PAIRS_NEEDED else np.nan
        facts = {"mean": _mean(both[:, 0]), "reference": _mean(both[:, 1]), "wilcoxon_floor": floor}
        words = _seed_words(part, name, base, pairs)
        own = {"method": method, "variant": variant, "runs": ids[name], "reference_runs": ids[base], "_seeds": words}
        rows.append({**numbers, **known, **facts, **own})
    return rows


def _row_name(method: str, variant: str) -> str:
    return f"{method}:{variant}"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _seed_words(part: pd.DataFrame, name: str, base: str, pairs: pd.DataFrame) -> list[str]:
    """Which seeds have no partner, and where the metric is undefined."""
    seeds = {row: set(part.loc[part["row"] == row, "seed"]) for row in (name, base)}
    words = []
    for who, own, other in (("the method", name, base), ("the reference", base, name)):
        lonely = sorted(seeds[own] - seeds[other])
        if lonely:
            words.append(f"without a partner: seed {', '.join(map(str, lonely))} of {who}")
        undefined = sorted(seed for seed in seeds[own] & seeds[other] if np.isnan(pairs.loc[seed, own]))
        if undefined:
            words.append(f"undefined: seed {', '.join(map(str, undefined))} of {who}")
    return words


def _add_items(table: pd.DataFrame, rows: pd.DataFrame, reader: ItemScores | None, items, coverage, seed) -> None:
    """Paired intervals over seeds and test items, where all predictions are there."""
    runs = rows[rows["run_id"] != ""]
    needed = set(table[[*GROUP, *CELL]].itertuples(index=False, name=None))
    base = ["reference_method", "reference_variant", *GROUP[2:], *CELL]
    needed |= set(table[base].itertuples(index=False, name=None))
    own = [key in needed for key in runs[[*GROUP, *CELL]].itertuples(index=False, name=None)]
    scored = {key: found for key, found, _ in score_groups(runs[own], reader, strict=bool(items))}
    reasons = []
    for i, row in table.iterrows():
        mine = scored[tuple(row[column] for column in [*GROUP, *CELL])]
        other = scored.get(tuple(row[column] for column in base), "no item interval: a constant has no predictions")
        reasons.append(next((side for side in (mine, other) if isinstance(side, str)), ""))
        if reasons[-1]:
            continue
        check_same_items((mine.run, mine.items), (other.run, other.items))
        if set(mine.scores.runs) & set(other.scores.runs):
            found = interval_over_runs(mine.scores, row["metric"], other.scores, level=coverage, seed=seed)
            values = [found.low, found.high, found.undefined, found.groups]
            table.loc[i, ["item_low", "item_high", "item_undefined", "groups"]] = values
    table["_items"] = reasons


def _verdict(row: dict[str, Any]) -> str:
    if row["n"] < PAIRS_NEEDED:
        return f"too few seeds ({row['n']}, {PAIRS_NEEDED} needed)"
    if not row["p_holm"] < row["alpha"] or not _leaves_out_zero(row):
        return NO_DIFFERENCE
    return BETTER if (row["difference"] > 0) == describe(row["metric"]).higher_is_better else WORSE


def _leaves_out_zero(row: dict[str, Any]) -> bool:
    """Whether the item interval agrees; where there is none it can't object."""
    return np.isnan(row["item_low"]) or row["item_low"] > 0 or row["item_high"] < 0


def _notes(row: dict[str, Any], lost: dict[tuple, int]) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = []
    n = row["n"]
    if n < PAIRS_NEEDED:
        notes.append(f"{n or 'no'} pair of seeds: a test over seeds needs {PAIRS_NEEDED}")
    elif row["wilcoxon_floor"] > row["alpha"]:
        notes.append(
            f"Wilcoxon can't fall below p={row['wilcoxon_floor']:.4g} with {n} pairs: it takes "
            f"{signed_rank_pairs(row['alpha'])} that differ"
        )
    if n >= PAIRS_NEEDED and round(row["sd"], SAME) == 0 and round(row["difference"], SAME) != 0:
        notes.append("every pair differs by the same amount: p says nothing of seeds")
    if row["verdict"] == NO_DIFFERENCE and row["p_holm"] < row["alpha"]:
        notes.append("seeds differ, but the interval over test items holds 0")
    for who, keys in (("method", ("method", "variant")), ("reference", ("reference_method", "reference_variant"))):
        count = lost.get((*(row[key] for key in keys), row["dataset"], row["fold"]), 0)
        if count:
            notes.append(f"{count} failed run{'s' if count > 1 else ''} of the {who}")
    if row["item_undefined"] is not pd.NA and row["item_undefined"]:
        notes.append(f"undefined in {row['item_undefined']} resamples")
    return [*notes, *row["_seeds"], *filter(None, [row["_items"]])]
