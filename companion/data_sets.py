"""Notebook 01: facts of the public sets as small tables, linear baselines, the leak demonstration, their figures.

``python -m companion tables`` writes the tables of ``data/published/dataset_summary`` anew from the original files.
They hold counts and histograms, no transcript and no single sample, so that notebooks and figures can show the real
sets without having them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from companion.shared import RESULTS
from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.sources import build, synthetic
from mmsa_lib.data.sources.synthetic import PRESETS
from mmsa_lib.data.sources.synthetic_bayes import bayes_error
from mmsa_lib.data.store import read_store
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.baselines import ORACLE, constant_metrics
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves, dots, grid, legend
from mmsa_lib.figures.registry import figure
from mmsa_lib.files import write_text
from mmsa_lib.paths import tables_folder

SUMMARY = "data/published/dataset_summary"
DATASETS = ("mosi", "mmmo", "mosei_text", "sims_text", "simsv2_text")
NAMES = {"mosi": "CMU-MOSI", "mmmo": "ICT-MMMO", "mosei_text": "CMU-MOSEI", "sims_text": "CH-SIMS",
         "simsv2_text": "CH-SIMS v2"}  # fmt: skip
SPLITS = ("train", "valid", "test")
LOOKS = {
    split: {"color": palette.SPLIT[split], "lw": 1.4, "ls": ls}
    for split, ls in zip(SPLITS, ("-", ":", "--"), strict=True)
}
TABLES = {
    "splits": "samples, videos, class counts and label moments per fold and split",
    "labels": "label histogram of the standard fold; a label counts for the nearest multiple of the step",
    "lengths": "samples of the standard fold by number of words (steps, for ICT-MMMO)",
    "availability": "valid and observed frames per fold, split and feature set",
}
RIDGE_INPUTS = {
    ("mosi", "text"): {"text": "sentence", "audio": None},
    ("mosi", "text + audio"): {"text": "sentence"},
    ("mosi", "audio"): {"text": None},
    ("mmmo", "audio"): {"text": None, "vision": None},
    ("mmmo", "audio + vision"): {"text": None},
}
"""Loading options by data set and by name of the input, on the standard fold. ICT-MMMO has no training text."""

BAYES = "bayes.csv"
"""What the best possible predictors reach on the generated sets."""

LEAK_FEATURES = {"audio73": "audio", "vision100": "vision", "textcnn100": "text"}
"""MOSI's segment features and their modality; only the first was not trained on labels."""


def summarise(record: DatasetRecord) -> dict[str, pd.DataFrame]:
    """The tables of :data:`TABLES` for one data set.

    Class counts compare the label with the middle of its range: negative below, neutral at it, positive above.
    """
    rows = {"splits": _splits, "labels": _labels, "lengths": _lengths}
    tables = {name: pd.DataFrame(function(record)) for name, function in rows.items()}
    tables["availability"] = pd.DataFrame(_availability(record))
    for table in tables.values():
        table.insert(0, "dataset", record.name)
    return tables


def write_summary(folder: Path | str, mirror: Path | str | None = None, progress: bool = True) -> list[Path]:
    """Build the public data sets and write one CSV file per table of :data:`TABLES` into ``folder``.

    Args:
        mirror, progress: as for :func:`mmsa_lib.data.sources.build`.

    Raises:
        DataError: originals are missing or damaged, or ``folder`` can't be written.
    """
    return _write(_joined(build(name, mirror, progress) for name in DATASETS), Path(folder))


def read_summary(table: str, folder: Path | str | None = None) -> pd.DataFrame:
    """One of the committed tables, a key of :data:`TABLES`.

    Args:
        folder: where the CSV files are, by default the checkout's ``data/published/dataset_summary``.

    Raises:
        UnknownNameError: no such table.
        DataError: the file is not there.
    """
    if table not in TABLES:
        raise unknown_name("summary table", table, TABLES)
    path = Path(folder or (tables_folder("published") / "dataset_summary")) / f"{table}.csv"
    if not path.is_file():
        raise DataError(f"{path} is missing; write it by python -m companion tables")
    return pd.read_csv(path)


def pooled_features(split: Utterances, modalities: Sequence[Modality] | None = None) -> np.ndarray:
    """Mean over the observed frames of each modality, modalities side by side: ``(N, sum of d_m)`` float64.

    A sample without an observed frame of a modality gets zeros there.

    Args:
        modalities: which modalities, all by default.
    """
    parts = []
    for modality in modalities or split.modalities:
        weight = split.data.observed[modality].unsqueeze(-1).double()
        total = (split.data.features[modality].double() * weight).sum(1)
        parts.append((total / weight.sum(1).clamp_min(1)).cpu().numpy())
    return np.concatenate(parts, axis=1)


def ridge_metrics(data: Mapping[str, Utterances]) -> dict[str, float]:
    """Test metrics of a ridge regression on pooled features; its strength is chosen inside the training split.

    Args:
        data: splits as :func:`mmsa_lib.data.load` returns them, for a regression task.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _check_sentiment(data)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 21)))
    model.fit(pooled_features(data["train"]), data["train"].labels.cpu().numpy())
    return task_metrics(data["train"].task, model.predict(pooled_features(data["test"])), data["test"].labels)


def leak_check(data: Mapping[str, Utterances]) -> pd.DataFrame:
    """Accuracy of "label >= neutral" by a logistic regression (C = .01) on pooled features, per split.

    Features that were trained on the labels of evaluation samples show the signature of a leak: the *test* accuracy is
    higher than the *training* accuracy of the same linear model [T].

    Returns:
        columns split, samples, accuracy, majority (share of the larger class in that split).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _check_sentiment(data)
    truth = {name: (split.labels >= data["train"].task.center).cpu().numpy() for name, split in data.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(pooled_features(data["train"]), truth["train"])
    rows = []
    for name, split in data.items():
        share, accuracy = truth[name].mean(), float(model.score(pooled_features(split), truth[name]))
        majority = float(max(share, 1 - share))
        rows.append({"split": name, "samples": len(split), "accuracy": accuracy, "majority": majority})
    return pd.DataFrame(rows)


def ridge_table() -> pd.DataFrame:
    """Test metrics of ridge regression: columns dataset, input, metric, value."""
    rows = [
        (*key, metric, value)
        for key, options in RIDGE_INPUTS.items()
        for metric, value in ridge_metrics(load(key[0], **options)).items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "input", "metric", "value"])


def leak_table() -> pd.DataFrame:
    """Accuracy per split of a linear model on each of MOSI's segment features, standard fold, leaks allowed."""
    parts = []
    for name, modality in LEAK_FEATURES.items():
        chosen = {"text": None, "audio": None, "vision": None} | {modality: name}
        parts.append(leak_check(load("mosi", allow_leak=True, **chosen)).assign(features=name))
    return pd.concat(parts, ignore_index=True)


def bayes_table() -> pd.DataFrame:
    """Best possible scores on the validation and test samples of every generated set: ``dataset, split`` and the rest
    of :func:`mmsa_lib.data.sources.synthetic_bayes.bayes_error`. Takes some minutes."""
    parts = []
    for name in PRESETS:
        record = synthetic.build(name)
        parts += [bayes_error(record, split).assign(dataset=name, split=split) for split in SPLITS[1:]]
    table = pd.concat(parts, ignore_index=True)
    return table[["dataset", "split", *table.columns.drop(["dataset", "split"])]]


def read_bayes(dataset: str, split: str = "test") -> pd.Series:
    """Error of the best possible predictor of a generated set, by the modalities that it sees (``text+audio``, …).

    Raises:
        DataError: ``data/results/bayes.csv`` is not there.
    """
    path = tables_folder("results") / BAYES
    if not path.is_file():
        raise DataError(f"{path} is missing; write it by python -m companion tables")
    rows = pd.read_csv(path)
    return rows[(rows["dataset"] == dataset) & (rows["split"] == split)].set_index("modalities")["mae"]


def floors(data: Mapping[str, Utterances], split: str = "test") -> pd.DataFrame:
    """The lines that a picture of errors needs: the best constant, and on generated data the best possible predictors.

    The latter are those of the data as they are by default: where options of the generator or hidden frames change the
    features, leave their rows out.

    Args:
        data: splits as :func:`mmsa_lib.data.load` returns them, for a sentiment value.
        split: whose errors are drawn.

    Returns:
        ``baseline`` and ``value`` (mean absolute error), as the figures of :mod:`mmsa_lib.figures.panels` take them.
    """
    one, labels = data[split], data["train"].labels
    constants = constant_metrics(one.task, labels[labels.isfinite()], one.labels)["mae"].drop(ORACLE)
    rows = {"best constant": constants.min()}
    if one.name in PRESETS:
        best = read_bayes(one.name, split)
        if "text" in one.modalities:
            rows["best possible from the text"] = best["text"]
        if one.modalities != ("text",):
            rows["best possible from everything"] = best["+".join(one.modalities)]
    return pd.DataFrame({"baseline": list(rows), "value": list(rows.values())})


def write_linear(target: Path) -> list[Path]:
    """Write ``ridge.csv``, ``leak_check.csv`` and ``bayes.csv`` to ``target``; MOSI and ICT-MMMO must be built."""
    return _write({"ridge": ridge_table(), "leak_check": leak_table(), "bayes": bayes_table()}, target)


def _write(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [folder / f"{name}.csv" for name in tables]


def _check_sentiment(data: Mapping[str, Utterances]) -> None:
    kind = data["train"].task.kind
    if kind != "regression":
        raise ConfigError(f"linear baselines need a sentiment value; this data set has {kind}")


def _joined(records: Iterable[DatasetRecord]) -> dict[str, pd.DataFrame]:
    parts = [summarise(record) for record in records]
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in TABLES}


def _splits(record: DatasetRecord) -> Iterator[dict]:
    category = record.task.categories(torch.as_tensor(record.labels)).numpy()
    groups = np.array(record.groups)
    for fold, split, rows in _all_splits(record.folds):
        label = record.labels[rows].astype(np.float64)
        classes = np.bincount(category[rows], minlength=3).tolist()
        size = {"samples": int(rows.sum()), "videos": len(np.unique(groups[rows]))}
        counts = dict(zip(("negative", "neutral", "positive"), classes, strict=True))
        moments = {"label_mean": label.mean(), "label_sd": label.std(ddof=1), "label_median": np.median(label)}
        yield {"fold": fold, "split": split, **size, **counts, **moments}


def _labels(record: DatasetRecord) -> Iterator[dict]:
    low, high = record.task.range
    step = 0.2 if high - low <= 2 else 0.5
    nearest = _whole(record.labels / step + 0.5) * step
    yield from _histogram(record, "label", np.round(nearest, 6), step=step)


def _lengths(record: DatasetRecord) -> Iterator[dict]:
    if record.words is not None:
        words, unit = np.diff(record.words.offset), "words"
    elif record.transcripts is not None:
        words, unit = np.array([len(text.split()) for text in record.transcripts]), "words"
    else:
        words, unit = next(iter(record.features.values())).lengths, "steps"
    yield from _histogram(record, "length", words, unit=unit)


def _availability(record: DatasetRecord) -> Iterator[dict]:
    for fold, split, rows in _all_splits(record.folds):
        for name, features in record.features.items():
            starts = features.offsets[:-1]
            observed = np.add.reduceat(features.observed, starts, dtype=np.int64)[rows]
            lengths = features.lengths[rows]
            yield {
                "fold": fold, "split": split, "modality": features.modality, "features": name,
                "level": features.level, "label_trained_on": features.label_trained_on, "width": features.width,
                "samples": int(rows.sum()), "samples_without": int((observed == 0).sum()),
                "frames": int(lengths.sum()), "observed_frames": int(observed.sum()),
                "mean_length": lengths.mean(), "longest": int(lengths.max()),
            }  # fmt: skip
        if record.transcripts is not None:
            empty = sum(not record.transcripts[row].strip() for row in np.flatnonzero(rows))
            own = {"fold": fold, "split": split, "modality": "text", "features": "transcripts"}
            yield {**own, "samples": int(rows.sum()), "samples_without": empty}


def _all_splits(folds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Fold, split and the rows ``(N,)`` bool that lie in it."""
    for fold, splits in folds.items():
        for split in SPLITS:
            yield fold, split, splits == split


def _histogram(record: DatasetRecord, name: str, values: np.ndarray, **extra) -> Iterator[dict]:
    """Counts of each distinct one of ``values`` ``(N,)``, per split of the standard fold."""
    for split in SPLITS:
        distinct, counts = np.unique(values[record.folds["standard"] == split], return_counts=True)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            yield {"split": split, **extra, name: value, "samples": count}


def _whole(values: np.ndarray) -> np.ndarray:
    """The integer below; float32 noise of 1e-5 under an integer counts as that integer."""
    return np.floor(np.asarray(values, dtype=np.float64) + 1e-5).astype(np.int64)


@figure("dataset_labels", [f"{SUMMARY}/labels.csv"])
def label_histograms(frame: pd.DataFrame) -> Figure:
    """Share of samples per label bin, by split, one panel per data set.

    Args:
        frame: tidy ``dataset, split, step, label, samples``: counts of the labels nearest to each multiple of ``step``.
    """
    datasets = list(dict.fromkeys(frame["dataset"]))
    picture, axes = grid(len(datasets), 3, 3.1, 2.2, margin=0.3, foot=0.4)
    for axis, name in zip(axes, datasets, strict=True):
        chosen = frame[frame["dataset"] == name]
        step = float(chosen["step"].iloc[0])
        middles = np.arange(chosen["label"].min(), chosen["label"].max() + step / 2, step)
        edges = np.append(middles - step / 2, middles[-1] + step / 2)
        sizes = []
        for split in SPLITS:
            rows = chosen[chosen["split"] == split]
            if rows.empty:
                continue
            counts = np.zeros(len(middles))
            counts[np.rint((rows["label"].to_numpy() - middles[0]) / step).astype(int)] = rows["samples"]
            axis.stairs(100 * counts / counts.sum(), edges, **LOOKS[split])
            sizes.append(f"{int(counts.sum()):,}")
        axis.set(title=f"{NAMES.get(name, name)}\n{' + '.join(sizes)}", ylim=(0, None))
    for axis in axes[-3:]:
        axis.set_xlabel("label")
    for axis in axes[::3]:
        axis.set_ylabel("share of the split (%)")
    legend(picture, LOOKS)
    return picture


@figure("dataset_lengths", [f"{SUMMARY}/lengths.csv"])
def length_distribution(frame: pd.DataFrame, longest: int = 60) -> Figure:
    """Cumulative share of samples up to each length, one line per data set.

    Args:
        frame: tidy ``dataset, split, unit, length, samples``.
        longest: where the axis ends, in words or steps.
    """
    rows = frame.groupby(["dataset", "unit", "length"], sort=False)["samples"].sum().reset_index().sort_values("length")
    reached = rows.groupby("dataset")["samples"].cumsum() / rows.groupby("dataset")["samples"].transform("sum")
    units = frame[["dataset", "unit"]].drop_duplicates().itertuples(index=False)
    lines = {own: f"{NAMES.get(own, own)} ({unit})" for own, unit in units}
    drawn = pd.DataFrame({"line": rows["dataset"].map(lines), "x": rows["length"], "value": 100 * reached})
    looks = {
        own: {"color": color, "ds": "steps-post"} for own, color in zip(lines.values(), palette.CYCLE, strict=False)
    }
    picture = curves(drawn, looks, "words (steps) of a sample", "samples up to this length (%)", width=6.5, height=2.6)
    picture.axes[0].set(ylim=(0, 101), xlim=(0, longest))
    return picture


def bayes_errors(frame: pd.DataFrame, floors: pd.DataFrame) -> Figure:
    """What the best possible predictor reaches from each subset of modalities, beside lines of what needs no method.

    Args:
        frame: tidy ``modalities`` (subset name) and ``mae``.
        floors: ``baseline`` and ``value``.
    """
    bars = frame.assign(name=frame["modalities"].str.replace("+", " + "), value=frame["mae"], mark="best possible")
    picture = dots(bars, {"best possible": {"color": palette.BLUE, "ms": 7}}, "mean absolute error, test samples",
                   floors=floors, width=6.2)  # fmt: skip
    for place, value in enumerate(frame["mae"]):
        picture.axes[0].annotate(f"{value:.3f}", (value, place), xytext=(9, 0), textcoords="offset points", va="center")
    return picture


def spoken(sample: int) -> Figure:
    """A real utterance of CMU-MOSI: its words where they are spoken, and its audio and vision against the usual ones.

    Args:
        sample: position among the training samples of the standard fold.

    Raises:
        DataError: the data set is not built.
    """
    record = read_store(store_path("mosi"))
    train = np.flatnonzero(record.folds["standard"] == "train")
    row = train[sample]
    words = slice(*record.words.offset[row : row + 2])
    picture = Figure(figsize=(9, 5.4), layout="constrained")
    above, *below = picture.subplots(3, 1, height_ratios=(1, 1.5, 1.5))
    for word, (start, end) in zip(record.words.word[words], record.words.interval[words], strict=True):
        above.axvspan(start, end, facecolor=palette.MODALITY["text"], alpha=0.25, edgecolor="white")
        above.text((start + end) / 2, 0.5, word, ha="center", va="center", rotation=90)
    above.set(yticks=[], xlabel="seconds", ylim=(0, 1))
    above.set_title(f"{record.ids[row]}, label {record.labels[row]:.1f}", parse_math=False)
    for axis, (name, modality) in zip(below, (("audio73", "audio"), ("vision100", "vision")), strict=True):
        values = record.features[name].values  # noqa: PD011 (not pandas)
        mean, spread = values[train].mean(0), values[train].std(0)
        height = (values[row] - mean) / np.where(spread > 0, spread, 1)
        axis.bar(range(len(height)), height, color=palette.MODALITY[modality])
        axis.set(xlabel=f"{name}: one vector for the utterance", ylabel="standard deviations\nfrom the mean")
    return picture


@figure("mosi_leak", sources=[f"{RESULTS}/leak_check.csv"])
def mosi_leak(leak: pd.DataFrame) -> Figure:
    """Training and test accuracy of a linear model on each segment feature of MOSI: a leak turns them round."""
    shown = leak[leak["split"] != "valid"]
    drawn = shown.assign(name=shown["features"], mark=shown["split"], value=100 * shown["accuracy"])
    marks = {split: {"color": palette.SPLIT[split], "ms": 8, "label": split} for split in ("train", "test")}
    majority = 100 * leak.loc[leak["split"] == "test", "majority"].iloc[:1]
    floors = pd.DataFrame({"baseline": "larger class of the test split", "value": majority})
    title = "CMU-MOSI, standard fold"
    picture = dots(drawn, marks, "accuracy of label ≥ 0 (%)", floors=floors, width=5.6, line=0.42, title=title)
    names = list(dict.fromkeys(drawn["name"]))
    for row in drawn.itertuples():
        spot = (row.value, names.index(row.name))
        picture.axes[0].annotate(
            f"{row.value:.1f}", spot, xytext=(0, 6), textcoords="offset points", ha="center", va="bottom"
        )
    return picture
