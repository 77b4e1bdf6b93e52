"""Scores of run folders on resamples of their items: the only reader of predictions behind tables, as it is slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.bootstrap import RESAMPLES, RunScores, score_resamples
from mmsa_lib.experiments import files
from mmsa_lib.experiments.files import Cell, Predictions

TOLERANCE = 1e-4
"""How far a metric of stored predictions may be from the table: curated tables are rounded to 4 digits and more."""


@dataclass(frozen=True, eq=False)
class ScoredRuns:
    """Runs of one method and variant, scored on resamples of one set of items.

    Attributes:
        scores: their metrics, by seed.
        run: one of the runs; items: what all of them predicted.
    """

    scores: RunScores
    run: str
    items: Predictions


class ItemScores:
    """Reads predictions of the runs in a folder, checks them, and scores them on resamples of their items.

    Args:
        folder: the folder of runs, or one run.
        resamples: how many; seed: of the draws.
    """

    def __init__(self, folder: Path | str, resamples: int = RESAMPLES, seed: int = 0):
        self.folder = Path(folder)
        self.resamples, self.seed = resamples, seed
        self._tasks: dict[str, Task] = {}

    def missing(self, run_ids: Sequence[str]) -> list[str]:
        """Which of these runs have no predictions here."""
        return [run for run in run_ids if not (self._run(run) / files.PREDICTIONS).is_file()]

    def score(self, runs: Mapping[int, str], cell: Cell, stored: Mapping[str, Mapping[int, float]]) -> ScoredRuns:
        """Score runs that predicted the same items.

        Args:
            runs: seed to run.
            cell: protocol, level and split.
            stored: metric to seed to value, as tables have it; the predictions must agree.

        Raises:
            DataError: predictions are missing or damaged, belong to other items, or disagree with ``stored``.
        """
        protocol, level, split = cell
        read = {
            seed: files.read_predictions(self._run(run) / files.PREDICTIONS, split, protocol, level)
            for seed, run in runs.items()
        }
        first = next(iter(read))
        for seed, own in read.items():
            check_same_items((runs[first], read[first]), (runs[seed], own))
        items = read[first]
        found = score_resamples(
            {seed: own.predictions for seed, own in read.items()}, items.labels, _groups(items), list(stored),
            resamples=self.resamples, seed=self.seed, task=self._task(runs[first]),
        )  # fmt: skip
        for key, values in stored.items():
            for position, seed in enumerate(found.runs):
                if not np.isclose(found.values[key][position], values[seed], rtol=0, atol=TOLERANCE, equal_nan=True):
                    raise DataError(
                        f"run {runs[seed]}: {key} of its predictions is {found.values[key][position]:.6g}, its table "
                        f"says {values[seed]:.6g}; repeat the run"
                    )
        return ScoredRuns(found, runs[first], items)

    def _run(self, run: str) -> Path:
        return self.folder if self.folder.name == run else self.folder / run

    def _task(self, run: str) -> Task:
        if run not in self._tasks:
            file = self._run(run) / files.CONFIG
            try:
                stored = files.read_json(file, resolved=dict)["resolved"]["task"]
                self._tasks[run] = Task(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
            except (KeyError, TypeError) as error:
                raise DataError(f"{file} does not say what was predicted ({error}); repeat the run") from error
        return self._tasks[run]


def check_same_items(first: tuple[str, Predictions], second: tuple[str, Predictions]) -> None:
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


def _groups(items: Predictions) -> tuple[str, ...] | None:
    """The videos (or speakers, …) that items were cut from; items by themselves where the data know none."""
    return items.groups if len(items.groups) == len(items.ids) and len(set(items.groups)) > 1 else None
