from __future__ import annotations

import io
import json
import subprocess
import sys
import types

import pytest

from mmsa_lib import cli
from mmsa_lib.cli import main
from mmsa_lib.cli.output import print_json
from mmsa_lib.errors import DataError, RunError


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mmsa-lib: error: ")
    assert err.count("\n") == 1
    return err


LIGHT = """
import sys
from mmsa_lib.cli import main
main(sys.argv[1:])
heavy = {"torch", "pandas", "transformers", "matplotlib", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("words", "name", "values"),
    [
        ("train x --seeds 1 --seeds 2 3", "seeds", [1, 2, 3]),
        ("train x --set a=1 --set b=2", "assignments", ["a=1", "b=2"]),
        ("train x", "protocols", ["complete"]),
        ("notebooks run --set a=1 b=2 --set c=3", "set", ["a=1", "b=2", "c=3"]),
        ("results export a b --by x --by y", "by", ["x", "y"]),
        ("sweep x --only a --only b", "only", ["a", "b"]),
    ],
)
def test_an_option_of_several_values_that_is_given_again_adds_to_the_first(words, name, values):
    for _ in "ab":  # the default stays as it is
        assert getattr(cli.build_parser().parse_args(words.split()), name) == values


@pytest.mark.parametrize("words", ["--help", "train --help", "train self_m", "methods info self_m", "train constat"])
def test_help_and_a_misspelt_method_do_not_wait_for_torch(words):
    done = subprocess.run([sys.executable, "-c", LIGHT, *words.split()], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_is_answered_with_the_usage(capsys):
    assert main([]) == 2
    assert "COMMAND" in one_line(capsys)


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "train a method, one run per seed" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mmsa-lib ")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("a\nb"), 2, "mmsa-lib: error: a b\n"),
        (RunError("broke"), 1, "mmsa-lib: error: broke\n"),
        (KeyboardInterrupt(), 130, "interrupted; repeat the command to resume\n"),
    ],
)
def test_errors_become_exit_codes(error, code, text, fail, capsys):
    assert fail(error) == code
    assert capsys.readouterr().err == text


@pytest.fixture
def fail(monkeypatch):
    """Run a command whose handler raises ``error``."""
    from mmsa_lib.cli import doctor

    def run(error):
        monkeypatch.setattr(doctor, "doctor", lambda args: (_ for _ in ()).throw(error))
        return main(["doctor"])

    return run


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("a\nb"), "doctor failed unexpectedly: ZeroDivisionError: a b"),
        (KeyError("x"), "doctor failed unexpectedly: KeyError: 'x'"),
        (MemoryError(), "not enough memory for doctor"),
        (RecursionError("maximum"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "no"), "UnicodeDecodeError"),
        (SystemError("AST"), "SystemError: AST"),
    ],
)
def test_what_nobody_foresaw_is_one_line_and_a_traceback_on_request(error, text, fail, monkeypatch, capsys):
    assert fail(error) == 2
    line = one_line(capsys)
    assert text in line
    assert "MMSA_LIB_DEBUG=1" in line
    monkeypatch.setenv("MMSA_LIB_DEBUG", "1")
    assert fail(error) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


SIGNS = "MAE ↓ F1 ↑ 1 ± 2 – … ≥ × läufe 好 \udcff"


def printed(monkeypatch, encoding, command, stream="stdout"):
    """What a command prints on a console of this encoding, read in that encoding."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    code = main(command)
    text = raw.getvalue().decode(encoding)
    assert getattr(sys, stream).errors == "strict"  # as it was
    monkeypatch.undo()
    return code, text


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "latin-1", "gbk", "utf-8", "utf-16"])
def test_output_survives_any_encoding(encoding, monkeypatch):
    from mmsa_lib.cli import doctor

    def speak(args):
        print_json({"signs": SIGNS}) if args.json else print(SIGNS)
        raise DataError(SIGNS)

    monkeypatch.setattr(doctor, "doctor", speak)
    code, text = printed(monkeypatch, encoding, ["doctor"])
    assert code == 2
    assert "MAE" in text
    assert "?" not in text
    monkeypatch.setattr(doctor, "doctor", speak)
    assert json.loads(printed(monkeypatch, encoding, ["doctor", "--json"])[1]) == {"signs": SIGNS}
    monkeypatch.setattr(doctor, "doctor", speak)
    assert "mmsa-lib: error: MAE" in printed(monkeypatch, encoding, ["doctor"], "stderr")[1]


def test_signs_that_an_encoding_lacks_are_spelt(monkeypatch):
    from mmsa_lib.cli import doctor

    monkeypatch.setattr(doctor, "doctor", lambda args: print(SIGNS) or 0)
    assert printed(monkeypatch, "ascii", ["doctor"]) == (
        0, "MAE v F1 ^ 1 +- 2 - ... >= x l\\u00e4ufe \\u597d \\udcff\n"
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252"])
@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS), ["data", "masks"], ["results", "table"]])
def test_help_survives_any_encoding(command, encoding, monkeypatch):
    assert printed(monkeypatch, encoding, [*command, "--help"])[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    command = (
        f'"$0" -m mmsa_lib train bogus {closed}; first=$?; "$0" -m mmsa_lib --version {closed}; echo $first $? >&9'
    )
    done = subprocess.run(
        ["sh", "-c", f"exec 9>&1; {command}", sys.executable], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "2 0"
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "mmsa_lib", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=600) == 0


def test_json_has_no_nan(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], 3: (1,)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "3": [1]}


@pytest.mark.skipif(sys.platform == "win32", reason="a current folder can't be deleted there")
def test_a_current_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in (["data", "list"], ["train", "early_fusion"], ["doctor"]):
        assert main(command) == 2
        assert "the current folder can't be used" in one_line(capsys)


def test_methods_are_listed_with_what_they_predict(capsys):
    from mmsa_lib.methods import METHODS

    assert main(["methods", "list", "--json"]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["methods"]}
    assert list(rows) == list(METHODS)
    assert rows["text_only"]["kind"] == "baseline"
    assert rows["text_only"]["modalities"] == ["text"]
    assert rows["self_mm"]["kind"] == "paper"
    assert rows["self_mm"]["tasks"] == ["regression"]
    assert "emotions" in rows["hrlf"]["tasks"]
    assert all(row["description"].endswith(".") and "`" not in row["description"] for row in rows.values())
    assert main(["methods", "list"]) == 0
    assert "hrlf" in capsys.readouterr().out


def test_a_method_s_values_come_with_their_sources(capsys):
    assert main(["methods", "info", "hrlf", "--dataset", "mosi"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("batch_size="))
    assert "samples per step" in line
    assert "HRLF, implementation details, mosi" in line
    assert main(["methods", "info", "hrlf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"][0]["setting"]
    assert main(["methods", "info", "constant"]) == 2
    assert "unknown method 'constant'" in one_line(capsys)


def test_figures_are_listed_with_their_sources(capsys):
    assert main(["figures", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["figures"]
    assert {row["figure"] for row in rows} >= {"ablations", "hrlf_probes"}
    assert all(row["title"] for row in rows)
    assert {row["figure"].split("_")[0] for row in rows if not row["sources"]} == {"architecture"}
    assert main(["figures", "list"]) == 0
    assert "from data/results/" in capsys.readouterr().out


def test_a_figure_as_pdf_has_the_same_bytes_each_time(tmp_path, capsys):
    for folder in ("one", "two"):
        words = ["figures", "dataset_labels", "--format", "pdf", "--out", str(tmp_path / folder)]
        assert main(words) == 0
    first, second = ((tmp_path / folder / "dataset_labels.pdf").read_bytes() for folder in ("one", "two"))
    assert first == second
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    assert sorted(path.suffix for path in (tmp_path / "one").iterdir()) == [".json", ".pdf"]


def test_completion_of_a_shell_is_left_to_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert "pip install shtab" in one_line(capsys)
    monkeypatch.setitem(
        sys.modules, "shtab", types.SimpleNamespace(complete=lambda parser, shell: f"{shell} {parser.prog}")
    )
    assert main(["--print-completion", "bash"]) == 0
    assert capsys.readouterr().out == "bash mmsa-lib\n"
