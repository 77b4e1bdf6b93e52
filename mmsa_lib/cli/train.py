"""``mmsa-lib train``: one run folder per seed, then a table over seeds with the constant baselines."""

from __future__ import annotations

import argparse
import inspect
import math
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import add_command, answer, print_json, say, say_undefined
from mmsa_lib.errors import ConfigError, MMSAError, unknown_name
from mmsa_lib.methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from mmsa_lib.experiments import RunConfig, RunResult

CONSTANT = "constant"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``train``."""
    words = "train a method, one run per seed, and show its test metrics"
    more = "Train a method, one run per seed. A finished run is not repeated; an interrupted one is resumed."
    add = add_command(subparsers, "train", train, words, more).add_argument
    add("method", metavar="METHOD", help="a method, or 'constant' for the constant baselines alone")
    add("--dataset", default="synthetic", metavar="D", help="a data set (default: synthetic)")
    add("--fold", default="standard", metavar="F", help="a fold of it (default: standard)")
    add("--seeds", type=int, nargs="+", default=[1111], metavar="S", help="one run each (default: 1111)")
    add(
        "--set", nargs="+", default=[], metavar="key=value", dest="assignments",
        help="values of the method, the training settings or the data; config., settings. or data. may precede the key",
    )  # fmt: skip
    add(
        "--missing", default="none", metavar="RECIPE",
        help="how training and validation samples are made incomplete: none or stochastic (default: none)",
    )  # fmt: skip
    add(
        "--protocols", nargs="+", default=["complete"], metavar="P",
        help="also test on incomplete samples: frames, subsets, rate, … ('mmsa-lib data masks' lists them)",
    )  # fmt: skip
    add("--label", metavar="TEXT", help="what tables call this configuration (default: its changes)")
    add("--runs", type=Path, metavar="DIR", help="folder of runs (default: MMSA_LIB_RUNS or runs/)")
    add("--device", metavar="NAME", help="auto, cpu, cuda or cuda:<number> (default: auto)")
    add(
        "--oracle", action="store_true",
        help="also record test metrics after every epoch, to show what selection on the test set would claim",
    )  # fmt: skip
    add("--metrics", nargs="+", metavar="KEY", help="which metrics to show (default: all but macro averages)")
    add("--force", action="store_true", help="repeat finished runs from the start")
    add("--quiet", action="store_true", help="show no progress")


def train(args: argparse.Namespace) -> int:
    """Check everything that can be checked without data, then run seed after seed."""
    known = [*METHODS, CONSTANT]
    if args.method not in known:
        raise unknown_name("method", args.method, known)
    from mmsa_lib.data.registry import is_generated, store_path

    configs = _configs(args) if args.method != CONSTANT else []
    if not is_generated(args.dataset):
        folder = configs[0].data.get("folder") if configs else None
        store_path(args.dataset, Path(folder) if folder else None)
    if not configs:
        return _constants(args)
    if args.metrics:
        _check_metrics(args.metrics, _metrics_of(configs[0]))
    from mmsa_lib.experiments import run

    finished: dict[int, RunResult] = {}
    failed: dict[int, Exception] = {}
    for config in configs:
        try:
            finished[config.seed] = run(config, args.runs, force=args.force, progress="none" if args.quiet else "auto")
        except Exception as error:
            if isinstance(error, MMSAError) and error.exit_code != 1:
                raise  # bad input fails in the same way for every seed
            if not isinstance(error, MMSAError):  # a fault of ours
                traceback.print_exc()
            failed[config.seed] = error
            say(f"seed {config.seed} failed: {_reason(error)}")
    _report(args, finished, failed)
    return 1 if failed else 0


def _reason(error: Exception) -> str:
    """Why a run failed, in one line that is never empty."""
    return " ".join(str(error).split()) or type(error).__name__


def _configs(args: argparse.Namespace) -> list[RunConfig]:
    """One checked configuration per seed."""
    from mmsa_lib.experiments import RunConfig

    sections = RunConfig.parse_settings(args.method, args.assignments, dataset=args.dataset)
    if args.device is not None:
        if "device" in sections["settings"]:
            raise ConfigError("the device is given twice; use --device alone")
        sections["settings"]["device"] = args.device
    named = ("method", "dataset", "fold", "missing", "protocols", "oracle")
    base = {name: getattr(args, name) for name in named}
    base["label"] = args.label or ""
    return [RunConfig(**base, **sections, seed=seed) for seed in dict.fromkeys(args.seeds)]


def _metrics_of(config: RunConfig) -> list[str]:
    """The metrics that a run will have, told without its features."""
    import torch

    from mmsa_lib.data.loading import load
    from mmsa_lib.data.registry import GENERATED, generate, is_generated, store_path
    from mmsa_lib.data.sources.synthetic import EMOTIONS
    from mmsa_lib.data.store import read_store
    from mmsa_lib.data.task import emotions, regression
    from mmsa_lib.evaluation.metrics import noise_free_metrics, task_metrics

    if config.dataset in GENERATED:
        task = emotions(EMOTIONS) if config.data.get("task") == "emotions" else regression()
    elif is_generated(config.dataset):
        own = {k: v for k, v in config.load_options.items() if k not in inspect.signature(load).parameters}
        task = generate(config.dataset, **own).task
    else:
        folder = config.data.get("folder")
        task = read_store(store_path(config.dataset, folder and Path(folder)), ()).task
    labels = torch.zeros((2, len(task.names)) if task.kind == "emotions" else 2)
    found = task_metrics(task, task.shape_prediction(torch.zeros(len(labels), task.outputs)), labels)
    planted = config.dataset in GENERATED and task.kind == "regression"
    return [*found, *(noise_free_metrics(task, labels, labels) if planted else ())]


def _check_metrics(asked: Sequence[str], known: Collection[str]) -> None:
    for key in asked:
        if key not in known:
            raise unknown_name("metric", key, known)


def _report(args: argparse.Namespace, finished: dict[int, RunResult], failed: dict[int, Exception]) -> None:
    import pandas as pd

    from mmsa_lib.experiments.tables import results_table

    frame, table = None, None
    if finished:
        frame = pd.concat([part for r in finished.values() for part in (r.metrics, r.constants)])
        frame = frame.drop_duplicates(ignore_index=True)
        table = results_table(frame, args.metrics)
        say_undefined(table.undefined)
    if args.json:
        runs = [_run_facts(seed, result, args.metrics) for seed, result in finished.items()]
        runs += [
            {"seed": seed, "error": {"type": type(e).__name__, "message": _reason(e)}} for seed, e in failed.items()
        ]
        facts = {"method": args.method, "dataset": args.dataset, "fold": args.fold, "runs": runs}
        print_json({**facts, **({} if table is None else _summary_facts(table.frame))})
        return
    for seed, result in finished.items():
        note = " (finished before)" if result.finished_before else ""
        print(f"seed {seed}: {result.folder}{note}")
        print("  " + _metric_line(_test_metrics(result), args.metrics))
        if result.environment["training"].get("one_class") and not _beats_constants(result):
            say(f"seed {seed}: the model decides the same for every test sample; it has learned nothing")
    if table is not None:
        print(f"\n{table!r}")
        _print_incomplete(_only(frame, args.metrics), args.metrics)


def _print_incomplete(frame: pd.DataFrame, metrics: Sequence[str] | None) -> None:
    """One line per protocol, summary and row: the headline numbers, on the scale of the metrics."""
    from mmsa_lib.experiments.summaries import HEADLINE, protocol_summaries, summarise

    own = protocol_summaries(frame[~frame["method"].str.startswith("oracle_")])
    own = own[own["level"].isin(HEADLINE)]
    for (protocol, name), part in own.groupby(["protocol", "level"], sort=False):
        print(f"\n{protocol}: {name.replace('_', ', ')}, mean over seeds")
        for method, rows in summarise(part, items=False).groupby("method", sort=False):
            print(f"{method:<22} {_metric_line(_by_metric(rows, 'mean'), metrics)}")


def _run_facts(seed: int, result: RunResult, shown: Sequence[str] | None) -> dict[str, Any]:
    """What ``--json`` says of a run: its metrics by split, and by protocol and level."""
    frame = _only(result.metrics, shown)
    complete = frame[frame["protocol"] == "complete"]
    protocols: dict[str, dict[str, dict[str, float]]] = {}
    others = frame[(frame["protocol"] != "complete") & (frame["split"] == "test")]
    for (protocol, level), cell in others.groupby(["protocol", "level"], sort=False):
        protocols.setdefault(protocol, {})[level] = _by_metric(cell)
    return {
        "seed": seed,
        "run_id": result.run_id,
        "folder": str(result.folder),
        "finished_before": result.finished_before,
        **result.environment["training"],
        "metrics": {split: _by_metric(part) for split, part in complete.groupby("split")},
        "protocols": protocols,
    }


def _summary_facts(summary: pd.DataFrame) -> dict[str, Any]:
    """Test metrics over seeds, and those of the constants."""
    numbers = ["n", "mean", "sd", "low", "high"]
    constants = summary[summary["constant"]].groupby("method", sort=True)
    return {
        "over_seeds": summary[~summary["constant"]].set_index("metric")[numbers].T.to_dict(),
        "constants": {name: _by_metric(part, "mean") for name, part in constants},
    }


def _only(frame: pd.DataFrame, metrics: Sequence[str] | None) -> pd.DataFrame:
    return frame[frame["metric"].isin(metrics)] if metrics else frame


def _by_metric(rows: pd.DataFrame, column: str = "value") -> dict[str, float]:
    return rows.set_index("metric")[column].to_dict()


def _test_metrics(result: RunResult) -> dict[str, float]:
    return _by_metric(result.metrics.query("split == 'test' and protocol == 'complete'"))


def _metric_line(values: dict[str, float], keys: Sequence[str] | None = None) -> str:
    """The values of ``keys`` as far as they are there; without keys, those that are shown first."""
    from mmsa_lib.evaluation.metrics import metric, shown_first

    def number(percent: bool, value: float) -> str:
        return "–" if math.isnan(value) else f"{100 * value:.2f} %" if percent else f"{value:.3f}"

    chosen = shown_first(list(values)) if keys is None else [key for key in keys if key in values]
    shown = {metric(key): values[key] for key in chosen}
    return "  ".join(f"{m.label} {number(m.percent, v)}" for m, v in shown.items())


def _beats_constants(result: RunResult) -> bool:
    """Whether some metric of a run is better than all constants: a mean error, or any metric of emotions or classes.

    Decisions that are the same for every sample say nothing where the truth is that of one class as well.
    """
    own, constants = _test_metrics(result), result.constants
    decisions = [key for key in ("acc2_neg_nonneg", "acc2", "acc", "mean_acc") if key in own]
    if all(math.isnan(own[key]) for key in decisions):
        return True
    if "mae" in own:
        honest = constants[(constants["metric"] == "mae") & ~constants["method"].str.startswith("oracle_")]
        return own["mae"] < honest["value"].min()
    best = constants.groupby("metric")["value"].max()
    return any(own[key] > best[key] for key in own)


def _constants(args: argparse.Namespace) -> int:
    """The constant baselines of a data set: nothing is trained, so there are no seeds and no run folders."""
    from mmsa_lib.data.loading import load
    from mmsa_lib.evaluation.metrics import metric
    from mmsa_lib.experiments.runs import constant_rows

    if args.assignments:
        raise ConfigError("the constant baselines have no settings; leave --set out")
    if args.missing != "none" or args.protocols != ["complete"]:
        raise ConfigError("what is missing changes no constant; leave --missing and --protocols out")
    if args.device or args.oracle or args.force or args.label or args.runs or args.seeds != [1111]:
        unused = "--device, --oracle, --force, --label, --runs, --seeds"
        raise ConfigError(f"constant baselines are not trained; leave {unused} out")
    rows = constant_rows(load(args.dataset, args.fold))
    _check_metrics(args.metrics or (), set(rows["metric"]))
    rows = _only(rows, args.metrics)
    values = {name: _by_metric(part) for name, part in rows.groupby("method", sort=False)}
    facts = {"method": CONSTANT, "dataset": args.dataset, "fold": args.fold, "constants": values}
    lines = [f"{name:<22} {_metric_line(numbers, args.metrics)}" for name, numbers in values.items()]
    empty = [metric(key) for key, part in rows.groupby("metric", sort=False) if part["value"].isna().all()]
    code = answer(args, facts, lines)
    say_undefined([described.label for described in empty if described.percent])
    return code
