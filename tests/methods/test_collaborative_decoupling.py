"""Decoupling against loops over positions, and what its two variants can and can't tell apart."""

import math

import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.collaborative_mmcl import decouple, masked_softmax

LENGTHS = (5, 3, 1)


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


def slowly(z, lengths, variant, temperature=0.1, join=min, prepare=lambda x: x):
    """Weights and parts, position by position."""
    steps = next(iter(z.values())).shape[1]
    weights = {f"{m}/{part}": torch.zeros(len(lengths), steps, steps) for m in z for part in ("common", "specific")}
    for b, length in enumerate(lengths):
        kept = range(steps) if variant == "reference" else range(length)
        for m in z:
            for i in range(steps):
                c = [
                    join([cosine(prepare(z[m][b, i]), prepare(z[n][b, j])) for n in z if n != m]) for j in range(steps)
                ]
                if variant == "reference":
                    agree = softmax(c, kept)
                    differ = softmax([1 - s for s in agree], kept)
                else:
                    agree = softmax([x / temperature for x in c], kept)
                    differ = softmax([(1 - x) / temperature for x in c], kept)
                weights[f"{m}/common"][b, i] = torch.tensor(agree)
                weights[f"{m}/specific"][b, i] = torch.tensor(differ)
    parts = {name: w.double() @ z[name.split("/")[0]] for name, w in weights.items()}
    return weights, parts


def assert_equal(result, expected):
    common, specific, weights = result
    slow_weights, parts = expected
    assert set(weights) == set(slow_weights)
    for name, matrix in slow_weights.items():
        torch.testing.assert_close(weights[name], matrix.double(), atol=1e-6, rtol=1e-5)
    for m in common:
        torch.testing.assert_close(common[m], parts[f"{m}/common"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(specific[m], parts[f"{m}/specific"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["corrected", "reference"])
@pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("text", "vision")])
def test_agrees_with_loops(z, valid, variant, modalities):
    chosen = {m: z[m] for m in modalities}
    assert_equal(decouple(chosen, valid, variant=variant), slowly(chosen, LENGTHS, variant))


def test_temperature(z, valid):
    assert_equal(decouple(z, valid, temperature=0.7), slowly(z, LENGTHS, "corrected", temperature=0.7))


def test_mean_of_the_similarities(z, valid):
    expected = slowly(z, LENGTHS, "corrected", join=lambda values: sum(values) / len(values))
    assert_equal(decouple(z, valid, comparison="mean"), expected)
    assert not torch.allclose(decouple(z, valid)[0]["text"], decouple(z, valid, comparison="mean")[0]["text"])


def test_rows_are_normalised_before_the_cosine_only(z, valid):
    shifted = {m: x + 3 for m, x in z.items()}
    by_row = slowly(shifted, LENGTHS, "corrected", prepare=lambda x: (x - x.mean()) / x.std(unbiased=False))
    assert_equal(decouple(shifted, valid, align="ln"), by_row)


def test_centring_takes_the_mean_over_valid_rows_of_the_batch(z, valid):
    shifted = {m: x + 3 for m, x in z.items()}
    centred = {m: x - x[valid].mean(0) for m, x in shifted.items()}
    weights, _ = slowly(centred, LENGTHS, "corrected")
    found = decouple(shifted, valid, align="center")[2]
    for name, matrix in weights.items():
        torch.testing.assert_close(found[name], matrix.double(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_rows_sum_to_one(z, valid, variant):
    for matrix in decouple(z, valid, variant=variant)[2].values():
        torch.testing.assert_close(matrix.sum(-1), torch.ones(3, 5, dtype=torch.float64))


def test_padding_has_weight_zero_and_its_content_does_not_matter(z, valid):
    common, specific, weights = decouple(z, valid)
    for matrix in weights.values():
        assert (matrix[~valid.unsqueeze(1).expand_as(matrix)] == 0).all()
    garbage = {m: x.masked_fill(~valid.unsqueeze(-1), 7.0) for m, x in z.items()}
    again = decouple(garbage, valid)
    for m in z:
        torch.testing.assert_close(again[0][m][valid], common[m][valid])
        torch.testing.assert_close(again[1][m][valid], specific[m][valid])


def test_a_mask_per_modality_is_the_same_as_one_for_all(z, valid):
    one, many = decouple(z, valid), decouple(z, dict.fromkeys(z, valid))
    assert all(torch.equal(one[0][m], many[0][m]) for m in z)


def test_a_sample_without_a_valid_position_stays_finite(z):
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    leaves = {m: x.clone().requires_grad_() for m, x in z.items()}
    common, _, weights = decouple(leaves, nothing)
    assert all((w == 0).all() for w in weights.values())
    sum(x.sum() for x in common.values()).backward()
    assert all(x.grad.isfinite().all() for x in leaves.values())


def test_zero_frames_have_a_finite_gradient(z, valid):
    leaves = {m: (x * 0).requires_grad_() for m, x in z.items()}
    common, specific, _ = decouple(leaves, valid, align="ln")
    (common["text"] + specific["audio"]).sum().backward()
    assert all(x.grad.isfinite().all() for x in leaves.values() if x.grad is not None)


def shared_meaning(samples=64, steps=20, meanings=10, width=128, noise=0.3):
    """Positions whose first half carries a meaning that all modalities share; the rest is each modality's own."""
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(samples, meanings, width, generator=generator)
    z = {}
    for m in ("text", "audio", "vision"):
        z[m] = torch.randn(samples, steps, width, generator=generator)
        z[m][:, :meanings] = meaning + noise * torch.randn(meaning.shape, generator=generator)
    return z, torch.ones(samples, steps, dtype=torch.bool)


def entropy(weights, steps=20):
    """Mean entropy of the rows relative to its largest value, log T."""
    return float(-(weights * weights.clamp_min(1e-12).log()).sum(-1).mean() / math.log(steps))


def own_position(weights, meanings=10):
    return float(torch.diagonal(weights, dim1=1, dim2=2)[:, :meanings].mean())


def test_the_reference_cannot_select_and_the_correction_can():
    z, valid = shared_meaning()
    reference = decouple(z, valid, variant="reference")[2]
    corrected = decouple(z, valid)[2]
    assert entropy(reference["text/specific"]) > 0.9999
    assert entropy(reference["text/common"]) > 0.98
    assert entropy(corrected["text/specific"]) < 0.98
    assert own_position(reference["text/common"]) == pytest.approx(0.119, abs=0.01)
    assert own_position(corrected["text/common"]) == pytest.approx(0.998, abs=0.003)
    assert own_position(corrected["text/specific"]) < 0.001


def test_no_reference_weight_exceeds_its_bound():
    """One position agrees fully, all others disagree fully: softmax of 1 against 19 times -1."""
    direction = torch.zeros(1, 20, 2)
    direction[..., 0] = -1
    direction[0, 0, 0] = 1
    weights = decouple({"text": direction[:, :1].expand(1, 20, 2), "audio": direction}, torch.ones(1, 20, dtype=bool),
                       variant="reference")[2]["text/common"]  # fmt: skip
    assert weights.max().item() == pytest.approx(0.2800, abs=5e-5)


class TestUnaligned:
    def composed(self, z, lengths, temperature):
        """The similarity of two text positions by way of each other modality, position by position."""
        b = 0
        steps = lengths["text"]
        by_other = []
        for n in ("audio", "vision"):
            c = [[cosine(z["text"][b, i], z[n][b, j]) / temperature for j in range(lengths[n])] for i in range(steps)]
            there = [softmax(row, range(lengths[n])) for row in c]
            back = [softmax([c[i][j] for i in range(steps)], range(steps)) for j in range(lengths[n])]
            by_other.append(torch.tensor(there) @ torch.tensor(back))
        return torch.stack(by_other).amin(0)

    def test_composition_agrees_with_loops(self, z):
        lengths = {"text": 5, "audio": 3, "vision": 4}
        valid = {m: (torch.arange(5) < n).expand(3, 5) for m, n in lengths.items()}
        weights = decouple(z, valid, unaligned="compose", temperature=0.5)[2]["text/common"]
        similarity = self.composed(z, lengths, 0.5)
        expected = torch.tensor([softmax([x / 0.5 for x in row], range(5)) for row in similarity.tolist()])
        torch.testing.assert_close(weights[0], expected.double(), atol=1e-6, rtol=1e-5)

    def test_other_lengths_are_refused_or_composed(self, z):
        other = {**z, "audio": z["audio"][:, :3]}
        valid = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in other.items()}
        with pytest.raises(ConfigError, match=r"text and audio are not word-aligned \(row 0 has 5 and 3"):
            decouple(other, valid)
        common, _, weights = decouple(other, valid, unaligned="compose")
        assert common["audio"].shape == (3, 3, 4)
        assert weights["text/common"].shape == (3, 5, 5)

    def test_other_masks_are_refused(self, z, valid):
        with pytest.raises(ConfigError, match="not word-aligned"):
            decouple(z, {"text": valid, "audio": torch.ones_like(valid), "vision": valid})

    def test_the_reference_has_no_composition(self, z, valid):
        with pytest.raises(ConfigError, match="compose"):
            decouple(z, valid, variant="reference", unaligned="compose")


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_one_position_is_refused(variant):
    z = {m: torch.randn(2, 1, 4) for m in ("text", "audio")}
    with pytest.raises(ConfigError, match="one position per sample"):
        decouple(z, torch.ones(2, 1, dtype=torch.bool), variant=variant)


def test_bad_input_is_refused(z, valid):
    with pytest.raises(ConfigError, match="only text"):
        decouple({"text": z["text"]}, valid)
    with pytest.raises(ConfigError, match="temperature"):
        decouple(z, valid, temperature=0.0)
    with pytest.raises(ConfigError, match="mask"):
        decouple(z, valid[:, :4])


def test_masked_softmax_of_everything_is_softmax():
    scores = torch.randn(2, 3, 4)
    torch.testing.assert_close(masked_softmax(scores, torch.ones(2, 4, dtype=torch.bool)), scores.softmax(-1))
