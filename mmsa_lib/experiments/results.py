"""Many runs as one tidy table, and small curated tables for the repository."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mmsa_lib.errors import DataError, MMSAError, unknown_name, warn_once
from mmsa_lib.evaluation.levels import COMPLETE
from mmsa_lib.experiments import files
from mmsa_lib.experiments.files import MANIFEST
from mmsa_lib.experiments.terms import TERM_COLUMNS
from mmsa_lib.files import level_name

CONFIGURATION = ("method", "changes", "data_options")
"""What one configuration of a run is; its ``label`` is a name and may change."""

GROUP = [*CONFIGURATION, "dataset", "fold"]
SAME_RUN = (*GROUP, "seed")
"""Runs that agree in these answer the same question; with several of them, code or data changed in between."""

RUN_COLUMNS = ("run_id", "method", "label", "changes", "data_options", "dataset", "fold", "seed")
"""What tells a run from the others in a table."""

FAILURE_COLUMNS = ("run_id", "label", *SAME_RUN, "error", "message")
UNKNOWN = "unknown"

DEFAULT = "default"
"""How the configuration without changes of its own is called and asked for."""

DECIMALS = 6
"""Digits after the point in curated tables: more than a table shows, fewer than machines disagree on."""


def collect(folder: Path | str, *, superseded: bool = False) -> pd.DataFrame:
    """All finished runs below ``folder``: one row per run, protocol cell, split and metric, then constant baselines.

    Of runs that differ only in the code or the data that they were made with, the newest one counts; an older one still
    counts under protocols that the newer one was not tested with.

    Args:
        folder: a folder of runs, or one run.
        superseded: keep the older ones as well.

    Returns:
        Columns run_id, method, label, changes, data_options, dataset, fold, seed, protocol, level, split, metric,
        value, method_code, core_code. Constant baselines have no run_id, no seed and no code.

    Raises:
        DataError: there is no finished run.
    """
    found, tables = [], []
    for path in finished_runs(folder):
        try:
            table = files.read_table(path / files.METRICS, files.METRIC_COLUMNS, "table of results")
            if set(table["run_id"]) != {path.resolve().name}:
                raise DataError(f"{path / files.METRICS} is not the table of this run")
            tables.append(table.assign(_age=len(found), **_code_of(path)))
            found.append(path)
        except DataError as error:
            warn_once(f"left out: {error}; {files.REPEAT}")
    if not found:
        raise DataError(f"no run in {folder} can be read; {files.REPEAT}")
    metrics = pd.concat(tables, ignore_index=True)
    if not superseded:
        newest = metrics.groupby([*SAME_RUN, "protocol"])["_age"].transform("max")
        metrics = metrics[metrics["_age"] == newest]
    counted = [found[age] for age in metrics["_age"].unique()]
    warn_of_mixed_machines(counted)
    # All runs on the same data write the same constants; the first file of each content is read.
    written = {p.read_bytes() if p.is_file() else p: p for p in (run / files.CONSTANTS for run in reversed(counted))}
    constants = [files.read_table(path) for path in reversed(written.values())]
    return _sorted(pd.concat([metrics, *constants], ignore_index=True).drop_duplicates(list(files.METRIC_COLUMNS)))


def _code_of(run: Path) -> dict[str, str]:
    """The fingerprints of the code behind a run, as tables have them."""
    facts: dict[str, Any] = {}
    with suppress(DataError):
        found = files.read_json(run / files.ENVIRONMENT)
        facts = found if isinstance(found, dict) else facts
    known = (facts.get("code_fingerprint"), facts.get(files.CORE_CODE))
    return {name: str(mark or "")[:12] for name, mark in zip(files.CODE_COLUMNS, known, strict=True)}


def with_code(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the columns that say which code made a row; empty where that is unknown."""
    return frame.assign(**{name: frame[name].fillna("") if name in frame else "" for name in files.CODE_COLUMNS})


def check_code(rows: pd.DataFrame, across_code: bool = False) -> None:
    """Refuse runs of different code side by side: their differences may come from the code.

    On one data set and fold all runs of a method must come from one code of that method, and all runs from one code
    that methods share. Runs of which it is unknown are one batch.

    Args:
        rows: rows of results.
        across_code: don't refuse.

    Raises:
        DataError: names the data set and how many runs come from which code.
    """
    runs = with_code(rows[~is_constant(rows)]).drop_duplicates("run_id")
    for (dataset, _), part in () if across_code else runs.groupby(["dataset", "fold"]):
        parts = [(f"{method} is", own["method_code"]) for method, own in part.groupby("method")]
        for who, codes in [*parts, ("what methods share is", part["core_code"])]:
            counts = codes.replace("", UNKNOWN).value_counts().sort_index()
            if len(counts) > 1:
                found = ", ".join(f"{code} in {count} runs" for code, count in counts.items())
                raise DataError(
                    f"runs of different code on {dataset}: {who} {found}; repeat the older runs, or compare all the "
                    "same with --across-code (across_code=True in Python)"
                )


def collect_terms(folder: Path | str, **options: Any) -> pd.DataFrame:
    """Terms of the loss of all runs that :func:`collect` gives with these ``options``: one row per run, phase and term.

    Returns:
        Columns run_id, method, label, changes, data_options, dataset, fold, seed, and those of
        :func:`mmsa_lib.experiments.terms.term_table`. Runs of earlier versions, which have no such file, have no rows.

    Raises:
        DataError: there is no finished run.
    """
    return terms_of(Path(folder), collect(folder, **options))


def terms_of(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """As :func:`collect_terms`, of the runs in ``folder`` that ``rows`` of results come from."""
    tables = [pd.DataFrame(columns=[*RUN_COLUMNS, *TERM_COLUMNS])]
    for own in rows[~is_constant(rows)].drop_duplicates("run_id")[list(RUN_COLUMNS)].to_dict("records"):
        path = (folder if folder.resolve().name == own["run_id"] else folder / own["run_id"]) / files.TERMS
        if path.is_file():
            table = files.read_csv(path, TERM_COLUMNS, "table of terms")
            tables.append(table.assign(**own)[list(tables[0])])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def warn_of_mixed_machines(runs: Iterable[Path]) -> None:
    """Say on stderr what runs of one table were computed with, where that differs: then their last bits do, or more.

    Text features are compared where they come from the same data. Runs of version 0.1.0 do not say what made them.
    """
    rows = []
    for run in runs:
        with suppress(DataError):
            facts = files.read_json(run / files.ENVIRONMENT, machine=dict, determinism=dict, packages=dict)
            own = facts["machine"]
            settings = " ".join(f"{key}={value}" for key, value in dict(own.get("settings") or {}).items())
            cpu = ", ".join(filter(None, (str(own.get("processor")), str(own.get("capability")), settings)))
            on_gpu = str(facts.get("device")).startswith("cuda")
            found = [facts.get("device_name") if on_gpu else cpu, facts["determinism"].get("threads")]
            found += [facts["packages"].get("torch"), facts.get("data_fingerprint"), facts.get("text_digest")]
            rows.append([str(value) for value in found])
    table = pd.DataFrame(rows, columns=["processor", "threads", "torch", "data", "text"])
    counts = {kind: table[kind].value_counts().sort_index() for kind in ("processor", "threads", "torch")}
    mixed = [
        f"{kind} ({'; '.join(f'{value}: {count} runs' for value, count in own.items())})"
        for kind, own in counts.items()
        if len(own) > 1
    ]
    mixed += ["computed text features"] if table[["data", "text"]].drop_duplicates()["data"].duplicated().any() else []
    if mixed:
        warn_once(
            f"these runs differ in {', '.join(mixed)}: equal seeds then give other numbers; see docs/reproducibility.md"
        )


def finished_runs(folder: Path | str) -> list[Path]:
    """Folders of finished runs in ``folder`` (or ``folder`` itself), the oldest first.

    A run whose files are not those that it wrote is left out, with one line on stderr that says why.

    Raises:
        DataError: there is none.
    """
    folder = Path(folder)
    marks = [folder / files.DONE] if (folder / files.DONE).is_file() else list(folder.glob(f"*/{files.DONE}"))
    problems = {mark: files.run_problem(mark.parent) for mark in marks}
    whole = [mark for mark in marks if not problems[mark]]
    for problem in sorted(filter(None, problems.values())):
        warn_once(f"left out: {problem}; {files.REPEAT}")
    if not whole:
        failed = sorted(folder.glob(f"*/{files.ERROR}"))
        lost = f" ({len(failed)} failed, see {failed[0]})" if failed else ""
        lost += f" ({len(marks)} left out)" if marks else ""
        raise DataError(f"no finished run in {folder}{lost}; make one with: mmsa-lib train METHOD --runs {folder}")
    unchecked = [mark for mark in whole if not (mark.parent / MANIFEST).exists()]
    if unchecked:
        warn_once(
            f"{len(unchecked)} runs in {folder} have no {MANIFEST} (version 0.1.0 wrote none): "
            "their files can't be checked"
        )
    return [mark.parent for mark in sorted(whole, key=_age)]


def failures(folder: Path | str, *, superseded: bool = False) -> pd.DataFrame:
    """Runs below ``folder`` that failed: their configuration, data, seed and error (:data:`FAILURE_COLUMNS`).

    A failed run whose repetition with other code finished is left out, and so is an older failure of it. What the
    configuration of a failed run does not tell (its file is damaged) is ``unknown``.

    Args:
        folder: a folder of runs, or one run.
        superseded: keep these as well.
    """
    folder = Path(folder)
    found = sorted([*folder.glob(f"*/{files.ERROR}"), *folder.glob(files.ERROR)], key=_age, reverse=True)
    rows = []
    for file in found:
        error = {"type": UNKNOWN, "message": ""}
        with suppress(DataError):  # a damaged file must not hide that the run failed
            error = files.read_json(file, type=str, message=str)
        known = {"run_id": file.resolve().parent.name, **_identity(file.parent)}
        rows.append({**known, "error": error["type"], "message": error["message"]})
    table = pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))
    if superseded or table.empty:
        return table.sort_values("run_id", ignore_index=True)
    finished = set()
    with suppress(DataError):
        finished = {tuple(_identity(path)[name] for name in SAME_RUN) for path in finished_runs(folder)}
    known = table["method"] != UNKNOWN
    repaired = pd.Series([tuple(row) in finished for row in table[list(SAME_RUN)].itertuples(index=False)])
    kept = table[~(known & (repaired | table.duplicated(list(SAME_RUN))))]
    return kept.sort_values("run_id", ignore_index=True)


def _identity(path: Path) -> dict[str, Any]:
    """Configuration, data set, fold and seed of a run folder."""
    from mmsa_lib.experiments.config import RunConfig

    try:
        config = RunConfig.stored(files.read_json(path / files.CONFIG, config=dict)["config"])
    except (MMSAError, KeyError, TypeError):
        unknown = dict.fromkeys(SAME_RUN, UNKNOWN)
        return {**unknown, "label": "", "changes": files.NO_CHANGES, "data_options": files.NO_CHANGES}
    data = {"dataset": config.dataset, "fold": config.fold, "seed": config.seed}
    return {"method": config.method, **config.described(), **data}


def _age(mark: Path) -> tuple[float, str]:
    """When a run ended: by its own record, which copies keep; a failed or older one by the time of its file."""
    ended = None
    if mark.name == files.DONE:
        with suppress(DataError):
            ended = files.read_json(mark.with_name(files.ENVIRONMENT), finished=float)["finished"]
    return ended or mark.stat().st_mtime, mark.parent.name


def read_results(source: Path | str) -> pd.DataFrame:
    """Results from a folder of runs, or from a table that :func:`curate` wrote.

    Raises:
        DataError: nothing there, or a table without the columns of results.
    """
    source = Path(source)
    if not source.is_file():
        return collect(source)
    return with_code(files.read_table(source, files.METRIC_COLUMNS, "table of results"))


def curate(
    source: Path | str | pd.DataFrame, target: Path | str, *, by: Sequence[str] | None = None, **chosen: Any
) -> pd.DataFrame:
    """Write the rows behind a table or figure to a small CSV, with run identifiers and seeds, always in one order.

    Args:
        source: a folder of runs, a curated table or a frame of :func:`collect`.
        target: the CSV file.
        by: swept parameters that get a column each behind the others; an empty list: all in which the runs differ.
        **chosen: values that a column must have (one, or a list), for instance ``split="test"``,
            ``method=["self_mm", "text_only"]``. Constant baselines stay whatever configuration, seed, protocol and
            level are asked for.

    Returns:
        The rows that were written.

    Raises:
        DataError: nothing is left; UnknownNameError: no such column.
    """
    frame = source if isinstance(source, pd.DataFrame) else read_results(source)
    frame = choose(frame, **chosen)
    if is_constant(frame).all():
        raise DataError(f"no run is left after choosing {chosen}; nothing was written to {target}")
    frame = _sorted(rounded(frame).drop_duplicates())
    if by is not None:
        frame = parameters(frame, swept(frame, by))
    files.write_table(Path(target), frame)
    return frame


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with its numbers as curated tables have them."""
    return frame.round(dict.fromkeys(frame.select_dtypes("floating").columns, DECIMALS))


def choose(frame: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """The rows that have the chosen values, as :func:`curate` takes them; levels are spelt alike.

    Raises:
        UnknownNameError: no such column.
    """
    frame = frame.assign(level=frame["level"].map(level_name))
    for column, values in chosen.items():
        if column not in files.RESULT_COLUMNS:
            raise unknown_name("column", column, files.RESULT_COLUMNS)
        keep = frame[column].isin(listed(column, values))
        if column in ("protocol", "level"):  # no mask changes a constant, which is told once
            keep |= is_constant(frame) & (frame["protocol"] == COMPLETE)
        elif column not in ("dataset", "fold", "split", "metric", "value"):
            keep |= is_constant(frame)
        frame = frame[keep]
    return frame


def check_names(frame: pd.DataFrame, **chosen: Any) -> None:
    """Refuse chosen values that do not occur in ``frame`` at all.

    Raises:
        UnknownNameError: names the nearest values that do.
    """
    for column, values in chosen.items():
        known = [str(value) for value in frame[column].map(level_name if column == "level" else str).unique()]
        for text in map(str, listed(column, values)):
            if text not in known:
                raise unknown_name(column, text, known)


def listed(column: str, values: Any) -> list[Any]:
    """One value or several of a column as a list, levels as tables spell them."""
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    return [level_name(level) for level in found] if column == "level" else found


def check_seeds(rows: pd.DataFrame) -> None:
    """Refuse two runs of one configuration: code or data changed in between, and one of them must be left out.

    Raises:
        DataError: names the runs.
    """
    runs = rows[~is_constant(rows)]
    keys = [column for column in (*SAME_RUN, "protocol", "level", "split", "metric") if column in rows]
    repeated = runs[runs.duplicated(keys, keep=False)]
    if len(repeated):
        first = repeated.iloc[0]
        same = (repeated["seed"] == first["seed"]) & (repeated["method"] == first["method"])
        ids = ", ".join(sorted(repeated.loc[same, "run_id"].unique()))
        raise DataError(
            f"{first['method']} has several runs with seed {first['seed']} ({ids}); leave the older ones out"
        )


def is_constant(frame: pd.DataFrame) -> pd.Series:
    """Which rows belong to constant baselines: they have no run, and a summary says so."""
    return frame["run_id"].fillna("") == "" if "run_id" in frame else frame["constant"].astype(bool)


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs first, then constants; inside them by everything but the metric, which keeps the order of its definition."""
    ordered = frame.assign(_constant=is_constant(frame), _words=descriptions(frame))
    keys = ["_constant", "method", "_words", "dataset", "fold", "seed", "run_id", "protocol", "level", "split"]
    return with_code(ordered.sort_values(keys, kind="stable", ignore_index=True))[list(files.RESULT_COLUMNS)]


# --- Names of configurations, for printing: nothing reads them back ---------------------------------------------------


@cache
def values_of(changes: str, data_options: str = files.NO_CHANGES) -> dict[str, str]:
    """The changed values of a configuration as texts, by sorted keys; ``data.`` precedes an option that both have."""
    own, data = json.loads(changes), json.loads(data_options)
    both = own | {f"data.{key}" if key in own else key: value for key, value in data.items()}
    return {key: str(value) for key, value in sorted(both.items())}


def in_words(values: Mapping[str, str], separator: str = "; ") -> str:
    """Changed values as ``a=1; b=2``."""
    return separator.join(f"{key}={value}" for key, value in values.items())


def values_by_row(frame: pd.DataFrame) -> list[dict[str, str]]:
    """The changed values of each row's configuration."""
    return [values_of(*pair) for pair in zip(frame["changes"], frame["data_options"], strict=True)]


def descriptions(frame: pd.DataFrame) -> list[str]:
    """The configuration of each row in words, whatever its label; rows are sorted by it, the default first."""
    return [in_words(values) for values in values_by_row(frame)]


def first_label(labels: Iterable[str]) -> str:
    """The label of a configuration: its first one, as some of its runs may have been made without a name."""
    return next(filter(None, labels), "")


def shared_values(frame: pd.DataFrame) -> dict[str, str]:
    """What all runs of ``frame`` change alike: it is said once, in a title."""
    found = values_by_row(_runs(frame))
    return {key: value for key, value in found[0].items() if all(o.get(key) == value for o in found)} if found else {}


def named(frame: pd.DataFrame, leave_out: Collection[str] = ()) -> pd.DataFrame:
    """``frame`` with a column ``name``: what each configuration is called beside the others of its method.

    That is its label, with the data options in which runs differ; without a label, or with one that another
    configuration on the same data has too, all its changed values but those that all runs share. Empty for the default.

    Args:
        frame: rows of results, of a summary or of failed runs.
        leave_out: keys of changed values that are said elsewhere.
    """
    shared = shared_values(frame)

    def own(*columns: str) -> str:
        values = values_of(*columns).items()
        return in_words({k: v for k, v in values if shared.get(k) != v and k not in leave_out}, ", ")

    labels = frame.groupby(list(CONFIGURATION), dropna=False)["label"].agg(first_label).to_dict()
    names = {
        key: ", ".join(filter(None, [label, own(key[2])])) if label else own(*key[1:]) for key, label in labels.items()
    }
    places = [column for column in ("dataset", "fold") if column in frame]
    rows = frame[[*CONFIGURATION, *places]].drop_duplicates().itertuples(index=False, name=None)
    used = [(key[:3], (key[0], names[key[:3]], *key[3:])) for key in rows]
    taken = Counter(place for _, place in used)
    clashes = {key for key, place in used if taken[place] > 1}
    names = {key: own(*key[1:]) if key in clashes else name for key, name in names.items()}
    return frame.assign(name=[names[key] for key in frame[list(CONFIGURATION)].itertuples(index=False, name=None)])


def swept(frame: pd.DataFrame, asked: Sequence[str] = ()) -> list[str]:
    """The changed values that get a column each: those ``asked`` for, or all in which the runs differ.

    Raises:
        UnknownNameError: no run changes a value that is asked for; names the nearest.
    """
    found = values_by_row(_runs(frame))
    known = sorted({key for values in found for key in values})
    for key in asked:
        if key not in known:
            raise unknown_name("swept parameter", key, known)
    return list(dict.fromkeys(asked)) or [key for key in known if len({values.get(key) for values in found}) > 1]


def parameters(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """``frame`` with a column of text for each of the changed values ``keys``, empty where it is the default."""
    found = values_by_row(frame)
    return frame.assign(**{key: [values.get(key, "") for values in found] for key in keys})


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each configuration of a known method: of rows of results, of a summary, comparison or failed runs."""
    if {"constant", "run_id"} & set(frame.columns):
        frame = frame[~is_constant(frame)]
    return frame[frame["method"] != UNKNOWN].drop_duplicates(["changes", "data_options"])
