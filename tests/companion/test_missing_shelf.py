"""The missing-modality benchmark: tables from real runs, means by hand, printed numbers and constants."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score as sklearn_f1

from companion import missing
from companion.__main__ import main
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import prediction_spread
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.files import write_manifest
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.paths import project_root

PUBLISHED = project_root() / "data" / "published" / "published_results.csv"
COMMON = {
    "data": {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6},
    "settings": {"device": "cpu"},
    "config": {"max_epochs": 1, "batch_size": 16},
    "protocols": ("frames", "subsets", "rate"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Plain and augmented runs of two methods, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_LIB_MASKS", str(folder / "masks"))
        for method in ("text_only", "early_fusion"):
            for recipe in ("none", "stochastic"):
                for seed in (1, 2):
                    config = RunConfig(method=method, missing=recipe, seed=seed, **COMMON)
                    run(config, folder / "missing", progress="none")
    return folder


@pytest.fixture
def copied(runs, tmp_path):
    """A copy that may be spoilt."""
    shutil.copytree(runs / "missing", tmp_path / "copy" / "missing")
    return tmp_path / "copy" / "missing"


def listed(folder):
    found = collect(folder)
    return missing.run_states(folder, found.assign(table="synthetic"))


def fail(folder, source, error, **changes):
    """A failed run with the configuration of ``source``, but for ``changes``."""
    target = folder / f"failed{changes.get('seed', '')}"
    target.mkdir()
    stored = files.read_json(source / files.CONFIG)
    stored["config"] |= changes
    files.write_json(target / files.CONFIG, stored)
    files.write_json(target / files.ERROR, error)


def test_all_cells_of_all_runs_are_kept_and_rounded(runs, tmp_path, capsys):
    assert main(["results", str(runs), "--only", "missing", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["missing_synthetic.csv", "missing_spread.csv", "missing_runs.csv"]
    table = read_results(tmp_path / "missing_synthetic.csv")
    expected = collect(runs / "missing").query("split == 'test'")
    expected = expected[expected["metric"].isin(missing.METRICS)].reset_index(drop=True)
    keys = ["run_id", "method", "protocol", "level", "metric"]
    merged = table.merge(expected, on=keys, suffixes=("", "_all"))
    assert len(merged) == len(table) == len(expected)
    np.testing.assert_allclose(merged["value"], merged["value_all"], atol=5.1e-5)
    assert {"acc5", "acc2_neg_nonneg"}.isdisjoint(table["metric"])
    assert (
        missing.augmentation_effects(missing.summaries_of(table))["name"].tolist() == ["text_only", "early_fusion"] * 3
    )


def test_spread_is_that_of_the_stored_predictions(runs, tmp_path):
    missing.write(runs, tmp_path)
    table = pd.read_csv(tmp_path / "missing_spread.csv", dtype={"level": str})
    assert set(table["protocol"]) == {"frames", "subsets", "rate"}
    assert not table.duplicated(["run_id", "protocol", "level"]).any()
    for row in table.query("protocol == 'rate' and level == '0.5'").itertuples():
        stored = find_run(row.run_id, runs / "missing").predictions("test", "rate", 0.5)
        expected = prediction_spread(stored.predictions, regression())
        assert row.sd == pytest.approx(expected["sd"], abs=5.1e-5)
        assert row.entropy == pytest.approx(expected["entropy"], abs=5.1e-5)


def test_every_run_is_listed_with_one_fingerprint_of_the_masks(runs):
    table = listed(runs / "missing")
    assert len(table) == 8
    assert set(table["state"]) == {"finished"}
    stored = find_run(table["run_id"].iloc[0], runs / "missing").environment["mask_fingerprint"]
    assert table["masks"].unique().tolist() == [stored]
    assert len(stored) == 64


def test_a_failed_run_is_listed_and_one_that_was_repeated_is_not(copied):
    source = next(copied.glob(f"*/{files.DONE}")).parent
    error = {"type": "TrainingError", "message": "the states\ncollapsed"}
    fail(copied, source, error, seed=9)
    fail(copied, source, error)  # the same seed as the finished run
    table = listed(copied)
    failed = table[table["state"] == "failed"]
    assert failed["seed"].tolist() == [9]
    assert failed["error"].tolist() == ["TrainingError: the states collapsed"]
    assert failed["changes"].tolist() == table.loc[table["run_id"] == source.name, "changes"].tolist()
    assert len(table) == 9


def test_complete_input_that_differs_from_rate_0_is_refused(copied, tmp_path):
    source = next(copied.glob(f"*/{files.DONE}")).parent
    table = files.read_table(source / files.METRICS)
    wrong = (table["protocol"] == "frames") & (table["level"] == "0.0") & (table["metric"] == "mae")
    files.write_table(source / files.METRICS, table.assign(value=table["value"].where(~wrong, 9.0)))
    write_manifest(source, files.RESULTS)
    with pytest.raises(DataError, match=r"has mae 9.0 under frames 0.0 and .* on complete input"):
        missing.curated_cells(collect(copied), tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


# --- numbers by hand ---

SUBSETS = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]
RATES = [str(step / 10) for step in range(11)]
MOSI = '{"audio": "audio73"}'
AUGMENTED = {"missing": "stochastic"}
WEIGHTS = {"lambda_frf": 0.1}


def cells(method, changes, height, *, label="", dataset="mosi", subsets=SUBSETS, metric="f1_neg_pos", seeds=(1, 3)):
    """Frames fall by .02 a step, subsets rise by .05, rates are level; a seed adds .01 times its number."""
    levels = [("complete", "0.0", height)]
    levels += [("frames", rate, height - 0.02 * i) for i, rate in enumerate(RATES)]
    levels += [("subsets", name, height - 0.3 + 0.05 * i) for i, name in enumerate(subsets)]
    levels += [("rate", rate, height - 0.1) for rate in ("0.2", "0.4")]
    own = {"method": method, "label": label, "changes": json.dumps(changes), "dataset": dataset, "fold": "standard",
           "data_options": MOSI if dataset == "mosi" else "{}"}  # fmt: skip
    return [
        {**own, "run_id": f"{method}{changes}{seed}", "seed": seed, "protocol": protocol, "level": level,
         "split": "test", "metric": metric, "value": value + 0.01 * seed + 0.001 * (seed * len(method) % 3)}
        for seed in seeds for protocol, level, value in levels
    ]  # fmt: skip


def constant(value, method="constant_mean", **options):
    first = cells(method, {}, value, **options)[0]
    return pd.DataFrame([{**first, "run_id": "", "seed": None, "value": value, "data_options": "{}"}])


def frame(**options):
    rows = [
        *cells("early_fusion", AUGMENTED, 0.8, **options), *cells("early_fusion", {}, 0.9, **options),
        *cells("hrlf", WEIGHTS, 0.7, label="chosen_weights", **options), *cells("hrlf", {}, 0.95, **options),
    ]  # fmt: skip
    floors = {"constant_mean": 0.42, "constant_prior": 0.1, "oracle_test_majority": 0.42}
    parts = [constant(value, method, **options) for method, value in floors.items()]
    return pd.concat([pd.DataFrame(rows), *parts], ignore_index=True).astype({"seed": "Int64"})


def test_rows_are_named_and_ordered_for_readers():
    rows = missing.with_training(frame())
    order = rows[rows["training"] != ""].drop_duplicates(["name", "training"])[["name", "training"]]
    assert order.to_numpy().tolist() == [
        ["early_fusion", "plain"], ["early_fusion", "augmented"], ["hrlf, chosen weights", "augmented"],
        ["hrlf", "augmented"],
    ]  # fmt: skip
    assert set(rows["data"]) == {"CMU-MOSI"}
    assert rows["method"].tolist()[-1] == "oracle_test_majority"
    both = ("CMU-MOSI", "CMU-MOSI, word timing")  # labels and so constants are the same
    assert missing.best_constants(frame(metric="mae")) == dict.fromkeys(both, 0.42)
    more = pd.concat([frame(), constant(0.5, "constant_median")])
    assert missing.best_constants(more, "f1_neg_pos") == dict.fromkeys(both, 0.5)


def test_each_protocol_in_one_number():
    rows = pd.concat([frame(metric="mae", seeds=(1, 2, 3)), frame(metric="mae", dataset="mmmo", seeds=(1, 2, 3))])
    found = missing.summaries_of(rows)
    assert list(dict.fromkeys(zip(found["summary"], found["data"], strict=True))) == [
        (summary, data) for summary in missing.SUMMARIES.values() for data in ("CMU-MOSI", "ICT-MMMO")
    ]  # fmt: skip
    own = missing.means_of(found).query("data == 'CMU-MOSI' and name == 'hrlf, chosen weights'")
    noise = 0.02 + 0.001
    assert own.set_index("summary")["mean"].to_dict() == pytest.approx(
        {"A, frames": 0.7 - 0.09 + noise, "B, subsets": 0.7 - 0.175 + noise, "C, rate": 0.7 - 0.1 + noise}
    )
    added = missing.augmentation_effects(found)
    assert set(added["name"]) == {"early_fusion"}
    assert added["difference"].tolist() == pytest.approx([-0.1] * 6)
    beyond = missing.control_effects(found).query("name == 'hrlf, chosen weights'")
    assert beyond["difference"].tolist() == pytest.approx([-0.1] * 6, abs=0.002)
    assert set(beyond["verdict"]) == {"better"}
    level = missing.levels_of(rows, "frames").query(
        "data == 'ICT-MMMO' and name == 'early_fusion' and training == 'plain'"
    )
    assert level["mean"].tolist() == pytest.approx([0.92 - 0.02 * i for i in range(11)])


def test_the_layout_of_the_paper():
    figure, rows = missing.draw_subsets(pd.concat([frame(), constant(0.5, "constant_median")]), "f1_neg_pos")
    axis = figure.axes[0]
    headings = [label.get_text() for label in axis.get_xticklabels()]
    assert headings == ["{l}", "{a}", "{v}", "{l,a}", "{l,v}", "{a,v}", "Avg.", "{l,a,v}"]
    lines = [label.get_text() for label in axis.get_yticklabels()]
    assert lines == ["early fusion", "early fusion, with gaps", "HRLF, chosen weights, with gaps", "HRLF, with gaps",
                     "best constant"]  # fmt: skip
    fields = [text.get_text() for text in axis.texts]
    assert fields[:8] == ["62.0", "67.0", "72.0", "77.0", "82.0", "87.0", "74.5", "92.0"]
    assert fields[-8:] == ["50.0"] * 8
    italics = [text.get_text() for text in axis.texts if text.get_style() == "italic"]
    assert italics == ["42.0", "47.0"]  # HRLF with chosen weights, from words and from audio alone
    assert len(rows) == 4 * 7
    few = missing.draw_subsets(frame(subsets=["text", "audio", "text+audio"]), "f1_neg_pos")[0].axes[0]
    assert [text.get_text() for text in few.texts][:4] == ["62.0", "67.0", "64.5", "72.0"]


def test_a_model_that_answers_everybody_alike_has_no_spread():
    own = {"table": "mosi", "method": "text_only", "label": "", "changes": "{}", "data_options": MOSI,
           "dataset": "mosi", "protocol": "frames"}  # fmt: skip
    rows = [{**own, "seed": seed, "level": level, "sd": sd * seed}
            for seed in (1, 3) for level, sd in ((0.0, 0.5), (0.5, 9.0), (0.9, 0.0))]  # fmt: skip
    _, means = missing.missing_spread(pd.DataFrame(rows))
    assert means[["level", "mean"]].to_numpy().tolist() == [["complete input", 1.0], ["90 % of frames missing", 0.0]]


def test_printed_numbers_stand_apart_and_are_those_of_the_paper():
    published = pd.read_csv(PUBLISHED)
    table = missing.printed_subsets(published, "HRLF Table 1", "mosi")
    lines = [line.split() for line in repr(table).splitlines()]
    assert ["method", *missing.PRINTED.values()] in lines
    assert ["HRLF", "83.36", "69.47", "64.59", "83.82", "83.56", "75.62", "76.74", "84.15"] in lines
    assert "never compared" in table.title
    assert "GloVe 300" in table.title
    with pytest.raises(DataError, match="no published 'f1' on mosi is quoted from 'Table 9'"):
        missing.printed_subsets(published, "Table 9", "mosi")


def test_never_this_emotion_has_the_golden_values():
    found = (100 * missing.never_this_emotion()).round(2)
    assert found["weighted"].to_dict() == {"happy": 80.59, "sad": 65.44, "angry": 64.87, "neutral": 47.41}
    assert found["macro"].to_dict() == {"happy": 46.45, "sad": 43.14, "angry": 43.00, "neutral": 38.26}


@pytest.mark.parametrize("counts", [{"a": 3, "b": 5, "c": 4}, missing.IEMOCAP_COUNTS])
def test_never_this_emotion_is_that_of_scikit_learn(counts):
    found, total = missing.never_this_emotion(counts), sum(counts.values())
    for name, count in counts.items():
        truth = np.array([1] * count + [0] * (total - count))
        never = np.zeros(total, int)
        for average in ("weighted", "macro"):
            assert found.loc[name, average] == pytest.approx(sklearn_f1(truth, never, average=average))


def test_hrlf_happy_without_language_is_below_the_constant():
    found = missing.printed_cells(pd.read_csv(PUBLISHED))
    assert found.groupby("group", sort=False).size().to_dict() == dict.fromkeys(missing.IEMOCAP_COUNTS, 72)
    assert found["floor"].unique().round(2).tolist() == [80.59, 65.44, 64.87, 47.41]
    happy = found.query("method == 'hrlf' and group == 'happy' and below")
    assert happy["setting"].tolist() == ["{a}", "{v}", "{a,v}", "Avg."]
