"""Notebook 03: what the decoupling can tell apart, what the policies see and learn, what an oracle would claim.

A weight matrix that is uniform averages: every position gets the mean of the sequence. So the questions are how far the
entropy of a row is below log T, and how far the result is from the mean.

:func:`write` makes ``collaborative_<name>.csv`` from the folders :data:`TABLES` of runs below ``collaborative``, which
were trained with ``--oracle``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from companion import names
from companion.shared import RESULTS, ablation_effects, draw_results, of_run, run_folders, write_table
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import DECIMALS, SAME_RUN, collect, curate, finished_runs, read_results
from mmsa_lib.experiments.runs import RunResult, find_run
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves, dots, forest, grid, legend, mark_words
from mmsa_lib.figures.registry import figure
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.collaborative_mmcl import (
    Align,
    CollaborativeMMCL,
    CollaborativeMMCLConfig,
    Comparison,
    Variant,
    decouple,
    joint_reward,
    pad_steps,
)  # fmt: skip
from mmsa_lib.nn.sequence import masked_mean
from mmsa_lib.training.fit import HISTORY_COLUMNS

METHOD = "collaborative_mmcl"
FOLDERS = ("collaborative", "readings")
TABLES = ("synthetic", "ablations", "mmmo", "mosi", "emotions")
BASELINES = {"synthetic": "contrastive_synthetic.csv", "mmmo": "contrastive_mmmo.csv"}
"""Curated tables whose baselines are runs on the same data."""

VARIANTS = {"reference": '{"decoupling": "reference"}', "corrected": files.NO_CHANGES}
"""The two named variants, and what each changes."""

COLORS = {"reference": palette.VERMILLION, "corrected": palette.BLUE}
PARTS = ("common", "specific")
DIGITS = 9
"""Digits after the point: how far nearly uniform weights are from uniform shows in the sixth."""

CURVES = {
    "raw/critic": "critic: |Q − target|",
    "raw/actor": "actor: −Q",
    "policy/reward": "reward",
    "policy/gate": "mean gate",
}
UTTERANCE = "lXPQBPVc5Cw_21"
"""A test segment of MOSI with ten words: what is drawn word by word."""

ORACLE = "oracle"
"""Split of the rows of a history that hold test metrics."""

QUANTITIES = {"similarity": "similarity C", "common": "common weights", "specific": "specific weights"}


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
        **options: of :func:`~mmsa_lib.methods.collaborative_mmcl.decouple`.

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
            matrix = weights[f"{m}/{part}"]
            scaled = matrix * competing.sum(-1)[:, None, None]
            smallest = scaled.masked_fill(~competing.unsqueeze(1), torch.inf).amin(-1)
            distance = (mixed - mean.unsqueeze(1)).norm(dim=-1) / mean.norm(dim=-1, keepdim=True)
            share = (matrix * ~valid[m].unsqueeze(1)).sum(-1)
            row = {
                "modality": m, "part": part, "entropy": float(relative_entropy(matrix, competing)[kept].mean()),
                "largest": float(scaled.amax(-1)[kept].max()), "smallest": float(smallest[kept].min()),
                "distance": float(distance[kept].mean()),
                "variation": _deviation(mixed, kept) / _deviation(sequence, kept),
                "padding": float(share[kept].mean()), "cosine": float(cosine),
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def similarity(
    z: Mapping[str, Tensor], valid: Mapping[str, Tensor], comparison: Comparison = "min", align: Align = "none"
) -> dict[str, Tensor]:
    """The matrices C of :func:`~mmsa_lib.methods.collaborative_mmcl.decouple`: cosines, joined over the others.

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
    cosines = similarity(*projected(method, batch), method.config.comparison, method.config.alignment)
    found = {f"{m}/similarity": c for m, c in cosines.items()} | views.weights
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


def reward_dependence(prediction: Tensor, labels: Tensor, task: Task, variant: Variant) -> Tensor:
    """Whose logits the reward of each sample depends on.

    Args:
        prediction: ``(B, K, 2)`` logits, or ``(B,)`` sentiment.
        labels: ``(B, K)`` or ``(B,)``.
        task: what is predicted.
        variant: of the reward.

    Returns:
        ``(B, B)``: entry (i, j) is the length of the gradient of reward i with respect to the prediction for sample j.
    """
    leaf = prediction.detach().clone().requires_grad_()
    rewards = joint_reward(leaf, labels, task, variant=variant)
    gradients = [torch.autograd.grad(reward, leaf, retain_graph=True)[0] for reward in rewards]
    return torch.stack([g.flatten(1).norm(dim=1) if g.ndim > 1 else g.abs() for g in gradients])


def has_joint_critic(config: CollaborativeMMCLConfig) -> bool:
    """Whether there is one value for all policies, which :func:`critic_skill` can look at."""
    return config.learns_from_reward and config.reward == "joint"


def critic_skill(method: CollaborativeMMCL, data: Utterances) -> dict[str, float]:
    """What the critic knows about single samples, beside a constant.

    Args:
        method: with a critic of one joint value.
        data: the samples; their predictions earn the rewards as ``corrected`` counts them.

    Returns:
        ``error`` (mean distance of the value from the reward), ``constant`` (that of the median of these rewards, the
        best constant), ``skill`` (1 - error / constant: above 0 where the critic beats every constant), ``r2`` (the
        same of squared errors, beside the mean), ``correlation`` of value and reward (NaN where one does not vary),
        ``reward`` (mean) and ``gain``: mean value with the gates minus that with open gates, what the gates are worth
        by the critic's own account. With a discount the values hold a future too, and ``error`` says little.

    Raises:
        ConfigError: the method has no critic, or one value per modality.
    """
    if not has_joint_critic(method.config):
        raise ConfigError("this method has no critic with a joint value (no_policy, no_rl or reward='per_modality')")
    with evaluation_mode(method):
        views = method.decouple(data.data)
        output, _ = method.act(views, views.specific)
        gates = {m: output.auxiliary[f"gates/{m}"] for m in method.modalities}
        value = method.policy.critic(views.specific, gates, views.valid).flatten()
        opened = {m: torch.ones_like(gate) for m, gate in gates.items()}
        without = method.policy.critic(views.specific, opened, views.valid).flatten()
        reward = joint_reward(output.prediction, data.labels, data.task, form=method.config.reward_form)
    error, constant = (float((guess - reward).abs().mean()) for guess in (value, reward.median()))
    squared, variance = (float((guess - reward).square().mean()) for guess in (value, reward.mean()))
    return {
        "error": error,
        "constant": constant,
        "skill": 1 - error / constant if constant else math.nan,
        "r2": 1 - squared / variance if variance else math.nan,
        "correlation": float(torch.corrcoef(torch.stack([value, reward]).double())[0, 1]),
        "reward": float(reward.mean()),
        "gain": float((value - without).mean()),
    }


def training_states(method: CollaborativeMMCL, data: Utterances, batch_size: int, seed: int = 0) -> pd.DataFrame:
    """States and gates of the policies in training beside those in evaluation, for the same weights.

    Batches are drawn in a random order as in training, and nothing is trained. With the decision process
    ``reference`` a training state is gated by the actions for the batch before, row by row, which are those of *other*
    samples (defect D6); in evaluation it is not gated (D7). In ``corrected`` both are the same.

    Args:
        method: with gates.
        data: the samples; batches without a full batch before them are left out.
        batch_size: samples per step.
        seed: of the order.

    Returns:
        One row per sample and modality: ``id, modality``; ``norm_evaluation`` and ``norm_training`` (mean length of the
        state over words), ``gate_evaluation`` and ``gate_training`` (mean gate over words), ``carried_from`` (the
        sample whose gates were applied, or empty) and ``carried`` (their mean over the words of this sample, or 1).

    Raises:
        ConfigError: the method has no gates, or there are fewer than two full batches.
    """
    if method.policy is None:
        raise ConfigError("this method was built with no_policy=True; it has no gates")
    if len(data) < 2 * batch_size:
        raise ConfigError(f"{len(data)} samples are fewer than two batches of {batch_size}; take smaller batches")
    carries = method.config.decision_process == "reference"
    parts: list[pd.DataFrame] = []
    before, ids = None, ()
    with evaluation_mode(method):
        for batch in data.batches(batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed)):
            if len(batch) < batch_size:
                break
            raw = method.decouple(batch).specific
            factor = {m: torch.ones(x.shape[:2]) for m, x in raw.items()}
            if carries and before is not None:
                # New positions have the gate 1, as in training.
                padded = {m: F.pad(gate, (0, raw[m].shape[1]), value=1.0) for m, gate in before.items()}
                factor = {m: padded[m][:, : x.shape[1]] for m, x in raw.items()}
            state = {m: x * factor[m].unsqueeze(-1) for m, x in raw.items()}
            own, seen = method.policy.gates(raw), method.policy.gates(state)
            if before is not None:
                for m in method.modalities:
                    values = {
                        "norm_evaluation": raw[m].norm(dim=-1), "norm_training": state[m].norm(dim=-1),
                        "gate_evaluation": own[m], "gate_training": seen[m], "carried": factor[m],
                    }  # fmt: skip
                    means = {name: _over_words(x, batch.valid[m]) for name, x in values.items()}
                    source = ids if carries else ""
                    parts.append(pd.DataFrame({"id": batch.ids, "modality": m, **means, "carried_from": source}))
            before, ids = seen, batch.ids
    return pd.concat(parts, ignore_index=True)


def _over_words(values: Tensor, valid: Tensor) -> list[float]:
    """Mean of ``(B, T)`` over the words of each sample; sequences may be padded further than ``valid``."""
    words = F.pad(valid, (0, values.shape[1] - valid.shape[1]))
    return masked_mean(values.unsqueeze(-1), words).squeeze(-1).tolist()


def oracle_gap(folder: Path | str) -> pd.DataFrame:
    """Validation-selected and best-over-epochs test metrics of all runs below ``folder`` that recorded them.

    Args:
        folder: a folder of runs, or one run; runs without such a record are left out, of runs that differ only in code
            or data the newest counts.

    Returns:
        One row per run and metric: the columns that say which run it is, ``metric``, then ``epoch`` (chosen by the
        validation loss), ``value`` (the test metric there), ``oracle_epoch`` (the first with the best test metric),
        ``oracle`` and ``gap``: by how much the oracle is better, never negative. A metric that is undefined in every
        epoch, or at the chosen one, has no row.

    Raises:
        DataError: no finished run, none with test metrics after each epoch, or a run whose history lacks its own epoch.
    """
    newest = set(collect(folder)["run_id"])
    rows = [row for run in finished_runs(folder) if run.name in newest for row in _gaps(run)]
    if not rows:
        raise DataError(f"no run in {folder} recorded test metrics after each epoch; train with --oracle")
    frame = pd.DataFrame(rows, columns=list(rows[0])).astype({"seed": "Int64"})
    keys = ["dataset", "fold", "method", "changes", "data_options", "seed", "run_id"]
    return frame.sort_values(keys, kind="stable", ignore_index=True)


def _gaps(run: Path) -> list[dict]:
    """One row per metric of one run."""
    history = files.read_csv(run / files.HISTORY, HISTORY_COLUMNS, "history")
    if history.empty:
        return []
    observed = history[(history["split"] == ORACLE) & (history["phase"] == history["phase"].iloc[-1])]
    if observed.empty:
        return []
    own = files.read_table(run / files.METRICS).iloc[0]
    chosen = files.read_json(run / files.ENVIRONMENT, training=dict)["training"].get("best_epoch")
    if not (observed["epoch"] == chosen).any():
        raise DataError(f"{run / files.HISTORY} has no test metric of epoch {chosen}, which was kept; repeat the run")
    rows = []
    for name, values in observed.groupby("name", sort=False):
        by_epoch = values.set_index("epoch")["value"].dropna()
        if chosen not in by_epoch.index:
            continue
        rising = describe(str(name)).higher_is_better
        best = by_epoch.idxmax() if rising else by_epoch.idxmin()
        difference = by_epoch[best] - by_epoch[chosen]
        rows.append(
            {
                **{key: own[key] for key in ("run_id", *SAME_RUN[:1], "label", *SAME_RUN[1:])},
                "metric": name, "epoch": chosen, "value": by_epoch[chosen], "oracle_epoch": best,
                "oracle": by_epoch[best], "gap": difference if rising else -difference,
            }
        )  # fmt: skip
    return rows


def by_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the two named variants with a column ``variant``, the reference first."""
    variant = rows["changes"].map({changes: name for name, changes in VARIANTS.items()})
    named = rows.assign(variant=variant).dropna(subset=["variant"])
    return named.sort_values("variant", ascending=False, kind="stable")


def named_runs(folder: Path) -> list[RunResult]:
    """Finished runs of the two named variants in ``folder``, the corrected one first."""
    rows = collect(folder)
    rows = by_variant(rows[rows["method"] == METHOD].drop_duplicates("run_id"))
    rows = names.in_order(rows, "variant", "seed", variant=["corrected", "reference"])
    return [find_run(run_id, folder) for run_id in rows["run_id"]]


def learning(run: RunResult) -> pd.DataFrame:
    """What actor and critic learn, per epoch: columns epoch, name, value."""
    history = run.history
    return history[(history["split"] == "train") & history["name"].isin(CURVES)][["epoch", "name", "value"]]


def weights(run: RunResult) -> pd.DataFrame:
    """:func:`method_decoupling` on the test samples of a trained run.

    Adds ``steps`` (positions that compete: the longest training sample, or the mean number of words) and ``bound``: the
    smallest relative entropy that the weights could have at that number, whatever the parameters.
    """
    test = run.load_data()["test"]
    method = run.load_method(test)
    table = method_decoupling(method, test.data)
    lengths = test.lengths(test.modalities[0])
    words = lengths.clamp_max(method.config.longest or int(lengths.max())).double().mean()
    steps = int(method.steps) if method.config.decoupling == "reference" else round(words.item())
    bounds = entropy_bounds(steps, method.config.decoupling, method.config.temperature)
    return table.assign(steps=steps, bound=table["part"].map(bounds))


def critic(run: RunResult) -> pd.DataFrame:
    """:func:`critic_skill` on validation and test samples, one row each with column ``split``, of a trained run."""
    data = run.load_data()
    method = run.load_method(data["test"])
    held_out = {split: data[split] for split in ("valid", "test")}
    rows = [{"split": split, "task": own.task.kind, **critic_skill(method, own)} for split, own in held_out.items()]
    return pd.DataFrame(rows)


def utterance(run: RunResult, sample: str = UTTERANCE) -> pd.DataFrame:
    """:func:`word_by_word` of one test sample of a trained run, with id, sentiment and word (of the row).

    Raises:
        ConfigError: the sample is not in the test split. DataError: its words don't fit its frames.
    """
    test = run.load_data()["test"]
    table = word_by_word(run.load_method(test), test, sample)
    row = test.ids.index(sample)
    words = test.transcripts[row].split()
    if len(words) != int(table["row"].max()) + 1:
        raise DataError(f"{sample!r} has {len(words)} words and {int(table['row'].max()) + 1} frames; take another one")
    sentiment = round(float(test.labels[row]), 2)
    return table.assign(id=sample, sentiment=sentiment, word=[words[i] for i in table["row"]])


def write(runs: Path, target: Path) -> list[str]:
    """Write every table that ``runs`` has the folders for to ``target``; their names."""
    collaborative, readings = (runs / name for name in FOLDERS)
    written = named_tables(collaborative, target) if collaborative.is_dir() else []
    if readings.is_dir() and len(found := reading_critics(readings, runs / "ablations")):
        write_table(target / "collaborative_readings.csv", found, DIGITS)
        written.append("readings")
    return written


def reading_critics(readings: Path, ablations: Path) -> pd.DataFrame:
    """:func:`critic` of each run of the method that has a joint value: of ``readings``, and of ``full`` in ablations.

    Args:
        readings: folder of runs.
        ablations: another, which need not be there.
    """
    made = []
    for folder, label in ((readings, ""), (ablations, "full")):
        if folder.is_dir():
            found = collect(folder)
            found = found[(found["method"] == METHOD) & (found["label"].eq(label) | (label == ""))]
            made += [find_run(run_id, folder) for run_id in found["run_id"].unique()]
    parts = [
        of_run(critic(run), run)
        for run in made
        if has_joint_critic(CollaborativeMMCLConfig.for_dataset(run.config.dataset, **run.config.config))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def named_tables(runs: Path, target: Path) -> list[str]:
    """Write the tables of the two named variants from the folders of ``runs``; their names."""
    there = {folder.name: folder for folder in run_folders(runs, TABLES)}
    for name, folder in there.items():
        found = collect(folder)
        if name in BASELINES:
            others = read_results(target / BASELINES[name])
            others = others[~others["method"].isin(["contrastive_mmcl", METHOD]) & (others["run_id"] != "")]
            found = pd.concat([found, others], ignore_index=True)
        curate(found, target / f"collaborative_{name}.csv", split="test")
    trained = {name: named_runs(folder) for name, folder in there.items() if name != "ablations"}
    firsts = {run.config.described()["changes"]: run for run in reversed(trained.get("mosi", []))}
    looks = {
        "weights": [(weights, run) for name, found in trained.items() if name != "emotions" for run in found],
        "critics": [(critic, run) for found in trained.values() for run in found],
        "curves": [(learning, run) for run in trained.get("synthetic", [])],
        "utterance": [(utterance, run) for run in firsts.values()],
    }
    tables = {}
    for name, found in looks.items():
        parts = [of_run(look(run), run) for look, run in found]
        if parts:
            changes = sorted(VARIANTS.values(), key=len)
            tables[name] = names.in_order(pd.concat(parts), "changes", "seed", changes=changes)
            write_table(target / f"collaborative_{name}.csv", tables[name], DIGITS)
    oracle = pd.concat([oracle_gap(there[name]) for name in trained], ignore_index=True).drop_duplicates()
    oracle = oracle[oracle["changes"].isin(VARIANTS.values())]
    write_table(target / "collaborative_oracle.csv", oracle, DECIMALS)
    return [*there, *tables, "oracle"]


def weight_matrices(frame: pd.DataFrame, words: Sequence[str]) -> Figure:
    """Similarity and weights of an utterance's text, one row of panels per variant; each column has one colour scale.

    Args:
        frame: tidy ``variant, modality, quantity, row, column, value`` with quantities ``similarity``, ``common`` and
            ``specific``.
        words: labels of the positions.
    """
    variants = list(dict.fromkeys(frame["variant"]))
    side = 0.9 + 0.165 * len(words)
    figure = Figure(figsize=(3 * side + 1.2, side * len(variants) + 0.9), layout="constrained")
    axes = figure.subplots(len(variants), len(QUANTITIES), squeeze=False)
    chosen = frame[frame["modality"] == "text"]
    for column, (quantity, title) in enumerate(QUANTITIES.items()):
        part = chosen[chosen["quantity"] == quantity]
        top = part["value"].abs().max() if quantity == "similarity" else part["value"].max()
        scale = {"cmap": palette.SEQUENTIAL, "vmin": 0, "vmax": top}
        if quantity == "similarity":
            scale = {"cmap": palette.DIVERGING, "vmin": -top, "vmax": top}
        for axis, variant in zip(axes[:, column], variants, strict=True):
            rows = part[part["variant"] == variant]
            matrix = rows.pivot_table(index="row", columns="column", values="value").to_numpy()
            image = axis.imshow(matrix, **scale)
            lowest, at_left = variant == variants[-1], column == 0
            axis.set_xticks(range(len(words)), words if lowest else [], rotation=90)
            axis.set_yticks(range(len(words)), words if at_left else [])
            if not lowest:
                axis.set_xticks([])
            axis.tick_params(length=0)
            axis.grid(False)
            axis.set_title(title if variant == variants[0] else "")
            axis.set_ylabel(variant if at_left else "", fontweight="bold")
        figure.colorbar(image, ax=list(axes[:, column]), location="bottom", shrink=0.8, aspect=16)
    return figure


def distance_from_uniform(frame: pd.DataFrame) -> Figure:
    """How far the entropy of the weights is from uniform: 1 - H / log T on a log axis, with the bound of the variant.

    Args:
        frame: tidy ``group, part, run_id, entropy, bound``, as :func:`entropy_lines` returns it: one dot per row, one
            line per group and part; a mark at the largest distance that the parameters could reach.
    """
    lines = frame.assign(name=frame["group"] + ", " + frame["part"], value=1 - frame["entropy"])
    lines["mark"] = frame["group"].str.rpartition(", ")[2]
    bounds = lines.groupby("name", sort=False).agg(bound=("bound", "min"), low=("value", "min")).reset_index()
    bounds = bounds.assign(value=1 - bounds["bound"], high=1 - bounds["bound"], mark="bound")
    marks = {
        **{name: {"color": color, "ms": 4, "mew": 0, "alpha": 0.7, "label": name} for name, color in COLORS.items()},
        "bound": {"color": palette.GREY, "marker": "|", "ms": 14, "mew": 2.5, "label": "bound for all parameters"},
    }
    label = "1 − entropy / log T        (left: a plain mean; right: a choice)"
    drawn = pd.concat([lines, bounds], ignore_index=True)[["name", "mark", "value", "low", "high"]]
    figure = dots(drawn, marks, label, width=5)
    figure.axes[0].set_xscale("log")
    return figure


def word_gates(
    frame: pd.DataFrame, missing: Mapping[str, Sequence[int]], marks: Mapping[str, Mapping[str, int]]
) -> Figure:
    """Gates over the words of one utterance, one panel per modality, one line per variant.

    Args:
        frame: tidy ``variant, modality, row, value``, the valid positions.
        missing: modality to positions that were not observed; shaded.
        marks: modality to named positions; dotted lines.
    """
    drawn = frame.assign(line=frame["variant"], x=frame["row"], panel=frame["modality"])
    styles = {name: {"color": color, "marker": "o", "ms": 3.5} for name, color in COLORS.items()}
    figure = curves(drawn, styles, "word", "gate", columns=1, width=7, height=1.45, integer=True)
    for axis in figure.axes:
        modality = axis.get_title()
        for position in missing[modality]:
            axis.axvspan(position - 0.5, position + 0.5, color=palette.GREY, alpha=0.25, lw=0)
        mark_words(axis, marks[modality])
        axis.set(title="", ylabel=f"{modality}\ngate")
    return figure


def reward_index(dependence: Mapping[str, np.ndarray], scatter: pd.DataFrame) -> Figure:
    """Whose prediction each reward reads, and the wrong reward against the intended one.

    Args:
        dependence: title to ``(B, B)``: the gradient of reward i (row) with respect to the prediction for sample j.
        scatter: columns ``model`` (one panel each), ``intended`` and ``computed``.
    """
    models = list(dict.fromkeys(scatter["model"]))
    columns = len(dependence) + len(models)
    figure = Figure(figsize=(2.55 * columns + 0.3, 2.9), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis, (title, matrix) in zip(axes, dependence.items(), strict=False):
        axis.imshow(matrix > 0, cmap="Greys", vmin=0, vmax=1.4, aspect="equal")
        axis.set(title=title, xlabel="prediction of sample", ylabel="reward of sample")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.grid(False)
    low, high = scatter[["intended", "computed"]].min().min(), scatter[["intended", "computed"]].max().max()
    for axis, model in zip(axes[len(dependence) :], models, strict=True):
        rows = scatter[scatter["model"] == model]
        axis.plot([low, high], [low, high], color=palette.GREY, lw=1)
        axis.scatter(rows["intended"], rows["computed"], s=8, alpha=0.5, color=palette.VERMILLION, linewidths=0)
        correlation = rows["intended"].corr(rows["computed"])
        axis.set(title=f"{model}\ncorrelation {correlation:+.2f}", xlabel="intended reward", ylabel="as indexed")
        axis.set_box_aspect(1)
    return figure


def states_in_training(frame: pd.DataFrame) -> Figure:
    """Length of a state and mean gate of a sample in training against evaluation, with the same weights.

    Args:
        frame: tidy ``variant``, ``norm_evaluation``, ``norm_training``, ``gate_evaluation``, ``gate_training``.
    """
    figure, axes = grid(2, 2, 3.4, 3.0, margin=0)
    for axis, (name, label) in zip(axes, (("norm", "length of the state"), ("gate", "mean gate")), strict=True):
        columns = [f"{name}_evaluation", f"{name}_training"]
        ends = [frame[columns].min().min(), frame[columns].max().max()]
        axis.plot(ends, ends, color=palette.GREY, lw=1)
        for variant, rows in frame.groupby("variant", sort=False):
            color = COLORS[str(variant)]
            axis.scatter(rows[columns[0]], rows[columns[1]], s=7, alpha=0.45, linewidths=0, color=color)
        axis.set(xlabel=f"{label}, evaluation", ylabel=f"{label}, training")
    legend(figure, {name: {"marker": "o", "ls": "", "color": color} for name, color in COLORS.items()})
    return figure


def policy_curves(history: pd.DataFrame) -> Figure:
    """What actor and critic learn over epochs, one curve per seed.

    Args:
        history: tidy ``variant, seed, epoch, name, value`` with the names of :data:`CURVES`.
    """
    rows = names.in_order(history, "name", name=CURVES)
    rows = rows.assign(panel=rows["name"].map(CURVES), line=rows["variant"], x=rows["epoch"], unit=rows["seed"])
    styles = {name: {"color": color, "lw": 1.4, "alpha": 0.7} for name, color in COLORS.items()}
    return curves(rows, styles, "epoch", "", columns=2, width=3.7, sharey=False, integer=True)


def oracle_dumbbells(frame: pd.DataFrame) -> Figure:
    """Each run's test value at the epoch that validation chose, and the best over all epochs.

    Args:
        frame: tidy ``group, seed, metric, value, oracle``, as :func:`oracle_lines` returns it.
    """
    seeds = sorted(frame["seed"].unique())
    offset = dict(zip(seeds, np.linspace(-0.28, 0.28, max(2, len(seeds))), strict=False))
    marks, parts = {}, []
    for seed, place in offset.items():
        first = seed == seeds[0]
        chosen = {"color": palette.BLUE, "ms": 4, "offset": place}
        best = {"color": palette.VERMILLION, "ms": 4, "mfc": "white", "offset": place}
        marks[f"chosen {seed}"] = chosen | ({"label": "epoch chosen on validation data"} if first else {})
        marks[f"best {seed}"] = best | ({"label": "best epoch on the test data"} if first else {})
    for column, mark in (("oracle", "best"), ("value", "chosen")):
        rows = frame.assign(mark=[f"{mark} {seed}" for seed in frame["seed"]], name=frame["group"])
        rows["panel"] = rows["metric"].map({metric: label for metric, (label, _) in names.METRICS.items()})
        if mark == "chosen":
            rows = rows.assign(low=rows[["value", "oracle"]].min(axis=1), high=rows[["value", "oracle"]].max(axis=1))
        parts.append(rows.assign(value=rows[column]))
    return dots(pd.concat(parts, ignore_index=True), marks, "", line=0.55)


def entropy_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``collaborative_weights.csv`` as :func:`distance_from_uniform` draws them, the reference first."""
    named = by_variant(table).assign(data=names.data_of)
    named = names.in_order(named, "variant", "part", "data", variant=VARIANTS)
    group = named["data"].map(names.DATA) + ", " + named["variant"]
    return named.assign(group=group)[["group", "part", "run_id", "modality", "entropy", "bound"]]


def oracle_lines(oracle: pd.DataFrame) -> pd.DataFrame:
    """The two named variants in ``collaborative_oracle.csv``, on the sets with sentiment labels, one group each."""
    own = oracle[(oracle["method"] == METHOD) & oracle["metric"].isin(names.METRICS)]
    named = names.in_order(by_variant(own).assign(data=names.data_of), "data", "variant", variant=VARIANTS)
    group = named["data"].map(names.DATA) + ", " + named["variant"]
    return named.assign(group=group)[["group", "run_id", "seed", "metric", "value", "oracle", "gap"]]


@figure("collaborative_utterance", sources=[f"{RESULTS}/collaborative_utterance.csv"])
def collaborative_utterance(found: pd.DataFrame) -> Figure:
    """Similarity and weights of the text of one MOSI utterance in a trained run of each variant."""
    words = found[(found["quantity"] == "gate") & (found["modality"] == "text")].drop_duplicates("row")["word"]
    return weight_matrices(by_variant(found), list(words))


@figure("collaborative_weights", sources=[f"{RESULTS}/collaborative_weights.csv"])
def collaborative_weights(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Entropy of the weights of all trained runs on their test samples, against the bound of each variant."""
    drawn = entropy_lines(table)
    return distance_from_uniform(drawn), drawn


@figure("collaborative_curves", sources=[f"{RESULTS}/collaborative_curves.csv"])
def collaborative_curves(history: pd.DataFrame) -> Figure:
    """What actor and critic learn on the synthetic set, all seeds of both variants."""
    return policy_curves(by_variant(history))


@figure("collaborative_oracle", sources=[f"{RESULTS}/collaborative_oracle.csv"])
def collaborative_oracle(oracle: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What selection on the test set would have claimed, on the sets with sentiment labels."""
    drawn = oracle_lines(oracle)
    return oracle_dumbbells(drawn), drawn


@figure("collaborative_ablations", [f"{RESULTS}/collaborative_{name}.csv" for name in ("synthetic", "ablations")])
def collaborative_ablations(main: pd.DataFrame, ablations: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch of ``collaborative_mmcl`` against the default on the synthetic set, paired over seeds."""
    effects = ablation_effects(pd.concat([main, ablations], ignore_index=True), METHOD)
    title = f"{METHOD}, synthetic test split, 95 % intervals"
    return forest(effects, "MAE, switch − default", title=title, width=5), effects


for table in ("synthetic", "mosi", "mmmo", "emotions"):
    figure(f"collaborative_{table}", [f"{RESULTS}/collaborative_{table}.csv"])(draw_results)
