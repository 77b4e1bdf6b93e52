"""Write the result tables of README.md from data/results/, between their markers; ``--check`` compares only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from companion.catalogue import encoder_of
from companion.sweeps_catalogue import TIMED, panel_of, sensitivity_rows
from mmsa_lib.evaluation.missing_effects import AUGMENTED, OWN_RECIPE, PLAIN, with_training
from mmsa_lib.evaluation.missing_summary import floors, over_seeds, run_summaries
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.comparisons import read_comparison
from mmsa_lib.experiments.results import read_results
from mmsa_lib.experiments.sweeps.definition import choices, read_sweep
from mmsa_lib.files import write_text

ROOT = Path(__file__).resolve().parent.parent
METHODS = [
    "text_only",
    "early_fusion",
    "late_fusion",
    "self_mm",
    "modal_alignment",
    "contrastive_mmcl",
    "collaborative_mmcl",
    "hrlf",
]


ROWS = {name: f"`{name}`" for name in METHODS} | {
    "hrlf": "`hrlf`, weights chosen on validation data",
    "hrlf_printed": "`hrlf`, weights as printed",
}
"""Row of a table to what it is called."""


class Block(NamedTuple):
    """One table: its caption, its data, and per metric the column's name, factor and digits."""

    caption: str
    dataset: str
    ridge_input: str
    columns: dict[str, tuple[str, int, int]]


SCORES = {"mae": ("MAE ↓", 1, 3), "corr": ("correlation ↑", 1, 3)}
BLOCKS = [
    Block("CMU-MOSI, standard fold", "mosi", "text", {**SCORES, "acc2_neg_pos": ("Acc-2 neg/pos % ↑", 100, 1)}),
    Block("ICT-MMMO, training text missing", "mmmo", "audio + vision", {**SCORES, "acc2": ("Acc-2 % ↑", 100, 1)}),
    Block("synthetic", "synthetic", "", {**SCORES, "acc2_neg_pos": ("Acc-2 neg/pos % ↑", 100, 1)}),
]

MISSING_SETS = {"synthetic": "synthetic", "mosi": "CMU-MOSI", "mmmo": "ICT-MMMO"}
TRAINING = {PLAIN: "complete samples", AUGMENTED: "samples with gaps"}


def results(folder: Path) -> str:
    """The tables of complete samples."""
    return "\n\n".join(table(block, folder) for block in BLOCKS)


def table(block: Block, folder: Path) -> str:
    """One table as Markdown: methods by text encoder, then what needs no training."""
    test = rows_of(block.dataset, folder)
    test = test[test["metric"].isin(block.columns)].copy()
    runs = test[test["run_id"] != ""].copy()
    runs["text"] = encoder_of(runs["variant"])
    summary = summarise_seeds(runs, by=["text", "method", "metric"], value="value")
    summary = summary.set_index(["text", "method", "metric"])
    present = set(summary.index.droplevel("metric"))
    names = [name for name, _, _ in block.columns.values()]
    lines = [f"| {block.caption} | text encoder | runs | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for text in ("fine-tuned text", "frozen text"):
        for method in (name for name in ROWS if (text, name) in present):
            rows = [(summary.loc[(text, method, key)], *block.columns[key][1:]) for key in block.columns]
            cells = [_mean_interval(*row) for row in rows]
            lines.append(
                f"| {ROWS[method]} | {text.removesuffix(' text')} | {int(rows[0][0]['n'])} | {' | '.join(cells)} |"
            )
    ridge = pd.read_csv(folder / "ridge.csv").query("dataset == @block.dataset and input == @block.ridge_input")
    plain = {f"ridge on pooled {block.ridge_input}": ridge.set_index("metric")["value"]} if len(ridge) else {}
    for name in ("constant_median", "constant_neutral"):
        plain[f"`{name}`"] = test[test["method"] == name].set_index("metric")["value"]
    for label, values in plain.items():
        cells = [_number(values[key], *block.columns[key][1:]) for key in block.columns]
        lines.append(f"| {label} | – | – | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(dataset: str, folder: Path) -> pd.DataFrame:
    """Test results of the main sweep on the usual input, and of fine-tuned text where there are any."""
    rows = read_results(folder / "sweep_main.csv")
    rows = rows[(rows["dataset"] == dataset) & (panel_of(rows) != TIMED) & ~rows["method"].eq("hrlf")]
    hrlf = read_results(folder / "sweep_main.csv").query("dataset == @dataset and method == 'hrlf'")
    printed = ~hrlf["variant"].str.contains("lambda_frf")
    hrlf = hrlf.assign(method=hrlf["method"].where(~printed, "hrlf_printed"))
    tuned = folder / f"{dataset}_standard.csv"
    fine = read_results(tuned).query("split == 'test'") if tuned.is_file() else rows.iloc[:0]
    fine = fine[fine["variant"].str.contains("text_encoder=bert")]
    return pd.concat([rows, hrlf, fine], ignore_index=True)


def _mean_interval(row: pd.Series, factor: int, digits: int) -> str:
    """A mean with its interval; a dash where it is undefined, such as the correlation of a constant."""
    mean, low, high = (_number(row[name], factor, digits) for name in ("mean", "low", "high"))
    return mean if pd.isna(row["mean"]) else f"{mean} [{low}, {high}]"


def _number(value: float, factor: int, digits: int) -> str:
    return "–" if pd.isna(value) else f"{factor * value:.{digits}f}"


def missing(folder: Path) -> str:
    """Mean absolute error over shares of missing frames from 0 to .9, of runs that saw gaps in training and did not."""
    tables = {name: read_results(folder / f"missing_{name}.csv") for name in MISSING_SETS}
    summaries = {name: _areas(frame) for name, frame in tables.items()}
    lines = [
        f"| MAE ↓, mean over missing rates 0 to .9 | trained on | {' | '.join(MISSING_SETS.values())} |",
        "|---|---|" + "---|" * len(MISSING_SETS),
    ]
    rows = sorted({key for areas in summaries.values() for key in areas.index}, key=_place)
    for row in rows:
        cells = [_interval(areas, row) for areas in summaries.values()]
        lines.append(f"| {_row_name(*row)} | {' | '.join(cells)} |")
    best = [floors(frame, "mae").groupby("baseline")["value"].first().min() for frame in tables.values()]
    lines.append(f"| best constant, fitted to training labels | – | {' | '.join(f'{value:.3f}' for value in best)} |")
    return "\n".join(lines)


def _areas(frame: pd.DataFrame) -> pd.DataFrame:
    """By method, changes and training the area under the error over rates of missing frames, divided by their range."""
    runs = with_training(frame[(frame["run_id"] != "") & (frame["protocol"] == "frames") & (frame["metric"] == "mae")])
    areas = over_seeds(run_summaries(runs, ["frames"]))
    kinds = runs.drop_duplicates(["method", "variant"])[["method", "variant", "changes", "training"]]
    areas = areas[areas["summary"] == "auilc_normalised"].merge(kinds, on=["method", "variant"])
    return areas.set_index(["method", "changes", "training"])


def _place(row: tuple[str, str, str]) -> tuple[int, bool, str, int]:
    method, changes, training = row
    return METHODS.index(method), not changes, changes, list(TRAINING).index(training)


def _row_name(method: str, changes: str, training: str) -> str:
    if method in OWN_RECIPE:
        return f"`{method}`, {f'`{changes}`' if changes else 'weights as printed'} | {TRAINING[training]}"
    return f"`{method}` | {TRAINING[training]}"


def _interval(areas: pd.DataFrame, key: tuple[str, str, str]) -> str:
    if key not in areas.index:
        return "–"
    row = areas.loc[key]
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


SWEEPS = {
    "main": ("the main comparison on three data sets", 35),
    "ablations_contrastive_mmcl": ("17 variants of `contrastive_mmcl`", 16),
    "ablations_collaborative_mmcl": ("13 variants of `collaborative_mmcl`", 18),
    "ablations_modal_alignment": ("18 variants of `modal_alignment`", 5),
    "ablations_hrlf": ("11 variants of `hrlf`", 40),
    "sensitivity": ("temperatures, γ, weight of the covariance loss", 18),
    "missing": ("training with and without gaps, three protocols", 120),
}
"""Sweep to what it runs and about how many minutes it takes on two cores."""


def sweeps(folder: Path) -> str:
    """What each sweep of the companion runs, how long it takes, and a number to expect."""
    expected = _expected(folder)
    lines = ["| `notebooks/sweeps/…` | what | runs | minutes, about | you should see |", "|---|---|---|---|---|"]
    for name, (what, minutes) in SWEEPS.items():
        file = read_sweep(ROOT / "notebooks" / "sweeps" / f"{name}.yaml")
        count = sum(1 for _ in choices(file))
        lines.append(f"| `{name}.yaml` | {what} | {count} | {minutes} | {expected.get(name, '–')} |")
    return "\n".join(lines)


def _expected(folder: Path) -> dict[str, str]:
    """A number per sweep, from the curated tables."""
    main = read_results(folder / "sweep_main.csv")
    errors = main[(main["metric"] == "mae") & (main["dataset"] == "synthetic") & (main["run_id"] != "")]
    one = errors[errors["method"] == "early_fusion"]["value"].mean()
    found = {"main": f"`early_fusion` on synthetic: MAE {one:.3f}"}
    effects = read_comparison(folder / "sweep_ablations_comparison.csv")
    for method, part in effects.groupby("method"):
        shown = part["verdict"].isin(["better", "worse"]).sum()
        error = part["reference"].iloc[0]
        found[f"ablations_{method}"] = f"full method: MAE {error:.3f}; {shown} of {len(part)} switches differ"
    points = sensitivity_rows(read_results(folder / "sweep_sensitivity.csv")).query("split == 'test'")
    found["sensitivity"] = f"MAE from {points['mean'].min():.3f} to {points['mean'].max():.3f}"
    gaps = read_results(folder / "missing_synthetic.csv")
    gaps = _areas(gaps[gaps["method"] == "early_fusion"]).loc[("early_fusion", "", AUGMENTED)]
    found["missing"] = f"`early_fusion` with gaps: mean MAE {gaps['mean']:.3f}"
    return found


SECTIONS: dict[str, Callable[[Path], str]] = {"results": results, "missing": missing, "sweeps": sweeps}
"""What stands between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->``."""


def section(text: str, name: str) -> tuple[str, str, str]:
    """``text`` before, between and after the markers of section ``name``."""
    head, rest = text.split(f"<!-- {name}:start -->\n")
    between, tail = rest.split(f"\n<!-- {name}:end -->")
    return f"{head}<!-- {name}:start -->\n", between, f"\n<!-- {name}:end -->{tail}"


def main() -> int:
    """Write README.md, or compare; 1 if a committed table is not what the data give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if README.md differs")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    text = made = readme.read_text(encoding="utf-8")
    for name, build in SECTIONS.items():
        head, _, tail = section(made, name)
        made = head + build(ROOT / "data" / "results") + tail
    if args.check:
        return int(made != text)
    write_text(readme, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
