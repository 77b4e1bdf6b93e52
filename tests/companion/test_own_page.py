"""What notebook 10 has of its own: a terminal in a folder, drawn films, and contributions as a picture."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from companion import own
from mmsa_lib.errors import ConfigError


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # both are put back afterwards
    monkeypatch.setenv("MMSA_LIB_DATA", "")
    return own.Terminal(tmp_path)


def test_a_command_runs_in_the_folder_and_tells_paths_from_there(terminal, capsys):
    terminal("mmsa-lib data template --out mine --modalities text")
    terminal("mmsa-lib data import table min* --name a", most=2)
    assert (terminal.folder / "mine" / "samples.csv").is_file()
    assert (terminal.folder / "data" / "stores" / "a.h5").is_file()
    said = capsys.readouterr().out
    assert str(terminal.folder) not in said
    lines = said[said.index("$ mmsa-lib data import table min*") :].splitlines()
    assert lines[1] == "a imported: 36 samples in data/stores/a.h5"
    assert lines[2].startswith("… ")
    assert len(lines) == 4


def test_a_mistake_is_shown_with_its_exit_code(terminal, capsys):
    terminal("mmsa-lib data info nothing_of_that_name")
    assert capsys.readouterr().out.rstrip().endswith("(exit code 2)")
    with pytest.raises(ConfigError, match="'rm'"):
        terminal("rm -r .")


def test_a_face_smiles_as_it_feels():
    """The corners of the mouth stand higher than its middle, or lower."""
    heights = {}
    for feeling in (-2, 2):
        red = (own.face(feeling, 0.0, 0.5) == (0xB0, 0x40, 0x40)).all(axis=-1)
        columns = np.flatnonzero(red.any(axis=0))
        top = red.argmax(axis=0)
        heights[feeling] = top[columns[len(columns) // 2]] - top[columns[1]]
    assert heights[-2] < 0 < heights[2]


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="av is not installed")
def test_a_film_has_its_pictures_and_its_sound(tmp_path):
    import av

    sound = np.sin(np.arange(16_000) / 16_000 * 2 * np.pi * 200).astype("float32")
    own.film(tmp_path / "a.mp4", sound, 16_000, 1.0, fps=5)
    with av.open(str(tmp_path / "a.mp4")) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(str(tmp_path / "a.mp4")) as file:
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
    assert len(pictures) == 5
    assert abs(pictures[0].astype(float) - own.face(1.0, 0.0, 0.5)).mean() < 5
    crossings = (np.diff(np.sign(heard[2000:14_000])) != 0).sum()
    assert crossings == pytest.approx(300, abs=3)


def test_contributions_are_drawn_where_they_are():
    without = {"without_text": [0.2, 0.1], "without_audio": [0.9, np.nan], "without_vision": np.nan}
    answers = pd.DataFrame({"id": ["a", "b"], "prediction": [1.0, -0.5], "low": [0.5, -1], "high": [1.5, 0], **without})
    axes = own.contributions(answers).axes[0]
    drawn = [line.get_xdata().tolist() for line in axes.get_lines()[:3]]
    np.testing.assert_array_equal(drawn, [[1.0, -0.5], [0.2, 0.1], [0.9, np.nan]])
    np.testing.assert_array_equal([line[:, 0] for line in axes.collections[0].get_segments()], [[0.5, 1.5], [-1, 0]])
