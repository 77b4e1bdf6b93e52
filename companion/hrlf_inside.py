"""Inside trained runs of ``hrlf``: translations, agreement of teacher and student, probes of planted factors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd
from torch import Tensor

from companion.agreement import scale_agreement
from companion.factorization import decoder_shares, encode, swapped_sentiment, translation_errors
from companion.hrlf_runs import HRLFRun
from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.methods.hrlf import HRLF, Encoding, HRLFNetwork
from mmsa_lib.training import seed_everything

INPUTS = ("complete", "incomplete")
"""The test samples as they are, and under the masks of the training recipe."""

PARTS = ("sentiment", "specific")


TABLES = ("inside", "agreement", "probes")


def inside_tables(
    runs: Iterable[HRLFRun], names: Mapping[str, str], wanted: Sequence[str] = TABLES
) -> dict[str, pd.DataFrame]:
    """Tables about trained runs on the synthetic set.

    Args:
        runs: finished runs.
        names: run identifier to what it is called, column ``switch``.
        wanted: which of :data:`TABLES`; those without a row are left out. For ``agreement`` a run without a teacher is
            compared with the teacher of the first run of its seed: two networks that never met.
    """
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in wanted}
    partners: dict[int, HRLF] = {}
    for run in runs:
        data = run.result.load_data()
        method = run.result.load_method(data["test"])
        own = {"switch": names[run.folder.name], "seed": run.config.seed, "run_id": run.folder.name}
        for name in wanted:
            if name == "inside":
                table = factorization_table(method, data["train"], data["test"])
            elif name == "agreement":
                if method.teacher is not None:
                    partners.setdefault(run.config.seed, method)
                table = agreement_table(method, run.config.seed, data["test"], partners.get(run.config.seed))
            else:
                table = probe_parts(method, data["test"])
            if len(table):
                tables[name].append(table.assign(**own)[[*own, *table.columns]])
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}


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
        Columns ``network``, ``input`` and those of the three functions of :mod:`companion.factorization`,
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


def agreement_table(method: HRLF, seed: int, test: Utterances, partner: HRLF | None = None) -> pd.DataFrame:
    """Agreement of the trained teacher with the student ``before`` its first step and ``after`` training.

    Args:
        method: trained.
        seed: of its run.
        test: the samples.
        partner: whose teacher stands in where ``method`` has none.

    Returns:
        Columns ``when`` and those of :func:`companion.agreement.scale_agreement`; empty without any teacher.
    """
    source = method if method.teacher is not None else partner
    if source is None:
        return pd.DataFrame()
    inputs = {name: as_input(test, name) for name in INPUTS}
    parts = []
    for when, model in (("before", untrained(method, seed)), ("after", method)):
        pair = HRLF(source.dims, source.task, source.config)
        pair.teacher.load_state_dict(source.teacher.state_dict())
        pair.student.load_state_dict(model.student.state_dict())
        parts.append(scale_agreement(pair, test, inputs).assign(when=when))
    return pd.concat(parts, ignore_index=True)


def probe_parts(method: HRLF, test: Utterances, seed: int = 0) -> pd.DataFrame:
    """How well planted factors can be read from Q and from U of each modality, on utterances of other speakers.

    Returns:
        Columns ``network``, ``input``, ``modality``, ``part`` (``sentiment`` for Q, ``specific`` for U), ``factor`` and
        ``r2``; of the private factors a modality has its own, called ``private``.
    """
    rows = []
    for name, network, kind in networks(method):
        seen = encode(network, as_input(test, kind))
        for modality in method.modalities:
            factors = {"shared": "shared", "private": f"private_{modality}"}
            factors |= {factor: factor for factor in ("sentiment", "speaker")}
            table = probe(
                {part: parts_of(seen)[f"{modality}/{part}"] for part in PARTS},
                {label: test.factors[factor] for label, factor in factors.items()},
                groups=test.groups,
                seed=seed,
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


def untrained(method: HRLF, seed: int) -> HRLF:
    """A method like ``method`` with the weights that a run with this seed starts from."""
    seed_everything(seed)
    return HRLF(method.dims, method.task, method.config)
