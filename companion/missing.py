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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion import names
from companion.shared import RESULTS, best_constant, best_possible, floor_lines, run_folders, write_table
from mmsa_lib.data.task import emotions
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.protocols import LEVEL_SEPARATOR
from mmsa_lib.evaluation.statistics import compare_seeds, summarise_seeds
from mmsa_lib.experiments import files
from mmsa_lib.experiments.rendering import Table
from mmsa_lib.experiments.results import SAME_RUN, collect, curate, failures, is_constant, named
from mmsa_lib.experiments.summaries import protocol_summaries, summarise
from mmsa_lib.experiments.tables import printed_table
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import Style, curves, dots, forest, heatmap
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
"""How a run was trained: on complete samples, or with gaps in them."""

TRAINING: dict[str, Style] = {
    PLAIN: {"color": palette.SKY, "marker": "s", "ms": 3.4, "label": "trained on complete samples"},
    AUGMENTED: {"color": palette.VERMILLION, "marker": "o", "ms": 3.4, "label": "trained with gaps"},
}
MARKS = {key: {**style, "offset": offset} for (key, style), offset in zip(TRAINING.items(), (-0.15, 0.15), strict=True)}
OWN_RECIPE = ("hrlf",)
"""Methods that make their training samples incomplete themselves; they are always ``augmented``."""

CONTROL = "early_fusion"
CONSTANT = "best constant"
MISSING_COLOR = "#D9D9D9"

SUMMARIES = {
    ("frames", "auilc_normalised"): "A, frames",
    ("subsets", "average"): "B, subsets",
    ("rate", "mean"): "C, rate",
}
"""Protocol and summary to what figures call it; all are means, on the scale of the metric."""

SUBSETS = {
    "text": "{l}", "audio": "{a}", "vision": "{v}", "text+audio": "{l,a}", "text+vision": "{l,v}",
    "audio+vision": "{a,v}", "text+audio+vision": "{l,a,v}",
}  # fmt: skip
"""What is available to the heading of HRLF's tables (language, audio, vision), in their order."""

AVERAGE = "Avg."
PRINTED = {f"subset={heading}": heading for heading in SUBSETS.values()}
PRINTED |= {"subset_avg6": AVERAGE, "complete": PRINTED.pop("subset={l,a,v}")}
"""Setting of ``published_results.csv`` to the heading, in the order of HRLF's tables."""

IEMOCAP_COUNTS = {"happy": 595, "sad": 1084, "angry": 1103, "neutral": 1708}
"""Utterances per emotion among the 4,490 with one of the four labels: a public repository's count [T]. The partition of
HRLF has 4,453 of them and prints no counts (hrlf, section 8)."""


def never_this_emotion(counts: Mapping[str, int] = IEMOCAP_COUNTS) -> pd.DataFrame:
    """F1 of the answer "not this emotion" for every utterance: index emotion, columns ``weighted`` and ``macro``.

    Args:
        counts: utterances per emotion; each utterance has one.
    """
    labels = np.repeat(np.eye(len(counts)), list(counts.values()), axis=0)
    found = constant_metrics(emotions(tuple(counts)), labels, labels).loc["constant_majority"]
    rows = {name: {"weighted": found[f"{name}_f1"], "macro": found[f"{name}_f1_macro"]} for name in counts}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("emotion")


def printed_cells(published: pd.DataFrame) -> pd.DataFrame:
    """HRLF's Table 2 (IEMOCAP) beside "never this emotion": group, setting, method, value, floor (both %) and below."""
    rows = published[published["quoted_from"] == "HRLF Table 2"]
    group = rows["metric"].str.removeprefix("f1_")
    floor = 100 * group.map(never_this_emotion()["weighted"])
    rows = rows.assign(group=group, setting=rows["setting"].map(PRINTED), floor=floor, below=rows["value"] < floor)
    rows = names.in_order(rows.dropna(subset="floor"), "group", group=IEMOCAP_COUNTS)
    return rows[["group", "setting", "method", "value", "floor", "below"]]


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


def best_constants(results: pd.DataFrame, metric: str = METRIC) -> dict[str, float]:
    """:func:`~companion.shared.best_constant` of all constant baselines in ``results``."""
    return best_constant(results[is_constant(results)], metric)


def printed_subsets(published: pd.DataFrame, source: str, dataset: str, metric: str = "f1") -> Table:
    """The subset table of a paper, as printed, with its features in the title.

    Args:
        published: rows of ``data/published/published_results.csv``.
        source: ``quoted_from``, such as ``HRLF Table 1``.
        dataset: id of the data set.
        metric: as the rows call it, in per cent.

    Raises:
        DataError: nothing is quoted from there.
    """
    rows = published[(published["quoted_from"] == source) & (published["dataset"] == dataset)]
    rows = rows[rows["metric"] == metric]
    if rows.empty:
        raise DataError(f"no published {metric!r} on {dataset} is quoted from {source!r}")
    wide = rows.pivot_table(index="method", columns="setting", values="value", sort=False)
    wide = wide[[setting for setting in PRINTED if setting in wide]].rename(index=names.CALLED, columns=PRINTED)
    title = (
        f"{source}, {dataset}, {metric.upper()} in %, as printed in the paper. Features: "
        f"{'; '.join(dict.fromkeys(rows['features']))}. Other features and other runs than ours: never compared."
    )
    lines = [(method, *(f"{value:.2f}" for value in values)) for method, *values in wide.itertuples()]
    return printed_table(title, ("method", *wide.columns), lines)


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


def draw_curves(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The error against the share of missing frames, of one curated table: a panel per method, with both trainings."""
    rows = levels_of(results, "frames")
    drawn = rows.assign(line=rows["training"], x=rows["level"].astype(float), value=rows["mean"])
    control = drawn[(drawn["name"] == CONTROL) & (drawn["training"] == AUGMENTED)]
    dotted = f"{names.CALLED[CONTROL]}, trained with gaps"
    others = [name for name in drawn["name"].unique() if name != CONTROL]
    control = control.assign(line=dotted, low=np.nan, high=np.nan)
    drawn = pd.concat([drawn, *(control.assign(name=name) for name in others)])
    drawn = drawn.assign(panel=drawn["name"].map(names.called))
    styles = {**TRAINING, dotted: {"color": palette.BLACK, "ls": ":", "lw": 1.3}}
    floors, title = floor_lines(drawn, {CONSTANT: best_constants(results)}), rows["data"].iloc[0]
    return curves(drawn, styles, "share of frames missing", LABEL, floors=floors, title=title, height=1.7), rows


def draw_subsets(results: pd.DataFrame, metric: str = METRIC) -> tuple[Figure, pd.DataFrame]:
    """One curated table in the layout of HRLF's, as a heat map: methods by what is available (italics: a constant is
    better), their mean over the incomplete subsets, and complete input at the right."""
    rows, described = levels_of(results, "subsets", metric), describe(metric)
    lines = rows["name"].map(names.called) + rows["training"].map({PLAIN: "", AUGMENTED: ", with gaps"})
    wide = rows.assign(line=lines).pivot_table(index="line", columns="level", values="mean", sort=False)
    wide = wide[[level for level in SUBSETS if level in wide]].rename(columns=SUBSETS)
    wide.insert(wide.shape[1] - 1, AVERAGE, wide.iloc[:, :-1].mean(axis=1))
    wide.loc[CONSTANT] = best_constants(results, metric)[rows["data"].iloc[0]]
    higher, percent = described.higher_is_better, described.percent
    wide = ((100 if percent else 1) * wide).round(6)  # a mean of equal numbers is that number
    floor = wide.iloc[-1, -1]
    picture = heatmap(
        {rows["data"].iloc[0]: wide}, f"{described.label}{' %' * percent} {'↑' if higher else '↓'}", limits=None,
        text=("{:.1f}" if percent else "{:.2f}").format, xlabel="available: l language, a audio, v vision",
        emphasis=lambda value: value < floor if higher else value > floor, cmap=palette.SEQUENTIAL + "_r" * higher,
        cell=(0.72, 0.32), margin=3.2,
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
    """MAE against the share of frames missing, all methods, trained on complete samples and with gaps."""
    results = pd.concat(tables[:-1], ignore_index=True)
    rows = levels_of(results, "frames")
    panel = rows["data"] + ", " + rows["training"].map({key: style["label"] for key, style in TRAINING.items()})
    drawn = rows.assign(panel=panel, line=rows["name"].map(names.called), x=rows["level"].astype(float))
    drawn = drawn.assign(value=drawn["mean"]).drop(columns=["low", "high"])
    drawn = names.in_order(drawn, "data", "training", training=TRAINING)
    pairs = names.in_order(drawn.drop_duplicates("line"), "method")[["method", "line"]]
    later = pairs.groupby("method").cumcount()
    styles = {
        line: {"color": names.color(method), "ls": "--" if more else "-", "marker": mark, "ms": 2.6, "lw": 1.2}
        for (method, line), more, mark in zip(pairs.itertuples(index=False), later, "osD^vP*Xd<>hp", strict=False)
    }
    best = {CONSTANT: best_constants(results), "best possible, complete samples": best_possible(tables[-1])}
    look = {"columns": 2, "sharey": "row", "width": 3.4, "floors": floor_lines(drawn, best)}
    return curves(drawn, styles, "share of frames missing", LABEL, **look), rows


@figure("missing_summaries", SOURCES)
def missing_summaries(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Every protocol in one number per method, mean and interval over seeds, beside the best constant."""
    results = pd.concat(tables, ignore_index=True)
    means = means_of(summaries_of(results))
    drawn = _panels(means, "summary", SUMMARIES.values())
    return dots(
        drawn, TRAINING, LABEL, floors=floor_lines(drawn, {CONSTANT: best_constants(results)}), **_grid(drawn)
    ), means


@figure("missing_augmentation", SOURCES)
def missing_augmentation(*tables: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What training with gaps adds to each method."""
    effects = augmentation_effects(summaries_of(pd.concat(tables, ignore_index=True)))
    return _forest(effects, "with gaps − without", "What training with gaps adds to a method")


@figure("missing_control", SOURCES)
def missing_control(*tables: pd.DataFrame, metric: str = METRIC) -> tuple[Figure, pd.DataFrame]:
    """What each method adds to the control, both trained with gaps."""
    effects = control_effects(summaries_of(pd.concat(tables, ignore_index=True), metric))
    title = f"What a method adds to {names.CALLED[CONTROL]}, all trained with gaps"
    return _forest(effects, "method − control", title)


@figure("missing_spread", [f"{RESULTS}/missing_spread.csv"])
def missing_spread(spread: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """How far predictions differ between samples, on complete input and with nine of ten frames missing."""
    shown = {"0.0": "complete input", "0.9": "90 % of frames missing"}
    rows = spread[(spread["protocol"] == "frames") & spread["table"].isin(SETS)]
    rows = with_training(rows.assign(level=rows["level"].astype(str).map(shown)).dropna(subset="level"))
    means = summarise_seeds(rows, ["level", "data", "method", "name", "training"], "sd")
    drawn = _panels(means, "level", shown.values())
    return dots(drawn, MARKS, "sd of the predictions", **_grid(drawn)), means


@figure("missing_iemocap", ["data/published/published_results.csv"])
def missing_iemocap(published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """HRLF's Table 2 beside what "never this emotion" scores."""
    cells = printed_cells(published)
    marks: dict[str, Style] = {
        "other": {"color": "#B5B5B5", "ms": 3.6, "mew": 0, "label": "other methods, printed"},
        "hrlf": {"color": palette.BLUE, "mew": 0, "label": "HRLF, printed"},
    }
    mark = np.where(cells["method"] == "hrlf", "hrlf", "other")
    drawn = cells.assign(name=cells["setting"], panel=cells["group"], mark=mark)
    never = {f"“never this emotion”, {kind} F1": scores for kind, scores in (100 * never_this_emotion()).items()}
    return dots(drawn, marks, "F1 (%), as printed", floors=floor_lines(drawn, never, "group"), width=1.8), cells


def _forest(effects: pd.DataFrame, words: str, title: str) -> tuple[Figure, pd.DataFrame]:
    drawn, described = _panels(effects, "summary", SUMMARIES.values()), describe(effects["metric"].iloc[0])
    better = {"higher_is_better": described.higher_is_better}
    return forest(drawn, f"{described.label}, {words}", title=title, **better, **_grid(drawn)), effects


def _panels(rows: pd.DataFrame, down: str, order: Any) -> pd.DataFrame:
    """``rows`` as panels, ``down`` in its ``order`` and data sets across, with lines for readers."""
    rows = names.in_order(rows, down, "data", **{down: order})
    rows = rows.assign(panel=rows["data"] + "\n" + rows[down], name=rows["name"].map(names.called))
    return rows.assign(value=rows["mean"], mark=rows["training"]) if "training" in rows else rows


def _grid(drawn: pd.DataFrame) -> dict[str, Any]:
    return {"columns": drawn["data"].nunique(), "width": 2.8, "line": 0.17, "sharex": "col"}
