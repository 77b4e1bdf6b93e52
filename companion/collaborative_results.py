"""Curated results of ``collaborative_mmcl``: its tables, and what was looked at inside its trained runs.

``python -m companion.collaborative_results RUNS`` reads the folders ``synthetic``, ``ablations``, ``mmmo``,
``mosi`` and ``emotions`` of runs (trained with ``--oracle``) below ``RUNS`` and writes ``collaborative_<name>.csv``
into ``data/results/``. Folders that are not there yet are left out. MOSI and ICT-MMMO must be built.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from companion.curation import curation_command
from companion.decoupling import entropy_bounds, method_decoupling, word_by_word
from companion.oracle import curate_oracle
from companion.policies import critic_skill
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.files import VARIANT_SEPARATOR
from mmsa_lib.experiments.results import collect, curate, read_results
from mmsa_lib.experiments.runs import RunResult, find_run

METHOD = "collaborative_mmcl"
TABLES = ("synthetic", "ablations", "mmmo", "mosi", "emotions")
BASELINES = {"synthetic": "contrastive_synthetic.csv", "mmmo": "contrastive_mmmo.csv"}
"""Curated tables whose baselines are runs on the same data."""

SWITCHES = ("", "decoupling=reference")
"""The two named variants."""

DIGITS = 9
"""Digits after the point: how far nearly uniform weights are from uniform shows in the sixth."""

CURVES = ("raw/critic", "raw/actor", "policy/reward", "policy/gate")
UTTERANCE = "lXPQBPVc5Cw_21"
"""A test segment of MOSI with ten words: what is drawn word by word."""


def results(folder: Path, name: str, target: Path) -> pd.DataFrame:
    """Test and validation metrics of the runs in ``folder``, with the baselines that are curated for the same data.

    Args:
        folder: a folder of runs.
        name: one of :data:`TABLES`.
        target: the folder of curated tables.
    """
    found = collect(folder)
    if name in BASELINES:
        others = read_results(target / BASELINES[name])
        others = others[~others["method"].isin(["contrastive_mmcl", METHOD]) & (others["run_id"] != "")]
        found = pd.concat([found, others], ignore_index=True)
    return curate(found, target / f"collaborative_{name}.csv", split="test")


def named_variants(folder: Path) -> list[tuple[str, RunResult]]:
    """Finished runs of the two named variants in ``folder``: ``""`` or ``"decoupling=reference"``, and the run.

    Options of the data, which all runs of a folder share, don't count as a change.
    """
    rows = collect(folder)
    rows = rows[(rows["method"] == METHOD)].drop_duplicates("run_id")[["run_id", "variant"]]
    changes = {run_id: set(variant.split(VARIANT_SEPARATOR)) - {""} for run_id, variant in rows.to_numpy()}
    shared = set.intersection(*changes.values()) if changes else set()
    shared -= {"decoupling=reference"}
    named = [(VARIANT_SEPARATOR.join(sorted(changed - shared)), run_id) for run_id, changed in changes.items()]
    return [(variant, find_run(run_id, folder)) for variant, run_id in named if variant in SWITCHES]


def curves(folder: Path) -> pd.DataFrame:
    """What actor and critic learn, per epoch: columns run_id, variant, seed, epoch, name, value."""
    parts = []
    for variant, run in named_variants(folder):
        history = run.history
        rows = history[(history["split"] == "train") & history["name"].isin(CURVES)][["epoch", "name", "value"]]
        parts.append(_of_run(rows, variant, run))
    return pd.concat(parts, ignore_index=True)


def weights(folder: Path) -> pd.DataFrame:
    """:func:`~companion.decoupling.method_decoupling` on the test samples of each trained run.

    Adds ``steps`` (positions that compete: the longest training sample, or the mean number of words) and ``bound``: the
    smallest relative entropy that the weights could have at that number, whatever the parameters.
    """
    parts = []
    for variant, run in named_variants(folder):
        test = run.load_data()["test"]
        method = run.load_method(test)
        table = method_decoupling(method, test.data)
        lengths = test.lengths(test.modalities[0])
        words = lengths.clamp_max(method.config.longest or int(lengths.max())).double().mean()
        steps = int(method.steps) if method.config.decoupling == "reference" else round(words.item())
        bounds = entropy_bounds(steps, method.config.decoupling, method.config.temperature)
        table = table.assign(steps=steps, bound=table["part"].map(bounds), dataset=test.name)
        parts.append(_of_run(table, variant, run))
    return pd.concat(parts, ignore_index=True)


def critics(folder: Path) -> pd.DataFrame:
    """:func:`~companion.policies.critic_skill` on the test samples of each trained run."""
    parts = []
    for variant, run in named_variants(folder):
        test = run.load_data()["test"]
        skill = critic_skill(run.load_method(test), test)
        parts.append(_of_run(pd.DataFrame([{"dataset": test.name, "task": test.task.kind, **skill}]), variant, run))
    return pd.concat(parts, ignore_index=True)


def utterance(folder: Path, sample: str = UTTERANCE) -> pd.DataFrame:
    """Similarity, weights and gates of one test sample in the first trained run of each variant, word by word.

    Returns:
        The columns of :func:`~companion.decoupling.word_by_word`, and run_id, variant, seed, id, label and
        word (of the row).

    Raises:
        DataError: the sample is not in the test split, or its words don't fit its frames.
    """
    first: dict[str, RunResult] = {}
    for variant, run in sorted(named_variants(folder), key=lambda pair: pair[1].config.seed):
        first.setdefault(variant, run)
    return pd.concat([_looked_at(variant, run, sample) for variant, run in sorted(first.items())], ignore_index=True)


def _looked_at(variant: str, run: RunResult, sample: str) -> pd.DataFrame:
    test = run.load_data()["test"]
    table = word_by_word(run.load_method(test), test, sample)
    row = test.ids.index(sample)
    words = test.transcripts[row].split()
    if len(words) != int(table["row"].max()) + 1:
        raise DataError(f"{sample!r} has {len(words)} words and {int(table['row'].max()) + 1} frames; take another one")
    label = round(float(test.labels[row]), 2)
    return _of_run(table.assign(id=sample, label=label, word=[words[i] for i in table["row"]]), variant, run)


def _of_run(table: pd.DataFrame, variant: str, run: RunResult) -> pd.DataFrame:
    keys = {"run_id": run.run_id, "variant": variant, "seed": run.config.seed}
    return table.assign(**keys)[[*keys, *table.columns]]


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has the folders for; their names."""
    there = [name for name in TABLES if any((runs / name).glob(f"*/{files.DONE}"))]
    if not there:
        raise DataError(f"{runs} has no finished run in any of {', '.join(TABLES)}")
    for name in there:
        results(runs / name, name, target)
    main = [name for name in there if name != "ablations"]
    tables = {"weights": pd.concat([weights(runs / name) for name in main if name != "emotions"], ignore_index=True)}
    tables["critics"] = pd.concat([critics(runs / name) for name in main], ignore_index=True)
    if "synthetic" in there:
        tables["curves"] = curves(runs / "synthetic")
    if "mosi" in there:
        tables["utterance"] = utterance(runs / "mosi")
    for name, table in tables.items():
        numbers = {column: table[column].round(DIGITS) for column in table.select_dtypes("float")}
        ordered = table.assign(**numbers).sort_values(["variant", "seed"], kind="stable", ignore_index=True)
        files.write_table(target / f"collaborative_{name}.csv", ordered)
    curate_oracle([runs / name for name in main], target / "collaborative_oracle.csv")
    return [*there, *tables, "oracle"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; 2 where runs or data are missing."""
    return curation_command("collaborative", write, "collaborative_mmcl", arguments)


if __name__ == "__main__":
    sys.exit(main())
