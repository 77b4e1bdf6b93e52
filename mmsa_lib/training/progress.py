"""What a training run says while it runs: a bar on a terminal, one line per epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
from typing import Literal

from tqdm import tqdm

Show = Literal["auto", "line", "none"]


class Reporter:
    """Reports epochs on stderr.

    Args:
        show: ``"auto"`` draws a bar on an interactive terminal and writes lines elsewhere; ``"line"`` always writes
            lines; ``"none"`` is silent.
        title: what is trained.
    """

    def __init__(self, show: Show, title: str):
        self.show, self.title = show, title

    def note(self, text: str) -> None:
        """Say one sentence."""
        if self.show != "none":
            tqdm.write(f"{self.title}: {text}", file=sys.stderr)

    def start(self, phase: str, epoch: int, max_epochs: int | None, steps: int, max_steps: int | None) -> None:
        """A phase begins, of which so many epochs and steps are already finished; a limit in steps is the one shown."""
        hidden, title = self.show != "auto" or not sys.stderr.isatty(), f"{self.title} {phase}"
        self.phase, self.in_steps = phase, max_steps is not None
        unit, done, total = ("step", steps, max_steps) if self.in_steps else ("epoch", epoch, max_epochs)
        self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, file=sys.stderr, disable=hidden)

    def epoch(self, epoch: int, steps: int, train: float, valid: float, best: bool) -> None:
        """An epoch ended with these losses (NaN without validation); ``best``: it is the best one so far."""
        text = f"train {train:.4f}" + (f" valid {valid:.4f}{' *' if best else ''}" if valid == valid else "")
        if self.bar.disable:
            done = f"{epoch}: step {steps}" if self.in_steps else epoch
            self.note(f"{self.phase} {done}/{self.bar.total} {text}")
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update((steps if self.in_steps else epoch) - self.bar.n)
