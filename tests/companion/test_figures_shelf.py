"""The committed figures: each is drawn from the committed tables, and shows their numbers."""

import pandas as pd
import pytest

from mmsa_lib.figures import registry
from mmsa_lib.figures.style import style
from mmsa_lib.paths import project_root

ROOT = project_root()
FIGURES = registry.load_figures()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_the_numbers_that_are_committed_beside_it(name):
    entry = FIGURES[name]
    with style():
        drawn = entry.draw(*(registry.read_source(ROOT / source, name) for source in entry.sources))
    picture, numbers = drawn if isinstance(drawn, tuple) else (drawn, None)
    assert all(axis.has_data() for axis in picture.axes)
    committed = ROOT / "figures" / f"{name}.csv"
    assert committed.is_file() == (numbers is not None)
    if numbers is not None:
        again = pd.read_csv(committed)
        assert list(again) == list(numbers)
        for column in again.dropna(axis=1, how="all").select_dtypes("number"):
            assert again[column].tolist() == pytest.approx(
                numbers[column].astype(float).tolist(), rel=1e-6, nan_ok=True
            )


def test_every_figure_has_a_title_and_every_committed_file_a_figure():
    assert all(entry.title for entry in FIGURES.values())
    kinds = {".svg", ".png", ".csv", ".json"}
    assert {path.stem for path in (ROOT / "figures").iterdir() if path.suffix in kinds} == set(FIGURES)
