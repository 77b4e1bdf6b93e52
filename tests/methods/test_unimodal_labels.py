"""The label bank against the equations, sample by sample in double precision."""

import math

import numpy as np
import pytest
import torch

from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.self_mm import UnimodalLabelBank

WIDTHS = {"fusion": 5, "text": 4, "audio": 3}
SIZE = 10
BOUND = 3.0


def random_features(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) + 0.5 for name, width in WIDTHS.items()}


def make_bank(seed=0, **switches):
    """A bank after a whole first epoch."""
    labels = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) * 6 - 3
    bank = UnimodalLabelBank(SIZE, WIDTHS, BOUND, **switches)
    bank.initialise(labels)
    bank.update(1, torch.arange(SIZE), random_features(seed, SIZE), labels)
    return bank, labels


def naive_distance(x, center, kind):
    squared = sum((a - b) ** 2 for a, b in zip(x, center, strict=True))
    return math.sqrt(squared) if kind == "l2" else squared / math.sqrt(len(x))


def naive_labels(bank, features, labels, distance="l2", relative="pos"):
    """Generated labels before clipping, as the spec writes them."""
    result = {name: [] for name in ("text", "audio")}
    for i, y in enumerate(labels.tolist()):
        delta = {}
        for name, x in features.items():
            pos, neg = (center.double().tolist() for center in bank.centers[name])
            d_pos = naive_distance(x[i].double().tolist(), pos, distance)
            d_neg = naive_distance(x[i].double().tolist(), neg, distance)
            scale = d_pos if relative == "pos" else naive_distance(pos, neg, distance)
            delta[name] = (d_neg - d_pos) / (scale + 1e-8)
        for name in result:
            ratio = delta[name] / (delta["fusion"] + 1e-8)
            result[name].append(0.5 * ratio * y + 0.5 * (y + delta[name] - delta["fusion"]))
    return {name: torch.tensor(values) for name, values in result.items()}


@pytest.mark.parametrize("distance", ["l2", "scaled_sq"])
@pytest.mark.parametrize("relative", ["pos", "centers"])
def test_generated_labels(distance, relative):
    bank, labels = make_bank(distance=distance, relative=relative)
    features = random_features(7, SIZE)
    expected = naive_labels(bank, features, labels, distance, relative)
    for name, value in bank.generate(features, labels).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_closed_form():
    bank, labels = make_bank()
    bank = bank.double()
    features = {name: x.double() for name, x in random_features(3, SIZE).items()}
    y = labels.double()
    d_m, d_t, d_a = bank.relative_distances(torch.cat([*features.values()], dim=1)).T
    for value, d_s in zip(bank.generate(features, y).values(), (d_t, d_a), strict=True):
        torch.testing.assert_close(value, y + (d_s - d_m) / 2 * (y + d_m) / d_m, rtol=1e-5, atol=1e-5)


def test_momentum_is_the_weighted_mean_over_epochs():
    bank, labels = make_bank()
    rows = torch.arange(SIZE)
    history = [labels]
    for epoch in range(2, 7):
        features = random_features(10 + epoch, SIZE)
        history.append(bank.generate(features, labels)["text"].clamp(-BOUND, BOUND))
        bank.update(epoch, rows, features, labels)
    weights = [2 * k / (6 * 7) for k in range(1, 7)]
    assert sum(weights) == pytest.approx(1)
    assert [round(w, 4) for w in weights] == [0.0476, 0.0952, 0.1429, 0.1905, 0.2381, 0.2857]
    expected = sum(w * y for w, y in zip(weights, history, strict=True))
    torch.testing.assert_close(bank.labels["text"], expected, rtol=1e-4, atol=1e-4)


def test_without_momentum_the_epoch_counts_alone():
    bank, labels = make_bank(momentum=False)
    features = random_features(8, SIZE)
    expected = bank.generate(features, labels)["audio"].clamp(-BOUND, BOUND)
    bank.update(4, torch.arange(SIZE), features, labels)
    torch.testing.assert_close(bank.labels["audio"], expected)


def test_labels_stay_in_bounds_and_multimodal_ones_never_change():
    bank, labels = make_bank()
    for epoch in range(2, 30):
        bank.update(epoch, torch.arange(SIZE), random_features(epoch, SIZE), labels)
        assert all(values.abs().max() <= BOUND for values in bank.labels.values())
    assert torch.equal(bank.labels["fusion"], labels)
    assert not torch.equal(bank.labels["text"], labels)


def test_first_epoch_sets_the_rows_to_the_multimodal_label():
    bank = UnimodalLabelBank(SIZE, WIDTHS, BOUND)
    rows, labels = torch.tensor([4, 2]), torch.tensor([1.5, -2.0])
    bank.update(1, rows, random_features(0, 2), labels)
    for values in bank.labels.values():
        assert torch.equal(values[rows], labels)
        assert values.count_nonzero() == 2


def test_labels_come_from_the_old_centres_and_centres_from_all_new_rows():
    bank, labels = make_bank()
    rows = torch.tensor([1, 5, 6])
    features = random_features(20, 3)
    expected = naive_labels(bank, features, labels[rows])
    stored = {name: x.clone() for name, x in bank.features.items()}
    bank.update(2, rows, features, labels[rows])
    for name in ("text", "audio"):
        new = labels[rows] / 3 + expected[name].clamp(-BOUND, BOUND) * 2 / 3
        torch.testing.assert_close(bank.labels[name][rows], new, rtol=1e-3, atol=1e-3)
    for name in WIDTHS:
        stored[name][rows] = features[name]
        assert torch.equal(bank.features[name], stored[name])
        positive = stored[name][bank.labels[name] > 0].mean(0)
        negative = stored[name][bank.labels[name] < 0].mean(0)
        torch.testing.assert_close(bank.centers[name].positive, positive)
        torch.testing.assert_close(bank.centers[name].negative, negative)


@pytest.mark.parametrize("exclude_zero", [True, False])
def test_centres_are_those_of_the_plain_path_after_many_updates(exclude_zero):
    """The plain path takes the means over all samples after each micro-batch; running sums agree to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(SIZE, generator=generator) * 6 - 3).round()
    bank = UnimodalLabelBank(SIZE, WIDTHS, 0.5, exclude_zero)
    bank.initialise(labels)
    expected = {name: torch.zeros(2, width) for name, width in WIDTHS.items()}
    for step in range(200):
        if step % 40 == 20:
            bank.reset_counts()  # a new epoch
        rows = torch.randperm(SIZE, generator=generator)[:3]
        bank.update(1 + step // 20, rows, {n: 5 * x for n, x in random_features(step, 3).items()}, labels[rows])
        for name, stored in bank.features.items():
            y = bank.labels[name]
            for side, members in enumerate((y > 0 if exclude_zero else y >= 0, y < 0)):
                if members.any():
                    expected[name][side] = stored[members].double().mean(0)
            torch.testing.assert_close(torch.stack(bank.centers[name]), expected[name], rtol=1e-6, atol=1e-6)


def test_a_bank_goes_on_from_a_state():
    one, labels = make_bank()
    two = UnimodalLabelBank(0, WIDTHS, BOUND)
    two.initialise(torch.ones(3))
    two.update(1, torch.arange(3), random_features(1, 3), torch.ones(3))
    two.load_state_dict(one.state_dict())
    for bank in (one, two):
        bank.update(2, torch.arange(4), random_features(2, 4), labels[:4])
    for name, values in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], values, rtol=1e-6, atol=1e-6)


def test_rows_not_seen_yet_are_zeros_in_the_centres():
    bank = UnimodalLabelBank(4, WIDTHS, BOUND)
    bank.initialise(torch.tensor([1.0, 2.0, -1.0, -2.0]))
    features = random_features(0, 1)
    bank.update(1, torch.tensor([0]), features, torch.tensor([1.0]))
    torch.testing.assert_close(bank.centers["text"].positive, features["text"][0] / 2)
    assert (bank.centers["text"].negative == 0).all()


@pytest.mark.parametrize(("exclude_zero", "members"), [(True, [0]), (False, [0, 1])])
def test_zero_labels_count_as_exclude_zero_says(exclude_zero, members):
    bank = UnimodalLabelBank(3, WIDTHS, BOUND, exclude_zero)
    labels, features = torch.tensor([1.0, 0.0, -1.0]), random_features(1, 3)
    bank.initialise(labels)
    bank.update(1, torch.arange(3), features, labels)
    torch.testing.assert_close(bank.centers["audio"].positive, features["audio"][members].mean(0))
    torch.testing.assert_close(bank.centers["audio"].negative, features["audio"][2])


def test_a_class_without_members_keeps_its_centre():
    bank, _ = make_bank()
    old = {name: centers.negative.clone() for name, centers in bank.centers.items()}
    labels = torch.ones(SIZE)
    bank.update(1, torch.arange(SIZE), random_features(2, SIZE), labels)
    for name in WIDTHS:
        assert torch.equal(bank.centers[name].negative, old[name])
    bank.update(2, torch.arange(SIZE), random_features(3, SIZE), labels)
    assert all(values.isfinite().all() for values in bank.labels.values())


def test_all_positive_from_the_start_gives_no_nan():
    bank = UnimodalLabelBank(SIZE, WIDTHS, BOUND)
    bank.initialise(torch.ones(SIZE))
    for epoch in (1, 2, 3):
        bank.update(epoch, torch.arange(SIZE), random_features(epoch, SIZE), torch.ones(SIZE))
    assert all(tensor.isfinite().all() for tensor in bank.state_dict().values())


def test_clip_rate_and_shift():
    bank, labels = make_bank()
    features = random_features(5, SIZE)
    raw = naive_labels(bank, features, labels)
    assert bank.clip_rate() == {"text": 0.0, "audio": 0.0}
    bank.update(2, torch.arange(SIZE), features, labels)
    for name in ("text", "audio"):
        assert bank.clip_rate()[name] == pytest.approx((raw[name].abs() > BOUND).double().mean().item())
        assert bank.shift()[name] == pytest.approx((bank.labels[name] - labels).abs().mean().item())
    assert max(bank.clip_rate().values()) > 0
    bank.reset_counts()
    assert bank.clip_rate() == {"text": 0.0, "audio": 0.0}


def test_clip_rate_of_standard_gaussians():
    """Relative distances standard Gaussian, labels uniform on -3..3: an independent simulation of the closed form."""

    class GaussianBank(UnimodalLabelBank):
        def relative_distances(self, joined):
            return joined

    torch.manual_seed(0)
    size = 40_000
    bank = GaussianBank(size, {"fusion": 1, "text": 1}, BOUND)
    labels = torch.rand(size) * 6 - 3
    bank.update(2, torch.arange(size), {"fusion": torch.randn(size, 1), "text": torch.randn(size, 1)}, labels)

    generator = np.random.default_rng(0)
    d_m, d_s = generator.standard_normal((2, 1_000_000))
    y = generator.uniform(-3, 3, 1_000_000)
    expected = (np.abs(y + (d_s - d_m) / 2 * (y + d_m) / d_m) > BOUND).mean()
    assert 0.15 < expected < 0.2
    assert bank.clip_rate()["text"] == pytest.approx(expected, abs=0.006)


def test_a_batch_in_another_order_gives_the_same_bank():
    rows, features = torch.arange(SIZE), random_features(9, SIZE)
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(3))
    one, labels = make_bank()
    two, _ = make_bank()
    one.update(2, rows, features, labels)
    two.update(2, rows[order], {name: x[order] for name, x in features.items()}, labels[order])
    for name, values in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], values)


def test_features_are_stored_without_graph():
    bank, labels = make_bank()
    features = {name: x.requires_grad_() for name, x in random_features(1, SIZE).items()}
    bank.update(2, torch.arange(SIZE), features, labels)
    assert not any(tensor.requires_grad for tensor in bank.state_dict().values())


def test_state_travels_to_a_bank_of_another_size():
    bank, _ = make_bank()
    other = UnimodalLabelBank(0, WIDTHS, BOUND)
    other.load_state_dict(bank.state_dict())
    for name, values in bank.state_dict().items():
        assert torch.equal(other.state_dict()[name], values)


def test_the_multimodal_entry_may_have_any_name_but_must_be_one():
    bank = UnimodalLabelBank(2, {"m": 3, "text": 2}, 1.0)
    assert bank.multimodal == "m"
    for wrong in ({"text": 2, "audio": 2}, {"m": 3, "n": 3, "text": 2}, {"m": 3}):
        with pytest.raises(ConfigError, match="multimodal"):
            UnimodalLabelBank(2, wrong, 1.0)


def test_a_row_outside_of_the_bank_is_an_error():
    bank, _ = make_bank()
    with pytest.raises(RunError, match="holds 10 training samples and was asked for row 10"):
        bank.update(2, torch.tensor([SIZE]), random_features(0, 1), torch.zeros(1))
