from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from mmsa_lib.data import load
from mmsa_lib.data.missing import presence, stochastic_validation
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.protocols import PROTOCOLS, auilc, cells, masks, protocol
from mmsa_lib.methods import METHODS, create
from mmsa_lib.training import predict


class TestArea:
    def test_golden_values(self):
        rates = [step / 10 for step in range(11)]
        values = [80 - 35 * r**2 for r in rates]
        assert auilc(rates, values) == pytest.approx(68.275)
        assert auilc(rates[:6], values[:6]) == pytest.approx(38.5125)
        assert auilc(rates[:6], values[:6], normalised=True) == pytest.approx(77.025)

    def test_unequal_steps_and_undefined_values(self):
        assert auilc([0, 0.5, 2], [1, 3, 5]) == pytest.approx(0.5 * 2 + 1.5 * 4)
        assert auilc([0, 0.5, 2], [4, 4, 4], normalised=True) == pytest.approx(4)
        assert math.isnan(auilc([0, 1], [1, float("nan")]))

    @pytest.mark.parametrize(
        ("rates", "values"), [([0.1], [1]), ([0, 0.1], [1]), ([0, 0, 1], [1, 2, 3]), ([1, 0], [1, 2])]
    )
    def test_levels_that_make_no_area_are_refused(self, rates, values):
        with pytest.raises(DataError, match="level"):
            auilc(rates, values)


SMALL = {"samples": (20, 30, 60), "dims": (12, 8, 8), "length": 9}


@pytest.fixture(scope="module")
def full():
    """A split where nothing is missing by nature."""
    data = load("synthetic", **SMALL, missing=0.0, absent=0.0)["test"]
    assert all(data.data.observed[m].equal(data.data.valid[m]) for m in data.modalities)
    return data


@pytest.fixture(scope="module")
def two():
    return load("synthetic", vision=None, **SMALL)["test"]


def all_cells(data, name, folder):
    return dict(cells(data, name, folder=folder))


class TestCells:
    def test_frames_hide_the_exact_count_at_every_rate(self, full, tmp_path):
        found = all_cells(full, "frames", tmp_path)
        assert list(found) == [f"{r / 10}" for r in range(11)]
        for level, part in found.items():
            for m in full.modalities:
                expected = [n - round(float(level) * n) for n in full.lengths(m).tolist()]
                assert part.data.observed[m].sum(-1).tolist() == expected

    @pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in ("rate", "stochastic")])
    def test_complete_input_equals_the_first_or_last_level_exactly(self, name, full, tmp_path):
        found = all_cells(full, name, tmp_path)
        level = "text+audio+vision" if name == "subsets" else "0.0"
        for m in full.modalities:
            assert found[level].data.features[m].equal(full.data.features[m])
            assert found[level].data.observed[m].equal(full.data.observed[m])
        assert found[level].fingerprint == full.fingerprint

    def test_frames_of_one_modality_leave_the_others(self, full, tmp_path):
        part = all_cells(full, "frames_audio", tmp_path)["0.5"].data
        assert part.observed["text"].equal(full.data.observed["text"])
        assert part.observed["audio"].sum() < full.data.observed["audio"].sum()

    def test_joint_frames_are_the_same_in_all_modalities(self, full, tmp_path):
        joint = all_cells(full, "frames_joint", tmp_path)["0.5"].data.observed
        apart = all_cells(full, "frames", tmp_path)["0.5"].data.observed
        assert joint["text"].equal(joint["audio"])
        assert joint["text"].equal(joint["vision"])
        assert not apart["text"].equal(apart["audio"])

    def test_bursts_are_contiguous_and_published_counts_vary(self, full, tmp_path):
        burst = all_cells(full, "burst", tmp_path)["0.5"].data.observed["text"]
        gap = full.data.valid["text"] & ~burst
        assert int((gap[:, 1:] & ~gap[:, :-1]).sum(-1).max()) + int(gap[:, 0].max()) <= 2
        drawn = all_cells(full, "frames_bernoulli", tmp_path)["0.5"].data.observed["text"].sum(-1)
        assert drawn.tolist() != [n - round(0.5 * n) for n in full.lengths("text").tolist()]

    def test_subsets_leave_what_their_name_says(self, full, two, tmp_path):
        for data, count in ((full, 7), (two, 3)):
            found = all_cells(data, "subsets", tmp_path)
            assert len(found) == count
            for level, part in found.items():
                for m in data.modalities:
                    kept = part.data.observed[m]
                    expected = data.data.observed[m] if m in level.split("+") else torch.zeros_like(kept)
                    assert kept.equal(expected)

    def test_rates_are_hit_and_a_modality_stays(self, full, two, tmp_path):
        for data, highest in ((full, "0.667"), (two, "0.5")):
            found = all_cells(data, "rate", tmp_path)
            assert next(iter(found)) == "0.1"
            assert list(found)[-1] == highest
            for level, part in found.items():
                has = presence(part.data.observed)
                assert 1 - float(has.sum()) / (len(data) * len(data.modalities)) == pytest.approx(
                    float(level), abs=1 / len(data)
                )
                assert bool((has.any(-1) == presence(data.data.observed).any(-1)).all())

    def test_levels_that_cannot_be_reached_are_left_out_or_refused(self, tmp_path):
        gaps = load("synthetic", **SMALL, absent=0.25)["test"]
        natural = 1 - float(presence(gaps.data.observed).sum()) / (len(gaps) * 3)
        assert 0.1 < natural < 0.4
        assert all(float(level) >= natural for level in protocol("rate").levels(gaps))
        one = load("synthetic", audio=None, vision=None, **SMALL)["test"]
        with pytest.raises(ConfigError, match="with one modality none can be missing"):
            protocol("rate").levels(one)
        with pytest.raises(ConfigError, match="frames_vision needs vision"):
            protocol("frames_vision").levels(one)

    def test_joint_frames_need_equal_lengths(self, full):
        from dataclasses import replace

        valid = {**full.data.valid, "audio": full.data.valid["audio"].roll(1, 0)}
        with pytest.raises(ConfigError, match="different lengths"):
            protocol("frames_joint").levels(replace(full, data=replace(full.data, valid=valid)))

    def test_the_stochastic_protocol_is_the_validation_of_training(self, full, tmp_path):
        (part,) = all_cells(full, "stochastic", tmp_path).values()
        assert part.fingerprint == stochastic_validation(full).fingerprint

    def test_unknown_names_are_answered_with_near_ones(self, full):
        with pytest.raises(UnknownNameError, match="did you mean frames"):
            protocol("frame").levels(full)


@pytest.mark.parametrize("method_id", sorted(METHODS))
def test_every_method_answers_with_numbers_whatever_is_missing(method_id, full, tmp_path):
    torch.manual_seed(0)
    method = create(method_id, full.dims, full.task)
    method.start_phase(method.phases[-1], full)
    few = full.select(torch.arange(12))
    hard = {"frames": "1.0", "burst": "0.7", "subsets": "vision"}
    for name, level in hard.items():
        assert predict(method, masks(few, name, folder=tmp_path).apply(few, level)).isfinite().all()


@pytest.fixture
def mosi(tmp_path):
    from mmsa_lib.data.sources import build
    from mmsa_lib.data.store import write_store

    if not os.environ.get("MMSA_LIB_MIRROR"):
        pytest.skip("set MMSA_LIB_MIRROR to a folder with the original files")
    write_store(build("mosi", Path(os.environ["MMSA_LIB_MIRROR"]), progress=False), tmp_path / "mosi.h5")
    return load(tmp_path / "mosi.h5", text="tokens")["test"]


@pytest.mark.real_data
def test_mosi_with_tokens_and_audio_of_whole_segments(mosi, tmp_path):
    for level, part in cells(mosi, "frames", folder=tmp_path):
        share = 1 - float(part.data.observed["audio"].sum() / mosi.data.valid["audio"].sum())
        assert share == pytest.approx(float(level), abs=1 / len(mosi))
        unknown = (part.data.tokens == mosi.data.unknown_token).sum() / mosi.data.valid["text"].sum()
        assert float(unknown) == pytest.approx(float(level), abs=0.15)  # opening and closing tokens stay
    assert protocol("subsets").levels(mosi) == ["text", "audio", "text+audio"]
    assert protocol("rate").levels(mosi) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
