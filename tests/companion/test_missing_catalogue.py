"""The committed figures of the missing-modality benchmark show the numbers of their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from companion import missing_catalogue as catalogue

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published" / "published_results.csv"
SUBSETS = ("text", "audio", "text+audio")
CHOSEN = "lambda_frf=0.1; lambda_hal=0.1"
DATA = "audio=audio73"


def cells(method, variant, height, dataset):
    levels = [("frames", str(step / 10), height + 0.05 * step) for step in range(11)]
    levels += [("subsets", name, height + 0.3 - 0.1 * i) for i, name in enumerate(SUBSETS)]
    levels += [("rate", "0.2", height + 0.1), ("rate", "0.4", height + 0.2)]
    return [
        {"run_id": f"{method}{variant}{seed}", "method": method, "variant": variant or None, "dataset": dataset,
         "fold": "standard", "seed": float(seed), "protocol": protocol, "level": level, "split": "test",
         "metric": "mae", "value": value + 0.01 * seed + 0.001 * (seed * len(method) % 3)}
        for seed in (1, 2, 3) for protocol, level, value in levels
    ]  # fmt: skip


def table(name):
    """A curated table as ``pd.read_csv`` gives it."""
    dataset, shared = name.partition("_")[0], [DATA] if name == "mosi" else []
    rows = []
    for method, change, height in (
        ("hrlf", "", 0.8), ("hrlf", CHOSEN, 0.6), ("text_only", "", 1.0), ("text_only", "missing=stochastic", 0.9),
        ("early_fusion", "missing=stochastic", 0.7), ("early_fusion", "", 0.75),
    ):  # fmt: skip
        rows += cells(method, "; ".join(sorted([*shared, *change.split("; ")])).strip("; "), height, dataset)
    for method, value in (("constant_mean", 1.4), ("constant_median", 1.3), ("constant_prior", 1.2)):
        rows.append({**rows[0], "run_id": None, "seed": np.nan, "method": method, "variant": None, "value": value})
    return pd.DataFrame(rows)


@pytest.fixture
def tables():
    return [table(name) for name in catalogue.SETS]


def names(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_rows_are_named_and_ordered_for_readers():
    rows = catalogue.benchmark_rows(table("mosi"), "mosi")
    order = rows[rows["seed"].notna()].drop_duplicates(["name", "training"])[["name", "training"]]
    assert order.to_numpy().tolist() == [
        ["text_only", "plain"], ["text_only", "augmented"], ["early_fusion", "plain"], ["early_fusion", "augmented"],
        ["hrlf, printed weights", "augmented"], ["hrlf, chosen weights", "augmented"],
    ]  # fmt: skip
    assert set(rows["dataset"]) == {"MOSI"}
    assert catalogue.best_constants(rows) == {"MOSI": 1.3}


def test_several_choices_of_weights_are_told_apart():
    more = pd.concat([table("synthetic"), pd.DataFrame(cells("hrlf", "lambda_frf=0.5", 0.9, "synthetic"))])
    found = set(catalogue.benchmark_rows(more, "synthetic")["name"])
    assert {"hrlf, printed weights", f"hrlf, {CHOSEN}", "hrlf, lambda_frf=0.5"} <= found


@pytest.mark.parametrize("name", ["synthetic", "mosi", "mmmo"])
def test_curves_and_heat_maps(name):
    picture, drawn = getattr(catalogue, f"missing_curves_{name}")(table(name))
    assert [axis.get_title() for axis in picture.axes] == [
        "text_only", "early_fusion", "hrlf, printed weights", "hrlf, chosen weights",
    ]  # fmt: skip
    plain = drawn[(drawn["method"] == "text_only") & (drawn["training"] == "plain")].set_index("level")["mean"]
    assert plain["0.0"] == pytest.approx(1.02)
    picture, _ = getattr(catalogue, f"missing_subsets_{name}")(table(name))
    assert names(picture.axes[0]) == [
        "text_only, plain", "text_only, augmented", "early_fusion, plain", "early_fusion, augmented",
        "hrlf, printed weights", "hrlf, chosen weights", "constant",
    ]  # fmt: skip


def test_the_timed_set_is_drawn_alike():
    picture, drawn = catalogue.missing_curves_timed(table("mosi_timed"))
    assert set(drawn["dataset"]) == {"MOSI, word timing"}
    assert len(picture.axes) == 4


def test_summaries_and_overview_of_all_sets(tables):
    picture, drawn = catalogue.missing_summaries(*tables)
    assert len(picture.axes) == 9
    own = drawn[(drawn["dataset"] == "MOSI") & (drawn["name"] == "hrlf, chosen weights")].set_index("summary")["mean"]
    noise = 0.02 + 0.001  # means over seeds of both parts
    assert own.to_dict() == pytest.approx(
        {
            "mean over rates 0 … .9": 0.6 + 0.225 + noise,
            "Avg. of subsets": 0.6 + 0.25 + noise,
            "mean over MR": 0.6 + 0.15 + noise,
        }
    )
    picture, _ = catalogue.missing_overview(*tables)
    assert len(picture.axes) == 6


def test_effects_of_augmentation_and_over_the_control(tables):
    _, effects = catalogue.missing_augmentation(*tables)
    assert set(effects["name"]) == {"text_only", "early_fusion"}
    assert effects.set_index(["dataset", "summary", "name"])["difference"].loc[
        ("ICT-MMMO", "mean over MR", "early_fusion")
    ] == pytest.approx(-0.05)
    _, effects = catalogue.missing_control(*tables)
    assert set(effects["name"]) == {"text_only", "hrlf, printed weights", "hrlf, chosen weights"}
    chosen = effects[effects["name"] == "hrlf, chosen weights"]
    assert chosen["difference"].to_numpy() == pytest.approx([-0.1] * 9, abs=0.002)
    assert set(chosen["verdict"]) == {"better"}


def test_spread_is_the_mean_over_seeds_by_rate():
    rows = [
        {"table": name, "run_id": "x", "method": "hrlf", "variant": None, "dataset": "d", "fold": "standard",
         "seed": seed, "protocol": protocol, "level": level, "sd": seed / 10, "entropy": 1.0, "one_class": seed == 3}
        for name in ("mmmo", "mosi", "mosi_timed") for seed in (1, 3) for protocol, level in
        (("frames", "0.0"), ("frames", "1.0"), ("subsets", "text"))
    ]  # fmt: skip
    picture, drawn = catalogue.missing_spread(pd.DataFrame(rows))
    assert drawn["sd"].tolist() == pytest.approx([0.2] * 4)
    assert drawn["one_class"].tolist() == [0.5] * 4
    assert list(dict.fromkeys(drawn["dataset"])) == ["MOSI", "ICT-MMMO"]
    assert len(picture.axes) == 4


def test_printed_cells_are_those_of_table_2():
    published = pd.read_csv(PUBLISHED)
    picture, drawn = catalogue.missing_iemocap(published)
    assert len(drawn) == 9 * 8 * 4
    assert [axis.get_title() for axis in picture.axes] == ["happy", "sad", "angry", "neutral"]
    happy = drawn[(drawn["group"] == "happy") & (drawn["method"] == "hrlf")].set_index("setting")
    assert happy["value"].to_dict() == {
        "{l}": 84.9, "{a}": 71.8, "{v}": 69.7, "{l,a}": 86.4, "{l,v}": 85.6, "{a,v}": 72.3, "Avg.": 78.5,
        "{l,a,v}": 88.1,
    }  # fmt: skip
    assert happy.index[happy["below"]].tolist() == ["{a}", "{v}", "{a,v}", "Avg."]
