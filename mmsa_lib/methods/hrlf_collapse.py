"""Collapse of ``hrlf``: the spread of its states over samples, a guard that watches it, and a demonstration.

FRF is satisfied by states that are the same for every sample (hrlf.md, section 9) [T]. The paper has nothing against
it; training always includes the task loss, and a run whose states lose their spread is reported as failed [R].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor
from torch.optim import Adam

from mmsa_lib.data.batch import MODALITIES, Batch, Utterances
from mmsa_lib.errors import RunError
from mmsa_lib.methods.hrlf_config import HRLFConfig
from mmsa_lib.methods.hrlf_networks import Encoding, HRLFNetwork

WATCHED = 256
"""Training samples, evenly spread over the split, on which the guard measures."""

INPUT_WIDTHS = {"text": 300, "audio": 74, "vision": 35}
"""Feature widths that the paper states [P]."""


def spread(vectors: Tensor) -> float:
    """Standard deviation over samples of ``(B, d)``, averaged over the features."""
    return float(vectors.detach().float().std(dim=0, correction=0).mean())


class CollapseGuard:
    """Watches how far the states Z of different samples differ, and fails a run in which they no longer do.

    It measures without dropout on complete training samples, per modality on those that have any observed frame of it.

    Args:
        share: of the spread at the start, below which a run fails; 0 never.

    Attributes:
        first: the mean spread over modalities at the start of the phase, a scalar tensor.
    """

    def __init__(self, share: float):
        self.share = share
        self.first = torch.zeros(())
        self.samples: Batch | None = None

    def start(self, network: HRLFNetwork, train: Utterances) -> None:
        """Choose the samples and note the spread before the first step."""
        rows = torch.arange(0, len(train), -(-len(train) // WATCHED))
        self.samples = next(train.select(rows).batches(len(rows)))
        self.first = torch.tensor(self._mean(self.measure(network)))

    def measure(self, network: HRLFNetwork) -> dict[str, float]:
        """Spread of Z per modality; modalities with fewer than two observed samples are left out."""
        training = network.training
        network.eval()
        with torch.no_grad():
            states = network(self.samples).states
        network.train(training)
        seen = {m: self.samples.observed[m].any(dim=1) for m in states}
        return {m: spread(z[seen[m]]) for m, z in states.items() if int(seen[m].sum()) > 1}

    def check(self, network: HRLFNetwork, where: str) -> dict[str, float]:
        """Spread per modality (``z_sd/<modality>``) and their mean (``z_sd``), for the history.

        Raises:
            RunError: the mean is below ``share`` of the start; ``where`` names the run.
        """
        if self.samples is None:
            return {}
        found = self.measure(network)
        now, first = self._mean(found), float(self.first)
        if now < self.share * first:
            raise RunError(
                f"the states Z collapsed: their spread over samples fell from {first:.3g} to {now:.3g}, under "
                f"{self.share:.0%} of its start; lower lambda_frf or lambda_hal, or set frf_warmup ({where})"
            )
        return {**{f"z_sd/{m}": value for m, value in found.items()}, "z_sd": now}

    @staticmethod
    def _mean(by_modality: Mapping[str, float]) -> float:
        return sum(by_modality.values()) / max(1, len(by_modality))


def frf_alone(
    steps: Iterable[int] = (0, 100, 200),
    *,
    detach_targets: bool = False,
    widths: Mapping[str, int] = INPUT_WIDTHS,
    batch_size: int = 64,
    length: int = 8,
    learning_rate: float = 1e-3,
    dropout: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Train one network on FRF alone, with random inputs, and watch its states become a constant.

    Args:
        steps: after how many Adam steps to measure.
        detach_targets: stop the gradient of FRF's targets, which slows the collapse.
        widths: feature width per modality.
        batch_size, length: samples per step and frames per sample.
        learning_rate: of Adam.
        dropout: of the Transformer layers; with it the states of a step keep a spread that is noise.
        seed: of weights and inputs.

    Returns:
        Per measured step: ``step``, ``targets`` (``"as printed"`` or ``"detached"``), ``loss`` (FRF of that batch),
        ``z_norm`` (mean Euclidean norm of Z), ``z_sd`` and ``q_sd`` (spread over samples, averaged over features and
        modalities).
    """
    wanted = sorted(set(steps))
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HRLFNetwork(widths, 1, HRLFConfig(dropout=dropout))
        optimizer = Adam(network.parameters(), lr=learning_rate)
        for step in range(wanted[-1] + 1):
            encoding = network(_random_batch(widths, batch_size, length))
            terms = network.factorization(encoding.states, encoding.sentiment, encoding.specific, detach_targets)
            loss = sum(terms.values())
            if step in wanted:
                rows.append(
                    {"step": step, "targets": "detached" if detach_targets else "as printed", "loss": loss.item()}
                    | _facts(encoding)
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return pd.DataFrame(rows)


def _random_batch(widths: Mapping[str, int], size: int, length: int) -> Batch:
    """Normal features without any structure; labels that nothing reads."""
    valid = {m: torch.ones(size, length, dtype=torch.bool) for m in MODALITIES if m in widths}
    return Batch(
        features={m: torch.randn(size, length, widths[m]) for m in valid},
        valid=valid,
        observed=valid,
        labels=torch.zeros(size),
        index=torch.arange(size),
        ids=tuple(f"random{i}" for i in range(size)),
    )


def _facts(encoding: Encoding) -> dict[str, float]:
    """Norm of Z and spreads of Z and Q, means over modalities."""
    states, sentiment = list(encoding.states.values()), list(encoding.sentiment.values())
    return {
        "z_norm": torch.stack([z.norm(dim=-1).mean() for z in states]).mean().item(),
        "z_sd": sum(map(spread, states)) / len(states),
        "q_sd": sum(map(spread, sentiment)) / len(sentiment),
    }
