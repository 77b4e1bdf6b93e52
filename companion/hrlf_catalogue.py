"""The committed figures of ``hrlf``: the grid over weights, collapse, what is inside trained runs, and its switches."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.hrlf_panels import (
    agreement_lines,
    collapse_curves,
    effect_panels,
    pair_matrices,
    part_probes,
    weights_grid,
)
from mmsa_lib.evaluation.ablations import paired_effects
from mmsa_lib.figures.registry import figure

RESULTS = "data/results"
CHOSEN = "chosen weights"
SETS = {"synthetic": "synthetic", "mosi": "MOSI", "mmmo": "ICT-MMMO"}

SUMMARIES = {
    ("complete", "value"): "complete input",
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


@figure("hrlf_weights", sources=[f"{RESULTS}/hrlf_weights.csv"])
def hrlf_weights(weights: pd.DataFrame) -> Figure:
    """Validation error of each run of the grid over weights, beside the constant; failed runs are crosses."""
    return weights_grid(in_order(weights))


@figure("hrlf_collapse", sources=[f"{RESULTS}/hrlf_collapse.csv", f"{RESULTS}/hrlf_curves.csv"])
def hrlf_collapse(alone: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Spread of Z over samples: FRF alone, and teachers and students with printed and with chosen weights."""
    return collapse_curves(*collapse_panels(alone, curves))


@figure("hrlf_translation", sources=[f"{RESULTS}/hrlf_inside.csv"])
def hrlf_translation(inside: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What the students' factorization does on incomplete test samples, means over seeds."""
    means = pair_means(inside, "student", "incomplete")
    return pair_matrices(pair_panels(means)), means


@figure("hrlf_agreement", sources=[f"{RESULTS}/hrlf_agreement.csv"])
def hrlf_agreement(agreement: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """CKA of the student on incomplete test samples with the teacher on complete ones, by switch."""
    drawn = agreement_rows(agreement)
    return agreement_lines(drawn, "linear CKA with the teacher"), drawn


@figure("hrlf_probes", sources=[f"{RESULTS}/hrlf_probes.csv"])
def hrlf_probes(probes: pd.DataFrame) -> Figure:
    """What can be read from Q and from U, with factorization and without it."""
    return part_probes(probe_rows(probes))


@figure("hrlf_ablations", sources=[f"{RESULTS}/hrlf_ablations.csv"])
def hrlf_ablations(ablations: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch on top of the chosen weights on the synthetic set, paired over seeds."""
    effects = switch_effects(ablations)
    title = "hrlf, synthetic test split, 95 % intervals"
    return effect_panels(effects, "MAE, switch − chosen", title), effects


def in_order(weights: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``hrlf_weights.csv`` with readable names of the sets: printed weights first, then the best ones first."""
    known = weights[weights["dataset"].isin(SETS)]
    relative = (known["stochastic_mae"] / known["constant"]).groupby(known["weights"]).mean()
    order = relative.sort_values(kind="stable").index.to_list()
    order.sort(key=lambda name: name != "printed weights")
    places = known["dataset"].map(list(SETS).index), known["weights"].map(order.index)
    ordered = known.assign(_set=places[0], _place=places[1]).sort_values(["_place", "_set", "seed"], kind="stable")
    return ordered.drop(columns=["_set", "_place"]).assign(dataset=ordered["dataset"].map(SETS)).reset_index(drop=True)


def collapse_panels(alone: pd.DataFrame, curves: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """``hrlf_collapse.csv`` and ``hrlf_curves.csv`` as :func:`collapse_curves` draws them."""
    titles = {"as printed": "targets as printed", "detached": "targets detached"}
    line = alone["targets"].map(titles)
    panels = {"FRF alone": alone.assign(line=line, run=line, x=alone["step"])}
    xlabels = {"FRF alone": "step"}
    known = curves[curves["dataset"] == "synthetic"]
    for phase in ("teacher", "student"):
        rows = known[known["phase"] == phase]
        rows = rows.sort_values(["weights", "run_id", "epoch"], ascending=[False, True, True])
        panels[f"training, {phase}"] = rows.assign(line=rows["weights"], run=rows["run_id"], x=rows["epoch"])
        xlabels[f"training, {phase}"] = "epoch"
    return {title: frame[["line", "run", "x", "share"]] for title, frame in panels.items()}, xlabels


def pair_means(inside: pd.DataFrame, network: str, kind: str, switch: str = CHOSEN) -> pd.DataFrame:
    """Means over seeds of what ``hrlf_inside.csv`` holds of one network and input: source, target, measures."""
    rows = inside[(inside["network"] == network) & (inside["input"] == kind) & (inside["switch"] == switch)]
    return rows.groupby(["source", "target"], sort=False)[list(PAIRS)].mean().reset_index()


def pair_panels(means: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One panel per measure of :data:`PAIRS`, for :func:`pair_matrices`."""
    return {
        title: means[["source", "target"]].assign(value=means[name]) for name, title in PAIRS.items() if name in means
    }


def agreement_rows(agreement: pd.DataFrame, kind: str = "incomplete") -> pd.DataFrame:
    """``hrlf_agreement.csv`` as :func:`agreement_lines` draws it, for one kind of input."""
    rows = agreement[agreement["input"] == kind]
    values = [rows.assign(value=rows["cka"])]
    after = rows[rows["when"] == "after"]
    values.append(after.assign(value=after["cka_shuffled"], when="shuffled"))
    drawn = pd.concat(values, ignore_index=True)[["switch", "seed", "run_id", "when", "scale", "value"]]
    return drawn.sort_values("switch", key=lambda column: column != CHOSEN, kind="stable", ignore_index=True)


def probe_rows(probes: pd.DataFrame) -> pd.DataFrame:
    """``hrlf_probes.csv`` as :func:`part_probes` draws it: the chosen weights, and students without FRF beside them."""
    known = probes[probes["switch"].isin([CHOSEN, "no_frf=True"])]
    panel = known["network"] + ",\n" + known["input"]
    without = known["switch"] != CHOSEN
    panel = panel.where(~without, panel + ",\nwithout FRF")
    kept = ~without | ((known["network"] == "student") & (known["input"] == "incomplete"))
    rows = known.assign(panel=panel)[kept]
    return rows.sort_values("switch", key=lambda column: column != CHOSEN, kind="stable", ignore_index=True)


def switch_effects(ablations: pd.DataFrame, metric: str = "mae") -> pd.DataFrame:
    """Differences of each switch to the chosen weights, paired over seeds, for each of :data:`SUMMARIES`.

    Holm's correction is over the switches of a panel.

    Returns:
        ``panel``, ``switch`` and the columns of :func:`mmsa_lib.evaluation.ablations.paired_effects`.
    """
    tables = []
    for (protocol, summary), panel in SUMMARIES.items():
        rows = ablations[
            (ablations["protocol"] == protocol) & (ablations["summary"] == summary) & (ablations["metric"] == metric)
        ]
        if len(rows):
            effects = paired_effects(rows, "switch", CHOSEN, metric)
            tables.append(effects.assign(panel=panel))
    found = pd.concat(tables, ignore_index=True)
    return found[["panel", "switch", *(c for c in found if c not in ("panel", "switch", "metric"))]]
