"""The drawn numbers of the figure functions, read back from the axes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.alignment_panels import covariance_pairs, loss_sizes, noise_floor
from companion.data_panels import availability, bayes_errors, label_histograms, length_distribution, utterance
from mmsa_lib.figures.probes import probe_table
from mmsa_lib.figures.results import method_intervals
from mmsa_lib.figures.training import generated_labels, learning_curves, predicted_against_true


def lines(axis):
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


def test_label_histograms_draw_shares_of_each_split_with_empty_bins():
    frame = pd.DataFrame(
        {"dataset": "mosi", "split": "train", "step": 1.0, "label": [-1.0, 1.0, 2.0], "samples": [1, 2, 1]}
    )
    axis = label_histograms(frame).axes[0]
    values, edges = axis.patches[0].get_data()[:2]
    np.testing.assert_allclose(values, [25, 0, 50, 25])
    np.testing.assert_allclose(edges, [-1.5, -0.5, 0.5, 1.5, 2.5])
    assert axis.get_legend().get_texts()[0].get_text() == "train (4)"


def test_length_distribution_is_cumulative():
    frame = pd.DataFrame({"dataset": "a", "split": "train", "unit": "words", "length": [5, 1], "samples": [1, 3]})
    drawn = length_distribution(frame).axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(drawn, [[1, 75], [5, 100]])


def test_availability_prints_each_share_and_names_what_is_absent():
    frame = pd.DataFrame(
        {
            "dataset": ["a", "a", "b"],
            "split": ["train"] * 3,
            "modality": ["text", "audio", "text"],
            "observed": [1, 0.5, 0],
        }
    )
    texts = [text.get_text() for text in availability(frame).axes[0].texts]
    assert texts == ["100.0 %", "50.0 %", "0.0 %", "absent"]


def test_utterance_hatches_missing_steps_only():
    observed = np.array([True, False, True])
    figure = utterance({"text": np.ones((3, 4))}, {"text": observed})
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 1
    assert hatched[0].get_x() == pytest.approx(0.5)


def test_bayes_errors_draws_one_bar_per_subset():
    frame = pd.DataFrame({"modalities": ["text", "text+audio"], "mae": [0.8, 0.6]})
    bars = bayes_errors(frame, "mae", "error", {"constant": 1.4}).axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.8, 0.6]


def history():
    rows = []
    for epoch in (1, 2, 3):
        rows += [
            {"epoch": epoch, "split": "train", "name": "loss/total", "value": 3.0 / epoch},
            {"epoch": epoch, "split": "train", "name": "loss/task", "value": 2.0 / epoch},
            {"epoch": epoch, "split": "valid", "name": "loss/task", "value": 1.0 / epoch},
        ]
    return pd.DataFrame(rows)


def test_learning_curves_keep_training_and_validation_apart():
    left, right = learning_curves(history(), best_epoch=3).axes
    np.testing.assert_allclose(lines(left)["validation"][:, 1], [1, 0.5, 1 / 3])
    np.testing.assert_allclose(lines(left)["training loss (sum of terms)"][:, 1], [3, 1.5, 1])
    np.testing.assert_allclose(lines(right)["task"][:, 1], [2, 1, 2 / 3])
    assert "kept: epoch 3" in lines(left)


def test_predicted_against_true_says_the_error():
    frame = pd.DataFrame({"label": [0.0, 1.0], "prediction": [0.5, 1.5]})
    assert "0.500, 2 samples" in predicted_against_true(frame, (-3, 3)).axes[0].get_title()


def test_generated_labels_draw_the_median_and_the_human_label():
    moves = pd.DataFrame(
        [{"epoch": e, "modality": "audio", "quantile": q, "value": e * q} for e in (1, 2) for q in (0.1, 0.5, 0.9)]
    )
    traces = pd.DataFrame([{"epoch": e, "modality": "audio", "sample": "s", "label": e, "human": -1.0} for e in (1, 2)])
    first, second = generated_labels(moves, traces).axes
    np.testing.assert_allclose(lines(first)["audio (median)"], [[1, 0.5], [2, 1.0]])
    np.testing.assert_allclose(lines(second)["human label"][:, 1], -1)


def test_covariance_pairs_share_one_scale_and_show_the_difference():
    a, b = np.eye(2), 3 * np.eye(2)
    figure = covariance_pairs({"row": {"audio": a, "vision": b}})
    images = [axis.get_images()[0] for axis in figure.axes[:3]]
    np.testing.assert_allclose(images[2].get_array(), a - b)
    assert {image.get_clim() for image in images} == {(-3.0, 3.0)}


def test_noise_floor_draws_means_formula_and_signals():
    measured = pd.DataFrame({"batch_size": [8, 8, 16, 16], "draw": [0, 1, 0, 1], "loss": [2.0, 4.0, 1.0, 2.0]})
    formula = pd.DataFrame({"batch_size": [8, 16], "loss": [3.0, 1.5]})
    drawn = lines(noise_floor(measured, formula, {"signal": 0.1}).axes[0])
    np.testing.assert_allclose(drawn["mean of draws, no difference at all"][:, 1], [3, 1.5])
    np.testing.assert_allclose(drawn["formula"][:, 1], [3, 1.5])
    np.testing.assert_allclose(drawn["signal"][:, 1], 0.1)


def test_loss_sizes_leave_out_zero_weights():
    frame = pd.DataFrame(
        [
            {"weight": w, "epoch": 1, "name": name, "value": w if name.startswith("weighted") else 1.0}
            for w in (0.0, 10.0)
            for name in ("raw covariance", "weighted covariance", "task")
        ]
    )
    raw, weighted, _ = loss_sizes(frame).axes
    assert [line.get_label() for line in raw.get_lines()] == ["0", "10"]
    assert [line.get_label() for line in weighted.get_lines()] == ["10"]


def test_probe_table_prints_negative_scores_as_they_are():
    frame = pd.DataFrame({"representation": ["a", "b"], "factor": "shared", "r2": [0.9, -0.2]})
    assert [text.get_text() for text in probe_table(frame).axes[0].texts] == ["0.90", "-0.20"]


def test_method_intervals_draw_runs_and_a_t_interval():
    values = [0.70, 0.72, 0.75]
    frame = pd.DataFrame(
        {"method": "self_mm", "variant": "frozen", "seed": [1, 2, 3], "metric": "corr", "value": values}
    )
    floors = pd.DataFrame({"baseline": ["ridge"], "metric": ["corr"], "value": [0.7]})
    axis = method_intervals(frame, {"corr": ("correlation", 1.0)}, floors).axes[0]
    np.testing.assert_allclose(sorted(axis.collections[0].get_offsets()[:, 0]), values)
    bar = axis.containers[0].lines[2][0].get_segments()[0][:, 0]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose(bar, expected)
