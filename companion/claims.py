"""The ledger of claims: what the abstracts say, how it was tested here, and what came out, from ``data/results``.

``data/claims.csv`` names for each claim two sides and a direction; effect, interval and verdict are computed. A side is
a label of the row's method (empty: its runs without a name), another method (``early_fusion``, or ``hrlf:full``), a
constant baseline, a number, or ``column=value`` pairs: the first side with these values instead.

``results`` is a table of comparisons, whose row and verdict are taken as they are, or a table with one row per run,
which is compared here: ``metric`` is a metric of its rows, or one of its columns (mean over the rows of a run).
Comparisons made here are corrected together within a paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from companion import names
from companion.readme import markdown
from companion.shared import SWEEPS
from companion.sweeps import EXPLORATORY
from mmsa_lib.errors import DataError, unknown_name
from mmsa_lib.evaluation.levels import COMPLETE
from mmsa_lib.evaluation.statistics import BETTER, NO_DIFFERENCE, WORSE, judged
from mmsa_lib.experiments import files
from mmsa_lib.experiments.summaries import NOT_EXERCISED, compare
from mmsa_lib.experiments.sweep_file import LABEL, choices, read_sweep
from mmsa_lib.methods import METHODS
from mmsa_lib.paths import project_root, tables_folder

if TYPE_CHECKING:
    from IPython.display import Markdown

PAGE = Path("docs/claims.md")
COLUMNS = ("id", "method", "claim", "source", "tested", "data", "results", "where", "metric", "protocol", "label",
           "reference", "direction", "smallest", "sweep", "reason")  # fmt: skip
TEST = ("tested", "data", "results", "metric", "direction", "smallest", "sweep")
"""What a row needs that has no reason why the claim can't be tested."""

DIRECTIONS = {"lower": ("mae", -1), "higher": ("corr", 1)}
"""Claimed direction to a metric of that direction, which stands for columns that are no metric, and to its sign."""

SUPPORTED, NOT_SUPPORTED, UNTESTABLE, NOT_YET, NO_VERDICT = (
    "supported", "not supported", "cannot be tested here", "not yet measured", "no verdict"
)  # fmt: skip

HEAD = """# Claims of the four papers

This page is computed: `python -m companion claims` writes it from `data/claims.csv` and `data/results`, and a test
compares them. Claims are told in our words; where they stand is in the last column.

*Supported*: the comparison shows a difference in the claimed direction (Holm's correction; where there is an interval
over test items too, it leaves out 0), and it is at least the smallest that counts. *Not supported*: anything else, and
why. *Not exercised*: the term pulled on the encoders less than 1 % as hard as the task, so nothing was tested. *No
verdict*: a switch that was only tried. Effects are the first side minus the second, with 95 % intervals over seeds, or
over seeds and test items (marked †). Which differences a design can show is in [power](./power.md).
"""


def read_claims(path: Path) -> pd.DataFrame:
    """The rows of ``data/claims.csv``, texts, with ``smallest`` as a number.

    Raises:
        DataError: no such file, a column is lacking, an identifier occurs twice, or a row says neither how it is tested
            nor why it can't be; names the row.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: the ledger of claims is read from it")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if lacking := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path} has no column {', '.join(lacking)}")
    if table["id"].duplicated().any():
        raise DataError(f"{path}: {table.loc[table['id'].duplicated(), 'id'].iloc[0]} occurs twice")
    for row in table.to_dict("records"):
        where = f"{path.name}, {row['id']}"
        if row["method"] not in METHODS:
            raise DataError(f"{where}: {unknown_name('method', row['method'], METHODS)}")
        empty = [name for name in TEST if not row[name]]
        if not row["reason"] and empty:
            raise DataError(f"{where}: give {', '.join(empty)}, or a reason why it can't be tested")
        if not row["reason"] and (row["direction"] not in DIRECTIONS or not _number(row["smallest"])):
            raise DataError(f"{where}: direction is {' or '.join(DIRECTIONS)}, and smallest is a number")
    return table.assign(smallest=pd.to_numeric(table["smallest"], errors="coerce"))


def ledger(claims: pd.DataFrame, results: Path) -> pd.DataFrame:
    """Rows of :func:`read_claims` with ``n, difference, low, high, items, verdict`` and ``detail``.

    Args:
        claims: the rows.
        results: the folder of the tables that they name.

    Raises:
        DataError: a label is neither in the results nor in the sweep that a claim names, or a table is damaged.
    """
    compared: dict[str, dict[str, Any]] = {}
    for row in claims.to_dict("records"):
        if not row["reason"] and (found := _comparison(row, results)):
            compared[row["id"]] = found
    own = {key: row for key, row in compared.items() if "verdict" not in row}
    if own:
        papers = claims.set_index("id")["method"]
        table = pd.DataFrame(list(own.values())).assign(paper=[papers[key] for key in own])
        table = judged(table, family=["paper"])
        compared |= dict(zip(own, table.to_dict("records"), strict=True))
    rows = [{**row, **_outcome(row, compared.get(row["id"]))} for row in claims.to_dict("records")]
    return pd.DataFrame(rows)


def page(results: Path) -> str:
    """``docs/claims.md``: one table for each paper."""
    table = ledger(read_claims(results.parent / "claims.csv"), results)
    parts = [HEAD]
    for method, rows in table.groupby("method", sort=False):
        parts += [f"## `{method}`\n", claims_table(rows, whole=True) + "\n"]
    return "\n".join(parts)


def told(method: str, about: str = "") -> Markdown:
    """The claims of one paper, as a notebook shows them.

    Args:
        method: the method's id.
        about: only claims with this word.

    Raises:
        DataError: as :func:`read_claims` and :func:`ledger`.
        ConfigError: the library is not in a checkout, and ``MMSA_LIB_TABLES`` is not set.
    """
    from IPython.display import Markdown

    folder = tables_folder("results")
    claims = read_claims(folder.parent / "claims.csv")
    rows = ledger(claims, folder)  # of all papers: what is compared together stays together
    rows = rows[(rows["method"] == method) & rows["claim"].str.contains(about, regex=False)]
    return Markdown(claims_table(rows, whole=True))


def claims_table(rows: pd.DataFrame, whole: bool = False) -> str:
    """Rows of :func:`ledger` as a table of Markdown.

    Args:
        rows: the rows.
        whole: how it was tested and where the claim stands too; else the method, and no commands.
    """
    head = ["claim", "tested by", "data", "effect", "verdict", "stands in"]
    lines = [
        [row.claim, row.tested or "–", row.data or "–", _effect(row), _verdict(row), row.source]
        for row in rows.itertuples()
    ]
    if whole:
        return markdown(head, lines)
    short = [
        [names.called(row.method), row.claim, names.DATA.get(row.data, "–"), _effect(row), _verdict(row)]
        for row in rows.assign(detail=rows["detail"].where(rows["verdict"] != NOT_YET, "")).itertuples()
    ]
    return markdown(["method", *head[:1], *head[2:5]], short)


# --- One claim ------------------------------------------------------------------------------------------------------


def _comparison(row: Mapping[str, Any], results: Path) -> dict[str, Any] | None:
    """The row of :func:`~mmsa_lib.experiments.summaries.compare` that tests a claim, or nothing yet.

    It has a ``verdict`` where it comes from a table of comparisons.
    """
    path = results / row["results"]
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={"level": str}, keep_default_na=False, na_values=[""])
    for name in {"label", "reference_label", "run_id"} & set(table):
        table[name] = table[name].astype(object).fillna("")
    cell = {"dataset": row["data"]}
    if "metric" in table:
        cell |= {"split": "test", "protocol": row["protocol"] or COMPLETE, "metric": row["metric"]}
    cell |= _pairs(row["where"])
    if "reference_method" in table:
        (method, label), (base, base_label) = _side(row, row["label"]), _side(row, row["reference"])
        cell |= {"method": method, "label": label, "reference_method": base, "reference_label": base_label}
        found = _chosen(table, cell)
        if found.empty:
            _check_labels(row, table)
            return None
        return found.iloc[0].to_dict()
    sides = [_rows(row, table, row["label"], cell), _rows(row, table, row["reference"], cell)]
    if any(side.empty for side in sides):
        _check_labels(row, table)
        return None
    frame = pd.concat([sides[0].assign(method="claim"), sides[1].assign(method="reference")], ignore_index=True)
    frame = frame.assign(label="", changes=files.NO_CHANGES, data_options=files.NO_CHANGES)
    found = compare(frame, "reference", items=False, method="claim").iloc[0].to_dict()
    return {name: value for name, value in found.items() if name not in ("verdict", "p_holm")}


def _rows(row: Mapping[str, Any], table: pd.DataFrame, side: str, cell: dict[str, str]) -> pd.DataFrame:
    """One side of a claim as rows of results, one per seed; of a number or a constant a single one."""
    common = {"dataset": row["data"], "fold": "standard", "protocol": COMPLETE, "level": "0.0", "split": "test"}
    common["metric"] = row["metric"] if "metric" in table else DIRECTIONS[row["direction"]][0]
    if _number(side):
        return pd.DataFrame([{"run_id": "", "seed": pd.NA, "value": float(side), **common}])
    if "=" in side:
        cell, side = cell | _pairs(side), row["label"]
    method, label = _side(row, side)
    if method.startswith("constant_"):
        loose = {name: value for name, value in cell.items() if name not in ("protocol", "level")}
        found = _chosen(table, loose | {"method": method}).drop_duplicates("value").head(1)
    else:
        found = _chosen(table, cell | {"label": label} | ({"method": method} if "method" in table else {}))
    value = "value" if "metric" in table else row["metric"]
    if value not in found:
        raise DataError(f"claims.csv, {row['id']}: {unknown_name('column', value, list(table.columns))}")
    known = [name for name in ("core_code", "method_code") if name in found]
    means = found.groupby(["run_id", "seed", *known], dropna=False, sort=False)[value].mean().rename("value")
    return means.reset_index().assign(**common)


def _check_labels(row: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Refuse a label that no run has and no run will have.

    Raises:
        DataError: names the claim, and the nearest label.
    """
    root = project_root()
    if root is None:
        return  # tables alone: the sweeps are in the checkout
    sweep = root / SWEEPS / f"{row['sweep']}.yaml"
    if not sweep.is_file():
        raise DataError(f"claims.csv, {row['id']}: there is no sweep {sweep.name} in notebooks/sweeps")
    names = [name for name in ("label", "reference_label") if name in table]
    known = {str(label) for name in names for label in table[name].unique()}
    known |= {choice.ablation or str(choice.parameters.get(LABEL, "")) for choice in choices(read_sweep(sweep))}
    for side in (row["label"], row["reference"]):
        if _number(side) or "=" in side:
            continue
        _, label = _side(row, side)
        if label and label not in known:
            raise DataError(
                f"claims.csv, {row['id']}: {unknown_name('label', label, sorted(filter(None, known)))}; it is neither "
                f"in {row['results']} nor in {sweep.name}"
            )


def _outcome(row: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Effect, interval, verdict and detail of a claim."""
    nothing = {"n": 0, "difference": float("nan"), "low": float("nan"), "high": float("nan"), "items": False}
    if row["reason"]:
        return {**nothing, "verdict": UNTESTABLE, "detail": f"because {row['reason']}"}
    command = f"`python -m companion run runs --only {row['sweep']}`, then `python -m companion results runs`"
    if found is None:
        return {**nothing, "verdict": NOT_YET, "detail": command}
    items = pd.notna(found["item_low"])
    low, high = (found[f"item_{end}" if items else end] for end in ("low", "high"))
    numbers = {"n": int(found["n"]), "difference": found["difference"], "low": low, "high": high, "items": items}
    sign, smallest = DIRECTIONS[row["direction"]][1], row["smallest"]
    as_claimed = sign * found["difference"] > 0
    if found["verdict"] == NOT_EXERCISED:
        return {**numbers, "verdict": NOT_EXERCISED, "detail": "the term hardly pulled on the encoders"}
    if found["verdict"] in (BETTER, WORSE):
        if as_claimed and abs(found["difference"]) >= smallest:
            return {**numbers, "verdict": SUPPORTED, "detail": ""}
        shown = f"in the claimed direction, but smaller than {smallest:g}" if as_claimed else "the opposite is shown"
        return {**numbers, "verdict": NOT_SUPPORTED, "detail": shown}
    if found["verdict"] == EXPLORATORY:
        why = f"{found['verdict']}; name it in block `primary` of {row['sweep']}.yaml before it is run"
        return {**numbers, "verdict": NO_VERDICT, "detail": why}
    if found["verdict"] != NO_DIFFERENCE:
        return {**numbers, "verdict": NOT_YET, "detail": f"{found['verdict']}; {command}"}
    excluded = (high if sign > 0 else -low) < smallest
    word = "is excluded" if excluded else "is not excluded"
    return {**numbers, "verdict": NOT_SUPPORTED, "detail": f"{NO_DIFFERENCE}; an effect of {smallest:g} {word}"}


def _side(row: Mapping[str, Any], text: str) -> tuple[str, str]:
    """Method and label of one side."""
    method, _, label = text.partition(":")
    if method in METHODS or method.startswith("constant_"):
        return method, label
    return row["method"], text


def _pairs(text: str) -> dict[str, str]:
    """``a=1; b=2`` as texts by column."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _chosen(table: pd.DataFrame, cell: Mapping[str, str]) -> pd.DataFrame:
    for name, value in cell.items():
        if name not in table:
            raise DataError(f"claims.csv: {unknown_name('column', name, list(table.columns))}")
        table = table[table[name].astype(str) == value]
    return table


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _effect(row: Any) -> str:
    if not row.n:
        return "–"
    mark = "†" if row.items else ""
    return f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]{mark}, {row.n} seeds"


def _verdict(row: Any) -> str:
    joint = ", " if row.verdict == UNTESTABLE else ": "
    return f"**{row.verdict}**" + (joint + row.detail if row.detail else "")
