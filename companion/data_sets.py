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
from matplotlib.patches import Patch

from companion.shared import RESULTS
from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.sources import build
from mmsa_lib.data.store import read_store
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import grid, heatmap
from mmsa_lib.figures.registry import figure
from mmsa_lib.files import write_text
from mmsa_lib.paths import tables_folder

SUMMARY = "data/published/dataset_summary"
DATASETS = ("mosi", "mmmo", "mosei_text", "sims_text", "simsv2_text")
SPLITS = ("train", "valid", "test")
TABLES = {
    "splits": "samples, videos, class counts and label moments per fold and split",
    "labels": "label histogram of the standard fold; a label counts for the nearest multiple of the step",
    "lengths": "samples of the standard fold by number of words (steps, for ICT-MMMO)",
    "durations": "samples of the standard fold by segment duration; bins of one second, named by their beginning",
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

LEAK_FEATURES = {"audio73": "audio", "vision100": "vision", "textcnn100": "text"}
"""MOSI's segment features and their modality; only the first was not trained on labels."""


def summarise(record: DatasetRecord) -> dict[str, pd.DataFrame]:
    """The tables of :data:`TABLES` for one data set.

    Class counts compare the label with the middle of its range: negative below, neutral at it, positive above.
    """
    rows = {"splits": _splits, "labels": _labels, "lengths": _lengths, "durations": _durations}
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


def count_stores(names: Sequence[str] = DATASETS) -> dict[str, pd.DataFrame]:
    """The tables of :data:`TABLES`, counted again from the built stores.

    Raises:
        DataError: a store is not built or damaged.
    """
    return _joined(read_store(store_path(name)) for name in names)


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


def write_linear(target: Path) -> list[Path]:
    """Write ``ridge.csv`` and ``leak_check.csv`` to ``target``; MOSI and ICT-MMMO must be built."""
    return _write({"ridge": ridge_table(), "leak_check": leak_table()}, target)


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
    # pandas warns about empty frames, which have no types to agree on.
    filled = {name: [part[name] for part in parts if not part[name].empty] for name in TABLES}
    return {name: pd.concat(some, ignore_index=True) if some else pd.DataFrame() for name, some in filled.items()}


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


def _durations(record: DatasetRecord) -> Iterator[dict]:
    if record.times is not None:
        seconds = record.times[:, 1].astype(np.float64) - record.times[:, 0]
        yield from _histogram(record, "seconds", _whole(seconds))


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
    figure, axes = grid(len(datasets), len(datasets), 2.6, 2.8, margin=0.3, foot=0)
    for axis, name in zip(axes, datasets, strict=True):
        chosen = frame[frame["dataset"] == name]
        step = float(chosen["step"].iloc[0])
        middles = np.arange(chosen["label"].min(), chosen["label"].max() + step / 2, step)
        for split in SPLITS:
            rows = chosen[chosen["split"] == split]
            if rows.empty:
                continue
            counts = np.zeros(len(middles))
            counts[np.rint((rows["label"].to_numpy() - middles[0]) / step).astype(int)] = rows["samples"]
            edges = np.append(middles - step / 2, middles[-1] + step / 2)
            label = f"{split} ({int(counts.sum()):,})"
            axis.stairs(100 * counts / counts.sum(), edges, color=palette.SPLIT[split], lw=1.4, label=label)
        axis.set(title=name, xlabel="sentiment label", ylim=(0, None))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), handlelength=1.2)
    axes[0].set_ylabel("share of the split (%)")
    return figure


@figure("dataset_lengths", [f"{SUMMARY}/lengths.csv"])
def length_distribution(frame: pd.DataFrame, longest: int = 60) -> Figure:
    """Cumulative share of samples up to each length, one line per data set and split.

    Args:
        frame: tidy ``dataset, split, unit, length, samples``.
        longest: where the axis ends, in words or steps.
    """
    figure = Figure(figsize=(6.6, 3.0), layout="constrained")
    axis = figure.subplots()
    styles = {"train": "-", "valid": ":", "test": "--"}
    colors = (palette.BLUE, palette.ORANGE, palette.GREEN, palette.VERMILLION, palette.PURPLE)
    for color, (name, rows) in zip(colors, frame.groupby("dataset", sort=False), strict=False):
        for split, part in rows.groupby("split", sort=False):
            part = part.sort_values("length")
            share = 100 * part["samples"].cumsum() / part["samples"].sum()
            label = f"{name} ({part['unit'].iloc[0]})" if split == "train" else None
            axis.step(part["length"], share, where="post", color=color, ls=styles[split], label=label)
    axis.set(
        xlabel="words (steps) per sample", ylabel="samples up to this length (%)", ylim=(0, 101), xlim=(0, longest)
    )
    axis.set_title("solid: train, dotted: valid, dashed: test")
    axis.legend(loc="lower right")
    return figure


def availability(frame: pd.DataFrame) -> Figure:
    """Share of frames that are observed, per data set, split and modality; a dash where there is no such modality.

    Args:
        frame: tidy ``dataset, split, modality, observed`` with shares in [0, 1].
    """
    wide = frame.pivot_table(index=["dataset", "split"], columns="modality", values="observed", sort=False)
    wide = wide[[m for m in ("text", "audio", "vision") if m in wide]]
    wide.index = [f"{name}, {split}" for name, split in wide.index]
    return heatmap({"": 100 * wide}, "observed share of frames (%)", limits=(0, 100), text="{:.1f} %".format)


def utterance(
    features: Mapping[str, np.ndarray], observed: Mapping[str, np.ndarray], title: str = "", rows: int = 40
) -> Figure:
    """One utterance as aligned sequences: features over steps, one panel per modality; missing steps hatched.

    Args:
        features: modality to ``(T, d)``, the valid steps only.
        observed: modality to ``(T,)`` bool.
        title: figure title.
        rows: how many features of each modality are drawn, the first ones.
    """
    figure = Figure(figsize=(8.4, 1.5 * len(features) + 0.5), layout="constrained")
    axes = figure.subplots(len(features), 1, squeeze=False)[:, 0]
    for axis, (modality, values) in zip(axes, features.items(), strict=True):
        scale = np.quantile(np.abs(values[observed[modality]]), 0.98) if observed[modality].any() else 1.0
        image = axis.imshow(
            values[:, :rows].T, aspect="auto", cmap=palette.DIVERGING, vmin=-scale, vmax=scale, interpolation="nearest"
        )
        for step in np.flatnonzero(~observed[modality]):
            axis.axvspan(step - 0.5, step + 0.5, facecolor="white", edgecolor=palette.GREY, hatch="///", linewidth=0)
        shown = min(rows, values.shape[1])
        axis.set_ylabel(f"{modality}\n{shown} of {values.shape[1]}\nfeatures")
        axis.set_yticks([])
        axis.set_xticks(range(0, values.shape[0], max(1, values.shape[0] // 10)))
        axis.grid(False)
        figure.colorbar(image, ax=axis, label="value")
    axes[-1].set_xlabel("step (word)")
    if any((~mask).any() for mask in observed.values()):
        patch = Patch(facecolor="white", edgecolor=palette.GREY, hatch="///", label="missing")
        axes[0].legend(handles=[patch], loc="lower right", bbox_to_anchor=(1, 1))
    if title:
        axes[0].set_title(title, loc="left", parse_math=False)  # identifiers of MMSA's files hold $_$
    return figure


def bayes_errors(frame: pd.DataFrame, metric: str, label: str) -> Figure:
    """What the best possible predictor reaches from each subset of modalities.

    Args:
        frame: tidy ``modalities`` (subset name) and the column ``metric``.
        metric: column to draw.
        label: axis label with unit.
    """
    figure = Figure(figsize=(6.2, 0.8 + 0.32 * len(frame)), layout="constrained")
    axis = figure.subplots()
    axis.barh(frame["modalities"], frame[metric], color=palette.SKY)
    for i, value in enumerate(frame[metric]):
        axis.text(value, i, f" {value:.2f}", va="center")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=label, title="Best possible prediction from what is available")
    return figure


@figure("mosi_leak", sources=[f"{RESULTS}/leak_check.csv"])
def mosi_leak(leak: pd.DataFrame) -> Figure:
    """Training and test accuracy of a linear model on each segment feature of MOSI: a leak turns them round."""
    picture = Figure(figsize=(6.2, 2.6), layout="constrained")
    axis = picture.subplots()
    names = list(dict.fromkeys(leak["features"]))
    for offset, split in ((-0.18, "train"), (0.18, "test")):
        rows = leak[leak["split"] == split].set_index("features").loc[names]
        places = [i + offset for i in range(len(names))]
        axis.barh(places, 100 * rows["accuracy"], height=0.34, color=palette.SPLIT[split], label=split)
        for place, value in zip(places, rows["accuracy"], strict=True):
            axis.annotate(
                f"{100 * value:.1f}", (100 * value, place), xytext=(3, 0), textcoords="offset points", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    majority = 100 * leak.loc[leak["split"] == "test", "majority"].iloc[0]
    axis.axvline(majority, color=palette.GREY, ls="--", label="larger class of the test split")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(
        xlabel="accuracy of label ≥ 0 (%)", xlim=(0, 109), title="MOSI, standard fold: linear models per feature set"
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture
