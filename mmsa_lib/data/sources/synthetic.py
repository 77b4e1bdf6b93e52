"""The generated data sets: no download, seeded, built in about a second, with planted factors.

``synthetic`` is the default one; :data:`PRESETS` holds what the others of the family do in another way. All are one
generator with other :class:`Settings`. The factors are stored with the samples, so that a claim such as "this
representation holds what the modalities share" can be measured (:mod:`mmsa_lib.evaluation.probes`);
:mod:`.synthetic_bayes` says how well any model could possibly do, from the same quantities.

One sample has independent standard normal factors::

    shared           s     seen by text, audio and vision, at the same word
    private_<m>      p_m   seen by modality m alone
    synergy_audio    q_a   seen by audio alone, \\  only their product q_a q_v moves the label:
    synergy_vision   q_v   seen by vision alone, /  neither modality alone knows anything of it
    speaker, recording     nuisance, never part of the label: seen by all, or of each modality its own

A frame ``t`` of modality ``m`` is, in coordinates that an orthogonal matrix then mixes into the features::

    h[t, f] = gain[m, f] * envelope[peak_f, t] * factor_f + noise * e[t, f]     for each factor that m sees
    h[t, n] = NUISANCE_GAIN * nuisance_n                  + noise * e[t, n]     for speaker and recording
    h[t, j] =                              noise * content[j] * e[t, j]         for all other coordinates

with white standard normal ``e``. The label answers ``u = (sum_f weight_f factor_f + synergy q_a q_v + label_noise e) /
norm`` (unit variance) through a saturating scale, ``3 tanh(.7 u)``, rounded to steps of .2 as the mean of five
annotators is. The distribution resembles CMU-MOSI: standard deviation 1.5, about 5 % exact zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from mmsa_lib.data.record import MODALITIES, SPLITS, DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.registry import SYNTHETIC
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError, unknown_name

FACTORS = ("shared", "private_text", "private_audio", "private_vision", "synergy_audio", "synergy_vision")

# How strongly a factor shows in a frame at its peak, against a noise of standard deviation 1.
PRIVATE_GAIN, SYNERGY_GAIN = 2.5, 3.0
NUISANCE_GAIN = 2.0
SPEAKER_WIDTH, RECORDING_WIDTH = 2, 1
FRAMES_AT_ONCE = 2**12
CONTENT_SCALE = 1.5
WINDOW = np.array([0.5, 1.0, 0.5])
RESPONSE_SLOPE = 0.7
EMOTIONS = ("neutral", "happy", "sad", "angry")
NEUTRAL_BAND = 0.5
MINIMUM_WIDTH = 8
NOTE_PREFIX = "generator settings: "
LIMITS = {"seed": (0, 2**63 - 1), "length": (1, 10_000), "speaker_size": (1, 10**9), "focus": (0, 1)}
LIMITS |= {"noise": (1e-3, 1e3), "label_noise": (0, 1e3), "missing": (0, 0.9), "absent": (0, 0.9), "synergy": (0, 1e3)}
LIMITS |= {"shared_weight": (0, 1e3), "private_weights": (0, 1e3), "shared_gains": (0, 1e3)}
CHOICES = {"task": ("regression", "emotions"), "nuisance": ("common", "private")}
ADDED = ("shared_weight", "private_weights", "shared_gains", "nuisance")
"""Options that came later: a record's notes leave out those that are as they always were."""
RECORDINGS_PER_SPEAKER = 2
RESOLUTION = 4096
"""Features are multiples of 1/4096: far below the noise, and the same bits on every machine."""


@dataclass(frozen=True)
class Settings:
    """All options of the generator; two records with equal settings are equal.

    Attributes:
        samples: number of training, validation and test samples.
        seed: seed of all random streams. Each aspect (mixing, factors, lengths, noise, missingness, label noise) has
            its own stream, so that changing one option leaves the draws of the others as they were.
        dims: feature widths of text, audio and vision; at least 8 each.
        length: longest sequence in words; lengths are uniform between a quarter of it and all of it.
        noise: standard deviation of the frame noise, relative to the default.
        label_noise: standard deviation of the annotation noise, before normalisation.
        missing: probability that a frame of a modality is not observed.
        absent: probability that a modality is missing in a whole sample (never all three).
        synergy: weight of the product ``q_a q_v`` in the label.
        focus: how much a factor concentrates around its peak word, from 0 (all words alike) to 1 (three words only).
        speaker_size: samples per speaker, about.
        task: ``"regression"`` on [-3, 3] or ``"emotions"`` (neutral, happy, sad, angry).
        shared_weight: weight of the shared factor in the label.
        private_weights: weights of the private factors of text, audio and vision in the label.
        shared_gains: how strongly the shared factor shows in a frame of text, audio and vision at its peak.
        nuisance: ``"common"``: one speaker and one recording, seen by all modalities, so that an utterance is most
            easily recognised by them; ``"private"``: each modality has its own, independent of those of the others.

    The weights are chosen so that text alone is strong but not sufficient. On the test sets of seeds 0 to 3, ridge on
    mean-pooled features correlates .69-.73 with the labels from text and .77-.78 from everything; the best possible
    predictor (:func:`.synthetic_bayes.bayes_error`) .74-.81 from text and .87-.90 from everything.
    """

    samples: tuple[int, int, int] = (600, 200, 400)
    seed: int = 0
    dims: tuple[int, int, int] = (300, 74, 35)
    length: int = 20
    noise: float = 1.0
    label_noise: float = 0.30
    missing: float = 0.05
    absent: float = 0.03
    synergy: float = 0.30
    focus: float = 0.9
    speaker_size: int = 15
    task: Literal["regression", "emotions"] = "regression"
    shared_weight: float = 0.65
    private_weights: tuple[float, float, float] = (0.60, 0.28, 0.28)
    shared_gains: tuple[float, float, float] = (2.5, 1.2, 1.2)
    nuisance: Literal["common", "private"] = "common"

    def __post_init__(self):
        for name, least in (("samples", 1), ("dims", MINIMUM_WIDTH)):
            value = getattr(self, name)
            parts = tuple(value) if isinstance(value, (list, tuple)) else ()
            if len(parts) != 3 or any(type(part) is not int or part < least for part in parts):
                raise ConfigError(f"synthetic data: {name}={value!r}; give three integers of at least {least}")
            object.__setattr__(self, name, parts)
        for name, (low, high) in LIMITS.items():
            value, integer = getattr(self, name), name in ("seed", "length", "speaker_size")
            several = name in ("private_weights", "shared_gains")
            parts = tuple(value) if several and isinstance(value, (list, tuple)) else (value,)
            if several and len(parts) != 3:
                raise ConfigError(f"synthetic data: {name}={value!r}; give three numbers, for text, audio and vision")
            for part in parts:
                if isinstance(part, bool) or not isinstance(part, int if integer else (int, float)):
                    kind = "an integer" if integer else "a number"
                    raise ConfigError(f"synthetic data: {name}={value!r} is not {kind}")
                if not low <= part <= high:
                    raise ConfigError(f"synthetic data: {name}={value} is outside [{low}, {high}]")
            if several:
                object.__setattr__(self, name, parts)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"synthetic data: {name}={getattr(self, name)!r}; choose {' or '.join(map(repr, known))}"
                )
        if not self.norm:
            raise ConfigError("synthetic data: nothing moves the label; give shared_weight or another weight above 0")

    def note(self) -> str:
        """The settings as one line of a record's notes; :func:`settings_of_notes` reads it back."""
        usual = {name: getattr(type(self), name) for name in ADDED}
        return NOTE_PREFIX + json.dumps({k: v for k, v in asdict(self).items() if k not in ADDED or v != usual[k]})

    @property
    def widths(self) -> dict[Modality, int]:
        """Feature width by modality."""
        return dict(zip(MODALITIES, self.dims, strict=True))

    @property
    def weights(self) -> dict[str, float]:
        """Weight in the label of each factor that moves it by itself."""
        private = {f"private_{m}": weight for m, weight in zip(MODALITIES, self.private_weights, strict=True)}
        return {"shared": self.shared_weight, **private}

    @property
    def gains(self) -> dict[Modality, dict[str, float]]:
        """Per modality the factors that it sees, and how strongly each shows in a frame at its peak."""
        found = {}
        for m, shared in zip(MODALITIES, self.shared_gains, strict=True):
            synergy = {} if m == "text" else {f"synergy_{m}": SYNERGY_GAIN}
            found[m] = {"shared": shared, f"private_{m}": PRIVATE_GAIN, **synergy}
        return found

    @property
    def norm(self) -> float:
        """Standard deviation of the weighted sum of factors, product and label noise, which makes ``u`` unit."""
        squares = [weight**2 for weight in self.weights.values()]
        return float(np.sqrt(sum(squares) + self.synergy**2 + self.label_noise**2))

    def stream(self, *path: int | str) -> np.random.Generator:
        """The random stream of one aspect, independent of all others and of NumPy's global state."""
        words = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in path]
        return np.random.default_rng(np.random.SeedSequence([self.seed, *words]))


def settings_of_notes(notes: list[str]) -> Settings | None:
    """The settings in a record's notes, or ``None`` where there are none."""
    for note in notes:
        if note.startswith(NOTE_PREFIX):
            stored = json.loads(note.removeprefix(NOTE_PREFIX))
            known = {field.name for field in fields(Settings)}
            return Settings(**stored) if known - set(ADDED) <= set(stored) <= known else None
    return None


_LARGE = {"samples": (1200, 400, 5000), "dims": (64, 32, 24), "length": 12}
_LARGE |= {"shared_gains": (1.8, 1.8, 1.8), "nuisance": "private"}
PRESETS: dict[str, dict[str, Any]] = {
    SYNTHETIC: {},
    "synthetic_redundant": _LARGE | {"shared_weight": 0.9, "private_weights": (0.2, 0.2, 0.2), "synergy": 0.0},
    "synthetic_private": _LARGE | {"shared_weight": 0.2, "private_weights": (0.7, 0.45, 0.45), "synergy": 0.0},
    "synthetic_synergy": _LARGE | {"shared_weight": 0.3, "private_weights": (0.3, 0.2, 0.2), "synergy": 0.8},
}
"""What each of :data:`~mmsa_lib.data.registry.GENERATED` does in another way than :class:`Settings` says.

The last three have equal features, sample for sample: they differ in what the label answers to, and in nothing else.
"""


def settings_for(name: str, **options) -> Settings:
    """The settings of a generated data set.

    Args:
        name: a key of :data:`PRESETS`.
        **options: fields of :class:`Settings`, by default as in the preset.

    Raises:
        UnknownNameError: no such data set or option.
        ConfigError: an option is out of range.
    """
    if name not in PRESETS:
        raise unknown_name("generated data set", name, PRESETS)
    for option in options:
        if option not in Settings.__dataclass_fields__:
            raise unknown_name("option of the synthetic data", option, Settings.__dataclass_fields__)
    return Settings(**{**PRESETS[name], **options})


def mixing(settings: Settings, modality: Modality) -> np.ndarray:
    """Orthogonal ``(d, d)`` matrix from hidden coordinates (columns) to features (rows) of one modality."""
    width = settings.widths[modality]
    normal = settings.stream("mixing", modality).standard_normal((width, width))
    orthogonal, triangle = np.linalg.qr(normal)
    return orthogonal * np.sign(np.diag(triangle))


def envelopes(settings: Settings) -> np.ndarray:
    """``(T, T)``: row ``k`` is how strongly a factor with its peak at word ``k`` shows in each word; 1 at the peak."""
    distance = np.abs(np.subtract.outer(np.arange(settings.length), np.arange(settings.length)))
    reach = len(WINDOW) // 2
    bump = np.where(distance <= reach, WINDOW[reach + np.minimum(distance, reach)], 0.0)
    return (1 - settings.focus) + settings.focus * bump


def content_scale(settings: Settings, modality: Modality) -> np.ndarray:
    """Standard deviation of each hidden coordinate's noise: 1 for factors and nuisance, a falling spectrum after."""
    first = len(settings.gains[modality]) + SPEAKER_WIDTH + RECORDING_WIDTH
    rest = settings.widths[modality] - first
    return np.concatenate([np.ones(first), CONTENT_SCALE / np.sqrt(1 + np.arange(rest))]) * settings.noise


def valence(settings: Settings, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The part of ``u`` that the factors determine; any shape, without annotation noise."""
    linear = sum(weight * factors[name] for name, weight in settings.weights.items())
    return (linear + settings.synergy * factors["synergy_audio"] * factors["synergy_vision"]) / settings.norm


def respond(settings: Settings, factors: Mapping[str, np.ndarray], errors: np.ndarray) -> np.ndarray:
    """Labels of samples with these factors.

    Args:
        factors: each factor with shape ``S``.
        errors: standard normal annotation errors ``(*S, 2)``: of valence, of arousal.

    Returns:
        ``S`` sentiment in steps of .2, or ``(*S, 4)`` with exactly one emotion of :data:`EMOTIONS` set. Neutral:
        ``|u| < .5``. Happy: ``u >= .5``. Else angry where arousal ``(p_audio - p_vision) / sqrt 2``, which is
        uncorrelated with ``u`` where both weigh the same, is positive, and sad where it is not.
    """
    u = valence(settings, factors) + settings.label_noise / settings.norm * errors[..., 0]
    if settings.task == "regression":
        return rate(u)
    arousal = (factors["private_audio"] - factors["private_vision"]) / np.sqrt(2) + settings.label_noise * errors[
        ..., 1
    ]
    emotion = np.where(np.abs(u) < NEUTRAL_BAND, 0, np.where(u > 0, 1, np.where(arousal > 0, 3, 2)))
    return (emotion[..., None] == np.arange(len(EMOTIONS))).astype(np.float32)


def saturate(u: np.ndarray) -> np.ndarray:
    """The scale on which ``u`` is reported: smooth, within (-3, 3)."""
    return 3 * np.tanh(RESPONSE_SLOPE * u)


def rate(u: np.ndarray) -> np.ndarray:
    """Sentiment on [-3, 3] in steps of .2, float32."""
    return (np.round(5 * saturate(u)) / 5 + 0.0).astype(np.float32)  # + 0.0 turns -0 into 0


def build(name: str = SYNTHETIC, **options) -> DatasetRecord:
    """Generate a data set.

    Args:
        name: one of :data:`PRESETS`.
        **options: fields of :class:`Settings`, by default as in the preset.

    Returns:
        A record of that name with word-aligned feature sets ``planted_text``, ``planted_audio`` and ``planted_vision``,
        speakers as groups (disjoint across splits) and these ``factors``, all float32 ``(N, k)``: ``shared``,
        ``private_<m>``, ``synergy_audio``, ``synergy_vision``, their product ``synergy``, ``sentiment`` (the label's
        scale without annotation noise or steps), ``speaker`` and ``recording`` (with private nuisance ``speaker_<m>``
        and ``recording_<m>``), and ``peak_<factor>``, the word around which a factor shows. ``unimodal_labels``
        (regression) rate what each modality expresses alone.

    Raises:
        UnknownNameError, ConfigError: as for :func:`settings_for`.
    """
    settings = settings_for(name, **options)
    count = sum(settings.samples)
    speaker = _speakers(settings)
    clips = np.arange(count) - np.searchsorted(speaker, speaker)
    lengths = settings.stream("length").integers(max(1, settings.length // 4), settings.length + 1, size=count)
    factors = {name: settings.stream("factor", name).standard_normal(count) for name in FACTORS}
    peaks = {name: (settings.stream("peak", name).random(count) * lengths).astype(np.int64) for name in FACTORS}
    nuisance = {m: _nuisance(settings, m, speaker) for m in MODALITIES}
    observed = _observed(settings, lengths)
    errors = settings.stream("label").standard_normal((count, 2))
    return DatasetRecord(
        name=name,
        task=regression((-3, 3)) if settings.task == "regression" else emotions(EMOTIONS),
        ids=[f"speaker{s:04d}_{clip}" for s, clip in zip(speaker, clips, strict=True)],
        groups=[f"speaker{s:04d}" for s in speaker],
        labels=respond(settings, factors, errors),
        folds={"standard": np.repeat(np.array(SPLITS), settings.samples)},
        features={
            f"planted_{m}": FeatureSet(
                modality=m,
                values=_frames(settings, m, lengths, factors, peaks, nuisance[m], observed[m]),
                lengths=lengths,
                observed=observed[m],
                level="word",
                description="synthetic: planted factors, nuisance and noise, mixed by an orthogonal matrix",
            )
            for m in MODALITIES
        },
        defaults={"*": {m: f"planted_{m}" for m in MODALITIES}},
        unimodal_labels=_unimodal_labels(settings, factors) if settings.task == "regression" else {},
        factors=_stored_factors(settings, factors, peaks, nuisance),
        terms="generated by this library; no restrictions",
        sources=["generated by mmsa_lib.data.sources.synthetic"],
        notes=["synthetic data: planted factors, not real utterances", settings.note()],
    )


def _speakers(settings: Settings) -> np.ndarray:
    """Speaker number of each sample; a new speaker begins with each split."""
    speakers, first = [], 0
    for size in settings.samples:
        number = max(1, round(size / settings.speaker_size))
        speakers.append(first + np.arange(size) * number // size)
        first += number
    return np.concatenate(speakers)


def _nuisance(settings: Settings, modality: Modality, speaker: np.ndarray) -> np.ndarray:
    """``(N, 3)``: speaker (constant per speaker) and recording (constant per recording of a speaker).

    Private ones of audio and vision also go to other samples of the split than those of text, speaker by speaker: else
    a network could learn by heart which voice goes with which words.
    """
    own = (modality,) if settings.nuisance == "private" else ()
    by_speaker = settings.stream("speaker", *own).standard_normal((speaker[-1] + 1, SPEAKER_WIDTH))
    by_recording = settings.stream("recording", *own).standard_normal((speaker[-1] + 1, RECORDINGS_PER_SPEAKER))
    recording = settings.stream("recording", *own, 1).integers(RECORDINGS_PER_SPEAKER, size=len(speaker))
    found = np.column_stack([by_speaker[speaker], by_recording[speaker, recording]])
    if own and modality != "text":
        for part in np.split(found, np.cumsum(settings.samples)[:-1]):  # views of the splits
            settings.stream("speaker", modality, 1).shuffle(part)
    return found


def _observed(settings: Settings, lengths: np.ndarray) -> dict[Modality, np.ndarray]:
    """Per modality ``(sum of lengths,)`` bool: which frames are there. At least one modality is never wholly absent."""
    absent = settings.stream("absent").random((len(lengths), len(MODALITIES))) < settings.absent
    spared = settings.stream("absent", 1).integers(len(MODALITIES), size=len(lengths))
    absent[np.arange(len(lengths)), spared] = False
    missing = settings.stream("missing").random((lengths.sum(), len(MODALITIES))) < settings.missing
    observed = ~(missing | np.repeat(absent, lengths, axis=0))
    return {m: observed[:, column].copy() for column, m in enumerate(MODALITIES)}


def _frames(settings: Settings, modality: Modality, lengths, factors, peaks, nuisance, observed) -> np.ndarray:
    """All frames of one modality, ``(sum of lengths, d)`` float32, zeros where they are not ``observed``."""
    scale = content_scale(settings, modality)
    sample = np.repeat(np.arange(len(lengths)), lengths)
    word = np.arange(len(sample)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    noise, shape, mixed = settings.stream("noise", modality), envelopes(settings), mixing(settings, modality).T
    gains = settings.gains[modality]
    features, first = np.empty((len(sample), len(scale)), np.float32), len(gains)
    for start in range(0, len(sample), FRAMES_AT_ONCE):
        rows = slice(start, start + FRAMES_AT_ONCE)
        samples = sample[rows]
        hidden = noise.standard_normal((len(samples), len(scale))) * scale
        for column, (name, gain) in enumerate(gains.items()):
            hidden[:, column] += gain * shape[peaks[name][samples], word[rows]] * factors[name][samples]
        hidden[:, first : first + SPEAKER_WIDTH + RECORDING_WIDTH] += NUISANCE_GAIN * nuisance[samples]
        features[rows] = np.round(hidden @ mixed * RESOLUTION) / RESOLUTION
    features *= observed[:, None]
    return features


def _unimodal_labels(settings: Settings, factors) -> dict[Modality, np.ndarray]:
    """What each modality says by itself: the label's scale applied to its shared and its private part."""
    weights = settings.weights
    return {
        m: rate(
            (weights["shared"] * factors["shared"] + weights[f"private_{m}"] * factors[f"private_{m}"]) / settings.norm
        )
        for m in MODALITIES
    }


def _stored_factors(settings: Settings, factors, peaks, nuisance) -> dict[str, np.ndarray]:
    places = {f"_{m}": m for m in MODALITIES} if settings.nuisance == "private" else {"": MODALITIES[0]}
    columns = {
        **factors,
        "synergy": factors["synergy_audio"] * factors["synergy_vision"],
        "sentiment": saturate(valence(settings, factors)),
        **{f"speaker{suffix}": nuisance[m][:, :SPEAKER_WIDTH] for suffix, m in places.items()},
        **{f"recording{suffix}": nuisance[m][:, SPEAKER_WIDTH:] for suffix, m in places.items()},
        **{f"peak_{name}": position for name, position in peaks.items()},
    }
    return {name: values.reshape(len(values), -1).astype(np.float32) for name, values in columns.items()}
