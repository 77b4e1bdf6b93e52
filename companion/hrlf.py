"""Inside trained runs of ``hrlf``: what its factorization does, and what can be read from its parts.

FRF asks that ``Z_ab = D_r(Q_a, U_b)`` be the state of ``b``. A decoder can satisfy it from ``U_b`` alone. So the
questions are how far translations are from their targets, beside a constant answer, and what they take from ``Q_a``.

:func:`write` makes ``hrlf_inside.csv`` and ``hrlf_probes.csv`` from the folder ``ablations`` of runs, of the full
method and of the switches in :data:`LOOKED_INTO`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion import names
from companion.names import CHOSEN
from companion.shared import RESULTS, of_run, run_folders, runs_of, speaker_of, write_table
from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.results import DECIMALS
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import dots, heatmap
from mmsa_lib.figures.registry import figure
from mmsa_lib.losses.factorization import translate
from mmsa_lib.losses.mutual_information import derangement
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.hrlf import HRLF, Encoding, HRLFNetwork

METHOD = "hrlf"
FOLDERS = ("ablations",)
FULL = "full"
LOOKED_INTO = (FULL, "no_frf", "sentiment_head")
"""Labels of the ablations whose networks are looked into: the full method, without FRF, with a head on Q."""

INPUTS = ("complete", "incomplete")
"""The test samples as they are, and under the masks of the training recipe."""

PARTS = ("sentiment", "specific")
PAIRS = {
    "translation": "$\\bar Z_{ab}$ from $Z_b$",
    "reconstruction": "$\\bar Q$ from $Q_b$",
    "decoder_sentiment": "share of $D_r$ that follows Q",
    "follows_sentiment": "sentiment follows Q's sample",
    "follows_specific": "sentiment follows U's sample",
}
"""What is measured of each ordered pair: errors relative to a constant, a share, and two correlations."""


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
    truth = sentiment.double().numpy()  # where several readers fit, lstsq takes the one with the smallest weights
    readers = {m: np.linalg.lstsq(_with_one(q), truth, rcond=None)[0] for m, q in fitted.sentiment.items()}
    read = {m: _with_one(q) @ readers[m] for m, q in encoding.sentiment.items()}
    other = derangement(len(encoding.raw), generator=torch.Generator().manual_seed(seed))
    rows = []
    with evaluation_mode(network):
        for a, q in encoding.sentiment.items():
            for b, u in encoding.specific.items():
                found = _with_one(network.sentiment[b](decoder(q, u[other]))) @ readers[b]
                rows.append((a, b, _correlation(found, read[a]), _correlation(found, read[b][other.numpy()])))
    return pd.DataFrame(rows, columns=["source", "target", "follows_sentiment", "follows_specific"])


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


def _with_one(x: Tensor) -> np.ndarray:
    return np.column_stack([x.double().numpy(), np.ones(len(x))])


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def networks(method: HRLF) -> Iterator[tuple[str, HRLFNetwork, str]]:
    """Which network is looked at with which of :data:`INPUTS`: the teacher sees complete samples only."""
    if method.teacher is not None:
        yield "teacher", method.teacher, "complete"
    for name in INPUTS:
        yield "student", method.student, name


def factorization_table(method: HRLF, train: Utterances, test: Utterances) -> pd.DataFrame:
    """Translation errors, decoder shares and swapped sentiment per network, input and pair of modalities.

    Readers of sentiment are fitted on training samples with the same kind of input.

    Returns:
        Columns ``network``, ``input`` and those of the three functions of this module,
        shares as ``decoder_sentiment``, ``decoder_specific`` and ``decoder_interaction``; empty with ``no_frf``.
    """
    if method.config.no_frf:
        return pd.DataFrame()
    parts = []
    for name, network, kind in networks(method):
        fitted, seen = (encode(network, as_input(split, kind)) for split in (train, test))
        shares = decoder_shares(network, seen)
        shares.columns = [c if c in ("source", "target") else f"decoder_{c}" for c in shares.columns]
        table = translation_errors(network, seen)
        for more in (shares, swapped_sentiment(network, fitted, train.labels, seen)):
            table = table.merge(more, on=["source", "target"])
        parts.append(table.assign(network=name, input=kind)[["network", "input", *table.columns]])
    return pd.concat(parts, ignore_index=True)


def probe_parts(method: HRLF, test: Utterances) -> pd.DataFrame:
    """How well planted factors can be read from Q and from U of each modality, on utterances of other speakers.

    Returns:
        Columns ``network``, ``input``, ``modality``, ``part`` (``sentiment`` for Q, ``specific`` for U), ``factor`` and
        ``r2``; a modality has a private factor of its own, called ``private``, and where they differ a speaker too.
    """
    rows = []
    for name, network, kind in networks(method):
        seen = encode(network, as_input(test, kind))
        for modality in method.modalities:
            factors = {
                "shared": "shared",
                "private": f"private_{modality}",
                "sentiment": "sentiment",
                "speaker": speaker_of(test, modality),
            }
            table = probe(
                {part: parts_of(seen)[f"{modality}/{part}"] for part in PARTS},
                {label: test.factors[factor] for label, factor in factors.items()},
                groups=test.groups,
            ).rename(columns={"representation": "part"})
            own = {"network": name, "input": kind, "modality": modality}
            rows.append(table[["part", "factor", "r2"]].assign(**own)[[*own, "part", "factor", "r2"]])
    return pd.concat(rows, ignore_index=True)


def parts_of(encoding: Encoding) -> dict[str, Tensor]:
    """Q and U by name, ``"<modality>/sentiment"`` and ``"<modality>/specific"``."""
    groups = zip(PARTS, (encoding.sentiment, encoding.specific), strict=True)
    return {f"{m}/{part}": values for part, group in groups for m, values in group.items()}


def as_input(data: Utterances, kind: str) -> Utterances:
    """A split as one of :data:`INPUTS`."""
    return data if kind == "complete" else stochastic_validation(data)


def write(runs: Path, target: Path) -> list[str]:
    """Write the tables of this module to ``target``; their names.

    Raises:
        DataError: no finished run in the folder.
    """
    parts: dict[str, list[pd.DataFrame]] = {"inside": [], "probes": []}
    for folder in run_folders(runs, FOLDERS):
        for run in runs_of(folder, METHOD):
            if run.config.label not in LOOKED_INTO:
                continue
            data = run.load_data()
            method = run.load_method(data["test"])
            parts["inside"].append(of_run(factorization_table(method, data["train"], data["test"]), run))
            parts["probes"].append(of_run(probe_parts(method, data["test"]), run))
    written = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items() if any(map(len, tables))}
    for name, table in written.items():
        write_table(target / f"hrlf_{name}.csv", table, DECIMALS)
    return list(written)


def full_label(table: pd.DataFrame) -> str:
    """The label of the full method; tables made before the ablations call it by its weights."""
    return FULL if (table["label"] == FULL).any() else CHOSEN


def pair_matrices(means: pd.DataFrame) -> Figure:
    """The measures of :data:`PAIRS` as matrices: the source of Q down, the target (of U) across.

    Args:
        means: columns ``source``, ``target`` and measures. 0 is white, and what is negative blue.
    """
    panels = {
        title: means.pivot_table(index="source", columns="target", values=name, sort=False, dropna=False)
        for name, title in PAIRS.items()
        if name in means
    }
    scale = {"limits": (-1, 1), "cmap": palette.DIVERGING}
    return heatmap(panels, xlabel="U from, and target", ylabel="Q from", cell=(0.75, 0.6), margin=1.2, **scale)


def probe_rows(table: pd.DataFrame) -> pd.DataFrame:
    """``hrlf_probes.csv`` as :func:`part_probes` draws it: the full method, and students of its switches beside it."""
    full = full_label(table)
    switch = table["label"] != full
    panel = table["network"] + ",\n" + table["input"] + (",\n" + table["label"].map(names.readable)).where(switch, "")
    kept = ~switch | ((table["network"] == "student") & (table["input"] == "incomplete"))
    return names.in_order(table.assign(panel=panel)[kept], "label", label=[full])


def part_probes(frame: pd.DataFrame) -> Figure:
    """What can be read from Q and from U: one panel per network and input, one line per factor and modality.

    Args:
        frame: tidy ``panel, modality, part, factor, r2``; seeds are small dots, their mean is large. Values below 0 are
            drawn as 0.
    """
    drawn = frame.assign(value=frame["r2"].clip(lower=0), name=frame["factor"] + ", " + frame["modality"])
    order = {factor: place for place, factor in enumerate(dict.fromkeys(frame["factor"]))}
    lines = sorted(dict.fromkeys(drawn["name"]), key=lambda name: order[name.partition(", ")[0]])
    means = drawn.groupby(["panel", "name", "part"], sort=False)["value"].mean().reset_index()
    drawn = pd.concat([drawn.assign(mark=drawn["part"]), means.assign(mark=means["part"] + " mean")], ignore_index=True)
    marks = {}
    for part, title, color, offset in (
        ("sentiment", "Q, sentiment-relevant", palette.BLUE, -0.15),
        ("specific", "U, specific", palette.ORANGE, 0.15),
    ):
        marks[part] = {"color": color, "ms": 2.4, "mew": 0, "alpha": 0.5, "offset": offset}
        marks[f"{part} mean"] = {"color": color, "offset": offset, "label": title}
    return dots(drawn, marks, "R², out of sample", columns=2, width=3.6, line=0.22, sharex=True, lines=lines)


@figure("hrlf_translation", sources=[f"{RESULTS}/hrlf_inside.csv"])
def hrlf_translation(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What the students' factorization does on incomplete test samples, means over seeds."""
    rows = table[(table["network"] == "student") & (table["input"] == "incomplete")]
    rows = rows[rows["label"] == full_label(rows)]
    means = rows.groupby(["source", "target"], sort=False)[list(PAIRS)].mean().reset_index()
    return pair_matrices(means), means


@figure("hrlf_probes", sources=[f"{RESULTS}/hrlf_probes.csv"])
def hrlf_probes(table: pd.DataFrame) -> Figure:
    """What can be read from Q and from U, with factorization and without it."""
    return part_probes(probe_rows(table))
