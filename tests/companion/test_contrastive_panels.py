"""The drawn numbers of the figures of contrastive learning, read back from the axes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion.contrastive_panels import (
    ROLES,
    contrastive_terms,
    cosine_traces,
    difference_forest,
    embedding_maps,
    modulation_weights,
    pair_masks,
    routing_coefficients,
)
from mmsa_lib.figures import palette


def lines(axis):
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


def test_pair_masks_colour_each_role_and_name_only_those_used():
    first, second = np.array([[0, 3], [3, 0]]), np.array([[0, 1], [2, 4]])
    figure = pair_masks({"a": first, "b": second}, ["x", "y"], blocks=1)
    for axis, codes in zip(figure.axes, (first, second), strict=True):
        image = axis.get_images()[0]
        drawn = image.to_rgba(codes)
        for i, j in np.ndindex(codes.shape):
            assert to_hex(drawn[i, j]) == ROLES[codes[i, j]][1].lower()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [ROLES[code][0] for code in range(5)]
    only = pair_masks({"a": first}, ["x", "y"]).legends[0].get_texts()
    assert [text.get_text() for text in only] == [ROLES[0][0], ROLES[3][0]]


def test_pair_masks_separate_modalities():
    axis = pair_masks({"a": np.zeros((6, 6), int)}, list("abcdef"), blocks=2).axes[0]
    horizontal = [line.get_ydata()[0] for line in axis.get_lines() if line.get_ydata()[0] == line.get_ydata()[1]]
    assert horizontal == [1.5, 3.5]


def test_pair_masks_fill_a_grid():
    figure = pair_masks({name: np.zeros((2, 2), int) for name in "abc"}, ["x", "y"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["anchor", "", "anchor"]
    below = [[label.get_text() for label in axis.get_xticklabels()] for axis in figure.axes]
    assert below == [["", ""], ["x", "y"], ["x", "y"]]


def test_routing_coefficients_share_one_scale_and_mark_words():
    coupling = {"text": np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]), "audio": np.full((3, 2), 0.5)}
    figure = routing_coefficients(coupling, {"text": {"shared": 1, "private": 1, "other": 2}}, ["a", "b", "c"])
    text, audio = figure.axes[:2]
    np.testing.assert_allclose(text.get_images()[0].get_array(), coupling["text"].T)
    assert text.get_images()[0].get_clim() == audio.get_images()[0].get_clim() == (0, 0.9)
    assert {(note.xy[0], note.get_text()) for note in text.texts} == {(1, "shared, private\n▼"), (2, "other\n\n▼")}
    assert not audio.texts
    assert [label.get_text() for label in text.get_xticklabels()] == ["a", "b", "c"]


def test_modulation_weights_draw_curves_and_means_over_seeds():
    curves = pd.DataFrame({"formula": ["focal"] * 2 + ["none"] * 2, "cosine": [-1, 1] * 2, "weight": [2, 0, 1, 1]})
    price = pd.DataFrame(
        [
            {"denominator": kind, "gamma": gamma, "seed": seed, "measure": measure, "cosine": 0.1 * gamma + 0.2 * seed}
            for kind in ("all", "negatives") for gamma in (0.0, 1.0) for seed in (0, 1) for measure in ("same", "other")
        ]
    )  # fmt: skip
    left, first, second = modulation_weights(curves, price).axes
    np.testing.assert_allclose(lines(left)["focal"], [[-1, 2], [1, 0]])
    np.testing.assert_allclose(lines(left)["none"][:, 1], 1)
    np.testing.assert_allclose(lines(first)["same"], [[0, 0.1], [1, 0.2]])
    assert second.get_title() == "denominator: negatives"
    np.testing.assert_allclose(sorted(first.collections[0].get_offsets()[:, 1]), [0.0, 0.1, 0.2, 0.3])


def test_contrastive_terms_draw_runs_and_the_value_of_a_collapse():
    history = pd.DataFrame(
        [
            {"run": run, "epoch": e, "name": name, "value": e + offset}
            for run, offset in (("full", 0.0), ("plain", 0.5)) for e in (1, 2) for name in ("cmc", "smc")
        ]
    )  # fmt: skip
    cmc, smc = contrastive_terms(history, {"cmc": 4.1}).axes
    np.testing.assert_allclose(lines(cmc)["plain"], [[1, 1.5], [2, 2.5]])
    np.testing.assert_allclose(lines(cmc)["all vectors equal"][:, 1], 4.1)
    assert "all vectors equal" not in lines(smc)
    assert (cmc.get_title(), smc.get_title()) == ("CMC", "SMC")


def test_cosine_traces_keep_runs_and_kinds_of_pairs_apart():
    frame = pd.DataFrame(
        [
            {"run": run, "epoch": e, "modality": m, "pairs": pairs, "cosine": e * scale}
            for run, scale in (("full", 0.1), ("none", 0.2)) for e in (0, 1) for m in ("text", "audio")
            for pairs in ("same", "different")
        ]
    )  # fmt: skip
    text, audio = cosine_traces(frame).axes
    np.testing.assert_allclose(lines(text)["none, same"], [[0, 0], [1, 0.2]])
    styles = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in audio.get_lines()}
    assert styles["full, same"][0] == styles["full, different"][0] != styles["none, same"][0]
    assert styles["full, same"][1] != styles["full, different"][1]


def test_embedding_maps_place_and_colour_each_sample():
    frame = pd.DataFrame(
        {
            "row": ["a", "a", "b"], "column": "text", "x": [0.0, 1, 2], "y": [3.0, 4, 5], "group": ["p", "n", "p"],
            "share": 0.5,
        }
    )  # fmt: skip
    figure = embedding_maps(frame, {"n": palette.VERMILLION, "p": palette.BLUE, "unused": palette.GREY})
    top, bottom = figure.axes
    np.testing.assert_allclose(top.collections[0].get_offsets(), [[0, 3], [1, 4]])
    drawn = [to_hex(color) for color in top.collections[0].get_facecolors()]
    assert drawn == [palette.BLUE.lower(), palette.VERMILLION.lower()]
    np.testing.assert_allclose(bottom.collections[0].get_offsets(), [[2, 5]])
    assert top.get_title() == "text, 50 % of variance"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["n", "p"]


@pytest.mark.parametrize("higher", [False, True])
def test_difference_forest_fills_only_what_is_shown(higher):
    effects = pd.DataFrame(
        {
            "switch": ["no_cmc=True", "no_smc=True"],
            "n": [5, 4],
            "difference": [0.1, 0.0],
            "low": [0.05, -0.1],
            "high": [0.15, 0.1],
            "verdict": ["better" if higher else "worse", "no effect shown"],
        }
    )
    axis = difference_forest(effects, "switch", "metric", higher_is_better=higher).axes[0]
    _, bar, dot, other_bar, other_dot = axis.get_lines()
    np.testing.assert_allclose(bar.get_xdata(), [0.05, 0.15])
    np.testing.assert_allclose(dot.get_xydata(), [[0.1, 0]])
    np.testing.assert_allclose(other_bar.get_xydata(), [[-0.1, 1], [0.1, 1]])
    assert dot.get_markerfacecolor() == (palette.GREEN if higher else palette.VERMILLION)
    assert other_dot.get_markerfacecolor() == "white"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["no_cmc=True  (n=5)", "no_smc=True  (n=4)"]
    assert axis.get_xlabel().startswith("← worse" if higher else "← better")
