"""The synthetic data set: its contract, its planted structure, its switches, and its exact posterior."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import block_diag

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.record import fingerprint
from mmsa_lib.data.registry import GENERATED
from mmsa_lib.data.sources import synthetic as model
from mmsa_lib.data.sources.synthetic import PRESETS, Settings, build, settings_for
from mmsa_lib.data.sources.synthetic_bayes import bayes_error, bayes_predict, factor_posteriors
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError

SMALL = {"samples": (60, 20, 40), "dims": (12, 10, 9), "length": 8}


@pytest.fixture(scope="module")
def default():
    return build()


def same(one, other):
    """Whether two records hold equal labels, features and masks."""
    return np.array_equal(one.labels, other.labels) and all(
        np.array_equal(one.features[name].values, other.features[name].values)
        and np.array_equal(one.features[name].observed, other.features[name].observed)
        for name in one.features
    )


def test_default_shapes(default):
    splits, counts = np.unique(default.folds["standard"], return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)) == {"train": 600, "valid": 200, "test": 400}
    assert len(default) == len(set(default.ids)) == 1200
    widths = {"planted_text": 300, "planted_audio": 74, "planted_vision": 35}
    assert {name: f.width for name, f in default.features.items()} == widths
    lengths = default.features["planted_text"].lengths
    assert (lengths.min(), lengths.max()) == (5, 20)
    for feature in default.features.values():
        assert feature.values.dtype == np.float32
        assert feature.values.shape[0] == feature.observed.shape[0] == lengths.sum()
        assert np.array_equal(feature.lengths, lengths)
        assert np.isfinite(feature.values).all()
        assert not feature.values[~feature.observed].any()
        assert feature.values[feature.observed].any(axis=1).all()
        scaled = feature.values * 4096  # no bit depends on the rounding of the machine
        assert np.array_equal(scaled, np.round(scaled))


def test_speakers_are_disjoint_across_splits_and_nuisance_is_constant_within_its_unit(default):
    groups, split = np.array(default.groups), default.folds["standard"]
    assert sum(len(set(groups[split == name])) for name in set(split)) == len(set(groups)) == 80
    for speaker in np.unique(groups)[:10]:
        rows = groups == speaker
        assert len(np.unique(default.factors["speaker"][rows], axis=0)) == 1
        assert len(np.unique(default.factors["recording"][rows])) <= 2


def test_labels_look_like_ratings(default):
    labels = default.labels.astype(np.float64)
    assert labels.min() >= -3
    assert labels.max() <= 3
    assert np.allclose(labels * 5, np.round(labels * 5), atol=1e-5)
    assert 1.3 < labels.std() < 1.8
    assert 0.02 < (labels == 0).mean() < 0.10
    assert 0.4 < (labels < 0).mean() < 0.55
    assert not np.signbit(labels[labels == 0]).any()


def test_factors_are_independent_and_only_some_move_the_label(default):
    names = [*model.FACTORS, "recording"]
    columns = np.column_stack([default.factors[n] for n in names] + [default.factors["speaker"]])
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 0.25  # speakers repeat: only 80 independent values

    def with_label(name):
        return abs(np.corrcoef(default.factors[name][:, 0], default.labels)[0, 1])

    assert with_label("shared") > 0.5
    assert min(with_label(f"private_{m}") for m in MODALITIES) > 0.15
    assert with_label("synergy") > 0.15
    assert max(with_label(n) for n in ("synergy_audio", "synergy_vision", "recording")) < 0.12
    assert np.allclose(default.factors["synergy"], default.factors["synergy_audio"] * default.factors["synergy_vision"])


def test_label_follows_the_documented_equation():
    record = build(**SMALL, label_noise=0.0, synergy=0.5)
    f = {name: values[:, 0].astype(np.float64) for name, values in record.factors.items()}
    weights = {"shared": 0.65, "private_text": 0.60, "private_audio": 0.28, "private_vision": 0.28}
    u = sum(w * f[name] for name, w in weights.items()) + 0.5 * f["synergy_audio"] * f["synergy_vision"]
    u /= np.sqrt(sum(w**2 for w in weights.values()) + 0.25)
    expected = np.round(3 * np.tanh(0.7 * u) * 5) / 5
    assert np.allclose(record.labels, expected, atol=1e-6)
    assert np.allclose(f["sentiment"], 3 * np.tanh(0.7 * u), atol=1e-5)
    text = (0.65 * f["shared"] + 0.60 * f["private_text"]) / np.sqrt(sum(w**2 for w in weights.values()) + 0.25)
    assert np.allclose(record.unimodal_labels["text"], np.round(3 * np.tanh(0.7 * text) * 5) / 5, atol=1e-6)


def test_factors_show_at_their_peak_in_the_features():
    record = build(**SMALL, noise=0.001, missing=0.0, absent=0.0, focus=1.0)
    settings = Settings(**SMALL, noise=0.001, missing=0.0, absent=0.0, focus=1.0)
    text = record.features["planted_text"]
    hidden = text.values @ model.mixing(settings, "text")
    for sample in range(10):
        for column, name in enumerate(("shared", "private_text")):
            frames = hidden[text.offsets[sample] : text.offsets[sample + 1], column]
            peak, value = int(record.factors[f"peak_{name}"][sample, 0]), record.factors[name][sample, 0]
            expected = [2.5 * value * {0: 1.0, 1: 0.5}.get(abs(t - peak), 0.0) for t in range(len(frames))]
            assert np.allclose(frames, expected, atol=0.01)


def test_reproducible_and_independent_of_the_global_stream():
    np.random.seed(3)  # noqa: NPY002 (the point: the global stream must not matter)
    first = build(**SMALL)
    np.random.seed(4)  # noqa: NPY002
    assert same(first, build(**SMALL))
    assert not same(first, build(**SMALL, seed=1))


@pytest.mark.parametrize(
    ("option", "value", "features_change", "labels_change"),
    [
        ("noise", 2.0, True, False),
        ("label_noise", 1.0, False, True),
        ("synergy", 0.0, False, True),
        ("focus", 0.0, True, False),
        ("missing", 0.5, True, False),
        ("absent", 0.5, True, False),
    ],
)
def test_each_switch_changes_only_its_own_part(option, value, features_change, labels_change):
    before, after = build(**SMALL), build(**SMALL, **{option: value})
    changed = any(not np.array_equal(before.features[n].values, after.features[n].values) for n in before.features)
    assert changed is features_change
    assert (not np.array_equal(before.labels, after.labels)) is labels_change
    assert np.array_equal(before.factors["shared"], after.factors["shared"])


def test_missingness_rates():
    record = build(samples=(2000, 10, 10), dims=(8, 8, 8), missing=0.2, absent=0.3)
    present = np.stack(
        [np.logical_or.reduceat(f.observed, f.offsets[:-1]) for f in record.features.values()]
    )  # (3, N): some frame observed
    # A modality is absent with probability .3, unless it is the spared one (1 in 3); frames then go missing on top.
    assert abs((1 - present.mean()) - 0.2) < 0.03
    assert present.any(axis=0).all()
    text = record.features["planted_text"].observed.mean()
    assert abs(text - 0.8 * 0.8) < 0.03


def test_emotions_variant():
    record = build(samples=(2000, 10, 10), dims=(8, 8, 8), task="emotions", label_noise=0.0)
    assert record.task.names == ("neutral", "happy", "sad", "angry")
    assert record.labels.shape == (2020, 4)
    assert np.array_equal(record.labels.sum(axis=1), np.ones(2020))
    assert record.labels.mean(axis=0).min() > 0.1
    f = {name: values[:, 0] for name, values in record.factors.items()}
    u = np.arctanh(f["sentiment"] / 3) / 0.7
    angry = (u <= -0.5) & (f["private_audio"] - f["private_vision"] > 0)
    assert np.array_equal(record.labels[:, 3] == 1, angry)
    assert np.array_equal(record.labels[:, 1] == 1, u >= 0.5)
    assert record.unimodal_labels == {}


def brute_force_posterior_mean(record, settings, modalities, sample, factor):
    """E[factor | frames] by conditioning the joint normal of all raw features, for every combination of peaks."""
    first, last = record.features["planted_text"].offsets[sample : sample + 2]
    names, shape = sorted({name for m in modalities for name in settings.gains[m]}), model.envelopes(settings)
    total, mean = 0.0, 0.0
    for peaks in product(range(last - first), repeat=len(names)):
        loadings, noises, values = [], [], []
        for m in modalities:
            feature, mix = record.features[f"planted_{m}"], model.mixing(settings, m)
            for t, frame in enumerate(range(first, last)):
                if not feature.observed[frame]:
                    continue
                loading = np.zeros((mix.shape[0], len(names) + 3))
                for column, (name, gain) in enumerate(settings.gains[m].items()):
                    place = names.index(name)
                    loading[:, place] = gain * shape[peaks[place], t] * mix[:, column]
                loading[:, len(names) :] = 2.0 * mix[:, len(settings.gains[m]) :][:, :3]
                loadings.append(loading)
                noises.append(mix @ np.diag(model.content_scale(settings, m) ** 2) @ mix.T)
                values.append(feature.values[frame].astype(np.float64))
        loading, x = np.concatenate(loadings), np.concatenate(values)
        covariance = loading @ loading.T + block_diag(*noises)
        solved = np.linalg.solve(covariance, x)
        likelihood = np.exp(-0.5 * (x @ solved + np.linalg.slogdet(covariance)[1]))
        total += likelihood
        mean += likelihood * (loading.T @ solved)[names.index(factor)]
    return mean / total


@pytest.mark.parametrize("name", ["synthetic", "synthetic_redundant"])
@pytest.mark.parametrize(
    ("modalities", "factor"),
    [(("text",), "shared"), (("text",), "private_text"), (("text", "vision"), "shared"), (("audio",), "synergy_audio")],
)
def test_posterior_agrees_with_brute_force_on_raw_features(name, modalities, factor):
    options = {"samples": (4, 1, 1), "dims": (9, 8, 8), "length": 3, "missing": 0.2, "noise": 1.5, "seed": 5}
    record, settings = build(name, **options), settings_for(name, **options)
    posterior = factor_posteriors(record, modalities)[factor]
    assert np.allclose(posterior.weight.sum(axis=1), 1)
    for sample in range(4):
        span = slice(*record.features["planted_text"].offsets[sample : sample + 2])
        observed = any(record.features[f"planted_{m}"].observed[span].any() for m in modalities)
        fast = float((posterior.weight * posterior.mean)[sample].sum())
        slow = brute_force_posterior_mean(record, settings, modalities, sample, factor) if observed else 0.0
        assert fast == pytest.approx(slow, abs=2e-3)  # features are rounded to 1/4096


def test_posterior_draws_have_the_mixture_moments():
    record = build(**SMALL)
    posterior = factor_posteriors(record, ("text",))["private_text"]
    draws = posterior.draw(20_000, np.random.default_rng(0))
    mean = (posterior.weight * posterior.mean).sum(axis=1)
    variance = (posterior.weight * (posterior.variance + posterior.mean**2)).sum(axis=1) - mean**2
    assert np.abs(draws.mean(axis=1) - mean).max() < 0.05
    assert np.abs(draws.var(axis=1) - variance).max() < 0.08


def test_without_modalities_the_posterior_is_the_prior():
    posterior = factor_posteriors(build(**SMALL), ())["shared"]
    assert np.allclose(posterior.mean, 0)
    assert np.allclose(posterior.variance, 1)


def test_bayes_error_is_calibrated_and_orders_the_subsets():
    record = build(samples=(20, 10, 1500), dims=(8, 8, 8), seed=2)
    table = bayes_error(record, draws=200).set_index("modalities")
    assert list(table.index)[-1] == "text+audio+vision"
    assert len(table) == 7
    # What the posterior expects to lose is what it loses: the check that nothing in it is wrong.
    assert np.allclose(table["mae"], table["expected_mae"], atol=0.05)
    assert table["mae"].idxmin() == "text+audio+vision"
    assert table["corr"].idxmax() == "text+audio+vision"
    assert table.loc["text", "corr"] > table.loc[["audio", "vision"], "corr"].max() + 0.1
    assert 0.68 < table.loc["text", "corr"] < 0.80
    assert 0.82 < table.loc["text+audio+vision", "corr"] < 0.92


def test_synergy_helps_only_where_both_modalities_are_seen():
    options = {"samples": (20, 10, 800), "dims": (8, 8, 8), "seed": 3, "noise": 0.3, "absent": 0.0, "missing": 0.0}
    weak, strong = (
        bayes_error(build(**options, synergy=w), draws=100).set_index("modalities")["mae"] for w in (0, 0.6)
    )
    assert strong["text+audio"] > weak["text+audio"] + 0.1
    assert strong["text+audio+vision"] < weak["text+audio+vision"] + 0.05


def test_no_ridge_on_pooled_features_beats_the_best_predictor(default):
    train, test = (default.folds["standard"] == s for s in ("train", "test"))
    pooled = []
    for feature in default.features.values():
        count = np.add.reduceat(feature.observed.astype(float), feature.offsets[:-1])
        pooled.append(np.add.reduceat(feature.values, feature.offsets[:-1]) / np.maximum(1, count)[:, None])
    best = bayes_error(default, draws=100).set_index("modalities")

    def ridge(x):
        x = (x - x[train].mean(0)) / x[train].std(0)
        centre = default.labels[train].mean()
        gram = x[train].T @ x[train] + 100 * np.eye(x.shape[1])
        return x[test] @ np.linalg.solve(gram, x[train].T @ (default.labels[train] - centre)) + centre

    text, everything = ridge(pooled[0]), ridge(np.concatenate(pooled, axis=1))
    truth = default.labels[test]
    assert 0.6 < np.corrcoef(text, truth)[0, 1] < best.loc["text", "corr"]
    assert np.corrcoef(text, truth)[0, 1] < np.corrcoef(everything, truth)[0, 1]
    assert np.corrcoef(everything, truth)[0, 1] < best.loc["text+audio+vision", "corr"] - 0.05
    assert np.abs(everything - truth).mean() > best.loc["text+audio+vision", "mae"]


def test_bayes_predict_for_emotions_is_calibrated():
    record = build(samples=(10, 10, 1500), dims=(8, 8, 8), task="emotions")
    table = bayes_error(record, draws=200).set_index("modalities")
    assert np.allclose(table["acc4"], table["expected_acc4"], atol=0.05)
    probability = bayes_predict(record, rows=np.arange(5), draws=100)["probability"]
    assert probability.shape == (5, 4)
    assert np.allclose(probability.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"samples": (1, 2)}, "samples"),
        ({"samples": (0, 2, 2)}, "samples"),
        ({"dims": (3, 8, 8)}, "dims"),
        ({"noise": 0}, "noise"),
        ({"noise": "loud"}, "noise"),
        ({"focus": 1.5}, "focus"),
        ({"seed": 1.5}, "seed"),
        ({"task": "ranking"}, "task"),
        ({"nuisance": "loud"}, "nuisance='loud'; choose 'common' or 'private'"),
        ({"shared_weight": -1}, "shared_weight=-1 is outside"),
        ({"private_weights": 0.2}, "private_weights=0.2; give three numbers"),
        ({"shared_gains": (1, "2", 1)}, "shared_gains=.* is not a number"),
        ({"shared_weight": 0, "private_weights": (0, 0, 0), "synergy": 0, "label_noise": 0}, "nothing moves the label"),
    ],
)
def test_wrong_options_are_named(options, word):
    with pytest.raises(ConfigError, match=word):
        build(**options)


def test_unknown_option_and_foreign_record_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean noise"):
        build(nois=1.0)
    with pytest.raises(UnknownNameError, match="did you mean synthetic_synergy"):
        build("synthetic_sinergy")
    record = build(**SMALL)
    with pytest.raises(DataError, match="split 'dev'"):
        bayes_error(record, split="dev")
    with pytest.raises(UnknownNameError, match="modality"):
        bayes_predict(record, ("text", "smell"))
    record.factors["shared"] = record.factors["shared"] + 1
    with pytest.raises(DataError, match="build it again"):
        bayes_error(record)
    record.notes = []
    with pytest.raises(DataError, match="build it again"):
        bayes_error(record)


# --- The family ---


def test_the_default_draw_is_what_it_always_was(default):
    assert fingerprint(default) == "89a81489ab10993dc2b800dc584f77263f13a485a4db3879964f5f5210a351d4"
    assert "shared_weight" not in default.notes[1], "a store of the default draw has the bytes that it always had"
    assert model.settings_of_notes(default.notes) == Settings()
    changed = build(**SMALL, nuisance="private", private_weights=(0.1, 0.2, 0.3))
    assert model.settings_of_notes(changed.notes) == Settings(
        **SMALL, nuisance="private", private_weights=(0.1, 0.2, 0.3)
    )


def test_the_family_shares_features_and_differs_in_what_the_label_answers_to():
    assert set(PRESETS) == set(GENERATED)
    options = {"samples": (30, 10, 3000)}
    redundant, private, synergy = (build(f"synthetic_{k}", **options) for k in ("redundant", "private", "synergy"))
    for other in (private, synergy):
        for name, features in redundant.features.items():
            assert np.array_equal(features.values, other.features[name].values)
        assert not np.array_equal(redundant.labels, other.labels)
    assert redundant.name == "synthetic_redundant"
    assert settings_for("synthetic_redundant").samples == (1200, 400, 5000)

    def explained(record, *names):
        """Share of the label's variance along these factors."""
        return sum(np.corrcoef(record.factors[name][:, 0], record.labels)[0, 1] ** 2 for name in names)

    own = [f"private_{m}" for m in MODALITIES]
    assert explained(redundant, "shared") > 0.7 > 0.2 > explained(redundant, *own)
    assert explained(private, *own) > 0.7 > 0.1 > explained(private, "shared")
    assert explained(synergy, "synergy") > 0.4 > 0.35 > explained(synergy, "shared", *own)


def test_private_nuisance_says_nothing_across_modalities():
    record = build("synthetic_redundant", samples=(3000, 10, 10), dims=(8, 8, 8), speaker_size=10)
    speakers = [record.factors[f"speaker_{m}"][:3000] for m in MODALITIES]
    assert "speaker" not in record.factors
    for one in speakers:
        assert len(np.unique(one, axis=0)) == 300, "as many voices as there are speakers"
    pairs = [np.concatenate(pair, axis=1) for pair in zip(speakers, speakers[1:] + speakers[:1], strict=True)]
    for pair in pairs:  # known by heart, a speaker's words must not tell the voice
        assert len(np.unique(pair, axis=0)) > 2500
        assert np.abs(np.corrcoef(pair.T)[:2, 2:]).max() < 0.15
    hidden = record.features["planted_audio"].values @ model.mixing(
        settings_for("synthetic_redundant", dims=(8, 8, 8)), "audio"
    )
    sample = np.repeat(np.arange(3020), record.features["planted_audio"].lengths)
    seen = record.features["planted_audio"].observed
    audible = np.corrcoef(hidden[seen, 3], record.factors["speaker_audio"][sample[seen], 0])[0, 1]
    assert audible > 0.8


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_best_noise_free_prediction_is_that_of_exhaustive_conditioning(name):
    """Two words, nothing but text and vision: the posterior of sentiment on grids of all factors and peaks."""
    options = {"samples": (6, 1, 1), "dims": (8, 8, 8), "length": 2, "focus": 0.7, "absent": 0.0, "seed": 4}
    record, settings = build(name, **options), settings_for(name, **options)
    best = bayes_predict(record, ("text", "vision"), np.arange(6), draws=10_000)
    posteriors = factor_posteriors(record, ("text", "vision"), np.arange(6))
    grid = np.linspace(-6, 6, 61)
    for sample in range(6):
        mass = {}
        for factor, p in posteriors.items():
            density = sum(
                w * np.exp(-0.5 * (grid - m) ** 2 / v) / np.sqrt(v)
                for w, m, v in zip(p.weight[sample], p.mean[sample], p.variance[sample], strict=True)
            )
            mass[factor] = density / density.sum()
        support, chance = np.zeros(1), np.ones(1)
        for factor, weight in settings.weights.items():
            support = (support[:, None] + weight * grid).ravel()
            chance = (chance[:, None] * mass[factor]).ravel()
            edges = np.linspace(-12, 12, 2401)  # collected on a fine scale, or the product would explode
            support, chance = edges, np.bincount(np.searchsorted(edges, support - 0.005), chance, minlength=2401)[:2401]
        product = np.outer(grid, grid).ravel() * settings.synergy
        joint = np.outer(mass["synergy_audio"], mass["synergy_vision"]).ravel()
        whole = 3 * np.tanh(0.7 * (support[:, None] + product[None, ::7]) / settings.norm)
        expected = float((whole * (chance[:, None] * joint[None, ::7] / joint[::7].sum())).sum())
        assert best["clean_mean"][sample] == pytest.approx(expected, abs=0.05)
    table = bayes_error(build(name, samples=(10, 10, 600), dims=(8, 8, 8), length=6), draws=100).set_index("modalities")
    assert table["mae_clean"].idxmin() == table["corr_clean"].idxmax() == "text+audio+vision"
    assert (table["corr_clean"] > table["corr"]).all(), "noise is what nobody can predict"


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_floors_in_the_documentation_are_computed(name):
    page = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    printed = re.findall(rf"^\| `{name}` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    assert len(printed) == 4
    record = build(name)
    chosen = np.flatnonzero(record.folds["standard"] == "test")
    truths = record.labels[chosen], record.factors["sentiment"][chosen, 0]
    for subset, *numbers in printed:
        best = bayes_predict(record, subset.split("+"), chosen, draws=100)
        for (center, mean), truth, said in zip(
            (("median", "mean"), ("clean_median", "clean_mean")), truths, (numbers[:2], numbers[2:]), strict=True
        ):
            found = np.abs(best[center] - truth).mean(), np.corrcoef(best[mean], truth)[0, 1]
            assert [float(text) for text in said] == pytest.approx(found, abs=0.03)  # of two Monte Carlo estimates
