"""Weights of the decoupling beside uniform ones, what a critic knows, what actor and critic learn: over trained runs.

A weight matrix that is uniform averages: every position gets the mean of the sequence. So the question is how far the
entropy of a row is below log T.

:func:`write` makes ``collaborative_<name>.csv`` from the folders :data:`FOLDERS` of runs.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from companion import names
from companion.shared import RESULTS, of_run, runs_of, write_table
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.runs import RunResult
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves, dots
from mmsa_lib.figures.registry import figure
from mmsa_lib.methods.base import evaluation_mode
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL, CollaborativeMMCLConfig, Variant, joint_reward

METHOD = "collaborative_mmcl"
FOLDERS = ("ablations", "readings")
VARIANTS = {"reference": "reference", "corrected": "full"}
"""The two named variants, and their labels among the ablations."""

COLORS = {"reference": palette.VERMILLION, "corrected": palette.BLUE}
DIGITS = 9
"""Digits after the point: how far nearly uniform weights are from uniform shows in the sixth."""

CURVES = {
    "raw/critic": "critic: |Q − target|",
    "raw/actor": "actor: −Q",
    "policy/reward": "reward",
    "policy/gate": "mean gate",
}


def weight_entropy(method: CollaborativeMMCL, batch: Batch) -> pd.DataFrame:
    """Mean relative entropy of the weights of valid positions: rows ``modality``, ``part`` (common, specific).

    Samples with one word have no choice and don't count. In ``reference`` padding competes too.

    Raises:
        ConfigError: the method has no decoupling, or no sample has two words.
    """
    if method.config.no_decoupling:
        raise ConfigError("this method was built with no_decoupling=True; there are no weights to look at")
    with evaluation_mode(method):
        found = method.decouple(batch)
    rows = []
    for name, matrix in found.weights.items():
        modality, _, part = name.partition("/")
        words = batch.valid[modality][:, : matrix.shape[1]]
        kept = torch.zeros_like(found.valid[modality])
        kept[:, : words.shape[1]] = words & (words.sum(1, keepdim=True) > 1)
        if not kept.any():
            raise ConfigError(f"no sample has two valid positions of {modality}; there is nothing to tell apart")
        entropy = float(relative_entropy(matrix, found.valid[modality])[kept].mean())
        rows.append({"modality": modality, "part": part, "entropy": entropy})
    return pd.DataFrame(rows)


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


def relative_entropy(weights: Tensor, competing: Tensor) -> Tensor:
    """Entropy of each row of weights ``(B, R, T)`` over log T, with T the competing positions: ``(B, R)``.

    Computed in float64: near uniform weights it differs from 1 in the sixth digit. With one position it is NaN.
    """
    exact = weights.double()
    exact = exact / exact.sum(-1, keepdim=True)  # a sum that is 1 in float32 only would count in the first order
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


def by_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the two named variants with a column ``variant``, the reference first."""
    variant = rows["label"].map({label: name for name, label in VARIANTS.items()})
    named = rows.assign(variant=variant).dropna(subset=["variant"])
    return named.sort_values("variant", ascending=False, kind="stable")


def named_runs(folder: Path, *labels: str) -> list[RunResult]:
    """Finished runs of the method in ``folder``, those of ``labels`` in their order, or all."""
    if not folder.is_dir():
        return []
    found = runs_of(folder, METHOD)
    if not labels:
        return found
    chosen = [run for run in found if run.config.label in labels]
    return sorted(chosen, key=lambda run: (labels.index(run.config.label), run.config.seed))


def learning(run: RunResult) -> pd.DataFrame:
    """What actor and critic learn, per epoch: columns epoch, name, value."""
    history = run.history
    return history[(history["split"] == "train") & history["name"].isin(CURVES)][["epoch", "name", "value"]]


def weights(run: RunResult) -> pd.DataFrame:
    """:func:`weight_entropy` on the test samples of a trained run.

    Adds ``steps`` (positions that compete: the longest training sample, or the mean number of words) and ``bound``: the
    smallest relative entropy that the weights could have at that number, whatever the parameters.
    """
    test = run.load_data()["test"]
    method = run.load_method(test)
    table = weight_entropy(method, test.data)
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


def write(runs: Path, target: Path) -> list[str]:
    """Write the tables that ``runs`` has the folders for to ``target``; their names."""
    ablations, readings = (runs / name for name in FOLDERS)
    variants, read = named_runs(ablations, *VARIANTS.values()), named_runs(readings)
    default = [run for run in variants if run.config.label == VARIANTS["corrected"]]
    looks = {
        "weights": [(weights, run) for run in variants],
        "curves": [(learning, run) for run in variants],
        "readings": [(critic, run) for run in (*read, *default) if has_joint_critic(config_of(run))],
    }
    written = []
    for name, found in looks.items():
        if found:
            table = pd.concat([of_run(look(run), run) for look, run in found], ignore_index=True)
            write_table(target / f"collaborative_{name}.csv", table, DIGITS)
            written.append(name)
    return written


def config_of(run: RunResult) -> CollaborativeMMCLConfig:
    """The method's values in a run."""
    return CollaborativeMMCLConfig.for_dataset(run.config.dataset, **run.config.config)


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


def policy_curves(history: pd.DataFrame) -> Figure:
    """What actor and critic learn over epochs, one curve per seed.

    Args:
        history: tidy ``variant, seed, epoch, name, value`` with the names of :data:`CURVES`.
    """
    rows = names.in_order(history, "name", name=CURVES)
    rows = rows.assign(panel=rows["name"].map(CURVES), line=rows["variant"], x=rows["epoch"], unit=rows["seed"])
    styles = {name: {"color": color, "lw": 1.4, "alpha": 0.7} for name, color in COLORS.items()}
    return curves(rows, styles, "epoch", "", columns=2, width=3.7, sharey=False, integer=True)


def entropy_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``collaborative_weights.csv`` as :func:`distance_from_uniform` draws them, the reference first."""
    named = by_variant(table).assign(data=names.data_of)
    named = names.in_order(named, "variant", "part", "data", variant=VARIANTS)
    group = named["data"].map(names.DATA) + ", " + named["variant"]
    return named.assign(group=group)[["group", "part", "run_id", "modality", "entropy", "bound"]]


@figure("collaborative_weights", sources=[f"{RESULTS}/collaborative_weights.csv"])
def collaborative_weights(table: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Entropy of the weights of all trained runs on their test samples, against the bound of each variant."""
    drawn = entropy_lines(table)
    return distance_from_uniform(drawn), drawn


@figure("collaborative_curves", sources=[f"{RESULTS}/collaborative_curves.csv"])
def collaborative_curves(history: pd.DataFrame) -> Figure:
    """What actor and critic learn, all seeds of both variants."""
    return policy_curves(by_variant(history))
