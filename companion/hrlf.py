"""Notebook 05: collapse, what the factorization does, agreement of teacher and student, the grid over weights.

FRF asks that ``Z_ab = D_r(Q_a, U_b)`` be the state of ``b``. A decoder can satisfy it from ``U_b`` alone. So the
questions are how far translations are from their targets, beside a constant answer, and what they take from ``Q_a``.

:func:`write` makes ``hrlf_<name>.csv`` from the folders ``tune`` (the grid over weights), ``missing`` (printed and
chosen weights on all sets; these runs join the grid) and ``ablations`` (switches on top of the chosen weights,
synthetic) of runs, and the file ``CHOICE`` beside them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from companion import names
from companion.names import CHOSEN, PRINTED
from companion.shared import RESULTS, of_run, run_folders, write_table
from mmsa_lib.data.batch import MODALITIES, Batch, Utterances
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.baselines import constant_values
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.evaluation.protocols import COMPLETE, STOCHASTIC
from mmsa_lib.evaluation.statistics import compare_seeds
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import DECIMALS
from mmsa_lib.experiments.runs import RunResult
from mmsa_lib.experiments.summaries import protocol_summaries
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves, dots, forest, heatmap
from mmsa_lib.figures.registry import figure
from mmsa_lib.losses.factorization import translate
from mmsa_lib.losses.mutual_information import derangement
from mmsa_lib.methods import METHODS, create
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.hrlf import HRLF, CollapseGuard, Encoding, HRLFConfig, HRLFNetwork, state_std
from mmsa_lib.training import seed_everything
from mmsa_lib.training.checkpoint import read_history
from mmsa_lib.training.fit import HISTORY_COLUMNS

METHOD = "hrlf"
CHOICE = "CHOICE"
"""The file of a folder of runs that says which values were chosen on validation data: one line of ``key=value``."""

LITERAL = {"frf_distance": "norm", "student_init": "random"}
"""Values of the reading that is called printed."""

FOLDERS = ("tune", "missing", "ablations")
METRICS = ("mae", "corr", "acc2_neg_pos", "f1_neg_pos")
WEIGHTS = {
    "lambda_frf": "FRF", "lambda_hmi": "HMI", "lambda_hal": "HAL", "lambda_kl": "KL", "frf_warmup": "warm-up",
}  # fmt: skip
"""Values that the grid varies, and what figures call them."""

COLLAPSE_STEPS = (*range(0, 20, 2), *range(20, 201, 10))
SHUFFLES = 8
"""Shuffles behind the chance level of CKA."""

INPUTS = ("complete", "incomplete")
"""The test samples as they are, and under the masks of the training recipe."""

PARTS = ("sentiment", "specific")
SUMMARIES = {
    ("complete", "0.0"): "complete input",
    ("subsets", "average"): "mean over subsets",
    ("frames", "auilc_normalised"): "mean over frame rates",
    ("rate", "mean"): "mean over modality rates",
}
"""Protocol and summary to a panel; all are on the scale of the metric."""

PAIRS = {
    "translation": "$\\bar Z_{ab}$ from $Z_b$",
    "reconstruction": "$\\bar Q$ from $Q_b$",
    "decoder_sentiment": "share of $D_r$ that follows Q",
    "follows_sentiment": "sentiment follows Q's sample",
    "follows_specific": "sentiment follows U's sample",
}
"""What is measured of each ordered pair: errors relative to a constant, a share, and two correlations."""

SCALES = {1: palette.BLUE, 2: palette.ORANGE, 3: palette.GREEN}
INPUT_WIDTHS = {"text": 300, "audio": 74, "vision": 35}
"""Feature widths that the paper states [P]."""


def frf_alone(
    steps: Iterable[int] = (0, 100, 200),
    *,
    detach_targets: bool = False,
    widths: Mapping[str, int] = INPUT_WIDTHS,
    batch_size: int = 64,
    length: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Train one network on FRF alone, with random inputs, and watch its states become a constant.

    Args:
        steps: after how many Adam steps to measure.
        detach_targets: stop the gradient of FRF's targets, which slows the collapse.
        widths: feature width per modality.
        batch_size, length: samples per step and frames per sample.
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
        network = HRLFNetwork(widths, 1, HRLFConfig(dropout=0.0))
        optimizer = Adam(network.parameters(), lr=1e-3)
        for step in range(wanted[-1] + 1):
            encoding = network(_random_batch(widths, batch_size, length))
            terms = network.factorization(encoding.states, encoding.sentiment, encoding.specific, detach_targets)
            loss = sum(terms.values())
            if step in wanted:
                targets = "detached" if detach_targets else "as printed"
                states, sentiment = list(encoding.states.values()), list(encoding.sentiment.values())
                norm = torch.stack([z.norm(dim=-1).mean() for z in states]).mean().item()
                spreads = [sum(map(state_std, parts)) / len(parts) for parts in (states, sentiment)]
                rows.append((step, targets, loss.item(), norm, *spreads))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return pd.DataFrame(rows, columns=["step", "targets", "loss", "z_norm", "z_sd", "q_sd"])


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


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same samples.

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` with centred columns and Frobenius norms (Kornblith et al., ICML 2019). It is 1 for
    representations that differ by a rotation and a scale, and above 0 by chance where columns are many and samples few.

    Args:
        x, y: ``(N, d_x)`` and ``(N, d_y)``.

    Returns:
        0 … 1, NaN where all rows of one coincide.

    Raises:
        DataError: other than two matrices with as many rows, two or more.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise DataError(f"CKA compares (N, d) matrices of the same samples, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = _centred(x), _centred(y)
    own = (x.mT @ x).norm() * (y.mT @ y).norm()
    return float((y.mT @ x).square().sum() / own) if own > 0 else float("nan")


def agreement(teacher: Tensor, student: Tensor) -> dict[str, float]:
    """Four numbers for two ``(N, d)`` representations of the same samples.

    Returns:
        ``cka``, and ``cka_shuffled``, its mean where the student's rows are shuffled; ``cosine``, the mean cosine of
        the rows after the mean row was taken off each; ``distance``, the mean distance of the rows relative to that of
        the teacher's rows from their own mean, so that a student who always answers that mean has 1.
    """
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(student), generator=generator) for _ in range(SHUFFLES)]
    t, s = _centred(teacher), _centred(student)
    spread = t.norm(dim=1).mean()
    distance = (teacher.double() - student.double()).norm(dim=1).mean()
    return {
        "cka": linear_cka(teacher, student),
        "cka_shuffled": sum(linear_cka(teacher, student[order]) for order in orders) / SHUFFLES,
        "cosine": float(F.cosine_similarity(t, s, dim=1).mean()),
        "distance": float(distance / spread) if spread > 0 else float("nan"),
    }


def scale_agreement(method: HRLF, complete: Utterances, incomplete: Mapping[str, Utterances]) -> pd.DataFrame:
    """:func:`agreement` of the teacher on complete samples with the student on several inputs, at each scale.

    Args:
        method: with a teacher.
        complete: the samples.
        incomplete: name to the same samples as the student sees them.

    Returns:
        Columns ``input``, ``scale`` (1, 2, 3) and those of :func:`agreement`.

    Raises:
        ConfigError: the method has no teacher. DataError: other samples.
    """
    if method.teacher is None:
        raise ConfigError("this method was built with no_teacher=True; there is nothing to agree with")
    for name, data in incomplete.items():
        if data.ids != complete.ids:
            raise DataError(f"input {name!r} holds other samples than the complete split")
    merge = method.config.scale_merge
    known = encode(method.teacher, complete).scales(merge)
    rows = []
    for name, data in incomplete.items():
        for scale, (t, s) in enumerate(zip(known, encode(method.student, data).scales(merge), strict=True), start=1):
            rows.append({"input": name, "scale": scale, **agreement(t, s)})
    return pd.DataFrame(rows)


def agreement_trace(history: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of :func:`scale_agreement` that were observed in training, from a history.

    Args:
        history: of :func:`mmsa_lib.training.fit`, with ``observe=`` a function that returned :func:`flat`.
        names: measures to keep.

    Returns:
        Columns ``epoch``, ``input``, ``scale``, ``measure``, ``value``.
    """
    seen = history[(history["split"] == "oracle") & (history["name"].str.count("/") == 2)]
    parts = seen["name"].str.split("/", expand=True).set_axis(["input", "scale", "measure"], axis=1)
    table = pd.concat([seen["epoch"], parts.astype({"scale": int}), seen["value"]], axis=1)
    return table[table["measure"].isin(names)].reset_index(drop=True)


def flat(table: pd.DataFrame) -> dict[str, float]:
    """A table of :func:`scale_agreement` as named numbers, ``"<input>/<scale>/<measure>"``, for a history."""
    measures = [name for name in table if name not in ("input", "scale")]
    return {f"{row['input']}/{row['scale']}/{name}": row[name] for _, row in table.iterrows() for name in measures}


def _centred(x: Tensor) -> Tensor:
    return x.double() - x.double().mean(dim=0)


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


def agreement_table(method: HRLF, seed: int, test: Utterances, partner: HRLF | None = None) -> pd.DataFrame:
    """Agreement of the trained teacher with the student ``before`` its first step and ``after`` training.

    Args:
        method: trained.
        seed: of its run.
        test: the samples.
        partner: whose teacher stands in where ``method`` has none.

    Returns:
        Columns ``when`` and those of :func:`scale_agreement`; empty without any teacher.
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


def probe_parts(method: HRLF, test: Utterances) -> pd.DataFrame:
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


@dataclass(frozen=True)
class HRLFRun:
    """A run that ended: why it failed, in one line that is empty for a finished run, and what it is called."""

    folder: Path
    config: RunConfig
    error: str
    label: str

    @property
    def result(self) -> RunResult:
        """The run's files."""
        return RunResult(self.folder, self.config)

    @property
    def history(self) -> pd.DataFrame:
        """Tidy history: phase, epoch, split, name, value; of a failed run up to its last checkpoint."""
        if not self.error:
            return self.result.history
        checkpoint = self.folder / files.CHECKPOINT
        rows = read_history(checkpoint) if checkpoint.is_file() else []
        return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """``rows`` behind columns that say which run they are of."""
        return of_run(rows, self.result).assign(label=self.label)


def ended_runs(folder: Path, chosen: Mapping[str, Any]) -> list[HRLFRun]:
    """Runs of ``hrlf`` below ``folder`` that finished or failed; of runs of the same values the newest counts.

    Args:
        chosen: the values of the method that a run must have, and no other change, to be labelled as chosen.
    """
    found: dict[str, tuple[int, HRLFRun]] = {}
    for path in sorted(folder.glob(f"*/{files.CONFIG}")):
        config = RunConfig(**files.read_json(path)["config"])
        ends = [end for end in (path.parent / files.DONE, path.parent / files.ERROR) if end.is_file()]
        if config.method != METHOD or not ends:
            continue
        error = "" if ends[0].name == files.DONE else files.read_json(ends[0])["message"]
        values = METHODS[METHOD].Config
        label = CHOSEN if config.method_config == values.for_dataset(config.dataset, **chosen) else config.label
        label = PRINTED if config.method_config == values.for_dataset(config.dataset, **LITERAL) else label
        same = json.dumps([config.dataset, config.fold, config.data, config.method_config.model_dump(), config.seed])
        if same not in found or found[same][0] < ends[0].stat().st_mtime_ns:
            found[same] = (ends[0].stat().st_mtime_ns, HRLFRun(path.parent, config, error, label))
    runs = [run for _, run in found.values()]
    return sorted(runs, key=lambda run: (run.config.dataset, run.config.described()["changes"], run.config.seed))


def chosen_values(runs: Path) -> dict[str, Any]:
    """The values in the file :data:`CHOICE` of the folder ``runs``.

    Raises:
        DataError: there is no such file. ConfigError: it holds no values of the method.
    """
    path = runs / CHOICE
    try:
        line = path.read_text(encoding="utf-8")
    except OSError:
        raise DataError(
            f"{path} is missing; write the values that were chosen on validation data to it, as lambda_frf=0.1"
        ) from None
    return RunConfig.parse_settings(METHOD, line.split())["config"]


def start_spreads(config: RunConfig, train: Utterances) -> dict[str, float]:
    """Spread of Z over samples before the first step, by phase: what the collapse guard compares with."""
    seed_everything(config.seed)
    method = create(METHOD, train.dims, train.task, dataset=config.dataset, **config.config)
    guard, found = CollapseGuard(0.0), {}
    for phase in method.phases:
        guard.start(getattr(method, phase), train)
        found[phase] = float(guard.first)
    return found


def spread_trace(run: HRLFRun) -> pd.DataFrame:
    """Spread of Z over samples per phase and epoch, relative to its start: columns ``phase``, ``epoch``, ``share``.

    The start itself is epoch 0. A failed run ends before its last epoch.
    """
    start, history = start_spreads(run.config, run.result.load_data()["train"]), run.history
    rows = history[(history["split"] == "train") & (history["name"] == "z_sd")]
    rows = rows.assign(share=rows["value"] / rows["phase"].map(start))
    first = pd.DataFrame([{"phase": phase, "epoch": 0, "share": 1.0} for phase in start])
    first = first[first["phase"].isin(rows["phase"])]
    return pd.concat([first, rows], ignore_index=True)[["phase", "epoch", "share"]]


def weights(run: HRLFRun) -> pd.DataFrame:
    """What the validation samples say of a run of the grid over weights; the test samples have no part in it.

    Returns:
        One row: ``stochastic_mae`` and ``stochastic_corr`` (validation samples under the fixed masks of the recipe,
        which select the epoch), ``complete_mae``, ``complete_corr``, ``constant`` (validation error of the training
        median), ``teacher_spread`` and ``student_spread`` (of Z over samples at the end of the phase, relative to its
        start; missing where the phase was not reached) and ``error``. A failed run has its error and no metrics; those
        that predict a constant have no correlation.
    """
    data, ends = run.result.load_data(), spread_trace(run).groupby("phase")["share"].last()
    kinds = [(kind, metric) for kind in (STOCHASTIC, COMPLETE) for metric in ("mae", "corr")]
    found = {}
    if not run.error:
        rows = run.result.metrics.query("split == 'valid'")
        found = rows.drop_duplicates(["protocol", "metric"]).set_index(["protocol", "metric"])["value"].to_dict()
    median = float(constant_values(data["train"].task, data["train"].labels)["constant_median"])
    labels = data["valid"].labels
    row = {
        **{f"{kind}_{metric}": found.get((kind, metric), float("nan")) for kind, metric in kinds},
        "constant": task_metrics(data["train"].task, [median] * len(labels), labels)["mae"],
        **{f"{phase}_spread": ends.get(phase, float("nan")) for phase in ("teacher", "student")},
        "error": run.error,
    }
    return pd.DataFrame([row])


def grid_of(ended: Mapping[str, list[HRLFRun]]) -> list[HRLFRun]:
    """The runs of ``tune``, and those of ``missing`` that change nothing but weights.

    Of runs with the same data set, weights and seed the first counts.
    """
    others = [run for run in ended["missing"] if set(run.config.config) <= set(WEIGHTS)]
    found: dict[tuple, HRLFRun] = {}
    for run in (*ended["tune"], *others):
        found.setdefault((run.config.dataset, run.config.described()["changes"], run.config.seed), run)
    return list(found.values())


def summaries(runs: Iterable[HRLFRun]) -> pd.DataFrame:
    """Test numbers of finished runs, as rows of results: complete input, and one number per protocol of gaps."""
    parts = []
    for run in runs:
        table = run.result.metrics
        table = table[(table["split"] == "test") & table["metric"].isin(METRICS)].assign(label=run.label)
        parts.append(table[table["protocol"] == COMPLETE])
        if (table["protocol"] != COMPLETE).any():
            parts.append(protocol_summaries(table))
    return pd.concat(parts, ignore_index=True)[list(files.METRIC_COLUMNS)]


def beside_constant(table: pd.DataFrame, runs: Iterable[HRLFRun]) -> pd.DataFrame:
    """Rows of :func:`summaries` with a column ``constant``: what the median of the training labels scores on the test
    samples, which no mask changes; NaN where a constant has no value of the metric."""
    parts = [run.result.constants.query("method == 'constant_median'") for run in runs]
    known = pd.concat(parts).drop_duplicates(["dataset", "metric"])[["dataset", "metric", "value"]]
    return table.merge(known.rename(columns={"value": "constant"}), on=["dataset", "metric"], how="left")


def collapse(steps: Sequence[int] = COLLAPSE_STEPS, **options: Any) -> pd.DataFrame:
    """FRF alone, with the targets as printed and detached; ``share`` is the spread of Z relative to its start."""
    parts = [frf_alone(steps, detach_targets=flag, **options) for flag in (False, True)]
    return pd.concat([part.assign(share=part["z_sd"] / part["z_sd"].iloc[0]) for part in parts], ignore_index=True)


def inside(base: list[HRLFRun], switched: list[HRLFRun], tried: list[HRLFRun]) -> dict[str, pd.DataFrame]:
    """What is looked at inside which trained runs on the synthetic set; tables without a row are left out.

    The factorization for all weights, agreement with the teacher for all switches, and probes with FRF and without. A
    run without a teacher is compared with the teacher of the first run of its seed: two networks that never met.
    """
    known = {(run.label, run.config.seed) for run in base}
    weighted = [run for run in tried if run.config.dataset == "synthetic" and not run.error]
    weighted = [run for run in weighted if (run.label, run.config.seed) not in known]
    plan = {
        "inside": [*base, *weighted],
        "agreement": [*base, *switched],
        "probes": [*base, *(run for run in switched if run.config.method_config.no_frf)],
    }
    tables, partners = {}, {}
    for name, runs in plan.items():
        parts = []
        for run in runs:
            data = run.result.load_data()
            method = run.result.load_method(data["test"])
            if method.teacher is not None:
                partners.setdefault(run.config.seed, method)
            if name == "inside":
                rows = factorization_table(method, data["train"], data["test"])
            elif name == "agreement":
                rows = agreement_table(method, run.config.seed, data["test"], partners.get(run.config.seed))
            else:
                rows = probe_parts(method, data["test"])
            parts += [run.table(rows)] if len(rows) else []
        if parts:
            tables[name] = pd.concat(parts, ignore_index=True)
    return tables


def failed(ended: Mapping[str, list[HRLFRun]]) -> pd.DataFrame:
    """The runs that failed, with their error and folder; none is dropped."""
    lost = [(folder, run) for folder, runs in ended.items() for run in runs if run.error]
    parts = [run.table(pd.DataFrame([{"error": run.error, "folder": folder}])) for folder, run in lost]
    columns = ["run_id", "label", "changes", "data_options", "dataset", "seed", "error", "folder"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has the folders for to ``target``; their names.

    Raises:
        DataError: no ended run of the method in any folder, or no choice.
    """
    run_folders(runs, FOLDERS, (files.DONE, files.ERROR))
    chosen = chosen_values(runs)
    ended = {name: ended_runs(runs / name, chosen) for name in FOLDERS}
    tried = grid_of(ended)
    main = [run for run in ended["missing"] if run.label in (PRINTED, CHOSEN)]
    done = [run for run in main if not run.error]
    base = [run for run in done if run.config.dataset == "synthetic" and run.label == CHOSEN]
    switched = [run for run in ended["ablations"] if not run.error]
    tables = {"collapse": collapse(), "failed": failed(ended)}
    if tried:
        rows = [run.table(weights(run).assign(chosen=run.label == CHOSEN)) for run in tried]
        tables["weights"] = pd.concat(rows, ignore_index=True)
    if main:
        shown = [run for run in main if run.config.dataset == "synthetic"] or main
        tables["curves"] = pd.concat([run.table(spread_trace(run)) for run in shown], ignore_index=True)
    if done:
        tables["named"] = beside_constant(summaries(done), done)
    if base and switched:
        tables["ablations"] = summaries([*base, *switched])
    if base:
        tables |= inside(base, switched, tried)
    for name, table in tables.items():
        write_table(target / f"hrlf_{name}.csv", table, DECIMALS)
    return list(tables)


def called(rows: pd.DataFrame) -> pd.Series:
    """What each configuration of the grid over weights is called: its label, or the weights that it changes."""
    short = [
        ", ".join(f"{WEIGHTS.get(key, key)} {value:g}" for key, value in json.loads(text).items())
        for text in rows["changes"]
    ]
    labels = [names.readable(label) for label in rows["label"].fillna("")]
    return pd.Series([label or text for label, text in zip(labels, short, strict=True)], index=rows.index, dtype=object)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``hrlf_weights.csv`` with ``weights`` (a name) and readable sets: the printed ones, then the best."""
    known = table.assign(weights=called(table), error=table["error"].fillna(""))
    relative = (known["stochastic_mae"] / known["constant"]).groupby(known["weights"]).mean()
    order = relative.sort_values(kind="stable").index.to_list()
    order.sort(key=lambda name: name != names.readable(PRINTED))
    ordered = names.in_order(known, "weights", "dataset", "seed", weights=order)
    return ordered.assign(dataset=ordered["dataset"].map(names.DATA))


def weights_grid(frame: pd.DataFrame) -> Figure:
    """Each run of the grid over weights as a dot, one line per setting, one panel per data set, beside the constant.

    Args:
        frame: rows of :func:`in_order`. Failed runs have an error and no number; they are crosses at the constant.
    """
    marks = {
        "stochastic_mae": {"color": palette.BLUE, "offset": -0.17, "label": "incomplete validation, selects the epoch"},
        "complete_mae": {"color": palette.SKY, "mfc": "white", "offset": 0.17, "label": "complete validation"},
        "failed": {"color": palette.VERMILLION, "marker": "X", "ms": 7, "label": "run failed: states collapsed"},
    }
    bad, keys = frame["error"] != "", ["dataset", "weights"]
    runs = frame[~bad].melt(keys, ["stochastic_mae", "complete_mae"], "mark")
    means = runs.groupby([*keys, "mark"], sort=False)["value"].mean().reset_index()
    failed = frame[bad].assign(mark="failed", value=frame["constant"])
    drawn = pd.concat([runs, means.assign(mark=means["mark"] + " mean"), failed], ignore_index=True)
    drawn = drawn.rename(columns={"dataset": "panel", "weights": "name"})
    for kind in ("stochastic_mae", "complete_mae"):
        style = {key: value for key, value in marks[kind].items() if key in ("color", "offset")}
        marks[f"{kind} mean"] = {**style, "marker": "|", "ms": 11, "mew": 1.8}
    floors = frame.drop_duplicates("dataset").assign(baseline="constant")[["dataset", "baseline", "constant"]]
    floors = floors.set_axis(["panel", "baseline", "value"], axis=1)
    order = {"lines": frame["weights"].unique(), "panels": frame["dataset"].unique()}
    figure = dots(drawn, marks, "validation MAE ↓", floors=floors, line=0.36, **order)
    chosen = set(frame.loc[frame["chosen"].astype(bool), "weights"])
    for text in figure.axes[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in chosen else "normal")
    return figure


@figure("hrlf_collapse", [f"{RESULTS}/hrlf_{name}.csv" for name in ("collapse", "curves")])
def collapse_curves(alone: pd.DataFrame, trained: pd.DataFrame) -> Figure:
    """Spread of Z over samples: FRF alone, and teachers and students with printed and with chosen weights.

    It is drawn relative to its start, on a log axis; the guard's limit is dotted.

    Args:
        alone: rows of :func:`collapse`.
        trained: rows of ``hrlf_curves.csv``. A curve that ends early belongs to a run that failed; a cross marks that.
    """
    titles = {"as printed": "targets as printed", "detached": "targets detached"}
    line = alone["targets"].map(titles)
    parts = [alone.assign(panel="FRF alone", line=line, unit=line, x=alone["step"])]
    for phase in ("teacher", "student"):
        rows = trained[(trained["dataset"] == "synthetic") & (trained["phase"] == phase)]
        rows = rows.sort_values(["label", "run_id", "epoch"], ascending=[False, True, True])
        line = rows["label"].map(names.readable)
        parts.append(rows.assign(panel=f"training, {phase}", line=line, unit=rows["run_id"], x=rows["epoch"]))
    frame = pd.concat(parts, ignore_index=True).rename(columns={"share": "value"})
    colors = (palette.VERMILLION, palette.BLUE, palette.GREEN, palette.PURPLE)
    lines = zip(dict.fromkeys(frame["line"]), colors, strict=False)
    styles = {name: {"color": color, "lw": 1.5, "alpha": 0.8} for name, color in lines}
    limit = HRLFConfig().collapse_guard
    floors = pd.DataFrame([{"baseline": "limit of the guard", "value": limit}])
    xlabels = {name: "step" if name == "FRF alone" else "epoch" for name in frame["panel"].unique()}
    drawn = curves(frame, styles, xlabels, "spread of Z / its start", floors=floors, log=True, integer=True, height=2.4)
    for axis in drawn.axes:
        rows = frame[frame["panel"] == axis.get_title()]
        ends = rows.loc[rows.groupby("unit")["x"].idxmax()]
        for end in ends[ends["x"] < rows["x"].max()].itertuples():
            axis.plot(end.x, end.value, marker="X", ms=7, color=styles[end.line]["color"], ls="")
    return drawn


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


def agreement_curves(frame: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """How alike student and teacher become over epochs: a colour per scale, a dash per input of the student.

    Args:
        frame: tidy ``epoch, input, scale, measure, value``; ``cka_shuffled`` is drawn beside ``cka`` as chance.
        measures: measure to panel title, in order.
    """
    dashes = dict(zip(dict.fromkeys(frame["input"]), ("-", "--", ":"), strict=False))
    rows = pd.concat([frame[frame["measure"] == name] for name in measures], ignore_index=True)
    rows = rows.assign(line=[f"$E_{scale}$, {kind}" for scale, kind in zip(rows["scale"], rows["input"], strict=True)])
    chance = frame[frame["measure"] == "cka_shuffled"].groupby("epoch")["value"].mean().reset_index()
    if "cka" in measures:
        rows = pd.concat([rows, chance.assign(measure="cka", line="CKA of shuffled samples")], ignore_index=True)
    styles = {
        f"$E_{scale}$, {kind}": {"color": color, "ls": dash}
        for scale, color in SCALES.items()
        for kind, dash in dashes.items()
    }
    styles["CKA of shuffled samples"] = {"color": palette.GREY, "ls": "-.", "lw": 1.2}
    rows = rows.assign(panel=rows["measure"].map(dict(measures)), x=rows["epoch"])
    return curves(rows, styles, "epoch of the student", "", width=3.0, height=2.4, sharey=False, integer=True)


def agreement_rows(table: pd.DataFrame, kind: str = "incomplete") -> pd.DataFrame:
    """``hrlf_agreement.csv`` as :func:`agreement_lines` draws it, for one kind of input, the chosen weights first."""
    rows = table[table["input"] == kind]
    after = rows[rows["when"] == "after"]
    parts = [rows.assign(value=rows["cka"]), after.assign(value=after["cka_shuffled"], when="shuffled")]
    drawn = pd.concat(parts, ignore_index=True)[["label", "seed", "run_id", "when", "scale", "value"]]
    return names.in_order(drawn, "label", label=[CHOSEN])


def agreement_lines(frame: pd.DataFrame) -> Figure:
    """CKA with the teacher before and after training, one line per switch, one panel per scale, dots are seeds.

    Args:
        frame: rows of :func:`agreement_rows`.
    """
    marks = {
        "shuffled": {"marker": "|", "ms": 9, "mew": 1.6, "color": palette.GREY, "label": "after, samples shuffled"},
        "before": {"ms": 4.5, "mfc": "white", "color": palette.BLACK, "label": "before training"},
        "after": {"ms": 4.5, "color": palette.BLUE, "label": "after training"},
    }
    drawn = frame.assign(name=frame["label"].map(names.readable), mark=frame["when"])
    drawn = drawn.sort_values("scale", kind="stable").assign(panel=lambda rows: rows["scale"].map("$E_{}$".format))
    return dots(drawn, marks, "linear CKA with the teacher", width=2.4, sharex=True)


def probe_rows(table: pd.DataFrame) -> pd.DataFrame:
    """``hrlf_probes.csv`` as :func:`part_probes` draws it: the chosen weights, and students without FRF beside them."""
    known = table[table["label"].isin([CHOSEN, "no_frf"])]
    panel = known["network"] + ",\n" + known["input"]
    without = known["label"] != CHOSEN
    panel = panel.where(~without, panel + ",\nwithout FRF")
    kept = ~without | ((known["network"] == "student") & (known["input"] == "incomplete"))
    return names.in_order(known.assign(panel=panel)[kept], "label", label=[CHOSEN])


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


def switch_effects(ablations: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Differences of each switch to the chosen weights, paired over seeds, for each of :data:`SUMMARIES`.

    Returns:
        Rows of :func:`~mmsa_lib.evaluation.statistics.compare_seeds` (Holm over the switches of a panel) with ``panel``
        and ``name``.
    """
    keys = zip(ablations["protocol"], ablations["level"].astype(str), strict=True)
    rows = ablations.assign(panel=[SUMMARIES.get(key) for key in keys], name=ablations["label"].map(names.readable))
    rows = rows[(rows["metric"] == metric) & rows["panel"].notna()]
    return compare_seeds(rows, names.readable(CHOSEN), by=["panel", "metric"], column="name", family=["panel"])


def switch_forest(effects: pd.DataFrame) -> Figure:
    """Forest plot of :func:`switch_effects`, one panel per summary."""
    panels = [panel for panel in SUMMARIES.values() if panel in set(effects["panel"])]
    title = "HRLF, synthetic test split, 95 % intervals"
    return forest(effects, "MAE, switch − chosen", title=title, panels=panels, columns=2, width=3.2, sharex=True)


@figure("hrlf_weights", sources=[f"{RESULTS}/hrlf_weights.csv"])
def hrlf_weights(table: pd.DataFrame) -> Figure:
    """Validation error of each run of the grid over weights, beside the constant; failed runs are crosses."""
    return weights_grid(in_order(table))


@figure("hrlf_translation", sources=[f"{RESULTS}/hrlf_inside.csv"])
def hrlf_translation(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What the students' factorization does on incomplete test samples, means over seeds."""
    rows = table[(table["network"] == "student") & (table["input"] == "incomplete") & (table["label"] == CHOSEN)]
    means = rows.groupby(["source", "target"], sort=False)[list(PAIRS)].mean().reset_index()
    return pair_matrices(means), means


@figure("hrlf_agreement", sources=[f"{RESULTS}/hrlf_agreement.csv"])
def hrlf_agreement(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """CKA of the student on incomplete test samples with the teacher on complete ones, by switch."""
    drawn = agreement_rows(table)
    return agreement_lines(drawn), drawn


@figure("hrlf_probes", sources=[f"{RESULTS}/hrlf_probes.csv"])
def hrlf_probes(table: pd.DataFrame) -> Figure:
    """What can be read from Q and from U, with factorization and without it."""
    return part_probes(probe_rows(table))


@figure("hrlf_ablations", sources=[f"{RESULTS}/hrlf_ablations.csv"])
def hrlf_ablations(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch on top of the chosen weights on the synthetic set, paired over seeds."""
    effects = switch_effects(table)
    return switch_forest(effects), effects
