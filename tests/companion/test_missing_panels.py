from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion.missing_panels import degradation_curves, missing_patterns, subset_heatmap, summary_intervals
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.figures import palette
from mmsa_lib.figures.style import style

RATES = [step / 10 for step in range(10)]
SUBSETS = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]


def runs(levels, height):
    """Made-up runs of two methods, one of them in two variants, on two data sets; three seeds."""
    rows = []
    for dataset in ("mosi", "mmmo"):
        for method, variant, shift in (
            ("hrlf", "", 0.05),
            ("early_fusion", "", 0.0),
            ("early_fusion", "missing=stochastic", 0.02),
        ):
            for seed in (1, 2, 3):
                for position, level in enumerate(levels):
                    value = height(position) + shift + 0.01 * seed
                    rows.append((dataset, "standard", method, variant, seed, str(level), value))
    return pd.DataFrame(rows, columns=["dataset", "fold", "method", "variant", "seed", "level", "value"])


@pytest.fixture
def curves():
    return summarise_seeds(runs(RATES, lambda i: 0.8 - 0.03 * i), ["dataset", "fold", "method", "variant", "level"])


@pytest.fixture
def floors():
    return pd.DataFrame({"dataset": ["mosi", "mmmo"], "baseline": ["constant_majority"] * 2, "value": [0.42, 0.6]})


def draw(figure, name, save_to=None):
    with style():
        figure.draw_without_rendering()
        if save_to:
            figure.savefig(save_to / f"{name}.png", dpi=90)
    return figure


def texts(axis):
    return [label.get_text() for label in axis.texts]


def test_curves_have_one_line_per_row_and_the_floor_of_their_data_set(curves, floors):
    figure = draw(degradation_curves(curves, "F1 (%) ↑", 100, floors), "curves")
    assert [axis.get_title() for axis in figure.axes] == ["mosi", "mmmo"]
    for axis, floor in zip(figure.axes, (42, 60), strict=True):
        *lines, flat = axis.lines
        assert len(lines) == 3
        assert list(flat.get_ydata()) == [floor, floor]
        assert np.allclose(lines[0].get_ydata(), [100 * (0.87 - 0.03 * i) for i in range(10)])
        assert to_hex(lines[0].get_color()) == palette.METHOD["hrlf"].lower()
        assert lines[1].get_linestyle() != lines[2].get_linestyle()
        assert len(axis.collections) == 3  # bands
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["hrlf", "early_fusion", "early_fusion, missing=stochastic", "constant_majority"]


def test_curves_of_one_seed_have_no_band(curves):
    one = curves.assign(low=np.nan, high=np.nan)
    figure = draw(degradation_curves(one, "F1"), "one")
    assert all(not band.get_paths() or not len(band.get_paths()[0].vertices) for band in figure.axes[0].collections)
    assert len(figure.axes[0].lines) == 3


def test_levels_are_ordered_by_number_not_by_text(curves):
    more = pd.concat([curves, curves[curves["level"] == "0.9"].assign(level="10")])
    axis = draw(degradation_curves(more.sample(frac=1, random_state=0), "F1"), "order").axes[0]
    assert list(axis.lines[0].get_xdata()) == [*RATES, 10.0]


def test_patterns_tell_observed_from_missing_from_padding():
    valid = np.array([[True, True, False], [True, True, True]])
    observed = np.array([[True, False, False], [False, True, True]])
    one = (np.ones((2, 1), bool), np.array([[True], [False]]))
    cell = {"text": (valid, observed), "audio": one}
    figure = draw(missing_patterns({"A: rate 0.5": cell, "B: text": cell}, ["a", "b"]), "patterns")
    mesh = figure.axes[0].collections[0]
    assert mesh.get_array().reshape(2, 3).tolist() == [[2, 1, 0], [1, 2, 2]]
    assert len(figure.axes) == 4
    assert figure.axes[0].get_ylabel() == "A: rate 0.5"


def test_intervals_show_each_run_and_the_mean(floors):
    frame = runs(["0.0"], lambda i: 0.7).drop(columns="level")
    figure = draw(summary_intervals(frame, "AUILC", 100, floors), "intervals")
    axis = figure.axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == [
        "hrlf", "early_fusion", "early_fusion, missing=stochastic",
    ]  # fmt: skip
    dots = [c.get_offsets() for c in axis.collections if len(c.get_offsets()) == 3]
    assert np.allclose(sorted(dots[0][:, 0]), [76, 77, 78])
    means = [line for line in axis.lines if line.get_marker() == "|"]
    assert means[0].get_xdata()[0] == pytest.approx(77)
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is on top


class TestHeatmap:
    @pytest.fixture
    def means(self):
        frame = runs(SUBSETS, lambda i: 0.4 + 0.05 * i)
        return summarise_seeds(frame[frame["dataset"] == "mosi"], ["dataset", "fold", "method", "variant", "level"])

    def test_every_field_has_its_mean_and_the_constant_is_the_last_row(self, means):
        figure = draw(subset_heatmap(means, "F1 (%)", 100, 0.45, title="mosi"), "map")
        axis = figure.axes[0]
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["T", "A", "V", "T+A", "T+V", "A+V", "T+A+V"]
        fields = texts(axis)
        assert fields[:3] == ["47.0", "52.0", "57.0"]
        assert fields[-7:] == ["45.0"] * 7
        assert "T text, A audio, V vision" in axis.get_xlabel()

    def test_what_is_worse_than_the_constant_is_in_italics(self, means):
        axis = draw(subset_heatmap(means, "F1 (%)", 100, 0.45), "map").axes[0]
        styles = {text.get_text(): text.get_style() for text in axis.texts}
        assert (styles["42.0"], styles["47.0"], styles["45.0"]) == ("italic", "normal", "normal")
        lower = draw(subset_heatmap(means, "MAE", 1, 0.45, higher_is_better=False), "map").axes[0]
        assert {text.get_text(): text.get_style() for text in lower.texts}["0.47"] == "italic"

    def test_a_subset_that_a_method_was_not_tested_on_is_a_dash(self, means):
        gap = means[~((means["method"] == "hrlf") & (means["level"] == "vision"))]
        assert "–" in texts(draw(subset_heatmap(gap, "F1"), "map").axes[0])


def test_a_method_that_one_data_set_lacks_leaves_its_place_empty(curves):
    frame = runs(["0.0"], lambda i: 0.7)
    frame = frame[~((frame["dataset"] == "mmmo") & (frame["method"] == "hrlf"))]
    axis = draw(summary_intervals(frame, "AUILC"), "gap").axes[1]
    assert len([line for line in axis.lines if len(line.get_xdata())]) == 2
    some = curves[~((curves["dataset"] == "mmmo") & (curves["method"] == "hrlf"))]
    assert (
        len([line for line in draw(degradation_curves(some, "F1"), "gap").axes[1].lines if len(line.get_xdata())]) == 2
    )
