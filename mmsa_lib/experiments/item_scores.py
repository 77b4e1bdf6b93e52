"""Scores of run folders on resamples of their items: the only reader of predictions behind tables, as it is slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.bootstrap import RESAMPLES, RunScores, score_resamples
from mmsa_lib.experiments import files

TOLERANCE = 1e-4
"""How far a metric of stored predictions may be from the table: curated tables are rounded to 4 digits and more."""


@dataclass(frozen=True, eq=False)
class ScoredRuns:
    """Runs of one configuration, scored on resamples of one set of items.

    Attributes:
        scores: their metrics, by seed.
        run: one of the runs; items: what all of them predicted.
    """

    scores: RunScores
    run: str
    items: files.Predictions


def score_runs(
    folders: Mapping[int, Path], cell: Sequence[str], stored: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0
) -> ScoredRuns:
    """Runs that predicted the same items, scored on resamples of these.

    Args:
        folders: seed to run folder.
        cell: protocol, level and split.
        stored: metrics by seeds, as tables have them; the predictions must agree.
        resamples: how many; seed: of the draws.

    Raises:
        DataError: predictions are missing or damaged, belong to other items, or disagree with ``stored``.
    """
    from mmsa_lib.data.task import Task

    protocol, level, split = cell
    read = {
        run: files.read_predictions(folder / files.PREDICTIONS, split, protocol, level)
        for run, folder in folders.items()
    }
    first, items = next(iter(read.items()))
    for run, own in read.items():
        check_same_items((folders[first].name, items), (folders[run].name, own))
    # The videos (or speakers, …) that items were cut from; items by themselves where the data know none.
    groups = items.groups if len(items.groups) == len(items.ids) and len(set(items.groups)) > 1 else None
    predictions = {run: own.predictions for run, own in read.items()}
    file = folders[first] / files.CONFIG
    try:
        known = files.read_json(file, resolved=dict)["resolved"]["task"]
        task = Task(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} does not say what was predicted ({error}); repeat the run") from error
    scores = score_resamples(
        predictions, items.labels, groups, list(stored.index), resamples=resamples, seed=seed, task=task,
        clean=items.clean,
    )  # fmt: skip
    for key, said in stored.iterrows():
        for run, value in zip(scores.runs, scores.values[key], strict=True):  # noqa: PD011 (no pandas)
            if not np.isclose(value, said[run], rtol=0, atol=TOLERANCE, equal_nan=True):
                raise DataError(
                    f"run {folders[run].name}: {key} of its predictions is {value:.6g}, its table says "
                    f"{said[run]:.6g}; repeat the run"
                )
    return ScoredRuns(scores, folders[first].name, items)


def check_same_items(first: tuple[str, files.Predictions], second: tuple[str, files.Predictions]) -> None:
    """Refuse two runs that were tested on different items.

    Raises:
        DataError: names both runs and what differs.
    """
    (run, own), (other, theirs) = first, second
    if own is theirs:
        return
    if own.ids != theirs.ids:
        alien = len(set(own.ids) ^ set(theirs.ids))
        what = f"{alien} items are in one of them only" if alien else "their order differs"
        raise DataError(f"runs {run} and {other} were tested on different items ({what}); choose runs of the same data")
    for name, a, b in (("labels", own.labels, theirs.labels), ("groups", own.groups, theirs.groups)):
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            raise DataError(
                f"runs {run} and {other} have the same test items with different {name}; choose runs of the same data"
            )
