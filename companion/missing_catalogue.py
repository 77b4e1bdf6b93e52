"""The committed figures of the missing-modality benchmark, and the tables of their numbers that notebooks use too."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from companion.missing_benchmark import (
    effect_panels,
    method_curves,
    overview_curves,
    printed_against_constant,
    spread_curves,
    summary_grid,
)
from companion.missing_panels import subset_heatmap
from companion.published_floors import against_constants, never_this_emotion
from mmsa_lib.evaluation.missing_effects import PLAIN, augmentation_effects, control_effects, row_name, with_training
from mmsa_lib.evaluation.missing_summary import floors, is_constant, level_means, over_seeds, run_summaries
from mmsa_lib.figures import palette
from mmsa_lib.figures.registry import figure

RESULTS = "data/results"
NAMES = {"synthetic": "synthetic", "mosi": "MOSI", "mmmo": "ICT-MMMO", "mosi_timed": "MOSI, word timing"}
"""Curated table to the name of its data."""

SETS = ("synthetic", "mosi", "mmmo")
SOURCES = [f"{RESULTS}/missing_{name}.csv" for name in SETS]

METRIC, LABEL = "mae", "MAE ↓"
"""Defined on all sets, and for constant predictions."""

SUMMARIES = {
    ("frames", "auilc_normalised"): "mean over rates 0 … .9",
    ("subsets", "average"): "Avg. of subsets",
    ("rate", "mean"): "mean over MR",
}
CONSTANT = "best constant"
CONTROL = "early_fusion"

EMOTIONS = ("happy", "sad", "angry", "neutral")
SETTINGS = {
    "subset={l}": "{l}", "subset={a}": "{a}", "subset={v}": "{v}", "subset={l,a}": "{l,a}", "subset={l,v}": "{l,v}",
    "subset={a,v}": "{a,v}", "subset_avg6": "Avg.", "complete": "{l,a,v}",
}  # fmt: skip


def benchmark_rows(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """Curated rows of one data set, ready to draw: ``dataset`` readable, and three columns more.

    Args:
        results: a table ``missing_<name>.csv``.
        name: key of :data:`NAMES`.

    Returns:
        ``training`` and ``changes`` as :func:`~mmsa_lib.evaluation.missing_effects.with_training` finds them, and
        ``name``: what pictures call the method; methods in the order of the palette, constants last.
    """
    rows = with_training(results.assign(run_id=results["run_id"].fillna("")))
    place = {method: i for i, method in enumerate(palette.METHOD)}
    rows = rows.assign(dataset=NAMES[name], name=_names(rows), _place=rows["method"].map(place).fillna(len(place)))
    rows = rows.assign(_plain=rows["training"] != PLAIN)
    ordered = rows.sort_values(["_place", "changes", "_plain"], kind="stable", ignore_index=True)
    return ordered.drop(columns=["_place", "_plain"])


def best_constants(rows: pd.DataFrame, metric: str = METRIC, higher_is_better: bool = False) -> dict[str, float]:
    """Data set to the score of the best constant that was fitted to training labels (draws from them don't count)."""
    found = floors(rows, metric)
    found = found[found["baseline"] != "constant_prior"].groupby("dataset", sort=False)["value"]
    return (found.max() if higher_is_better else found.min()).to_dict()


def levels_of(rows: pd.DataFrame, protocol: str, metric: str = METRIC) -> pd.DataFrame:
    """:func:`~mmsa_lib.evaluation.missing_summary.level_means` with ``name`` and ``training``."""
    return _with_names(level_means(rows, protocol, metric), rows)


def summaries_of(rows: pd.DataFrame, metric: str = METRIC) -> pd.DataFrame:
    """The numbers of :data:`SUMMARIES` for each run, with readable summaries, ``name`` and ``training``."""
    found = run_summaries(rows[rows["metric"] == metric])
    kind = [SUMMARIES.get(key) for key in zip(found["protocol"], found["summary"], strict=True)]
    found = found.assign(summary=kind).dropna(subset=["summary"])
    found = found[~is_constant(found)].astype({"seed": int})
    found = _with_names(found, rows)
    place = {name: i for i, name in enumerate(SUMMARIES.values())}
    return found.assign(_place=found["summary"].map(place)).sort_values("_place", kind="stable").drop(columns="_place")


def effects_of(
    summaries: pd.DataFrame, effect: Callable[..., pd.DataFrame], metric: str = METRIC, **options
) -> pd.DataFrame:
    """An effect of :mod:`mmsa_lib.evaluation.missing_effects` for each summary and data set, with ``name``.

    Args:
        summaries: rows of :func:`summaries_of`, of one or more data sets.
        effect: ``augmentation_effects`` or ``control_effects``; ``options`` go to it.
    """
    tables = []
    for (summary, _), part in summaries.groupby(["summary", "dataset"], sort=False):
        table = effect(part, metric, **options).assign(summary=summary)
        name = part.drop_duplicates(["method", "changes"]).set_index(["method", "changes"])["name"]
        tables.append(table.join(name, on=["method", "changes"]))
    return pd.concat(tables, ignore_index=True)


def printed_cells(published: pd.DataFrame) -> pd.DataFrame:
    """HRLF's Table 2 (IEMOCAP) beside "never this emotion": group, setting, method, value, floor, below."""
    rows = published[published["quoted_from"] == "HRLF Table 2"]
    weighted = {f"f1_{emotion}": value for emotion, value in never_this_emotion()["weighted"].items()}
    found = against_constants(rows, weighted)
    found = found.assign(group=found["metric"].str.removeprefix("f1_"), setting=found["setting"].map(SETTINGS))
    order = found["group"].map(EMOTIONS.index)
    columns = ["group", "setting", "method", "value", "floor", "below"]
    return found.assign(_o=order).sort_values("_o", kind="stable", ignore_index=True)[columns]


def _curves(results: pd.DataFrame, name: str) -> tuple[Figure, pd.DataFrame]:
    rows = benchmark_rows(results, name)
    drawn = levels_of(rows, "frames")
    floor = (CONSTANT, best_constants(rows)[NAMES[name]])
    return method_curves(drawn, LABEL, floor=floor, control=CONTROL, title=NAMES[name]), drawn


def _heatmap(results: pd.DataFrame, name: str) -> tuple[Figure, pd.DataFrame]:
    rows = benchmark_rows(results, name)
    drawn = levels_of(rows, "subsets")
    shown = drawn.assign(method=drawn["name"], variant=drawn["training"].where(drawn["method"] != "hrlf", ""))
    floor = best_constants(rows)[NAMES[name]]
    return subset_heatmap(shown, LABEL, floor=floor, higher_is_better=False, title=NAMES[name]), drawn


@figure("missing_curves_synthetic", sources=[f"{RESULTS}/missing_synthetic.csv"])
def missing_curves_synthetic(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing on the synthetic set, a panel per method."""
    return _curves(results, "synthetic")


@figure("missing_curves_mosi", sources=[f"{RESULTS}/missing_mosi.csv"])
def missing_curves_mosi(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing on MOSI (words and audio of the utterance), a panel per method."""
    return _curves(results, "mosi")


@figure("missing_curves_mmmo", sources=[f"{RESULTS}/missing_mmmo.csv"])
def missing_curves_mmmo(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing on ICT-MMMO, a panel per method."""
    return _curves(results, "mmmo")


@figure("missing_curves_timed", sources=[f"{RESULTS}/missing_mosi_timed.csv"])
def missing_curves_timed(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing on MOSI's words and their timing, where all methods can run."""
    return _curves(results, "mosi_timed")


@figure("missing_subsets_synthetic", sources=[f"{RESULTS}/missing_synthetic.csv"])
def missing_subsets_synthetic(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE by what is available on the synthetic set."""
    return _heatmap(results, "synthetic")


@figure("missing_subsets_mosi", sources=[f"{RESULTS}/missing_mosi.csv"])
def missing_subsets_mosi(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE by what is available on MOSI."""
    return _heatmap(results, "mosi")


@figure("missing_subsets_mmmo", sources=[f"{RESULTS}/missing_mmmo.csv"])
def missing_subsets_mmmo(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE by what is available on ICT-MMMO."""
    return _heatmap(results, "mmmo")


@figure("missing_overview", sources=SOURCES)
def missing_overview(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing, all methods, plain and augmented training apart."""
    rows = all_rows(*tables)
    drawn = levels_of(rows, "frames")
    return overview_curves(drawn, LABEL, floors=best_constants(rows)), drawn


@figure("missing_summaries", sources=SOURCES)
def missing_summaries(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Every protocol in one number per method, mean and interval over seeds, beside the best constant."""
    rows = all_rows(*tables)
    found = summaries_of(rows)
    drawn = _with_names(over_seeds(found), rows)
    return summary_grid(drawn, LABEL, floors=best_constants(rows)), drawn


@figure("missing_augmentation", sources=SOURCES)
def missing_augmentation(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What training with missing samples adds to each method."""
    effects = effects_of(summaries_of(all_rows(*tables)), augmentation_effects)
    title = "What training with missing samples adds to a method"
    return effect_panels(effects, "MAE, augmented − plain", title=title), effects


@figure("missing_control", sources=SOURCES)
def missing_control(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What each method adds to the control, both trained with missing samples."""
    effects = effects_of(summaries_of(all_rows(*tables)), control_effects, control=CONTROL)
    title = f"What a method adds to {CONTROL}, all trained with missing samples"
    return effect_panels(effects, "MAE, method − control", title=title), effects


@figure("missing_spread", sources=[f"{RESULTS}/missing_spread.csv"])
def missing_spread(spread: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """How far predictions differ between samples while frames vanish: where a method becomes a constant."""
    drawn = spread_means(spread)
    return spread_curves(drawn), drawn


@figure("missing_iemocap", sources=["data/published/published_results.csv"])
def missing_iemocap(published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """HRLF's Table 2 beside what "never this emotion" scores."""
    drawn = printed_cells(published)
    macro = (100 * never_this_emotion()["macro"]).to_dict()
    return printed_against_constant(drawn, macro, "hrlf", "F1 (%), as printed"), drawn


def all_rows(*tables: pd.DataFrame) -> pd.DataFrame:
    """The tables of :data:`SETS` as one, each made ready by :func:`benchmark_rows`."""
    return pd.concat([benchmark_rows(t, name) for t, name in zip(tables, SETS, strict=True)], ignore_index=True)


def spread_means(spread: pd.DataFrame, protocol: str = "frames") -> pd.DataFrame:
    """``missing_spread.csv`` over seeds: dataset, method, name, training, level, sd, entropy, one_class (its share)."""
    parts = []
    for table, rows in spread[spread["protocol"] == protocol].groupby("table", sort=False):
        if table in SETS:
            parts.append(benchmark_rows(rows, str(table)).assign(place=SETS.index(table)))
    rows = pd.concat(parts).sort_values("place", kind="stable")
    keys = ["dataset", "method", "name", "training", "level"]
    return rows.groupby(keys, sort=False)[["sd", "entropy", "one_class"]].mean().reset_index()


def _names(rows: pd.DataFrame) -> pd.Series:
    """Method names; of ``hrlf`` whether its weights are those of the paper or chosen by validation."""
    own = rows.loc[rows["method"] == "hrlf", "changes"].unique()
    chosen = [changes for changes in own if changes]
    texts = []
    for method, changes in zip(rows["method"], rows["changes"], strict=True):
        if method != "hrlf":
            texts.append(row_name(method, changes))
        elif not changes:
            texts.append("hrlf, printed weights")
        else:
            texts.append("hrlf, chosen weights" if len(chosen) == 1 else row_name(method, changes))
    return pd.Series(texts, index=rows.index, dtype=object)


def _with_names(means: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """``means`` with what ``rows`` know of each method and variant, in the order of ``rows``."""
    keys = ["dataset", "method", "variant"]
    known = rows[~is_constant(rows)].drop_duplicates(keys)[[*keys, "name", "training", "changes"]]
    return known.reset_index(names="_place").merge(means, on=keys).sort_values("_place").drop(columns="_place")
