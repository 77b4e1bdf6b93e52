"""Diagrams: every text fits into its box, no box hides another, and one part can be lit."""

import io

import pytest

from companion.architectures import DIAGRAMS
from mmsa_lib.errors import UnknownNameError
from mmsa_lib.figures import diagrams
from mmsa_lib.figures.diagrams import Diagram, draw
from mmsa_lib.methods import METHODS

BY_NAME = {diagram.__name__: diagram for diagram in DIAGRAMS}
all_diagrams = pytest.mark.parametrize("diagram", DIAGRAMS, ids=list(BY_NAME))


def boxes_and_texts(figure):
    """Extents in pixels: of each box, and of the text with the same centre."""
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [p.get_window_extent() for p in axes.patches if type(p).__name__ == "FancyBboxPatch"]
    return boxes, [text.get_window_extent() for text in axes.texts]


@all_diagrams
def test_texts_fit_and_can_be_read(diagram):
    figure = draw(diagram())
    boxes, texts = boxes_and_texts(figure)
    for box, text in zip(boxes, texts, strict=False):  # the texts of boxes come first
        assert box.x0 <= text.x0
        assert text.x1 <= box.x1
        assert box.y0 <= text.y0
        assert text.y1 <= box.y1
    assert min(text.get_fontsize() for text in figure.axes[0].texts) >= 9
    assert figure.get_size_inches()[0] < 10.5  # at most the width of a notebook
    page = figure.bbox
    assert all(
        page.x0 <= text.x0 and text.x1 <= page.x1 and page.y0 <= text.y0 and text.y1 <= page.y1 for text in texts
    )


@all_diagrams
def test_no_box_or_text_hides_another(diagram):
    boxes, texts = boxes_and_texts(draw(diagram()))
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
    for place, text in enumerate(texts):
        assert not any(text.overlaps(other) for other in texts[place + 1 :])


@all_diagrams
def test_every_box_is_joined_to_another(diagram):
    drawn = diagram()
    assert {name for arrow in drawn.arrows for name in (arrow.start, arrow.end)} == set(drawn.boxes)


def test_the_four_papers_and_their_parent_are_drawn():
    papers = {"contrastive_mmcl", "collaborative_mmcl", "modal_alignment", "hrlf", "self_mm"}
    assert papers <= set(BY_NAME)
    assert papers <= set(METHODS)
    assert {box for box in diagrams.family().boxes if box in METHODS} == papers - {"self_mm"}


def test_one_part_is_lit_and_the_rest_fades():
    figure = draw(diagrams.hrlf(), lit=("decoder", "frf"))
    strong = [text.get_text() for text in figure.axes[0].texts if text.get_alpha() == 1]
    assert len(strong) == 2
    assert strong[0].startswith("decoder")
    assert strong[1].startswith("FRF")
    with pytest.raises(UnknownNameError, match="encoder"):
        draw(diagrams.hrlf(), lit="encodr")


def test_stopped_gradients_are_dashed_and_corners_are_turned():
    d = Diagram()
    d.add("a", 0, 0, "a")
    d.add("b", 3, 0, "b")
    d.arrow("a", "b", stopped=True)
    d.arrow("a", "b", via=((0, 1), (3, 1)))
    dashed, cornered = [p for p in draw(d).axes[0].patches if type(p).__name__ == "FancyArrowPatch"]
    assert dashed.get_linestyle() != "-"
    assert cornered.get_linestyle() == "-"
    assert cornered.get_path().vertices[:, 1].max() == pytest.approx(1, abs=0.1)


def test_the_same_diagram_gives_the_same_bytes():
    def svg():
        with io.BytesIO() as file, diagrams.style():
            draw(diagrams.synthetic()).savefig(file, format="svg", metadata={"Date": None})
            return file.getvalue()

    assert svg() == svg()
