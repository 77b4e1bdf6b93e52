"""Saving is byte-identical and leaves a record; redraw and check see every kind of stale figure."""

import hashlib
import json
import subprocess
import sys

import matplotlib
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.figures import palette, registry
from mmsa_lib.figures.save import save
from mmsa_lib.figures.style import style, use_style


def draw(table):
    """A figure with what makes files differ: text, clip paths, markers, a legend, mathematics, an image."""
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(table["x"], table["y"], marker="o", label=r"$\lambda$")
    left.legend()
    right.imshow([[0, 1], [2, 3]])
    return figure


@pytest.fixture
def project(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "points.csv").write_text("run_id,x,y\nbbb,0,1\naaa,1,0.333333333333\n")
    return tmp_path


@pytest.fixture
def demo(project, monkeypatch):
    """The registry with one figure, ``demo``."""
    monkeypatch.setattr(registry, "FIGURES", {})
    monkeypatch.setattr(registry, "load_figures", lambda: dict(registry.FIGURES))

    @registry.figure("demo", sources=["data/points.csv"])
    def demo_figure(points):
        return draw(points), points[["x", "y"]]

    return project


def test_files_record_and_data(project):
    table = pd.read_csv(project / "data" / "points.csv")
    source = project / "data" / "points.csv"
    files = save(draw(table), "demo", [source], table[["x", "y"]], project / "figures")
    assert [path.name for path in files] == ["demo.svg", "demo.png", "demo.csv", "demo.json"]
    record = json.loads(files[-1].read_text())
    assert record["sources"] == [{"file": "points.csv", "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}]
    assert record["runs"] == ["aaa", "bbb"]
    assert record["versions"]["matplotlib"] == matplotlib.__version__
    assert files[2].read_text() == "x,y\n0,1\n1,0.33333333\n"
    assert b"<dc:date>" not in files[0].read_bytes()
    assert str(project) not in "".join(path.read_bytes().decode("latin-1") for path in files)
    save(draw(table), "demo", [source], folder=project / "figures")
    assert not (project / "figures" / "demo.csv").exists()


def test_same_data_same_bytes_in_another_process(project):
    table = pd.read_csv(project / "data" / "points.csv")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import matplotlib, pandas as pd; matplotlib.rcParams['font.size'] = 20\n"
        "from test_save_and_registry import draw; from mmsa_lib.figures.save import save\n"
        "from mmsa_lib.figures.style import style\n"
        "table = pd.read_csv(sys.argv[2])\n"
        "with style(): picture = draw(table)\n"
        "save(picture, 'demo', [], table, sys.argv[3])\n"
    )
    arguments = [__file__.rsplit("/", 1)[0], project / "data" / "points.csv", project / "two"]
    with style():
        here = [path.read_bytes() for path in save(draw(table), "demo", [], table, project / "one")]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    assert [(project / "two" / f"demo{suffix}").read_bytes() for suffix in (".svg", ".png", ".csv", ".json")] == here


@pytest.mark.parametrize("name", ["a/b", "A", "", "../x"])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(ConfigError, match="figure name"):
        save(Figure(), name, [], folder=tmp_path)


def test_a_missing_source_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"source .*absent\.csv of figure demo cannot be read"):
        save(Figure(), "demo", [tmp_path / "absent.csv"], folder=tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_style_is_the_palette_and_ends_with_the_block():
    before = matplotlib.rcParams["svg.hashsalt"], matplotlib.rcParams["font.size"]
    with style():
        colors = [to_hex(color).upper() for color in matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]]
        assert matplotlib.rcParams["svg.hashsalt"] == "mmsa-lib"
        assert matplotlib.rcParams["font.sans-serif"] == ["DejaVu Sans"]
    names = ("BLUE", "ORANGE", "GREEN", "VERMILLION", "SKY", "PURPLE", "YELLOW", "BLACK")
    assert colors == [getattr(palette, name).upper() for name in names]
    assert (matplotlib.rcParams["svg.hashsalt"], matplotlib.rcParams["font.size"]) == before
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["font.size"] == 9


def test_redraw_twice_gives_the_same_bytes_and_passes_the_check(demo):
    folder = demo / "figures"
    assert registry.redraw(folder, root=demo) == ["demo"]
    (folder / "README.md").write_text("not a figure")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert registry.check(folder, root=demo) == []
    registry.redraw(folder, ["demo"], root=demo)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_check_names_what_is_missing_extra_and_stale(demo):
    folder = demo / "figures"
    registry.redraw(folder, root=demo)
    (folder / "demo.csv").unlink()
    (folder / "old.png").write_bytes(b"")
    (demo / "data" / "points.csv").write_text("run_id,x,y\nbbb,0,1\naaa,1,0.9\n")
    before = (folder / "demo.svg").read_bytes()
    assert registry.check(folder, root=demo) == [
        "demo.csv is missing; run `make figures`",
        "old.png belongs to no figure; delete it",
        *[f"demo.{kind} differs from what its data give; run `make figures`" for kind in ("json", "png", "svg")],
    ]
    assert (folder / "demo.svg").read_bytes() == before


def test_check_says_when_another_matplotlib_drew_the_figure(demo):
    folder = demo / "figures"
    registry.redraw(folder, root=demo)
    record = json.loads((folder / "demo.json").read_text())
    record["versions"]["matplotlib"] = "3.0.0"
    (folder / "demo.json").write_text(json.dumps(record))
    (difference,) = registry.check(folder, root=demo)
    assert f"drawn with matplotlib 3.0.0, here is {matplotlib.__version__}" in difference


def test_mistakes_are_named(demo):
    with pytest.raises(UnknownNameError, match="unknown figure 'dem'; did you mean demo"):
        registry.redraw(names=["dem"], root=demo)
    with pytest.raises(ConfigError, match="two figures are named 'demo'"):
        registry.figure("demo", sources=[])(draw)
    (demo / "data" / "points.csv").unlink()
    with pytest.raises(DataError, match=r"figure demo needs .*points\.csv, which does not exist"):
        registry.redraw(demo / "figures", root=demo)
    (demo / "data" / "points.csv").write_text("")
    with pytest.raises(DataError, match=r"figure demo: .*points\.csv is no CSV table"):
        registry.redraw(demo / "figures", root=demo)


def test_every_module_of_figures_can_be_loaded():
    figures = registry.load_figures()
    assert list(figures) == sorted(figures)
    assert "mmsa_lib.figures.palette" in sys.modules
