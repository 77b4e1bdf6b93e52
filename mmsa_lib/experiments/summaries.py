"""Many runs in few numbers: means and intervals, comparisons with a reference, and one number per protocol.

Intervals are over random seeds, and over seeds and test items at once where predictions are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.bootstrap import RESAMPLES, interval_over_runs
from mmsa_lib.evaluation.levels import COMPLETE, LEVEL_SEPARATOR, auilc
from mmsa_lib.evaluation.metrics import METRICS
from mmsa_lib.evaluation.statistics import (
    NO_DIFFERENCE,
    PAIRS_NEEDED,
    SAME,
    compare_pairs,
    judged,
    signed_rank_pairs,
    summarise_seeds,
)
from mmsa_lib.experiments import files
from mmsa_lib.experiments.item_scores import ScoredRuns, check_same_items, score_runs
from mmsa_lib.experiments.results import (
    CONFIGURATION,
    DEFAULT,
    GROUP,
    UNKNOWN,
    check_code,
    check_names,
    check_seeds,
    choose,
    descriptions,
    failures,
    first_label,
    in_words,
    is_constant,
    listed,
    read_results,
    rounded,
    shared_values,
    terms_of,
    values_of,
    warn_of_mixed_machines,
)
from mmsa_lib.experiments.terms import TERM_COLUMNS

DATA = ["dataset", "fold"]
CELL = ["protocol", "level", "split"]
ITEMS = ["item_low", "item_high", "item_undefined", "groups"]
NAMES = ["method", "label", "changes", "data_options"]
REFERENCE = [f"reference_{name}" for name in NAMES]
SIDES = {"method": "", "reference": "reference_"}
"""Who is compared, and how the columns of its configuration start."""

SUMMARY_COLUMNS = (
    *NAMES, *DATA, *CELL, "metric", "constant", "n", "undefined", "failed", "mean", "sd", "low", "high", *ITEMS,
    "coverage", "runs", "note",
)  # fmt: skip
COMPARISON_COLUMNS = (
    *NAMES, *DATA, *CELL, "metric", *REFERENCE, "n", "unpaired", "mean", "reference", "difference", "sd", "low", "high",
    "p", "p_holm", "wilcoxon", "wilcoxon_floor", *ITEMS, "alpha", "verdict", "note", "runs", "reference_runs",
)  # fmt: skip
COUNTS = ("n", "undefined", "failed", "unpaired", "item_undefined", "groups")

NOT_EXERCISED = "not exercised"
EXERCISED = 0.01
"""Part of the task's gradient on the encoders (of the loss, where a term does not reach them) below which terms do next
to nothing, so that leaving them out cannot show what they do."""

HEADLINE = ("auilc_normalised", "average", "mean")
"""The one number of each protocol that is on the scale of its metric: see :func:`protocol_summaries`."""


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


def open_source(source: Path | str | pd.DataFrame | Source, runs: Path | str | None = None) -> Source:
    """Results from a folder of runs, a curated table or a frame of :func:`~mmsa_lib.experiments.results.collect`.

    Args:
        source: where they are.
        runs: the folder of the runs behind a table or frame, for intervals over test items and failed runs.

    Raises:
        DataError: nothing there, or no table of results.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, pd.DataFrame):
        frame, folder = source, runs
    else:
        frame = read_results(source)
        folder = Path(source) if Path(source).is_dir() else runs
    frame = frame.fillna({"run_id": "", "label": ""})
    if folder is not None and folder is runs:
        warn_of_mixed_machines(Path(folder) / run for run in frame["run_id"].unique() if run)
    failed = failures(folder) if folder is not None else pd.DataFrame(columns=["run_id", *NAMES, *DATA, "seed"])
    return Source(frame, Path(folder) if folder is not None else None, failed)


def summarise(
    source: Path | str | pd.DataFrame | Source,
    *,
    runs: Path | str | None = None,
    items: bool | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = 0,
    coverage: float = 0.95,
    across_code: bool = False,
    **chosen: Any,
) -> pd.DataFrame:
    """Mean, spread and intervals per configuration, data set, fold, protocol cell, split and metric.

    Args:
        source: a folder of runs, a curated table, or a frame of :func:`~mmsa_lib.experiments.results.collect`.
        runs: the folder of the runs behind a table or frame; without it there are no intervals over test items.
        items: whether to read predictions for intervals over seeds and test items: by default where they are at hand;
            ``True`` makes their absence an error, ``False`` is quick.
        resamples, bootstrap_seed: of the bootstrap.
        coverage: of the intervals.
        across_code: also put runs of different code side by side
            (:func:`~mmsa_lib.experiments.results.check_code`).
        **chosen: values that a column must have, as :func:`~mmsa_lib.experiments.results.curate` takes them.

    Returns:
        Columns of :data:`SUMMARY_COLUMNS`: ``n`` seeds with a defined value and ``undefined`` ones, ``failed`` runs,
        ``mean``, ``sd`` and the t interval ``low`` … ``high`` over seeds; the bootstrap interval ``item_low`` …
        ``item_high`` over seeds and over ``groups`` of test items (videos, speakers, or single items), with
        ``item_undefined`` resamples in which a drawn run was undefined; ``runs``, the identifiers behind the numbers;
        and a ``note`` in words. Constant baselines have a mean alone. A configuration of which every run failed has
        rows with ``n`` = 0.

    Raises:
        DataError: no row is left, a seed occurs twice, runs come from different code, or predictions are missing,
            damaged or of different items.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage must lie in (0, 1), got {coverage}")
    opened = open_source(source, runs)
    rows = choose(opened.frame, **chosen)
    if is_constant(rows).all():
        raise DataError(f"no run is left after choosing {chosen}" if chosen else "there is no run to summarise")
    check_seeds(rows)
    check_code(rows, across_code)
    keys = [*GROUP, *CELL, "metric"]
    groups = rows.groupby(keys, sort=False, dropna=False)
    table = summarise_seeds(rows, by=keys, level=coverage).assign(
        label=groups["label"].agg(first_label).to_numpy(),
        runs=groups["run_id"].agg(_identifiers).to_numpy(),
        constant=(groups["run_id"].first() == "").to_numpy(),
        coverage=coverage,
    )
    failed = opened.failed
    for column in set(chosen) & {*NAMES, *DATA, "seed", "run_id"}:
        failed = failed[failed[column].isin(listed(column, chosen[column])) | (failed["method"] == UNKNOWN)]
    table = _with_failed(table, failed)
    scored = _scored(opened, rows, items, resamples, bootstrap_seed)
    table = _with_items(table, scored, coverage, bootstrap_seed)
    table["note"] = [_summary_note(row) for row in table.to_dict("records")]
    table = table.astype({name: "Int64" for name in COUNTS if name in table})
    # Runs first, then constants; inside them by data, method and cell; metrics in the order of their definition.
    place = {key: position for position, key in enumerate(METRICS)}
    order = table["metric"].map(lambda key: place.get(key, len(place)))
    keys = ["constant", *DATA, "method", "_words", *CELL, "_metric", "metric"]
    table = table.assign(_metric=order, _words=descriptions(table)).sort_values(keys, kind="stable", ignore_index=True)
    return table[list(SUMMARY_COLUMNS)]


def compare(
    source: Path | str | pd.DataFrame,
    reference: str,
    metrics: Sequence[str] | None = None,
    *,
    alpha: float = 0.05,
    family: Sequence[str] = (),
    runs: Path | str | None = None,
    items: bool | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = 0,
    across_code: bool = False,
    terms: Path | str | pd.DataFrame | None = None,
    **chosen: Any,
) -> pd.DataFrame:
    """Compare every configuration with a reference, paired over seeds and over test items.

    Args:
        source: a folder of runs, a curated table, or a frame of :func:`~mmsa_lib.experiments.results.collect`.
        reference: a method (its configuration that all its others extend), ``METHOD:NAME``, a name alone, which every
            method is then compared with in itself, or a constant baseline. A name is a label, or the changed values
            ``a=1; b=2`` in any order, in full or without what all runs share; ``default`` is the configuration without
            changes of its own.
        metrics: keys, by default all but the macro averages. Each counts as a comparison of its own.
        alpha: level of the verdicts; the intervals cover 1 - alpha.
        family: columns, such as ``("dataset", "fold")``: comparisons that agree in them are corrected together; by
            default all of the table.
        runs, items, resamples, bootstrap_seed, across_code: as :func:`summarise` takes them.
        terms: rows of :func:`~mmsa_lib.experiments.results.collect_terms` or a file of them, by default those of the
            runs where they are at hand.
        **chosen: values that a column must have; by default ``split="test"``, and ``protocol="complete"`` where no
            protocol is named. ``method``, ``label``, ``changes`` and ``data_options`` choose what is compared; the
            reference stays.

    Returns:
        Columns of :data:`COMPARISON_COLUMNS`. ``n`` pairs of seeds and ``unpaired`` runs; ``mean`` and ``reference``
        over the pairs, ``difference`` (method minus reference) with ``sd`` and t interval ``low`` … ``high``; ``p`` of
        the paired t-test and ``p_holm``, corrected for all comparisons of the family; ``wilcoxon``, the p of the
        signed-rank test, and ``wilcoxon_floor``, the smallest that so many pairs can reach; ``item_low`` …
        ``item_high``, the paired bootstrap over seeds and test items; ``verdict``: ``better`` or ``worse`` where
        ``p_holm`` is below ``alpha`` and the item interval, if there is one, leaves out 0; ``no difference shown``, or
        ``not exercised`` where the terms of the loss that are left out pull on the encoders less than
        :data:`EXERCISED` as hard as the task's in the runs with them (docs/evaluation.md); or ``too few seeds``; and a
        ``note`` in words.

    Raises:
        DataError: no row is left, there is nothing to compare, a seed occurs twice, runs come from different code,
            predictions are missing or damaged, or the runs of a comparison were tested on different items (named).
        UnknownNameError: no such reference, metric or chosen value; names the nearest.
        ConfigError: the reference has several configurations and none is the base of the others.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha must lie in (0, 1), got {alpha}")
    opened = open_source(source, runs)
    rows = _compared_rows(opened.frame, reference, metrics, {"split": "test", "protocol": COMPLETE, **chosen})
    check_code(rows, across_code)
    cells = dict(list(rows.groupby([*DATA, *CELL, "metric", *CONFIGURATION], sort=False)))
    base_of = _references(rows, reference, set(opened.frame.loc[is_constant(opened.frame), "method"]))
    # Constants are found under their data, split, metric and configuration, as no mask changes them.
    constants = {(*key[:2], *key[4:]): part for key, part in cells.items() if is_constant(part).all()}
    table = []
    for key, part in cells.items():
        own, base = key[-3:], base_of.get((*key[:2], key[-3]))
        if base is None or base == own or is_constant(part).all():
            continue
        wanted = (*key[:-3], *base)
        found = cells.get(wanted, constants.get((*wanted[:2], *wanted[4:])))
        if found is not None and all(
            part[name].isin(listed(name, chosen.get(name, part[name]))).any() for name in NAMES
        ):
            table.append(_comparison(part, found, alpha))
    if not table:
        raise DataError(f"there is nothing to compare with {reference!r}; it needs a second method or configuration")
    table = pd.DataFrame(table).assign(alpha=alpha)
    needed = {_key(row, prefix) for row in table.to_dict("records") for prefix in ("", "reference_")}
    compared = [key in needed for key in rows[[*GROUP, *CELL]].itertuples(index=False, name=None)]
    scored = _scored(opened, rows[compared], items, resamples, bootstrap_seed)
    table = judged(_with_items(table, scored, 1 - alpha, bootstrap_seed), alpha, family)
    table = _with_exercise(table, _terms(opened, rows, terms))
    lost = opened.failed.value_counts(GROUP).to_dict()
    table["note"] = ["; ".join(_comparison_notes(row, lost)) for row in table.to_dict("records")]
    return table.astype({name: "Int64" for name in COUNTS if name in table})[list(COMPARISON_COLUMNS)]


def protocol_summaries(
    results: pd.DataFrame, protocols: Sequence[str] | None = None, upto: float = 0.9
) -> pd.DataFrame:
    """Each protocol in one number per run (docs/evaluation.md, AUILC), and per constant baseline.

    Args:
        results: rows of :func:`mmsa_lib.experiments.results.collect` or of a curated table; test rows count.
        protocols: which, by default all that occur except ``complete`` and single-level ones.
        upto: highest rate of an area; rate 1 hides everything and says nothing of a method but its constant.

    Returns:
        Rows with the columns of ``results``, the name of the summary in place of the ``level``: ``auilc`` and
        ``auilc_normalised`` (the area over frame rates, raw and divided by its range), ``average`` (of incomplete
        subsets) and ``complete`` for subsets, ``mean`` over modality rates. A number is NaN where the metric is
        undefined at some level (the correlation of a constant prediction). No mask changes a constant.

    Raises:
        DataError: no such rows, a cell occurs twice (runs of different code are mixed), or a run lacks a level.
    """
    test = results[results["split"] == "test"]
    test = test.assign(level=test["level"].map(files.level_name))
    runs, constants = test[~is_constant(test)], test[is_constant(test)]
    rows: list[dict] = []
    for protocol in protocols or [name for name in runs["protocol"].unique() if name != COMPLETE]:
        chosen = runs[runs["protocol"] == protocol]
        if chosen.empty:
            raise DataError(f"no test results under protocol {protocol!r}; test runs with --protocols {protocol}")
        if not protocols and len(set(chosen["level"])) == 1:
            continue
        for (dataset, fold), part in chosen.groupby(DATA, sort=False):
            levels = _ordered_levels(part["level"].unique(), upto)
            for _, cells in part.groupby([*CONFIGURATION, "seed", "metric"], sort=False):
                first, values = cells.iloc[0], cells.set_index("level")["value"]
                who = f"{first['method']}, seed {first['seed']}, {dataset}"
                if values.index.has_duplicates:
                    raise DataError(f"{who} has several results under protocol {protocol}; leave the older runs out")
                if lacking := [level for level in levels if level not in values.index]:
                    raise DataError(f"{who} has no result under protocol {protocol} at {lacking[0]}; repeat the run")
                rows += _summaries({**first, "protocol": protocol}, levels, [values[level] for level in levels])
            here = constants[(constants["dataset"] == dataset) & (constants["fold"] == fold)]
            here = here[here["metric"].isin(part["metric"])].drop_duplicates(["method", "metric"])
            for row in here.to_dict("records"):
                rows += _summaries({**row, "protocol": protocol}, levels, [row["value"]] * len(levels))
    return pd.DataFrame(rows, columns=list(results.columns)).astype({"seed": "Int64"})


def curate_summary(source: Path | str | pd.DataFrame, target: Path | str, **options: Any) -> pd.DataFrame:
    """Write :func:`summarise` to a small CSV, rounded and always in one order; :func:`read_summary` reads it back.

    Returns:
        The rows that were written.
    """
    return write_numbers(summarise(source, **options), target)


def write_numbers(table: pd.DataFrame, target: Path | str) -> pd.DataFrame:
    """Write a summary or a comparison to a small CSV and return it as written, numbers rounded."""
    table = rounded(table)
    files.write_table(Path(target), table)
    return table


def read_summary(path: Path | str) -> pd.DataFrame:
    """A table that :func:`curate_summary` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    return _read(path, SUMMARY_COLUMNS, "summary")


def read_comparison(path: Path | str) -> pd.DataFrame:
    """A table of :func:`compare` that :func:`write_numbers` or ``results compare`` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    return _read(path, COMPARISON_COLUMNS, "comparison")


def _read(path: Path | str, columns: Sequence[str], what: str) -> pd.DataFrame:
    texts = (
        *NAMES, *REFERENCE, *DATA, *CELL, "metric", "verdict", "note", "runs", "reference_runs", "variant",
        "reference_variant",
    )  # fmt: skip
    types = dict.fromkeys(texts, str) | dict.fromkeys(COUNTS, "Int64") | {"constant": bool}
    empty = {name: [""] for name in columns if name not in texts}
    table = files.read_csv(path, columns, f"{what} of results", dtype=types, keep_default_na=False, na_values=empty)
    return table[list(columns)]


def is_summary(frame: pd.DataFrame) -> bool:
    """Whether a frame holds means over seeds and not single runs."""
    return {"metric", "n", "mean", "sd"} <= set(frame.columns)


# --- What is compared with what -------------------------------------------------------------------------------------


def base_of(changes: Mapping[Any, Set]) -> Any:
    """The key of the configuration that all others extend; ``None`` if there is none.

    Args:
        changes: what each configuration changes, as a set of names with values.
    """
    return next((key for key, own in changes.items() if all(own <= other for other in changes.values())), None)


def _references_of_data(rows: pd.DataFrame, wanted: str, others: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Method to the configuration that it is compared with, of runs of one data set and fold."""
    shared = set(shared_values(rows).items())
    known: dict[str, dict[tuple, tuple[str, set, set]]] = {}  # method, configuration: name, own changes, all changes
    for key, part in sorted(rows.groupby(list(CONFIGURATION)), key=lambda group: in_words(values_of(*group[0][1:]))):
        whole = values_of(*key[1:]).items()
        own = {name: value for name, value in whole if (name, value) not in shared}
        spelt = first_label(part["label"]) or in_words(own) or DEFAULT
        known.setdefault(key[0], {})[key] = (spelt, set(own.items()), set(whole))

    def called(method: str, text: str) -> tuple | None:
        parts = [] if text == DEFAULT else [part.strip() for part in text.split(";")]
        asked = {tuple(part.split("=", 1)) for part in parts if part}
        return next((key for key, (name, *sets) in known[method].items() if text == name or asked in sets), None)

    def spellings(method: str) -> list[str]:
        return [name for name, *_ in known[method].values()]

    method, colon, text = wanted.partition(":")
    if method in known:
        changes = {key: whole for key, (*_, whole) in known[method].items()}
        chosen = called(method, text) if colon else base_of(changes)
        if chosen is None and colon:
            raise unknown_name(f"configuration of {method}", text, spellings(method))
        if chosen is None:
            choices = " or ".join(f"'{method}:{name}'" for name in spellings(method))
            raise ConfigError(f"{method} has several configurations and none is the base of the others; say {choices}")
        return dict.fromkeys(known, chosen)
    found = {name: chosen for name in sorted(known) if (chosen := called(name, wanted)) is not None}
    if not found:
        names = [name for method in known for name in spellings(method)]
        raise unknown_name("reference", wanted, [*known, *names, *others])
    return found


def _references(rows: pd.DataFrame, reference: str, constants: set[str]) -> dict[tuple, tuple[str, str, str]]:
    """Data set, fold and method to the configuration that it is compared with; methods without one are left out."""
    found: dict[tuple, tuple[str, str, str]] = {}
    for data, part in rows.groupby(DATA, sort=False):
        runs = part[~is_constant(part)]
        if is_constant(part).any():
            first = part[is_constant(part)].iloc[0]
            own = dict.fromkeys(runs["method"], tuple(first[list(CONFIGURATION)]))
        else:
            try:
                own = _references_of_data(runs, reference, constants)
            except ConfigError as error:
                raise type(error)(f"{error} ({data[0]}, fold {data[1]})") from error
        found |= {(*data, method): base for method, base in own.items()}
    return found


def _compared_rows(
    frame: pd.DataFrame, reference: str, metrics: Sequence[str] | None, chosen: dict[str, Any]
) -> pd.DataFrame:
    """The rows that are compared, constants only where they are the reference; in a fixed order."""
    check_names(frame, **chosen)
    rows = choose(frame, **{column: value for column, value in chosen.items() if column not in NAMES})
    if metrics:
        check_names(rows, metric=list(metrics))
    keep = rows["metric"].isin(metrics) if metrics else ~rows["metric"].str.endswith("_macro")
    rows = rows[keep & (~is_constant(rows) | (rows["method"] == reference))]
    if is_constant(rows).all():
        raise DataError(f"no run is left after choosing {chosen}")
    check_seeds(rows)
    order = {key: position for position, key in enumerate(metrics or dict.fromkeys(rows["metric"]))}
    rows = rows.assign(_metric=rows["metric"].map(order), _words=descriptions(rows))
    keys = [*DATA, *CELL, "_metric", "method", "_words", "seed"]
    return rows.sort_values(keys, kind="stable", ignore_index=True)


def _comparison(own: pd.DataFrame, base: pd.DataFrame, alpha: float) -> dict[str, Any]:
    """One configuration against its reference in one cell; a constant has one value for all seeds."""
    first, constant = own.iloc[0], is_constant(base).all()
    values = own.set_index("seed")["value"]
    other = pd.Series(base["value"].iloc[0], index=values.index) if constant else base.set_index("seed")["value"]
    return {
        **first[[*NAMES, *DATA, *CELL, "metric"]], "label": first_label(own["label"]),
        **dict(zip(REFERENCE, base.iloc[0][NAMES], strict=True)), "reference_label": first_label(base["label"]),
        **compare_pairs(values, other, alpha),
        "runs": _identifiers(own["run_id"]), "reference_runs": _identifiers(base["run_id"]),
        "_seeds": _seed_words(values, other),
    }  # fmt: skip


def _seed_words(values: pd.Series, reference: pd.Series) -> list[str]:
    """Which seeds have no partner, and where the metric is undefined."""
    words = []
    for who, own, other in (("the method", values, reference), ("the reference", reference, values)):
        lonely = sorted(set(own.index) - set(other.index))
        undefined = sorted(seed for seed in set(own.index) & set(other.index) if pd.isna(own[seed]))
        for what, seeds in (("without a partner", lonely), ("undefined", undefined)):
            words += [f"{what}: seed {', '.join(map(str, seeds))} of {who}"] if seeds else []
    return words


# --- Test items -----------------------------------------------------------------------------------------------------


def _scored(opened: Source, rows: pd.DataFrame, items: bool | None, resamples: int, seed: int) -> dict[tuple, Any]:
    """Configuration, data and cell of ``rows`` to its :class:`ScoredRuns`, or in words why there are none.

    Raises:
        DataError: ``items`` is true and predictions are missing; or they are damaged, or disagree with ``rows``.
    """
    if items is False:
        return {}
    if items and opened.folder is None:
        raise DataError("intervals over test items need the folder of the runs; give it with --runs (runs= in Python)")
    found: dict[tuple, ScoredRuns | str] = {}
    for key, part in rows[~is_constant(rows)].groupby([*GROUP, *CELL], sort=False):
        if opened.folder is None:
            found[key] = "no item interval: it needs the run folders"
            continue
        runs = part.drop_duplicates("seed").set_index("seed")["run_id"].sort_index()
        folders = {
            seed: opened.folder if opened.folder.resolve().name == run else opened.folder / run
            for seed, run in runs.items()
        }
        gone = [runs[seed] for seed, folder in folders.items() if not (folder / files.PREDICTIONS).is_file()]
        if gone and items:
            raise DataError(f"run {gone[0]} has no predictions in {opened.folder}; give the folder that holds it")
        if gone:
            found[key] = (
                f"no item interval: no predictions of {', '.join(gone) if len(gone) < 3 else f'{len(gone)} runs'}"
            )
        else:
            table = part.pivot(index="metric", columns="seed", values="value")  # noqa: PD010 (must not average)
            found[key] = score_runs(folders, key[len(GROUP) :], table.loc[part["metric"].unique()], resamples, seed)
    return found


def _item_numbers(row: dict[str, Any], scored: dict[tuple, Any], coverage: float, seed: int) -> dict[str, Any]:
    """The columns of an interval over items, paired where ``row`` has a reference, or a note why there is none."""
    own, base = scored.get(_key(row), ""), None
    if "reference_method" in row and scored:
        base = scored.get(_key(row, "reference_"), "no item interval: a constant has no predictions")
    reason = next((side for side in (own, base) if isinstance(side, str)), None)
    if reason is not None:
        return {"note": reason}
    if base is not None:
        check_same_items((own.run, own.items), (base.run, base.items))
        if not set(own.scores.runs) & set(base.scores.runs):
            return {}
    found = interval_over_runs(own.scores, row["metric"], base and base.scores, level=coverage, seed=seed)
    return dict(zip(ITEMS, (found.low, found.high, found.undefined, found.groups), strict=True))


def _with_items(table: pd.DataFrame, scored: dict[tuple, Any], coverage: float, seed: int) -> pd.DataFrame:
    """``table`` with the columns of intervals over items, and notes why there are none."""
    found = [_item_numbers(row, scored, coverage, seed) for row in table.to_dict("records")]
    columns = {name: [own.get(name, np.nan) for own in found] for name in ITEMS}
    counts = {name: pd.array(columns[name], dtype="Int64") for name in ("item_undefined", "groups")}
    return table.assign(**{**columns, **counts}, note=[own.get("note", "") for own in found])


def _key(row: Mapping[str, Any], prefix: str = "") -> tuple:
    """The configuration of a row (or of its reference), its data and its cell."""
    return (*(row[f"{prefix}{name}"] for name in CONFIGURATION), *(row[name] for name in (*DATA, *CELL)))


# --- Terms of the loss ----------------------------------------------------------------------------------------------


def _terms(opened: Source, rows: pd.DataFrame, terms: Path | str | pd.DataFrame | None) -> pd.DataFrame:
    """Rows of terms of the loss of the runs behind ``rows``; none where they can't be had."""
    if isinstance(terms, pd.DataFrame):
        return terms
    if terms is not None:
        return files.read_csv(terms, ("run_id", *TERM_COLUMNS), "table of terms")
    return terms_of(opened.folder, rows if opened.folder is not None else rows[:0])


def _with_exercise(table: pd.DataFrame, terms: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the verdict ``not exercised`` where the terms that only one side has did next to nothing there."""
    verdicts, notes = [], []
    for row in table.to_dict("records"):
        said = ""
        if row["verdict"] == NO_DIFFERENCE and row["method"] == row["reference_method"]:
            sides = [terms[terms["run_id"].isin(row[runs].split())] for runs in ("runs", "reference_runs")]
            said = _idle_terms(*sides)
        verdicts.append(NOT_EXERCISED if said else row["verdict"])
        notes.append("; ".join(filter(None, [row["note"], said])))
    return table.assign(verdict=verdicts, note=notes)


def _idle_terms(*sides: pd.DataFrame) -> str:
    """The terms that one of two sides has alone and that did next to nothing there, in words.

    Nothing where there are no such terms, where one of them did something, or where the phases differ too, so that
    more than terms was switched.
    """
    active = [rows[rows["share"] > 0] for rows in sides]
    if not all(map(len, active)) or set(active[0]["phase"]) != set(active[1]["phase"]):
        return ""
    said: list[str] = []
    for own, other in (active, active[::-1]):
        lost = own[~own["term"].isin(other["term"])]
        pull = lost["relative"].fillna(lost["share"])  # an actor reaches no encoder
        if (pull.groupby([lost["run_id"], lost["phase"]]).sum().groupby("phase").mean() >= EXERCISED).any():
            return ""
        means = lost.groupby("term", sort=False)[["share", "relative"]].mean()
        for term, share, relative in means.itertuples():
            gradient = "" if math.isnan(relative) else f" and {100 * relative:.2g} % of the task's gradient"
            said.append(f"{term} is {100 * share:.2g} % of the loss{gradient}")
    return ", ".join(said)


# --- Notes, failed runs and order -----------------------------------------------------------------------------------


def _identifiers(run_ids: pd.Series) -> str:
    return " ".join(sorted(set(run_ids) - {""}))


def _with_failed(table: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the number of failed runs, and rows without numbers where no run of a configuration finished."""
    counts = failed.value_counts(GROUP).to_dict()
    own = list(table[GROUP].itertuples(index=False, name=None))
    table = table.assign(failed=[counts.get(key, 0) for key in own])
    labels = failed.groupby(GROUP)["label"].agg(first_label).to_dict()
    rows = []
    for key, count in counts.items():
        if key in own:
            continue
        cells = table[~table["constant"]]
        here = cells[(cells[DATA] == list(key[-2:])).all(axis=1)]
        for cell in (here if len(here) else cells)[[*CELL, "metric", "coverage"]].drop_duplicates().to_dict("records"):
            known = {**dict(zip(GROUP, key, strict=True)), "label": labels[key], **cell}
            rows.append({**known, "constant": False, "n": 0, "undefined": 0, "failed": count, "runs": ""})
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if rows else table


def _summary_note(row: dict[str, Any]) -> str:
    """What a reader must know before reading the numbers."""
    said = {
        row["note"]: True,
        f"{row['failed']} failed": row["failed"],
        f"undefined in {row['undefined']} of {row['undefined'] + row['n']} runs": row["undefined"],
        "one run: no spread over seeds": row["n"] == 1,
    }
    notes = "; ".join(note for note, holds in said.items() if holds and note)
    return "a constant: no seeds" if row["constant"] else notes


def _comparison_notes(row: dict[str, Any], lost: dict[tuple, int]) -> list[str]:
    """What a reader must know beside the numbers of a comparison."""
    n, floor = row["n"], row["wilcoxon_floor"]
    failed = {who: lost.get(_key(row, prefix)[: len(GROUP)], 0) for who, prefix in SIDES.items()}
    said = {
        f"{n or 'no'} pair of seeds: a test over seeds needs {PAIRS_NEEDED}": n < PAIRS_NEEDED,
        f"Wilcoxon can't fall below p={floor:.4g} with {n} pairs: it takes {signed_rank_pairs(row['alpha'])} that "
        "differ": floor > row["alpha"],
        "every pair differs by the same amount: p says nothing of seeds": round(row["sd"], SAME) == 0
        and round(row["difference"], SAME) != 0,
        "seeds differ, but the interval over test items holds 0": row["verdict"] == NO_DIFFERENCE
        and row["p_holm"] < row["alpha"],
        **{f"{count} failed run{'s' if count > 1 else ''} of the {who}": count for who, count in failed.items()},
        f"undefined in {row['item_undefined']} resamples": pd.notna(row["item_undefined"]) and row["item_undefined"],
    }
    return [*(note for note, holds in said.items() if holds), *row["_seeds"], *filter(None, [row["note"]])]


# --- Protocols ------------------------------------------------------------------------------------------------------


def _ordered_levels(levels: Iterable[str], upto: float) -> list[str]:
    """The levels that count, ordered: rates up to ``upto``, or subsets from small to large."""
    found = list(levels)
    if all(_is_rate(level) for level in found):
        return sorted((level for level in found if float(level) <= upto), key=float)
    return sorted(found, key=lambda level: (level.count(LEVEL_SEPARATOR), found.index(level)))


def _summaries(row: dict[str, Any], levels: list[str], values: list[float]) -> list[dict[str, Any]]:
    """``row`` once per summary of its protocol."""
    if row["protocol"] == "rate":
        found = {"mean": sum(values) / len(values)}
    elif all(_is_rate(level) for level in levels):
        rates = [float(level) for level in levels]
        found = {"auilc": auilc(rates, values), "auilc_normalised": auilc(rates, values, normalised=True)}
    else:
        *incomplete, complete = values
        found = {"average": sum(incomplete) / len(incomplete) if incomplete else math.nan, "complete": complete}
    return [{**row, "level": name, "value": value} for name, value in found.items()]


def _is_rate(level: str) -> bool:
    return level.replace(".", "", 1).isdigit()
