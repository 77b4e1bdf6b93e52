"""The committed figures of hrlf show the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest

from companion import hrlf_catalogue as catalogue
from companion import hrlf_results, hrlf_runs

PAIRS = [(a, b) for a in ("text", "audio") for b in ("text", "audio")]


def labels(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_names_are_those_of_the_tables():
    assert catalogue.CHOSEN == hrlf_results.CHOSEN
    assert tuple(catalogue.SETS) == hrlf_results.SETS
    grid = pd.DataFrame({"dataset": ["mmmo"], "weights": [hrlf_runs.PRINTED], "seed": [1], "constant": [1.0]})
    assert catalogue.in_order(grid.assign(stochastic_mae=np.nan))["dataset"].tolist() == ["ICT-MMMO"]


def test_the_grid_starts_with_the_printed_weights_then_the_best():
    rows = [
        {"dataset": name, "weights": setting, "chosen": False, "seed": 1, "stochastic_mae": mae * constant,
         "complete_mae": mae, "constant": constant, "error": ""}
        for name, constant in (("mosi", 1.4), ("synthetic", 1.2))
        for setting, mae in (("lambda_frf=0.2", 0.9), ("lambda_frf=0.1", 0.8), (hrlf_runs.PRINTED, 1.0))
    ]  # fmt: skip
    ordered = catalogue.in_order(pd.DataFrame(rows))
    assert list(dict.fromkeys(ordered["weights"])) == [hrlf_runs.PRINTED, "lambda_frf=0.1", "lambda_frf=0.2"]
    assert ordered["dataset"].tolist() == ["synthetic", "MOSI"] * 3
    assert labels(catalogue.hrlf_weights(pd.DataFrame(rows)).axes[0]) == ["printed weights", "FRF 0.1", "FRF 0.2"]


def test_collapse_alone_and_in_training():
    alone = pd.DataFrame(
        {"targets": ["as printed"] * 2 + ["detached"] * 2, "step": [0, 9] * 2, "share": [1, 0.01, 1, 0.2]}
    )
    curves = pd.DataFrame(
        [
            {"dataset": "synthetic", "weights": w, "seed": 1, "run_id": w, "phase": p, "epoch": e, "share": 0.5}
            for w in (catalogue.CHOSEN, hrlf_runs.PRINTED) for p in ("teacher", "student") for e in (0, 1)
        ]
    )  # fmt: skip
    panels, xlabels = catalogue.collapse_panels(alone, curves)
    assert list(panels) == list(xlabels) == ["FRF alone", "training, teacher", "training, student"]
    assert (panels["training, student"]["share"] == 0.5).all()
    assert list(dict.fromkeys(panels["training, student"]["line"])) == [hrlf_runs.PRINTED, catalogue.CHOSEN]
    figure = catalogue.hrlf_collapse(alone, curves)
    np.testing.assert_allclose(figure.axes[0].get_lines()[1].get_ydata(), [1, 0.2])


@pytest.fixture
def inside():
    return pd.DataFrame(
        [
            {"switch": s, "seed": seed, "run_id": f"{s}{seed}", "network": n, "input": "incomplete", "source": a,
             "target": b, **dict.fromkeys(catalogue.PAIRS, 0.1 * seed + (n == "teacher") + (s != catalogue.CHOSEN))}
            for s in (catalogue.CHOSEN, "no_hal=True") for seed in (1, 2) for n in ("student", "teacher")
            for a, b in PAIRS
        ]
    )  # fmt: skip


def test_translations_are_means_over_seeds_of_the_students(inside):
    figure, drawn = catalogue.hrlf_translation(inside)
    assert drawn[["source", "target"]].to_numpy().tolist() == [list(pair) for pair in PAIRS]
    for name in catalogue.PAIRS:
        assert drawn[name].tolist() == pytest.approx([0.15] * 4)
    assert [axis.get_title() for axis in figure.axes[:5]] == list(catalogue.PAIRS.values())


def test_agreement_shows_the_chosen_weights_first_and_chance():
    table = pd.DataFrame(
        [
            {"switch": s, "seed": 1, "run_id": s, "when": when, "input": kind, "scale": scale, "cka": 0.5,
             "cka_shuffled": 0.1}
            for s in ("no_hal=True", catalogue.CHOSEN) for when in ("before", "after")
            for kind in ("complete", "incomplete") for scale in (1, 2, 3)
        ]
    )  # fmt: skip
    figure, drawn = catalogue.hrlf_agreement(table)
    assert labels(figure.axes[0]) == [catalogue.CHOSEN, "no_hal=True"]
    assert drawn.groupby("when")["value"].agg(["size", "mean"]).to_numpy().tolist() == [
        [6, 0.5], [6, 0.5], [6, pytest.approx(0.1)],
    ]  # fmt: skip


def test_probes_compare_with_and_without_factorization():
    table = pd.DataFrame(
        [
            {"switch": s, "seed": 1, "run_id": s, "network": n, "input": kind, "modality": "text", "part": part,
             "factor": "shared", "r2": 0.5}
            for s in ("no_frf=True", catalogue.CHOSEN, "no_hal=True")
            for n, kind in (("teacher", "complete"), ("student", "complete"), ("student", "incomplete"))
            for part in ("sentiment", "specific")
        ]
    )  # fmt: skip
    figure = catalogue.hrlf_probes(table)
    assert [axis.get_title() for axis in figure.axes] == [
        "teacher,\ncomplete", "student,\ncomplete", "student,\nincomplete", "student,\nincomplete,\nwithout FRF",
    ]  # fmt: skip


def test_switches_are_compared_with_the_chosen_weights_in_every_protocol():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"dataset": "synthetic", "switch": s, "seed": seed, "run_id": f"{s}{seed}", "protocol": p, "summary": u,
             "metric": metric, "value": 1.0 + offset * (p == "subsets") + 0.001 * rng.standard_normal()}
            for s, offset in ((catalogue.CHOSEN, 0.0), ("no_hal=True", 0.5), ("no_kl=True", 0.0)) for seed in range(5)
            for p, u in [*catalogue.SUMMARIES, ("frames", "auilc")] for metric in ("mae", "corr")
        ]
    )  # fmt: skip
    figure, effects = catalogue.hrlf_ablations(table)
    assert effects["panel"].tolist() == [p for p in catalogue.SUMMARIES.values() for _ in range(2)]
    assert effects.loc[effects["verdict"] != "no effect shown", ["panel", "switch"]].to_numpy().tolist() == [
        ["mean over subsets", "no_hal=True"]
    ]
    own = effects[(effects["panel"] == "mean over subsets") & (effects["switch"] == "no_hal=True")].iloc[0]
    assert own["difference"] == pytest.approx(0.5, abs=0.005)
    assert own["p_holm"] == pytest.approx(min(2 * own["p"], 1))
    assert len(figure.axes) == 4
