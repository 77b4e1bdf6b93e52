"""Gradient norms by hand; cosines of pairs, retrieval and principal components against plain loops."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from companion.__main__ import main
from companion.contrastive import (
    category_gap,
    gradient_norms,
    pair_cosines,
    principal_components,
    retrieval,
    separation,
)
from mmsa_lib.data import load
from mmsa_lib.data.batch import Batch
from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.runs import run
from mmsa_lib.methods import create
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.training import represent

LITERAL = {
    "decoupled_cmc": False, "temperature_cmc": 0.1, "lambda_cmc": 0.1, "normalise_factors": True,
    "contrasted": "capsules",
}  # fmt: skip


class TwoStages(Method):
    """``above`` sees ``below`` with a stopped gradient; ``unused`` is reached by nothing."""

    id = "two_stages"

    def __init__(self, frozen=False):
        super().__init__({"text": 2}, regression(), MethodConfig())
        self.parts = nn.ModuleDict({"below": nn.Linear(2, 1, bias=False), "above": nn.Linear(1, 1, bias=False)})
        self.unused = nn.Linear(3, 1)
        self.quiet = nn.ReLU()
        if frozen:
            self.parts["below"].requires_grad_(False)

    def forward(self, batch):
        low = self.parts["below"](batch.features["text"][:, 0])
        high = self.parts["above"](low.detach())
        return Output(high.squeeze(-1), auxiliary={"low": low})

    def losses(self, batch, output):
        assert self.training
        low = output.auxiliary["low"].sum()
        return {"task": output.prediction.sum(), "low": 0.5 * low, "constant": torch.tensor(1.0)}


@pytest.fixture
def batch():
    features = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    here = torch.ones(2, 1, dtype=torch.bool)
    return Batch({"text": features}, {"text": here}, {"text": here}, torch.zeros(2), torch.arange(2), ("a", "b"))


def table(method, batch, parts):
    return gradient_norms(method, batch, parts).set_index(["term", "part"])["norm"]


def test_norms_by_hand(batch):
    method = TwoStages()
    norms = table(method, batch, parts=["parts.below", "parts.above", "parts", "unused"])
    low = method.parts["below"](batch.features["text"][:, 0]).sum().item()
    assert norms["task", "parts.above"] == pytest.approx(abs(low))
    assert math.isnan(norms["task", "parts.below"])
    # d(0.5 sum_i w . x_i) / dw = 0.5 * (1 + 3, 2 + 4)
    assert norms["low", "parts.below"] == pytest.approx(0.5 * math.hypot(4, 6))
    assert math.isnan(norms["low", "parts.above"])
    assert norms["low", "parts"] == norms["low", "parts.below"]
    assert norms["constant"].isna().all()
    assert math.isnan(norms["task", "unused"])


def test_a_frozen_part_is_not_reached(batch):
    assert math.isnan(table(TwoStages(frozen=True), batch, parts=["parts.below"])["low", "parts.below"])


def test_nothing_is_changed(batch):
    method = TwoStages().eval()
    method.unused.weight.grad = torch.ones(1, 3)
    gradient_norms(method, batch, ["parts", "unused"])
    assert not method.training
    assert method.parts["below"].weight.grad is None
    assert torch.equal(method.unused.weight.grad, torch.ones(1, 3))


@pytest.mark.parametrize("part", ["part", "parts.belo", "quiet"])
def test_a_part_without_parameters_is_refused(batch, part):
    with pytest.raises(ConfigError, match=f"no parameter below '{part}'; its parts are parts, unused"):
        gradient_norms(TwoStages(), batch, parts=[part])


def unit_rows(*shape, seed=0):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def test_pair_cosines_by_loops():
    z, categories = unit_rows(24, 4), torch.arange(24) % 3
    same, different = [], []
    for i in range(24):
        for j in range(24):
            if i != j:
                cosine = sum(float(a) * float(b) for a, b in zip(z[i], z[j], strict=True))
                (same if categories[i] == categories[j] else different).append(cosine)
    found = pair_cosines(z, categories)
    assert found["positive"] == pytest.approx(sum(same) / len(same), abs=1e-6)
    assert found["negative"] == pytest.approx(sum(different) / len(different), abs=1e-6)
    hardest = sorted(same)[: round(0.05 * len(same))]
    assert found["hard_positive"] == pytest.approx(sum(hardest) / len(hardest), abs=1e-6)


def test_pair_cosines_need_both_kinds_of_pairs():
    for categories in (torch.zeros(4), torch.arange(4)):
        with pytest.raises(DataError, match="one category and one of another"):
            pair_cosines(unit_rows(4, 3), categories)


def test_retrieval_by_loops():
    text, audio = unit_rows(9, 3), unit_rows(9, 3, seed=1)
    audio[:4] = text[:4]
    table = retrieval({"text": text, "audio": audio}).set_index(["anchor", "target"])
    assert list(table.index) == [("text", "audio"), ("audio", "text")]
    hits, same, other = 0, [], []
    for i in range(9):
        cosines = [float(text[i].double() @ audio[j].double()) for j in range(9)]
        hits += all(cosines[i] > c for j, c in enumerate(cosines) if j != i)
        same.append(cosines[i])
        other += [c for j, c in enumerate(cosines) if j != i]
    row = table.loc[("text", "audio")]
    assert row["top1"] == pytest.approx(hits / 9)
    assert row["top1"] >= 4 / 9
    assert row["same"] == pytest.approx(np.mean(same))
    assert row["other"] == pytest.approx(np.mean(other))
    assert row["chance"] == pytest.approx(1 / 9)


def test_a_collapsed_space_retrieves_nothing():
    rows = torch.ones(5, 4) / 2
    assert (retrieval({"text": rows, "audio": rows})["top1"] == 0).all()


def test_retrieval_leaves_out_absent_modalities():
    rows = unit_rows(5, 4)
    present = {"text": torch.ones(5, dtype=torch.bool), "audio": torch.tensor([True, True, True, False, False])}
    table = retrieval({"text": rows, "audio": rows}, present)
    assert set(table["samples"]) == {3}
    assert (table["top1"] == 1).all()
    present["audio"] = torch.arange(5) < 1
    with pytest.raises(DataError, match="text and audio have 1 samples in common"):
        retrieval({"text": rows, "audio": rows}, present)


def test_principal_components_are_the_eigenvectors_of_the_covariance():
    x = np.random.default_rng(0).standard_normal((50, 4)) * [5, 3, 1, 0.5]
    coordinates, shares = principal_components(torch.from_numpy(x))
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    for column in range(2):
        direction = vectors[:, -1 - column]
        direction = direction if direction[np.abs(direction).argmax()] > 0 else -direction
        np.testing.assert_allclose(coordinates[:, column], (x - x.mean(0)) @ direction, atol=1e-9)
        assert shares[column] == pytest.approx(values[-1 - column] / values.sum())


def test_principal_components_of_one_point_and_of_too_few_columns():
    coordinates, shares = principal_components(np.ones((6, 3)))
    assert not coordinates.any()
    assert not shares.any()
    assert math.isfinite(coordinates.sum())
    with pytest.raises(ConfigError, match="2 principal components"):
        principal_components(np.ones((6, 1)))


@pytest.mark.parametrize("config", [{}, {"contrasted": "capsules"}, {"single_stage": True}], ids=str)
def test_separation_pair_by_pair(config):
    """Over samples that have the modality and a label."""
    torch.manual_seed(0)
    data = load("synthetic", samples=[12, 4, 4], dims=[10, 9, 8], length=5)["train"]
    labelled = torch.arange(12) != 2
    hidden = replace(data, data=replace(data.data, labelled=labelled))
    found = represent(create("contrastive_mmcl", data.dims, data.task, width=8, heads=2, **config), data)
    table = separation(found, hidden).set_index(["stage", "modality"])["gap"]
    assert sorted(table.index) == sorted((stage, m) for stage in ("specific", "shared") for m in data.modalities)
    for (stage, m), gap in table.items():
        x = found[f"{m}/{stage}"].double()
        rows = [i for i in range(12) if labelled[i] and data.data.observed[m][i].any()]
        sums = {True: [], False: []}
        for i in rows:
            for j in rows:
                if i != j:
                    cosine = float(x[i] @ x[j] / x[i].norm() / x[j].norm())
                    sums[bool(data.labels[i].sign() == data.labels[j].sign())].append(cosine)
        assert gap == pytest.approx(np.mean(sums[True]) - np.mean(sums[False]), abs=1e-9)


@pytest.mark.parametrize("categories", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_a_gap_needs_both_kinds_of_pairs(categories):
    with pytest.raises(DataError, match="two samples of one category"):
        category_gap(unit_rows(4, 3), torch.tensor(categories))


def test_the_tables_are_measured_on_the_test_samples_of_each_run_on_generated_data(tmp_path):
    small = {"samples": [24, 12, 36], "dims": [10, 9, 8], "length": 5, "speaker_size": 4}
    settings = {"max_epochs": 1, "batch_size": 12}
    made = {}
    for folder, dataset, label, config in (
        ("ablations", "synthetic_redundant", "full", {}),
        ("ablations", "synthetic_redundant", "no_smc", {"no_smc": True}),
        ("readings", "synthetic_private", "literal", LITERAL),
    ):
        own = {"width": 8, "heads": 2, "capsules": 3, "capsule_dim": 4, **config}
        plan = RunConfig(
            method="contrastive_mmcl", label=label, dataset=dataset, data=small, config=own, settings=settings
        )
        made[label] = run(plan, tmp_path / "runs" / folder, progress="none")
    other = RunConfig(method="text_only", data=small, settings=settings)
    run(other, tmp_path / "runs" / "readings", progress="none")
    assert main(["results", str(tmp_path / "runs"), "--only", "contrastive", "--out", str(tmp_path)]) == 0
    cosines, probes = (pd.read_csv(tmp_path / f"contrastive_{name}.csv") for name in ("cosines", "probes"))
    assert (cosines["split"] == "test").all()
    assert set(probes["factor"]) == {"shared", "speaker"}
    for label, result in made.items():
        test = result.load_data()["test"]
        found = represent(result.load_method(test), test)
        own = cosines[cosines["label"] == label].set_index(["stage", "modality"])
        assert (own["run_id"] == result.run_id).all()
        assert (own["dataset"] == result.config.dataset).all()
        for (stage, m), gap in own["gap"].items():
            here = test.data.observed[m].any(1)
            expected = category_gap(found[f"{m}/{stage}"][here], test.task.categories(test.labels)[here])
            assert gap == pytest.approx(expected, abs=1e-5)
        read = probes[probes["label"] == label].set_index(["stage", "modality", "factor"])["r2"]
        assert len(read) == 12
        one = probe({"x": found["audio/shared"]}, {"shared": test.factors["shared"]}, groups=test.groups)
        assert read["shared", "audio", "shared"] == pytest.approx(one["r2"][0], abs=1e-5)
