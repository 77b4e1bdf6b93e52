"""Every registered figure can be read where it is shown: no small text, no text on another, none cut off."""

import itertools
import re

import pytest
from drawn_texts import drawn_texts, overlap
from matplotlib.figure import Figure

from mmsa_lib.figures import registry
from mmsa_lib.figures.style import alternative_text, style
from mmsa_lib.paths import project_root

ROOT = project_root()
FIGURES = registry.load_figures()
SMALLEST = 9  # points
NOTEBOOK, PAGE = 10.6, 8.7  # inches: the width of a notebook's outputs, and of README.md and docs on a code host
SHOWN = set()
for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
    SHOWN |= set(re.findall(r"!\[[^]]*\]\(\S*figures/([\w-]+)\.(?:png|svg)", page.read_text(encoding="utf-8")))


def problems(figure, width):
    """What a reader would stumble over where ``figure`` is shown at most ``width`` inches wide, one line each."""
    texts = drawn_texts(figure)
    shrunk = min(1, width / figure.get_size_inches()[0])
    for text, box in texts:
        if text.get_fontsize() * shrunk < SMALLEST - 0.01:
            yield f"{text.get_fontsize() * shrunk:.1f} pt where it is shown: {text.get_text()!r}"
        if (box < -1).any() or (box > figure.bbox.max + 1).any():
            yield f"cut off at the edge: {text.get_text()!r}"
    for (one, box), (other, second) in itertools.combinations(texts, 2):
        if overlap(box, second):
            yield f"overlap: {one.get_text()!r} and {other.get_text()!r}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_read_where_it_is_shown(name):
    known = FIGURES[name]
    tables = [registry.read_source(ROOT / source, name) for source in known.sources]
    with style():
        drawn = known.draw(*tables)
        figure = drawn[0] if isinstance(drawn, tuple) else drawn
        assert list(problems(figure, PAGE if name in SHOWN else NOTEBOOK)) == []
        assert len(alternative_text(figure)) > 20


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda axes: axes.text(0.5, 0.5, "small", fontsize=7), "7.0 pt"),
        (lambda axes: [axes.text(0.5, 0.5, word) for word in ("one", "other")], "overlap: 'one' and 'other'"),
        (lambda axes: axes.figure.text(0.95, 0.5, "much too long"), "cut off"),
        (lambda axes: axes.figure.set_size_inches(15, 3), "5.2 pt"),
    ],
)
def test_each_problem_is_seen(change, expected):
    with style():
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="epoch", xlim=(0, 1))
        assert list(problems(figure, PAGE)) == []
        change(axes)
        assert any(expected in line for line in problems(figure, PAGE))


def test_turned_texts_are_measured_as_they_lie():
    with style():
        figure = Figure(figsize=(4, 3), layout="constrained")
        for place in (0.4, 0.47):
            figure.text(place, 0.5, "a long turned text", rotation=60, ha="center")
        assert list(problems(figure, PAGE)) == []
        figure.text(0.41, 0.5, "a long turned text", rotation=60, ha="center")
        assert len(list(problems(figure, PAGE))) == 1
