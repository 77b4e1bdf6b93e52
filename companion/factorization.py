"""What the factorization of ``hrlf`` does in a trained network: translation, and which input a translation follows.

FRF asks that ``Z_ab = D_r(Q_a, U_b)`` be the state of ``b``. A decoder can satisfy it from ``U_b`` alone. So the
questions are how far translations are from their targets, beside a constant answer, and what they take from ``Q_a``.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.losses.factorization import translate
from mmsa_lib.losses.mutual_information import derangement
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.hrlf import Encoding, HRLFNetwork


def encode(network: HRLFNetwork, data: Utterances, batch_size: int = 256) -> Encoding:
    """Everything that ``network`` (the teacher or the student) computes for all samples, without dropout."""
    with evaluation_mode(network):
        parts = [network(batch) for batch in data.batches(batch_size)]
    return Encoding(
        **{f.name: _joined([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Encoding)}
    )


def translation_errors(network: HRLFNetwork, encoding: Encoding) -> pd.DataFrame:
    """How far translated states are from their targets, and re-encoded ones from the target's sentiment part.

    Args:
        network: with a decoder.
        encoding: of several samples by this network.

    Returns:
        One row per ordered pair ``source``, ``target``: ``translation``, the mean distance of ``Z_ab`` from ``Z_b``
        over the mean distance of ``Z_b`` from its own mean, and ``reconstruction``, the same for ``E^S_b(Z_ab)`` and
        ``Q_b``. 1 is what a constant achieves, 0 is perfect; NaN where the targets of all samples coincide.

    Raises:
        ConfigError: the network has no decoder (``no_frf``).
    """
    states, sentiment = encoding.states, encoding.sentiment
    rows = []
    with evaluation_mode(network):
        for (a, b), z in translate(sentiment, encoding.specific, _decoder(network)).items():
            again = network.sentiment[b](z)
            errors = {"translation": _relative(z, states[b]), "reconstruction": _relative(again, sentiment[b])}
            rows.append({"source": a, "target": b, **errors})
    return pd.DataFrame(rows)


def decoder_shares(network: HRLFNetwork, encoding: Encoding, samples: int = 64) -> pd.DataFrame:
    """Whom the decoder listens to: its variance over all combinations of one sample's Q with another one's U.

    ``D_r(Q_a[i], U_b[j])`` for all ``i`` and ``j`` is taken apart as in a two-way analysis of variance.

    Args:
        network: with a decoder.
        encoding: of two or more samples by this network.
        samples: how many of them are combined, evenly spread.

    Returns:
        One row per ordered pair ``source``, ``target``: shares of the variance that follow ``sentiment`` (Q),
        ``specific`` (U) and their ``interaction``; they add up to 1, or are NaN where nothing varies.

    Raises:
        ConfigError: no decoder. DataError: fewer than two samples.
    """
    decoder, count = _decoder(network), len(encoding.raw)
    if min(count, samples) < 2:
        raise DataError(f"variance needs two samples or more, got {min(count, samples)}")
    chosen = torch.arange(0, count, -(-count // samples))
    size = len(chosen)
    rows = []
    with evaluation_mode(network):
        for a, q in encoding.sentiment.items():
            for b, u in encoding.specific.items():
                pairs = decoder(q[chosen].repeat_interleave(size, dim=0), u[chosen].repeat(size, 1))
                rows.append({"source": a, "target": b, **_two_way(pairs.double().view(size, size, -1))})
    return pd.DataFrame(rows)


def swapped_sentiment(
    network: HRLFNetwork, fitted: Encoding, sentiment: Tensor, encoding: Encoding, seed: int = 0
) -> pd.DataFrame:
    """Whose sentiment a translation carries when Q and U come from different samples.

    A linear reader per modality is fitted to read ``sentiment`` from Q on one split. On another split each sample's
    ``Q_a`` is decoded with the ``U_b`` of a second sample, encoded again to ``E^S_b(D_r(Q_a, U_b))`` and read.

    Args:
        network: with a decoder.
        fitted: encoding of the samples on which the readers are fitted.
        sentiment: ``(N,)`` their sentiment.
        encoding: of other samples.
        seed: of who is combined with whom.

    Returns:
        One row per ordered pair ``source``, ``target``: correlation of what is read with the reading of the sample that
        gave Q (``follows_sentiment``) and of the one that gave U (``follows_specific``); NaN where a reading is
        constant.

    Raises:
        ConfigError: no decoder. DataError: ``sentiment`` has another length.
    """
    decoder = _decoder(network)
    if sentiment.shape != (len(fitted.raw),):
        raise DataError(
            f"sentiment has shape {tuple(sentiment.shape)}, the reader is fitted on {len(fitted.raw)} samples"
        )
    readers = {m: _reader(q, sentiment) for m, q in fitted.sentiment.items()}
    read = {m: _read(readers[m], q) for m, q in encoding.sentiment.items()}
    other = derangement(len(encoding.raw), generator=torch.Generator().manual_seed(seed))
    rows = []
    with evaluation_mode(network):
        for a, q in encoding.sentiment.items():
            for b, u in encoding.specific.items():
                found = _read(readers[b], network.sentiment[b](decoder(q, u[other])))
                follows = {
                    "follows_sentiment": _correlation(found, read[a]),
                    "follows_specific": _correlation(found, read[b][other.numpy()]),
                }
                rows.append({"source": a, "target": b, **follows})
    return pd.DataFrame(rows)


def _decoder(network: HRLFNetwork):
    if network.decoder is None:
        raise ConfigError("this network was built with no_frf=True; it has no decoder to look at")
    return network.decoder


def _joined(parts: list):
    """Batches of one field of :class:`Encoding` as one."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: torch.cat([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)


def _relative(found: Tensor, target: Tensor) -> float:
    found, target = found.double(), target.double()
    spread = (target - target.mean(dim=0)).norm(dim=1).mean()
    return float((found - target).norm(dim=1).mean() / spread) if spread > 0 else float("nan")


def _two_way(values: Tensor) -> dict[str, float]:
    """Shares of the variance of ``(I, J, d)`` over I, over J, and of what neither explains alone."""
    mean = values.mean(dim=(0, 1))
    rows, columns = values.mean(dim=1, keepdim=True) - mean, values.mean(dim=0, keepdim=True) - mean
    total = float((values - mean).square().mean(dim=(0, 1)).sum())
    if not total > 0:
        return dict.fromkeys(("sentiment", "specific", "interaction"), float("nan"))
    shares = [float(part.square().mean(dim=(0, 1)).sum()) / total for part in (rows, columns)]
    return {"sentiment": shares[0], "specific": shares[1], "interaction": 1 - sum(shares)}


def _reader(x: Tensor, y: Tensor) -> np.ndarray:
    """Least-squares weights ``(d + 1,)`` that read ``y`` from ``x``, the smallest ones where several fit."""
    return np.linalg.lstsq(_with_one(x), y.double().numpy(), rcond=None)[0]


def _read(weights: np.ndarray, x: Tensor) -> np.ndarray:
    return _with_one(x) @ weights


def _with_one(x: Tensor) -> np.ndarray:
    return np.column_stack([x.double().numpy(), np.ones(len(x))])


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
