"""The drawn numbers of figures that only one notebook has, read back from the axes."""

import numpy as np
import pandas as pd
import torch

from companion import contrastive, data_sets, missing, shared


def lines(axis):
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


def test_label_histograms_draw_shares_of_each_split_with_empty_bins():
    frame = pd.DataFrame(
        {"dataset": "mosi", "split": "train", "step": 1.0, "label": [-1.0, 1.0, 2.0], "samples": [1, 2, 1]}
    )
    axis = data_sets.label_histograms(frame).axes[0]
    values, edges = axis.patches[0].get_data()[:2]
    np.testing.assert_allclose(values, [25, 0, 50, 25])
    np.testing.assert_allclose(edges, [-1.5, -0.5, 0.5, 1.5, 2.5])
    assert axis.get_title() == "CMU-MOSI\n4"


def test_length_distribution_is_cumulative_over_all_splits():
    frame = pd.DataFrame(
        {
            "dataset": "a",
            "split": ["train", "train", "test"],
            "unit": "words",
            "length": [5, 1, 1],
            "samples": [1, 2, 1],
        }
    )
    drawn = data_sets.length_distribution(frame).axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(drawn, [[1, 75], [5, 100]])


def test_bayes_errors_draws_one_mark_per_subset_beside_the_floors():
    frame = pd.DataFrame({"modalities": ["text", "text+audio"], "mae": [0.8, 0.6]})
    axis = data_sets.bayes_errors(frame, pd.DataFrame({"baseline": ["constant"], "value": [1.3]})).axes[0]
    xy = [tuple(line.get_xydata()[0]) for line in axis.get_lines() if line.get_marker() == "o"]
    assert xy == [(0.8, 0), (0.6, 1)]
    assert [text.get_text() for text in axis.texts] == ["0.800", "0.600"]
    assert 1.3 in [line.get_xdata()[0] for line in axis.get_lines()]


def test_pair_masks_draw_their_codes_and_name_those_used():
    codes = torch.tensor([[0, 2], [2, 0]])
    figure = contrastive.pair_masks({"one": codes, "two": codes}, ["a", "b"], blocks=1)
    assert (figure.axes[1].get_images()[0].get_array() == codes.numpy()).all()
    used = [text.get_text() for text in figure.legends[0].get_texts()]
    assert used == [contrastive.ROLES[0][0], contrastive.ROLES[2][0]]


def test_cosines_of_pairs_are_counted_in_one_range():
    one = {"text": torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])}
    figure = contrastive.cosine_histograms({"a": one, "b": one}, {"text": torch.tensor([0, 0, 1])})
    assert len(figure.axes) == 2
    for axis in figure.axes:
        tops = {patch.get_label(): patch.get_xy() for patch in axis.patches if "category" in (patch.get_label() or "")}
        same, different = tops["same category"], tops["different category"]
        assert same[same[:, 1] > 0, 0].min() > 0.95  # one pair, of cosine 1
        assert abs(different[different[:, 1] > 0, 0]).max() < 0.05


def test_patterns_tell_padding_missing_and_observed():
    valid = np.array([[True, True, False]])
    figure = missing.missing_patterns({"A": {"text": (valid, valid & [[True, False, False]])}})
    assert figure.axes[0].collections[0].get_array().ravel().tolist() == [2, 1]
    assert figure.axes[0].get_xlabel() == "2 steps"


def test_probe_table_prints_negative_scores_as_they_are():
    frame = pd.DataFrame({"representation": ["a", "b"], "factor": "shared", "r2": [0.9, -0.2]})
    assert [text.get_text() for text in shared.probe_table(frame).axes[0].texts] == ["0.90", "-0.20"]


def test_methods_are_drawn_as_runs_with_a_t_interval():
    values = [0.70, 0.72, 0.75]
    runs = pd.DataFrame(
        {"method": "self_mm", "label": "frozen text", "seed": [1, 2, 3], "metric": "corr", "value": values}
    )
    floors = pd.DataFrame({"baseline": ["ridge"], "metric": ["corr"], "value": [0.7]})
    figure, numbers = shared.method_dots(runs, {"corr": ("correlation", 100.0)}, floors)
    (axis,) = figure.axes
    marks = {line.get_marker(): line.get_xdata() for line in axis.get_lines() if line.get_marker() != "None"}
    np.testing.assert_allclose(sorted(marks["o"]), [70, 72, 75])
    np.testing.assert_allclose(marks["|"], 100 * np.mean(values))
    (bar,) = [line.get_xdata() for line in axis.get_lines() if line.get_linewidth() == 1.6]
    np.testing.assert_allclose(bar, [66.083, 78.583], atol=0.01)  # 72.33 ± 4.303 * 2.517 / sqrt(3)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Self-MM, frozen text"]
    assert len(numbers) == 4
