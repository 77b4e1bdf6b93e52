"""A small record with folds, a label-trained feature set and missing frames, for the tests of loading."""

import numpy as np

from mmsa_lib.data.record import DatasetRecord, FeatureSet, TokenIds
from mmsa_lib.data.task import regression

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
