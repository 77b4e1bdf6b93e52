from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmsa_lib.data.missing import stochastic_missing
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.base import Losses
from mmsa_lib.training import TrainSettings, fit, predict, represent
from mmsa_lib.training.tensors import save_tensors


def values(result, split, name):
    rows = result.history.query("split == @split and name == @name")
    return rows["value"].tolist()


def test_training_lowers_the_validation_loss_and_keeps_the_best_epoch(splits, new_method):
    method = new_method(max_epochs=12)
    result = fit(method, *splits, seed=3, progress="none")
    curve = values(result, "valid", "loss/task")
    assert curve[-1] < 0.8 * curve[0]
    assert result.best_value == min(curve)
    assert result.best_epoch == 1 + int(np.argmin(curve))
    assert list(result.history.columns) == ["phase", "epoch", "split", "name", "value"]


def test_the_method_is_left_in_the_state_of_its_best_epoch(splits, new_method):
    method = new_method(max_epochs=8, learning_rate=1.0)  # so large a rate that the last epoch is not the best one
    result = fit(method, *splits, seed=3, progress="none")
    prediction = predict(method, splits[1])
    by_hand = sum(abs(p - y) for p, y in zip(prediction.tolist(), splits[1].labels.tolist(), strict=True)) / 17
    assert result.best_epoch < 8
    assert by_hand == pytest.approx(result.best_value, rel=1e-5)


def test_validation_loss_is_a_mean_over_samples_however_they_are_batched(splits, new_method):
    """17 samples in batches of 16: a mean of batch means would weigh the last sample 16 times."""
    curves = [
        values(
            fit(new_method(), *splits, seed=3, settings={"evaluation_batch_size": size}, progress="none"),
            "valid", "loss/task",
        )
        for size in (1, 16, 256)
    ]  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert curves[1] == pytest.approx(curves[2], rel=1e-5)


def test_training_values_are_means_over_samples(splits, new_method):
    """40 samples in batches of 24 and 16, at a learning rate too small to move anything, without dropout."""
    method = new_method(batch_size=24, max_epochs=1, learning_rate=1e-12, weight_decay=0.0)
    method.dropout.p = 0.0
    before = predict(method, splits[0])
    result = fit(method, *splits, seed=3, progress="none")
    assert values(result, "train", "loss/task")[0] == pytest.approx((before - splits[0].labels).abs().mean().item())
    assert values(result, "train", "raw/task") == values(result, "train", "loss/total")


def test_patience_ends_training(splits, new_method):
    result = fit(new_method(learning_rate=1e-9), *splits, seed=3, progress="none",
                 settings={"patience": 2, "max_epochs": 30, "min_delta": 0.5})  # fmt: skip
    assert result.best_epoch == 1
    assert result.history["epoch"].max() == 3
    assert "no improvement in 2 epochs" in result.stopped


def test_settings_overrule_the_config_and_none_means_the_config(splits, new_method):
    own = fit(new_method(max_epochs=2), *splits, seed=3, progress="none")
    assert own.history["epoch"].max() == 2
    for settings in ({"max_epochs": 4}, TrainSettings(max_epochs=4)):
        overruled = fit(new_method(max_epochs=2), *splits, seed=3, settings=settings, progress="none")
        assert overruled.history["epoch"].max() == 4


@pytest.mark.parametrize("bucket", [False, True])
def test_each_epoch_and_each_seed_has_an_order_of_its_own(splits, new_method, bucket):
    def orders(seed):
        seen = []

        def record(batch, generator):
            seen.append(batch.ids)
            return batch

        settings = {"max_epochs": 2, "batch_size": 8, "bucket": bucket}
        fit(new_method(), *splits, seed=seed, settings=settings, augment=record, progress="none")
        assert [len(ids) for ids in seen] == [8] * 10
        return tuple(sum(seen[i : i + 5], ()) for i in (0, 5))

    three, four = orders(3), orders(4)
    assert orders(3) == three
    assert len({*three, *four}) == 4
    assert all(sorted(order) == sorted(splits[0].data.ids) for order in (*three, *four))
    if not bucket:
        expected = torch.randperm(40, generator=torch.Generator().manual_seed(4))
        assert four[0] == tuple(splits[0].data.ids[row] for row in expected)


def test_equal_seeds_give_equal_predictions_and_other_seeds_do_not(splits, new_method):
    def trained(seed):
        method = new_method()
        fit(method, *splits, seed=seed, progress="none")
        return predict(method, splits[1])

    assert torch.equal(trained(3), trained(3))
    assert not torch.equal(trained(3), trained(4))


def interrupted(build, splits, path, stop, **options):
    """A method that was trained with an interruption where ``stop`` says so of the progress, and its result."""

    def interrupt(state):
        if stop(state):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build(), *splits, seed=3, checkpoint=path, on_epoch=interrupt, progress="none", **options)
    torch.rand(7)  # the state of the random sources in between must not matter
    method = build(seed=99)
    # How often to save is no part of what is trained: another value still resumes.
    options.pop("settings", None)
    return method, fit(method, *splits, seed=3, checkpoint=path, progress="none", **options)


@pytest.mark.parametrize("augment", [None, stochastic_missing])
@pytest.mark.parametrize(("stop_after", "every"), [(1, 1), (3, 1), (6, 1), (5, 2)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    splits, new_method, tmp_path, stop_after, every, augment
):
    whole_method = new_method()
    whole = fit(whole_method, *splits, seed=3, augment=augment, progress="none")
    method, resumed = interrupted(
        new_method, splits, tmp_path / "checkpoint.pt", lambda state: state.epoch == stop_after,
        augment=augment, settings={"checkpoint_every": every},
    )  # fmt: skip
    assert resumed.resumed_after == stop_after // every * every
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    assert (resumed.best_epoch, resumed.best_value) == (whole.best_epoch, whole.best_value)
    assert torch.equal(predict(method, splits[1]), predict(whole_method, splits[1]))
    assert method.steps == whole_method.steps


def epochs_of(result, split="valid", name="loss/task"):
    rows = result.history.query("split == @split and name == @name")
    return rows["epoch"].tolist()


class TestStepBudget:
    """40 samples in batches of 8: five steps an epoch."""

    def test_a_phase_ends_at_exactly_so_many_steps_and_validates_the_cut_epoch(self, splits, new_method):
        method = new_method(max_epochs=1)  # does not limit
        result = fit(method, *splits, seed=3, settings={"max_steps": 12, "patience": 9}, progress="none")
        assert method.steps in (5, 10, 12)  # of the best epoch
        assert values(result, "train", "steps") == [5, 10, 12]
        assert epochs_of(result) == [1, 2, 3]
        assert result.stopped == "limit of 12 steps"
        last = result.phases[-1]
        assert (last["phase"], last["epoch"], last["steps"]) == ("train", 3, 12)
        assert last["best_steps"] == values(result, "train", "steps")[result.best_epoch - 1]

    def test_whichever_limit_comes_first_ends_the_phase(self, splits, new_method):
        for settings, steps in (({"max_epochs": 2, "max_steps": 12}, 10), ({"max_epochs": 3, "max_steps": 12}, 12)):
            assert fit(new_method(), *splits, seed=3, settings=settings, progress="none").phases[0]["steps"] == steps

    def test_patience_counts_steps_since_the_end_of_the_best_epoch(self, splits, new_method):
        settings = {"patience_steps": 8, "max_epochs": 30, "min_delta": 0.5}
        result = fit(new_method(learning_rate=1e-9, patience=1), *splits, seed=3, settings=settings, progress="none")
        assert values(result, "train", "steps") == [5, 10, 15]  # best at 5; 10 are not yet 8 steps later
        assert result.stopped == "no improvement in 8 steps"

    def test_validation_at_the_first_end_of_an_epoch_after_each_multiple(self, splits, new_method):
        """Small batches and large ones are validated equally often: 60 / 15 times."""
        for size, expected in ((8, [15, 30, 45, 60]), (20, [16, 30, 46, 60]), (3, [28, 42, 56, 60])):
            method = new_method(batch_size=size)
            settings = {"max_steps": 60, "patience": 99, "validate_every": 15}
            result = fit(method, *splits, seed=3, settings=settings, progress="none", observe=lambda _: {"seen": 1})
            ends = dict(zip(epochs_of(result, "train", "steps"), values(result, "train", "steps"), strict=True))
            assert [ends[epoch] for epoch in epochs_of(result)] == expected
            assert epochs_of(result) == epochs_of(result, "oracle", "seen")
        last = fit(new_method(), *splits, seed=3, settings={"validate_every": 99}, progress="none")
        assert epochs_of(last) == [6]

    @pytest.mark.parametrize("epoch", [1, 2, 4])
    def test_resuming_is_exact(self, splits, new_method, tmp_path, epoch):
        settings = {"max_steps": 23, "patience_steps": 20, "validate_every": 9}
        whole_method = new_method()
        whole = fit(whole_method, *splits, seed=3, settings=settings, progress="none")
        path = tmp_path / "checkpoint.pt"
        with pytest.raises(KeyboardInterrupt):
            fit(new_method(), *splits, seed=3, settings=settings, checkpoint=path, progress="none",
                on_epoch=partial(_interrupt_after, epoch))  # fmt: skip
        method = new_method(seed=99)
        resumed = fit(method, *splits, seed=3, settings=settings, checkpoint=path, progress="none")
        assert resumed.resumed_after == epoch
        pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
        assert resumed.phases == whole.phases
        assert torch.equal(predict(method, splits[1]), predict(whole_method, splits[1]))

    def test_a_method_that_makes_no_step_is_told_so(self, splits, new_method, tiny_method):
        class Idle(tiny_method):
            def training_step(self, batch, optimizers):
                return {}

        with pytest.raises(RunError, match=r"an epoch makes no step.*max_steps=5.*batch_size"):
            fit(new_method(Idle), *splits, seed=3, settings={"max_steps": 5}, progress="none")

    def test_progress_tells_steps(self, splits, new_method, capsys):
        settings = {"max_steps": 12, "validate_every": 10}
        fit(new_method(), *splits, seed=3, settings=settings, progress="line")
        lines = capsys.readouterr().err.splitlines()
        for line, (epoch, step) in zip(lines, ((1, 5), (2, 10), (3, 12)), strict=False):
            assert f": train {epoch}: step {step}/12 train " in line
        assert ["valid" in line for line in lines[:3]] == [False, True, True]


def _interrupt_after(epoch, state):
    if state.epoch == epoch:
        raise KeyboardInterrupt


class TestTerms:
    """Each term's share of the loss, and its gradient on the encoders."""

    @pytest.fixture
    def three_terms(self, tiny_method):
        class ThreeTerms(tiny_method):
            """An encoder before the head; a weighted term, and one that is only watched."""

            def __init__(self, *args):
                super().__init__(*args)
                self.dropout.p = 0.0
                self.encoder = torch.nn.Linear(8, 8)

            def forward(self, batch):
                output = super().forward(batch)
                fused = self.encoder(output.representations["fusion/feature"])
                return replace(output, prediction=self.head(fused).squeeze(1), representations={"fused": fused})

            def losses(self, batch, output):
                side = -output.representations["fused"].square().mean()
                return Losses(
                    task=(1.0, self.task.loss(output.prediction, batch.labels)),
                    side=(0.25, side),
                    watched=(0.0, side.exp()),
                )

        return ThreeTerms

    def test_shares_are_parts_of_the_sum_of_absolute_terms(self, splits, new_method, three_terms):
        result = fit(new_method(three_terms), *splits, seed=3, progress="none")
        task, side = (np.array(values(result, "train", f"loss/{name}")) for name in ("task", "side"))
        assert (side < 0).all()
        np.testing.assert_allclose(values(result, "train", "share/side"), -side / (task - side))
        np.testing.assert_allclose(values(result, "train", "share/task"), task / (task - side))
        assert values(result, "train", "share/watched") == []

    def test_gradients_are_those_of_the_first_step_of_epochs_1_2_4_by_hand(self, splits, new_method, three_terms):
        by_hand = []

        class Watched(three_terms):
            def training_step(self, batch, optimizers):
                if len(by_hand) < 3 and self.steps in (0, 5, 15):
                    norms = {}
                    for name in ("task", "side", "watched"):
                        self.zero_grad()
                        self.losses(batch, self(batch))[name].backward()
                        squares = [float((p.grad**2).sum()) for p in self.encoder.parameters()]
                        norms[name] = math.sqrt(sum(squares))
                    by_hand.append(norms)
                return super().training_step(batch, optimizers)

        result = fit(new_method(Watched), *splits, seed=3, progress="none")
        for name in ("task", "side", "watched"):
            assert epochs_of(result, "train", f"gradient/{name}") == [1, 2, 4]
            assert values(result, "train", f"gradient/{name}") == pytest.approx([norms[name] for norms in by_hand])
        assert values(result, "train", "gradient/watched") == [0, 0, 0]

    def test_measuring_changes_no_bit(self, splits, new_method, three_terms, monkeypatch):
        measured = fit(new_method(three_terms), *splits, seed=3, progress="none").history
        monkeypatch.setattr("mmsa_lib.methods.base.term_gradients", lambda losses: {})
        plain = fit(new_method(three_terms), *splits, seed=3, progress="none").history
        rest = measured[~measured["name"].str.startswith("gradient/")].reset_index(drop=True)
        pd.testing.assert_frame_equal(rest, plain, check_exact=True)


class TestAugmentation:
    def test_every_training_batch_passes_it_and_nothing_else_does(self, splits, new_method):
        seen = []

        def count(batch, generator):
            seen.append(len(batch))
            return batch

        plain = fit(new_method(max_epochs=2), *splits, seed=3, progress="none")
        counted = fit(new_method(max_epochs=2), *splits, seed=3, augment=count, progress="none")
        assert seen == [8] * 5 * 2
        pd.testing.assert_frame_equal(plain.history, counted.history, check_exact=True)

    def test_it_draws_from_a_stream_of_its_own_for_each_seed(self, splits, new_method):
        def draws(seed, count):
            orders, drawn = [], []

            def draw(batch, generator):
                orders.append(batch.ids)
                drawn.extend(torch.rand(count, generator=generator).tolist())
                return batch

            fit(new_method(max_epochs=2), *splits, seed=seed, augment=draw, progress="none")
            return orders, drawn

        (orders, first), (others, more), (_, fourth) = draws(3, 1), draws(3, 5), draws(4, 1)
        assert orders == others  # drawing more moves no sample
        assert first == more[:10]
        assert first != fourth
        assert torch.rand(1, generator=torch.Generator().manual_seed(3)).item() not in first

    def test_each_epoch_and_each_seed_hides_something_else(self, splits, new_method):
        def observed(seed):
            masks = []

            def keep(batch, generator):
                order = batch.index.argsort()
                hidden = stochastic_missing(batch, generator)
                masks.append(hidden.observed["text"][order])
                return hidden

            fit(new_method(max_epochs=2, batch_size=40), *splits, seed=seed, augment=keep, progress="none")
            return masks

        first, second = observed(3)
        assert not first.equal(second)
        assert all(a.equal(b) for a, b in zip((first, second), observed(3), strict=True))
        assert not observed(4)[0].equal(first)

    def test_a_checkpoint_without_it_is_not_resumed_with_it(self, splits, new_method, tmp_path):
        path = tmp_path / "checkpoint.pt"
        fit(new_method(), *splits, seed=3, checkpoint=path, progress="none")
        again = fit(new_method(), *splits, seed=3, checkpoint=path, augment=stochastic_missing, progress="none")
        assert again.resumed_after == 0


def test_training_is_in_training_mode_and_says_when_an_epoch_starts(splits, new_method, tiny_method):
    seen = []

    class Watched(tiny_method):
        def start_epoch(self, epoch):
            seen.append(epoch)

        def training_step(self, batch, optimizers):
            assert self.training
            return super().training_step(batch, optimizers)

    result = fit(new_method(Watched, max_epochs=3).eval(), *splits, seed=3, progress="none")
    assert seen == [1, 2, 3]
    assert 0 < result.seconds < 1e5


def test_resumption_is_said(splits, new_method, tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    fit(new_method(), *splits, seed=3, checkpoint=path, progress="none")
    fit(new_method(), *splits, seed=3, checkpoint=path, progress="line")
    assert "resuming after epoch 6" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"seed": 4}, {"settings": {"batch_size": 5}}])
def test_a_checkpoint_of_another_run_is_not_resumed(splits, new_method, tmp_path, change, capsys):
    path = tmp_path / "checkpoint.pt"
    fit(new_method(), *splits, seed=3, checkpoint=path, progress="none")
    result = fit(new_method(), *splits, **({"seed": 3} | change), checkpoint=path, progress="line")
    assert result.resumed_after == 0
    assert "belongs to another run; starting clean" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["checkpoint", "cut", "flipped", "lost", "foreign"])
def test_a_damaged_checkpoint_or_best_state_starts_clean_with_a_note(splits, new_method, tmp_path, capsys, damage):
    path = tmp_path / "checkpoint.pt"
    whole = fit(new_method(), *splits, seed=3, checkpoint=path, progress="none")
    (best,) = tmp_path.glob("checkpoint.best-*")
    weight = torch.load(best, weights_only=True)["state"]["head.weight"].numpy().tobytes()
    content = bytearray(best.read_bytes())
    content[content.index(weight)] ^= 1
    changes = {
        "checkpoint": lambda: path.write_bytes(path.read_bytes()[:-50]),
        "cut": lambda: best.write_bytes(best.read_bytes()[:-50]),
        "flipped": lambda: best.write_bytes(content),
        "lost": best.unlink,
        "foreign": lambda: torch.save({"identity": "another", "state": {}}, best),
    }
    changes[damage]()
    again = fit(new_method(), *splits, seed=3, checkpoint=path, progress="line")
    assert again.resumed_after == 0
    name = path.name if damage == "checkpoint" else best.name
    why = "belongs to another run" if damage == "foreign" else "is damaged"
    assert f"{name} {why}; starting clean" in capsys.readouterr().err
    pd.testing.assert_frame_equal(again.history, whole.history, check_exact=True)


def test_a_checkpoint_of_an_older_version_starts_clean(splits, new_method, tmp_path, capsys):
    save_tensors(tmp_path / "checkpoint.pt", {"method/weight": torch.ones(2)}, {"format": "mmsa-lib checkpoint 2"})
    assert fit(new_method(), *splits, seed=3, checkpoint=tmp_path / "checkpoint.pt", progress="line").resumed_after == 0
    assert "checkpoint.pt is damaged; starting clean" in capsys.readouterr().err


def test_a_checkpoint_runs_no_code_of_its_own(splits, new_method, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "made").write_text, ("",))

    torch.save({"format": Evil()}, tmp_path / "checkpoint.pt")
    fit(new_method(), *splits, seed=3, checkpoint=tmp_path / "checkpoint.pt", progress="none")
    assert not (tmp_path / "made").exists()


def test_the_best_state_of_the_last_checkpoint_stays_until_the_next_one(splits, new_method, tmp_path):
    """A training that ends between two checkpoints may have a better epoch than that to which it goes back."""
    seen = []

    def watch(state):
        seen.append((state.epoch, sorted(file.name for file in tmp_path.iterdir())))

    settings = {"checkpoint_every": 2}
    path = tmp_path / "checkpoint.pt"
    fit(new_method(), *splits, seed=3, checkpoint=path, settings=settings, on_epoch=watch, progress="none")
    assert seen[1:4] == [
        (2, ["checkpoint.best-0-2.pt", "checkpoint.pt"]),
        (3, ["checkpoint.best-0-2.pt", "checkpoint.best-0-3.pt", "checkpoint.pt"]),
        (4, ["checkpoint.best-0-4.pt", "checkpoint.pt"]),
    ]


def test_a_loss_that_is_not_finite_names_term_epoch_and_step(splits, new_method, tiny_method):
    class Breaking(tiny_method):
        def losses(self, batch, output):
            scale = math.nan if self.steps == 7 else 1.0
            return super().losses(batch, output) | {"side": scale * output.prediction.sum()}

    with pytest.raises(RunError, match=r"raw/side is nan.*tiny, seed 3, train, epoch 2, step 2"):
        fit(new_method(Breaking), *splits, seed=3, progress="none")


def test_a_prediction_that_is_not_finite_names_the_epoch(splits, new_method, tiny_method):
    class Exploding(tiny_method):
        def end_epoch(self, epoch, optimizers):
            if epoch == 2:
                self.head.bias.data.fill_(math.inf)
            return {}

    with pytest.raises(RunError, match=r"17 of 17 valid samples .*'valid-0'.*epoch 2"):
        fit(new_method(Exploding), *splits, seed=3, progress="none")


class TestPhases:
    @pytest.fixture
    def two_phases(self, tiny_method):
        class TwoPhases(tiny_method):
            """Trains its bias alone first, then everything."""

            phases = ("bias", "all")

            def start_phase(self, phase, train):
                self.started = [*getattr(self, "started", []), phase]
                self.head.weight.requires_grad_(phase == "all")

        return TwoPhases

    def test_each_phase_has_its_own_epochs_and_starts_from_the_best_state_before(self, splits, new_method, two_phases):
        method = new_method(two_phases, max_epochs=3)
        result = fit(method, *splits, seed=3, progress="none")
        assert method.started == ["bias", "all"]
        epochs = result.history.query("split == 'valid'").groupby("phase")["epoch"].agg(list)
        assert epochs.to_dict() == {"bias": [1, 2, 3], "all": [1, 2, 3]}

    def test_a_later_phase_may_add_a_layer_with_and_without_a_checkpoint(
        self, splits, new_method, tiny_method, tmp_path
    ):
        class Growing(tiny_method):
            phases = ("small", "large")

            def start_phase(self, phase, train):
                if phase == "large":
                    torch.manual_seed(0)
                    self.head = torch.nn.Sequential(self.head, torch.nn.Linear(1, 1))

        found = [
            fit(new_method(Growing, max_epochs=3), *splits, seed=3, checkpoint=path, progress="none").history
            for path in (None, tmp_path / "checkpoint.pt")
        ]
        pd.testing.assert_frame_equal(*found, check_exact=True)

    @pytest.mark.parametrize(("phase", "epoch"), [(0, 2), (0, 3), (1, 2)])
    def test_resuming_inside_any_phase_is_exact(self, splits, new_method, two_phases, tmp_path, phase, epoch):
        whole_method = new_method(two_phases, max_epochs=3)
        whole = fit(whole_method, *splits, seed=3, progress="none")

        method, resumed = interrupted(
            partial(new_method, two_phases, max_epochs=3), splits, tmp_path / "checkpoint.pt",
            lambda state: (state.phase, state.epoch) == (phase, epoch),
        )  # fmt: skip
        pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
        assert torch.equal(predict(method, splits[1]), predict(whole_method, splits[1]))


def test_bfloat16_changes_the_training_step(splits, new_method):
    exact = fit(new_method(), *splits, seed=3, settings={"device": "cpu"}, progress="none")
    coarse = fit(new_method(), *splits, seed=3, settings={"device": "cpu", "precision": "bfloat16"}, progress="none")
    assert coarse.best_value != exact.best_value
    assert coarse.best_value == pytest.approx(exact.best_value, rel=0.05)


def test_a_second_player_of_a_bfloat16_step_reads_the_weights_after_the_first(splits, new_method, tiny_method):
    class Players(tiny_method):
        def training_step(self, batch, optimizers):
            before = self(batch).prediction
            log = super().training_step(batch, optimizers)
            return log | {"moved": (self(batch).prediction - before).abs().mean().item()}

    method = new_method(Players, learning_rate=0.1)
    method.dropout.p = 0.0
    settings = {"device": "cpu", "precision": "bfloat16"}
    assert min(values(fit(method, *splits, seed=3, settings=settings, progress="none"), "train", "moved")) > 0


def test_bucket_changes_the_batches(splits, new_method):
    plain, bucketed = (
        fit(new_method(), *splits, seed=3, settings={"bucket": bucket}, progress="none") for bucket in (False, True)
    )
    assert values(plain, "train", "loss/task") != values(bucketed, "train", "loss/task")


def test_observed_values_join_the_history_and_decide_nothing(splits, new_method):
    observed = []

    def observe(method):
        observed.append(predict(method, splits[0]).sum().item())
        return {"sum": observed[-1]}

    plain = fit(new_method(), *splits, seed=3, progress="none")
    watched = fit(new_method(), *splits, seed=3, observe=observe, progress="none")
    assert values(watched, "oracle", "sum") == observed
    assert len(observed) == 6
    rest = watched.history.query("split != 'oracle'").reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain.history)


def test_a_state_beside_the_parameters_survives_an_interruption(splits, new_method, tiny_method, tmp_path):
    class Remembering(tiny_method):
        """Scales its learning rate by a sum over all steps, which is neither a parameter nor a buffer."""

        memory = torch.zeros(())
        validations = torch.zeros(())

        def training_step(self, batch, optimizers):
            self.memory = self.memory + batch.labels.sum()
            optimizers["all"].param_groups[0]["lr"] = 0.01 * float(self.memory.sigmoid())
            return super().training_step(batch, optimizers)

        def end_validation(self, value, optimizers):
            self.validations = self.validations + value

        def training_state(self):
            return {"memory": self.memory, "validations": self.validations}

        def load_training_state(self, state):
            self.memory, self.validations = state["memory"], state["validations"]

    straight = new_method(Remembering)
    expected = fit(straight, *splits, seed=3, progress="none")
    build = partial(new_method, Remembering)
    resumed, result = interrupted(build, splits, tmp_path / "c", lambda state: state.epoch == 3)
    pd.testing.assert_frame_equal(result.history, expected.history)
    assert torch.equal(resumed.validations, straight.validations)
    assert resumed.validations.item() == pytest.approx(sum(values(expected, "valid", "loss/task")))


def test_a_method_may_validate_on_samples_of_its_own(splits, new_method, tiny_method):
    class OnTheFirstFive(tiny_method):
        def prepare_validation(self, phase, valid):
            return valid.select(torch.arange(5))

    method = new_method(OnTheFirstFive)
    result = fit(method, *splits, seed=3, progress="none")
    errors = (predict(method, splits[1]) - splits[1].labels).abs()
    assert result.best_value == pytest.approx(errors[:5].mean().item())


def test_an_empty_split_is_refused(splits, new_method):
    empty = splits[1].select(torch.arange(0))
    with pytest.raises(ConfigError, match="valid split is empty"):
        fit(new_method(), splits[0], empty, seed=3)


def test_progress_is_one_line_per_epoch_on_stderr_or_nothing(splits, new_method, capsys):
    fit(new_method(max_epochs=2), *splits, seed=3, progress="auto")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3  # two epochs and why training stopped
    assert "tiny seed 3: train 1/2 train " in err
    fit(new_method(max_epochs=2), *splits, seed=3, progress="none")
    assert capsys.readouterr() == ("", "")


def test_predict_and_represent_keep_the_order_and_the_mode(splits, new_method):
    method = new_method().train()
    train = splits[0]
    prediction = predict(method, train, batch_size=7)
    representations = represent(method, train, batch_size=7)
    assert method.training
    assert prediction.shape == (40,)
    assert representations["fusion/feature"].shape == (40, 8)
    one = predict(method, train.select(torch.tensor([33])))
    assert one.item() == pytest.approx(prediction[33].item(), rel=1e-5)


def test_a_fine_tuned_text_encoder_predicts_texts_of_similar_length_together(splits, new_method, tiny_method):
    class Counting(tiny_method):
        frames = 0

        def forward(self, batch):
            self.frames += batch.valid["text"].numel()
            return super().forward(batch)

    plain, tuned = new_method(Counting), new_method(Counting)
    tuned.text_encoder = torch.nn.Identity()
    for data in (splits[0], splits[0].select(torch.tensor([5, 33, 2, 39, 8, 1]))):
        expected, found = (predict(method, data, batch_size=4) for method in (plain, tuned))
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert tuned.frames < 0.8 * plain.frames


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(splits, new_method):
    def trained(device):
        method = new_method()
        method.dropout.p = 0.0
        return fit(method, *splits, seed=3, settings={"device": device}, progress="none")

    assert trained("cuda").best_value == pytest.approx(trained("cpu").best_value, rel=1e-3)
