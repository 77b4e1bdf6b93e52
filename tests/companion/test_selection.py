"""First places over seeds, and choices on validation data, on tables that can be read by eye."""

import pandas as pd
import pytest

from companion.sweeps import chosen_on_validation, first_places
from mmsa_lib.errors import DataError


def rows(**values):
    return pd.DataFrame(
        [{"method": m, "seed": seed, "value": v} for m, own in values.items() for seed, v in enumerate(own)]
    )


def test_first_places_count_the_seeds_in_which_a_method_is_best():
    found = first_places(rows(a=[1.0, 2.0, 3.0], b=[2.0, 1.0, 4.0], c=[3.0, 3.0, 3.0]), "method")
    assert list(found.index) == ["a", "b", "c"]
    assert found["first"].to_dict() == {"a": 2, "b": 1, "c": 1}  # a and c tie for the last seed
    assert found["worst_rank"].to_dict() == {"a": 2, "b": 3, "c": 3}
    assert set(found["seeds"]) == {3}
    assert found["mean"].to_dict() == {"a": 2.0, "b": pytest.approx(7 / 3), "c": 3.0}


def test_the_direction_of_the_metric_counts():
    found = first_places(rows(a=[0.1, 0.2], b=[0.3, 0.1]), "method", "corr")
    assert list(found.index) == ["b", "a"]
    assert found["first"].to_dict() == {"a": 1, "b": 1}


def test_a_lacking_seed_is_refused():
    with pytest.raises(DataError, match="a has no defined value"):
        first_places(rows(a=[1.0], b=[1.0, 2.0]), "method")


def points(values, default=1.0):
    return pd.DataFrame(
        [
            {"panel": "p", "value": value, "split": split, "mean": mean, "default": value == default}
            for value, pair in values.items()
            for split, mean in zip(("valid", "test"), pair, strict=True)
        ]
    )


def test_validation_chooses_and_test_tells():
    found = chosen_on_validation(points({0.1: (0.9, 1.2), 1.0: (1.0, 1.0), 10.0: (1.1, 0.8)})).loc["p"]
    assert (found["default"], found["chosen"]) == (1.0, 0.1)
    assert (found["test_default"], found["test_chosen"], found["test_best"]) == (1.0, 1.2, 0.8)
    assert found["range"] == pytest.approx(0.4)


def test_panels_keep_their_order():
    one = points({1.0: (1.0, 1.0), 2.0: (2.0, 2.0)})
    found = chosen_on_validation(pd.concat([one.assign(panel="q"), one.assign(panel="p")]))
    assert list(found.index) == ["q", "p"]


def test_a_panel_without_default_or_without_a_split_is_refused():
    with pytest.raises(DataError, match="exactly one value must be the default"):
        chosen_on_validation(points({0.1: (1, 1)}))
    with pytest.raises(DataError, match="needs a validation and a test result"):
        chosen_on_validation(points({1.0: (1, 1)}).query("split == 'test'"))
    with pytest.raises(DataError, match="needs a validation and a test result"):
        chosen_on_validation(points({0.1: (1, 1), 1.0: (1, 1)}).iloc[1:])
