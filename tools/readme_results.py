"""Write the result tables of README.md from data/results/, between the two markers; ``--check`` compares only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.results import read_results
from mmsa_lib.figures.catalogue import encoder_of
from mmsa_lib.files import write_text

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results:start -->", "<!-- results:end -->"
METHODS = [
    "text_only",
    "early_fusion",
    "late_fusion",
    "self_mm",
    "modal_alignment",
    "contrastive_mmcl",
    "collaborative_mmcl",
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


def main() -> int:
    """Write README.md, or compare; 1 if the committed table is not what the data give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if README.md differs")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(START)
    _, tail = rest.split(END)
    folder = ROOT / "data" / "results"
    blocks = "\n\n".join(table(block, folder) for block in BLOCKS)
    made = f"{head}{START}\n{blocks}\n{END}{tail}"
    if args.check:
        return int(made != text)
    write_text(readme, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
