"""What several notebooks need: results as dots, the ablations of one method, tables on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from companion import names
from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import DECIMALS, collect, collect_terms, is_constant, named
from mmsa_lib.experiments.runs import RunResult, find_run
from mmsa_lib.figures.panels import dots, heatmap

RESULTS, SWEEPS = "data/results", "notebooks/sweeps"


def named_switches(effects: pd.DataFrame) -> pd.DataFrame:
    """Rows of a comparison of configurations with ``name``: the label, or what is changed in the reference."""
    keys = ["method", "label", "changes", "data_options"]
    base = effects[[f"reference_{key}" for key in keys]].set_axis(keys, axis=1)
    both = pd.concat([effects[keys], base], ignore_index=True).assign(constant=False)
    found = pd.concat([named(rows) for _, rows in both.groupby("method", sort=False)])["name"].sort_index()
    return effects.assign(name=found.iloc[: len(effects)].to_numpy())


def method_dots(
    results: pd.DataFrame, metrics: Mapping[str, tuple[str, float]], floors: pd.DataFrame | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Each run as a dot, mean and 95 % interval over seeds beside it, one panel per metric.

    Args:
        results: rows of results, or rows with ``method, label, seed, metric, value`` that were chosen and named before.
        metrics: metric key to axis label and factor.
        floors: ``baseline, metric, value`` of what needs no method.

    Returns:
        The figure, and its numbers: the runs, then the floors.
    """
    runs = results[results["metric"].isin(metrics)]
    if "protocol" in runs:
        runs = runs[(runs["split"] == "test") & (runs["protocol"] == "complete") & ~is_constant(runs)]
        runs = named(runs).drop(columns="label").rename(columns={"name": "label"})
    runs = names.in_order(runs, "method")[["method", "label", "seed", "metric", "value"]]
    factor = {metric: factor for metric, (_, factor) in metrics.items()}
    label = {metric: label for metric, (label, _) in metrics.items()}

    def drawn(rows: pd.DataFrame, column: str, mark: str) -> pd.DataFrame:
        lines = [names.called(names.line(*own)) for own in zip(rows["method"], rows["label"], strict=True)]
        scale = rows["metric"].map(factor)
        bounds = {end: rows[end] * scale for end in ("low", "high") if end in rows}
        values = {"value": rows[column] * scale, "panel": rows["metric"].map(label), "name": lines, **bounds}
        return rows.assign(mark=rows["method"] + mark, **values)

    means = summarise_seeds(runs, by=["method", "label", "metric"])
    frame = pd.concat([drawn(runs, "value", ""), drawn(means, "mean", " mean")], ignore_index=True)
    frame = names.in_order(frame, "panel", panel=label.values())
    marks = {}
    for method in runs["method"].unique():
        color = names.color(method)
        marks[method] = {"color": color, "ms": 3.7, "mew": 0, "alpha": 0.6}
        marks[f"{method} mean"] = {"color": color, "marker": "|", "ms": 12, "mew": 1.5}
    if floors is not None:
        scaled = floors.assign(value=floors["value"] * floors["metric"].map(factor), panel=floors["metric"].map(label))
    figure = dots(frame, marks, "", floors=None if floors is None else scaled, width=2.25)
    return figure, pd.concat([runs, *([] if floors is None else [floors])])


def best_possible(bayes: pd.DataFrame) -> dict[str, float]:
    """Display name of a synthetic set to the error of the best possible predictor of complete samples.

    Args:
        bayes: ``data/results/bayes.csv``.
    """
    rows = bayes[(bayes["split"] == "test") & (bayes["modalities"] == "text+audio+vision")]
    return {names.DATA[row.dataset]: row.mae for row in rows.itertuples() if row.dataset in names.DATA}


def best_constant(rows: pd.DataFrame, metric: str) -> dict[str, float]:
    """Display name of a data set to the score of the best constant that was fitted to training labels.

    Args:
        rows: ``dataset, method, metric, value`` of constant baselines; draws from the training labels don't count.
        metric: its key.
    """
    rows = rows[(rows["metric"] == metric) & rows["method"].str.startswith("constant_")].dropna(subset=["value"])
    values = rows[rows["method"] != "constant_prior"].groupby("dataset")["value"]
    best = values.max() if describe(metric).higher_is_better else values.min()
    return {title: best[key] for name, title in names.DATA.items() if (key := name.removesuffix(names.TIMED)) in best}


def constant_floor(results: pd.DataFrame, constant: str = "constant_median") -> pd.DataFrame:
    """What a constant scores on the test samples, as floors: ``metric, value, baseline``."""
    rows = results[(results["method"] == constant) & (results["split"] == "test")].dropna(subset=["value"])
    words = f"constant (train {constant.removeprefix('constant_')})"
    return rows[["metric", "value"]].drop_duplicates().assign(baseline=words)


def floor_lines(drawn: pd.DataFrame, baselines: Mapping[str, Mapping[str, float]], key: str = "data") -> pd.DataFrame:
    """Lines of every panel of ``drawn``, by name of the baseline: what it scores on the panel's ``key``."""
    panels = drawn.drop_duplicates("panel")
    parts = [
        pd.DataFrame({"panel": panels["panel"], "value": panels[key].map(scores), "baseline": name})
        for name, scores in baselines.items()
    ]
    return pd.concat(parts, ignore_index=True).dropna()


def run_folders(runs: Path, wanted: tuple[str, ...], ends: tuple[str, ...] = (files.DONE,)) -> list[Path]:
    """Those of the folders ``wanted`` below ``runs`` that hold a run that ended.

    Raises:
        DataError: none does.
    """
    there = [runs / name for name in wanted if any(any((runs / name).glob(f"*/{end}")) for end in ends)]
    if not there:
        raise DataError(f"{runs} has no finished run in any of {', '.join(wanted)}")
    return there


def runs_of(folder: Path, method: str) -> list[RunResult]:
    """The finished runs of ``method`` in ``folder``, in the order of its tables.

    Raises:
        DataError: no finished run is there.
    """
    found = collect(folder)
    return [find_run(run_id, folder) for run_id in found.loc[found["method"] == method, "run_id"].unique()]


def speaker_of(data: Utterances, modality: Modality) -> str:
    """Name of the planted factor that says who speaks: common to all modalities, or one of each."""
    return "speaker" if "speaker" in data.factors else f"speaker_{modality}"


def write_terms(runs: Path, target: Path) -> Path | None:
    """``terms.csv``: weight, share and gradient of each loss term of all runs below ``runs``.

    ``None`` where there is none, or only of earlier versions, which recorded no terms.
    """
    done = [*runs.glob(f"*/{files.DONE}"), *runs.glob(f"*/*/{files.DONE}")]  # those of a sweep's points have no metrics
    folders = sorted({path.parent.parent for path in done if path.with_name(files.METRICS).is_file()})
    tables = [table for table in map(collect_terms, folders) if len(table)]
    if not tables:
        return None
    found = pd.concat(tables, ignore_index=True)
    write_table(target / "terms.csv", found.drop_duplicates(["run_id", "phase", "term"]), DECIMALS)
    return target / "terms.csv"


def write_table(path: Path, table: pd.DataFrame, digits: int) -> None:
    """Write a table with numbers rounded to ``digits`` after the point."""
    numbers = {column: table[column].round(digits) for column in table.select_dtypes("float")}
    files.write_table(path, table.assign(**numbers).reset_index(drop=True))


def of_run(table: pd.DataFrame, run: RunResult) -> pd.DataFrame:
    """``table`` behind columns that say which run it is of."""
    known = {"dataset": run.config.dataset, "seed": run.config.seed}
    keys = {"run_id": run.run_id, **run.config.described(), **known}
    return table.assign(**keys)[[*keys, *table.columns]]


def probe_table(table: pd.DataFrame, title: str = "") -> Figure:
    """Heat map of out-of-sample R² of linear probes: representations down, planted factors across.

    Args:
        table: tidy ``representation, factor, r2``. Values below 0 (worse than the mean) have the colour of 0.
        title: of the figure.
    """
    wide = table.pivot_table(index="representation", columns="factor", values="r2", sort=False)
    wide.columns = [str(factor).replace("_", "\n") for factor in wide.columns]
    return heatmap({title: wide.round(2) + 0.0}, "R², out of sample", cell=(0.8, 0.34))
