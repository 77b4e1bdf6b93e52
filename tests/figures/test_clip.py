"""The picture of a clip: what is given has its panel, on one axis of time."""

import numpy as np
import pandas as pd
import pytest

from mmsa_lib.figures import palette
from mmsa_lib.figures.clip import clip_figure

RATE = 1000
TIMES = np.arange(30) * 0.1


@pytest.fixture
def parts():
    audio = pd.DataFrame({"Loudness_sma3": TIMES, "F0semitoneFrom27.5Hz_sma3nz": [0.0, 5.0] * 15}, index=TIMES)
    vision = pd.DataFrame({"still": np.zeros(30), "smile": TIMES / 3, "blink": TIMES / 30}, index=TIMES)
    words = pd.DataFrame({"word": ["good", "film"], "start": [0.5, 1.0], "end": [1.0, 2.9]})
    frame, points = np.zeros((40, 60, 3), np.uint8), np.array([[30.0, 20.0], [31.0, 22.0]])
    sound = np.sin(np.arange(3 * RATE) / 20)
    return {"sound": sound, "rate": RATE, "audio": audio, "vision": vision, "words": words} | {
        "frame": frame,
        "points": points,
    }


def test_every_part_is_where_it_belongs(parts):
    drawn = clip_figure(**parts, title="a clip", most=2)
    face, sound, loudness, pitch, heat = drawn.axes
    assert drawn.get_suptitle() == "a clip"
    assert np.array_equal(np.stack(face.lines[0].get_data(), axis=1), parts["points"])
    assert [(text.get_text(), text.get_position()[0]) for text in sound.texts] == [("good", 0.75), ("film", 1.95)]
    assert np.array_equal(loudness.lines[0].get_ydata(), TIMES)
    assert np.isnan(pitch.lines[0].get_ydata()).sum() == 15  # no voice
    assert [label.get_text() for label in heat.get_yticklabels()] == ["smile", "blink"]
    assert np.asarray(heat.images[0].get_array())[0] == pytest.approx(TIMES / 3)
    assert all(axis.get_xlim() == (0.0, 3.0) for axis in drawn.axes[1:])
    drawn.canvas.draw()


def test_a_part_of_the_clip_has_its_words_only(parts):
    sound = clip_figure(**parts, start=0.9, end=3.0).axes[1]
    assert [text.get_text() for text in sound.texts] == ["film"]
    assert sound.get_xlim() == (0.9, 3.0)


@pytest.mark.parametrize("left", [["sound"], ["frame"], ["words"], ["vision", "frame"], []])
def test_what_is_not_given_has_no_panel(parts, left):
    drawn = clip_figure(**{name: parts[name] for name in left}, points=None)
    assert len(drawn.axes) == len(left)
    drawn.canvas.draw()


def test_no_face_is_said(parts):
    (axis,) = clip_figure(frame=parts["frame"]).axes
    assert axis.get_title() == "no face"
    assert palette.YELLOW not in [line.get_color() for line in axis.lines]
