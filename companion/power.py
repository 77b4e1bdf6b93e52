"""``docs/power.md``: which difference a comparison can show at 80 % power, by seeds, comparisons and spread."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from companion import names
from companion.readme import markdown
from companion.sweeps import PRIMARY, detectable_difference
from mmsa_lib.experiments.summaries import read_comparison

PAGE = Path("docs/power.md")
SEEDS = (5, 10, 20)
COMPARISONS = (1, 4, 10, 17)
"""Comparisons that Holm corrects together: one, the primary ablations of a method, more."""

DESIGNS = {"5 seeds, 17 switches": (5, 17), "5 seeds, 4 switches": (5, 4), "10 seeds, 4 switches": (10, 4),
           "10 seeds, 1 switch": (10, 1), "20 seeds, 4 switches": (20, 4)}  # fmt: skip
RECOMMENDED, FORMER = "10 seeds, 4 switches", "5 seeds, 17 switches"

HEAD = """# Power: what a comparison can show

This page is computed: `python -m companion power` writes it from `data/results`, and a test compares them.

Two configurations are trained with the same seeds, and a paired t-test asks whether their mean difference is 0. How
large must a true difference be to be found in four of five repetitions (power .8, two-sided, level .05)? It depends
on the number of seeds $n$, on how many comparisons are corrected together, and on the standard deviation of the
differences over seeds. Holm's first step tests the smallest $p$ of $m$ comparisons at $.05/m$; that is what is
counted here, so that each single difference of this size would be found whatever the others are.
"""

SPREADS = """## In units of the spread

Smallest difference that is found with probability .8, divided by the standard deviation of the paired differences.
"""

MEASURED = """## The spread, as measured

Standard deviation over seeds of paired differences in mean absolute error on complete test samples, in the
committed comparisons (`sweep_ablations_comparison.csv`, `sweep_main_comparison.csv`), of a method those with the most
seeds: the median over comparisons and the largest. The last column is how many times as wide the interval over seeds
*and test items* is as that over seeds alone (median): a verdict needs both to leave out 0. Where it is well above 1,
only more test items narrow the former; near or below 1 the seeds decide. (It can be below 1: the interval over seeds is
a t interval, the other a bootstrap, which makes the spread of few runs too small.)
"""

SHOWN = """## What each design can show

Smallest difference in mean absolute error that is found with probability .8, for the median spread above.
"""


def page(results: Path) -> str:
    """The whole page as Markdown, from the comparisons in ``results``.

    Raises:
        DataError: a table of comparisons is missing or damaged.
    """
    spread = spreads(results)
    units = [
        [f"{n} seeds", *(f"{detectable_difference(1.0, n, alpha=0.05 / m):.2f}" for m in COMPARISONS)] for n in SEEDS
    ]
    measured = [
        [
            row.what,
            row.comparisons,
            int(row.n),
            f"{row.sd:.3f}",
            f"{row.largest:.3f}",
            "–" if pd.isna(row.items) else f"{row.items:.1f}",
        ]
        for row in spread.itertuples()
    ]
    shown = [[row.what, *(f"{effect(row.sd, name):.3f}" for name in DESIGNS)] for row in spread.itertuples()]
    parts = [
        HEAD,
        SPREADS,
        markdown(["comparisons corrected together", *map(str, COMPARISONS)], units) + "\n",
        MEASURED,
        markdown(
            ["compared", "comparisons", "seeds", "spread, median", "spread, largest", "with test items, times"],
            measured,
        )
        + "\n",
        SHOWN,
        markdown(["compared", *DESIGNS], shown) + "\n",
        recommendation(spread),
    ]
    return "\n".join(parts)


def effect(sd: float, design: str) -> float:
    """The smallest difference that one of :data:`DESIGNS` finds with probability .8, in the unit of ``sd``."""
    n, m = DESIGNS[design]
    return detectable_difference(sd, n, alpha=0.05 / m)


def spreads(results: Path) -> pd.DataFrame:
    """Spread of paired differences: columns ``what, comparisons, n, sd`` (median), ``largest``, ``items``."""
    tables = {
        "ablations": read_comparison(results / "sweep_ablations_comparison.csv"),
        "main": read_comparison(results / "sweep_main_comparison.csv"),
    }
    rows = []
    for kind, table in tables.items():
        table = table[(table["metric"] == PRIMARY) & (table["sd"] > 0)]
        table = table.assign(ratio=(table["item_high"] - table["item_low"]) / (table["high"] - table["low"]))
        called = table["method"] if kind == "ablations" else table["reference_method"]
        table = table.assign(data=names.data_of(table), called=called)
        for (data, method), part in names.in_order(table, "data", "called").groupby(["data", "called"], sort=False):
            part = part[part["n"] == part["n"].max()]  # of few seeds a spread is hardly known
            what = f"switches of `{method}`" if kind == "ablations" else f"methods against `{method}`"
            rows.append(
                {"what": f"{what}, {names.DATA.get(data, data)}", "kind": kind, "comparisons": len(part),
                 "n": part["n"].max(), "sd": part["sd"].median(), "largest": part["sd"].max(),
                 "items": part["ratio"].median()}
            )  # fmt: skip
    return pd.DataFrame(rows)


def recommendation(spread: pd.DataFrame) -> str:
    """What follows for the ablations of this companion."""
    own = spread[spread["kind"] == "ablations"]
    found = [[effect(sd, name) for sd in own["sd"]] for name in (RECOMMENDED, FORMER)]
    shown, before = (f"{min(own):.3f} to {max(own):.3f}" for own in found)
    return f"""## What we do

**Ten seeds (1111 to 1120) and at most four primary ablations of a method**, named before they are run: block
`primary` of `notebooks/sweeps/ablations_*.yaml`. For the median spread of the four methods this shows differences
of {shown} in mean absolute error, where five seeds and seventeen switches show {before}.
All other switches are exploratory (block `exploratory`, few seeds): they say where to look, not what
is so. "No difference shown" means that a difference of the size above would probably have been found, and nothing
about smaller ones.
"""
