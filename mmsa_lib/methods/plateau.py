"""Learning rates that fall where the validation loss stands still, one scheduler per optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Plateaus:
    """``ReduceLROnPlateau`` for several optimisers, whose state can go into a checkpoint.

    Args:
        factor: by which a rate falls.
        patience: per optimiser, epochs without a better value before that.
    """

    def __init__(self, factor: float, patience: Mapping[str, int]):
        self.factor, self.patience = factor, dict(patience)
        self._schedulers: dict[str, ReduceLROnPlateau] = {}
        self._loaded: dict[str, Tensor] = {}

    def step(self, value: float, optimizers: Mapping[str, Optimizer]) -> None:
        """Take note of a validation loss."""
        for name, optimizer in optimizers.items():
            if name not in self._schedulers:
                self._schedulers[name] = self._scheduler(name, optimizer)
            self._schedulers[name].step(value)

    def state(self) -> dict[str, Tensor]:
        """Per optimiser the best value, the epochs since, and the epochs so far; rates are the optimisers' own."""
        return {
            name: torch.tensor([s.best, s.num_bad_epochs, s.last_epoch], dtype=torch.float64)
            for name, s in self._schedulers.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._schedulers, self._loaded = {}, dict(state)

    def _scheduler(self, name: str, optimizer: Optimizer) -> ReduceLROnPlateau:
        scheduler = ReduceLROnPlateau(optimizer, factor=self.factor, patience=self.patience[name])
        if name in self._loaded:
            best, bad, epoch = self._loaded[name].tolist()
            scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch = best, int(bad), int(epoch)
        return scheduler
