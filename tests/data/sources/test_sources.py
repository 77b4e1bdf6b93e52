"""The list of public data sets: files in the manifest, building by name, terms and sources."""

import hashlib

import h5py
import numpy as np
import pytest

from mmsa_lib.data import download
from mmsa_lib.data.download import SourceFile, manifest
from mmsa_lib.data.sources import BUILDERS, build, fetch_originals, mmmo
from mmsa_lib.errors import DataError, UnknownNameError


@pytest.fixture
def local(monkeypatch, tmp_path):
    """A manifest of files that lie in a mirror folder; call it with local path and writer to add one."""
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(download, "_transfer", lambda *a: pytest.fail("the network was used"))
    entries = []
    monkeypatch.setattr(download, "manifest", lambda: tuple(entries))

    def add(local_path, write):
        path = tmp_path / local_path
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        folder, name = local_path.split("/")[0], path.name
        entries.append(SourceFile(folder, "owner", "repo", "c" * 40, name, local_path, None, "", blob, "MIT", ""))

    add.folder = tmp_path
    return add


@pytest.mark.parametrize("name", BUILDERS)
def test_every_file_is_in_the_manifest_and_every_set_has_terms(name):
    builder = BUILDERS[name]
    found = [file.name for file in builder.sources(builder.required + builder.optional)]
    assert found == [*builder.required, *builder.optional]
    assert len(set(found)) == len(found)
    assert builder.terms
    assert builder.description


def test_word_aligned_mosi_is_at_the_commits_of_its_repositories():
    repositories = {
        name: {f"{f.owner}/{f.repo}" for f in BUILDERS[name].sources(BUILDERS[name].required)} for name in BUILDERS
    }
    assert repositories["mosi_mfn"] == {"pliang279/MFN"}
    assert repositories["mosi_magbert"] == {"TmacMai/Multimodal-Information-Bottleneck"}
    assert any(file.name == mmmo.TRAINING_TEXT for file in manifest())


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean mosi"):
        build("mosy")


def small_mmmo(monkeypatch, local, training_text):
    monkeypatch.setattr(mmmo, "SIZES", {"train": 2, "valid": 3, "test": 3})
    generator = np.random.default_rng(0)

    def array(shape):
        def write(path):
            with h5py.File(path, "w") as file:
                file["d1"] = generator.uniform(1, 2, shape)

        return write

    for split, size in mmmo.SIZES.items():
        local(f"ict-mmmo/y_{split}.h5", array((size,)))
        local(f"ict-mmmo/audio_{split}.h5", array((size, 20, 74)))
        local(f"ict-mmmo/video_{split}.h5", array((size, 20, 36)))
        local(f"ict-mmmo/text_{split}_emb.h5", array((size, 20, 300)))
    if not training_text:
        (local.folder / "ict-mmmo" / mmmo.TRAINING_TEXT).unlink()


@pytest.mark.parametrize("training_text", [False, True])
def test_optional_file_is_used_where_it_is(monkeypatch, local, training_text):
    small_mmmo(monkeypatch, local, training_text)
    record = build("mmmo", local.folder)
    text = record.features["text300"]
    assert bool(text.observed[: 2 * 20].all()) == training_text
    assert any(line.startswith(mmmo.TRAINING_TEXT) for line in record.sources) == training_text
    assert len(record.sources) == len(mmmo.FILES) + training_text
    assert all("git-blob:" in line and "github.com/owner/repo" in line for line in record.sources)


def test_optional_file_can_be_demanded(monkeypatch, local):
    small_mmmo(monkeypatch, local, training_text=False)
    assert mmmo.TRAINING_TEXT not in fetch_originals("mmmo", local.folder)
    with pytest.raises(DataError, match=f"{mmmo.TRAINING_TEXT} is missing in the mirror"):
        fetch_originals("mmmo", local.folder, optional=True)
