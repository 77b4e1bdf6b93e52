"""Weights of the decoupling against plain loops and random search; what rewards read and policies see."""

import math

import pytest
import torch

from companion import collaborative as shelf
from mmsa_lib.data import load
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import create
from mmsa_lib.methods.collaborative_mmcl import decouple, masked_softmax

SMALL = {"width": 8, "heads": 2, "feedforward": 8}
LENGTHS = (5, 3, 1)


@pytest.fixture(scope="module")
def train():
    return load("synthetic", samples=(40, 8, 8), dims=(12, 8, 8), length=6)["train"]


@pytest.fixture
def z():
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for m in ("text", "audio", "vision")}


@pytest.fixture
def valid(z):
    return dict.fromkeys(z, torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1))


def built(train, **switches):
    torch.manual_seed(0)
    method = create("collaborative_mmcl", train.dims, train.task, **SMALL, **switches)
    method.start_phase("train", train)
    return method


def slow_rows(z, m, part, variant):
    """Per valid row of samples with two or more words: weights over what competes, the mixed row, the mean."""
    _, _, weights = decouple(z, torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1), variant=variant)
    for b, length in enumerate(LENGTHS):
        if length < 2:
            continue
        kept = range(5) if variant == "reference" else range(length)
        mean = sum(z[m][b, j] for j in kept) / len(kept)
        for i in range(length):
            row = [float(weights[f"{m}/{part}"][b, i, j]) for j in kept]
            yield length, row, sum(w * z[m][b, j] for w, j in zip(row, kept, strict=True)), mean


@pytest.mark.parametrize("variant", ["corrected", "reference"])
@pytest.mark.parametrize("part", ["common", "specific"])
def test_statistics_agree_with_loops(z, valid, variant, part):
    table = shelf.decoupling_statistics(z, valid, variant=variant).set_index(["modality", "part"])
    for m in z:
        rows = list(slow_rows(z, m, part, variant))
        entropy = [-sum(w * math.log(w) for w in row) / math.log(len(row)) for _, row, _, _ in rows]
        distance = [float((mixed - mean).norm() / mean.norm()) for _, _, mixed, mean in rows]
        found = table.loc[m, part]
        assert found["entropy"] == pytest.approx(sum(entropy) / len(entropy), abs=1e-6)
        assert found["distance"] == pytest.approx(sum(distance) / len(distance), rel=1e-4)
        assert found["largest"] == pytest.approx(max(max(row) * len(row) for _, row, _, _ in rows), rel=1e-5)
        assert found["smallest"] == pytest.approx(min(min(row) * len(row) for _, row, _, _ in rows), rel=1e-5)
        on_padding = [sum(row[length:]) for length, row, _, _ in rows]
        assert found["padding"] == pytest.approx(sum(on_padding) / len(rows), abs=1e-6)


def test_variation_and_cosine(z, valid):
    common, specific, _ = decouple(z, valid["text"])
    own, mixed, cosines = [], [], []
    for b, length in enumerate(LENGTHS[:2]):
        for x, kept in ((z["text"], own), (specific["text"], mixed)):
            centre = x[b, :length].mean(0)
            kept += [float((x[b, i] - centre).square().sum()) for i in range(length)]
        for i in range(length):
            p, n = common["text"][b, i], specific["text"][b, i]
            cosines.append(float(p @ n / p.norm() / n.norm()))
    found = shelf.decoupling_statistics(z, valid).set_index(["modality", "part"]).loc["text", "specific"]
    assert found["variation"] == pytest.approx(math.sqrt(sum(mixed) / sum(own)), rel=1e-4)
    assert found["cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


def test_one_word_samples_alone_are_refused(z):
    one = dict.fromkeys(z, torch.arange(5) < torch.ones(3, 1))
    with pytest.raises(ConfigError, match="no sample has two valid positions of text"):
        shelf.decoupling_statistics(z, one)


@pytest.mark.parametrize("align", ["none", "ln", "center"])
@pytest.mark.parametrize("comparison", ["min", "mean"])
def test_weights_are_the_softmax_of_the_similarity(z, valid, align, comparison):
    _, _, weights = decouple(z, valid, temperature=0.3, align=align, comparison=comparison)
    for m, c in shelf.similarity(z, valid, comparison, align).items():
        expected = masked_softmax(c / 0.3, valid[m])
        torch.testing.assert_close(weights[f"{m}/common"], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "switches",
    [{}, {"decoupling": "reference"}, {"align": "center", "comparison": "mean"}, {"longest": 3},
     {"longest": 3, "decoupling": "reference"}],
)  # fmt: skip
def test_what_is_looked_at_is_what_the_method_does(train, switches):
    method, batch = built(train, **switches), train.data.select(torch.arange(9))
    z, valid = shelf.projected(method, batch)
    config = method.config
    _, _, weights = decouple(z, valid, variant=config.decoupling, comparison=config.comparison, align=config.alignment)
    for name, matrix in method.eval().decouple(batch).weights.items():
        steps = matrix.shape[1]
        torch.testing.assert_close(weights[name][:, :steps, :steps], matrix)
    assert len(shelf.method_decoupling(method, batch)) == 6


def test_the_reference_puts_weight_on_padding_and_the_correction_none(train):
    padding = {
        variant: shelf.method_decoupling(built(train, decoupling=variant), train.data)["padding"]
        for variant in ("reference", "corrected")
    }
    valid = train.data.valid["text"]
    lengths = valid.sum(1)[valid.sum(1) > 1].double()
    share = float(((1 - lengths / valid.shape[1]) * lengths).sum() / lengths.sum())  # what uniform weights would give
    assert padding["reference"].tolist() == pytest.approx([share] * 6, rel=0.15)
    assert (padding["corrected"] == 0).all()


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_word_by_word_holds_what_the_method_decides(train, variant):
    method = built(train, decoupling=variant).eval()
    row = int(train.lengths("text").argmin())
    count, batch = int(train.lengths("text")[row]), train.data.select(torch.tensor([row]))
    table = shelf.word_by_word(method, train, train.ids[row]).set_index(["modality", "quantity", "row", "column"])[
        "value"
    ]
    assert len(table) == 3 * (3 * count * count + count)
    with torch.no_grad():
        views, output = method.decouple(batch), method(batch)
    for i in range(count):
        assert table["audio", "gate", i, 0] == pytest.approx(float(output.auxiliary["gates/audio"][0, i]))
        for j in range(count):
            assert table["vision", "specific", i, j] == pytest.approx(float(views.weights["vision/specific"][0, i, j]))
    rows = {m: method.project[m](batch.features[m])[0].detach() for m in train.modalities}
    if variant == "corrected":
        rows = {m: (x - x.mean(-1, keepdim=True)) for m, x in rows.items()}
    expected = min(
        float(torch.cosine_similarity(rows["text"][0], rows[n][-1 + count], dim=0)) for n in ("audio", "vision")
    )
    assert table["text", "similarity", 0, count - 1] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ConfigError, match="no train sample"):
        shelf.word_by_word(method, train, "nobody")


def test_without_decoupling_there_is_nothing_to_see(train):
    with pytest.raises(ConfigError, match="no_decoupling"):
        shelf.method_decoupling(built(train, no_decoupling=True), train.data)


class TestBounds:
    @pytest.mark.parametrize("steps", [2, 5, 20])
    def test_no_random_row_is_below(self, steps):
        generator = torch.Generator().manual_seed(steps)
        scores = (torch.rand(20000, steps, generator=generator, dtype=torch.float64) * 2 - 1).mul(4).clamp(-1, 1)
        agree = scores.softmax(-1)
        everything = torch.ones(len(scores), steps, dtype=torch.bool)
        bounds = shelf.entropy_bounds(steps)
        assert agree.max() <= bounds["largest"] + 1e-12
        assert shelf.relative_entropy(agree.unsqueeze(1), everything).min() >= bounds["common"] - 1e-12
        assert (
            shelf.relative_entropy((1 - agree).softmax(-1).unsqueeze(1), everything).min() >= bounds["specific"] - 1e-12
        )

    def test_some_row_of_the_common_part_reaches_it(self):
        everything = torch.ones(1, 20, dtype=torch.bool)
        found = []
        for high in range(1, 20):
            row = torch.where(torch.arange(20) < high, 1.0, -1.0).double().softmax(0)
            found.append(float(shelf.relative_entropy(row[None, None], everything)))
        assert min(found) == pytest.approx(shelf.entropy_bounds(20)["common"], abs=1e-12)

    def test_known_values(self):
        bounds = shelf.entropy_bounds(20)
        assert bounds["largest"] == pytest.approx(math.e / (math.e + 19 / math.e))
        assert bounds["specific"] > 0.996
        assert shelf.entropy_bounds(20, "corrected")["specific"] < 1e-5

    def test_one_position_is_refused(self):
        with pytest.raises(ConfigError, match="two or more"):
            shelf.entropy_bounds(1)


def test_toy_comparison_gives_the_known_table():
    table = shelf.toy_comparison()
    assert table["own_position"].round(3).tolist() == [0.119, 0.047, 0.020, 0.998, 0.000]
    assert table["entropy"].tolist() == pytest.approx([0.993, 1.000, 0.997, 0.450, 0.892], abs=0.003)


def test_planted_meanings_share_the_first_positions_only():
    z, valid = shelf.planted_meanings(samples=8, steps=6, meanings=2, width=64, noise=0.0)
    assert torch.equal(z["text"][:, :2], z["audio"][:, :2])
    assert not torch.equal(z["text"][:, 2:], z["audio"][:, 2:])
    assert valid["text"].all()


def test_rewards_of_emotions_depend_on_their_own_sample_or_on_a_quarter_of_the_row():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, 2, generator=generator)
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]] * 4)
    task = emotions(["a", "b", "c", "d"])
    corrected = shelf.reward_dependence(logits, labels, task, "corrected")
    assert torch.equal(corrected > 0, torch.eye(8, dtype=torch.bool))
    wrong = shelf.reward_dependence(logits, torch.zeros_like(labels), task, "reference")
    assert {tuple(pair) for pair in (wrong > 1e-9).nonzero().tolist()} == {(i, i // 4) for i in range(8)}


def test_rewards_of_sentiment_have_the_slope_of_their_form():
    found = shelf.reward_dependence(torch.tensor([0.5, -1.0]), torch.tensor([1.0, -3.0]), regression(), "corrected")
    torch.testing.assert_close(found, torch.eye(2) / 6)


def test_states_of_the_reference_are_gated_by_another_sample(train):
    method = built(train, decoupling="reference")
    table = shelf.training_states(method, train, 8)
    assert len(table) == 3 * 32  # the first of five batches has none before it
    assert (table["id"] != table["carried_from"]).all()
    inside = table["norm_training"] / table["norm_evaluation"]
    assert ((table["carried"] > 0) & (table["carried"] < 1)).all()
    # The reference's states hardly vary inside a sequence, so a mean gate is a mean factor.
    assert (inside - table["carried"]).abs().max() < 0.01
    assert (table["gate_training"] - table["gate_evaluation"]).abs().max() > 1e-3


def test_states_of_the_reference_are_those_of_training(train):
    """The second training step reads exactly the state that the table describes."""
    method = built(train, decoupling="reference")
    first, second, *_ = train.batches(8, shuffle=True, generator=torch.Generator().manual_seed(5))
    seen = {}
    method.policy.gates.score["text"].register_forward_pre_hook(lambda _, inputs: seen.update(state=inputs[0]))
    method.eval()
    with torch.no_grad():
        views = method.decouple(first)
        method.carried = {f"action/{m}": a for m, a in method.policy.gates(views.specific).items()}
        views = method.decouple(second)
        method.act(views, method.state(views))
    norms = seen["state"].norm(dim=-1)
    words = second.valid["text"]
    expected = [float(row[: int(n)].mean()) for row, n in zip(norms, words.sum(1), strict=True)]
    table = shelf.training_states(method, train, 8, seed=5).query("modality == 'text'")[:8]
    assert table["norm_training"].tolist() == pytest.approx(expected, rel=1e-5)


def test_states_of_the_correction_are_the_same_in_training_and_evaluation(train):
    table = shelf.training_states(built(train), train, 8)
    assert (table["norm_training"] == table["norm_evaluation"]).all()
    assert (table["gate_training"] == table["gate_evaluation"]).all()
    assert set(table["carried_from"]) == {""}


@pytest.mark.parametrize("switches", [{"rl": "reference"}, {"decoupling": "reference", "longest": 4}])
def test_sequences_of_other_lengths_are_fitted(train, switches):
    table = shelf.training_states(built(train, **switches), train, 8)
    assert (table["carried_from"] != "").all()
    assert table.drop(columns=["id", "modality", "carried_from"]).notna().all(axis=None)


class TestCritic:
    def test_numbers_of_a_known_critic(self, train):
        method = built(train).eval()
        with torch.no_grad():
            error = (method(train.data).prediction - train.labels).abs() / 6
        rewards = (1 - error).clamp(0, 1).double()
        values = torch.linspace(0, 1, len(train))
        opened = []

        def known(state, action, valid):
            opened.append(all(bool((a == 1).all()) for a in action.values()))
            return (values - 0.25 * opened[-1]).unsqueeze(1)

        method.policy.critic.forward = known
        skill = shelf.critic_skill(method, train)
        assert opened == [False, True]
        assert skill["error"] == pytest.approx(float((values - rewards).abs().mean()), abs=1e-6)
        median = rewards.sort().values[(len(rewards) - 1) // 2]
        assert skill["constant"] == pytest.approx(float((rewards - median).abs().mean()), abs=1e-6)
        assert skill["skill"] == pytest.approx(1 - skill["error"] / skill["constant"])
        squares = [float(((guess - rewards) ** 2).sum()) for guess in (values, rewards.mean())]
        assert skill["r2"] == pytest.approx(1 - squares[0] / squares[1], abs=1e-4)
        centred = (values.double() - values.mean()) @ (rewards - rewards.mean())
        expected = centred / (values.double().std() * rewards.std() * (len(rewards) - 1))
        assert skill["correlation"] == pytest.approx(float(expected), abs=1e-5)
        assert skill["gain"] == pytest.approx(0.25, abs=1e-6)

    @pytest.mark.parametrize("switches", [{"no_rl": True}, {"no_policy": True}, {"reward": "per_modality"}])
    def test_without_a_joint_critic_it_is_refused(self, train, switches):
        with pytest.raises(ConfigError, match="no critic"):
            shelf.critic_skill(built(train, **switches), train)


def test_what_cannot_be_shown_is_refused(train):
    with pytest.raises(ConfigError, match="no gates"):
        shelf.training_states(built(train, no_policy=True), train, 8)
    with pytest.raises(ConfigError, match="two batches"):
        shelf.training_states(built(train), train, 30)
