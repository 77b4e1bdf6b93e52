"""How well could any model do on the synthetic data? The posterior of the planted factors, given the features.

The factor coordinates of a frame are orthogonal to each other and to all nuisance, and their noise is white: projecting
the features on the mixing matrix's columns loses nothing. Given its peak word ``k``, a factor with a standard normal
prior and observations ``y_t = g e_{k,t} f + noise`` has the normal posterior::

    precision  1 + A_k,       A_k = sum_t (g e_{k,t} / noise)^2
    mean  b_k / (1 + A_k),    b_k = sum_t g e_{k,t} y_t / noise^2

summed over observed frames and, for the shared factor, over modalities. The peak is uniform over the sample's words a
priori; its posterior is proportional to the marginal likelihood ``(1 + A_k)^(-1/2) exp(b_k^2 / (2 (1 + A_k)))``. Both
are exact. The label is a non-linear function of the factors, so its posterior is drawn from (Monte Carlo): the mean of
the draws minimises the squared error and their median the absolute error.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.sources.synthetic import (
    FACTORS,
    Settings,
    envelopes,
    mixing,
    respond,
    saturate,
    settings_of_notes,
    valence,
)
from mmsa_lib.errors import DataError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class FactorPosterior:
    """Posterior of one factor in ``n`` samples: a normal mixture over the ``T`` possible peak words.

    Attributes:
        weight: ``(n, T)`` probability of each peak.
        mean: ``(n, T)`` mean given the peak.
        variance: ``(n, T)`` variance given the peak.
    """

    weight: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def draw(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """``(n, draws)`` independent draws."""
        n, length = self.weight.shape
        row = np.arange(n)[:, None]
        # One sorted array holds all rows' cumulative probabilities, row i shifted by i; one search draws every peak.
        cumulative = (np.minimum(np.cumsum(self.weight, axis=1), 1) + row).ravel()
        flat = np.searchsorted(cumulative, row + generator.random((n, draws)), side="right")
        peak = np.minimum(flat - row * length, length - 1)
        mean = np.take_along_axis(self.mean, peak, axis=1)
        spread = np.sqrt(np.take_along_axis(self.variance, peak, axis=1))
        return mean + spread * generator.standard_normal((n, draws))


def factor_posteriors(
    record: DatasetRecord, modalities: Collection[Modality], rows: np.ndarray | None = None
) -> dict[str, FactorPosterior]:
    """Exact posterior of every factor given what the named modalities show; missing frames count as missing.

    Args:
        record: a synthetic record, from ``build`` or read from a store.
        modalities: which modalities may be looked at; may be empty (the prior).
        rows: positions of the samples, by default all.

    Raises:
        DataError: the record is not synthetic or was made by another version of the generator.
        UnknownNameError: a modality is unknown.
    """
    settings = _settings(record)
    rows = np.arange(len(record)) if rows is None else np.asarray(rows)
    for modality in modalities:
        if modality not in MODALITIES:
            raise unknown_name("modality", modality, MODALITIES)
    shape = envelopes(settings)
    words = record.features["planted_text"].lengths[rows]
    precision = {name: np.zeros((len(rows), settings.length)) for name in FACTORS}
    evidence = {name: np.zeros((len(rows), settings.length)) for name in FACTORS}
    for modality in modalities:
        seen, observed = _projected(settings, record.features[f"planted_{modality}"], modality, rows)
        for column, (name, gain) in enumerate(settings.gains[modality].items()):
            precision[name] += observed @ (gain * shape.T / settings.noise) ** 2
            evidence[name] += (observed * seen[..., column]) @ shape.T * gain / settings.noise**2
    possible = np.arange(settings.length) < words[:, None]
    posteriors = {}
    for name in FACTORS:
        total = 1 + precision[name]
        score = np.where(possible, evidence[name] ** 2 / (2 * total) - np.log(total) / 2, -np.inf)
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        posteriors[name] = FactorPosterior(weight, evidence[name] / total, 1 / total)
    return posteriors


def bayes_predict(
    record: DatasetRecord,
    modalities: Collection[Modality] = MODALITIES,
    rows: np.ndarray | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The best possible predictions from the named modalities.

    Returns:
        Regression: ``mean`` (n,), ``median`` (n,) and ``expected_mae`` (n,), the absolute error that the median is
        expected to make; ``clean_mean`` and ``clean_median``, the same of the noise-free sentiment. Emotions:
        ``probability`` (n, 4).
    """
    settings = _settings(record)
    generator = np.random.default_rng(seed)
    rows = np.arange(len(record)) if rows is None else np.asarray(rows)
    found = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        posteriors = factor_posteriors(record, modalities, rows[start : start + _ROWS_AT_ONCE])
        factors = {name: posterior.draw(draws, generator) for name, posterior in posteriors.items()}
        errors = generator.standard_normal((*factors["shared"].shape, 2))
        found.append(_best(respond(settings, factors, errors), saturate(valence(settings, factors)), settings.task))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _best(labels: np.ndarray, sentiment: np.ndarray, task: str) -> dict[str, np.ndarray]:
    """What to answer, given draws of each sample's label and noise-free sentiment ``(n, draws, …)``."""
    if task == "emotions":
        return {"probability": labels.mean(axis=1)}
    median = np.median(labels, axis=1)
    return {
        "mean": labels.mean(axis=1, dtype=np.float64),
        "median": median,
        "expected_mae": np.abs(labels - median[:, None]).mean(axis=1, dtype=np.float64),
        "clean_mean": sentiment.mean(axis=1),
        "clean_median": np.median(sentiment, axis=1),
    }


def bayes_error(record: DatasetRecord, split: str = "test", *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The best possible scores on one split of a synthetic record, for every subset of modalities.

    Returns:
        One row per subset (``text``, ..., ``text+audio+vision``). Regression: ``mae`` of the posterior median,
        ``expected_mae`` (its expectation over labels; agrees with ``mae`` up to sampling), ``corr`` of the posterior
        mean, and ``mae_clean`` and ``corr_clean``, of the best predictions of the noise-free sentiment. Emotions:
        ``acc4`` of the most probable emotion, ``expected_acc4``, and ``acc``, the mean accuracy of the four
        one-against-rest decisions.
    """
    import pandas as pd

    chosen = np.flatnonzero(record.folds["standard"] == split) if "standard" in record.folds else np.array([], int)
    if not len(chosen):
        raise DataError(f"{record.name}: no sample in split {split!r} of fold 'standard'; use train, valid or test")
    truth, clean = record.labels[chosen], record.factors["sentiment"][chosen, 0]
    rows = []
    for size in (1, 2, 3):
        for subset in combinations(MODALITIES, size):
            best = bayes_predict(record, subset, chosen, draws=draws, seed=seed)
            rows.append({"modalities": "+".join(subset), **_scores(best, truth, clean)})
    return pd.DataFrame(rows)


def _scores(best: dict[str, np.ndarray], truth: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    if "probability" in best:
        probability = best["probability"]
        return {
            "acc4": float((probability.argmax(1) == truth.argmax(1)).mean()),
            "expected_acc4": float(probability.max(1).mean()),
            "acc": float(((probability > 0.5) == (truth > 0.5)).mean()),
        }
    return {
        "mae": float(np.abs(best["median"] - truth).mean()),
        "expected_mae": float(best["expected_mae"].mean()),
        "corr": float(np.corrcoef(best["mean"], truth)[0, 1]),
        "mae_clean": float(np.abs(best["clean_median"] - clean).mean()),
        "corr_clean": float(np.corrcoef(best["clean_mean"], clean)[0, 1]),
    }


def _projected(
    settings: Settings, features: FeatureSet, modality: Modality, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factor coordinates ``(n, T, factors)`` and observed frames ``(n, T)`` (0 or 1) of the samples ``rows``."""
    columns = mixing(settings, modality)[:, : len(settings.gains[modality])]
    projected = features.values.astype(np.float64) @ columns  # noqa: PD011 (not pandas)
    word = np.arange(settings.length)
    inside = word < features.lengths[rows][:, None]
    frame = np.where(inside, features.offsets[rows][:, None] + word, 0)
    return projected[frame], (features.observed[frame] & inside).astype(np.float64)


def _settings(record: DatasetRecord) -> Settings:
    settings = settings_of_notes(record.notes)
    if settings is None:
        raise DataError(f"{record.name}: not made by this version of the synthetic generator; build it again")
    again = settings.stream("factor", "shared").standard_normal(sum(settings.samples)).astype(np.float32)
    stored = record.factors.get("shared", np.empty((0, 1)))
    if stored.shape != (len(again), 1) or not np.array_equal(stored[:, 0], again):
        raise DataError(f"{record.name}: its factors are not those of its settings; build it again")
    return settings
