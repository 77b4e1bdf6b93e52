"""Errors of the library: what Python code catches, and what they say."""

import pickle

import pytest

from mmsa_lib.data.sources.safe_pickle import UnsafePickleError
from mmsa_lib.errors import ConfigError, DataError, RunError, UnknownNameError, unknown_name
from mmsa_lib.experiments import RunConfig
from mmsa_lib.methods import METHODS
from mmsa_lib.training.settings import TrainSettings

KNOWN = ("self_mm", "text_only", "mosi", "SIMS")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("self_m", "did you mean self_mm?"),
        ("SELF-MM", "did you mean self_mm?"),
        ("Mosi", "did you mean mosi"),
        ("sims", "did you mean SIMS"),
        ("zzz", "known: SIMS, mosi, self_mm, text_only"),
    ],
)
def test_the_nearest_known_names_are_named_whatever_their_case(name, hint):
    assert f"unknown thing {name!r}; {hint}" in str(unknown_name("thing", name, KNOWN))


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (DataError, ValueError), (UnsafePickleError, ValueError), (ConfigError, ValueError),
        (UnknownNameError, ValueError), (UnknownNameError, KeyError), (RunError, RuntimeError),
    ],
)  # fmt: skip
def test_errors_are_the_builtin_ones_and_cross_processes(kind, builtin):
    error = pickle.loads(pickle.dumps(kind("no file 'a b'; give another")))
    assert isinstance(error, builtin)
    assert type(error) is kind
    assert str(error) == "no file 'a b'; give another"


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: RunConfig(method="self_m"), UnknownNameError, "unknown method 'self_m'; did"),
        (lambda: RunConfig(method="hrlf", config={"no_teacher_phases": 2}), ConfigError, "no_teacher_phases=2 is for"),
        (lambda: RunConfig(method="hrlf", settings={"batch_sise": 1}), UnknownNameError, "unknown training setting"),
        (lambda: RunConfig(method="hrlf", seed=-1), ConfigError, "seed=-1: should be greater"),
        (lambda: TrainSettings(batch_size=0), ConfigError, r"batch_size=0 \(samples per step\): should be greater"),
        (lambda: METHODS["hrlf"].Config.for_dataset("mosi", max_epochs=0), ConfigError, r"max_epochs=0 \(.+\): should"),
    ],
)
def test_a_validator_s_own_error_keeps_its_kind_and_words(make, kind, message):
    with pytest.raises(kind, match=f"^{message}") as caught:
        make()
    assert type(caught.value) is kind
