"""The list of public data sets: files in the manifest, building by name, terms and sources."""

import hashlib
import pickle

import numpy as np
import pytest
from layout_files import write_array

from mmsa_lib.data import download
from mmsa_lib.data.download import SourceFile, manifest
from mmsa_lib.data.sources import BUILDERS, PUBLIC_SETS, build, fetch_originals, mmmo
from mmsa_lib.errors import DataError, UnknownNameError


@pytest.fixture
def local(monkeypatch, tmp_path):
    """A manifest of files that lie in a mirror folder; call it with local path and writer to add one."""
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(download, "_from_network", lambda *a: pytest.fail("the network was used"))
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


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_every_file_is_in_the_manifest_and_every_set_has_terms(name):
    known = PUBLIC_SETS[name]
    assert list(BUILDERS) == list(PUBLIC_SETS)
    found = [file.name for file in known.sources([*known.required, *known.optional])]
    assert found == [*known.required, *known.optional]
    assert len(set(found)) == len(found)
    assert known.terms
    assert known.citation
    assert known.description
    assert ("ICMI 2022" in known.citation) == (name == "simsv2_text")


def test_word_aligned_mosi_is_at_the_commits_of_its_repositories():
    repositories = {
        name: {f"{f.owner}/{f.repo}" for f in known.sources(known.required)} for name, known in PUBLIC_SETS.items()
    }
    assert repositories["mosi_mfn"] == {"pliang279/MFN"}
    assert repositories["mosi_magbert"] == {"TmacMai/Multimodal-Information-Bottleneck"}
    assert any(file.name == mmmo.TRAINING_TEXT for file in manifest())


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean mosi"):
        build("mosy")


def array(values):
    return lambda path: write_array(path, values, "d1")


def small_mmmo(monkeypatch, local, training_text):
    monkeypatch.setattr(mmmo, "SIZES", {"train": 2, "valid": 3, "test": 3})
    for split, size in mmmo.SIZES.items():
        shapes = {f"y_{split}": (), f"audio_{split}": (20, 74), f"video_{split}": (20, 36)}
        for name, shape in (shapes | {f"text_{split}_emb": (20, 300)}).items():
            local(f"ict-mmmo/{name}.h5", array(np.random.default_rng(0).uniform(1, 2, (size, *shape))))
    if not training_text:
        (local.folder / "ict-mmmo" / mmmo.TRAINING_TEXT).unlink()


@pytest.mark.parametrize("training_text", [False, True])
def test_optional_file_is_used_where_it_is(monkeypatch, local, training_text):
    small_mmmo(monkeypatch, local, training_text)
    record = build("mmmo", local.folder)
    text = record.features["text300"]
    assert bool(text.observed[: 2 * 20].all()) == training_text
    assert any(line.startswith(mmmo.TRAINING_TEXT) for line in record.sources) == training_text
    assert len(record.sources) == 11 + training_text
    assert (record.terms, record.citation) == (PUBLIC_SETS["mmmo"].terms, PUBLIC_SETS["mmmo"].citation)
    assert all("git-blob:" in line and "github.com/owner/repo" in line for line in record.sources)


def test_optional_file_can_be_demanded(monkeypatch, local):
    small_mmmo(monkeypatch, local, training_text=False)
    assert mmmo.TRAINING_TEXT not in fetch_originals("mmmo", local.folder)
    with pytest.raises(DataError, match=f"{mmmo.TRAINING_TEXT} is missing in the mirror"):
        fetch_originals("mmmo", local.folder, optional=True)


def test_mfn_files_are_verified_and_read_as_word_aligned_mosi(local):
    """Two samples per split; the second is padded on the left."""
    generator = np.random.default_rng(0)
    inputs = {}
    for split in ("train", "valid", "test"):
        inputs[split] = generator.uniform(1, 2, (2, 20, 325))
        inputs[split][1, :15] = 0
        local(f"mosi-mfn/X_{split}.h5", array(inputs[split]))
        local(f"mosi-mfn/y_{split}.h5", array(np.array([-2.4, 3.0])))
    record = build("mosi_mfn", local.folder)
    assert record.name == "mosi_mfn"
    assert record.task.range == (-3, 3)
    assert {f.modality: f.width for f in record.features.values()} == {"text": 300, "audio": 5, "vision": 20}
    assert all(features.lengths.tolist() == [20, 5] * 3 for features in record.features.values())
    audio = record.features["audio"]
    np.testing.assert_array_equal(audio.values[20:25], inputs["train"][1, 15:, 300:305].astype("f4"))
    assert record.folds["standard"].tolist() == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert [line.split(":")[0] for line in record.sources] == PUBLIC_SETS["mosi_mfn"].required
    assert "AAAI 2018" in record.citation
    assert "MIT" in record.terms


def test_mfn_file_that_changed_is_refused(local):
    for split in ("train", "valid", "test"):
        local(f"mosi-mfn/X_{split}.h5", array(np.ones((2, 20, 325))))
        local(f"mosi-mfn/y_{split}.h5", array(np.array([-2.4, 3.0])))
    write_array(local.folder / "mosi-mfn" / "X_test.h5", np.zeros((2, 20, 325)))
    with pytest.raises(DataError, match=r"X_test\.h5: wrong checksum, expected git-blob:"):
        build("mosi_mfn", local.folder)


def test_mfn_files_in_several_folders_are_refused(tmp_path):
    names = PUBLIC_SETS["mosi_mfn"].required
    files = {name: tmp_path / name[0] / name for name in names}
    with pytest.raises(DataError, match="lie in 2 folders"):
        BUILDERS["mosi_mfn"](files)


def test_magbert_pickle_is_verified_and_read_word_by_word(local):
    generator = np.random.default_rng(0)
    samples = {
        split: [
            ((["good", "film"], generator.uniform(size=(2, 47)), generator.uniform(size=(2, 74))), 1.5, f"{split}[0]")
        ]
        for split in ("train", "dev", "test")
    }
    local("mosi-magbert/mosi.pkl", lambda path: path.write_bytes(pickle.dumps(samples)))
    record = build("mosi_magbert", local.folder)
    assert record.name == "mosi_magbert"
    assert record.transcripts == ["good film"] * 3
    assert record.folds["standard"].tolist() == ["train", "valid", "test"]
    (_, visual, acoustic), _, _ = samples["dev"][0]
    np.testing.assert_array_equal(record.features["vision"].values[2:4], visual.astype("f4"))
    np.testing.assert_array_equal(record.features["audio"].values[2:4], acoustic.astype("f4"))
    assert len(record.sources) == 1
    assert "ACL 2020" in record.citation
