from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from mmsa_lib.data import load
from mmsa_lib.data import missing as masks_module
from mmsa_lib.data.missing import (
    MASK_SEED,
    frame_masks,
    frozen_masks,
    ids_digest,
    level_name,
    mask_path,
    rate_available,
    read_masks,
    stochastic_validation,
)
from mmsa_lib.errors import DataError

LEVELS = ["0.2", "0.7"]


@pytest.fixture(scope="module")
def data():
    return load("synthetic", samples=(20, 10, 30), dims=(12, 8, 8), length=9)


def draw_frames(data, level, generator):
    return frame_masks(data.data.valid, float(level), generator)


def draw_rate(data, level, generator):
    return rate_available(data.data.observed, float(level), generator)


def freeze(data, folder, draw=draw_frames, protocol="frames", **options):
    return frozen_masks(data, protocol, LEVELS[:1] if draw is draw_rate else LEVELS, draw, folder=folder, **options)


def test_layout_of_the_file(data, tmp_path):
    test = data["test"]
    freeze(test, tmp_path)
    freeze(test, tmp_path, draw_rate, "rate")
    with h5py.File(mask_path(test, "frames", MASK_SEED, tmp_path)) as file:
        assert list(file["frames"]) == LEVELS
        group = file[f"frames/0.2/{MASK_SEED}"]
        for m, valid in test.data.valid.items():
            assert group[m].dtype == bool
            assert group[m].shape == valid.shape
            hidden = (valid.numpy() & ~group[m][:]).sum(1)
            assert hidden.tolist() == [round(0.2 * length) for length in valid.sum(1).tolist()]
        attributes = dict(group.attrs)
        assert attributes["ids_sha256"] == ids_digest(test.ids)
        assert (attributes["dataset"], attributes["fold"], attributes["split"]) == ("synthetic", "standard", "test")
        assert (attributes["protocol"], attributes["level"], attributes["mask_seed"]) == ("frames", "0.2", MASK_SEED)
        assert (attributes["missing"], attributes["missing_text"]) == ("zero vectors", "zero vectors")
        assert not attributes["joint"]
        assert "library" in attributes
    joint = freeze(test, tmp_path, protocol="frames_joint")
    with h5py.File(mask_path(test, joint.protocol, MASK_SEED, tmp_path)) as file:
        assert file[f"frames_joint/0.2/{MASK_SEED}"].attrs["joint"]
    with h5py.File(mask_path(test, "rate", MASK_SEED, tmp_path)) as file:
        assert file[f"rate/0.2/{MASK_SEED}/available"].shape == (30, 3)


def test_masks_are_the_same_for_ever(data, tmp_path):
    """What seeds them and names their file is written down here: published numbers rest on it."""
    test, seen = data["test"], {}

    def draw(data, level, generator):
        seen[level] = generator.initial_seed()
        return draw_frames(data, level, generator)

    freeze(test, tmp_path, draw)
    for level in LEVELS:
        text = json.dumps(["synthetic", "standard", "test", "frames", level, MASK_SEED])
        assert seen[level] == int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    layout = hashlib.sha256(ids_digest(test.ids).encode() + b"False")
    for m in test.modalities:
        for mask in (test.data.valid[m], test.data.observed[m]):
            layout.update(f"{m}{tuple(mask.shape)}".encode() + np.packbits(mask.numpy()).tobytes())
    assert mask_path(test, "frames", 5).name == f"synthetic-standard-test-{layout.hexdigest()[:12]}-frames-5.h5"


def test_a_mask_of_whole_modalities_hides_them(data, tmp_path):
    test = data["test"]
    masks = freeze(test, tmp_path, draw_rate, "rate")
    available, hidden = masks.levels["0.2"].bool(), masks.apply(test, "0.2")
    assert not available.all()
    for column, m in enumerate(test.modalities):
        assert hidden.data.observed[m].equal(test.data.observed[m] & available[:, column : column + 1])


def test_a_file_is_drawn_once_and_read_afterwards(data, tmp_path):
    def never(*arguments):
        raise AssertionError("drawn again")

    first = freeze(data["test"], tmp_path)
    path = mask_path(data["test"], "frames", MASK_SEED, tmp_path)
    written = path.read_bytes()
    again = freeze(data["test"], tmp_path, never)
    assert again.fingerprint == first.fingerprint
    assert path.read_bytes() == written
    freeze(data["test"], tmp_path / "elsewhere")
    assert mask_path(data["test"], "frames", MASK_SEED, tmp_path / "elsewhere").read_bytes() == written


def test_masks_differ_by_level_seed_split_and_protocol(data, tmp_path):
    prints = {
        freeze(data["test"], tmp_path).fingerprint,
        freeze(data["test"], tmp_path, mask_seed=7).fingerprint,
        freeze(data["valid"], tmp_path).fingerprint,
        freeze(data["test"], tmp_path, protocol="other").fingerprint,
    }
    assert len(prints) == 4


def test_the_default_folder_follows_the_environment(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MMSA_LIB_MASKS", raising=False)
    assert mask_path(data["test"], "frames", 1).parent == tmp_path / "data" / "masks"
    monkeypatch.setenv("MMSA_LIB_MASKS", str(tmp_path / "masks"))
    assert mask_path(data["test"], "frames", 1).parent == tmp_path / "masks"


def test_a_folder_that_may_only_be_read_names_the_variable(data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(masks_module.FileLock, "acquire", refuse)
    with pytest.raises(DataError, match=r"cannot write masks to .*: Permission denied; set MMSA_LIB_MASKS"):
        freeze(data["test"], tmp_path)


def test_audio_is_masked_alike_with_other_text(tmp_path):
    """Runs with word features and runs with tokens have other text frames, and the same audio and vision."""
    options = {"samples": (20, 10, 30), "dims": (12, 8, 8), "length": 9}
    whole = load("synthetic", **options)["test"]
    no_text = load("synthetic", text=None, **options)["test"]
    one, other = (freeze(data, tmp_path).levels["0.2"] for data in (whole, no_text))
    assert set(other) == {"audio", "vision"}
    for modality in other:
        assert one[modality].equal(other[modality])


class TestMistakes:
    def test_other_samples_are_noticed(self, data, tmp_path):
        freeze(data["test"], tmp_path)
        path = mask_path(data["test"], "frames", MASK_SEED, tmp_path)
        ids = data["test"].ids
        other = replace(data["test"], data=replace(data["test"].data, ids=(ids[1], ids[0], *ids[2:])))
        with pytest.raises(DataError, match=r"drawn for other samples .synthetic/standard/test.*delete it"):
            read_masks(path, other, "frames", LEVELS)

    def test_a_damaged_file_and_a_missing_level(self, data, tmp_path):
        freeze(data["test"], tmp_path)
        path = mask_path(data["test"], "frames", MASK_SEED, tmp_path)
        with pytest.raises(DataError, match=r"holds no masks frames/0.9/1111; delete it"):
            read_masks(path, data["test"], "frames", ["0.9"])
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"truncated.*delete it"):
            freeze(data["test"], tmp_path)

    def test_other_frames_are_noticed(self, data, tmp_path):
        freeze(data["test"], tmp_path)
        path = mask_path(data["test"], "frames", MASK_SEED, tmp_path)
        with h5py.File(path, "r+") as file:
            group = file[f"frames/0.2/{MASK_SEED}"]
            del group["audio"]
            group["audio"] = np.ones((30, 4), bool)
        with pytest.raises(DataError, match=r"has arrays .*the data need"):
            freeze(data["test"], tmp_path)

    @pytest.mark.skipif(os.name == "nt", reason="folders are files of another kind there")
    def test_a_folder_that_cannot_be_written(self, data, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=r"cannot write masks to .*MMSA_LIB_MASKS"):
            freeze(data["test"], tmp_path / "file")


def _freeze_in_process(folder, queue):
    torch.set_num_threads(1)
    data = load("synthetic", samples=(20, 10, 30), dims=(12, 8, 8), length=9)
    queue.put(freeze(data["test"], folder).fingerprint)


@pytest.mark.slow
def test_processes_that_ask_at_once_read_the_same_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_freeze_in_process, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    prints = {queue.get(timeout=600) for _ in processes}
    for process in processes:
        process.join()
    assert len(prints) == 1
    assert len(list(tmp_path.glob("*.h5"))) == 1
    assert not list(tmp_path.glob("*.part"))


class TestUtterances:
    def test_hiding_changes_the_fingerprint_and_hiding_nothing_does_not(self, data):
        test = data["test"]
        hidden = test.hide(frame_masks(test.data.valid, 0.5, torch.Generator().manual_seed(0)))
        assert hidden.fingerprint != test.fingerprint
        same = test.hide(test.data.valid)
        assert same.fingerprint == test.fingerprint
        for m in test.modalities:
            assert same.data.features[m].equal(test.data.features[m])
            assert (hidden.data.features[m][~hidden.data.observed[m]] == 0).all()

    def test_a_streamed_split_hides_like_one_in_memory(self, data, tmp_path):
        from mmsa_lib.data.sources import synthetic
        from mmsa_lib.data.store import write_store

        write_store(synthetic.build(samples=(20, 10, 30), dims=(12, 8, 8), length=9), tmp_path / "small.h5")
        kept, streamed = (load(tmp_path / "small.h5", in_memory=flag)["test"] for flag in (True, False))
        mask = frame_masks(kept.data.valid, 0.5, torch.Generator().manual_seed(0))
        for one, other in zip(kept.hide(mask).batches(7), streamed.hide(mask).batches(7), strict=True):
            for m in one.modalities:
                assert one.features[m].equal(other.features[m])
                assert one.observed[m].equal(other.observed[m])
        assert kept.hide(mask).fingerprint == streamed.hide(mask).fingerprint

    def test_the_validation_recipe_depends_on_split_and_mask_seed_alone(self, data):
        once, again = stochastic_validation(data["valid"]), stochastic_validation(data["valid"])
        assert once.fingerprint == again.fingerprint != data["valid"].fingerprint
        assert stochastic_validation(data["valid"], 7).fingerprint != once.fingerprint


def test_names_of_levels():
    assert [level_name(x) for x in (0, "0", 0.1, 0.30000000000000004, "1", 2 / 3, "text+audio", "msm")] == [
        "0.0", "0.0", "0.1", "0.3", "1.0", "0.666667", "text+audio", "msm",
    ]  # fmt: skip
