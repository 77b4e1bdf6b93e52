"""The committed figures of the sweeps: main comparison, differences from plain fusion, ablations, sensitivity."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from companion.sweeps_panels import difference_panels, result_panels, sensitivity_panels
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.figures.registry import figure

RESULTS = "data/results"
SEPARATOR = "; "
DATA = {"mosi": "CMU-MOSI, fold A", "mmmo": "ICT-MMMO", "synthetic": "synthetic"}
TIMED = "CMU-MOSI, words and their timing"
PANELS = (DATA["mosi"], TIMED, DATA["mmmo"], DATA["synthetic"])
TIMED_OPTIONS = frozenset(("audio=timing", "max_length=256", "text=timed_words", "vision=None"))
CHOSEN_WEIGHTS = {"lambda_frf=0.01", "lambda_hal=0.01"}
ORDER = (
    "text_only", "early_fusion", "late_fusion", "self_mm", "modal_alignment", "contrastive_mmcl", "collaborative_mmcl",
    "hrlf",
)  # fmt: skip

# Method, data set and hyper-parameter to (panel title, default).
SENSITIVITY: dict[tuple[str, str, str], tuple[str, float]] = {
    ("contrastive_mmcl", "synthetic", "temperature_cmc"): ("contrastive_mmcl\ntemperature of CMC", 0.1),
    ("contrastive_mmcl", "synthetic", "temperature_smc"): ("contrastive_mmcl\ntemperature of SMC", 0.1),
    ("contrastive_mmcl", "synthetic", "gamma"): ("contrastive_mmcl\nmodulation exponent γ", 1.0),
    ("modal_alignment", "synthetic", "lambda_cov"): ("modal_alignment\nweight of the covariance loss", 1.0),
    ("modal_alignment", "mosi", "lambda_cov"): ("modal_alignment, CMU-MOSI\nweight of the covariance loss", 1.0),
    ("collaborative_mmcl", "synthetic", "temperature"): ("collaborative_mmcl\ndecoupling temperature", 0.1),
}


def panel_of(rows: pd.DataFrame) -> pd.Series:
    """The data set of each row, with MOSI's two inputs told apart."""
    timed = rows["variant"].fillna("").map(lambda variant: set(variant.split(SEPARATOR)) >= TIMED_OPTIONS)
    return rows["dataset"].map(DATA).where(~timed, TIMED)


def with_panels(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with a column ``data``, the panel of each, in the order of the panels."""
    named = rows.assign(data=panel_of(rows))
    return named.sort_values("data", key=lambda names: names.map(PANELS.index), kind="stable", ignore_index=True)


def line_name(method: str, variant: str) -> str:
    """A method with what it changes; the options of the data stand in the panel's title."""
    own = [part for part in _changes(variant) if part not in TIMED_OPTIONS]
    if method == "hrlf":
        return "hrlf, chosen weights" if set(own) >= CHOSEN_WEIGHTS else "hrlf, printed weights"
    return ", ".join([method, *own])


def main_rows(summary: pd.DataFrame, metric: str = "mae") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lines and floors of :func:`~companion.sweeps_panels.result_panels` from ``sweep_main_summary.csv``."""
    rows = summary[(summary["metric"] == metric) & (summary["n"] > 0)].assign(data=panel_of)
    runs = rows[~rows["constant"].astype(bool)]
    names = [line_name(m, v) for m, v in zip(runs["method"], runs["variant"].fillna(""), strict=True)]
    runs = _ordered(runs.assign(name=names), "data")
    fitted = rows[rows["constant"].astype(bool) & rows["method"].str.startswith("constant_")]
    best = fitted.groupby("dataset")["mean"].min() if metric == "mae" else fitted.groupby("dataset")["mean"].max()
    floors = [{"data": panel, "value": best[data]} for panel, data in _panels(runs) if data in best]
    columns = ["data", "name", "method", "n", "mean", "low", "high", "item_low", "item_high"]
    return runs[columns], pd.DataFrame(floors, columns=["data", "value"])


def control_rows(comparison: pd.DataFrame, control: str) -> pd.DataFrame:
    """Lines of :func:`~companion.sweeps_panels.difference_panels` from ``sweep_main_comparison.csv``."""
    rows = comparison[comparison["reference_method"] == control]
    names = [line_name(m, v) for m, v in zip(rows["method"], rows["variant"].fillna(""), strict=True)]
    return _ordered(rows.assign(panel=panel_of, name=names), "panel")[_COMPARED]


def ablation_rows(comparison: pd.DataFrame) -> pd.DataFrame:
    """Lines of :func:`~companion.sweeps_panels.difference_panels` from ``sweep_ablations_comparison.csv``."""
    variants, full = comparison["variant"].fillna(""), comparison["reference_variant"].fillna("")
    names = [
        _readable(SEPARATOR.join(part for part in _changes(own) if part not in _changes(base)))
        for own, base in zip(variants, full, strict=True)
    ]
    rows = comparison.assign(panel=comparison["method"], name=names)
    order = rows["panel"].map(ORDER.index)
    return rows.assign(_order=order).sort_values("_order", kind="stable")[_COMPARED].reset_index(drop=True)


_COMPARED = ["panel", "name", "n", "difference", "low", "high", "item_low", "item_high", "verdict"]


def sensitivity_rows(results: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Points of :func:`~companion.sweeps_panels.sensitivity_panels` from ``sweep_sensitivity.csv``."""
    runs = results[results["seed"].notna() & (results["metric"] == metric)]
    runs = runs.assign(variant=runs["variant"].fillna(""))
    parts = []
    for (method, dataset, key), (title, default) in SENSITIVITY.items():
        own = runs[(runs["method"] == method) & (runs["dataset"] == dataset)]
        own = own[(own["variant"] == "") | own["variant"].str.startswith(f"{key}=")]
        if own["variant"].nunique() < 2:
            continue
        value = own["variant"].str.removeprefix(f"{key}=").replace("", str(default)).astype(float)
        table = summarise_seeds(own.assign(parameter=value), by=["parameter", "split"])
        table = table.rename(columns={"parameter": "value"})
        parts.append(table.assign(panel=title, default=table["value"] == default))
    return pd.concat(parts, ignore_index=True)[["panel", "value", "split", "n", "mean", "low", "high", "default"]]


@figure("main_results", sources=[f"{RESULTS}/sweep_main_summary.csv"])
def main_results(summary: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Mean absolute error of every method on the three data sets."""
    rows, floors = main_rows(summary)
    return result_panels(rows, floors, "mean absolute error ↓"), rows


@figure("main_differences", sources=[f"{RESULTS}/sweep_main_comparison.csv"])
def main_differences(comparison: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What each method adds to plain fusion of the same input, paired over seeds and test items."""
    rows = control_rows(comparison, "early_fusion")
    return difference_panels(rows, "MAE, method − early_fusion"), rows


@figure("ablations", sources=[f"{RESULTS}/sweep_ablations_comparison.csv"])
def ablations(comparison: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What each switch of the four methods changes, paired over seeds and test items."""
    rows = ablation_rows(comparison)
    return difference_panels(rows, "MAE, switch − full", columns=2), rows


@figure("sensitivity", sources=[f"{RESULTS}/sweep_sensitivity.csv"])
def sensitivity(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The error against one hyper-parameter at a time, on validation and on test samples."""
    rows = sensitivity_rows(results)
    return sensitivity_panels(rows, "MAE ↓"), rows


def _readable(changes: str) -> str:
    """Switches without ``=True``, lists without their quotes and brackets."""
    return re.sub(r"[\[\]']", "", changes.replace("=True", ""))


def _changes(variant: str) -> list[str]:
    return variant.split(SEPARATOR) if variant else []


def _panels(rows: pd.DataFrame) -> Mapping[str, str]:
    """Panel and its data set, each once."""
    return dict(zip(rows["data"], rows["dataset"], strict=True)).items()


def _ordered(rows: pd.DataFrame, panel: str) -> pd.DataFrame:
    """Panels in the order of :data:`DATA`, the timed one last but beside MOSI; methods in the order of the tables."""
    panels = [DATA["mosi"], TIMED, DATA["mmmo"], DATA["synthetic"]]
    keys = rows.assign(_panel=rows[panel].map(panels.index), _method=[ORDER.index(method) for method in rows["method"]])
    return keys.sort_values(["_panel", "_method", "name"], kind="stable").reset_index(drop=True)
