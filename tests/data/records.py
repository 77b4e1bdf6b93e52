"""Small data sets for the tests of the data floor."""

import numpy as np

from mmsa_lib.data.record import DatasetRecord, FeatureSet, TokenIds, Words
from mmsa_lib.data.task import emotions, regression

SPLITS = ["train", "train", "train", "valid", "valid", "test", "test", "test"]


def features(modality, width, lengths, seed, **more):
    generator = np.random.default_rng(seed)
    rows = int(np.sum(lengths))
    values = generator.normal(size=(rows, width)).astype(np.float32)
    observed = generator.random(rows) > 0.2
    observed[0] = True
    values[~observed] = 0
    return FeatureSet(modality, values, np.asarray(lengths), observed, level="frame", **more)


def full_record(name="tiny"):
    """Eight samples of eight videos with every optional part present."""
    count = len(SPLITS)
    generator = np.random.default_rng(0)
    lengths = np.array([3, 1, 4, 1, 5, 2, 2, 6])
    return DatasetRecord(
        name=name,
        task=regression((-3, 3)),
        ids=[f"video{i}_1" for i in range(count)],
        groups=[f"video{i}" for i in range(count)],
        labels=np.array([-3, -1, 0, 0.5, 2, 3, -0.2, 1], np.float32),
        folds={"standard": np.array(SPLITS), "by/part": np.array(["", *reversed(SPLITS[1:])])},
        features={
            "audio5": features("audio", 5, lengths, 1, description="five numbers"),
            "vision3": features("vision", 3, np.ones(count, int), 2, label_trained_on="by/part:train"),
        },
        defaults={"*": {"text": "words", "audio": "audio5"}, "by/part": {"vision": "vision3"}},
        transcripts=["a good film", "", "三个字", "it was bad", "ok ok", "great", "naïve", "no"],
        other_transcripts={"german": [f"Satz {i}" for i in range(count)]},
        words=Words(
            np.array(["a", "good", "film", "great"], dtype=object),
            np.array([[-0.1, 0.2], [0.2, 0.5], [0.5, 1.0], [0.0, 0.4]], np.float32),
            np.array([0, 3, 3, 3, 3, 3, 4, 4, 4], np.int32),
        ),
        token_ids=TokenIds(np.arange(count * 4).reshape(count, 4), np.ones((count, 4), bool), "some-model"),
        unimodal_labels={"text": np.linspace(-1, 1, count).astype(np.float32)},
        factors={"shared": generator.normal(size=(count, 2)).astype(np.float32)},
        times=np.stack([np.zeros(count), np.arange(1, count + 1)], axis=1).astype(np.float32),
        terms="For tests only.",
        citation="Nobody, 2024.",
        sources=["made here"],
        repairs={"audio: NaN set to 0": 2},
        notes=["eight samples"],
    )


def emotion_record():
    record = full_record("feelings")
    record.task = emotions(["happy", "sad"])
    record.labels = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [0, 1]], np.float32)
    record.unimodal_labels = {}
    return record


COUNT = 40
TEXTS = ["the film was good", "bad", "", "very very great film!", "not good not bad"]


def frames(modality, width, level, *, seed, label_trained_on=""):
    generator = np.random.default_rng(seed)
    lengths = np.ones(COUNT, np.int64) if level == "utterance" else generator.integers(1, 7, size=COUNT)
    observed = generator.random(lengths.sum()) > 0.2
    values = (generator.normal(size=(lengths.sum(), width)) * 3 + 5).astype(np.float32) * observed[:, None]
    return FeatureSet(modality, values, lengths, observed, level, label_trained_on)


def small_record():
    """40 samples: ``standard`` 20/10/10; the extractor of ``vision_trained`` saw the first 30 of ``other``."""
    standard = np.repeat(["train", "valid", "test"], [20, 10, 10])
    other = np.array(["test"] * 8 + ["train"] * 24 + ["valid"] * 4 + [""] * 4)
    clean = np.array(["train"] * 4 + ["valid"] * 2 + ["test"] * 2 + [""] * 32)
    ids = np.arange(COUNT * 6).reshape(COUNT, 6) + 1000
    valid = np.arange(6) < (np.arange(COUNT) % 5 + 2)[:, None]
    return DatasetRecord(
        name="small",
        task=regression((-3, 3)),
        ids=[f"v{i // 2}_{i}" for i in range(COUNT)],
        groups=[f"v{i // 2}" for i in range(COUNT)],
        labels=np.linspace(-3, 3, COUNT).astype(np.float32),
        folds={"standard": standard, "other": other, "cv-0": clean, "cv-1": clean[::-1].copy()},
        features={
            "audio4": frames("audio", 4, "frame", seed=1),
            "vision3": frames("vision", 3, "word", seed=2),
            "vision_trained": frames("vision", 2, "utterance", seed=3, label_trained_on="other:train"),
            "text5": frames("text", 5, "word", seed=4),
        },
        defaults={"*": {"text": "text5", "audio": "audio4"}, "other": {"vision": "vision3"}},
        transcripts=[TEXTS[i % len(TEXTS)] for i in range(COUNT)],
        token_ids=TokenIds(ids * valid, valid, "bert-base-uncased"),
        unimodal_labels={"audio": np.linspace(3, -3, COUNT).astype(np.float32)},
        factors={"shared": np.arange(COUNT, dtype=np.float32)[:, None]},
    )
