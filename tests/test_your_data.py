"""docs/your_data.md: every command of the page, run on small files of the forms and names that it speaks of."""

import json
import pickle
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mmsa_lib.cli import main
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.store import read_store
from mmsa_lib.experiments import RunConfig, run

PAGE = (Path(__file__).resolve().parent.parent / "docs/your_data.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for line in re.findall(r"mmsa-lib [^`|\n]+", PAGE)
    if re.match(r"mmsa-lib data (import|check|info|template) [^L]", line)
]
SIZES = {"train": 42, "valid": 14, "test": 14}
IDS = [f"v{i // 5:02}$_${i % 5:04}" for i in range(70)]
WORDS = ["good", "bad", "film", "actor", "plot", "story", "fun", "dull", "sound", "picture"]
EMOTIONS = ["neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust"]
SENTIMENTS = ["negative", "neutral", "positive"]


def parts(columns):
    """Columns of all samples by split."""
    ends = np.cumsum([0, *SIZES.values()])
    return {
        split: {key: values[a:b] for key, values in columns.items()}
        for split, a, b in zip(SIZES, ends[:-1], ends[1:], strict=True)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with all files of the page."""
    folder, generator = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 5)) + f" {i}" for i in range(70)]
    labels = generator.uniform(-3, 3, 70).round(1)
    audio = [generator.normal(size=(generator.integers(3, 9), 5)) for _ in IDS]
    padded = {m: generator.normal(size=(70, 6, width)) for m, width in {"text": 8, "audio": 5, "vision": 4}.items()}
    halves, splits = np.arange(70) % 2, np.repeat(list(SIZES), list(SIZES.values()))

    def dump(name, tree):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(tree))

    def table(name, **columns):
        (folder / name).parent.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_csv(folder / name, index=False)

    table(
        "features.csv", id=IDS, split=splits, label=labels, **{f"audio:{i}": padded["audio"][:, 0, i] for i in range(5)}
    )
    table("unsplit.csv", id=range(70), video_id=[i[:3] for i in IDS], label=labels, text=texts)
    table("fet_single/samples.csv", id=[f"s{i}" for i in range(70)], split=splits, label=labels)
    for i, frames in enumerate(audio):
        dump(f"fet_single/s{i}.pkl", {"audio": frames, "vision": frames[:, :2]})
    own = {"id": IDS, "label": labels, "text": texts, "audio": audio, "speaker": [i[:3] for i in IDS]}
    dump("own.pkl", own)
    with h5py.File(folder / "own.h5", "w") as file:
        for key, values in {"id": IDS, "label": labels, "text": texts, "audio": padded["audio"]}.items():
            file[key] = values
    tokens = np.zeros((70, 6, 3))
    tokens[:, :4, 0], tokens[:, :4, 1] = generator.integers(1000, 2000, (70, 4)), 1
    of_labels = {"id": IDS, "raw_text": texts, "regression_labels": (labels / 3).tolist(), **padded}
    dump("fet.pkl", parts(of_labels | {"text_bert": tokens} | {f"label_{m}": (labels / 3).tolist() for m in "TAV"}))
    dump("official.pkl", parts(of_labels))
    dump("humor.pkl", parts(padded | {"labels": halves[:, None].astype(float)}))
    dump("sarcasm.pkl", parts(padded | {"labels": halves[:, None] * 2.0 - 1}))
    seven = np.column_stack([labels, generator.choice([0, 1 / 3, 1], (70, 6))])[:, None]
    dump("mosei.pkl", parts(padded | {"labels": seven}))
    for split, part in parts({"id": IDS, "label": labels, "text": texts}).items():
        table(f"tables/{split}.csv", **part)
    table(
        "label.csv",
        video_id=[i[:3] for i in IDS],
        clip_id=[i[-4:] for i in IDS],
        text=[f"这部电影 {i}" for i in range(70)],
        **{f"label{m}": (labels / 3).round(1) for m in ("", "_T", "_A", "_V")},
        annotation=[["Negative", "Neutral", "Positive"][int(np.sign(x)) + 1] for x in labels],
        mode=splits,
    )
    for name, dialogues in {"train": 7, "dev": 7, "test": 7}.items():
        count = dialogues * 3
        table(
            f"MELD/{name}_sent_emo.csv",
            **{"Sr No.": range(count), "Utterance": texts[:count], "Speaker": ["Ross"] * count},
            Emotion=[EMOTIONS[i % 7] for i in range(count)],
            Sentiment=[SENTIMENTS[i % 3] for i in range(count)],
            Dialogue_ID=[i // 3 for i in range(count)],
            Utterance_ID=[i % 3 for i in range(count)],
            **dict.fromkeys(("Season", "Episode"), 1),
            **dict.fromkeys(("StartTime", "EndTime"), "00:16:16,059"),
        )
    sarcasm = {
        f"1_{i}": {"utterance": x, "speaker": f"P{i % 20}", "context": ["a"], "sarcasm": bool(i % 2)}
        for i, x in enumerate(texts)
    }
    (folder / "sarcasm_data.json").write_text(json.dumps(sarcasm))
    dump("ur_funny/data_folds.pkl", {"train": [*range(42)], "dev": [*range(42, 56)], "test": [*range(56, 70)]})
    dump("ur_funny/humor_label_sdk.pkl", dict(enumerate(halves.tolist())))
    dump(
        "ur_funny/language_sdk.pkl",
        {i: {"punchline_sentence": x, "context_sentences": []} for i, x in enumerate(texts)},
    )
    for name in ("covarep", "openface"):
        dump(f"ur_funny/{name}_features_sdk.pkl", {i: {"punchline_features": x.tolist()} for i, x in enumerate(audio)})
    return folder


@pytest.fixture(scope="module")
def imported(files):
    """Runs every command of the page, in its order, and gives the folder of the stores."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "RUNS"):
            patch.setenv(f"MMSA_LIB_{name}", str(files / name.lower()))
        patch.chdir(files)
        for line in COMMANDS:
            assert main(shlex.split(line)[1:]) == 0, line
        yield files


def test_the_page_has_commands_of_every_section(imported):
    assert len(COMMANDS) > 20
    names = {path.stem for path in (imported / "data" / "stores").glob("*.h5")}
    assert names == set(re.findall(r"--name (\w+)", "\n".join(COMMANDS)))


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("sims", {"mae", "corr", "acc2", "f1", "acc3", "acc5"}),
        ("sims_classes", {"acc", "f1", "f1_macro", "f1_Neutral"}),
        ("meld", {"acc", "f1", "f1_macro", "f1_disgust"}),
        ("funny", {"acc", "f1", "f1_macro", "f1_humorous"}),
        ("mustard", {"acc", "f1", "f1_macro", "f1_sarcastic"}),
        ("mosei_emotions", {"happy_acc", "happy_f1", "mean_f1"}),
        ("own", {"mae", "acc7"}),
    ],
)
def test_a_set_trains_with_the_metrics_that_fit(imported, name, metrics):
    config = RunConfig(method="early_fusion", dataset=name, settings={"max_epochs": 1})
    found = run(config, imported / "runs", progress=False)
    assert metrics <= set(found.metrics["metric"])


def test_labels_and_groups_are_those_of_the_published_tables(imported):
    sims, meld, cut = (read_store(store_path(name)) for name in ("sims", "meld", "cut"))
    assert sims.task.range == (-1, 1)
    assert list(sims.unimodal_labels) == ["text", "audio", "vision"]
    assert sims.ids[0] == "v00$_$0000"
    assert meld.task.names == tuple(EMOTIONS)
    assert len(set(meld.groups)) == 21
    splits = cut.folds["standard"]
    assert len({(g, s) for g, s in zip(cut.groups, splits, strict=True)}) == len(set(cut.groups))
