"""Notebook 08: the missing-modality benchmark, and published tables beside constants.

:func:`write` reads the folder ``missing`` of runs (``mmsa-lib sweep notebooks/sweeps/missing.yaml --runs
RUNS/missing``) and makes ``missing_<data>.csv`` (test metrics of all cells), ``missing_spread.csv`` (how far
predictions differ between samples) and ``missing_runs.csv`` (every run, failed ones with their error, and the
fingerprint of its masks).

The control of a method is a plain fusion baseline that was trained with the same missing samples. A method that was
built for missing data must beat it, not the same method trained on complete samples (docs/evaluation.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion import names
from companion.shared import RESULTS, best_possible, run_folders, write_table
from mmsa_lib.data.task import emotions
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.metrics import f1_score
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.protocols import LEVEL_SEPARATOR
from mmsa_lib.evaluation.statistics import compare_seeds, summarise_seeds
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import SAME_RUN, collect, curate, failures, is_constant, named
from mmsa_lib.experiments.summaries import protocol_summaries, summarise
from mmsa_lib.experiments.tables import Table, printed_table, seed_table
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import Style, curves, dots, forest, grid, heatmap, legend
from mmsa_lib.figures.registry import figure

FOLDERS = ("missing",)
TABLES = ("synthetic", "mosi", "mmmo", "mosi_timed")
SETS = ("synthetic", "mosi", "mmmo")
"""Those in which all methods can run."""

METRICS = ("mae", "corr", "acc7", "acc2_neg_pos", "f1_neg_nonneg", "f1_neg_pos", "f1_neg_pos_macro", "acc2")
"""F1 by both definitions, Acc-2 by one, so that files stay small. ``acc5`` is kept where there is no ``acc7``."""

DIGITS = 4
"""Digits after the point: a test sample more or less moves an accuracy by .001 and more."""

SPREAD_PROTOCOLS = ("frames", "subsets", "rate")
IDENTITY = ("table", "run_id", "method", "label", "changes", "data_options", "dataset", "fold", "seed")
FINISHED, FAILED = "finished", "failed"

METRIC, LABEL = "mae", "MAE ↓"
"""Defined on all sets, and for constant predictions."""

PLAIN, AUGMENTED = "plain", "augmented"
"""How a run was trained: on complete samples, or with missing ones."""

TRAINING: dict[str, Style] = {
    PLAIN: {"color": palette.SKY, "marker": "s", "ms": 3.4, "label": "trained on complete samples"},
    AUGMENTED: {"color": palette.VERMILLION, "marker": "o", "ms": 3.4, "label": "trained with missing samples"},
}
OWN_RECIPE = ("hrlf",)
"""Methods that make their training samples incomplete themselves; they are always ``augmented``."""

CONTROL = "early_fusion"
CONTROLS = (CONTROL, "late_fusion")
CONSTANT = "best constant"
MISSING_COLOR = "#D9D9D9"

SUMMARIES = {
    ("frames", "auilc_normalised"): "mean over rates 0 … .9",
    ("subsets", "average"): "Avg. of subsets",
    ("rate", "mean"): "mean over MR",
}
"""Protocol and summary to what figures call it; all are on the scale of the metric."""

COLUMNS = {
    ("frames", "auilc"): "AUILC",
    ("frames", "auilc_normalised"): "AUILC / range",
    ("subsets", "average"): "Avg.",
    ("subsets", "complete"): "complete",
    ("rate", "mean"): "mean over MR",
}
"""Protocol and summary to the column of :func:`benchmark_table`."""

SUBSETS = {
    "{l}": "text", "{a}": "audio", "{v}": "vision", "{l,a}": "text+audio", "{l,v}": "text+vision",
    "{a,v}": "audio+vision", "{l,a,v}": "text+audio+vision",
}  # fmt: skip
"""The headings of HRLF's Tables 1 to 3: what is available."""

AVERAGE = "Avg."
PAPER_ORDER = ("{l}", "{a}", "{v}", "{l,a}", "{l,v}", "{a,v}", AVERAGE, "{l,a,v}")
PUBLISHED_SETTING = {**{heading: f"subset={heading}" for heading in SUBSETS}, AVERAGE: "subset_avg6"}
PUBLISHED_SETTING["{l,a,v}"] = "complete"

IEMOCAP_COUNTS = {"happy": 595, "sad": 1084, "angry": 1103, "neutral": 1708}
"""Utterances per emotion among the 4,490 with one of the four labels: a public repository's count [T]. The partition of
HRLF has 4,453 of them and prints no counts (hrlf, section 8)."""


def wrong_f1_with_swapped_arguments(predicted: Any, truth: Any) -> float:
    """**Wrong on purpose**: weighted F1 with prediction and truth exchanged, as ``f1_score(pred, true)`` computes it.

    Classes are then weighted by how often they are *predicted*. A constant predictor gets the F1 of the class that it
    predicts: 77.19 instead of 48.51 on MOSEI (hazard 1: MulT, MISA, MPLMM, DMRl, MMSA before April 2021). To be shown
    beside :func:`mmsa_lib.evaluation.metrics.f1_score`, never reported.

    Args:
        predicted, truth: ``(N,)`` classes, in the right order; they are exchanged here.
    """
    return f1_score(np.asarray(truth), np.asarray(predicted), "weighted")


def never_this_emotion(counts: Mapping[str, int] = IEMOCAP_COUNTS) -> pd.DataFrame:
    """F1 of the answer "not this emotion" for every utterance, in each averaging.

    Args:
        counts: utterances per emotion; each utterance has one.

    Returns:
        Index emotion; ``weighted``, ``macro`` and ``positive`` F1, and ``swapped``: the weighted one with truth and
        prediction exchanged, as some published code computes it.
    """
    names = tuple(counts)
    labels = np.repeat(np.eye(len(names)), list(counts.values()), axis=0)
    found = constant_metrics(emotions(names), labels, labels).loc["constant_majority"]
    never = np.zeros(len(labels), int)
    rows = {
        name: {
            "weighted": found[f"{name}_f1"], "macro": found[f"{name}_f1_macro"],
            "positive": found[f"{name}_f1_positive"],
            "swapped": wrong_f1_with_swapped_arguments(never, labels[:, column].astype(int)),
        }
        for column, name in enumerate(names)
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("emotion")


def against_constants(published: pd.DataFrame, floors: Mapping[str, float]) -> pd.DataFrame:
    """Published cells beside what a constant scores in the same column.

    Args:
        published: rows with ``method, setting, metric, value``, F1 in per cent.
        floors: metric to the constant's score, as a fraction; other metrics are left out.

    Returns:
        The chosen rows with ``floor`` (per cent) and ``below``: the printed value is smaller.

    Raises:
        DataError: no row has one of these metrics.
    """
    chosen = published[published["metric"].isin(floors)]
    if chosen.empty:
        raise DataError(f"no published row has a metric out of {', '.join(floors)}")
    floor = 100 * chosen["metric"].map(dict(floors)).astype(float)
    return chosen.assign(floor=floor, below=chosen["value"] < floor).reset_index(drop=True)


def printed_cells(published: pd.DataFrame) -> pd.DataFrame:
    """HRLF's Table 2 (IEMOCAP) beside "never this emotion": group, setting, method, value, floor, below."""
    rows = published[published["quoted_from"] == "HRLF Table 2"]
    weighted = {f"f1_{emotion}": value for emotion, value in never_this_emotion()["weighted"].items()}
    settings = {text: heading for heading, text in PUBLISHED_SETTING.items()}
    found = against_constants(rows, weighted)
    found = found.assign(group=found["metric"].str.removeprefix("f1_"), setting=found["setting"].map(settings))
    found = names.in_order(found, "group", group=IEMOCAP_COUNTS)
    return found[["group", "setting", "method", "value", "floor", "below"]]


def with_training(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` in the order of methods, ready to read or to draw; constants last.

    Args:
        rows: with ``method, label, changes, data_options, dataset``: results, summaries, failed or spread rows.

    Returns:
        ``training`` (``plain`` or ``augmented``; empty for constants), ``name`` of the method with its configuration,
        and ``data``, the display name of the data set; ``changes`` without the recipe of training.
    """
    constant = ~rows["method"].isin(names.METHODS)
    changes = rows["changes"].map(json.loads)
    augmented = rows["method"].isin(OWN_RECIPE) | changes.map(lambda own: "missing" in own).astype(bool)
    training = pd.Series(np.where(constant, "", np.where(augmented, AUGMENTED, PLAIN)), index=rows.index)
    left = [json.dumps({k: v for k, v in own.items() if k != "missing"}, sort_keys=True) for own in changes]
    rows = rows.assign(changes=left, training=training, data=names.data_of(rows).map(names.DATA))
    own = named(rows.assign(data_options=files.NO_CHANGES, constant=constant))["name"]
    lines = [names.line(method, name) for method, name in zip(rows["method"], own, strict=True)]
    return names.in_order(rows.assign(name=lines), "method", "changes", "training", training=TRAINING)


def levels_of(results: pd.DataFrame, protocol: str, metric: str = METRIC) -> pd.DataFrame:
    """Mean and 95 % interval over seeds at each level of a protocol, of the rows of one or several data sets."""
    found = summarise(results, items=False, split="test", protocol=protocol, metric=metric)
    rows = names.in_order(with_training(found[~found["constant"]]), "data")
    return rows[["data", "method", "name", "training", "level", "n", "mean", "sd", "low", "high"]]


def summaries_of(results: pd.DataFrame, metric: str = METRIC) -> pd.DataFrame:
    """The numbers of :data:`SUMMARIES` for each run, with a readable ``summary``, ``name`` and ``training``."""
    found = protocol_summaries(results[results["metric"] == metric])
    kind = [SUMMARIES.get(key) for key in zip(found["protocol"], found["level"], strict=True)]
    found = found.assign(summary=kind)[~is_constant(found)].dropna(subset=["summary"])
    return names.in_order(with_training(found), "summary", "data", summary=SUMMARIES.values())


def means_of(summaries: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of :func:`summaries_of`."""
    keys = ["summary", "data", "method", "name", "training"]
    return summarise_seeds(summaries, by=keys)


def augmentation_effects(summaries: pd.DataFrame) -> pd.DataFrame:
    """Each method trained with missing samples minus the same method trained on complete ones, paired over seeds.

    Args:
        summaries: rows of :func:`summaries_of`.

    Returns:
        Rows of :func:`~mmsa_lib.evaluation.statistics.compare_seeds`, Holm over the methods of a data set and summary.
    """
    keys = ["data", "summary", "method", "name", "metric"]
    both = summaries.groupby(keys)["training"].transform("nunique") == 2
    return compare_seeds(summaries[both], PLAIN, by=keys, column="training", family=["data", "summary"])


def control_effects(summaries: pd.DataFrame, control: str = CONTROL) -> pd.DataFrame:
    """Each method minus ``control``, both trained with missing samples, paired over seeds.

    Args and returns as :func:`augmentation_effects`.
    """
    rows = summaries[summaries["training"] == AUGMENTED]
    keys = ["data", "summary", "metric"]
    return compare_seeds(rows, control, by=keys, column="name", family=["data", "summary"])


def best_constants(results: pd.DataFrame) -> dict[str, float]:
    """Data set to the error of the best constant that was fitted to training labels (draws from them don't count)."""
    rows = results[is_constant(results) & (results["metric"] == METRIC)].dropna(subset=["value"])
    rows = rows[rows["method"].str.startswith("constant_") & (rows["method"] != "constant_prior")]
    return rows.groupby(rows["dataset"].map(names.DATA), sort=False)["value"].min().to_dict()


def spread_means(spread: pd.DataFrame, protocol: str = "frames") -> pd.DataFrame:
    """``missing_spread.csv`` over seeds: data, method, name, training, level, sd, entropy, one_class (its share)."""
    rows = spread[(spread["protocol"] == protocol) & spread["table"].isin(SETS)]
    keys = ["data", "method", "name", "training", "level"]
    ordered = names.in_order(with_training(rows), "data")
    return ordered.groupby(keys, sort=False)[["sd", "entropy", "one_class"]].mean().reset_index()


def benchmark_table(results: pd.DataFrame, metric: str, failed: pd.DataFrame | None = None) -> Table:
    """Every protocol in one number, for one metric: area over frame rates, mean over subsets, mean over missing rates.

    Args:
        results: curated rows of one data set and fold, constants included.
        metric: key of the metric.
        failed: rows of ``missing_runs.csv`` for runs of the same data that failed; counted beside the finished ones.

    Returns:
        A table with the columns of :data:`COLUMNS`; the area of a metric in per cent is in per cent as well.

    Raises:
        DataError: no such rows, or several data sets.
    """
    own, title = _prepare(results, metric)
    found = protocol_summaries(own)
    column = [COLUMNS.get(key) for key in zip(found["protocol"], found["level"], strict=True)]
    rows = found.assign(metric=column).dropna(subset=["metric"])
    described = describe(metric)
    columns = [replace(described, key=name, label=name) for name in COLUMNS.values() if name in column]
    return seed_table(rows, columns, f"{title}, {described.label}", short=True, failed=failed)


def subset_table(results: pd.DataFrame, metric: str, failed: pd.DataFrame | None = None) -> Table:
    """What is left with each subset of modalities, in the layout of HRLF's Table 1, for one metric.

    Args, returns and raises as :func:`benchmark_table`; columns are those of :data:`PAPER_ORDER` that the data have.
    ``Avg.`` is the mean over the incomplete subsets, complete input stands apart at the right.
    """
    own, title = _prepare(results, metric)
    cells, constants = own[(own["protocol"] == "subsets") & ~is_constant(own)], own[is_constant(own)]
    if cells.empty:
        raise DataError("no result under protocol 'subsets'; test runs with --protocols subsets")
    heading = {level: name for name, level in SUBSETS.items()}
    levels = sorted({heading[level] for level in cells["level"]}, key=PAPER_ORDER.index)
    averages = protocol_summaries(own, ["subsets"])
    averages = averages[averages["level"] == "average"].assign(metric=AVERAGE)
    repeated = [constants.assign(metric=name) for name in levels]
    rows = pd.concat([cells.assign(metric=cells["level"].map(heading)), *repeated, averages], ignore_index=True)
    described = describe(metric)
    columns = [replace(described, key=name, label=name) for name in (*levels[:-1], AVERAGE, levels[-1])]
    return seed_table(rows, columns, f"{title}, {described.label} by what is available", short=True, failed=failed)


def printed_subsets(published: pd.DataFrame, source: str, dataset: str, metrics: dict[str, str]) -> Table:
    """The subset table of a paper, as printed, with its features and notes in the title.

    Args:
        published: rows of ``data/published/published_results.csv``.
        source: ``quoted_from``, such as ``HRLF Table 1``.
        dataset: id of the data set.
        metrics: metric of the published rows to its name; several stand in one cell, divided by strokes.

    Raises:
        DataError: nothing is quoted from there.
    """
    chosen = _quoted(published[published["metric"].isin(metrics)], source, dataset)
    settings = [(name, text) for name in PAPER_ORDER if (text := PUBLISHED_SETTING[name]) in set(chosen["setting"])]
    cells = chosen.set_index(["method", "setting", "metric"])["value"]
    digits = 2 if len(metrics) == 1 else 1
    rows = [
        (method, *("/".join(f"{cells[method, text, m]:.{digits}f}" for m in metrics) for _, text in settings))
        for method in dict.fromkeys(chosen["method"])
    ]
    title = (
        f"{source}, {dataset}, {'/'.join(metrics.values())} in %, as printed in the paper. Features: "
        f"{'; '.join(dict.fromkeys(chosen['features']))}. Other features and other runs than ours: never compared."
    )
    return printed_table(title, ("method", *(name for name, _ in settings)), tuple(rows))


def printed_metrics(published: pd.DataFrame, source: str, dataset: str) -> Table:
    """A table of a paper with methods down and metrics across, for one data set and one setting, as printed.

    Args and raises as :func:`printed_subsets`; several settings in one table are an error.
    """
    chosen = _quoted(published, source, dataset)
    settings, metrics = list(chosen["setting"].unique()), list(chosen["metric"].unique())
    if len(settings) > 1:
        raise DataError(f"{source} has several settings on {dataset} ({', '.join(settings)}); choose one")
    cells = chosen.drop_duplicates(["method", "metric"]).set_index(["method", "metric"])["value"]
    rows = [
        (method, *(f"{cells[method, m]:g}" if (method, m) in cells.index else "–" for m in metrics))
        for method in chosen["method"].unique()
    ]
    features = "; ".join(dict.fromkeys(chosen["features"]))
    title = f"{source}, {dataset}, {settings[0]}, as printed. Features: {features}. Never compared with ours."
    return printed_table(title, ("method", *metrics), tuple(rows))


def _quoted(published: pd.DataFrame, source: str, dataset: str) -> pd.DataFrame:
    chosen = published[(published["quoted_from"] == source) & (published["dataset"] == dataset)]
    if chosen.empty:
        raise DataError(f"no published value on {dataset} is quoted from {source!r}")
    return chosen


def _prepare(results: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """Rows of the metric, and what the title says of the data."""
    own = results[(results["split"] == "test") & (results["metric"] == metric)]
    own = own[~own["method"].str.startswith("oracle_")]
    if is_constant(own).all():
        raise DataError(f"no run has test results of {metric!r}")
    for column in ("dataset", "fold"):
        found = sorted(own[column].unique())
        if len(found) > 1:
            raise DataError(f"results of several {column}s ({', '.join(found)}); choose one")
    return own, f"{own['dataset'].iloc[0]}, fold {own['fold'].iloc[0]}, test samples"


def curated_cells(found: pd.DataFrame, target: Path) -> pd.DataFrame:
    """Test metrics of every cell of ``found`` (:func:`~mmsa_lib.experiments.results.collect`), written to ``target``.

    Raises:
        DataError: a run whose complete input differs from rate 0 or from the subset of all.
    """
    found = found[found["split"] == "test"]
    found = found[found["metric"].isin(METRICS if "acc7" in set(found["metric"]) else (*METRICS, "acc5"))]
    _check_complete(found)
    return curate(found.assign(value=found["value"].round(DIGITS)), target)


def spread(folder: Path, found: pd.DataFrame) -> pd.DataFrame:
    """How far the predictions of each run differ between test samples.

    Args:
        folder: of runs.
        found: what was collected from it.

    Returns:
        The identity of the run, then protocol, level, sd, entropy and one_class.
    """
    parts = []
    for own in _tested(found).to_dict("records"):
        table = pd.read_csv(folder / own["run_id"] / files.SPREAD, dtype={"level": str})
        table = table[(table["split"] == "test") & table["protocol"].isin(SPREAD_PROTOCOLS)].drop(columns="split")
        parts.append(table.assign(**own)[[*own, *table.columns]])
    return pd.concat(parts).sort_values(["table", *SAME_RUN], kind="stable", ignore_index=True)


def run_states(folder: Path, found: pd.DataFrame) -> pd.DataFrame:
    """One row per run, finished or failed: its identity, state, masks, best_epoch, error.

    A failed run that was repeated with success (with other code) is left out, and so is an older failure of it.

    Args:
        folder: of runs.
        found: what was collected from it.
    """
    rows: list[dict[str, Any]] = []
    for own in _tested(found).to_dict("records"):
        facts = files.read_json(folder / own["run_id"] / files.ENVIRONMENT)
        state = {"state": FINISHED, "masks": facts["mask_fingerprint"], "error": ""}
        rows.append({**own, **state, "best_epoch": facts["training"]["best_epoch"]})
    lost = failures(folder)
    for own in lost.assign(table=names.data_of(lost)).to_dict("records"):
        error = " ".join(f"{own.pop('error')}: {own.pop('message')}".split())
        rows.append({**own, "state": FAILED, "masks": "", "error": error})
    frame = pd.DataFrame(rows, columns=[*IDENTITY, "state", "masks", "best_epoch", "error"])
    frame = frame.astype({"best_epoch": "Int64"})
    return frame.sort_values(["table", *SAME_RUN, "state"], kind="stable", ignore_index=True)


def write(runs: Path, target: Path) -> list[str]:
    """Write every table of the runs in ``runs/missing`` to ``target``; their names."""
    (folder,) = run_folders(runs, FOLDERS)
    found = collect(folder)
    found = found.assign(table=names.data_of(found))
    constants = found[is_constant(found)]
    tables = [name for name in names.DATA if (~is_constant(found) & (found["table"] == name)).any()]
    for name in tables:
        own = found[~is_constant(found) & (found["table"] == name)]
        beside = constants[constants["dataset"] == own["dataset"].iloc[0]]
        curated_cells(pd.concat([own, beside], ignore_index=True), target / f"missing_{name}.csv")
    write_table(target / "missing_spread.csv", spread(folder, found), DIGITS)
    files.write_table(target / "missing_runs.csv", run_states(folder, found))
    return [*tables, "spread", "runs"]


def _tested(found: pd.DataFrame) -> pd.DataFrame:
    """The runs whose cells count, the newest of each configuration: columns :data:`IDENTITY`."""
    tested = found[~is_constant(found) & (found["split"] == "test") & found["protocol"].isin(SPREAD_PROTOCOLS)]
    return tested.drop_duplicates("run_id")[list(IDENTITY)]


def _check_complete(found: pd.DataFrame) -> None:
    """Complete input, rate 0 and the subset of all modalities are one and the same."""
    runs = found[~is_constant(found)]
    size = runs["level"].map(lambda level: level.count(LEVEL_SEPARATOR))
    subsets = runs["protocol"] == "subsets"
    same = ((runs["protocol"] == "frames") & (runs["level"] == "0.0")) | (subsets & (size == size[subsets].max()))
    keys = ["run_id", "metric"]
    whole = runs.loc[runs["protocol"] == "complete", [*keys, "value"]]
    pairs = runs[same].merge(whole, on=keys, suffixes=("", "_complete"))
    equal = (pairs["value"] == pairs["value_complete"]) | (pairs["value"].isna() & pairs["value_complete"].isna())
    for row in pairs[~equal].itertuples():
        raise DataError(
            f"run {row.run_id} has {row.metric} {row.value} under {row.protocol} {row.level} and {row.value_complete} "
            "on complete input; repeat the run"
        )


def missing_patterns(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """What masks leave of a few utterances: samples down, steps across, one row of panels per protocol cell.

    Args:
        panels: title (such as ``A: frames, rate 0.5``) to modality to ``(valid, observed)``, each ``(n, T_m)`` bool, of
            the same n samples.
    """
    modalities = list(next(iter(panels.values())))
    longest = {m: max(int(cell[m][0].sum(-1).max()) for cell in panels.values()) for m in modalities}
    count = len(next(iter(panels.values()))[modalities[0]][0])
    figure = Figure(figsize=(8.2, 0.9 + len(panels) * (0.2 + 0.14 * count)), layout="constrained")
    widths = [max(longest[m], 0.12 * max(longest.values())) for m in modalities]
    axes = figure.subplots(len(panels), len(modalities), squeeze=False, width_ratios=widths)
    for line, (title, cell) in zip(axes, panels.items(), strict=True):
        for axis, modality in zip(line, modalities, strict=True):
            valid, observed = (np.asarray(values, dtype=int)[:, : longest[modality]] for values in cell[modality])
            colors = ListedColormap(["white", MISSING_COLOR, palette.MODALITY[modality]])
            axis.pcolormesh(valid + (valid & observed), cmap=colors, vmin=0, vmax=2, edgecolors="white", lw=0.4)
            axis.set(ylim=(count, 0), xticks=[], yticks=[])
            axis.spines[["left", "bottom"]].set_visible(False)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    for modality, top, bottom in zip(modalities, axes[0], axes[-1], strict=True):
        top.set_title(modality)
        bottom.set_xlabel(f"{longest[modality]} steps" if longest[modality] > 1 else "utterance")
    handles = [Patch(color=palette.MODALITY[m], label=f"{m} observed") for m in modalities]
    handles += [Patch(color=MISSING_COLOR, label="missing"), Patch(fc="white", ec=palette.GREY, label="padding")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def method_curves(rows: pd.DataFrame, floor: float, title: str) -> Figure:
    """The error against the share of frames missing, one panel per method, plain and augmented training in each.

    Args:
        rows: of :func:`levels_of` under protocol ``frames``, of one data set.
        floor: what the best constant scores at every rate.
        title: of the figure.
    """
    drawn = rows.assign(panel=rows["name"], line=rows["training"], x=rows["level"].astype(float), value=rows["mean"])
    control = drawn[(drawn["name"] == CONTROL) & (drawn["training"] == AUGMENTED)]
    others = [control.assign(panel=name) for name in drawn["name"].unique() if name != CONTROL]
    dotted = f"{names.CALLED[CONTROL]}, with missing samples"
    drawn = pd.concat([drawn, *(part.assign(line=dotted, low=np.nan, high=np.nan) for part in others)])
    styles = {**TRAINING, dotted: {"color": palette.BLACK, "ls": ":", "lw": 1.3}}
    drawn = drawn.assign(panel=drawn["panel"].map(names.called))
    return curves(drawn, styles, "share of frames missing", LABEL, floors=_floors({"": floor}), title=title, height=1.7)


def overview_curves(
    rows: pd.DataFrame, value: str, ylabel: str, floors: Mapping[str, float] | None = None,
    possible: Mapping[str, float] | None = None,
) -> Figure:  # fmt: skip
    """All methods in one panel per data set (down) and training (across), without bands.

    Args:
        rows: tidy ``data, method, name, training, level`` and ``value``, and maybe ``one_class``: where it is 1, every
            run answers with one class for all samples, and the mark is white.
        value, ylabel: the column to draw, and what it is.
        floors: data set to what the best constant scores.
        possible: data set to what the best possible predictor of complete samples scores.
    """
    panel = rows["data"] + ", " + rows["training"].map({key: style["label"] for key, style in TRAINING.items()})
    rows = rows.assign(name=rows["name"].map(names.called))
    drawn = rows.assign(panel=panel, line=rows["name"], x=rows["level"].astype(float), value=rows[value])
    drawn = names.in_order(drawn.drop(columns=["low", "high"], errors="ignore"), "data", "training", training=TRAINING)
    pairs = names.in_order(drawn.drop_duplicates("name"), "method")[["method", "name"]]
    later = pairs.groupby("method").cumcount()
    styles = {
        name: {"color": names.color(method), "ls": "--" if more else "-", "marker": mark, "ms": 2.6, "lw": 1.2}
        for (method, name), more, mark in zip(pairs.itertuples(index=False), later, "osD^vP*Xd<>", strict=False)
    }
    level = None
    if floors:
        of = {text: text.partition(", trained")[0] for text in drawn["panel"].unique()}
        level = _floors({text: floors[data] for text, data in of.items()})
        best = {text: possible[data] for text, data in of.items() if data in (possible or {})}
        if best:
            level = pd.concat([level, _floors(best).assign(baseline="best possible, complete samples")])
    figure = curves(drawn, styles, "share of frames missing", ylabel, columns=2, floors=level, sharey="row", width=3.4)
    for axis in figure.axes if "one_class" in drawn else ():
        here = drawn[(drawn["panel"] == axis.get_title()) & (drawn["one_class"] == 1)]
        for row in here.itertuples():
            axis.plot(row.x, row.value, **{**styles[row.name], "ls": "", "mfc": "white", "ms": 4.5, "zorder": 4})
    return figure


def summary_dots(means: pd.DataFrame, floors: Mapping[str, float]) -> Figure:
    """Summaries down, data sets across; per method its plain and augmented runs with mean and 95 % interval.

    Args:
        means: rows of :func:`means_of`.
        floors: data set to what the best constant scores.
    """
    drawn = _by_summary(means.rename(columns={"mean": "value", "training": "mark"}))
    offsets = {PLAIN: -0.15, AUGMENTED: 0.15}
    marks = {key: {**style, "offset": offsets[key]} for key, style in TRAINING.items()}
    level = pd.concat([_floors({panel: floors[panel.partition(": ")[0]]}) for panel in drawn["panel"].unique()])
    across = drawn["data"].nunique()
    return dots(drawn, marks, LABEL, columns=across, floors=level, width=2.8, line=0.2, sharex="col")


def effect_forest(effects: pd.DataFrame, label: str, title: str) -> Figure:
    """Forest plots of effects, summaries down, data sets across.

    Args:
        effects: rows of :func:`augmentation_effects` or :func:`control_effects`.
        label: what is subtracted from what.
        title: of the figure.
    """
    drawn, across = _by_summary(effects), effects["data"].nunique()
    return forest(drawn, label, title=title, columns=across, width=2.8, line=0.17, sharex="col")


def printed_against_constant(frame: pd.DataFrame, floors: Mapping[str, float], highlight: str) -> Figure:
    """Cells of a paper's table beside what a constant answer scores, one panel per column group.

    Args:
        frame: rows of :func:`printed_cells`.
        floors: a further constant per group, such as another averaging; a thin line.
        highlight: the method whose cells are coloured.
    """
    groups, settings = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["setting"]))
    figure, axes = grid(len(groups), 4, 2.1, 2.6, foot=0.9, sharey=True)
    styles: dict[str, Style] = {
        "other methods, printed": {"marker": "o", "ls": "", "ms": 3.6, "mew": 0, "color": "#B5B5B5"},
        f"{highlight}, printed": {"marker": "o", "ls": "", "ms": 5, "mew": 0, "color": palette.BLUE},
        "“never this emotion”, weighted F1": {"color": palette.VERMILLION, "lw": 1.5},
        "the same, macro F1": {"color": palette.VERMILLION, "lw": 1, "ls": ":"},
    }
    others, mine, weighted, macro = styles.values()
    for axis, group in zip(axes, groups, strict=True):
        part = frame[frame["group"] == group]
        for style, rows in ((others, part["method"] != highlight), (mine, part["method"] == highlight)):
            axis.plot(part.loc[rows, "setting"].map(settings.index), part.loc[rows, "value"], **style)
        axis.axhline(part["floor"].iloc[0], **weighted)
        axis.axhline(floors[group], **macro)
        axis.set_title(group)
        axis.set_xticks(range(len(settings)), settings, rotation=60)
    axes[0].set_ylabel("F1 (%), as printed")
    legend(figure, styles, 2)
    return figure


def _by_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with ``panel``, the summaries down and the data sets across."""
    rows = names.in_order(rows, "summary", "data", summary=SUMMARIES.values())
    return rows.assign(panel=rows["data"] + ": " + rows["summary"], name=rows["name"].map(names.called))


def _floors(values: Mapping[str, float]) -> pd.DataFrame:
    rows = pd.DataFrame({"baseline": CONSTANT, "panel": panel, "value": value} for panel, value in values.items())
    return rows if all(values) else rows.drop(columns="panel")


def draw_curves(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """:func:`method_curves` of one curated table, and its numbers."""
    rows = levels_of(results, "frames")
    return method_curves(rows, *best_constants(results).values(), rows["data"].iloc[0]), rows


def draw_subsets(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A heat map of one curated table, methods by what is available (italics: worse than a constant)."""
    rows, (floor,) = levels_of(results, "subsets"), best_constants(results).values()
    lines = rows["name"].map(names.called)
    lines = (lines + ", " + rows["training"]).where(rows["method"] != "hrlf", lines)
    levels = [level for heading in PAPER_ORDER if (level := SUBSETS.get(heading)) in set(rows["level"])]
    wide = rows.assign(line=lines).pivot_table(index="line", columns="level", values="mean", sort=False)[levels]
    wide.loc[CONSTANT] = floor
    letters = {level: "+".join(part[0].upper() for part in level.split("+")) for level in levels}
    picture = heatmap(
        {rows["data"].iloc[0]: wide.rename(columns=letters)}, LABEL, limits=None, emphasis=lambda value: value > floor,
        xlabel="available modalities: T text, A audio, V vision", cell=(0.72, 0.32), margin=3.2,
    )  # fmt: skip
    return picture, rows


for table in TABLES:
    source, data = [f"{RESULTS}/missing_{table}.csv"], names.DATA[table]
    figure(f"missing_curves_{table.removeprefix('mosi_')}", source, f"MAE against missing frames, {data}.")(draw_curves)
    if table in SETS:
        figure(f"missing_subsets_{table}", source, f"MAE by what is available, {data}.")(draw_subsets)

SOURCES = [f"{RESULTS}/missing_{name}.csv" for name in SETS]


@figure("missing_overview", [*SOURCES, f"{RESULTS}/bayes.csv"])
def missing_overview(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """MAE against the share of frames missing, all methods, plain and augmented training apart."""
    results = pd.concat(tables[:-1], ignore_index=True)
    rows = levels_of(results, "frames")
    return overview_curves(rows, "mean", LABEL, best_constants(results), best_possible(tables[-1])), rows


@figure("missing_summaries", SOURCES)
def missing_summaries(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Every protocol in one number per method, mean and interval over seeds, beside the best constant."""
    results = pd.concat(tables, ignore_index=True)
    means = means_of(summaries_of(results))
    return summary_dots(means, best_constants(results)), means


@figure("missing_augmentation", SOURCES)
def missing_augmentation(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What training with missing samples adds to each method."""
    effects = augmentation_effects(summaries_of(pd.concat(tables, ignore_index=True)))
    title = "What training with missing samples adds to a method"
    return effect_forest(effects, "MAE, augmented − plain", title), effects


@figure("missing_control", SOURCES)
def missing_control(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What each method adds to the control, both trained with missing samples."""
    effects = control_effects(summaries_of(pd.concat(tables, ignore_index=True)))
    title = f"What a method adds to {names.CALLED[CONTROL]}, all trained with missing samples"
    return effect_forest(effects, "MAE, method − control", title), effects


@figure("missing_spread", [f"{RESULTS}/missing_spread.csv"])
def missing_spread(spread: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """How far predictions differ between samples while frames vanish: where a method becomes a constant."""
    drawn = spread_means(spread)
    return overview_curves(drawn, "sd", "sd of the predictions"), drawn


@figure("missing_iemocap", ["data/published/published_results.csv"])
def missing_iemocap(published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """HRLF's Table 2 beside what "never this emotion" scores."""
    drawn = printed_cells(published)
    return printed_against_constant(drawn, (100 * never_this_emotion()["macro"]).to_dict(), "hrlf"), drawn
