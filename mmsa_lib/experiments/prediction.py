"""Predictions of finished runs for samples of one's own: a value, an interval, and what each modality changed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.scaling import Preparation
from mmsa_lib.data.sources.samples import open_samples, sources_of
from mmsa_lib.data.task import Task
from mmsa_lib.data.unseen import far_off, prepare, refuse_nothing, rescaled, switched_off
from mmsa_lib.errors import ConfigError, DataError, RunError, unknown_name
from mmsa_lib.experiments import files
from mmsa_lib.experiments.runs import RunResult, check_fits, data_fingerprint, find_run
from mmsa_lib.methods.base import Method
from mmsa_lib.paths import runs_folder
from mmsa_lib.threads import cpu_threads
from mmsa_lib.training import predict as predict_split

Run = RunResult | Path | str
DEMO = "demo"
"""The name of the runs that come with the package."""

DEMO_FOLDER = Path(__file__).parent.parent / "demo_model"


def predict(
    runs: Run | Sequence[Run],
    inputs: Any,
    *,
    modalities: Collection[Modality] | None = None,
    interval: float | None = 0.9,
    folder: Path | str | None = None,
) -> pd.DataFrame:
    """One row per sample: the mean prediction of ``runs``, its interval, and the same without each modality.

    Scaling, text model and widths are those of the runs. What a sample lacks counts as missing, as in training. Labels
    and splits of ``inputs`` are not needed; a label that is there is shown and not used.

    The interval is split conformal: the prediction plus and minus the ``ceil((n + 1) * interval)``-th smallest of the
    ``n`` absolute errors that the mean of the runs makes on their validation samples, cut to the label range and
    stretched to a prediction beyond it. Where new samples are exchangeable with the validation samples it holds the
    label in at least that share of cases, on average over samples, not for each kind of them. It promises nothing for
    other speakers, languages, extractors, or missing modalities; and as the validation samples also chose the epoch,
    their errors are somewhat too small. A warning names samples whose features lie far from those of the training
    (:func:`mmsa_lib.data.unseen.far_off`).

    Args:
        runs: folders or identifiers of finished runs, ``"demo"`` for those that come with the package. Several must
            agree in data, task and widths, and are averaged; they may differ in seed and method.
        inputs: a file or folder in any form that ``mmsa-lib data import`` reads, the name of a data set or store;
            ``{"text": "a sentence", "audio": (T, d), "vision": (T, d)}`` with any of these (and ``id``), a list of
            such or of sentences, a table of pandas, or a split that :func:`mmsa_lib.data.load` gave. A list of paths
            is read one after the other.
        modalities: those that are used; others are switched off, as if the samples lacked them.
        interval: the share of labels that the interval shall hold, or ``None`` for none.
        folder: where identifiers are looked for, by default the folder of runs.

    Returns:
        ``id`` (the row where there is none, of several inputs ``<file>_<row>``); ``group`` and ``label`` where the
        inputs have them; ``prediction``, ``low``, ``high``, ``sd`` (over the runs, NaN for one) and ``without_text``,
        ``without_audio``, ``without_vision``: the prediction as if the sample lacked that modality, so that
        ``prediction - without_text`` is what text contributed (NaN where it isn't read).
        Of classes and emotions ``prediction`` is the most probable name, ``probability_<name>`` follows, ``sd`` and
        ``without_...`` are of the probability of that name, and there is no interval. ``attrs["calibration"]`` says
        which half width the interval has, and from how many samples.

    Raises:
        DataError: a run is damaged or unlike the others, or an input does not fit; names file, field and sample.
        ConfigError: an argument is out of range.
        UnknownNameError: no such modality, data set or method.
    """
    ensemble = Ensemble.of(runs, folder)
    kept = ensemble.modalities if modalities is None else ensemble.chosen(modalities)
    half = ensemble.half_width(interval)
    tables, far, sources = [], {}, sources_of(inputs)
    for number, source in enumerate(sources, 1):
        if isinstance(source, Utterances):
            data, known = ensemble.fitted(source), {"group": source.groups or [""] * len(source)}
            known |= _labels(source.labels.cpu().numpy(), source.task)
        else:
            stem = Path(source).stem if isinstance(source, str | Path) else f"input{number}"
            with open_samples(source, f"{stem}_" if len(sources) > 1 else "") as record:
                data = prepare(record, ensemble.preparation, ensemble.dims, ensemble.task)
                known = {"group": record.groups} if record.groups != record.ids else {}
                known |= {} if record.labels is None else _labels(record.labels, record.task)
        for modality, away in far_off(data, kept).items():
            far.setdefault(modality, []).extend((x, name) for x, name in zip(away, data.ids, strict=True) if x)
        tables.append(ensemble.table(data, kept, half, known))
    table = pd.concat(tables, ignore_index=True)
    if table["id"].duplicated().any():
        raise DataError(f"id {table['id'][table['id'].duplicated()].iloc[0]!r} is in two of the inputs; rename one")
    if told := "; ".join(f"{modality} of {_farthest(samples)}" for modality, samples in far.items() if samples):
        warnings.warn(f"features lie far from what the runs were trained on: {told}; predictions from them, and their "
                      "intervals, say little; check the extractor and its units", stacklevel=2)  # fmt: skip
    table.attrs["calibration"] = {
        "interval": interval, "half_width": half, "samples": len(ensemble.errors),
        "runs": [run.run_id for run in ensemble.runs],
    }  # fmt: skip
    return table


def stored_split(
    result: RunResult, split: str = "test", *, dataset: str | None = None, fold: str | None = None
) -> Utterances:
    """A split of the data set of a run, or of another one, for :func:`predict`.

    Args:
        result: the run.
        split: ``train``, ``valid`` or ``test``.
        dataset, fold: by default those of the run.

    Raises:
        DataError: the data set has another task or other feature widths than the one the run was trained on, or it is
            the run's own and changed since.
    """
    config = result.config
    asked = (dataset or config.dataset, fold or config.fold)
    splits = load(*asked, **config.load_options)
    check_fits(result, splits[split])
    recorded = result.environment.get("data_fingerprint")
    if asked == (config.dataset, config.fold) and recorded not in (None, data_fingerprint(splits)):
        raise DataError(
            f"{config.dataset} is not the data that run {result.run_id} was trained on; it changed since, or "
            f"{files.CONFIG} was edited; train again, or keep the changed data under another name and give that"
        )
    return splits[split]


@dataclass(frozen=True)
class Ensemble:
    """Runs that agree in what they read and predict.

    Attributes:
        runs, methods: the runs, and the trained method of each.
        preparation, dims, task: what all of them read and predict.
        errors: ``(n,)`` absolute errors of their mean on the validation samples, in ascending order; empty where it
            is no regression.
    """

    runs: list[RunResult]
    methods: list[Method]
    preparation: Preparation
    dims: dict[Modality, int]
    task: Task
    errors: np.ndarray

    @classmethod
    def of(cls, runs: Run | Sequence[Run], folder: Path | str | None = None) -> Ensemble:
        """Load runs.

        Raises:
            DataError: one is damaged, or differs from the first in task, widths, data or preparation.
        """
        given = [runs] if isinstance(runs, Run) else list(runs)
        found = [run for one in given for run in find_runs(one, folder)]
        if not found:
            raise ConfigError("no run is given; name the folder of a finished run, or 'demo'")
        first = found[0]
        for other in found[1:]:
            for what, value in _identity(other).items():
                if value != (expected := _identity(first)[what]):
                    said = "" if what == "training data" else f" ({expected} and {value})"
                    raise DataError(f"runs {first.run_id} and {other.run_id} differ in {what}{said}; predict with each")
        if len({run.run_id for run in found}) < len(found):
            raise DataError("a run is given twice; name each once")
        dims = {m: first.resolved["dims"][m] for m in MODALITIES if m in first.resolved["dims"]}
        methods = [run.load_method() for run in found]
        return cls(found, methods, first.load_preparation(), dims, first.task, _validation_errors(found))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the runs read."""
        return tuple(self.dims)

    def chosen(self, modalities: Collection[Modality]) -> tuple[Modality, ...]:
        """Of the modalities that the runs read those that are named."""
        named = [modalities] if isinstance(modalities, str) else list(modalities)
        for name in named:
            if name not in MODALITIES:
                raise unknown_name("modality", name, MODALITIES)
        kept = tuple(m for m in self.modalities if m in named)
        if not kept:
            raise ConfigError(f"the runs read {', '.join(self.modalities)}; keep one of them switched on")
        return kept

    def half_width(self, interval: float | None) -> float:
        """Half the width of the interval that holds a share ``interval`` of labels; infinite for too few samples.

        Raises:
            ConfigError: the share is not between 0 and 1.
        """
        if interval is None or not len(self.errors):
            return math.nan
        if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 < interval < 1:
            raise ConfigError(f"interval={interval!r} is no share between 0 and 1, such as 0.9")
        rank = math.ceil((len(self.errors) + 1) * interval - 1e-9)  # 0.9 has no exact value
        return float(self.errors[rank - 1]) if rank <= len(self.errors) else math.inf

    def fitted(self, data: Utterances) -> Utterances:
        """A loaded split as these runs read it."""
        check_fits(self.runs[0], data)
        return rescaled(data, self.preparation)

    def answers(self, data: Utterances) -> np.ndarray:
        """``(runs, N)`` float32 on the label scale, or ``(runs, N, K)`` probabilities."""
        found = []
        for run, method in zip(self.runs, self.methods, strict=True):
            try:
                with cpu_threads(run.config.settings.threads):
                    answer = predict_split(method, data, run.config.settings.evaluation_batch_size)
            except RunError as error:
                what = " ".join(str(error).partition(";")[0].split())
                raise DataError(f"{what}; its features are too large for the run, correct them") from error
            found.append(_decided(self.task, answer))
        return np.stack(found)

    def table(
        self, data: Utterances, kept: Collection[Modality], half: float, known: Mapping[str, Iterable]
    ) -> pd.DataFrame:
        """The table of :func:`predict` for one input; ``known`` are columns of it that are shown."""
        aligned = self.preparation.aligned
        off = [m for m in self.modalities if m not in kept]
        if off:
            data = switched_off(data, off, aligned)
            refuse_nothing(_read_by(data, kept), "; the others are switched off")
        answers = self.answers(data)
        mean = answers.mean(axis=0)
        columns = {"id": list(data.ids), **known}
        if self.task.kind == "regression":
            (low, high), chosen = self.task.range, ...
            columns |= {
                "prediction": mean,
                "low": np.minimum((mean - half).clip(low, high), mean),  # also where it lies beyond the scale
                "high": np.maximum((mean + half).clip(low, high), mean),
            }
        else:
            decided = mean.argmax(axis=1)
            chosen = (np.arange(len(mean)), decided)
            columns |= {"prediction": np.array(self.task.names)[decided]}
            columns |= {f"probability_{name}": mean[:, k] for k, name in enumerate(self.task.names)}
        spread = answers.std(axis=0, ddof=1) if len(answers) > 1 else np.full_like(mean, np.nan)
        columns["sd"] = spread[chosen]
        for modality in MODALITIES:
            without = np.full(len(data), np.nan, np.float32)
            if modality in kept:
                without = self.answers(switched_off(data, [modality], aligned)).mean(axis=0)[chosen]
            columns[f"without_{modality}"] = without
        return pd.DataFrame(columns)


def find_runs(run: Run, folder: Path | str | None = None) -> list[RunResult]:
    """The finished runs that a result, a folder, an identifier in ``folder``, or :data:`DEMO` means."""
    if isinstance(run, RunResult):
        return [find_run(run.folder)]
    if str(run) == DEMO and not (Path(DEMO) / files.DONE).is_file():
        return [find_run(path) for path in sorted(DEMO_FOLDER.iterdir()) if path.is_dir()]
    return [find_run(run, folder)]


def is_run(name: str, folder: Path | str | None = None) -> bool:
    """Whether ``name`` means a run, and no sample: a folder that a run wrote, an identifier, or :data:`DEMO`."""
    places = (Path(name), Path(folder or runs_folder()) / name)
    return name == DEMO or any((place / file).is_file() for place in places for file in (files.DONE, files.CONFIG))


def _identity(run: RunResult) -> dict[str, Any]:
    """What runs of one ensemble have in common."""
    resolved, marks = run.resolved, run.environment
    return {
        "task": resolved["task"],
        "widths": resolved["dims"],
        "training data": marks.get("data_fingerprint", (run.config.dataset, run.config.fold, run.config.data)),
    }


def _validation_errors(runs: Sequence[RunResult]) -> np.ndarray:
    if runs[0].task.kind != "regression":
        return np.zeros(0)
    parts = [run.predictions("valid") for run in runs]
    if any(part.ids != parts[0].ids or part.predictions.shape != parts[0].labels.shape for part in parts):
        raise DataError(f"runs {', '.join(run.run_id for run in runs)} were validated on different samples")
    mean = np.stack([part.predictions for part in parts]).mean(axis=0)
    errors = np.abs(mean.astype(np.float64) - parts[0].labels)
    return np.sort(errors[np.isfinite(errors)])


def _decided(task: Task, prediction: Any) -> np.ndarray:
    """Predictions as they are, or logits as probabilities."""
    if task.kind == "regression":
        return prediction.numpy()
    shares = prediction.softmax(-1).numpy()
    return shares[..., 1] if task.kind == "emotions" else shares


def _read_by(data: Utterances, modalities: Collection[Modality]) -> Utterances:
    """``data`` with these modalities alone."""
    batch = data.data
    parts = {name: {m: getattr(batch, name)[m] for m in modalities} for name in ("features", "valid", "observed")}
    return replace(data, data=replace(batch, **parts))


def _labels(labels: np.ndarray, task: Task) -> dict[str, Any]:
    """Columns of labels that are shown, with the names of their task; an unknown class is empty."""
    if task.kind == "emotions":
        return {f"label_{name}": labels[:, i] for i, name in enumerate(task.names)}
    if task.kind == "classes":
        return {"label": [task.names[int(label)] if np.isfinite(label) else "" for label in labels]}
    return {"label": labels}


def _farthest(samples: list[tuple[float, str]], most: int = 3) -> str:
    """The farthest samples in words; ``samples`` are distances and ids."""
    first = sorted(samples, reverse=True)[:most]
    said = ", ".join(f"{name!r} ({min(away, 1e6):,.0f} standard deviations)" for away, name in first)
    return said + (f" and {len(samples) - most} more" if len(samples) > most else "")
