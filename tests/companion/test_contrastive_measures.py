"""Gaps between cosines against plain loops; the tables that runs give."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from companion.__main__ import main
from companion.contrastive import (
    category_gap,
    gap_across,
    separation,
)
from mmsa_lib.data import load
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.runs import run
from mmsa_lib.methods import create
from mmsa_lib.training import represent

LITERAL = {
    "decoupled_cmc": False, "temperature_cmc": 0.1, "lambda_cmc": 0.1, "normalise_factors": True,
    "contrasted": "capsules",
}  # fmt: skip


def unit_rows(*shape, seed=0):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=-1, keepdim=True)


def test_the_gap_across_modalities_by_loops():
    u = {m: 3 * unit_rows(6, 4, seed=seed) for seed, m in enumerate(("text", "audio", "vision"))}
    here = {m: torch.arange(6) != missing for missing, m in enumerate(u)}
    gaps = []
    for m, n in (("text", "audio"), ("text", "vision"), ("audio", "vision")):
        rows = [i for i in range(6) if here[m][i] and here[n][i]]
        cosines = {(i, j): float(u[m][i] @ u[n][j]) / 9 for i in rows for j in rows}
        own = np.mean([cosines[i, i] for i in rows])
        gaps.append(own - np.mean([cosine for (i, j), cosine in cosines.items() if i != j]))
    assert gap_across(u, here) == pytest.approx(np.mean(gaps), abs=1e-6)
    with pytest.raises(DataError, match="text and audio have 1 samples in common"):
        gap_across(u, {**here, "audio": torch.arange(6) == 5})


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
