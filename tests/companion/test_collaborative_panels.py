"""The drawn numbers of the figures of collaborative learning, read back from the axes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion.collaborative_panels import (
    VARIANT,
    distance_from_uniform,
    oracle_dumbbells,
    policy_curves,
    reward_index,
    states_in_training,
    weight_matrices,
    word_gates,
)
from mmsa_lib.figures import palette

QUANTITIES = ("similarity", "common", "specific")


def matrices(variants=("reference", "corrected")):
    rows = [
        {"variant": v, "modality": m, "quantity": q, "row": i, "column": j, "value": (i - 2 * j) * (k + 1) * scale}
        for k, v in enumerate(variants) for m, scale in (("text", 1.0), ("audio", 5.0)) for q in QUANTITIES
        for i in range(2) for j in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_weight_matrices_draw_one_modality_with_words_and_a_scale_per_column():
    figure = weight_matrices(matrices(), ["good", "film"])
    panels = figure.axes[:6]
    expected = np.array([[0.0, -2.0], [1.0, -1.0]])
    for position, axis in enumerate(panels):
        np.testing.assert_allclose(axis.get_images()[0].get_array(), expected * (1 + position // 3))
    assert panels[0].get_images()[0].get_clim() == panels[3].get_images()[0].get_clim() == (-4, 4)
    assert panels[1].get_images()[0].get_clim() == panels[4].get_images()[0].get_clim() == (0, 2)
    assert [label.get_text() for label in panels[3].get_xticklabels()] == ["good", "film"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["good", "film"]
    assert not [label.get_text() for label in panels[0].get_xticklabels() if label.get_text()]
    assert [panels[0].get_ylabel(), panels[3].get_ylabel()] == ["reference", "corrected"]
    assert [axis.get_title() for axis in panels[:3]] == ["similarity C", "common weights", "specific weights"]


def test_distance_from_uniform_has_a_dot_per_run_and_a_bound_per_line():
    frame = pd.DataFrame(
        {
            "group": ["s, reference"] * 2 + ["s, corrected"], "part": "common", "run_id": ["a", "b", "c"],
            "entropy": [0.999, 0.99, 0.5], "bound": [0.9, 0.9, 0.1],
        }
    )  # fmt: skip
    axis = distance_from_uniform(frame).axes[0]
    first, second = (collection.get_offsets() for collection in axis.collections)
    np.testing.assert_allclose(first, [[0.001, 0], [0.01, 0]])
    np.testing.assert_allclose(second, [[0.5, 1]])
    bounds = [line.get_xydata()[0] for line in axis.get_lines() if line.get_marker() == "|"]
    np.testing.assert_allclose(bounds, [[0.1, 0], [0.9, 1]])
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["s, reference, common", "s, corrected, common"]
    assert to_hex(axis.collections[1].get_facecolors()[0]) == VARIANT["corrected"].lower()


def test_word_gates_draw_words_missing_ones_and_marks():
    frame = pd.DataFrame(
        [
            {"variant": v, "modality": m, "row": i, "value": 0.1 * i + offset}
            for v, offset in (("reference", 0.0), ("corrected", 0.3)) for m in ("text", "audio") for i in range(3)
        ]
    )  # fmt: skip
    figure = word_gates(frame, ["a", "b", "c"], missing={"audio": [1]}, marks={"text": {"shared": 2, "own": 1}})
    text, audio = figure.axes
    np.testing.assert_allclose(text.get_lines()[2].get_ydata(), [0, 0.1, 0.2])
    np.testing.assert_allclose(text.get_lines()[3].get_ydata(), [0.3, 0.4, 0.5])
    assert [(note.get_text(), note.xy[0]) for note in text.texts] == [("own", 1), ("shared\n", 2)]
    assert [patch.get_x() for patch in audio.patches] == [0.5]
    assert not text.patches
    assert [label.get_text() for label in audio.get_xticklabels()] == ["a", "b", "c"]
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["reference", "corrected", "missing word"]


def test_gates_without_words_or_missing_ones_have_numbers():
    frame = pd.DataFrame({"variant": "corrected", "modality": "text", "row": [0, 1], "value": [0.4, 0.6]})
    figure = word_gates(frame)
    assert figure.axes[0].get_xlabel() == "word"
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["corrected"]


def test_reward_index_marks_dependence_and_prints_the_correlation():
    scatter = pd.DataFrame({"model": "trained", "intended": [0.0, 1, 2, 3], "computed": [1.0, 0, 3, 2]})
    dependence = np.array([[0.2, 0.0], [0.3, 0.0]])
    figure = reward_index({"as indexed": dependence, "per sample": np.eye(2)}, scatter)
    first, second, points = figure.axes
    assert first.get_images()[0].get_array().tolist() == [[True, False], [True, False]]
    assert second.get_images()[0].get_array().tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(points.collections[0].get_offsets(), scatter[["intended", "computed"]])
    assert points.get_title() == "trained\ncorrelation +0.60"


def test_states_in_training_stand_against_those_in_evaluation():
    columns = ("norm_evaluation", "norm_training", "gate_evaluation", "gate_training")
    frame = pd.DataFrame([["reference", 2.0, 1.0, 0.6, 0.5], ["corrected", 3.0, 3.0, 0.4, 0.4]],
                         columns=["variant", *columns])  # fmt: skip
    norm, gate = states_in_training(frame).axes
    np.testing.assert_allclose([c.get_offsets()[0] for c in norm.collections], [[2, 1], [3, 3]])
    np.testing.assert_allclose([c.get_offsets()[0] for c in gate.collections], [[0.6, 0.5], [0.4, 0.4]])
    np.testing.assert_allclose(norm.get_lines()[0].get_xydata(), [[1, 1], [3, 3]])


def test_policy_curves_have_a_line_per_seed_and_a_colour_per_variant():
    history = pd.DataFrame(
        [
            {"variant": v, "seed": s, "epoch": e, "name": name, "value": e + 10 * s}
            for v in ("reference", "corrected") for s in (1, 2) for e in (1, 2)
            for name in ("raw/critic", "raw/actor", "policy/reward")
        ]
    )  # fmt: skip
    figure = policy_curves(history)
    assert [axis.get_title() for axis in figure.axes] == ["critic: |Q − target|", "actor: −Q", "reward"]
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[1].get_xydata(), [[1, 21], [2, 22]])
    assert [line.get_color() for line in lines] == [VARIANT["reference"]] * 2 + [VARIANT["corrected"]] * 2
    assert policy_curves(history.assign(variant="no_rl")).axes[0].get_lines()[0].get_color() == palette.GREEN


def test_oracle_dumbbells_join_the_two_values_of_each_seed():
    frame = pd.DataFrame(
        {
            "group": ["a", "a", "b"], "seed": [2, 1, 1], "metric": "mae", "value": [0.5, 0.6, 0.9],
            "oracle": [0.4, 0.6, 0.7],
        }
    )  # fmt: skip
    axis = oracle_dumbbells(frame, {"mae": "MAE"}).axes[0]
    chosen, best = axis.get_lines()[1::3], axis.get_lines()[2::3]
    assert [line.get_xdata()[0] for line in chosen] == [0.6, 0.5, 0.9]
    assert [line.get_xdata()[0] for line in best] == [0.6, 0.4, 0.7]
    np.testing.assert_allclose([line.get_ydata()[0] for line in chosen], [-0.28, 0.28, 0.72])
    assert axis.get_lines()[3].get_xdata() == pytest.approx([0.5, 0.4])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
