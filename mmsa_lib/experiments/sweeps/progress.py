"""How far a sweep is, and about how long it still takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from mmsa_lib.experiments.sweeps.executors import Outcome
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import FINISHED, State


class Progress:
    """One line per finished point, with the time that is left.

    Args:
        points: what is going to be executed.
        workers: how many at a time; may be set anew while the sweep goes on.
        report: is called with each line.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        points: Sequence[Point],
        workers: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting = {point.id: point.group for point in points}
        self.total = len(points)
        self.workers = workers
        self.report = report
        self.clock = clock
        self.started = clock()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, outcome: Outcome) -> None:
        """Count ``outcome`` and say so."""
        group = self.waiting.pop(outcome.point.id, outcome.point.group)
        if outcome.executed and outcome.state.state == FINISHED:
            self.seconds[group].append(outcome.state.seconds)
        count = self.total - len(self.waiting)
        left = self.seconds_left()
        rest = f"   about {duration(left)} left" if self.waiting and left is not None else ""
        self.report(f"[{count}/{self.total}] {_word(outcome)} {outcome.point.label}{rest}")
        if outcome.state.state != FINISHED:
            self.report(f"        {describe(outcome.state)}")

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end: points like one that was executed take as long, others the mean."""
        every = [value for values in self.seconds.values() for value in values]
        if not every:
            return None
        mean = sum(every) / len(every)
        expected = [
            sum(self.seconds[group]) / len(self.seconds[group]) if self.seconds.get(group) else mean
            for group in self.waiting.values()
        ]
        longest = max(expected, default=0.0)
        return max(sum(expected) / max(1, self.workers), longest)


def duration(seconds: float) -> str:
    """``seconds`` as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def describe(state: State) -> str:
    """A failure in one line: the cell and what happened in it."""
    place = f"cell {state.cell} (`{state.source}`): " if state.cell is not None else ""
    return f"{place}{state.error}{': ' if state.message else ''}{state.message}"


def _word(outcome: Outcome) -> str:
    if outcome.state.state != FINISHED:
        return "FAILED"
    return f"ok {outcome.state.seconds:6.1f} s" if outcome.executed else "ok  by another process"
