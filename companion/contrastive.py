"""Notebook 02: how far categories and modalities stand apart, pair masks, and the tables that its runs give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn.functional import normalize

from companion.shared import of_run, run_folders, runs_of, speaker_of, write_table
from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.registry import GENERATED
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import grid
from mmsa_lib.losses.contrastive import category_pairs
from mmsa_lib.training import represent

METHOD = "contrastive_mmcl"
FOLDERS, DIGITS = ("ablations", "readings"), 5
ROLES = {
    0: ("not compared", "#F2F2F2"),
    1: ("pushed apart", palette.ORANGE),
    2: ("pulled together", palette.BLUE),
    3: ("both", palette.PURPLE),
}
"""Meaning and colour of the codes of a pair mask: ``2 * pulled + pushed``."""


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
        stages = {name.partition("/")[2]: x for name, x in found.items() if name.startswith(f"{m}/")}
        factors = {"shared": data.factors["shared"], "speaker": data.factors[speaker_of(data, m)]}
        rows.append(probe(stages, factors, groups=data.groups).assign(modality=m))
    table = pd.concat(rows, ignore_index=True).rename(columns={"representation": "stage"})
    return table[["stage", "modality", "factor", "r2"]]


def write(runs: Path, target: Path) -> list[str]:
    """Write ``contrastive_cosines.csv`` and ``contrastive_probes.csv`` from the runs on generated data; their names."""
    parts, loaded = {"cosines": [], "probes": []}, {}
    for folder in run_folders(runs, FOLDERS):
        for run in runs_of(folder, METHOD):
            if run.config.dataset not in GENERATED:
                continue
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


def gap_across(u: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> float:
    """Mean cosine of one sample in two modalities minus that of two samples, over all pairs of modalities.

    Args:
        u: per modality ``(B, D)``, of any length.
        present: per modality ``(B,)`` bool; a sample that lacks a modality is left out of its pairs.

    Raises:
        DataError: a pair of modalities has fewer than two samples in common.
    """
    gaps = []
    for m, n in combinations(u, 2):
        both = present[m] & present[n]
        if (count := int(both.sum())) < 2:
            raise DataError(f"{m} and {n} have {count} samples in common; their cosines need two or more")
        cosines = normalize(u[m][both].double(), dim=-1) @ normalize(u[n][both].double(), dim=-1).T
        own = cosines.diagonal().sum()
        gaps.append(own / count - (cosines.sum() - own) / (count * (count - 1)))
    return float(torch.stack(gaps).mean())


def pair_masks(panels: Mapping[str, Tensor], labels: Sequence[str], blocks: int = 0) -> Figure:
    """Pair masks as matrices: rows are anchors, columns what they are compared with.

    Args:
        panels: title to an ``(N, N)`` matrix of the codes in :data:`ROLES`.
        labels: of the N rows and columns.
        blocks: a line after each so many rows and columns (samples per modality); 0 for none.
    """
    count = len(labels)
    side = 1.4 + 0.24 * count
    figure, axes = grid(len(panels), 2, side, side, foot=0.4, sharex=True, sharey=True)
    colors, norm = ListedColormap([color for _, color in ROLES.values()]), BoundaryNorm(np.arange(5) - 0.5, len(ROLES))
    for place, (axis, (title, codes)) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.imshow(codes.numpy(), cmap=colors, norm=norm)
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
        axis.set(title=title, ylabel="" if place else "anchor")
    used = sorted({int(code) for codes in panels.values() for code in np.unique(codes)})
    patches = [Patch(color=ROLES[code][1], label=ROLES[code][0]) for code in used]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    return figure


def cosine_histograms(vectors: Mapping[str, Mapping[str, Tensor]], categories: Mapping[str, Tensor]) -> Figure:
    """Cosines of all pairs of the same and of different categories, one row of panels per network, on one scale.

    Args:
        vectors: name of a network to modality to ``(N, D)``.
        categories: modality to ``(N,)``.
    """
    columns = list(categories)
    figure, axes = grid(len(vectors) * len(columns), len(columns), 2.9, 1.35, foot=0.9, sharex=True)
    panels = [(name, m) for name in vectors for m in columns]
    for place, (axis, (name, m)) in enumerate(zip(axes, panels, strict=True)):
        z = normalize(vectors[name][m].detach().double(), dim=-1)
        positives, negatives = category_pairs(categories[m])
        cosines = z @ z.T
        for label, (pairs, color) in {
            "different category": (negatives, palette.ORANGE), "same category": (positives, palette.BLUE),
        }.items():  # fmt: skip
            drawn, look = cosines[pairs].numpy(), {"bins": np.linspace(-1, 1, 61), "density": True, "color": color}
            axis.hist(drawn, **look, histtype="stepfilled", alpha=0.25, label=label)
            axis.hist(drawn, **look, histtype="step", lw=1.3)
        axis.set(title=m if place < len(columns) else "", yticks=[], ylabel="" if place % len(columns) else name)
        axis.grid(False)
        if place >= len(panels) - len(columns):
            axis.set_xlabel("cosine of two utterances")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
