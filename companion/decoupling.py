"""What the decoupling of ``collaborative_mmcl`` can tell apart: its weights beside the uniform ones, and their bounds.

A weight matrix that is uniform averages: every position gets the mean of the sequence. So the questions are how far the
entropy of a row is below log T, and how far the result is from the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.collaborative_mmcl import Align, CollaborativeMMCL, Comparison, Variant, decouple, pad_steps
from mmsa_lib.nn.sequence import masked_mean

PARTS = ("common", "specific")


def projected(method: CollaborativeMMCL, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the decoupling of ``method`` reads: sequences ``(B, T, d)`` and masks ``(B, T)`` per modality.

    In ``reference`` they have the length of the longest training sample; the masks still say which positions are words.
    """
    cut = method.config.longest
    steps = int(method.steps) if method.config.decoupling == "reference" else 0
    with evaluation_mode(method):
        batch = method.encode_text(batch)
        z = {m: method.project[m](pad_steps(batch.features[m][:, :cut], steps)) for m in method.modalities}
    return z, {m: pad_steps(batch.valid[m][:, :cut], steps) for m in method.modalities}


def method_decoupling(method: CollaborativeMMCL, batch: Batch) -> pd.DataFrame:
    """:func:`decoupling_statistics` of what ``method`` does with ``batch``.

    Raises:
        ConfigError: the method has no decoupling.
    """
    if method.config.no_decoupling:
        raise ConfigError("this method was built with no_decoupling=True; there are no weights to look at")
    config, (z, valid) = method.config, projected(method, batch)
    exact = {m: x.double() for m, x in z.items()}  # nearly uniform weights differ from uniform in the sixth digit
    return decoupling_statistics(exact, valid, **config.decoupling_options)


def decoupling_statistics(z: Mapping[str, Tensor], valid: Mapping[str, Tensor], **options) -> pd.DataFrame:
    """How peaked the weights are, and how far common and specific part are from the mean of the sequence.

    Args:
        z: per modality ``(B, T, d)``.
        valid: per modality ``(B, T)`` bool. Only rows of valid positions count; in ``reference`` they still weigh all
            positions.
        **options: of :func:`mmsa_lib.methods.collaborative_mmcl.decouple`.

    Returns:
        One row per modality and part (``common``, ``specific``), means over the valid positions of samples with two or
        more of them: ``entropy`` (of the weights, relative to log T, T the positions that compete), ``largest`` and
        ``smallest`` (the extreme weights of all rows, each times T, so that 1 is uniform), ``distance`` (from the mean
        of the sequence, relative to its length), ``variation`` (deviation within a sequence, relative to the input's),
        ``padding`` (share of the weight that lies on padding) and ``cosine`` (between common and specific part).

    Raises:
        ConfigError: no sample has two valid positions, or as ``decouple``.
    """
    common, specific, weights = decouple(z, valid, **options)
    rows = []
    for m, sequence in z.items():
        kept = valid[m] & (valid[m].sum(1, keepdim=True) > 1)
        if not kept.any():
            raise ConfigError(f"no sample has two valid positions of {m}; there is nothing to tell apart")
        competing = torch.ones_like(valid[m]) if options.get("variant") == "reference" else valid[m]
        mean = masked_mean(sequence, competing)
        cosine = F.cosine_similarity(common[m], specific[m], dim=-1)[kept].mean()
        for part, mixed in zip(PARTS, (common[m], specific[m]), strict=True):
            row = {"modality": m, "part": part} | _peakedness(weights[f"{m}/{part}"], competing, kept)
            distance = (mixed - mean.unsqueeze(1)).norm(dim=-1) / mean.norm(dim=-1, keepdim=True)
            row["distance"] = float(distance[kept].mean())
            row["variation"] = _deviation(mixed, kept) / _deviation(sequence, kept)
            share = (weights[f"{m}/{part}"] * ~valid[m].unsqueeze(1)).sum(-1)
            rows.append(row | {"padding": float(share[kept].mean()), "cosine": float(cosine)})
    return pd.DataFrame(rows)


def similarity(
    z: Mapping[str, Tensor], valid: Mapping[str, Tensor], comparison: Comparison = "min", align: Align = "none"
) -> dict[str, Tensor]:
    """The matrices C of :func:`mmsa_lib.methods.collaborative_mmcl.decouple`: cosines, joined over the others.

    Args:
        z: per modality ``(B, T, d)``, word-aligned.
        valid: per modality ``(B, T)`` bool; only ``align="center"`` reads it.
        comparison, align: as there.

    Returns:
        ``(B, T, T)`` per modality: own position by the others' position.
    """
    unit = {m: F.normalize(_prepared(x, valid[m], align), dim=-1) for m, x in z.items()}
    found = {}
    for m, rows in unit.items():
        cosines = torch.stack([rows @ unit[n].transpose(1, 2) for n in unit if n != m])
        found[m] = cosines.amin(0) if comparison == "min" else cosines.mean(0)
    return found


def method_similarity(method: CollaborativeMMCL, batch: Batch) -> dict[str, Tensor]:
    """:func:`similarity` of what ``method`` decouples."""
    return similarity(*projected(method, batch), method.config.comparison, method.config.alignment)


def word_by_word(method: CollaborativeMMCL, data: Utterances, sample: str) -> pd.DataFrame:
    """Everything that ``method`` decides for the words of one sample.

    Args:
        method: trained or not.
        data: the split that holds the sample.
        sample: its identifier.

    Returns:
        Columns ``modality``, ``quantity`` (``similarity``, ``common``, ``specific``, ``gate``), ``row`` and ``column``
        (positions of words; gates have column 0) and ``value``.

    Raises:
        ConfigError: no such sample in ``data``.
    """
    if sample not in data.ids:
        raise ConfigError(f"{sample!r} is no {data.split} sample of {data.name}")
    batch = data.data.select(torch.tensor([data.ids.index(sample)]))
    with evaluation_mode(method):
        views, output = method.decouple(batch), method(batch)
    found = {f"{m}/similarity": c for m, c in method_similarity(method, batch).items()} | views.weights
    found |= {f"{m}/gate": output.auxiliary[f"gates/{m}"].unsqueeze(-1) for m in method.modalities}
    parts = []
    for name, matrix in found.items():
        modality, _, quantity = name.partition("/")
        count = int(batch.valid[modality].sum())
        values = matrix[0, :count, :count].double().numpy()
        row, column = np.indices(values.shape).reshape(2, -1)
        table = {"modality": modality, "quantity": quantity, "row": row, "column": column, "value": values.ravel()}
        parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def entropy_bounds(steps: int, variant: Variant = "reference", temperature: float = 0.1) -> dict[str, float]:
    r"""The smallest entropy that a row of weights can have, whatever the parameters, relative to log T.

    Cosines lie in [-1, 1], so two scores of a row differ by 2 at most; in the specific part of ``reference`` the scores
    are :math:`-S`, and an entry of S lies between the softmax of -1 against T-1 times 1 and the reverse. Among
    weights whose ratio is limited, entropy is smallest where they take two values only; all counts of the larger one
    are tried.

    Args:
        steps: T, the positions that compete; 2 or more.
        variant, temperature: of the decoupling.

    Returns:
        ``common`` and ``specific``, and ``largest``: the largest weight that the common part can give.

    Raises:
        ConfigError: fewer than two positions.
    """
    if steps < 2:
        raise ConfigError(f"entropy relative to log T needs two or more positions, got {steps}")
    scale = 1.0 if variant == "reference" else temperature
    spread = {"common": 2 / scale, "specific": 2 / scale}
    largest = 1 / (1 + (steps - 1) * math.exp(-2 / scale))
    if variant == "reference":
        smallest = 1 / (1 + (steps - 1) * math.exp(2))
        spread["specific"] = largest - smallest
    return {part: _least_entropy(steps, width) for part, width in spread.items()} | {"largest": largest}


def planted_meanings(
    samples: int = 64, steps: int = 20, meanings: int = 10, width: int = 128, noise: float = 0.3, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random sequences whose first ``meanings`` positions all modalities share, but for noise; the rest is their own.

    Returns:
        ``z`` and ``valid`` as :func:`decoupling_statistics` reads them.
    """
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(samples, meanings, width, generator=generator)
    z = {}
    for m in ("text", "audio", "vision"):
        z[m] = torch.randn(samples, steps, width, generator=generator)
        z[m][:, :meanings] = shared + noise * torch.randn(shared.shape, generator=generator)
    return z, dict.fromkeys(z, torch.ones(samples, steps, dtype=torch.bool))


def toy_comparison(meanings: int = 10, **options) -> pd.DataFrame:
    """Five kinds of weights on :func:`planted_meanings`: do positions with a shared meaning find themselves?

    Returns:
        Columns ``weights`` (a name), ``own_position`` (mean weight of the own position, over the positions with a
        shared meaning and the modalities) and ``entropy`` (relative to log T).
    """
    z, valid = planted_meanings(meanings=meanings, **options)
    kinds = {
        "reference common, softmax(C)": ("common", {"variant": "reference"}),
        "reference specific, softmax(1 - S)": ("specific", {"variant": "reference"}),
        "raw specific, softmax(1 - C)": ("specific", {"temperature": 1.0}),
        "corrected common, softmax(C / 0.1)": ("common", {"temperature": 0.1}),
        "corrected specific, softmax(-C / 0.1)": ("specific", {"temperature": 0.1}),
    }
    rows = []
    for name, (part, switches) in kinds.items():
        matrices = [w for key, w in decouple(z, valid, **switches)[2].items() if key.endswith(f"/{part}")]
        own = torch.stack([w.diagonal(dim1=1, dim2=2)[:, :meanings].mean() for w in matrices]).mean()
        relative = torch.stack([relative_entropy(w, valid["text"]).mean() for w in matrices]).mean()
        rows.append({"weights": name, "own_position": float(own), "entropy": float(relative)})
    return pd.DataFrame(rows)


def relative_entropy(weights: Tensor, competing: Tensor) -> Tensor:
    """Entropy of each row of weights ``(B, R, T)`` over log T, with T the competing positions: ``(B, R)``.

    Computed in float64: near uniform weights it differs from 1 in the sixth digit. With one position it is NaN.
    """
    exact = weights.double()
    entropy = -torch.special.xlogy(exact, exact).sum(-1)
    return entropy / competing.sum(-1, keepdim=True).double().log()


def _peakedness(weights: Tensor, competing: Tensor, kept: Tensor) -> dict[str, float]:
    scaled = weights * competing.sum(-1)[:, None, None]
    smallest = scaled.masked_fill(~competing.unsqueeze(1), torch.inf).amin(-1)
    return {
        "entropy": float(relative_entropy(weights, competing)[kept].mean()),
        "largest": float(scaled.amax(-1)[kept].max()),
        "smallest": float(smallest[kept].min()),
    }


def _least_entropy(steps: int, spread: float) -> float:
    """Smallest relative entropy of ``steps`` weights whose logarithms differ by ``spread`` at most."""
    best = 1.0
    for high in range(1, steps):
        total = high + (steps - high) * math.exp(-spread)
        entropy = math.log(total) + (steps - high) * math.exp(-spread) / total * spread
        best = min(best, entropy / math.log(steps))
    return best


def _deviation(sequence: Tensor, kept: Tensor) -> float:
    """Root mean square distance of the kept positions from the mean of their own sequence."""
    centred = sequence - masked_mean(sequence, kept).unsqueeze(1)
    return float(centred[kept].double().square().sum(-1).mean().sqrt())


def _prepared(sequence: Tensor, valid: Tensor, align: Align) -> Tensor:
    if align == "ln":
        return F.layer_norm(sequence, sequence.shape[-1:])
    if align == "center":
        return sequence - sequence[valid].mean(0)
    return sequence
