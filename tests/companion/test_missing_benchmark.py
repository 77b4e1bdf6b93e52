"""Panels of the missing-modality benchmark show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion import missing_benchmark as draw
from mmsa_lib.figures import palette
from mmsa_lib.figures.style import style

RATES = ["0.0", "0.5", "1.0"]


def drawn(figure):
    with style():
        figure.draw_without_rendering()
    return figure


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def curves():
    rows = [
        {"dataset": dataset, "method": method, "name": name, "training": training, "level": level,
         "mean": 0.5 + 0.1 * place + i, "low": 0.4 + i, "high": 0.9 + i, "sd": 1 - 0.5 * i, "one_class": float(i == 2)}
        for dataset in ("MOSI", "ICT-MMMO")
        for place, (method, name, training) in enumerate(
            [("early_fusion", "early_fusion", "plain"), ("early_fusion", "early_fusion", "augmented"),
             ("hrlf", "hrlf, printed", "augmented"), ("hrlf", "hrlf, chosen", "augmented")]
        )
        for i, level in enumerate(RATES)
    ]  # fmt: skip
    return pd.DataFrame(rows).sample(frac=1, random_state=0).sort_values("dataset", kind="stable")


def lines(axis, marked=True):
    return [line for line in axis.lines if (line.get_marker() not in ("None", "", None)) == marked]


def test_each_method_has_its_panel_with_both_trainings_control_and_floor(curves):
    one = curves[curves["dataset"] == "MOSI"].sort_values(["method", "name", "level"])
    figure = drawn(
        draw.method_curves(one, "MAE", 2, floor=("best constant", 0.7), control="early_fusion", title="MOSI")
    )
    assert titles(figure) == ["early_fusion", "hrlf, chosen", "hrlf, printed"]
    first, second, _ = figure.axes
    plain, augmented = lines(first)
    np.testing.assert_allclose(plain.get_ydata(), [1, 3, 5])
    np.testing.assert_allclose(augmented.get_ydata(), [1.2, 3.2, 5.2])
    assert list(plain.get_xdata()) == [0, 0.5, 1]
    assert to_hex(plain.get_color()) != to_hex(augmented.get_color())
    assert len(first.collections) == 2
    assert [line.get_ydata()[0] for line in lines(first, marked=False)] == [1.4]
    floor, control = lines(second, marked=False)
    np.testing.assert_allclose(control.get_ydata(), [1.2, 3.2, 5.2])
    assert list(floor.get_ydata()) == [1.4, 1.4]
    assert legend(figure)[-2:] == ["early_fusion, with missing samples", "best constant"]


def test_the_overview_has_data_sets_down_and_trainings_across(curves):
    figure = drawn(draw.overview_curves(curves, "MAE", floors={"MOSI": 0.7, "ICT-MMMO": 0.8}))
    assert titles(figure)[:2] == ["ICT-MMMO, trained on complete samples", "ICT-MMMO, trained with missing samples"]
    assert [len(lines(axis)) for axis in figure.axes] == [1, 3, 1, 3]
    chosen = {line.get_linestyle() for line in lines(figure.axes[1]) if to_hex(line.get_color()) == "#000000"}
    assert chosen == {"-", "--"}
    assert [lines(axis, marked=False)[0].get_ydata()[0] for axis in figure.axes] == [0.8, 0.8, 0.7, 0.7]


@pytest.fixture
def summaries():
    rows = [
        {"dataset": dataset, "summary": summary, "name": name, "training": training, "n": 5 - (name == "hrlf"),
         "mean": 1 + 0.1 * i, "low": 0.9, "high": 1.3}
        for dataset in ("MOSI", "ICT-MMMO") for summary in ("Avg.", "MR")
        for i, (name, training) in enumerate(
            [("early_fusion", "plain"), ("early_fusion", "augmented"), ("hrlf", "augmented")]
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_summaries_show_means_intervals_and_fewer_runs(summaries):
    figure = drawn(draw.summary_grid(summaries, "MAE", floors={"MOSI": 1.5, "ICT-MMMO": 1.6}))
    assert titles(figure) == ["MOSI: Avg.", "ICT-MMMO: Avg.", "MR", "MR"]
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["early_fusion", "hrlf"]
    assert [line.get_xdata()[0] for line in lines(axis)] == [1.0, 1.1, 1.2]
    assert [text.get_text() for text in axis.texts] == ["n=4"]
    plain, augmented, _ = (line.get_ydata()[0] for line in lines(axis))
    assert plain < augmented
    assert not any(label.get_text() for label in figure.axes[1].get_yticklabels())


def test_effects_are_filled_where_a_difference_is_shown():
    effects = pd.DataFrame(
        {"dataset": "MOSI", "summary": "Avg.", "name": list("abc"), "n": 5, "difference": [-0.1, 0.1, 0.0],
         "low": [-0.2, 0.05, -0.1], "high": [0.0, 0.15, 0.1], "verdict": ["better", "worse", "no effect shown"]}
    )  # fmt: skip
    figure = drawn(draw.effect_panels(effects, "difference", 100, title="T"))
    marks = lines(figure.axes[0])
    assert [mark.get_xdata()[0] for mark in marks] == [-10, 10, 0]
    assert [mark.get_markerfacecolor() for mark in marks] == [palette.GREEN, palette.VERMILLION, "white"]
    assert legend(figure) == ["better (←)", "worse (→)", "no effect shown"]
    rising = draw.effect_panels(effects, "difference", higher_is_better=True)
    assert legend(rising)[:2] == ["better (→)", "worse (←)"]


def test_constant_predictions_have_a_white_mark(curves):
    figure = drawn(draw.spread_curves(curves))
    axis = figure.axes[0]
    (line, white) = axis.lines
    np.testing.assert_allclose(line.get_ydata(), [1, 0.5, 0])
    assert list(white.get_xdata()) == [1.0]
    assert white.get_markerfacecolor() == "white"
    assert axis.get_ylim()[0] == 0
    assert axis.get_ylim()[1] > 1


def test_printed_cells_stand_beside_the_constant():
    frame = pd.DataFrame(
        {"group": ["happy"] * 4 + ["sad"] * 4, "setting": ["{l}", "{a}"] * 4, "method": ["hrlf", "hrlf", "x", "x"] * 2,
         "value": [80.0, 70, 60, 50, 81, 71, 61, 51], "floor": [75.0] * 4 + [65.0] * 4}
    )  # fmt: skip
    figure = drawn(draw.printed_against_constant(frame, {"happy": 40.0}, "hrlf", "F1 (%)"))
    happy, sad = figure.axes
    other, mine = (dots.get_offsets() for dots in happy.collections)
    assert mine[:, 1].tolist() == [80, 70]
    assert other[:, 1].tolist() == [60, 50]
    assert [line.get_ydata()[0] for line in happy.lines] == [75, 40]
    assert [line.get_ydata()[0] for line in sad.lines] == [65]
    assert [label.get_text() for label in happy.get_xticklabels()] == ["{l}", "{a}"]
