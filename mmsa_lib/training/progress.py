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

    def start(self, phase: str, done: int, total: int) -> None:
        """A phase of at most ``total`` epochs begins; ``done`` of them are already finished."""
        hidden, title = self.show != "auto" or not sys.stderr.isatty(), f"{self.title} {phase}"
        self.bar = tqdm(total=total, initial=done, desc=title, unit="epoch", file=sys.stderr, disable=hidden)
        self.phase = phase

    def epoch(self, epoch: int, train: float, valid: float, best: bool) -> None:
        """An epoch ended with these losses; ``best`` says whether it is the best one so far."""
        text = f"train {train:.4f} valid {valid:.4f}{' *' if best else ''}"
        if self.bar.disable:
            self.note(f"{self.phase} {epoch}/{self.bar.total} {text}")
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()
