"""Several micro-batches per optimiser step, as Self-MM trains [C]."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch.optim import Optimizer

from mmsa_lib.data.batch import Batch
from mmsa_lib.methods.base import Method, MethodConfig, Output, finite_log, sum_terms
from mmsa_lib.methods.evidence import evidence

log = logging.getLogger(__name__)


class AccumulationConfig(MethodConfig):
    """Values of a method that steps once per group of micro-batches."""

    update_epochs: int = evidence(
        4, tag="C", source="MMSA config_regression.json, the same for all data sets",
        meaning="micro-batches whose gradients are summed (not averaged) into one optimiser step",
        unit="micro-batches", ge=1,
    )  # fmt: skip
    flush_last_group: bool = evidence(
        False, tag="C", source="MMSA and Self-MM, by reading: an incomplete last group never reaches a step",
        meaning="step once more at the end of an epoch when micro-batches are left over",
    )  # fmt: skip


class AccumulatingMethod(Method):
    """A method whose step happens every ``config.update_epochs`` micro-batches.

    Attributes:
        epoch: the epoch that is running, from 1.
        micro_batches: micro-batches seen in this epoch.
    """

    config: AccumulationConfig
    epoch = 1
    micro_batches = 0

    def start_epoch(self, epoch: int) -> None:
        """Forget the gradients of an incomplete group of the epoch before."""
        self.epoch, self.micro_batches = epoch, 0
        self.zero_grad(set_to_none=True)

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Forward, backward, :meth:`after_backward`; a step where the group is complete.

        Returns:
            As :meth:`Method.training_step`.

        Raises:
            RunError: a term is not finite; names it.
        """
        output = self(batch)
        raw = self.loss_terms(batch, output)
        weighted = self.weigh(raw)
        log = finite_log(raw, weighted)
        sum_terms(weighted).backward()
        log |= self.after_backward(batch, output)
        self.count_micro_batch(optimizers)
        return log

    def after_backward(self, batch: Batch, output: Output) -> dict[str, float]:
        """What a method does with each micro-batch after its loss; what it returns joins the log."""
        return {}

    def count_micro_batch(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Count one micro-batch and step when it completes its group."""
        self.micro_batches += 1
        if self.micro_batches % self.config.update_epochs == 0:
            self.apply_gradients(optimizers)

    def apply_gradients(self, optimizers: Mapping[str, Optimizer]) -> None:
        """One step of every optimiser; the gradients start anew."""
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Step with an incomplete last group where ``flush_last_group`` says so; warn where no step was made at all."""
        if self.config.flush_last_group and self.micro_batches % self.config.update_epochs:
            self.apply_gradients(optimizers)
        elif epoch == 1 and 0 < self.micro_batches < self.config.update_epochs:
            log.warning(
                "%s learns nothing: an epoch of %d micro-batches is no group of update_epochs=%d; set "
                "flush_last_group=true, a smaller batch_size or a smaller update_epochs",
                self.id, self.micro_batches, self.config.update_epochs,
            )  # fmt: skip
        return {}
