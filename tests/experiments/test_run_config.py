from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.options import parse_assignment, typed_value
from mmsa_lib.experiments.results import in_words, values_of
from mmsa_lib.methods import create


@pytest.mark.parametrize("label", ["", "1e-3", "0o17", "1E5", "no", "null", "läufe: 1"])
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_round_trip_through_files(small_config, tmp_path, suffix, label):
    config = small_config(config={"learning_rate": 1e-5}, settings={"patience": 3}, seed=7, label=label)
    path = tmp_path / f"run.{suffix}"
    path.write_text(config.to_json() if suffix == "json" else config.to_yaml())
    again = RunConfig.from_file(path)
    assert again.model_dump(mode="json") == config.model_dump(mode="json")
    assert again.load_options == config.load_options
    assert again.load_options["samples"] == (48, 24, 32)


@pytest.mark.parametrize("text", ["- 1\n", "a: [\n", ""])
def test_files_that_hold_no_configuration(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"run\.yaml"):
        RunConfig.from_file(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "self_m"}, "unknown method 'self_m'; did you mean self_mm"),
        ({"method": "self_mm", "seeds": 3}, "unknown run setting 'seeds'; did you mean"),
        ({"dataset": "mosi"}, "'method' is missing"),
        ({"method": "self_mm", "seed": -1}, "seed=-1"),
        ({"method": "self_mm", "seed": "many"}, "seed='many'"),
        ({"method": "self_mm", "missing": "all"}, "unknown missing recipe 'all'; known: none, stochastic"),
        ({"method": "self_mm", "missing": "stochastc"}, "did you mean stochastic"),
        ({"method": "self_mm", "protocols": ["frames", "subset"]}, "unknown protocol 'subset'; did you mean subsets"),
        ({"method": "self_mm", "config": {"learning_rat": 1}}, "did you mean .*learning_rate"),
        ({"method": "self_mm", "config": {"learning_rate": "fast"}}, "learning_rate='fast'"),
        ({"method": "self_mm", "settings": {"patienc": 1}}, "did you mean patience"),
        ({"method": "self_mm", "config": {"dropout": {1, 2}}}, r"config.dropout=\{1, 2\} is no plain value: give text"),
        ({"method": "self_mm", "data": {"tex": "words"}}, "data option of synthetic 'tex'; did you mean text"),
        ({"method": "self_mm", "data": {"standardise": "maybe"}}, "data.standardise='maybe'"),
        ({"method": "self_mm", "dataset": "mosi", "data": {"samples": [1, 1, 1]}}, "data option of mosi 'samples'"),
        ({"method": "self_mm", "label": "two\nlines"}, "label"),
        ({"method": "self_mm", "label": "a" * 101}, "label"),
        ({"method": "text_only", "config": {"text_model": "nope/nope"}}, "no effect without text_encoder='bert'"),
        ({"method": "text_only", "data": {"text": "tokens"}}, "set text_encoder='bert'"),
        *(
            (
                {"method": "text_only", "config": {"text_encoder": "bert"}, "data": data},
                "contradicts text_encoder='bert'",
            )
            for data in ({"text": "words"}, {"text_model": "another"}, {"text": None})
        ),
    ],
)
def test_mistakes_are_one_clear_line(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        RunConfig(**values)
    assert "\n" not in str(caught.value)


def test_paths_and_scalars_of_numpy_are_plain_values():
    config = RunConfig(method="text_only", config={"hidden": np.int64(32)}, data={"folder": Path("stores")})
    assert config == RunConfig(method="text_only", config={"hidden": 32}, data={"folder": "stores"})


def test_fine_tuning_implies_tokens_of_the_same_model():
    config = RunConfig(method="text_only", config={"text_encoder": "bert", "text_model": "some-model"})
    assert config.load_options == {"text": "tokens", "text_model": "some-model"}


def test_a_configuration_is_described_by_what_was_changed_and_nothing_else():
    usual = RunConfig(method="self_mm").method_config.post_text_dim
    config = RunConfig(
        method="self_mm", label="without labels", missing="stochastic",
        config={"no_ulgm": True, "post_text_dim": usual},
        settings={"device": "cpu", "patience": 2, "checkpoint_every": 9},
        data={"folder": "somewhere", "length": 5, "seed": 0, "text": "default"},
    )  # fmt: skip
    assert config.described() == {
        "label": "without labels",
        "changes": '{"missing": "stochastic", "no_ulgm": true, "patience": 2}',
        "data_options": '{"length": 5}',
    }
    assert RunConfig(method="self_mm").described() == {"label": "", "changes": "{}", "data_options": "{}"}


def test_what_a_method_implies_is_no_change():
    given = {"text": "tokens", "max_length": 64}
    config = RunConfig(method="text_only", config={"text_encoder": "bert"}, data=given)
    assert (config.changes, config.data_changes) == ({"text_encoder": "bert"}, {})


def test_stored_values_that_are_valid_no_more_are_described_as_they_are():
    stored = {"method": "self_mm", "missing": "none", "config": {"gone": 1}, "data": {"folder": "x", "length": 5}}
    found = {"label": "", "changes": '{"gone": 1}', "data_options": '{"length": 5}'}
    assert RunConfig.describe_stored(stored) == found
    assert RunConfig.describe_stored({**stored, "method": "of my own"}) == found
    with pytest.raises(ConfigError):
        RunConfig.describe_stored({**stored, "config": 7})


def test_names_for_printing():
    assert in_words(values_of('{"b": true, "a": 0.5}', '{"text": null}')) == "a=0.5; b=True; text=None"
    assert in_words(values_of("{}")) == ""
    assert (
        in_words(values_of('{"missing": "stochastic"}', '{"missing": 0.2}')) == "data.missing=0.2; missing=stochastic"
    )


def test_resolved_holds_every_value_that_is_used(small_config):
    config = small_config()
    method = create("text_only", {"text": 4}, regression(), **config.config)
    resolved = config.resolved(method)
    assert resolved["config"]["learning_rate"] == method.config.learning_rate
    assert resolved["settings"]["max_epochs"] == 2
    assert resolved["settings"]["device"] == "cpu"
    json.dumps(resolved)


class TestParseSettings:
    def test_values_go_to_their_sections_with_their_types(self):
        items = [
            "learning_rate=3e-4", "patience=4", "settings.patience=5", "min_delta=1e-3", "text=words", "audio=None",
            "config.text_model=no", "standardise=false", "samples=[9, 8, 7]", "no_ulgm=True",
        ]  # fmt: skip
        assert RunConfig.parse_settings("self_mm", items) == {
            "config": {"learning_rate": 3e-4, "patience": 4, "text_model": "no", "no_ulgm": True},
            "settings": {"patience": 5, "min_delta": 1e-3},
            "data": {"text": "words", "standardise": False, "samples": (9, 8, 7), "audio": None},
        }

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            ("learning_rate", "write key=value"),
            ("=3", "write key=value"),
            ("lerning_rate=1", "did you mean .*learning_rate"),
            ("config.patienc=1", "did you mean patience"),
            ("settings.lambda=1", "unknown settings key"),
            ("batch_size=1.5", "config.batch_size='1.5' does not fit; it takes a whole number"),
            ("max_epochs=99999999999999999999", "max_epochs=.* is too large"),
            ("precision=double", "it takes float32 or bfloat16 or float16"),
            ("in_memory=maybe", "it takes true or false or null"),
            ("samples=[5,5]", r"data.samples='\[5,5\]' .* a list \(\[a whole number, a whole number, a"),
            ("samples=[5,5,99999999999999999999]", "too large"),
            ("learning_rate=NaN", "not finite"),
            ("learning_rate=Infinity", "not finite"),
            ("max_length=long", "data.max_length='long'"),
            ("seed=3", "data.seed means the data's"),
            ("patience=1 config.patience=2", "twice"),
        ],
    )
    def test_mistakes(self, items, message):
        with pytest.raises(ConfigError, match=message):
            RunConfig.parse_settings("self_mm", items.split())

    def test_generator_options_belong_to_the_synthetic_data_alone(self):
        assert RunConfig.parse_settings("self_mm", ["data.seed=3"], "synthetic")["data"] == {"seed": 3}
        with pytest.raises(UnknownNameError):
            RunConfig.parse_settings("self_mm", ["noise=3"], "mosi")


@pytest.mark.parametrize(
    ("raw", "annotation", "value"),
    [
        ("3e-4", float, 3e-4), ("10", str, "10"), ("no", str, "no"), ("true", bool, True), ("null", int | None, None),
        ("(1, 2)", tuple[int, int], (1, 2)), ("a=b", str, "a=b"), ('"x"', str, "x"), ("[1", str, "[1"),
    ],
)  # fmt: skip
def test_typed_value(raw, annotation, value):
    result = typed_value("key", raw, annotation)
    assert result == value
    assert type(result) is type(value)


def test_assignment_is_split_at_the_first_sign():
    assert parse_assignment(" a = b=c ") == ("a", "b=c")
