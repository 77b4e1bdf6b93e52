"""Write the result tables of README.md from data/results/, between their markers; ``--check`` compares only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mmsa_lib.evaluation.missing_effects import AUGMENTED, OWN_RECIPE, PLAIN, with_training
from mmsa_lib.evaluation.missing_summary import floors, over_seeds, run_summaries
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.results import read_results
from mmsa_lib.figures.catalogue import encoder_of
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
]

MISSING_SETS = {"synthetic": "synthetic", "mosi": "CMU-MOSI", "mmmo": "ICT-MMMO"}
TRAINING = {PLAIN: "complete samples", AUGMENTED: "samples with gaps"}


def results(folder: Path) -> str:
    """The tables of complete samples."""
    return "\n\n".join(table(block, folder) for block in BLOCKS)


def table(block: Block, folder: Path) -> str:
    """One table as Markdown: methods by text encoder, then what needs no training."""
    test = read_results(folder / f"{block.dataset}_standard.csv").query("split == 'test'")
    test = test[test["metric"].isin(block.columns)].copy()
    runs = test[test["run_id"] != ""].copy()
    runs["text"] = encoder_of(runs["variant"])
    summary = summarise_seeds(runs, by=["text", "method", "metric"], value="value")
    summary = summary.set_index(["text", "method", "metric"])
    present = set(summary.index.droplevel("metric"))
    names = [name for name, _, _ in block.columns.values()]
    lines = [f"| {block.caption} | text encoder | runs | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for text in ("fine-tuned text", "frozen text"):
        for method in (name for name in METHODS if (text, name) in present):
            rows = [(summary.loc[(text, method, key)], *block.columns[key][1:]) for key in block.columns]
            cells = [f"{_number(r['mean'], *s)} [{_number(r['low'], *s)}, {_number(r['high'], *s)}]" for r, *s in rows]
            lines.append(
                f"| `{method}` | {text.removesuffix(' text')} | {int(rows[0][0]['n'])} | {' | '.join(cells)} |"
            )
    ridge = pd.read_csv(folder / "ridge.csv").query("dataset == @block.dataset and input == @block.ridge_input")
    plain = {f"ridge on pooled {block.ridge_input}": ridge.set_index("metric")["value"]}
    for name in ("constant_median", "constant_neutral"):
        plain[f"`{name}`"] = test[test["method"] == name].set_index("metric")["value"]
    for label, values in plain.items():
        cells = [_number(values[key], *block.columns[key][1:]) for key in block.columns]
        lines.append(f"| {label} | – | – | {' | '.join(cells)} |")
    return "\n".join(lines)


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


SECTIONS: dict[str, Callable[[Path], str]] = {"results": results, "missing": missing}
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
