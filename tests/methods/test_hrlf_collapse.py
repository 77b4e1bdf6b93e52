"""FRF as printed makes the states of hrlf a constant; the guard sees it and fails the run."""

import pytest
import torch
from hrlf_data import SMALL, small
from method_data import make_split, train_epochs

from mmsa_lib.errors import RunError
from mmsa_lib.methods import create
from mmsa_lib.methods.hrlf import HRLF, CollapseGuard, state_std
from mmsa_lib.training import fit


class FactorizationAlone(HRLF):
    """The task loss weighs nothing."""

    id = "hrlf"

    def losses(self, batch, output):
        losses = super().losses(batch, output)
        losses["task"] = 0 * losses["task"]
        return losses


@pytest.fixture
def train():
    return make_split(size=32)


def fit_alone(train, **config):
    torch.manual_seed(0)
    values = {
        **SMALL,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_epochs": 80,
        "patience": 80,
        "frf_distance": "norm",
        "frf_detach": False,
    }
    method = FactorizationAlone(train.dims, train.task, HRLF.Config(**values, **config))
    return fit(method, train, make_split(size=8, seed=1), settings={"device": "cpu"}, seed=1, progress="none")


def test_the_guard_fires_on_factorization_alone(train):
    with pytest.raises(RunError, match=r"states Z collapsed.*under 1% of its start.*lambda_frf.*hrlf, teacher, epoch"):
        fit_alone(train)


def test_the_guard_can_be_turned_off(train):
    history = fit_alone(train, collapse_guard=0.0, no_teacher=True).history
    spreads = history.query("name == 'z_sd'")["value"].tolist()
    assert len(spreads) == 80
    assert spreads[-1] < 0.01 * spreads[0]


@pytest.mark.parametrize(
    ("distance", "fixed", "weight", "kept"),
    [("norm", False, 1.0, False), ("norm", True, 1.0, True), ("norm", False, 0.1, True), ("mse", False, 1.0, True)],
)
def test_the_task_loss_keeps_the_states_apart_only_where_factorization_yields(train, distance, fixed, weight, kept):
    """With weight 1 the printed norm starts ten times as large as the task loss, keeps its gradient, and wins."""
    values = {"frf_distance": distance, "frf_detach": fixed, "lambda_frf": weight}
    method = small(train, "teacher", learning_rate=3e-3, **values)
    first = float(method.guard.first)
    steps, ends = train_epochs(method, train, epochs=40, size=16)
    assert (ends[-1]["z_sd"] > 0.1 * first) is kept
    assert (steps[-1]["raw/task"] < 0.5 * steps[0]["raw/task"]) is kept


def test_what_is_logged_is_the_spread_over_observed_samples(train):
    keep = torch.arange(32).unsqueeze(1) < 20
    train = make_split(size=32)
    hidden = train.data.hide({"audio": keep.expand(32, train.data.valid["audio"].shape[1])})
    split = type(train)(data=hidden, task=train.task)
    method = small(split, "teacher", dropout=0.5)
    found = method.end_epoch(1, {})
    assert method.teacher.training  # measured without dropout, and put back
    states = method.eval()(hidden).representations
    for m, count in (("text", 32), ("audio", 20), ("vision", 32)):
        by_hand = sum(
            (sum((x - sum(c) / count) ** 2 for x in c) / count) ** 0.5 for c in states[f"{m}/state"][:count].T.tolist()
        )
        assert found[f"z_sd/{m}"] == pytest.approx(by_hand / 8, rel=1e-4)
    assert found["z_sd"] == pytest.approx(sum(found[f"z_sd/{m}"] for m in ("text", "audio", "vision")) / 3)
    assert float(method.guard.first) == pytest.approx(found["z_sd"])


def test_the_guard_compares_with_the_start_of_the_phase(train):
    method = small(train, "student")
    guard = CollapseGuard(0.5)
    guard.start(method.student, train)
    assert guard.check(method.student, "here")["z_sd"] == pytest.approx(float(guard.first))
    guard.first = guard.first * 2.1
    with pytest.raises(RunError, match=r"under 50% of its start.*\(here\)"):
        guard.check(method.student, "here")


def test_the_guard_watches_a_sample_of_a_large_split():
    large = make_split(size=700)
    method = small(large)
    assert 128 < len(method.guard.samples) <= 256
    assert method.guard.samples.ids[-1] > "s600"


def test_a_method_that_was_not_started_has_no_spread(train):
    assert create("hrlf", train.dims, train.task, **SMALL).end_epoch(1, {}) == {}


def test_spread():
    assert state_std(torch.tensor([[0.0, 1.0], [2.0, 1.0]])) == pytest.approx(0.5)
