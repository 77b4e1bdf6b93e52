"""The drawn numbers of the shared panels, read back from the axes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from mmsa_lib.figures import diagrams, palette
from mmsa_lib.figures.panels import (
    curves,
    dots,
    forest,
    grid,
    heatmap,
    learning_curves,
    predicted_against_true,
)
from mmsa_lib.figures.style import alternative_text

MARKS = {"a": {"color": palette.BLUE, "label": "first"}, "b": {"color": palette.ORANGE, "offset": 0.2}}


def points(axis, marker="o"):
    """Places and colours of the marks."""
    return [
        (x, y, to_hex(line.get_color()).upper())
        for line in axis.get_lines() if line.get_marker() == marker for x, y in line.get_xydata()
    ]  # fmt: skip


def segments(axis, width):
    """Ends of the horizontal lines of one width."""
    found = [line for line in axis.get_lines() if line.get_linewidth() == width and line.get_marker() in ("None", "|")]
    return [tuple(line.get_xdata()) for line in found]


def names(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def entries(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_dots_stand_on_their_lines_with_their_intervals_and_counts():
    frame = pd.DataFrame(
        {"name": ["x", "y", "y"], "mark": ["a", "a", "b"], "value": [1.0, 2.0, 3.0], "low": [0.5, 1.5, np.nan],
         "high": [1.5, 2.5, np.nan], "n": [5, 3, 5]}
    )  # fmt: skip
    figure = dots(frame, MARKS, "unit")
    (axis,) = figure.axes
    assert points(axis) == [(1, 0, palette.BLUE), (2, 1, palette.BLUE), (3, 1.2, palette.ORANGE)]
    assert segments(axis, 1.6) == [(0.5, 1.5), (1.5, 2.5)]
    assert names(axis) == ["x", "y"]
    assert [text.get_text() for text in axis.texts] == ["n=3"]
    assert entries(figure) == ["first"]


def test_two_intervals_are_told_apart_and_floors_are_drawn_in_their_panel():
    frame = pd.DataFrame(
        {"panel": ["p", "q"], "name": ["x", "y"], "mark": "a", "value": [1.0, 2.0], "low": [0.9, 1.9],
         "high": [1.1, 2.1], "item_low": [0.5, np.nan], "item_high": [1.5, np.nan]}
    )  # fmt: skip
    floors = pd.DataFrame({"panel": ["q"], "baseline": ["constant"], "value": [3.0]})
    figure = dots(frame, MARKS, {"p": "one", "q": "two"}, shared=False, columns=1, floors=floors)
    first, second = figure.axes
    assert (segments(first, 5), segments(first, 1.0)) == ([(0.9, 1.1)], [(0.5, 1.5)])
    assert segments(second, 1.6) == [(1.9, 2.1)]
    assert (names(first), names(second)) == (["x"], ["y"])
    assert (first.get_xlabel(), second.get_xlabel()) == ("one", "two")
    assert segments(second, 1.2) == [(3.0, 3.0)]
    assert not segments(first, 1.2)
    assert entries(figure) == ["first", "95 % over seeds", "95 % over seeds and test items", "constant"]


def test_panels_that_share_their_lines_keep_the_asked_order():
    frame = pd.DataFrame({"panel": ["q", "p"], "name": ["y", "x"], "mark": "a", "value": [1.0, 2.0]})
    figure = dots(frame, MARKS, "unit", lines=["x", "y"], panels=["p", "q"])
    assert [axis.get_title() for axis in figure.axes] == ["p", "q"]
    assert [points(axis)[0][:2] for axis in figure.axes] == [(2, 0), (1, 1)]


@pytest.mark.parametrize("higher", [False, True])
def test_a_forest_colours_what_is_shown_and_names_the_directions(higher):
    effects = pd.DataFrame(
        {"name": ["u", "v", "w", "x"], "n": 5, "difference": [0.1, -0.2, 0.0, 0.3], "low": -1.0, "high": 1.0,
         "verdict": ["worse", "better", "no difference shown", "too few seeds (1, 2 needed)"]}
    )  # fmt: skip
    figure = forest(effects, "a − b", higher_is_better=higher)
    (axis,) = figure.axes
    assert [p[::2] for p in points(axis)] == [
        (0.1, palette.VERMILLION), (-0.2, palette.GREEN), (0.0, palette.GREY), (0.3, palette.GREY),
    ]  # fmt: skip
    hollow = [line.get_markerfacecolor() for line in axis.get_lines() if line.get_marker() == "o"]
    assert [fill == "white" for fill in hollow] == [False, False, True, True]
    left, right = axis.get_xlabel().split("a − b")
    assert ("worse" in left) == higher == ("better" in right)


def test_a_forest_of_several_panels_breaks_its_label():
    effects = pd.DataFrame(
        {
            "panel": ["p", "q"],
            "name": "u",
            "n": 5,
            "difference": [0.1, 0.2],
            "low": 0.0,
            "high": 1.0,
            "verdict": "worse",
        }
    )
    figure = forest(effects, "a − b")
    assert [axis.get_xlabel() for axis in figure.axes] == ["a − b\n← better    worse →"] * 2


def test_curves_have_bands_units_and_floors():
    frame = pd.DataFrame(
        {"panel": ["p"] * 4 + ["q"] * 2, "line": ["a"] * 4 + ["b"] * 2, "x": [2, 1, 1, 2, 1, 2],
         "value": [4.0, 3.0, 1.0, 2.0, 5.0, 6.0], "low": [np.nan] * 4 + [4.5, 5.5], "high": [np.nan] * 4 + [5.5, 6.5],
         "unit": [1, 1, 2, 2, 3, 3]}
    )  # fmt: skip
    styles = {"a": {"color": palette.BLUE}, "b": {"color": palette.ORANGE}, "unused": {"color": palette.BLACK}}
    floors = pd.DataFrame({"baseline": ["constant"], "value": [9.0]})
    figure = curves(frame, styles, "epoch", "loss", floors=floors, columns=2, log=True, integer=True)
    first, second = figure.axes
    drawn = [line.get_xydata().tolist() for line in first.get_lines()]
    assert drawn[:2] == [[[1, 3], [2, 4]], [[1, 1], [2, 2]]]
    assert (len(first.collections), len(second.collections)) == (0, 1)
    assert drawn[2] == [[0, 9], [1, 9]]
    assert (first.get_ylabel(), second.get_ylabel(), second.get_xlabel()) == ("loss", "", "epoch")
    assert first.get_yscale() == "log"
    assert entries(figure) == ["a", "b", "constant"]


def test_a_heat_map_prints_every_number_and_dashes():
    wide = pd.DataFrame({"c": [0.9, -0.2], "d": [np.nan, 1.2]}, index=["a", "b"])
    figure = heatmap({"one": wide, "two": wide}, emphasis=lambda value: value > 1)
    first, second, bar = figure.axes
    assert [text.get_text() for text in second.texts] == ["0.90", "–", "-0.20", "1.20"]
    assert [text.get_style() for text in first.texts] == ["normal", "normal", "normal", "italic"]
    assert [text.get_color() for text in first.texts] == ["black", "black", "white", "black"]
    assert first.get_images()[0].get_clim() == (0, 1)
    assert names(first) == ["a", "b"]
    assert bar is not second


def test_a_grid_keeps_the_axes_that_are_asked_for():
    figure, axes = grid(3, 2, 2.0, [1.0, 2.0, 0.5])
    assert len(axes) == len(figure.axes) == 3
    assert figure.get_figheight() == pytest.approx(2.0 + 0.5 + 0.6)


def test_learning_curves_keep_training_and_validation_apart():
    rows = [
        {"epoch": epoch, "split": split, "name": name, "value": value / epoch}
        for epoch in (1, 2, 3)
        for split, name, value in (
            ("train", "loss/total", 3.0),
            ("train", "loss/task", 2.0),
            ("valid", "loss/task", 1.0),
        )
    ]
    left, right = learning_curves(pd.DataFrame(rows), best_epoch=3).axes
    drawn = {line.get_label(): line.get_ydata() for axis in (left, right) for line in axis.get_lines()}
    np.testing.assert_allclose(drawn["validation"], [1, 0.5, 1 / 3])
    np.testing.assert_allclose(drawn["training loss (sum of terms)"], [3, 1.5, 1])
    np.testing.assert_allclose(drawn["task"], [2, 1, 2 / 3])
    assert "kept: epoch 3" in drawn


def test_predicted_against_true_says_the_error():
    frame = pd.DataFrame({"label": [0.0, 1.0], "prediction": [0.5, 1.5]})
    assert "0.500, 2 samples" in predicted_against_true(frame, (-3, 3)).axes[0].get_title()


def test_a_picture_is_told_in_its_own_words():
    frame = pd.DataFrame({"panel": ["one", "two"], "line": ["a", "a"], "x": [0, 1], "value": [2.0, 3.0]})
    figure = curves(frame, {"a": {"color": palette.BLUE, "label": "first"}}, "epoch", "error")
    assert alternative_text(figure) == "Figure; panels: one, two; horizontal: epoch; vertical: error; legend: first"
    table = pd.DataFrame({"x": [0.1]}, index=["a line"])
    assert alternative_text(heatmap({"one": table})) == "Figure; panels: one; lines: a line"
    figure.set_label("The error grows.")
    assert alternative_text(figure) == "The error grows."
    assert "teacher" in alternative_text(diagrams.draw(diagrams.hrlf()))
