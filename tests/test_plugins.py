"""Methods and data sources of others: docs/your_method.md as it stands there, and what goes wrong."""

import importlib
import json
import linecache
import os
import re
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from written_runs import SEEDS, write_run

from mmsa_lib import cli, plugins
from mmsa_lib.cli import main
from mmsa_lib.data import SOURCES, FeatureSet, load
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError, warn_once
from mmsa_lib.experiments import RunConfig, collect, find_run, run
from mmsa_lib.experiments.sweep_file import read_points
from mmsa_lib.methods import METHODS, method_class
from mmsa_lib.paths import project_root

PAGE = (project_root() / "docs/your_method.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"<!-- recipe: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.S))
MINE = "from mmsa_lib.methods.fusion_baselines import LateFusion\nclass Mine(LateFusion):\n    id = 'mine'\n"
SOURCE = RECIPES["products.py"].replace("products", "made")
SMALL = {"data": {"samples": [40, 20, 20], "dims": [12, 9, 8], "length": 5}, "config": {"max_epochs": 1}}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages, at the front of the path of this process and of its kernels."""
    for name in ("DATA", "RUNS"):
        monkeypatch.setenv(f"MMSA_LIB_{name}", str(tmp_path / name.lower()))
    folder, before = tmp_path / "site", set(sys.modules)
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(project_root())]))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    warn_once.cache_clear()
    yield folder
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for registry, name in ((METHODS, "mine"), (METHODS, "product_fusion"), (SOURCES, "made")):
        registry.pop(name, None)
    plugins._entry_points.cache_clear()


def install(site, files, name="own-pkg", version="1.2", **offered):
    """What pip leaves behind: the modules, and a folder with the package's name, version and entry points."""
    for file, text in files.items():
        (site / file).write_text(text, encoding="utf-8")
    facts = site / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir(exist_ok=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = {group: "\n".join(f"{key} = {value}" for key, value in of.items()) for group, of in offered.items()}
    (facts / "entry_points.txt").write_text("\n".join(f"[mmsa_lib.{key}]\n{of}\n" for key, of in groups.items()))
    importlib.invalidate_caches()
    plugins._entry_points.cache_clear()


def refused(capsys, *words):
    """The one line with which a command is refused, without what was said before."""
    capsys.readouterr()
    assert main(list(words)) == 2
    answer = capsys.readouterr()
    assert not answer.out
    (line,) = [line for line in answer.err.splitlines() if line.startswith("mmsa-lib: error:")]
    assert "Traceback" not in answer.err
    return line


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_followed_as_it_stands_there(site, tmp_path, capsys):
    written = tomllib.loads(RECIPES["pyproject.toml"])
    modules = {f"{name}.py": RECIPES[f"{name}.py"] for name in written["tool"]["setuptools"]["py-modules"]}
    offered = {group.removeprefix("mmsa_lib."): of for group, of in written["project"]["entry-points"].items()}
    install(site, modules, written["project"]["name"], written["project"]["version"], **offered)
    (tmp_path / "products.yaml").write_text(RECIPES["products.yaml"])
    for line in RECIPES["commands"].splitlines():
        capsys.readouterr()
        assert main(shlex.split(line)[1:]) == 0, line
    assert re.search(r"^late_fusion .*\n(.*\n)*product_fusion ", capsys.readouterr().out, re.M)
    rows = collect(tmp_path / "runs")
    assert rows.groupby("method")["run_id"].nunique()[["late_fusion", "product_fusion"]].tolist() == [1, 3]
    chosen = rows[rows["method"] == "product_fusion"]["run_id"].iloc[0]
    own = find_run(chosen, tmp_path / "runs").environment["own_code"]
    assert own["product_fusion"]["from"] == "ProductFusion of my-fusion 0.1"
    assert own["products"]["from"] == "products of my-fusion 0.1"


def test_the_page_in_a_notebook(site):
    (site / "my_fusion.py").write_text(RECIPES["my_fusion.py"])
    space = {}
    exec(compile(RECIPES["here.py"], "here.py", "exec"), space)
    assert space["result"].metrics["method"].unique().tolist() == ["product_fusion"]


def test_method_and_source_are_as_short_as_the_page_says():
    def lines(text):
        return len([line for line in text.splitlines() if line.strip()])

    assert lines(RECIPES["my_fusion.py"].partition("\n\n\n")[2]) <= 30
    assert lines(RECIPES["products.py"].partition("\n\n\n")[2]) <= 15


# --- Names ------------------------------------------------------------------------------------------------------------


def test_names_are_known_without_importing_the_package_or_torch(site):
    install(
        site, {"own.py": "raise ValueError('imported')"}, methods={"mine": "own:Mine"}, data_sources={"made": "own:f"}
    )
    imports = "import sys; from mmsa_lib.methods import METHODS; from mmsa_lib.data.registry import known_names"
    code = f"{imports}; print([*METHODS], 'made' in known_names(), 'mine' in METHODS, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("'misa', 'mine'] True True False")


def test_they_stand_in_lists_hints_and_completion(site, capsys):
    install(site, {"own.py": MINE + SOURCE}, methods={"mine": "own:Mine"}, data_sources={"made": "own:made"})
    assert main(["methods", "list", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["methods"][-1]
    assert (row["method"], row["kind"], row["package"]) == ("mine", "own", "own-pkg 1.2")
    assert main(["data", "list"]) == 0
    assert re.search(
        r"^made +generated +Generated when loaded, by package own-pkg 1\.2$", capsys.readouterr().out, re.M
    )
    assert "did you mean mine?" in refused(capsys, "train", "minee")
    assert "did you mean made" in refused(capsys, "train", "mine", "--dataset", "madee")
    assert "known here" not in refused(capsys, "data", "import", "table", "x.csv", "--name", "made")
    assert main(["doctor", "--json"]) == 0
    offered = json.loads(capsys.readouterr().out)["from packages"]["details"]["offered"]
    assert offered == {"mine": "own-pkg 1.2", "made": "own-pkg 1.2"}
    parser = cli.build_parser()
    cli._offer_names(parser)
    train = parser._subparsers._group_actions[0].choices["train"]
    choices = {action.dest: action.choices for action in train._actions}
    assert "mine" in choices["method"]
    assert {"made", "synthetic"} <= set(choices["dataset"])


# --- What goes wrong --------------------------------------------------------------------------------------------------

BROKEN = {
    "missing module": ({}, "own:Mine", "can't be loaded (ModuleNotFoundError: No module named 'own')"),
    "missing name": ({"own.py": ""}, "own:Mine", "AttributeError: module 'own' has no attribute 'Mine')"),
    "import error": ({"own.py": "import nowhere"}, "own:Mine", "No module named 'nowhere', own.py line 1)"),
    "syntax": ({"own.py": "def :"}, "own:Mine", "SyntaxError: invalid syntax (own.py, line 1)"),
    "exit": ({"own.py": "import sys\nsys.exit(3)"}, "own:Mine", "SystemExit: 3, own.py line 2"),
    "no name at all": ({"own.py": ""}, "own", "register a class that extends mmsa_lib.methods.Method"),
    "no reference": ({"own.py": ""}, "own.Mine!", "can't be loaded"),
    "no class": ({"own.py": "Mine = 3"}, "own:Mine", "is 3; register a class that extends mmsa_lib.methods.Method"),
    "another id": ({"own.py": MINE.replace("'mine'", "'his'")}, "own:Mine", "has id 'his'; write id = 'mine'"),
    "an inherited id": ({"own.py": MINE.replace("id =", "other =")}, "own:Mine", "has id 'late_fusion'; write"),
    "abstract": (
        {"own.py": "from mmsa_lib.methods import Method\nclass Mine(Method):\n    id = 'mine'\n"},
        "own:Mine", "Mine must define forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_method_is_one_line_and_nothing_else_is_broken(case, site, capsys):
    files, value, reason = BROKEN[case]
    install(site, files, methods={"mine": value})
    line = refused(capsys, "train", "mine")
    assert f"package own-pkg 1.2 (entry point mine = {value})" in line
    assert reason in line
    assert main(["methods", "info", "late_fusion"]) == 0
    assert main(["--help"]) == 0
    capsys.readouterr()
    assert "mine" not in METHODS.items()
    assert {"late_fusion", "hrlf"} <= dict(METHODS.items()).keys()
    assert line.removeprefix("mmsa-lib: error: ") in capsys.readouterr().err


def test_doctor_names_what_is_broken_and_finds_no_fault(site, capsys):
    install(site, {"own.py": "import nowhere"}, methods={"mine": "own:Mine"}, data_sources={"made": "own:made"})
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["from packages"]
    assert (found["ok"], found["state"]) == (True, "REMARK")
    assert [re.search(r"entry point (\w+)", line)[1] for line in found["details"]["problems"]] == ["mine", "made"]


def test_names_that_a_package_cannot_have_are_left_out(site, capsys):
    other = MINE.replace("'mine'", "'late_fusion'")
    taken = {"late_fusion": "own:Mine", "constant_mine": "own:Mine", "a/b": "own:Mine"}
    install(site, {"own.py": other + SOURCE}, methods=taken, data_sources={"mosi": "own:made", "synthetic": "own:made"})
    assert method_class("late_fusion").__module__ == "mmsa_lib.methods.fusion_baselines"
    assert not {"constant_mine", "a/b"} & set(METHODS)
    assert not [*SOURCES]
    said = capsys.readouterr().err.splitlines()
    for name in ("late_fusion", "constant_mine", "a/b", "mosi", "synthetic"):
        assert [line for line in said if f"own-pkg 1.2 (entry point {name} = " in line and "left out" in line], name
    with pytest.raises(ConfigError, match="'synthetic' is a name of mmsa_lib's own"):
        SOURCES["synthetic"] = print


def test_two_packages_with_one_name(site, capsys):
    install(site, {"one.py": MINE}, "one", methods={"mine": "one:Mine"})
    install(site, {"two.py": MINE}, "two", methods={"mine": "two:Mine"})
    line = refused(capsys, "train", "mine")
    assert "package one 1.2 (entry point mine = one:Mine)" in line
    assert "package two 1.2 (entry point mine = two:Mine)" in line
    assert main(["methods", "list"]) == 0
    install(site, {}, "one", "1.1", methods={"mine": "one:Mine"})  # an older installation of the same is no second one
    (site / "two-1.2.dist-info" / "entry_points.txt").unlink()
    plugins._entry_points.cache_clear()
    assert METHODS["mine"].__module__ == "one"


def test_metadata_that_cannot_be_read_is_said(site, capsys):
    install(site, {"own.py": MINE}, methods={"mine": "own:Mine"})
    install(site, {}, "worse", "1.0")
    (site / "worse-1.0.dist-info" / "entry_points.txt").write_text("[mmsa_lib.methods]\nno equals sign\n")
    plugins._entry_points.cache_clear()
    assert METHODS["mine"].id == "mine"
    assert "entry_points.txt of package worse can't be read" in capsys.readouterr().err


def test_what_a_package_prints_is_no_part_of_an_answer(site, capsys):
    install(site, {"own.py": "print('hello')\n" + MINE}, methods={"mine": "own:Mine"})
    assert main(["methods", "info", "mine", "--json"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["method"] == "mine"
    assert "hello" in answer.err


# --- Code and runs ----------------------------------------------------------------------------------------------------


def test_an_edited_method_is_another_run_and_a_fresh_process_says_what_is_missing(site, tmp_path, capsys):
    def identifier(text):
        sys.modules.pop("own", None)
        install(site, {"own.py": text, "unused.py": text}, methods={"mine": "own:Mine"})
        return run(RunConfig(method="mine", **SMALL), progress="none").run_id

    text = (
        MINE
        + "    def losses(self, batch, output):\n        return {'task': 1.0 * super().losses(batch, output)['task']}\n"
    )
    first, second = identifier(text), identifier(text.replace("1.0 *", "2.0 *"))
    assert first != second
    assert identifier(text + "# a remark\n\nUNRELATED = 1\n") == first
    (tmp_path / "runs" / first).rename(tmp_path / "elsewhere")
    result = find_run(tmp_path / "runs" / second)
    sys.modules.pop("own")
    capsys.readouterr()
    result.load_method()  # with the code of the first
    assert "the code of mine is not what run" in capsys.readouterr().err
    (site / "own_pkg-1.2.dist-info" / "entry_points.txt").unlink()
    plugins._entry_points.cache_clear()
    with pytest.raises(UnknownNameError, match=r"of method 'mine', Mine of own-pkg 1\.2, which is not registered"):
        find_run(tmp_path / "runs" / second)
    assert set(collect(tmp_path / "runs")["method"]) >= {"mine"}  # tables need no code


def cell(space, text):
    """Run ``text`` as a cell of a notebook, whose lines are known to tracebacks."""
    name = f"/tmp/ipykernel_1/{len(linecache.cache)}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), space)


def test_a_method_and_a_source_of_notebook_cells(site, tmp_path):
    def train():
        return run(
            RunConfig(method="mine", dataset="made", config={"max_epochs": 1}, data={"samples": n}), progress="none"
        )

    space, n = {"__name__": "__main__"}, 40
    cell(space, f"{MINE}\nfrom mmsa_lib.methods import METHODS\nMETHODS['mine'] = Mine")
    cell(space, f"{SOURCE}\nfrom mmsa_lib.data import SOURCES\nSOURCES['made'] = made")
    first = train()
    cell(space, "unrelated = 1")
    assert train().finished_before
    cell(space, f"{SOURCE.replace('audio * vision', 'audio + vision')}\nSOURCES['made'] = made")
    other_data = train()
    cell(space, f"{MINE}    depth = 2\nMETHODS['mine'] = Mine")
    assert len({first.run_id, other_data.run_id, train().run_id}) == 3
    places = {name: found["from"] for name, found in first.environment["own_code"].items()}
    assert places == {"mine": "Mine of __main__", "made": "made of __main__"}
    code = f"import mmsa_lib.experiments as e; e.find_run({first.run_id!r}, {str(tmp_path / 'runs')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = done.stderr.splitlines()[-1]
    assert "is of method 'mine', Mine of __main__, which is not registered here" in line
    assert "METHODS['mine'] = its class" in line


def test_a_point_of_a_sweep_is_as_old_as_the_code_it_uses(site, tmp_path):
    def points(text=MINE, source=SOURCE):
        for name in ("own", "made"):
            sys.modules.pop(name, None)
        install(
            site, {"own.py": text, "made.py": source}, methods={"mine": "own:Mine"}, data_sources={"made": "made:made"}
        )
        return [point.id for point in read_points(tmp_path / "s.yaml")]

    grid = {"method": ["mine", "late_fusion"], "dataset": ["made", "synthetic"]}
    (tmp_path / "s.yaml").write_text(json.dumps({"notebook": "06_train", "grid": grid}))
    first = points()
    assert points(MINE + "# a remark\nOTHER = 1\n", SOURCE + "\nOTHER = 1\n") == first
    assert [a == b for a, b in zip(first, points(MINE + "    depth = 2\n"), strict=True)] == [False, False, True, True]
    edited = points(source=SOURCE.replace("audio * vision", "audio + vision"))
    assert [a == b for a, b in zip(first, edited, strict=True)] == [False, True, False, True]


def test_a_sweep_with_new_processes(site, tmp_path):
    install(site, {"own.py": MINE + SOURCE}, methods={"mine": "own:Mine"}, data_sources={"made": "own:made"})
    parameters = {"method": "mine", "dataset": "made", "data.samples": 40, "config.max_epochs": 1}
    (tmp_path / "s.yaml").write_text(json.dumps({"notebook": "06_train", "parameters": parameters, "seeds": [1]}))
    assert main(["sweep", "s.yaml", "--cold", "--runs", "runs", "--quiet"]) == 0
    assert collect(tmp_path / "runs")["method"].iloc[0] == "mine"


def test_a_file_joins_by_a_variable(site, tmp_path, monkeypatch, capsys):
    (site / "neighbour.py").write_text(MINE)
    imports = "from neighbour import Mine\nfrom mmsa_lib.data import SOURCES\nfrom mmsa_lib.methods import METHODS"
    text = f"{SOURCE}\n{imports}\nMETHODS['mine'], SOURCES['made'] = Mine, made\n"
    (tmp_path / "plug.py").write_text(text)
    monkeypatch.setenv("MMSA_LIB_PLUGINS", "plug.py")
    words = ["train", "mine", "--dataset", "made", "--set", "samples=40", "max_epochs=1", "--quiet"]
    assert main(words) == 0
    assert os.environ["MMSA_LIB_PLUGINS"] == str(tmp_path / "plug.py")  # for kernels, which work elsewhere
    for text, reason in (("1 / 0", "ZeroDivisionError: division by zero, bad.py line 1"), (None, "is no Python file")):
        monkeypatch.setenv("MMSA_LIB_PLUGINS", "bad.py")
        (tmp_path / "bad.py").write_text(text) if text else (tmp_path / "bad.py").unlink()
        assert reason in refused(capsys, "train", "nobody")
    (tmp_path / "json.py").write_text("")
    monkeypatch.setenv("MMSA_LIB_PLUGINS", "json.py")
    assert "give the file another name" in refused(capsys, "train", "nobody")
    assert main(["--help"]) == 0


# --- Data sources -----------------------------------------------------------------------------------------------------


@pytest.fixture
def made(site):
    space = {"__name__": "__main__"}
    cell(space, f"{SOURCE}\nfrom mmsa_lib.data import SOURCES\nSOURCES['made'] = made")
    return space["made"]


def test_options_follow_from_the_function(made, capsys):
    assert len(load("made", samples=80)["train"]) == 40
    with pytest.raises(UnknownNameError, match="unknown option of load 'sample'; did you mean samples"):
        load("made", sample=80)
    for item, reason in {
        "data.sample=3": "did you mean samples", "samples=many": "'many' does not fit; it takes a whole number",
        "samples=2.5": "does not fit", "noise=nan": "is not finite",
    }.items():  # fmt: skip
        assert reason in refused(capsys, "train", "late_fusion", "--dataset", "made", "--set", item)
    assert RunConfig(method="late_fusion", dataset="made", data={"samples": 400, "noise": 0.2}).data_changes == {
        "noise": 0.2
    }


def test_an_option_without_default_and_options_of_any_name(made, capsys):
    SOURCES["made"] = lambda samples: made(samples)
    assert "missing a required argument: 'samples'" in refused(capsys, "train", "late_fusion", "--dataset", "made")
    SOURCES["made"] = lambda **options: made(**options)
    words = ["--set", "data.samples=40", "max_epochs=1", "--quiet", "--metrics", "mae"]
    assert main(["train", "late_fusion", "--dataset", "made", *words]) == 0
    assert "unexpected keyword argument 'sample'" in refused(
        capsys, "train", "late_fusion", "--dataset", "made", "--set", "data.sample=3"
    )
    SOURCES["made"] = lambda folder="": made()
    assert "load has an option 'folder' itself; rename it" in refused(
        capsys, "train", "late_fusion", "--dataset", "made"
    )


def changed(record, **values):
    vars(record).update(values)
    return record


RUBBISH = {
    "returned NoneType, not a DatasetRecord": lambda record: None,
    "returned dict, not a DatasetRecord": lambda record: {"text": 1},
    "its function failed (KeyError: 'x', test_plugins.py line": lambda record: {}["x"],
    "labels: shape (39,), expected (40,)": lambda record: changed(record, labels=record.labels[:-1]),
    "returned no sound data set (could not convert string to float: 'good')": lambda record: changed(
        record, labels=["good"] * 40
    ),
    "not a DatasetRecord with a task": lambda record: changed(record, task="regression"),
    "no sound data set ('list' object has no attribute 'items')": lambda record: changed(record, folds=[]),
    "label": lambda record: changed(record, labels=record.labels + np.nan),
    "folds": lambda record: changed(record, folds={"standard": ["train"] * 40}),
    "ids": lambda record: changed(record, ids=["a"] * 40),
    "nothing of made is left to load": lambda record: changed(record, features={}),
}


@pytest.mark.parametrize("reason", RUBBISH)
def test_what_is_no_data_set_is_refused_in_one_line(reason, made, capsys):
    SOURCES["made"] = lambda: RUBBISH[reason](made(40))
    line = refused(capsys, "train", "late_fusion", "--dataset", "made")
    assert "made" in line
    assert reason in line
    with pytest.raises((DataError, ConfigError)):
        load("made")


def test_lists_and_doubles_are_as_good_as_arrays(made):
    def lists():
        record = made(40)
        one = {
            m: FeatureSet(m, f.values.tolist(), f.lengths.tolist(), f.observed.tolist(), f.level)
            for m, f in record.features.items()
        }
        return changed(
            record, labels=record.labels.tolist(), folds={"standard": record.folds["standard"].tolist()}, features=one
        )

    usual = load("made", samples=40)
    SOURCES["made"] = lists
    assert {split: part.fingerprint for split, part in load("made").items()} == {
        split: part.fingerprint for split, part in usual.items()
    }


def test_a_source_can_be_built_into_a_store(made, tmp_path, capsys):
    assert main(["data", "build", "made"]) == 0
    assert main(["data", "check", "made"]) == 0
    SOURCES["made"] = lambda: made(40)
    assert "holds another data set 'made'" in refused(capsys, "data", "build", "made")
    assert main(["data", "build", "made", "--force"]) == 0


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_figures_of_the_companion_give_it_a_colour_of_its_own(site, tmp_path):
    from companion import names, shared

    install(site, {"own.py": MINE}, methods={"mine": "own:Mine"})
    for method in ("mine", "text_only"):
        for seed in SEEDS:
            write_run(tmp_path / "written", method, seed)
    figure, numbers = shared.method_dots(collect(tmp_path / "written"), names.METRICS)
    colors = {line.get_color() for axis in figure.axes for line in axis.get_lines()}
    assert {names.color("mine"), names.COLORS["text_only"]} <= colors
    assert names.color("mine") not in names.COLORS.values()
    assert "mine" in numbers["method"].tolist()
