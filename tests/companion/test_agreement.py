"""Agreement of two representations: CKA against a double loop, values of known cases, traces through a history."""

import math

import pandas as pd
import pytest
import torch

from companion.hrlf import agreement, agreement_trace, flat, linear_cka, scale_agreement
from mmsa_lib.data import load
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.methods import create

SMALL = {"width": 8, "heads": 2, "feedforward": 16, "qu_dim": 4, "critic_hidden": 8}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cka(x, y):
    """Correlation of the centred Gram matrices, entry by entry."""
    grams = []
    for z in (x, y):
        n = len(z)
        gram = [
            [sum(a * b for a, b in zip(z[i].tolist(), z[j].tolist(), strict=True)) for j in range(n)] for i in range(n)
        ]
        rows = [sum(line) / n for line in gram]
        whole = sum(rows) / n
        grams.append([[gram[i][j] - rows[i] - rows[j] + whole for j in range(n)] for i in range(n)])
    k, other = grams
    n = len(k)

    def inner(p, q):
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n))

    return inner(k, other) / math.sqrt(inner(k, k) * inner(other, other))


def test_cka_against_gram_matrices():
    x, y = normal(7, 3), normal(7, 4, seed=1)
    assert linear_cka(x, y) == pytest.approx(slow_cka(x, y), rel=1e-9)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-9)


def test_cka_sees_no_rotation_scale_or_shift_but_chance():
    x = normal(50, 4)
    turned = 3 * x @ torch.linalg.qr(normal(4, 4, seed=2))[0] + 5
    assert linear_cka(x, turned) == pytest.approx(1, abs=1e-9)
    stretched = x * torch.tensor([10.0, 1, 1, 1])
    assert linear_cka(x, stretched) < 0.9
    assert 0 < linear_cka(x, normal(50, 4, seed=3)) < 0.3


def test_cka_of_a_constant_and_of_other_shapes():
    assert math.isnan(linear_cka(normal(5, 2), torch.ones(5, 3)))
    for x, y in ((normal(5, 2), normal(4, 2)), (normal(5), normal(5)), (normal(1, 2), normal(1, 2))):
        with pytest.raises(DataError, match="CKA compares"):
            linear_cka(x, y)


def test_agreement_of_known_cases():
    t = normal(40, 3)
    same = agreement(t, t)
    assert (same["cka"], same["cosine"], same["distance"]) == pytest.approx((1, 1, 0))
    assert same["cka_shuffled"] < 0.3
    constant = agreement(t, t.mean(0).expand_as(t) + 1e-9 * normal(40, 3, seed=1))
    assert constant["distance"] == pytest.approx(1, abs=1e-6)
    assert agreement(t, -t)["cosine"] == pytest.approx(-1, abs=1e-2)
    assert agreement(t, -t)["cka"] == pytest.approx(1)


def test_agreement_row_by_row():
    t, s = normal(6, 3), normal(6, 3, seed=1)
    middle, other = t.mean(0).tolist(), s.mean(0).tolist()
    cosines, far, spread = [], [], []
    for x, y in zip(t.tolist(), s.tolist(), strict=True):
        u, v = [a - m for a, m in zip(x, middle, strict=True)], [a - m for a, m in zip(y, other, strict=True)]
        cosines.append(sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v))
        far.append(math.dist(x, y))
        spread.append(math.hypot(*u))
    found = agreement(t, s)
    assert found["cosine"] == pytest.approx(sum(cosines) / 6)
    assert found["distance"] == pytest.approx(sum(far) / sum(spread))


@pytest.fixture(scope="module")
def valid():
    return load("synthetic", samples=(8, 24, 8), dims=(12, 8, 8), length=6)["valid"]


@pytest.fixture
def method(valid):
    torch.manual_seed(0)
    return create("hrlf", valid.dims, valid.task, **SMALL)


def test_scales_are_compared_sample_by_sample(method, valid):
    inputs = {"complete": valid, "incomplete": stochastic_validation(valid)}
    found = scale_agreement(method, valid, inputs)
    assert found[["input", "scale"]].to_numpy().tolist() == [[name, i] for name in inputs for i in (1, 2, 3)]
    method.eval()
    with torch.no_grad():
        for row in found.itertuples():
            t = method.teacher(valid.data).scales("concat")[row.scale - 1]
            s = method.student(inputs[row.input].data).scales("concat")[row.scale - 1]
            assert row.cka == pytest.approx(linear_cka(t, s), rel=1e-4)
            assert row.distance == pytest.approx(agreement(t, s)["distance"], rel=1e-4)


def test_a_copy_of_the_teacher_agrees_until_input_is_missing(method, valid):
    method.student.load_state_dict(method.teacher.state_dict())
    found = scale_agreement(method, valid, {"complete": valid, "incomplete": stochastic_validation(valid)})
    by = found.groupby("input")[["cka", "distance"]].mean()
    assert by.loc["complete"].tolist() == pytest.approx([1, 0], abs=1e-5)
    assert by.loc["incomplete", "distance"] > 0.1


def test_a_trace_through_a_history(method, valid):
    table = scale_agreement(method, valid, {"complete": valid})
    rows = [{"phase": "student", "epoch": 4, "split": "oracle", "name": k, "value": v} for k, v in flat(table).items()]
    rows += [{"phase": "student", "epoch": 4, "split": "train", "name": "z_sd/text", "value": 0.5}]
    found = agreement_trace(pd.DataFrame(rows), ["cka"])
    assert found.columns.tolist() == ["epoch", "input", "scale", "measure", "value"]
    assert found["value"].tolist() == table["cka"].tolist()
    assert found["scale"].tolist() == [1, 2, 3]


def test_no_teacher_and_other_samples(valid):
    torch.manual_seed(0)
    alone = create("hrlf", valid.dims, valid.task, no_teacher=True, **SMALL)
    with pytest.raises(ConfigError, match="no_teacher=True"):
        scale_agreement(alone, valid, {})
    method = create("hrlf", valid.dims, valid.task, **SMALL)
    with pytest.raises(DataError, match="'few' holds other samples"):
        scale_agreement(method, valid, {"few": valid.select(torch.arange(5))})
