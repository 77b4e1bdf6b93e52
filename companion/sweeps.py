"""Notebooks 07 and 09: main comparison, ablations, readings, few labels, sensitivity; what few seeds can show.

:func:`write` reads the folders ``main``, ``ablations``, ``readings``, ``label_scarce`` and ``sensitivity`` of runs
(``mmsa-lib sweep notebooks/sweeps/main.yaml --runs RUNS/main`` and so on) and makes ``sweep_<name>.csv`` (metrics per
run), means with intervals over seeds and over seeds and test items, and paired comparisons. Every number has the
identifiers of the runs behind it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import integrate, optimize, stats

from companion import names
from companion.shared import (
    RESULTS,
    SWEEPS,
    best_constant,
    best_possible,
    constant_floor,
    floor_lines,
    method_dots,
    named_switches,
    run_folders,
)  # fmt: skip
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.levels import COMPLETE
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.results import collect, curate, is_constant
from mmsa_lib.experiments.summaries import (
    NOT_EXERCISED,
    base_of,
    compare,
    curate_summary,
    protocol_summaries,
    write_numbers,
)
from mmsa_lib.experiments.sweep_file import choices, read_sweep
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import dots, forest, grid, legend
from mmsa_lib.figures.registry import figure
from mmsa_lib.methods import METHODS
from mmsa_lib.paths import project_root

PRIMARY = "mae"
"""The metric of all tests: it needs no threshold and uses every sample. More metrics would weaken each test."""

CLEAN = "mae_clean"
"""The same against the sentiment that the synthetic family stores without noise."""

CONTROLS = ("early_fusion", "text_only")
"""What a method is compared with: plain fusion of the same input, and the text alone."""

EXAMINED, EXPLORATORY = "primary", "exploratory"
"""Block of a sweep with the few ablations that are tested together; what the verdict of all others says."""

CELL = {"split": "test", "protocol": "complete"}

SENSITIVITY = {
    ("contrastive_mmcl", "synthetic", "temperature_cmc"): "temperature of CMC",
    ("contrastive_mmcl", "synthetic", "temperature_smc"): "temperature of SMC",
    ("contrastive_mmcl", "synthetic", "gamma"): "modulation exponent γ",
    ("modal_alignment", "synthetic", "lambda_cov"): "weight of the covariance loss",
    ("collaborative_mmcl", "synthetic", "temperature"): "decoupling temperature",
}
"""Method, data set and hyper-parameter to what the latter is called."""

RIDGE = {"mosi": "text", "mmmo": "audio + vision"}
"""Data set to the input that its ridge regression reads."""

ENCODERS = {"bert": "fine-tuned text", None: "frozen text"}
MOSI_METRICS = {**names.METRICS, "acc2_neg_pos": ("Acc-2 (%) ↑", 100.0)}


def main_tables(folder: Path, target: Path) -> None:
    """``sweep_main.csv``, ``sweep_main_summary.csv`` and ``sweep_main_comparison.csv``."""
    found = _without_macro(collect(folder))
    curate(found, target / "sweep_main.csv", **CELL)
    curate_summary(found, target / "sweep_main_summary.csv", runs=folder, **CELL)
    constants, runs = found[is_constant(found)], found[~is_constant(found)]
    # Only methods that saw the same features of the same samples are compared.
    inputs = [
        pd.concat([part, constants[(constants["dataset"] == dataset) & (constants["fold"] == fold)]], ignore_index=True)
        for (dataset, fold, _), part in runs.groupby(["dataset", "fold", "data_options"], sort=False)
    ]
    parts = [
        compare(rows, control, [PRIMARY], runs=folder, **CELL)
        for control in CONTROLS
        for rows in inputs
        if control in set(rows["method"])
    ]
    write_numbers(pd.concat(parts, ignore_index=True), target / "sweep_main_comparison.csv")


def ablation_tables(folder: Path, target: Path) -> None:
    """``sweep_ablations.csv``, with averages over subsets of modalities where runs have them, and the comparison."""
    found = _without_macro(collect(folder))
    complete = found[(found["protocol"] == "complete") & (found["split"] == "test")]
    subsets = found[~is_constant(found) & (found["protocol"] == "subsets")]
    if len(subsets):
        averages = protocol_summaries(subsets, ["subsets"])
        complete = pd.concat([complete, averages[averages["level"] == "average"]], ignore_index=True)
    curate(complete, target / "sweep_ablations.csv")
    counts = complete[~is_constant(complete)].groupby("method", sort=False)["changes"].nunique()
    parts = [part for method in counts[counts > 1].index for part in _switches(found, method, folder)]
    if not parts:
        raise DataError(f"{folder} has no method with several configurations")
    write_numbers(pd.concat(parts, ignore_index=True), target / "sweep_ablations_comparison.csv")


def _switches(found: pd.DataFrame, method: str, folder: Path) -> list[pd.DataFrame]:
    """Comparisons of a method's switches with its full form: those of a block ``primary`` of its sweep, corrected
    together, then all others as exploratory ones, without a verdict; all together where there is no such block."""
    root = project_root()
    file = root and root / SWEEPS / f"ablations_{method}.yaml"
    sweep = read_sweep(file) if file and file.is_file() else None
    primary = {choice.ablation for choice in choices(sweep) if choice.block == EXAMINED} if sweep else set()
    labels = set(found.loc[(found["method"] == method) & ~is_constant(found), "label"])
    given = {"runs": folder, "method": method, **CELL}
    if not primary & labels:
        return [compare(found, method, [PRIMARY], **given)]
    reference = compare(found, method, [PRIMARY], **given, items=False)["reference_label"].iloc[0]
    groups = [sorted(primary & labels - {reference}), sorted(labels - primary - {reference})]
    tables = [
        compare(found, method, [PRIMARY], label=own, family=family, **given)
        for own, family in zip(groups, ((), ("label",)), strict=True)
        if own
    ]
    for table in tables[bool(groups[0]) :]:
        table["verdict"] = table["verdict"].where(table["verdict"] == NOT_EXERCISED, EXPLORATORY)
    return tables


def sensitivity_tables(folder: Path, target: Path) -> None:
    """``sweep_sensitivity.csv``: validation and test errors, since only the former may choose a value."""
    found = _without_macro(collect(folder))
    curate(found, target / "sweep_sensitivity.csv", metric=[PRIMARY, "corr"], protocol="complete")


def reading_tables(folder: Path, target: Path) -> None:
    """``sweep_readings.csv`` with the full methods of the ablations beside, and the comparison, for orientation.

    Readings were chosen on validation data before these runs, and have three seeds: no verdict rests on them.
    """
    found = _without_macro(collect(folder))
    groups = ["method", "dataset"]
    asked = set(found[groups].itertuples(index=False, name=None))
    if (beside := folder.with_name("ablations")).is_dir():
        full = _without_macro(collect(beside))
        full = full[~is_constant(full) & (full["protocol"] == "complete") & full["seed"].isin(found["seed"])]
        parts = [own[own["changes"] == _base(own)] for key, own in full.groupby(groups, sort=False) if key in asked]
        found = pd.concat([found, *parts], ignore_index=True)
    curate(found, target / "sweep_readings.csv", **CELL)
    runs = found[~is_constant(found)]
    parts = [
        compare(part, method, [PRIMARY], items=False, **CELL)
        for (method, _), part in runs.groupby(groups, sort=False)
        if part["changes"].nunique() > 1 and _base(part)  # noqa: PD101 (more than one, not only one)
    ]
    if parts:
        write_numbers(pd.concat(parts, ignore_index=True), target / "sweep_readings_comparison.csv")


def _base(rows: pd.DataFrame) -> str | None:
    """The ``changes`` of the configuration in ``rows`` that all others extend; ``None`` if there is none."""
    return base_of({text: json.loads(text).items() for text in rows["changes"].unique()})


def scarce_tables(folder: Path, target: Path) -> None:
    """``sweep_label_scarce.csv``, and each method's switches against its full form, on the noise-free sentiment."""
    found = _without_macro(collect(folder))
    curate(found, target / "sweep_label_scarce.csv", **CELL)
    runs = found[~is_constant(found)]
    counts = runs.groupby("method", sort=False)["changes"].nunique()
    parts = [compare(found, method, [CLEAN], runs=folder, method=method, **CELL) for method in counts[counts > 1].index]
    if parts:
        write_numbers(pd.concat(parts, ignore_index=True), target / "sweep_label_scarce_comparison.csv")


TABLES: dict[str, Callable[[Path, Path], None]] = {
    "main": main_tables,
    "ablations": ablation_tables,
    "readings": reading_tables,
    "label_scarce": scarce_tables,
    "sensitivity": sensitivity_tables,
}
"""Folder of runs to what is written from it."""

FOLDERS = tuple(TABLES)


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has a folder for to ``target``; their names."""
    there = run_folders(runs, FOLDERS)
    for folder in there:
        TABLES[folder.name](folder, target)
    return [folder.name for folder in there]


def _without_macro(found: pd.DataFrame) -> pd.DataFrame:
    return found[~found["metric"].str.endswith("_macro")].reset_index(drop=True)


def paired_power(difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t-test finds a true mean difference.

    Args:
        difference: the true mean of the paired differences, in the unit of the metric.
        sd: their standard deviation over seeds.
        n: pairs.
        alpha: level of the test.

    Returns:
        A probability: that of the noncentral t distribution with n-1 degrees of freedom.

    Raises:
        ConfigError: fewer than two pairs, no spread, or alpha outside (0, 1).
    """
    _check(sd, n, alpha)
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(difference) / sd * math.sqrt(n)

    def found(quantile: float) -> float:
        # Given the spread that was seen, the mean is normal. scipy's noncentral t is NaN for some arguments.
        spread = math.sqrt(stats.chi2.ppf(quantile, n - 1) / (n - 1))
        return float(stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift))

    return integrate.quad(found, 0, 1, epsabs=1e-9, limit=200)[0]


def detectable_difference(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided paired t-test finds with probability ``power``.

    Args and raises as :func:`paired_power`; ``power`` lies in (``alpha``, 1).

    Returns:
        The difference, in the unit of the metric.
    """
    _check(sd, n, alpha)
    if not alpha < power < 1:
        raise ConfigError(f"power must lie between alpha ({alpha}) and 1, not {power}")
    return _detectable_effect(n, alpha, power) * sd


@cache
def _detectable_effect(n: int, alpha: float, power: float) -> float:
    """The detectable difference in standard deviations; it depends on nothing else."""
    high = 1.0
    while paired_power(high, 1.0, n, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: paired_power(effect, 1.0, n, alpha) - power, 0, high, xtol=1e-10))


def _check(sd: float, n: int, alpha: float) -> None:
    if n < 2 or not sd > 0 or not np.isfinite(sd) or not 0 < alpha < 1:
        raise ConfigError(
            f"a paired t-test needs n >= 2, sd > 0 and alpha in (0, 1), got n={n}, sd={sd}, alpha={alpha}"
        )


def chosen_on_validation(points: pd.DataFrame) -> pd.DataFrame:
    """For each hyper-parameter the value that validation data choose, and what that gives on test data.

    Args:
        points: columns ``panel``, ``value``, ``split`` (``valid`` and ``test``), ``mean`` (lower is better) and
            ``default``, a mark of the default value.

    Returns:
        Index ``panel``: ``default``, ``chosen`` (lowest validation mean), ``test_default``, ``test_chosen``,
        ``test_best`` (the oracle that has seen test labels) and ``range`` (of test means over all values).

    Raises:
        DataError: a panel has no default value, or a value lacks a split.
    """
    rows = {}
    for panel, part in points.groupby("panel", sort=False):
        wide = part.pivot(index="value", columns="split", values="mean").astype(float)  # noqa: PD010
        if not {"valid", "test"} <= set(wide) or wide[["valid", "test"]].isna().any(axis=None):
            raise DataError(f"{panel!r}: each value needs a validation and a test result")
        marked = part.loc[part["default"].astype(bool), "value"].unique()
        if len(marked) != 1:
            raise DataError(f"{panel!r}: exactly one value must be the default, found {len(marked)}")
        chosen = wide["valid"].idxmin()
        rows[panel] = {
            "default": marked[0], "chosen": chosen, "test_default": wide.loc[marked[0], "test"],
            "test_chosen": wide.loc[chosen, "test"], "test_best": wide["test"].min(),
            "range": wide["test"].max() - wide["test"].min(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("panel")


def with_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` of results, summaries or comparisons with ``data`` and ``name`` as figures call them, in their order."""
    lines = [names.line(method, label) for method, label in zip(rows["method"], rows["label"], strict=True)]
    rows = rows.assign(data=names.data_of(rows).map(names.DATA), name=lines)
    return names.in_order(rows, "data", "method", "name")


def ablation_rows(comparison: pd.DataFrame) -> pd.DataFrame:
    """Lines of the ablations, from ``sweep_ablations_comparison.csv``."""
    rows = named_switches(comparison).assign(panel=comparison["method"])
    return names.in_order(rows, "method")[COMPARED]


COMPARED = ["panel", "name", "n", "difference", "low", "high", "item_low", "item_high", "verdict"]


def sensitivity_rows(results: pd.DataFrame, metric: str = PRIMARY) -> pd.DataFrame:
    """Mean errors by value of each hyper-parameter of :data:`SENSITIVITY`, from ``sweep_sensitivity.csv``.

    Returns:
        panel, value, split, n, mean, low, high, and ``default``: whether the value is the method's default.
    """
    runs = results[~is_constant(results) & (results["metric"] == metric)]
    changes = runs["changes"].map(json.loads)
    budget = set.intersection(*map(set, changes))  # what all runs share
    parts = []
    for (method, dataset, key), title in SENSITIVITY.items():
        alone = changes.map(lambda own, key=key: set(own) - budget <= {key}).astype(bool)
        own = runs[(runs["method"] == method) & (runs["dataset"] == dataset) & alone]
        if own["changes"].nunique() < 2:
            continue
        default = getattr(METHODS[method].Config.for_dataset(dataset), key)
        value = changes[own.index].map(lambda given, key=key, default=default: float(given.get(key, default)))
        table = summarise_seeds(own.assign(parameter=value), by=["parameter", "split"])
        panel = f"{method}{'' if dataset == 'synthetic' else f', {names.DATA[dataset]}'}\n{title}"
        parts.append(table.assign(panel=panel, value=table["parameter"], default=table["parameter"] == default))
    return pd.concat(parts, ignore_index=True)[["panel", "value", "split", "n", "mean", "low", "high", "default"]]


def sensitivity_panels(points: pd.DataFrame, label: str) -> Figure:
    """The error against each hyper-parameter, with 95 % intervals, on validation and on test samples.

    Args:
        points: rows of :func:`sensitivity_rows`.
        label: of the vertical axes.
    """
    panels = list(dict.fromkeys(points["panel"]))
    figure, axes = grid(len(panels), 3, 3.1, 2.4, margin=0.3)
    styles = {split: {"color": palette.SPLIT[split], "marker": "o", "ms": 4, "lw": 1.4} for split in ("valid", "test")}
    default = {"color": palette.GREY, "lw": 6, "alpha": 0.25}
    for axis, panel in zip(axes, panels, strict=True):
        rows = points[points["panel"] == panel]
        levels = sorted(rows["value"].unique())
        for offset, (split, style) in zip((0.06, -0.06), styles.items(), strict=True):
            part = rows[rows["split"] == split].sort_values("value")
            errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
            x = [levels.index(value) + offset for value in part["value"]]
            axis.errorbar(x, part["mean"], yerr=errors, capsize=2, **style)
        for value in rows.loc[rows["default"].astype(bool), "value"].unique():
            axis.axvline(levels.index(value), zorder=0, **default)
        axis.set_xticks(range(len(levels)), [f"{value:g}" for value in levels])
        axis.set(title=names.called(panel), ylabel=label)
        axis.grid(axis="x", visible=False)
    legend(figure, {**styles, "default": default})
    return figure


@figure("main_results", [f"{RESULTS}/{name}.csv" for name in ("sweep_main_summary", "bayes", "ridge")])
def main_results(
    summary: pd.DataFrame, bayes: pd.DataFrame, ridge: pd.DataFrame, metric: str = PRIMARY
) -> tuple[Figure, pd.DataFrame]:
    """Every method on every data set, beside the best constant, ridge regression and the best possible predictor."""
    rows, described = summary[(summary["metric"] == metric) & (summary["n"] > 0)], describe(metric)
    constant = rows["constant"].astype(bool)
    lines = with_lines(rows[~constant])
    linear = ridge[(ridge["metric"] == metric) & (ridge["input"] == ridge["dataset"].map(RIDGE))]
    baselines = {
        "best constant": best_constant(rows[constant].rename(columns={"mean": "value"}), metric),
        "ridge regression": linear.set_index(linear["dataset"].map(names.DATA))["value"].to_dict(),
        "best possible": best_possible(bayes) if metric == PRIMARY else {},
    }
    drawn = lines.rename(columns={"data": "panel", "mean": "value"}).assign(name=lines["name"].map(names.called))
    drawn["mark"] = drawn["method"]
    marks = {method: {"color": names.color(method), "ms": 5.5} for method in drawn["mark"].unique()}
    label = f"{described.label} {'↑' if described.higher_is_better else '↓'}"
    figure = dots(
        drawn, marks, label, columns=2, shared=False, floors=floor_lines(drawn, baselines, "panel"), width=4.1
    )
    return figure, lines[["data", "name", "method", "n", "mean", "low", "high", "item_low", "item_high"]]


@figure("main_differences", [f"{RESULTS}/sweep_main_comparison.csv"])
def main_differences(comparison: pd.DataFrame, control: str = CONTROLS[0]) -> tuple[Figure, pd.DataFrame]:
    """What each method adds to plain fusion of the same input, paired over seeds and test items."""
    rows = with_lines(comparison[comparison["reference_method"] == control]).rename(columns={"data": "panel"})[COMPARED]
    drawn = rows.assign(name=rows["name"].map(names.called))
    return forest(drawn, f"MAE, method − {names.called(control)}", columns=2, shared=False, width=4.1), rows


@figure("ablations", [f"{RESULTS}/sweep_ablations_comparison.csv"])
def ablations(comparison: pd.DataFrame, sharex: bool = True) -> tuple[Figure, pd.DataFrame]:
    """What each switch of the four methods changes, paired over seeds and test items."""
    rows = ablation_rows(comparison)
    drawn = rows.assign(panel=rows["panel"].map(names.called), name=rows["name"].map(names.readable))
    return forest(drawn, "MAE, switch − full", columns=2, shared=False, width=4.1, sharex=sharex), rows


@figure("sensitivity", [f"{RESULTS}/sweep_sensitivity.csv"])
def sensitivity(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The error against one hyper-parameter at a time, on validation and on test samples."""
    rows = sensitivity_rows(results)
    return sensitivity_panels(rows, "MAE ↓"), rows


@figure("mosi_results", [f"{RESULTS}/{name}.csv" for name in ("sweep_main", "mosi_standard", "ridge")])
def mosi_results(main: pd.DataFrame, tuned: pd.DataFrame, ridge: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on MOSI's standard fold with frozen and fine-tuned text, beside what needs no method."""
    main = main[(names.data_of(main) == "mosi") & (main["protocol"] == COMPLETE) & (main["label"] != names.PRINTED)]
    both = pd.concat([main, tuned[encoder_of(tuned) != ENCODERS[None]]], ignore_index=True)
    test = both[(both["split"] == "test") & both["metric"].isin(MOSI_METRICS)]
    runs = test[~is_constant(test)].assign(label=encoder_of)
    runs = names.in_order(runs, "label", "method", "seed", label=["frozen text"])
    linear = ridge[(ridge["dataset"] == "mosi") & (ridge["input"] == "text") & ridge["metric"].isin(MOSI_METRICS)]
    linear = linear[["metric", "value"]].assign(baseline="ridge on frozen text")
    floors = pd.concat([linear, constant_floor(test)])
    return method_dots(runs[["method", "label", "seed", "metric", "value"]], MOSI_METRICS, floors)


def encoder_of(rows: pd.DataFrame) -> pd.Series:
    """``"fine-tuned text"`` or ``"frozen text"`` for each row."""
    return rows["changes"].map(lambda text: ENCODERS[json.loads(text).get("text_encoder")])
