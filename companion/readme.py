"""The tables of README.md between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->``, from ``data/results/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from companion import missing, names, sweeps
from companion.batch import sweep_files
from companion.shared import SWEEPS
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.results import is_constant, read_results
from mmsa_lib.experiments.summaries import read_comparison
from mmsa_lib.experiments.sweep_file import choices, read_sweep
from mmsa_lib.files import write_text
from mmsa_lib.paths import project_root


class Block(NamedTuple):
    """One table: its caption, its data, and per metric the column's name, factor and digits."""

    caption: str
    dataset: str
    columns: dict[str, tuple[str, int, int]]


SCORES = {"mae": ("MAE ↓", 1, 3), "corr": ("correlation ↑", 1, 3)}
BLOCKS = (
    Block("CMU-MOSI, standard fold", "mosi", {**SCORES, "acc2_neg_pos": ("Acc-2 neg/pos % ↑", 100, 1)}),
    Block("ICT-MMMO, training text missing", "mmmo", {**SCORES, "acc2": ("Acc-2 % ↑", 100, 1)}),
    Block("synthetic", "synthetic", {**SCORES, "acc2_neg_pos": ("Acc-2 neg/pos % ↑", 100, 1)}),
)
WEIGHTS = {names.CHOSEN: "weights chosen on validation data", names.PRINTED: "weights as printed"}
TRAINING = {missing.PLAIN: "complete samples", missing.AUGMENTED: "samples with gaps"}


def results(folder: Path) -> str:
    """The tables of complete samples."""
    return "\n\n".join(block_table(block, folder) for block in BLOCKS)


def block_table(block: Block, folder: Path) -> str:
    """One table: methods by text encoder, then what needs no training."""
    test = rows_of(block.dataset, folder)
    test = test[test["metric"].isin(block.columns)]
    runs = test[~is_constant(test)].assign(text=sweeps.encoder_of)
    runs = runs.assign(label=runs["label"].where(runs["label"].isin(WEIGHTS), ""))
    summary = summarise_seeds(runs, by=["text", "method", "label", "metric"])
    summary = summary.set_index(["text", "method", "label", "metric"])
    present = set(summary.index.droplevel("metric"))
    lines = []
    for text in sweeps.ENCODERS.values():
        for method in names.METHODS:
            for label in ("", *WEIGHTS):
                if (text, method, label) in present:
                    found = [
                        (summary.loc[(text, method, label, key)], *block.columns[key][1:]) for key in block.columns
                    ]
                    count, encoder = int(found[0][0]["n"]), text.removesuffix(" text")
                    lines.append([_called(method, label), encoder, count, *(_mean_interval(*cell) for cell in found)])
    linear = sweeps.RIDGE.get(block.dataset)
    ridge = pd.read_csv(folder / "ridge.csv").query("dataset == @block.dataset and input == @linear")
    plain = {f"ridge on pooled {linear}": ridge.set_index("metric")["value"]} if linear else {}
    for name in ("constant_median", "constant_neutral"):
        plain[f"`{name}`"] = test[test["method"] == name].drop_duplicates("metric").set_index("metric")["value"]
    for name, values in plain.items():
        lines.append([name, "–", "–", *(_number(values[key], *block.columns[key][1:]) for key in block.columns)])
    return markdown([block.caption, "text encoder", "runs", *(name for name, _, _ in block.columns.values())], lines)


def rows_of(dataset: str, folder: Path) -> pd.DataFrame:
    """Test results of the main sweep on the usual input, and of fine-tuned text where there are any."""
    rows = read_results(folder / "sweep_main.csv")
    rows = rows[names.data_of(rows) == dataset]
    tuned = folder / f"{dataset}_standard.csv"
    fine = read_results(tuned).query("split == 'test'") if tuned.is_file() else rows.iloc[:0]
    return pd.concat([rows, fine[sweeps.encoder_of(fine) != "frozen text"]], ignore_index=True)


def gaps(folder: Path) -> str:
    """Mean absolute error over shares of missing frames from 0 to .9, of runs that saw gaps in training and did not."""
    tables = {name: read_results(folder / f"missing_{name}.csv") for name in missing.SETS}
    summaries = missing.summaries_of(pd.concat(tables.values(), ignore_index=True))
    means = names.in_order(missing.means_of(summaries[summaries["protocol"] == "frames"]), "method")
    labels = summaries.drop_duplicates("name").set_index("name")["label"]
    cells = {
        (row.name, row.training, row.data): _mean_interval(row._asdict(), 1, 3) for row in means.itertuples(index=False)
    }
    lines = []
    for name, method in means.drop_duplicates("name")[["name", "method"]].itertuples(index=False):
        for training, words in TRAINING.items():
            found = [cells.get((name, training, names.DATA[key]), "–") for key in tables]
            if set(found) != {"–"}:
                lines.append([_called(method, labels[name]), words, *found])
    best = [missing.best_constants(rows)[names.DATA[key]] for key, rows in tables.items()]
    lines.append(["best constant, fitted to training labels", "–", *(f"{value:.3f}" for value in best)])
    return markdown(
        ["MAE ↓, mean over missing rates 0 to .9", "trained on", *(names.DATA[key] for key in tables)], lines
    )


def sweep_list(folder: Path) -> str:
    """What each sweep of the companion runs, how long it takes, and a number to expect."""
    expected = _expected(folder)
    lines = []
    for path in sweep_files(project_root() / SWEEPS):
        file, number = read_sweep(path), expected.get(path.stem, "–")
        minutes = "–" if file.minutes is None else f"{file.minutes:g}"
        lines.append([f"`{path.name}`", file.description, sum(1 for _ in choices(file)), minutes, number])
    return markdown(["`notebooks/sweeps/…`", "what", "runs", "minutes, about", "you should see"], lines)


def _expected(folder: Path) -> dict[str, str]:
    """A number per sweep, from the curated tables."""
    main = read_results(folder / "sweep_main.csv")
    one = main[(main["metric"] == "mae") & (main["dataset"] == "synthetic") & (main["method"] == "early_fusion")]
    found = {"main": f"`early_fusion` on synthetic: MAE {one['value'].mean():.3f}"}
    effects = read_comparison(folder / "sweep_ablations_comparison.csv")
    for method, part in effects.groupby("method"):
        part = part[part["verdict"] != sweeps.EXPLORATORY]
        shown = part["verdict"].isin(["better", "worse"]).sum()
        error = part["reference"].iloc[0]
        found[f"ablations_{method}"] = f"full method: MAE {error:.3f}; {shown} of {len(part)} switches differ"
    points = sweeps.sensitivity_rows(read_results(folder / "sweep_sensitivity.csv")).query("split == 'test'")
    found["sensitivity"] = f"MAE from {points['mean'].min():.3f} to {points['mean'].max():.3f}"
    rows = read_results(folder / "missing_synthetic.csv").query("method == 'early_fusion' and protocol == 'frames'")
    means = missing.means_of(missing.summaries_of(rows)).set_index("training")["mean"]
    found["missing"] = f"`early_fusion` with gaps: mean MAE {means[missing.AUGMENTED]:.3f}"
    return found


SECTIONS: dict[str, Callable[[Path], str]] = {"results": results, "missing": gaps, "sweeps": sweep_list}
"""What stands between the markers of each name."""


def section(text: str, name: str) -> tuple[str, str, str]:
    """``text`` before, between and after the markers of section ``name``."""
    head, rest = text.split(f"<!-- {name}:start -->\n")
    between, tail = rest.split(f"\n<!-- {name}:end -->")
    return f"{head}<!-- {name}:start -->\n", between, f"\n<!-- {name}:end -->{tail}"


def write(root: Path, check: bool = False) -> bool:
    """Write the tables of README.md anew, or only compare; whether they were what the data give."""
    readme = root / "README.md"
    text = made = readme.read_text(encoding="utf-8")
    for name, build in SECTIONS.items():
        head, _, tail = section(made, name)
        made = head + build(root / "data" / "results") + tail
    if not check:
        write_text(readme, made)
    return made == text


def _called(method: str, label: str) -> str:
    return f"`{method}`, {WEIGHTS[label]}" if label in WEIGHTS else f"`{method}`"


def _mean_interval(row, factor: int, digits: int) -> str:
    """A mean with its interval; a dash where it is undefined, such as the correlation of a constant."""
    mean, low, high = (_number(row[name], factor, digits) for name in ("mean", "low", "high"))
    return mean if pd.isna(row["mean"]) else f"{mean} [{low}, {high}]"


def _number(value: float, factor: int, digits: int) -> str:
    return "–" if pd.isna(value) else f"{factor * value:.{digits}f}"


def markdown(head: list[str], lines: list[list]) -> str:
    """A table of Markdown."""
    first, *rest = [f"| {' | '.join(map(str, row))} |" for row in (head, *lines)]
    return "\n".join([first, "|" + "---|" * len(head), *rest])
