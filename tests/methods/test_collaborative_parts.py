"""The parts of collaborative_mmcl that have no weights: decoupling, reward and replay buffer, against plain loops."""

import math

import pytest
import torch

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.collaborative_mmcl import ReplayBuffer, decouple, joint_reward, masked_softmax

LENGTHS = (5, 3, 1)
VARIANTS = pytest.mark.parametrize("variant", ["corrected", "reference"])


@pytest.fixture
def z():
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for m in ("text", "audio", "vision")}


@pytest.fixture
def valid():
    return torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)


def softmax(scores, kept):
    """Softmax over the positions in ``kept``, 0 elsewhere, with plain floats."""
    total = sum(math.exp(scores[j]) for j in kept)
    return [math.exp(x) / total if j in kept else 0.0 for j, x in enumerate(scores)]


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def normalised(x):
    return (x - x.mean()) / x.std(unbiased=False)


def mean(values):
    return sum(values) / len(values)


def slow_weights(z, lengths, variant="corrected", temperature=0.1, join=min, prepare=lambda x: x):
    """Weights, position by position."""
    steps = next(iter(z.values())).shape[1]
    weights = {f"{m}/{part}": torch.zeros(3, steps, steps).double() for m in z for part in ("common", "specific")}
    for b, length in enumerate(lengths):
        kept = range(steps) if variant == "reference" else range(length)
        for m in z:
            for i in range(steps):
                own = prepare(z[m][b, i])
                c = [join([cosine(own, prepare(z[n][b, j])) for n in z if n != m]) for j in range(steps)]
                if variant == "reference":
                    agree = softmax(c, kept)
                    differ = softmax([1 - s for s in agree], kept)
                else:
                    agree = softmax([x / temperature for x in c], kept)
                    differ = softmax([(1 - x) / temperature for x in c], kept)
                weights[f"{m}/common"][b, i] = torch.tensor(agree)
                weights[f"{m}/specific"][b, i] = torch.tensor(differ)
    return weights


class TestDecoupling:
    @pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("text", "vision")])
    @pytest.mark.parametrize(
        ("options", "slow"),
        [
            ({}, {}),
            ({"variant": "reference"}, {"variant": "reference"}),
            ({"temperature": 0.7}, {"temperature": 0.7}),
            ({"comparison": "mean"}, {"join": mean}),
            ({"align": "ln"}, {"prepare": normalised}),
            ({"variant": "reference", "align": "ln"}, {"variant": "reference", "prepare": normalised}),
        ],
    )
    def test_it_agrees_with_loops(self, z, valid, modalities, options, slow):
        moved = {m: z[m] + 3 * (options.get("align") == "ln") for m in modalities}
        common, specific, weights = decouple(moved, valid, **options)
        expected = slow_weights(moved, LENGTHS, **slow)
        assert set(weights) == set(expected)
        for name, matrix in expected.items():
            m, part = name.split("/")
            torch.testing.assert_close(weights[name], matrix, atol=1e-6, rtol=1e-5)
            # Rows are prepared before the cosine only: what is mixed are the rows as they came.
            found = {"common": common, "specific": specific}[part][m]
            torch.testing.assert_close(found, matrix @ moved[m], atol=1e-5, rtol=1e-5)

    def test_centring_takes_the_mean_over_valid_rows_of_the_batch(self, z, valid):
        shifted = {m: x + 3 for m, x in z.items()}
        expected = slow_weights({m: x - x[valid].mean(0) for m, x in shifted.items()}, LENGTHS)
        for name, matrix in decouple(shifted, valid, align="center")[2].items():
            torch.testing.assert_close(matrix, expected[name], atol=1e-6, rtol=1e-5)

    def test_padding_has_weight_zero_and_its_content_does_not_matter(self, z, valid):
        common, specific, weights = decouple(z, valid)
        for matrix in weights.values():
            assert (matrix[~valid.unsqueeze(1).expand_as(matrix)] == 0).all()
            torch.testing.assert_close(matrix.sum(-1), torch.ones(3, 5, dtype=torch.float64))
        again = decouple({m: x.masked_fill(~valid.unsqueeze(-1), 7.0) for m, x in z.items()}, dict.fromkeys(z, valid))
        for m in z:
            torch.testing.assert_close(again[0][m][valid], common[m][valid])
            torch.testing.assert_close(again[1][m][valid], specific[m][valid])

    def test_samples_and_frames_of_nothing_have_finite_gradients(self, z, valid):
        for factor, mask, align in ((1, torch.zeros_like(valid), "none"), (0, valid, "ln")):
            leaves = {m: (factor * x).requires_grad_() for m, x in z.items()}
            common, specific, weights = decouple(leaves, mask, align=align)
            assert factor == 0 or all((w == 0).all() for w in weights.values())
            sum(x.sum() for x in (*common.values(), *specific.values())).backward()
            assert all(x.grad.isfinite().all() for x in leaves.values())

    def test_no_reference_weight_exceeds_its_bound(self):
        """One position agrees fully, all others disagree fully: softmax of 1 against 19 times -1."""
        direction = torch.zeros(1, 20, 2)
        direction[..., 0] = -1
        direction[0, 0, 0] = 1
        z = {"text": direction[:, :1].expand(1, 20, 2), "audio": direction}
        weights = decouple(z, torch.ones(1, 20, dtype=bool), variant="reference")[2]["text/common"]
        assert weights.max().item() == pytest.approx(0.2800, abs=5e-5)

    def test_masked_softmax_of_everything_is_softmax(self):
        scores = torch.randn(2, 3, 4)
        torch.testing.assert_close(masked_softmax(scores, torch.ones(2, 4, dtype=torch.bool)), scores.softmax(-1))


def test_the_reference_cannot_select_and_the_correction_can():
    """64 samples of 20 positions; the first 10 carry a meaning that all modalities share."""
    generator = torch.Generator().manual_seed(0)
    meaning, z = torch.randn(64, 10, 128, generator=generator), {}
    for m in ("text", "audio", "vision"):
        z[m] = torch.randn(64, 20, 128, generator=generator)
        z[m][:, :10] = meaning + 0.3 * torch.randn(meaning.shape, generator=generator)
    valid = torch.ones(64, 20, dtype=torch.bool)
    reference, corrected = decouple(z, valid, variant="reference")[2], decouple(z, valid)[2]

    def entropy(weights):
        """Mean entropy of the rows relative to its largest value, log T."""
        return float(-(weights * weights.clamp_min(1e-12).log()).sum(-1).mean() / math.log(20))

    def own_position(weights):
        return float(torch.diagonal(weights, dim1=1, dim2=2)[:, :10].mean())

    assert entropy(reference["text/specific"]) > 0.9999
    assert entropy(reference["text/common"]) > 0.98
    assert entropy(corrected["text/specific"]) < 0.98
    assert own_position(reference["text/common"]) == pytest.approx(0.119, abs=0.01)
    assert own_position(corrected["text/common"]) == pytest.approx(0.998, abs=0.003)
    assert own_position(corrected["text/specific"]) < 0.001


class TestUnaligned:
    def test_composition_agrees_with_loops(self, z):
        """The similarity of two text positions by way of each other modality, position by position."""
        lengths = {"text": 5, "audio": 3, "vision": 4}
        valid = {m: (torch.arange(5) < n).expand(3, 5) for m, n in lengths.items()}
        found = decouple(z, valid, unaligned="compose", temperature=0.5)[2]["text/common"]
        by_other = []
        for n in ("audio", "vision"):
            c = [[cosine(z["text"][0, i], z[n][0, j]) / 0.5 for j in range(lengths[n])] for i in range(5)]
            there = [softmax(row, range(lengths[n])) for row in c]
            back = [softmax([c[i][j] for i in range(5)], range(5)) for j in range(lengths[n])]
            by_other.append(torch.tensor(there) @ torch.tensor(back))
        similarity = torch.stack(by_other).amin(0)
        expected = torch.tensor([softmax([x / 0.5 for x in row], range(5)) for row in similarity.tolist()])
        torch.testing.assert_close(found[0], expected.double(), atol=1e-6, rtol=1e-5)

    def test_other_lengths_are_refused_or_composed(self, z):
        other = {**z, "audio": z["audio"][:, :3]}
        valid = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in other.items()}
        with pytest.raises(ConfigError, match=r"text and audio are not word-aligned \(row 0 has 5 and 3"):
            decouple(other, valid)
        common, _, weights = decouple(other, valid, unaligned="compose")
        assert common["audio"].shape == (3, 3, 4)
        assert weights["text/common"].shape == (3, 5, 5)

    def test_other_masks_are_refused(self, z, valid):
        with pytest.raises(ConfigError, match=r"not word-aligned \(row 1 has 3 and 5"):
            decouple(z, {"text": valid, "audio": torch.ones_like(valid), "vision": valid})


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (lambda z, v: ({"text": z["text"]}, v), {}, "only text"),
        (lambda z, v: (z, v), {"temperature": 0.0}, "temperature"),
        (lambda z, v: (z, v[:, :4]), {}, "mask"),
        (lambda z, v: (z, v), {"variant": "reference", "unaligned": "compose"}, "compose"),
        (lambda z, v: ({m: x[:, :1] for m, x in z.items()}, v[:, :1]), {}, "one position per sample"),
        (lambda z, v: ({m: x[:, :1] for m, x in z.items()}, v[:, :1]), {"variant": "reference"}, "one position"),
    ],
)
def test_what_cannot_be_decoupled_is_refused(z, valid, change, options, reason):
    with pytest.raises(ConfigError, match=reason):
        decouple(*change(z, valid), **options)


class TestReward:
    TASK = emotions(("neutral", "happy", "sad", "angry"))

    @pytest.fixture
    def logits(self):
        return torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    @pytest.fixture
    def labels(self):
        return torch.randint(0, 2, (8, 4), generator=torch.Generator().manual_seed(1)).double()

    @pytest.mark.parametrize(
        ("variant", "meets", "scale"),
        [("corrected", lambda i, k: (i, k), 4), ("reference", lambda i, k: divmod(i, 4), 1)],
    )
    def test_emotions(self, logits, labels, variant, meets, scale):
        """Corrected: the mean probability of the true answers. Reference: row i meets sample i // 4, emotion i % 4."""
        expected = []
        for i in range(8):
            pairs = [logits[meets(i, k)].exp().tolist()[:: 1 if labels[i, k] == 0 else -1] for k in range(4)]
            expected.append(sum(true / (true + false) for true, false in pairs) / scale)
        assert joint_reward(logits, labels, self.TASK, variant=variant).tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(("variant", "touched"), [("corrected", 5), ("reference", 1)])
    def test_which_sample_a_reward_depends_on(self, logits, labels, variant, touched):
        logits.requires_grad_()
        joint_reward(logits, labels, self.TASK, variant=variant)[5].backward()
        assert logits.grad.abs().sum((1, 2)).nonzero().flatten().tolist() == [touched]

    def test_the_reference_reward_says_nothing_about_its_own_sample(self):
        generator = torch.Generator().manual_seed(2)
        correlations = []
        for _ in range(50):
            logits = torch.randn(128, 4, 2, generator=generator)
            labels = torch.randint(0, 2, (128, 4), generator=generator).float()
            both = [joint_reward(logits, labels, self.TASK, variant=v) for v in ("reference", "corrected")]
            correlations.append(torch.corrcoef(torch.stack(both))[0, 1].item())
        assert abs(sum(correlations) / 50) < 0.05

    @VARIANTS
    def test_classes_are_rewarded_by_the_probability_of_the_true_one(self, logits, variant):
        answers = torch.arange(8) % 4
        rewards = joint_reward(logits[..., 0], answers.float(), classes("abcd"), variant=variant)
        expected = [logits[i, a, 0].exp() / logits[i, :, 0].exp().sum() for i, a in enumerate(answers.tolist())]
        assert rewards.tolist() == pytest.approx([float(x) for x in expected])

    @pytest.mark.parametrize("task", [regression(), regression((1, 5))])
    @VARIANTS
    def test_sentiment(self, task, variant):
        labels = torch.tensor([task.range[0], task.center, task.range[1]], dtype=torch.float64)
        prediction = labels + torch.tensor([0.5, 20.0, -1.0])
        width = task.range[1] - task.range[0]
        expected = [1 - 0.5 / width, 0.0, 1 - 1 / width]
        assert joint_reward(prediction, labels, task, variant=variant).tolist() == pytest.approx(expected)
        exponential = joint_reward(prediction, labels, task, variant=variant, form="exponential").tolist()
        assert exponential == pytest.approx([math.exp(-0.5), math.exp(-20), math.exp(-1)])


class TestReplay:
    def numbered(self, first, count):
        return {"state/text": torch.arange(first, first + count).float().unsqueeze(1).expand(-1, 3)}

    def test_it_drops_its_older_half_before_it_is_full(self):
        """The size in the reference code swings between 567 and 992 for batches of 128 and a capacity of 1,000."""
        buffer, expected, sizes = ReplayBuffer(1000), [], []
        for batch in range(200):
            rows = list(range(128 * batch, 128 * (batch + 1)))
            if len(expected) + 128 >= 1000:
                expected = expected[len(expected) // 2 :]
            expected += rows
            buffer.store(self.numbered(rows[0], 128))
            assert buffer.rows["state/text"][:, 0].tolist() == expected
            sizes.append(len(buffer))
        assert (min(sizes[10:]), max(sizes)) == (567, 992)

    def test_samples_are_different_rows_without_a_graph(self):
        buffer, rewards = ReplayBuffer(50), torch.arange(20).double().requires_grad_()
        assert len(buffer) == 0
        buffer.store(self.numbered(0, 20) | {"reward": rewards * 1})
        torch.manual_seed(0)
        sample = buffer.sample(15)
        assert sample["reward"].unique().numel() == 15
        assert torch.equal(sample["state/text"][:, 0], sample["reward"])
        assert sample["reward"].dtype == torch.float32
        assert not sample["reward"].requires_grad
        assert [buffer.can_sample(n) for n in (19, 20)] == [True, False]

    def test_the_last_batch_may_be_all_it_holds(self):
        buffer = ReplayBuffer(5, last_batch=True)
        for first, count in ((0, 30), (50, 8)):
            buffer.store(self.numbered(first, count))
            assert buffer.rows["state/text"][:, 0].tolist() == list(range(first, first + count))
            assert [buffer.can_sample(n) for n in (count, count + 1)] == [True, False]

    def test_a_batch_that_does_not_fit_is_refused(self):
        with pytest.raises(ConfigError, match="replay_capacity above 60"):
            ReplayBuffer(20).store(self.numbered(0, 30))
