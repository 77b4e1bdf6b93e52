"""What several notebooks call."""

from companion.shared import described_run

seed, dataset, options = 1111, "synthetic", {}


def test_the_committed_run_is_described_without_a_word():
    assert described_run(seed=1111, dataset="synthetic", options={}) is None


def test_another_run_is_told_in_one_line():
    line = described_run(seed=1112, dataset="synthetic", options={"a": 1}).data
    assert "`seed=1111` in place of `1112`, `options={}` in place of `{'a': 1}`" in line
    assert "dataset" not in line
    assert "\n" not in line
