"""The drawn numbers of the figures of hierarchical representation learning, read back from the axes."""

import numpy as np
import pandas as pd
import pytest

from companion.hrlf_panels import (
    GUARD,
    SCALES,
    agreement_curves,
    agreement_lines,
    collapse_curves,
    effect_panels,
    pair_matrices,
    part_probes,
    short,
    weights_grid,
)
from mmsa_lib.figures import palette
from mmsa_lib.methods.hrlf import HRLFConfig


def points(axis, marker, color=None):
    return [
        line.get_xydata().tolist()
        for line in axis.get_lines()
        if line.get_marker() == marker and (color is None or line.get_color() == color)
    ]


def labels(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


@pytest.fixture
def grid():
    rows = [
        {
            "dataset": name, "weights": setting, "chosen": setting != "printed weights", "seed": seed, "constant": 1.3,
            "stochastic_mae": 1.0 + 0.1 * seed, "complete_mae": 0.5 + 0.1 * seed, "error": "",
        }
        for name in ("synthetic", "MOSI") for setting in ("printed weights", "lambda_frf=0.1; frf_warmup=20")
        for seed in (1, 2)
    ]  # fmt: skip
    rows[1] |= {"stochastic_mae": np.nan, "complete_mae": np.nan, "error": "the states Z collapsed"}
    return pd.DataFrame(rows)


def test_the_grid_draws_every_run_and_failed_ones_as_crosses(grid):
    first, second = weights_grid(grid).axes
    runs = points(first, "o", palette.BLUE)
    assert [[x for x, _ in row] for row in runs] == [[1.1], [pytest.approx(1.1), pytest.approx(1.2)]]
    assert [[x for x, _ in row] for row in points(first, "o", palette.SKY)] == [[0.6], [0.6, 0.7]]
    assert points(first, "X") == [[[1.3, 0]], []]
    assert points(second, "X") == [[], []]
    assert [line.get_xdata()[0] for line in first.get_lines() if line.get_linestyle() == "--"] == [1.3]
    assert labels(first) == ["printed weights", "FRF 0.1, warm-up 20"]
    assert [text.get_fontweight() for text in first.get_yticklabels()] == ["normal", "bold"]


def test_a_grid_without_failures_reads_back_from_a_file(grid, tmp_path):
    """An empty column of errors comes back as numbers."""
    grid.assign(error="").to_csv(tmp_path / "grid.csv", index=False)
    axis = weights_grid(pd.read_csv(tmp_path / "grid.csv")).axes[0]
    assert points(axis, "X") == [[], []]


def test_collapse_has_a_curve_per_run_and_a_cross_where_one_ends_early():
    alone = pd.DataFrame({"line": "printed", "run": "a", "x": [0, 10], "share": [1.0, 0.02]})
    training = pd.DataFrame(
        {"line": ["printed"] * 4 + ["chosen"] * 3, "run": list("aabbccc"), "x": [0, 1, 0, 2, 0, 1, 2],
         "share": [1, 0.5, 1, 0.4, 1, 0.9, 0.8]}
    )  # fmt: skip
    figure = collapse_curves({"alone": alone, "training": training}, {"alone": "step", "training": "epoch"})
    left, right = figure.axes
    assert left.get_lines()[0].get_ydata().tolist() == [1, 0.02]
    assert left.get_yscale() == "log"
    assert points(right, "X") == [[[1, 0.5]]]
    assert [line.get_color() for line in right.get_lines() if line.get_marker() == "None"][:3] == [
        palette.VERMILLION, palette.VERMILLION, palette.BLUE,
    ]  # fmt: skip
    assert [axis.get_xlabel() for axis in figure.axes] == ["step", "epoch"]
    assert [e.get_text() for e in figure.legends[0].get_texts()][:2] == ["printed", "chosen"]
    assert HRLFConfig().collapse_guard == GUARD


def test_pair_matrices_have_sources_down_and_targets_across():
    frame = pd.DataFrame(
        {
            "source": ["text", "text", "audio", "audio"],
            "target": ["text", "audio"] * 2,
            "value": [0.1, 0.2, 1.3, np.nan],
        }
    )
    figure = pair_matrices({"one": frame, "two": frame.assign(value=0.5)})
    first, second = figure.axes[:2]
    np.testing.assert_allclose(first.get_images()[0].get_array(), [[0.1, 0.2], [1.3, np.nan]])
    assert first.get_images()[0].get_clim() == (0, 1)
    assert [text.get_text() for text in first.texts] == ["0.10", "0.20", "1.30", "–"]
    assert labels(first) == ["text", "audio"]
    assert labels(second) == []
    assert [label.get_text() for label in second.get_xticklabels()] == ["text", "audio"]


def test_agreement_over_epochs_has_a_line_per_scale_and_input():
    frame = pd.DataFrame(
        [
            {"epoch": e, "input": kind, "scale": s, "measure": m, "value": e / 10 + s + (m == "cka_shuffled") * 100}
            for kind in ("complete", "incomplete") for s in (1, 2, 3) for e in (1, 2) for m in ("cka", "cka_shuffled")
        ]
    )  # fmt: skip
    axis = agreement_curves(frame, {"cka": "CKA"}).axes[0]
    lines = axis.get_lines()
    assert len(lines) == 7
    assert [(line.get_color(), line.get_linestyle()) for line in lines[:6]] == [
        (color, dash) for dash in ("-", "--") for color in SCALES.values()
    ]
    np.testing.assert_allclose(lines[4].get_ydata(), [2.1, 2.2])
    np.testing.assert_allclose(lines[6].get_ydata(), [102.1, 102.2])


def test_agreement_before_and_after():
    frame = pd.DataFrame(
        [
            {"switch": name, "seed": seed, "when": when, "scale": scale, "value": value + 0.01 * seed}
            for name in ("chosen", "no_hal") for seed in (1, 2) for scale in (1, 3)
            for when, value in (("before", 0.2), ("after", 0.8), ("shuffled", 0.1))
        ]
    )  # fmt: skip
    figure = agreement_lines(frame, "CKA", ["no_hal", "chosen"])
    assert [axis.get_title() for axis in figure.axes] == ["$E_1$", "$E_3$"]
    assert labels(figure.axes[0]) == ["no_hal", "chosen"]
    np.testing.assert_allclose(points(figure.axes[0], "o", palette.BLUE)[1], [[0.81, 1], [0.82, 1]])
    np.testing.assert_allclose(points(figure.axes[0], "|")[0], [[0.11, 0], [0.12, 0]])


def test_parts_are_means_with_the_seeds_around_them():
    frame = pd.DataFrame(
        [
            {"panel": panel, "modality": m, "part": part, "factor": factor, "r2": value + 0.1 * seed}
            for panel in ("teacher", "student") for m in ("text", "audio") for factor in ("shared", "speaker")
            for part, value in (("sentiment", 0.4), ("specific", -0.5)) for seed in (0, 1)
        ]
    )  # fmt: skip
    axis = part_probes(frame).axes[0]
    assert labels(axis) == ["shared, text", "shared, audio", "speaker, text", "speaker, audio"]
    np.testing.assert_allclose([row[0] for row in points(axis, "o")], [[0.45, i - 0.15] for i in range(4)])
    np.testing.assert_allclose([row[0] for row in points(axis, "s")], [[0.0, i + 0.15] for i in range(4)])
    np.testing.assert_allclose(axis.collections[0].get_offsets(), [[0.4, -0.15], [0.5, -0.15]])


def test_effects_are_coloured_where_shown():
    frame = pd.DataFrame(
        [
            {"panel": panel, "switch": name, "n": n, "difference": d, "low": d - 0.1, "high": d + 0.1, "verdict": v}
            for panel in ("complete", "subsets")
            for name, n, d, v in (("no_frf", 5, 0.2, "worse"), ("no_kl", 4, 0.0, "no effect shown"))
        ]
    )  # fmt: skip
    figure = effect_panels(frame, "difference", "title")
    axis = figure.axes[1]
    dots = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert [line.get_xydata()[0].tolist() for line in dots] == [[0.2, 0], [0, 1]]
    assert [line.get_markerfacecolor() for line in dots] == [palette.VERMILLION, "white"]
    assert labels(figure.axes[0]) == ["no_frf  (n=5)", "no_kl  (n=4)"]
    assert figure.get_suptitle() == "title"


def test_short_names():
    assert short("lambda_frf=0.1; lambda_hal=0.01; frf_warmup=20") == "FRF 0.1, HAL 0.01, warm-up 20"
    assert short("printed weights") == "printed weights"
