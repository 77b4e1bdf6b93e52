"""Predictions of finished runs for samples of one's own: ``mmsa_lib.predict`` and the run folder that stands alone."""

import json
import math
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmsa_lib
from mmsa_lib.data import load
from mmsa_lib.data.record import MODALITIES
from mmsa_lib.data.scaling import Scaling
from mmsa_lib.data.unseen import far_off
from mmsa_lib.errors import ConfigError, DataError, MMSAError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.prediction import Ensemble, stored_split
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.methods import METHODS
from mmsa_lib.methods.fusion_baselines import TextOnly

DATA = {"samples": (24, 40, 12), "dims": (12, 8, 8), "length": 6}
OUTPUTS = ["id", "prediction", "low", "high", "sd", *(f"without_{m}" for m in MODALITIES)]


class Mine(TextOnly):
    id = "mine"


def trained(method, folder, seed=1, **changes):
    values = {"config": {"batch_size": 12}, "data": DATA, "settings": {"device": "cpu", "max_epochs": 1}}
    return run(RunConfig(method=method, seed=seed, **{**values, **changes}), folder, progress="none")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Folder of the runs of this module."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(shelf):
    """Two seeds of late fusion."""
    return [trained("late_fusion", shelf, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def samples():
    """Samples in memory, of all modalities and unequal length."""
    draw = np.random.default_rng(0)
    sizes = {"text": 12, "audio": 8, "vision": 8}
    return [
        {"id": f"s{n}", **{m: draw.normal(size=(n, d)).astype(np.float32) for m, d in sizes.items()}} for n in (1, 4, 6)
    ]


@pytest.fixture
def copied(two, tmp_path):
    """A copy of a run, to be damaged."""
    return shutil.copytree(two[0].folder, tmp_path / two[0].run_id)


def numbers(table):
    return table.drop(columns="id").to_numpy(float)


class TestAlone:
    """A run folder is enough, elsewhere, without its data."""

    @pytest.mark.parametrize("method", METHODS)
    def test_a_moved_folder_gives_the_stored_predictions_to_the_bit(self, method, shelf, tmp_path, monkeypatch):
        done = trained(method, shelf)
        split = load("synthetic", **{**done.config.load_options, "standardise": False})["test"]
        moved = shutil.copytree(done.folder, tmp_path / "my model")
        monkeypatch.setattr("mmsa_lib.experiments.runs.load", None)
        monkeypatch.chdir(tmp_path)
        table = mmsa_lib.predict(moved, split)
        assert np.array_equal(table["prediction"], done.predictions().predictions)
        assert np.array_equal(table["label"], done.predictions().labels)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_sample_alone_is_as_among_others(self, method, shelf, samples):
        done = trained(method, shelf)
        together = numbers(mmsa_lib.predict(done, samples))
        alone = np.concatenate([numbers(mmsa_lib.predict(done, sample)) for sample in samples])
        np.testing.assert_allclose(alone, together, atol=2e-6)

    def test_defaults_of_the_library_may_change(self, two, samples, monkeypatch):
        before = mmsa_lib.predict(two, samples)
        cls = METHODS["late_fusion"]
        changed = type("Config", (cls.Config,), {"__annotations__": {"hidden": int}, "hidden": 7})
        monkeypatch.setattr(cls, "Config", changed)
        assert changed().hidden == 7
        pd.testing.assert_frame_equal(mmsa_lib.predict(two, samples), before)

    def test_a_setting_that_this_version_lacks_is_named(self, two, monkeypatch):
        stored = find_run(two[0].folder)
        resolved = {**stored.resolved, "config": {"old": 3}}
        monkeypatch.setattr(type(stored), "resolved", resolved)
        with pytest.raises(DataError, match="was made with old=3, which late_fusion of this version does not have"):
            stored.load_method()

    def test_an_older_folder_asks_its_data_set(self, two, copied, samples, monkeypatch):
        expected = mmsa_lib.predict(two[0], samples)
        (copied / files.INPUTS).unlink()
        files.write_manifest(copied, (*files.RESULTS, files.TERMS))
        pd.testing.assert_frame_equal(mmsa_lib.predict(copied, samples), expected)
        monkeypatch.setattr("mmsa_lib.experiments.runs.data_fingerprint", lambda _: "another")
        with pytest.raises(DataError, match="kept no scaling, and its data set synthetic is not what"):
            mmsa_lib.predict(copied, samples)

    def test_a_data_source_that_is_not_here_is_not_needed(self, two, copied, samples):
        stored = json.loads((copied / files.CONFIG).read_text())
        stored["config"] |= {"dataset": "theirs", "data": {"size": 3}}
        (copied / files.CONFIG).write_text(json.dumps(stored))
        files.write_manifest(copied, (*files.RESULTS, files.TERMS, files.INPUTS))
        pd.testing.assert_frame_equal(mmsa_lib.predict(copied, samples), mmsa_lib.predict(two[0], samples))

    def test_a_method_of_ones_own_that_is_not_registered_is_named(self, shelf, tmp_path):
        METHODS["mine"] = Mine
        try:
            done = trained("mine", shelf)
        finally:
            del METHODS["mine"]
        with pytest.raises(MMSAError, match=r"method 'mine', Mine of .*, which is not registered here"):
            mmsa_lib.predict(done.folder, {"text": np.ones((2, 12))})


class TestDamage:
    @pytest.mark.parametrize("name", [files.CONFIG, files.MODEL, files.INPUTS, files.PREDICTIONS, files.ENVIRONMENT])
    @pytest.mark.parametrize("how", ["bit", "gone", "link", "cut"])
    def test_an_altered_file_is_refused(self, copied, samples, name, how):
        path, content = copied / name, (copied / name).read_bytes()
        if how == "link":
            path.rename(copied.parent / name)
            path.symlink_to(copied.parent / name)
        elif how == "gone":
            path.unlink()
        else:
            half = len(content) // 2
            changed = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
            path.write_bytes(changed if how == "bit" else content[:half])
        with pytest.raises(DataError) as told:
            mmsa_lib.predict(copied, samples)
        assert name in str(told.value)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tensors: {k: x * math.nan for k, x in tensors.items()}, "not finite"),
            (lambda tensors: {k: x / 0 for k, x in tensors.items()}, "not finite"),
            (lambda tensors: {k: x[:1].clone() for k, x in tensors.items()}, "should have shape"),
            (lambda tensors: {k: x.to(torch.bfloat16) for k, x in tensors.items()}, "should be torch.float32"),
            (lambda tensors: {"other": torch.ones(3)}, "the file holds nothing"),
        ],
    )
    def test_weights_that_do_not_fit_are_refused_though_the_manifest_agrees(self, copied, samples, change, message):
        save_file(change(load_file(copied / files.MODEL)), copied / files.MODEL)
        files.write_manifest(copied, (*files.RESULTS, files.TERMS, files.INPUTS))
        with pytest.raises(DataError, match=message):
            mmsa_lib.predict(copied, samples)

    def test_files_of_another_run_are_refused(self, two, copied, samples):
        for name in (files.MODEL, files.INPUTS):
            before = (copied / name).read_bytes()
            shutil.copy(two[1].folder / name, copied / name)
            files.write_manifest(copied, (*files.RESULTS, files.TERMS, files.INPUTS))
            with pytest.raises(DataError, match=f"of run {two[1].run_id}"):
                mmsa_lib.predict(copied, samples)
            (copied / name).write_bytes(before)

    @pytest.mark.parametrize("name", ["../outside", "/dev/zero"])
    def test_a_manifest_that_names_files_elsewhere_is_refused_at_once(self, copied, name):
        record = json.loads((copied / files.MANIFEST).read_text())
        (copied / files.MANIFEST).write_text(json.dumps({**record, name: {"size": 0, "sha256": ""}}))
        with pytest.raises(DataError, match="lost its content or was changed"):
            find_run(copied)


class TestMissing:
    @pytest.mark.parametrize("method", ["late_fusion", "collaborative_mmcl"])
    def test_switched_off_is_as_if_it_were_not_there(self, method, shelf, samples):
        done = trained(method, shelf)
        whole = mmsa_lib.predict(done, samples)
        for modality in MODALITIES:
            lacking = [{key: value for key, value in sample.items() if key != modality} for sample in samples]
            others = [m for m in MODALITIES if m != modality]
            expected = mmsa_lib.predict(done, lacking)["prediction"]
            assert np.array_equal(whole[f"without_{modality}"], expected)
            assert np.array_equal(mmsa_lib.predict(done, samples, modalities=others)["prediction"], expected)
            assert not np.array_equal(whole["prediction"], expected)

    def test_on_aligned_data_it_is_the_protocol_of_missing_modalities(self, shelf):
        done = trained("late_fusion", shelf, protocols=("subsets",))
        assert done.load_preparation().aligned
        table = mmsa_lib.predict(done, stored_split(done), modalities=("text", "audio"))
        stored = done.predictions(protocol="subsets", level="text+audio").predictions
        assert np.array_equal(table["prediction"], stored)

    def test_what_a_run_does_not_read_has_no_share(self, shelf, samples):
        table = mmsa_lib.predict(trained("text_only", shelf), samples)
        assert table[["without_audio", "without_vision"]].isna().all(axis=None)
        assert len({*table["without_text"]}) == 1

    def test_a_sample_with_nothing_is_named(self, two, samples):
        with pytest.raises(DataError, match="sample 'x' has no text or audio or vision to predict from"):
            mmsa_lib.predict(two, [*samples, {"id": "x", "text": " "}])
        with pytest.raises(DataError, match=r"sample 'x' has no text to predict from .* the others are switched off"):
            mmsa_lib.predict(two, [*samples, {"id": "x", "audio": np.ones((2, 8))}], modalities=["text"])


class TestInterval:
    @pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
    def test_it_is_the_quantile_of_validation_errors_by_hand(self, two, samples, share):
        """Against sorted errors and a count, and holding as many validation labels as it says."""
        parts = [one.predictions("valid") for one in two]
        errors = sorted(abs(float(a + b) / 2 - float(y)) for a, b, y in
                        zip(parts[0].predictions, parts[1].predictions, parts[0].labels, strict=True))  # fmt: skip
        half = errors[math.ceil(round(share * (len(errors) + 1), 6)) - 1]
        table = mmsa_lib.predict(two, samples, interval=share)
        assert np.allclose(table["low"], np.maximum(table["prediction"] - half, -3), atol=1e-6)
        assert np.allclose(table["high"], np.minimum(table["prediction"] + half, 3), atol=1e-6)
        assert np.mean(np.array(errors) <= half) >= share

    def test_new_samples_of_the_same_kind_are_covered(self, shelf):
        """Split conformal on synthetic data: 400 samples that no run saw, counted one by one."""
        kind = {**DATA, "samples": (24, 200, 400)}
        done = [trained("late_fusion", shelf, seed, data=kind) for seed in (1, 2)]
        table = mmsa_lib.predict(done, stored_split(done[0]), interval=0.8)
        held = sum(
            low <= label <= high for low, label, high in zip(table["low"], table["label"], table["high"], strict=True)
        )
        assert 0.72 < held / 400 < 0.88

    def test_too_few_samples_give_the_whole_scale(self, two, samples):
        table = mmsa_lib.predict(two, samples, interval=0.99)  # of 40 validation samples
        assert (table["low"] == -3).all()
        assert (table["high"] == 3).all()

    def test_seeds(self, two, samples):
        one, other, both = (mmsa_lib.predict(runs, samples) for runs in (two[0], two[1], two))
        pair = np.stack([one["prediction"], other["prediction"]])
        assert np.allclose(both["prediction"], pair.mean(0))
        assert np.allclose(both["sd"], np.abs(pair[0] - pair[1]) / math.sqrt(2))
        assert one["sd"].isna().all()

    @pytest.mark.parametrize("share", [0, 1, 1.5, -1, math.nan, True, "wide"])
    def test_no_share(self, two, samples, share):
        with pytest.raises(ConfigError, match="no share between 0 and 1"):
            mmsa_lib.predict(two, samples, interval=share)
        assert mmsa_lib.predict(two, samples, interval=None)[["low", "high"]].isna().all(axis=None)


class TestFar:
    """Features unlike those of the training: the interval still holds the prediction, and a warning names them."""

    def test_what_lies_far_is_named_in_one_line(self, two, samples):
        plain = mmsa_lib.predict(two, samples)
        loud = [samples[0], {**samples[1], "audio": samples[1]["audio"] * 1000}, samples[2]]
        scaling = Ensemble.of(two).preparation.scaling["audio"]
        scaled = ((loud[1]["audio"] - scaling.mean) / scaling.scale).tolist()
        away = math.sqrt(sum(x * x for frame in scaled for x in frame) / sum(map(len, scaled)))
        with pytest.warns(UserWarning, match=rf"audio of 's4' \({away:,.0f} standard deviations\);") as told:
            table = mmsa_lib.predict(two, loud)
        assert len(told) == 1
        assert not {"s1", "s6", "vision", "\n"} & {*str(told[0].message).replace("'", " ").split(" ")}
        assert abs(table["prediction"][1]) > 3
        assert (table["low"] <= table["prediction"]).all()
        assert (table["prediction"] <= table["high"]).all()
        pd.testing.assert_frame_equal(table.drop(index=1), plain.drop(index=1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mmsa_lib.predict(two, loud, modalities=["text", "vision"])

    def test_one_column_far_off_is_enough_and_the_farthest_are_named(self, two, samples):
        column = np.eye(1, 8, dtype=np.float32)
        strange = [{"id": f"{k}", "text": samples[0]["text"], "vision": column * 10.0**k} for k in range(1, 7)]
        with pytest.warns(UserWarning, match=r"vision of '6' .*, '5' .*, '4' .*\) and 1 more; "):
            mmsa_lib.predict(two, strange)

    def test_what_training_is_like_does_not_warn(self, shelf, two, samples):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for split in ("train", "valid", "test"):
                mmsa_lib.predict(two, stored_split(two[0], split))
            gaps = trained("late_fusion", shelf, data={**DATA, "missing": 0.5})
            mmsa_lib.predict(gaps, stored_split(gaps))
            mmsa_lib.predict(two, [{"id": "absent", "text": np.ones((2, 12))}, *samples])

    def test_silence_does_not_warn_where_zero_is_far_from_what_is_usual(self, two, samples):
        """Frames of zeros within a sample; frames like them that are not zeros do warn."""
        ensemble = Ensemble.of(two)
        usual = Scaling(np.full(8, -100, np.float32), np.ones(8, np.float32))
        ensemble.preparation.scaling["audio"] = usual
        for value, expected in ((0, 0), (1, 101 / math.sqrt(2))):
            audio = np.stack([np.full(8, -100), np.full(8, value)]).astype(np.float32)
            batch = load("synthetic", **DATA)["test"].select(torch.arange(1))
            seen = {"audio": torch.ones(1, 2, dtype=torch.bool)}
            features = {"audio": torch.from_numpy(usual.apply(audio, np.ones(2, bool)))[None]}
            data = replace(batch, data=replace(batch.data, features=features, valid=seen, observed=seen),
                           preparation=ensemble.preparation)  # fmt: skip
            assert far_off(data, MODALITIES)["audio"] == pytest.approx(expected)

    def test_what_overflows_is_refused(self, two, samples):
        huge = {**samples[1], "audio": np.full((2, 8), 3e38, np.float32)}
        with pytest.raises(
            DataError, match=r"not finite for 1 of 1 samples \(first 's4'\); its features are too large"
        ):
            mmsa_lib.predict(two, [{**huge, "vision": huge["audio"]}])


class TestEnsemble:
    def test_unlike_runs_are_refused(self, two, shelf, samples):
        other = trained("late_fusion", shelf, data={**DATA, "dims": (12, 8, 9)})
        for runs, message in (
            ([two[0], other], "differ in widths"),
            ([two[0], trained("late_fusion", shelf, data={**DATA, "seed": 5})], "differ in training data"),
            ([two[0], two[0]], "given twice"),
            ([], "no run is given"),
        ):
            with pytest.raises(MMSAError, match=message):
                mmsa_lib.predict(runs, samples)

    @pytest.mark.parametrize("task", ["emotions"])
    def test_of_emotions(self, shelf, samples, task):
        done = [trained("late_fusion", shelf, seed, data={**DATA, "task": task}) for seed in (1, 2)]
        names = done[0].task.names
        table = mmsa_lib.predict(done, samples)
        chances = table[[f"probability_{name}" for name in names]].to_numpy()
        assert list(table["prediction"]) == [names[k] for k in chances.argmax(1)]
        assert not {"low", "high"} & set(table)
        stored = mmsa_lib.predict(done[0], stored_split(done[0]))
        logits = done[0].predictions().predictions
        expected = np.exp(logits[..., 1]) / np.exp(logits).sum(-1)
        assert np.allclose(stored.filter(like="probability_"), expected, atol=1e-6)
        assert f"label_{names[0]}" in stored

    def test_other_widths_and_tasks_are_refused(self, two, shelf):
        emotional = trained("late_fusion", shelf, data={**DATA, "task": "emotions"})
        with pytest.raises(DataError, match="was trained for"):
            mmsa_lib.predict(two[0], stored_split(emotional))
        with pytest.raises(DataError, match=r"is not the data that run .* was trained on"):
            stored_split(
                two[0].__class__(two[0].folder, two[0].config.model_copy(update={"data": {**DATA, "seed": 9}}))
            )

    def test_the_batch_size_of_the_run_decides_nothing(self, two, samples, monkeypatch):
        whole = Ensemble.of(two)
        monkeypatch.setattr("mmsa_lib.experiments.prediction.predict_split",
                            lambda method, data, _: predict_in_ones(method, data))  # fmt: skip
        expected = mmsa_lib.predict(two, samples)
        monkeypatch.undo()
        np.testing.assert_allclose(numbers(mmsa_lib.predict(whole.runs, samples)), numbers(expected), atol=1e-6)


def predict_in_ones(method, data):
    from mmsa_lib.training import predict

    return predict(method, data, 1)


class TestInputs:
    def test_all_forms_give_the_same(self, two, samples, tmp_path):
        expected = mmsa_lib.predict(two, samples)
        assert list(expected) == OUTPUTS
        (tmp_path / "samples.csv").write_text("id\n" + "".join(f"{one['id']}\n" for one in samples))
        for modality in MODALITIES:
            (tmp_path / modality).mkdir()
            for one in samples:
                np.save(tmp_path / modality / f"{one['id']}.npy", one[modality])
        ragged = {m: np.empty(len(samples), object) for m in MODALITIES}
        for m, rows in ragged.items():
            rows[:] = [one[m] for one in samples]
        names = {"text": "text_features", "audio": "audio", "vision": "vision"}
        arrays = {names[m]: [np.pad(x, ((0, 6 - len(x)), (0, 0))) for x in rows] for m, rows in ragged.items()}
        lengths = {f"{names[m]}_lengths": [len(x) for x in rows] for m, rows in ragged.items()}
        np.savez(tmp_path / "samples.npz", id=[one["id"] for one in samples], **arrays, **lengths)
        for given in (tmp_path, tmp_path / "samples.npz", [tmp_path], tuple(samples)):
            pd.testing.assert_frame_equal(mmsa_lib.predict(two, given), expected, check_exact=False, atol=1e-6)

    def test_labels_are_shown_and_not_used(self, two, samples):
        plain = mmsa_lib.predict(two, samples)
        labelled = mmsa_lib.predict(two, [{**one, "label": 3.0, "group": "v"} for one in samples])
        assert list(labelled["label"]) == [3.0] * 3
        assert list(labelled["group"]) == ["v"] * 3
        pd.testing.assert_frame_equal(labelled[list(plain)], plain)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"audio": np.diag([np.nan] * 8)}, "audio of sample 'a' holds a value that is not finite"),
            ({"audio": np.full((2, 8), 1e39)}, "audio of sample 'a' holds a value that is not finite"),
            ({"audio": np.ones((2, 9))}, "audio features are 9 wide .*, and the run reads 8"),
            ({"audio": np.ones((0, 8))}, "audio of sample 'a' has no frames"),
            ({"audio": np.ones((1, 2, 8))}, "audio of sample 'a' is .*, expected numbers"),
            ({"audio": "loud"}, "audio of sample 'a' is .*, expected numbers"),
            ({"adio": np.ones((2, 8))}, "field of sample 1 'adio'; did you mean audio"),
            ({"vision": np.ones((2, 8)), "visual": np.ones((2, 8))}, "two fields for vision"),
        ],
    )
    def test_a_sample_that_does_not_fit_is_named(self, two, change, message):
        with pytest.raises(MMSAError, match=message):
            mmsa_lib.predict(two, {"id": "a", "text": np.ones((2, 12)), **change})

    def test_frames_of_nan_alone_are_missing(self, two):
        one = {"id": "a", "text": np.ones((2, 12))}
        without, empty = (mmsa_lib.predict(two, {**one, **more}) for more in ({}, {"audio": np.full((2, 8), np.nan)}))
        np.testing.assert_allclose(empty["prediction"], without["prediction"], atol=1e-6)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [([], "no sample"), ("nope.csv", "no file, folder or data set 'nope.csv'"), (3, "int holds no samples"),
         ("word", "no file"), ([{}], "has no text or audio or vision"), (pd.DataFrame({"id": []}), "no sample")],
    )  # fmt: skip
    def test_nothing_to_read(self, two, inputs, message):
        with pytest.raises(MMSAError, match=message):
            mmsa_lib.predict(two, inputs)

    def test_ids_that_occur_twice(self, two, samples):
        with pytest.raises(DataError, match="'s1' occurs twice"):
            mmsa_lib.predict(two, [samples[0], samples[0]])

    def test_sentences(self, shelf, tmp_path, tiny_text_model, monkeypatch):
        """From a run that computes its text, whatever the input says about encoders: one way for all forms."""
        monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
        from mmsa_lib.data.sources.table import read
        from mmsa_lib.data.store import write_store

        rows = "".join(f"{i},{'train' if i < 8 else 'valid' if i < 14 else 'test'},{i % 5 - 2}.5,the film was {w}\n"
                       for i, w in enumerate(["good", "bad", "great", "not good"] * 5))  # fmt: skip
        (tmp_path / "t.csv").write_text("id,split,label,text\n" + rows)
        write_store(read(tmp_path / "t.csv", "mine"), tmp_path / "data" / "stores" / "mine.h5")
        for text, method in (("sentence", "text_only"), ("words", "text_only"), ("tokens", "text_only")):
            own = {"text_encoder": "bert", "text_model": tiny_text_model} if text == "tokens" else {}
            data = {"max_length": 12, **({} if own else {"text": text, "text_model": tiny_text_model})}
            done = trained(method, tmp_path / "runs", dataset="mine", data=data, config={"batch_size": 4, **own})
            stored = done.predictions()
            texts = ["the film was " + ["good", "bad", "great", "not good"][int(i) % 4] for i in stored.ids]
            (tmp_path / "texts.txt").write_text("\n".join(texts))
            frame = pd.DataFrame({"text": texts})
            for given in (texts, frame, tmp_path / "texts.txt", [{"text": one} for one in texts]):
                table = mmsa_lib.predict(done, given)
                np.testing.assert_allclose(table["prediction"], stored.predictions, atol=2e-6)
                assert list(table["id"]) == [str(row) for row in range(1, len(texts) + 1)]
            assert len(mmsa_lib.predict(done, "the film was good")) == 1
            whole = mmsa_lib.predict(done, "mine").set_index("id")["prediction"]
            np.testing.assert_allclose(whole[list(stored.ids)], stored.predictions, atol=2e-6)
