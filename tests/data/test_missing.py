from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmsa_lib
from mmsa_lib.data import Batch, load
from mmsa_lib.data import missing as masks_module
from mmsa_lib.data.missing import (
    DROP_STEPS,
    MASK_SEED,
    _drops,
    _streams,
    burst_mask,
    frame_mask,
    frame_masks,
    frozen_masks,
    ids_digest,
    mask_path,
    presence,
    rate_available,
    rate_mask,
    read_masks,
    stochastic_missing,
    stochastic_validation,
    subset_mask,
)
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.files import level_name

RATES = [step / 10 for step in range(11)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lengths_to_valid(lengths, steps=None):
    return torch.arange(steps or max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def make_batch(count=200, steps=(20, 30, 25), modalities=("text", "audio", "vision"), seed=0, tokens=False):
    generator = seeded(seed)
    valid = {}
    for modality, length in zip(modalities, steps, strict=True):
        valid[modality] = torch.arange(length) < torch.randint(5, length + 1, (count, 1), generator=generator)
    features = {m: torch.randn(*v.shape, 2, generator=generator) * v.unsqueeze(-1) for m, v in valid.items()}
    ids = torch.randint(200, 300, valid["text"].shape, generator=generator) * valid["text"] if tokens else None
    return Batch(
        features=features, valid=valid, observed=dict(valid), labels=torch.zeros(count), index=torch.arange(count),
        ids=tuple(map(str, range(count))), tokens=ids,
    )  # fmt: skip


class TestFrameMask:
    @pytest.mark.parametrize("rate", RATES)
    def test_exact_count_for_every_length(self, rate):
        scattered = torch.rand(50, 30, generator=seeded(3)) < 0.5
        for valid in (lengths_to_valid(list(range(41))), scattered):
            mask = frame_mask(valid, rate, seeded())
            assert mask.sum(-1).tolist() == [length - round(rate * length) for length in valid.sum(-1).tolist()]
            assert not (mask & ~valid).any()

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(0, 1), st.integers(0, 2**32))
    def test_exact_count_for_every_rate(self, lengths, rate, seed):
        valid = lengths_to_valid(lengths, 50)
        mask = frame_mask(valid, rate, seeded(seed))
        assert mask.sum(-1).tolist() == [length - round(rate * length) for length in lengths]

    def test_every_frame_is_hidden_equally_often(self):
        valid = lengths_to_valid([10] * 20000)
        share = 1 - frame_mask(valid, 0.3, seeded()).double().mean(0)
        assert share.tolist() == pytest.approx([0.3] * 10, abs=0.015)

    def test_bernoulli_varies_the_count_and_keeps_the_mean(self):
        valid = lengths_to_valid([40] * 4000)
        hidden = 40 - frame_mask(valid, 0.2, seeded(), bernoulli=True).sum(-1).double()
        assert hidden.mean() == pytest.approx(8, abs=0.2)
        assert hidden.var() == pytest.approx(40 * 0.2 * 0.8, rel=0.1)
        assert frame_mask(valid, 0.0, seeded(), bernoulli=True).equal(valid)
        assert not frame_mask(valid, 1.0, seeded(), bernoulli=True).any()

    def test_only_a_modality_of_single_frames_is_hidden_across_samples(self):
        mixed, pairs, single = lengths_to_valid([1, 10]), lengths_to_valid([2] * 8), lengths_to_valid([1] * 8)
        for seed in range(5):
            left = [frame_masks({"text": valid}, 0.5, seeded(seed))["text"] for valid in (mixed, pairs, single)]
            assert left[0].sum(-1).tolist() == [1, 5]
            assert left[1].sum(-1).tolist() == [1] * 8
            assert int(left[2].sum()) == 4

    def test_a_draw_of_exactly_zero_hides_nothing_at_rate_zero(self, monkeypatch):
        monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.zeros(shape))
        valid = lengths_to_valid([3, 1])
        assert frame_mask(valid, 0.0, seeded(), bernoulli=True).equal(valid)
        monkeypatch.setattr(torch, "randint", lambda high, shape, generator: torch.zeros(shape, dtype=torch.int64))
        assert not _drops((2, 3), seeded()).any()

    def test_draws_follow_the_generator(self):
        valid = lengths_to_valid([30] * 5)
        assert frame_mask(valid, 0.5, seeded(1)).equal(frame_mask(valid, 0.5, seeded(1)))
        assert not frame_mask(valid, 0.5, seeded(1)).equal(frame_mask(valid, 0.5, seeded(2)))
        before = torch.get_rng_state()
        frame_mask(valid, 0.5, seeded(1))
        assert torch.get_rng_state().equal(before)

    @pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
    def test_a_rate_that_is_no_share_is_refused(self, rate):
        for mask in (frame_mask, burst_mask):
            with pytest.raises(ConfigError, match="rate"):
                mask(lengths_to_valid([4]), rate, seeded())

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
    def test_the_device_changes_nothing(self):
        batch = make_batch()
        on_gpu = stochastic_missing(batch.to("cuda"), seeded(5))
        for m, observed in stochastic_missing(batch, seeded(5)).observed.items():
            assert on_gpu.observed[m].device.type == "cuda"
            assert on_gpu.observed[m].cpu().equal(observed)
        valid = batch.valid["text"]
        assert frame_mask(valid.cuda(), 0.3, seeded()).cpu().equal(frame_mask(valid, 0.3, seeded()))


class TestBurst:
    @pytest.mark.parametrize("rate", RATES)
    def test_one_piece_of_the_exact_length(self, rate):
        lengths = list(range(31))
        mask = burst_mask(lengths_to_valid(lengths), rate, seeded())
        for length, row in zip(lengths, mask.tolist(), strict=True):
            hidden = [t for t in range(length) if not row[t]]
            assert len(hidden) == round(rate * length)
            assert hidden == list(range(hidden[0], hidden[0] + len(hidden))) if hidden else True

    def test_every_start_occurs_equally_often(self):
        mask = burst_mask(lengths_to_valid([6] * 20000), 0.5, seeded())
        starts = Counter(row.index(False) for row in mask.tolist())
        assert [starts[i] / 20000 for i in range(4)] == pytest.approx([0.25] * 4, abs=0.02)


class TestFrameMasks:
    def test_modalities_are_independent_unless_joint(self):
        valid = lengths_to_valid([40] * 30)
        same = {"text": valid, "audio": valid, "vision": lengths_to_valid([39] * 30, 40)}
        apart = frame_masks(same, 0.5, seeded())
        together = frame_masks(same, 0.5, seeded(), joint=True)
        assert not apart["text"].equal(apart["audio"])
        assert together["text"].equal(together["audio"])
        assert not together["text"].equal(together["vision"])  # its lengths differ

    def test_audio_loses_the_same_frames_whatever_text_there_is(self):
        batch = make_batch()
        with_text = frame_masks(batch.valid, 0.4, seeded())
        short_text = frame_masks({**batch.valid, "text": batch.valid["text"][:, :7]}, 0.4, seeded())
        alone = frame_masks({"audio": batch.valid["audio"]}, 0.4, seeded())
        assert with_text["audio"].equal(short_text["audio"])
        assert with_text["audio"].equal(alone["audio"])

    @pytest.mark.parametrize("rate", RATES)
    def test_a_modality_of_one_frame_vanishes_from_a_share_of_the_samples(self, rate):
        mask = frame_masks({"audio": lengths_to_valid([1] * 70)}, rate, seeded())["audio"]
        assert int(mask.sum()) == 70 - round(rate * 70)

    def test_sampling_changes_how_frames_are_drawn(self):
        valid = {"text": lengths_to_valid([40] * 50)}
        counts = {s: frame_masks(valid, 0.5, seeded(), sampling=s)["text"] for s in ("exact", "bernoulli", "burst")}
        changes = {s: int((m[:, 1:] != m[:, :-1]).sum(-1).max()) for s, m in counts.items()}
        assert changes["burst"] <= 2 < changes["exact"]
        assert counts["exact"].sum(-1).unique().tolist() == [20]
        assert len(counts["bernoulli"].sum(-1).unique()) > 3
        with pytest.raises(UnknownNameError, match="did you mean burst"):
            frame_masks(valid, 0.5, seeded(), sampling="bursts")


class TestSubsetMask:
    def test_names_and_columns_say_the_same(self):
        valid = make_batch(4).valid
        by_name = subset_mask(valid, ("audio", "text"))
        by_column = subset_mask(valid, torch.tensor([[True, True, False]] * 4))
        for m in valid:
            assert by_name[m].equal(by_column[m])
            assert by_name[m].equal(valid[m] if m != "vision" else torch.zeros_like(valid[m]))
        rows = torch.eye(3).bool()[[0, 1, 2, 0]]
        assert presence(subset_mask(valid, rows)).equal(rows)

    def test_what_is_absent_by_nature_stays_absent(self):
        batch = make_batch(3)
        observed = {**batch.observed, "audio": batch.observed["audio"] & torch.tensor([[True], [False], [True]])}
        batch = replace(batch, observed=observed)
        hidden = batch.hide(subset_mask(batch.valid, ["audio"]))
        assert presence(hidden.observed)[:, 1].tolist() == [True, False, True]

    def test_mistakes_are_answered(self):
        valid = make_batch(4).valid
        with pytest.raises(UnknownNameError, match="did you mean vision"):
            subset_mask(valid, ["visoin"])
        with pytest.raises(DataError, match=r"shape \(4, 2\), expected \(4, 3\)"):
            subset_mask(valid, torch.ones(4, 2).bool())


class TestRateMask:
    @pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("text", "audio")])
    @pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.3, 0.4, 0.5, 0.6, 2 / 3, 0.667])
    def test_the_rate_is_hit_to_the_nearest_sample_and_one_modality_is_kept(self, modalities, rate):
        valid = make_batch(137, (20, 30, 25)[: len(modalities)], modalities).valid
        kinds = len(modalities)
        if rate > 0.5 and kinds == 2:
            with pytest.raises(ConfigError, match=r"not in 0 … 0.5: with 2 modalities"):
                rate_mask(valid, rate, seeded())
            return
        left = presence(rate_mask(valid, rate, seeded())).sum(-1)
        assert int(left.min()) >= 1
        assert 137 * kinds - int(left.sum()) == min(round(rate * 137 * kinds), 137 * (kinds - 1))

    def test_all_modalities_go_missing_equally_often(self):
        valid = make_batch(6000, (5, 5, 5)).valid
        missing = 1 - presence(rate_mask(valid, 0.5, seeded())).double().mean(0)
        assert missing.tolist() == pytest.approx([0.5] * 3, abs=0.03)

    def test_two_thirds_may_be_written_with_three_digits_and_no_other_rate_beyond(self):
        valid = make_batch(9).valid
        assert rate_mask(valid, 2 / 3 + 4.9e-4, seeded()).keys() == valid.keys()
        for rate in (0.7, -0.1, float("nan"), 2 / 3 + 5.1e-4):
            with pytest.raises(ConfigError, match="missing rate"):
                rate_mask(valid, rate, seeded())

    def test_natural_absence_counts_and_is_never_the_only_one_kept(self):
        batch = make_batch(300)
        gone = torch.rand(300, 1, generator=seeded(9)) < 0.3
        observed = {**batch.observed, "text": batch.observed["text"] & ~gone}
        observed = {m: x & (torch.arange(300) > 0).unsqueeze(1) for m, x in observed.items()}  # sample 0 has nothing
        left = rate_available(observed, 0.5, seeded())
        assert not (left & ~presence(observed)).any()
        assert int(left.sum()) == 900 - round(0.5 * 900)
        assert int(left[1:].sum(-1).min()) == 1
        most = rate_available(observed, 0.667, seeded())[1:].sum(-1)
        assert (int(most.sum()), int(most.min())) == (300, 1)  # sample 0 misses three, so that one keeps two
        with pytest.raises(ConfigError, match=r"below the 0\.0956"):
            rate_available(observed, 0.05, seeded())


class TestStochasticMissing:
    def test_the_seeds_of_its_streams_are_fixed_for_ever(self):
        drawn = torch.randint(4294967296, (5,), generator=seeded(3)).tolist()
        streams = {name: stream.initial_seed() for name, stream in _streams(seeded(3)).items()}
        assert streams == dict(zip(("text", "audio", "vision", "subset", "rescue"), drawn, strict=True))

    def test_subsets_are_uniform_and_a_modality_in_use_loses_45_per_cent(self):
        batch = make_batch(7000, (40, 40, 40))
        batch = replace(batch, valid={m: torch.ones(7000, 40).bool() for m in batch.valid})
        batch = replace(batch, observed=dict(batch.valid))
        left = stochastic_missing(batch, seeded())
        patterns = Counter(map(tuple, presence(left.observed).int().tolist()))
        assert len(patterns) == 7
        assert [count / 7000 for count in patterns.values()] == pytest.approx([1 / 7] * 7, abs=0.02)
        for observed in left.observed.values():
            kept = observed[observed.any(-1)].double().mean(-1)
            assert 1 - kept.mean() == pytest.approx(0.45, abs=0.02)
            assert DROP_STEPS == 10
            # ratios 0 … .9 are equally likely: a tenth keeps everything
            assert (kept == 1).double().mean() == pytest.approx(0.1, abs=0.02)

    @settings(max_examples=25)
    @given(st.integers(0, 2**40), st.integers(1, 3))
    def test_a_sample_with_anything_keeps_something_and_gains_nothing(self, seed, kinds):
        modalities = ("text", "audio", "vision")[:kinds]
        batch = make_batch(40, (6, 5, 7)[:kinds], modalities, seed=seed)
        gaps = {m: x & (torch.rand(x.shape, generator=seeded(seed)) < 0.2) for m, x in batch.observed.items()}
        batch = batch.hide(gaps)
        left = stochastic_missing(batch, seeded(seed))
        for m in modalities:
            assert not (left.observed[m] & ~batch.observed[m]).any()
            assert (left.features[m][~left.observed[m]] == 0).all()
            assert left.features[m][left.observed[m]].equal(batch.features[m][left.observed[m]])
            assert left.valid[m].equal(batch.valid[m])
        assert presence(left.observed).any(-1).equal(presence(batch.observed).any(-1))

    def test_a_sample_that_loses_everything_keeps_one_frame_of_its_subset(self):
        batch = make_batch(3000, (5, 5, 5))
        ones = {m: torch.arange(5) < torch.ones(3000, 1) for m in batch.valid}  # one frame per modality
        batch = replace(batch, valid=ones, observed=dict(ones))
        left = presence(stochastic_missing(batch, seeded()).observed).sum(-1)
        assert int(left.min()) == 1
        # of a subset of k frames, all survive their ratios with probability .55 each; the rest is rescued
        expected = (3 * 1 + 3 * (2 * 0.55 + 0.45**2) + (3 * 0.55 + 0.45**3)) / 7
        assert left.double().mean() == pytest.approx(expected, abs=0.03)

    def test_tokens_become_unknown_between_the_first_and_the_last(self):
        batch = make_batch(100, tokens=True)
        left = stochastic_missing(batch, seeded())
        lost = batch.valid["text"] & ~left.observed["text"]
        ends = torch.zeros_like(lost)
        ends[:, 0] = True
        ends[torch.arange(100), batch.valid["text"].sum(-1) - 1] = True
        assert (left.tokens[lost & ~ends] == batch.unknown_token).all()
        assert left.tokens[~lost | ends].equal(batch.tokens[~lost | ends])

    def test_the_generator_moves_on_equally_for_every_batch(self):
        one, other = seeded(), seeded()
        stochastic_missing(make_batch(3, (7, 7), ("text", "audio")), one)
        stochastic_missing(make_batch(50), other)
        assert one.get_state().equal(other.get_state())
        assert not one.get_state().equal(seeded().get_state())


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
        assert dict(group.attrs) == {
            "dataset": "synthetic", "fold": "standard", "split": "test", "ids_sha256": ids_digest(test.ids),
            "protocol": "frames", "level": "0.2", "mask_seed": MASK_SEED, "missing": "zero vectors",
            "missing_text": "zero vectors", "joint": False, "library": mmsa_lib.__version__,
        }  # fmt: skip
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
    first = freeze(data["test"], tmp_path)
    path = mask_path(data["test"], "frames", MASK_SEED, tmp_path)
    written = path.read_bytes()
    again = freeze(data["test"], tmp_path, Mock(side_effect=AssertionError("drawn again")))
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


def test_a_folder_that_cannot_be_written_names_the_variable(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write masks to .*MMSA_LIB_MASKS"):
        freeze(data["test"], tmp_path / "file")
    monkeypatch.setattr(masks_module.FileLock, "acquire", Mock(side_effect=PermissionError(13, "Permission denied")))
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


def test_a_file_of_other_samples_levels_or_frames_and_a_damaged_one_are_refused(data, tmp_path):
    test = data["test"]
    freeze(test, tmp_path)
    path, ids = mask_path(test, "frames", MASK_SEED, tmp_path), test.ids
    other = replace(test, data=replace(test.data, ids=(ids[1], ids[0], *ids[2:])))
    with pytest.raises(DataError, match=r"drawn for other samples .synthetic/standard/test.*delete it"):
        read_masks(path, other, "frames", LEVELS)
    with pytest.raises(DataError, match=r"holds no masks frames/0.9/1111; delete it"):
        read_masks(path, test, "frames", ["0.9"])
    with h5py.File(path, "r+") as file:
        group = file[f"frames/0.2/{MASK_SEED}"]
        del group["audio"]
        group["audio"] = np.ones((30, 4), bool)
    with pytest.raises(DataError, match=r"has arrays .*the data need"):
        freeze(test, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"truncated.*delete it"):
        freeze(test, tmp_path)


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
