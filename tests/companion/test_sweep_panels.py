"""Figures of sweeps: the drawn numbers, read back from the axes, and the rows that they are made of."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion import sweeps_catalogue as catalogue
from companion.sweeps_panels import difference_panels, result_panels, sensitivity_panels
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.figures import palette

TIMED = "audio=timing; max_length=256; text=timed_words; vision=None"


def points(axis):
    """Colour, filling and place of each dot."""
    return [
        (to_hex(line.get_color()), line.get_markerfacecolor(), *line.get_xydata()[0])
        for line in axis.get_lines()
        if line.get_marker() == "o"
    ]


def spans(axis, width):
    """Ends of the horizontal lines of one width."""
    found = [
        line.get_xydata() for line in axis.get_lines() if line.get_linewidth() == width and len(line.get_xydata()) == 2
    ]
    return [tuple(xy[:, 0]) for xy in found if xy[0, 1] == xy[1, 1]]


def names(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


@pytest.fixture
def summary():
    """As ``sweep_main_summary.csv``: two methods on two data sets and on MOSI's other input, constants."""
    rows = []
    for dataset, variant, methods in (
        ("synthetic", "", {"hrlf": 0.9, "text_only": 0.8}),
        ("mosi", "", {"text_only": 1.0}),
        ("mosi", TIMED, {"collaborative_mmcl": 1.1}),
    ):
        for method, mean in methods.items():
            rows.append(
                {"dataset": dataset, "variant": variant, "method": method, "metric": "mae", "n": 5, "mean": mean,
                 "low": mean - 0.1, "high": mean + 0.1, "item_low": mean - 0.2, "item_high": mean + 0.2,
                 "constant": False}
            )  # fmt: skip
        for method, mean in (("constant_mean", 1.5), ("constant_median", 1.4), ("oracle_test_majority", 1.2)):
            rows.append({"dataset": dataset, "variant": "", "method": method, "metric": "mae", "n": 1, "mean": mean,
                         "constant": True})  # fmt: skip
    return pd.DataFrame(rows)


def test_main_results_draw_each_method_with_two_intervals_beside_the_best_fitted_constant(summary):
    rows, floors = catalogue.main_rows(summary)
    assert list(rows["data"]) == [catalogue.DATA["mosi"], catalogue.TIMED, "synthetic", "synthetic"]
    assert list(rows["name"]) == ["text_only", "collaborative_mmcl", "text_only", "hrlf, printed weights"]
    assert floors["value"].tolist() == [1.4] * 3  # never the oracle
    figure = result_panels(rows, floors, "MAE ↓", factor=10)
    mosi, _, synthetic = figure.axes
    assert names(synthetic) == ["text_only  (n=5)", "hrlf, printed weights  (n=5)"]
    assert [x for _, _, x, _ in points(synthetic)] == pytest.approx([8.0, 9.0])
    assert points(mosi)[0][0] == palette.METHOD["text_only"].lower()
    np.testing.assert_allclose(spans(mosi, 1.0), [(8.0, 12.0)])
    np.testing.assert_allclose(spans(mosi, 3.2), [(9.0, 11.0)])
    assert [line.get_xdata()[0] for line in mosi.get_lines() if line.get_linestyle() == "--"] == [14.0]


def test_without_item_intervals_only_those_over_seeds_are_drawn(summary):
    rows, floors = catalogue.main_rows(summary.assign(item_low=np.nan, item_high=np.nan))
    assert spans(result_panels(rows, floors, "MAE").axes[0], 1.0) == []


def comparison(**changes):
    row = {
        "dataset": "synthetic", "fold": "standard", "method": "hrlf", "variant": "lambda_frf=0.01; lambda_hal=0.01",
        "reference_method": "early_fusion", "reference_variant": "", "n": 5, "difference": -0.2, "low": -0.3,
        "high": -0.1, "item_low": -0.4, "item_high": -0.05, "verdict": "better",
    }  # fmt: skip
    return {**row, **changes}


def test_differences_are_coloured_only_where_one_is_shown():
    frame = pd.DataFrame(
        [
            comparison(),
            comparison(method="self_mm", variant="", difference=0.3, verdict="worse"),
            comparison(method="text_only", variant="", difference=0.0, verdict="no difference shown"),
            comparison(method="late_fusion", variant="", reference_method="text_only"),
        ]
    )
    rows = catalogue.control_rows(frame, "early_fusion")
    assert list(rows["name"]) == ["text_only", "self_mm", "hrlf, chosen weights"]
    (axis,) = difference_panels(rows, "method − control").axes
    colors = [(color, face if face == "white" else to_hex(face)) for color, face, _, _ in points(axis)]
    green, red, grey = (c.lower() for c in (palette.GREEN, palette.VERMILLION, palette.GREY))
    assert colors == [(grey, "white"), (red, red), (green, green)]
    assert "← better" in axis.get_xlabel()
    assert axis.get_xlabel().index("better") < axis.get_xlabel().index("worse")


def test_ablations_have_a_panel_per_method_and_name_what_they_change():
    full = "lambda_frf=0.01; lambda_hal=0.01"
    frame = pd.DataFrame(
        [
            comparison(variant=f"{full}; no_frf=True", reference_method="hrlf", reference_variant=full),
            comparison(method="contrastive_mmcl", variant="decouple=uniformity", reference_method="contrastive_mmcl"),
            comparison(
                method="contrastive_mmcl", variant="no_cmc=True; no_smc=True", reference_method="contrastive_mmcl"
            ),
        ]
    )
    rows = catalogue.ablation_rows(frame)
    assert list(rows["panel"]) == ["contrastive_mmcl", "contrastive_mmcl", "hrlf"]
    assert list(rows["name"]) == ["decouple=uniformity", "no_cmc; no_smc", "no_frf"]
    figure = difference_panels(rows, "switch − full", columns=2)
    assert [axis.get_title() for axis in figure.axes if axis.axison] == ["contrastive_mmcl", "hrlf"]


def sensitivity_results():
    generator = np.random.default_rng(0)
    rows = [
        {
            "dataset": dataset, "variant": f"{key}={value}" if value != default else "", "method": method,
            "seed": seed, "metric": "mae", "split": split, "value": generator.normal(),
        }
        for method, dataset, key, default, values in (
            ("contrastive_mmcl", "synthetic", "temperature_cmc", 0.1, (0.05, 0.1, 1.0)),
            ("collaborative_mmcl", "synthetic", "temperature", 0.1, (0.1, 1.0)),
            ("modal_alignment", "synthetic", "lambda_cov", 1.0, (0.0, 1.0)),
            ("modal_alignment", "mosi", "lambda_cov", 1.0, (0.0, 1.0)),
        )
        for value in values for seed in (1, 2, 3) for split in ("valid", "test")
    ]  # fmt: skip
    constant = {
        "dataset": "mosi",
        "variant": "",
        "method": "constant_mean",
        "metric": "mae",
        "split": "test",
        "value": 1.0,
    }
    return pd.DataFrame([*rows, constant]).astype({"seed": "Int64"})


def test_sensitivity_separates_parameters_and_data_sets_and_marks_the_default():
    results = sensitivity_results()
    rows = catalogue.sensitivity_rows(results)
    titles = list(dict.fromkeys(rows["panel"]))
    assert [title.split("\n")[1] for title in titles] == [
        "temperature of CMC", "weight of the covariance loss", "weight of the covariance loss",
        "decoupling temperature",
    ]  # fmt: skip
    assert set(rows.loc[rows["default"], "value"]) == {0.1, 1.0}
    one = rows[(rows["panel"] == titles[0]) & (rows["split"] == "test") & (rows["value"] == 0.05)].iloc[0]
    own = results[(results["variant"] == "temperature_cmc=0.05") & (results["split"] == "test")]
    expected = summarise_seeds(own.assign(k=1), by=["k"]).iloc[0]
    assert one[["n", "mean", "low", "high"]].tolist() == expected[["n", "mean", "low", "high"]].tolist()
    figure = sensitivity_panels(rows, "MAE ↓", columns=3)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == titles
    assert [label.get_text() for label in shown[0].get_xticklabels()] == ["0.05", "0.1", "1"]
    band = next(line for line in shown[0].get_lines() if line.get_linewidth() == 6)
    assert band.get_xdata()[0] == 1  # the second of three places
