"""Notebook 02: what contrastive learning does to gradients and to a space of vectors, and how its results look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn.functional import normalize

from companion import names
from companion.shared import RESULTS, ablation_effects, draw_results, of_run, run_folders, write_table
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.registry import GENERATED
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.results import collect
from mmsa_lib.experiments.runs import find_run
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves, forest, grid, mark_words
from mmsa_lib.figures.registry import figure
from mmsa_lib.losses.contrastive import category_pairs
from mmsa_lib.methods.base import Method
from mmsa_lib.training import represent

METHOD = "contrastive_mmcl"
FOLDERS, DIGITS = ("ablations", "readings"), 5
ROLES = {
    0: ("not compared", "#F2F2F2"),
    1: ("denominator (pushed apart)", palette.ORANGE),
    2: ("numerator (pulled together)", palette.BLUE),
    3: ("both", palette.SKY),
    4: ("denominator of a term of its own", palette.YELLOW),
}
"""Meaning and colour of the codes of a pair mask: ``2 * numerator + denominator``, and 4 for an extra term."""

CATEGORY = {"negative": palette.VERMILLION, "neutral": palette.GREY, "positive": palette.BLUE}
"""Colours of the signs of a label."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-")


def gradient_norms(method: Method, batch: Batch, parts: Sequence[str]) -> pd.DataFrame:
    """Length of the gradient of each weighted loss term with respect to each part of a method.

    A stopped gradient shows as an absent path (NaN), which is not the same as a gradient that happens to be 0.
    Gradients that the parameters already hold stay as they are.

    Args:
        method: in any mode; the terms are those of training, and the mode is put back.
        batch: the samples of one step.
        parts: prefixes of parameter names, such as ``"specific"`` or ``"routing.shared"``.

    Returns:
        Columns ``term``, ``part`` and ``norm``: the Euclidean norm over all parameters of the part that the term
        reaches, or NaN where it reaches none of them.

    Raises:
        ConfigError: no parameter is named like a part.
    """
    named = dict(method.named_parameters())
    members = {part: [name for name in named if name == part or name.startswith(f"{part}.")] for part in parts}
    if empty := [part for part, names in members.items() if not names]:
        children = [name for name, child in method.named_children() if any(True for _ in child.parameters())]
        raise ConfigError(f"{method.id} has no parameter below {empty[0]!r}; its parts are {', '.join(children)}")
    training = method.training
    method.train()
    try:
        terms = method.losses(batch, method(batch))
    finally:
        method.train(training)
    trainable = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    rows = []
    for term, value in terms.items():
        found: Sequence[Tensor | None] = ()
        if value.requires_grad and trainable:
            found = torch.autograd.grad(value, list(trainable.values()), retain_graph=True, allow_unused=True)
        squares = {n: g.double().square().sum() for n, g in zip(trainable, found, strict=False) if g is not None}
        for part, below in members.items():
            reached = [squares[name] for name in below if name in squares]
            rows.append((term, part, float(torch.stack(reached).sum().sqrt()) if reached else float("nan")))
    return pd.DataFrame(rows, columns=["term", "part", "norm"])


def pair_cosines(z: Tensor, categories: Tensor) -> dict[str, float]:
    """Mean cosines of pairs of the same and of different categories.

    Args:
        z: ``(B, D)`` unit rows.
        categories: ``(B,)`` int.

    Returns:
        ``positive`` and ``negative`` (all pairs) and ``hard_positive`` (the most distant 5 % of the positives).

    Raises:
        DataError: there is no pair of the same, or none of different categories.
    """
    similarity = z.detach().double() @ z.detach().double().T
    positives, negatives = category_pairs(categories)
    if not positives.any() or not negatives.any():
        raise DataError("cosines of pairs need two samples of one category and one of another")
    ordered, _ = similarity[positives].sort()
    hardest = ordered[: max(1, round(0.05 * len(ordered)))]
    return {
        "positive": float(ordered.mean()),
        "hard_positive": float(hardest.mean()),
        "negative": float(similarity[negatives].mean()),
    }


def category_gap(vectors: Tensor, categories: Tensor) -> float:
    """Mean cosine of two samples of one category minus that of two samples of different categories.

    Over all pairs, without making them: the cosines of all pairs of some unit rows, each pair twice and each row with
    itself, add up to the squared length of their sum.

    Args:
        vectors: ``(N, D)``, of any length.
        categories: ``(N,)`` int.

    Raises:
        DataError: there is no pair of the same, or none of different categories.
    """
    z = normalize(vectors.double(), dim=-1)
    itself = z.square().sum()  # the number of rows, but for rows of zeros
    members = (categories == categories.unique().unsqueeze(1)).double()  # (C, N)
    sizes = members.sum(1)
    same, count = (members @ z).square().sum() - itself, (sizes * (sizes - 1)).sum()
    every, pairs = z.sum(0).square().sum() - itself, len(z) * (len(z) - 1)
    if not 0 < count < pairs:
        raise DataError("cosines of pairs need two samples of one category and one of another")
    return float(same / count - (every - same) / (pairs - count))


def separation(found: Mapping[str, Tensor], data: Utterances) -> pd.DataFrame:
    """:func:`category_gap` of each modality in each stage.

    Args:
        found: by :func:`~mmsa_lib.training.represent`: what the head reads.
        data: the same samples; of each modality those that have it, and a label.

    Returns:
        Columns ``stage``, ``modality`` and ``gap``.
    """
    batch, rows = data.data, []
    for name, vectors in found.items():
        modality, _, stage = name.partition("/")
        if stage:
            here = batch.observed[modality].any(dim=1)
            here = here if batch.labelled is None else here & batch.labelled
            gap = category_gap(vectors[here], data.task.categories(batch.labels[here]))
            rows.append({"stage": stage, "modality": modality, "gap": gap})
    return pd.DataFrame(rows)


def planted(found: Mapping[str, Tensor], data: Utterances) -> pd.DataFrame:
    """How well what the modalities share, and who speaks, can be read off each stage, on utterances of other speakers.

    Args:
        found: as in :func:`separation`.
        data: the same samples, generated.

    Returns:
        Columns ``stage``, ``modality``, ``factor`` (``shared``, ``speaker``) and ``r2``.
    """
    rows = []
    for m in data.modalities:
        own = "speaker" if "speaker" in data.factors else f"speaker_{m}"  # common to all, or of each modality its own
        stages = {name.partition("/")[2]: x for name, x in found.items() if name.startswith(f"{m}/")}
        factors = {"shared": data.factors["shared"], "speaker": data.factors[own]}
        rows.append(probe(stages, factors, groups=data.groups).assign(modality=m))
    table = pd.concat(rows, ignore_index=True).rename(columns={"representation": "stage"})
    return table[["stage", "modality", "factor", "r2"]]


def write(runs: Path, target: Path) -> list[str]:
    """Write ``contrastive_cosines.csv`` and ``contrastive_probes.csv`` from the runs on generated data; their names."""
    parts, loaded = {"cosines": [], "probes": []}, {}
    for folder in run_folders(runs, FOLDERS):
        table = collect(folder)
        chosen = table[(table["method"] == METHOD) & table["dataset"].isin(list(GENERATED))]
        for run_id in chosen["run_id"].unique():
            run = find_run(run_id, folder)
            data = (run.config.dataset, str(run.config.load_options))
            if data not in loaded:
                loaded[data] = run.load_data()["test"]
            test = loaded[data]
            found = represent(run.load_method(test), test)
            parts["cosines"].append(of_run(separation(found, test).assign(split="test"), run))
            parts["probes"].append(of_run(planted(found, test), run))
    written = [name for name, tables in parts.items() if tables]
    for name in written:
        write_table(target / f"contrastive_{name}.csv", pd.concat(parts[name], ignore_index=True), DIGITS)
    return written


def retrieval(u: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> pd.DataFrame:
    """How often the nearest vector of another modality belongs to the same sample.

    A hit needs a cosine strictly above that of every other sample, so a collapsed space scores 0 and not by order.

    Args:
        u: per modality ``(B, D)`` unit rows.
        present: per modality ``(B,)`` bool; samples that lack a modality of a pair are left out of it. ``None``: all.

    Returns:
        Columns ``anchor``, ``target``, ``samples``, ``top1`` (share of hits), ``chance`` (1 / samples), ``same`` and
        ``other`` (mean cosine with the same and with other samples).

    Raises:
        DataError: a pair of modalities has fewer than two samples in common.
    """
    rows = []
    for anchor in u:
        for target in (m for m in u if m != anchor):
            kept = torch.ones(len(u[anchor]), dtype=torch.bool)
            if present is not None:
                kept = present[anchor].cpu() & present[target].cpu()
            count = int(kept.sum())
            if count < 2:
                raise DataError(f"{anchor} and {target} have {count} samples in common; retrieval needs two or more")
            cosines = u[anchor].detach().double().cpu()[kept] @ u[target].detach().double().cpu()[kept].T
            own, itself = cosines.diagonal(), torch.eye(count, dtype=torch.bool)
            best_other = cosines.masked_fill(itself, -torch.inf).amax(dim=1)
            top1 = float((own > best_other).double().mean())
            means = float(own.mean()), float(cosines[~itself].mean())
            rows.append((anchor, target, count, top1, 1 / count, *means))
    return pd.DataFrame(rows, columns=["anchor", "target", "samples", "top1", "chance", "same", "other"])


def principal_components(x: Any, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the directions of largest variance.

    The sign of a direction is arbitrary; here its largest entry is positive, so that machines agree.

    Args:
        x: ``(N, D)`` tensor or array.
        count: directions wanted, at most ``min(N, D)``.

    Returns:
        Coordinates ``(N, count)`` of the centred rows, and the share of the variance that each direction explains
        (zeros where all rows coincide).

    Raises:
        ConfigError: more directions than rows or columns.
    """
    matrix = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64)
    if not 1 <= count <= min(matrix.shape):
        raise ConfigError(f"a {matrix.shape} matrix has no {count} principal components")
    centred = matrix - matrix.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = directions[np.arange(count), np.abs(directions).argmax(axis=1)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)[:, None]
    total = (scale**2).sum()
    return centred @ directions.T, scale[:count] ** 2 / total if total > 0 else np.zeros(count)


def pair_masks(panels: Mapping[str, np.ndarray], labels: Sequence[str], blocks: int = 0, columns: int = 2) -> Figure:
    """Pair masks as matrices: rows are anchors, columns what they are compared with.

    Args:
        panels: title to an ``(N, N)`` matrix of the codes in :data:`ROLES`.
        labels: of the N rows and columns.
        blocks: a line after each so many rows and columns (samples per modality); 0 for none.
        columns: panels side by side.
    """
    columns, count = min(columns, len(panels)), len(labels)
    side = 1.1 + 0.14 * count
    figure, axes = grid(len(panels), columns, side, side, foot=0.8, sharex=True, sharey=True)
    colors, norm = ListedColormap([color for _, color in ROLES.values()]), BoundaryNorm(np.arange(6) - 0.5, len(ROLES))
    for place, (axis, (title, codes)) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.imshow(codes, cmap=colors, norm=norm)
        axis.set_xticks(range(count), labels, rotation=90)
        axis.set_yticks(range(count), labels)
        axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axis.tick_params(which="both", length=0)
        axis.grid(False)
        axis.grid(which="minor", color="white", lw=0.8)
        for edge in range(blocks, count, blocks) if blocks else ():
            axis.axhline(edge - 0.5, color=palette.BLACK, lw=1)
            axis.axvline(edge - 0.5, color=palette.BLACK, lw=1)
        axis.set(title=title, ylabel="" if place % columns else "anchor")
    used = sorted({int(code) for codes in panels.values() for code in np.unique(codes)})
    patches = [Patch(color=ROLES[code][1], label=ROLES[code][0]) for code in used]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(3, len(patches)))
    return figure


def routing_coefficients(coupling: Mapping[str, np.ndarray], marks: Mapping[str, Mapping[str, int]]) -> Figure:
    """Coupling coefficients of one utterance, words across and capsules down, one panel per modality.

    Args:
        coupling: modality to ``(T, K)``, the valid steps only; each step sums to 1.
        marks: modality to named steps.
    """
    figure, axes = grid(len(coupling), 1, 7.6, 1.6, margin=0, foot=0.5)
    top = max(values.max() for values in coupling.values())
    for axis, (modality, values) in zip(axes, coupling.items(), strict=True):
        image = axis.imshow(values.T, aspect="auto", cmap=palette.SEQUENTIAL, vmin=0, vmax=top, interpolation="nearest")
        steps, capsules = values.shape
        axis.set_yticks(range(capsules), [str(k + 1) if k % 2 == 0 else "" for k in range(capsules)])
        axis.set_xticks(range(0, steps, max(1, steps // 10)))
        axis.set(ylabel=f"{modality}\ncapsule")
        axis.grid(False)
        mark_words(axis, marks[modality])
    axes[-1].set_xlabel("step (word)")
    figure.colorbar(image, ax=axes, label="coupling coefficient", shrink=0.9)
    return figure


def modulation_weights(weights: pd.DataFrame, price: pd.DataFrame) -> Figure:
    """Weight of a positive pair against its cosine, and what the exponent buys and costs.

    Args:
        weights: tidy ``formula, cosine, weight``.
        price: tidy ``denominator, gamma, seed, measure, cosine``: cosines after a training.
    """
    kinds, measures = list(dict.fromkeys(price["denominator"])), list(dict.fromkeys(price["measure"]))
    figure = Figure(figsize=(3.3 + 2.4 * len(kinds), 3.3), layout="constrained")
    left, *rest = figure.subplots(1, 1 + len(kinds), width_ratios=(1.25, *[1] * len(kinds)))
    formulas = weights.groupby("formula", sort=False)
    for color, dash, (formula, rows) in zip(palette.CYCLE, DASHES, formulas, strict=False):
        left.plot(rows["cosine"], rows["weight"], color=color, ls=dash, label=formula)
    left.axhline(0, color=palette.BLACK, lw=0.6)
    left.set(xlabel="cosine of the positive pair", ylabel="weight ω (mean 1)")
    left.set_title("hard pairs left, easy pairs right")
    for axis, kind in zip(rest, kinds, strict=True):
        rows = price[price["denominator"] == kind]
        for color, marker, measure in zip(palette.CYCLE, "o^s", measures, strict=False):
            part = rows[rows["measure"] == measure]
            mean = part.groupby("gamma")["cosine"].mean()
            axis.scatter(part["gamma"], part["cosine"], s=10, color=color, alpha=0.4, linewidths=0)
            axis.plot(mean.index, mean, color=color, marker=marker, label=measure)
        low = min(-0.05, price["cosine"].min() - 0.05)
        axis.set(xlabel="exponent γ", title=f"denominator: {kind}", ylim=(low, 1.05))
        axis.set_xticks(sorted(rows["gamma"].unique()))
    rest[0].set_ylabel("cosine after training")
    for axis, place, across in ((left, "left", 3), (rest[0], "right", 1)):
        figure.legend(*axis.get_legend_handles_labels(), loc=f"outside lower {place}", ncols=across)
    return figure


def contrastive_terms(history: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """The raw contrastive terms over epochs, each beside the value that needs no learning.

    Args:
        history: tidy ``run, epoch, name, value`` with names such as ``cmc`` and ``smc``.
        references: name of a term to its value where all vectors coincide.
    """
    frame = history.rename(columns={"run": "line", "epoch": "x"}).assign(panel=history["name"].str.upper())
    floors = pd.DataFrame(
        {"panel": name.upper(), "baseline": "all vectors equal", "value": value} for name, value in references.items()
    )
    lines = zip(dict.fromkeys(frame["line"]), palette.CYCLE, DASHES, strict=False)
    styles = {run: {"color": color, "ls": dash} for run, color, dash in lines}
    return curves(frame, styles, "epoch", "raw training loss", floors=floors, width=3.6, sharey=False, integer=True)


def cosine_traces(frame: pd.DataFrame) -> Figure:
    """Mean cosines of pairs over epochs, one panel per modality; one colour per run, dotted for pairs to be separated.

    Args:
        frame: tidy ``run, epoch, modality, pairs, cosine``; the first value of ``pairs`` is drawn solid.
    """
    drawn = frame.rename(columns={"epoch": "x", "cosine": "value", "modality": "panel"})
    drawn = drawn.assign(line=drawn["run"] + ", " + drawn["pairs"])
    kinds = list(dict.fromkeys(frame["pairs"]))
    styles = {
        f"{run}, {kind}": {"color": color, "ls": dash}
        for color, run in zip(palette.CYCLE, dict.fromkeys(frame["run"]), strict=False)
        for dash, kind in zip(("-", ":"), kinds, strict=False)
    }
    return curves(drawn, styles, "epoch", "mean cosine", width=2.5, integer=True)


@figure("contrastive_ablations", sources=[f"{RESULTS}/contrastive_{name}.csv" for name in ("synthetic", "ablations")])
def contrastive_ablations(main: pd.DataFrame, ablations: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch of ``contrastive_mmcl`` against the full method on the synthetic set, paired over seeds."""
    effects = ablation_effects(pd.concat([main, ablations], ignore_index=True), METHOD)
    title = f"{METHOD}, synthetic test split, 95 % intervals"
    return forest(effects, "MAE, switch − full method", title=title, width=5), effects


for table in ("synthetic", "mosi", "mmmo"):
    title = f"Test results on {names.DATA[table]}, beside the constant median."
    figure(f"contrastive_{table}", [f"{RESULTS}/contrastive_{table}.csv"], title)(draw_results)
