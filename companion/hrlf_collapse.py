"""``frf_alone``: a demonstration that FRF is satisfied by states that are the same for every sample [T]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch.optim import Adam

from mmsa_lib.data.batch import MODALITIES, Batch
from mmsa_lib.methods.hrlf import Encoding, HRLFConfig, HRLFNetwork, spread

INPUT_WIDTHS = {"text": 300, "audio": 74, "vision": 35}
"""Feature widths that the paper states [P]."""


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
