"""The texts that a figure draws, their size and their boxes."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def drawn_texts(figure):
    """Each text that ``figure`` draws with the corners of its box in pixels, without tick labels outside a panel."""
    found, draw = [], Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            found.append(text)
        return draw(text, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout settles
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        canvas.draw()
        return [(text, corners(text, canvas.get_renderer())) for text in dict.fromkeys(found)]


def corners(text, renderer):
    """The four corners of a text's box, turned as the text is."""
    turned = text.get_rotation()
    box = Text.get_window_extent(text, renderer)  # of an annotation without its arrow
    if turned % 90 == 0:
        return np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    middle = (box.min + box.max) / 2
    text.set_rotation(0)
    flat = Text.get_window_extent(text, renderer)
    text.set_rotation(turned)
    angle = np.deg2rad(turned)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    half = np.array([flat.width, flat.height]) / 2
    return middle + (np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half) @ turn


def overlap(one, other, slack=1.0):
    """Whether two convex boxes share more than ``slack`` pixels in every direction."""
    for box in (one, other):
        for start, end in itertools.pairwise([*box, box[0]]):
            side = end - start
            if not (length := np.hypot(*side)):
                continue
            normal = np.array([-side[1], side[0]]) / length
            mine, theirs = one @ normal, other @ normal
            if min(mine.max(), theirs.max()) - max(mine.min(), theirs.min()) <= slack:
                return False
    return True
