"""Files that were damaged or written to do harm, through the command line: read, or refused in one line.

The seeds are fixed. ``MMSA_LIB_FUZZ=2000`` tries so many mutations of each file, which is how new kinds are found.
"""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from damaged_files import mutated
from data.media_files import write_video, write_wav
from sweep_files import write_notebook
from test_bad_input import COUNTS, mmsa_tree, record

from mmsa_lib.cli import main
from mmsa_lib.data.hdf5 import _SEAL_BYTES
from mmsa_lib.data.store import write_store
from mmsa_lib.data.transcripts import check_times, read_transcript, words_of_spans
from mmsa_lib.errors import DataError

CASES = int(os.environ.get("MMSA_LIB_FUZZ", "12"))
PATIENCE = 120  # seconds of one command on a busy machine; none of them takes one on an idle one
MEMORY = 600  # megabytes that reading small files may add to this process


def mult():
    kept = ("text", "audio", "vision")
    return {split: {**{m: part[m] for m in kept}, "labels": part["regression_labels"][:, None, None]}
            for split, part in mmsa_tree().items()}  # fmt: skip


def mag():
    generator = np.random.default_rng(2)
    return {split: [((["a", "good", "film"], generator.normal(size=(3, 4)), generator.normal(size=(3, 5))),
                     np.array([[0.4 * i - 1]]), f"{split}{i}[0]") for i in range(count)]
            for split, count in {"train": 6, "dev": 3, "test": 3}.items()}  # fmt: skip


def rows():
    return [(f"s{i}", split, f"v{i}", round(0.4 * i - 2, 1)) for i, split in
            enumerate(split for split, count in COUNTS.items() for _ in range(count))]  # fmt: skip


def make_table(folder):
    lines = [f"{i},{split},{group},{label},a good film,{label / 2},0.5" for i, split, group, label in rows()]
    (folder / "table.csv").write_text("\n".join(["id,split,group,label,text,audio:0,audio:1", *lines]) + "\n")


def make_archive(folder):
    ids, splits, groups, labels = map(np.array, zip(*rows(), strict=True))
    np.savez_compressed(folder / "table.npz", id=ids, split=splits, group=groups, label=labels,
                        audio=np.random.default_rng(0).normal(size=(len(ids), 4, 3)))  # fmt: skip


def make_folder(folder):
    (folder / "own" / "audio").mkdir(parents=True)
    lines = [f"{i},{split},{group},{label}" for i, split, group, label in rows()]
    (folder / "own" / "samples.csv").write_text("\n".join(["id,split,group,label", *lines]) + "\n")
    for i, *_ in rows():
        np.save(folder / "own" / "audio" / f"{i}.npy", np.random.default_rng(0).normal(size=(4, 3)))


def make_mfn(folder):
    (folder / "mfn").mkdir()
    for split, count in COUNTS.items():
        for name, values in (
            ("X", np.random.default_rng(0).normal(size=(count, 4, 325))),
            ("y", np.linspace(-2, 2, count)),
        ):
            with h5py.File(folder / "mfn" / f"{name}_{split}.h5", "w") as file:
                file["data"] = values


def make_run(folder):
    small = ["samples=[24,12,12]", "dims=[10,9,8]", "length=5", "speaker_size=6", "max_epochs=1", "batch_size=8"]
    assert main(["train", "early_fusion", "--runs", str(folder / "runs"), "--quiet", "--set", *small]) == 0


def make_inputs(folder):
    make_run(folder)
    generator, widths = np.random.default_rng(0), {"text_features": 10, "audio": 9, "vision": 8}
    np.savez(
        folder / "new.npz", id=np.array(["a", "b"]), **{m: generator.normal(size=(2, 5, w)) for m, w in widths.items()}
    )


def make_joint(folder):
    make_table(folder)
    samples = [{"id": i, "split": s, "group": g, "label": y, "text": "a good film", "audio": [[y, 0.5], [0.1, y]]}
               for i, s, g, y in rows()]  # fmt: skip
    (folder / "words.json").write_text(json.dumps(samples))
    (folder / "words.jsonl").write_text("\n".join(map(json.dumps, samples)))
    (folder / "file.pkl").write_bytes(pickle.dumps(samples, 4))
    with h5py.File(folder / "own.h5", "w") as file:
        for name, values in zip(("id", "split", "group", "label"), zip(*rows(), strict=True), strict=True):
            file[name] = values
        file["audio"] = np.random.default_rng(0).normal(size=(len(samples), 4, 3))


def make_sweep(folder):
    write_notebook(folder / "tiny.ipynb")
    (folder / "sweep.yaml").write_text("notebook: tiny.ipynb\nparameters: &p {rate: 0.3, options: {a: [1, 2]}}\n"
                                       "grid: {name: [a, b]}\nseeds: [1, 2]\n")  # fmt: skip


def make_results(folder):
    make_run(folder)
    assert main(["results", "export", str(folder / "runs"), str(folder / "results.csv")]) == 0


def make_registry(folder):
    write_store(record(), folder / "far" / "mine.h5")
    (folder / "data").mkdir()
    (folder / "data" / "registry.json").write_text(json.dumps({"mine": str(folder / "far" / "mine.h5")}))


def make_masks(folder):
    make_registry(folder)
    assert main(["data", "masks", "mine", "--protocols", "subsets"]) == 0
    for path in folder.glob("data/masks/*.h5"):  # without a checksum, which would tell of every change
        path.write_bytes(path.read_bytes()[:-_SEAL_BYTES])


SAID = {
    "srt": "1\n00:00:00,050 --> 00:00:00,200\na good\n\n2\n00:00:00,200 --> 00:00:00,300\n<i>film</i>\n",
    "vtt": "WEBVTT\n\n00:00.050 --> 00:00.300\na <00:00:00.100>good <00:00:00.200>film\n",
    "csv": "start,end,word\n0.05,0.1,a\n0.1,0.2,good\n0.2,0.3,film\n",
    "tsv": "id\tstart\tend\tword\nb\t0:00.05\t0:00.1\ta\nc\t0.1\t0.2\tgood\n",
    "TextGrid": 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n0.3\n<exists>\n1\n'
    '"IntervalTier"\n"words"\n0\n0.3\n2\n0\n0.1\n"a"\n0.1\n0.3\n"film"\n',
    "txt": "a good film\n",
}


def make_transcripts(folder):
    for ending, text in SAID.items():
        (folder / f"clip.{ending}").write_text(text)


def read_transcripts():
    """What ``extract`` does with transcripts before it looks at the media, which need an extra."""
    try:
        for path in sorted(Path().glob("clip.*")):
            found = read_transcript(path)
            for one in found.values() if isinstance(found, dict) else [found]:
                words_of_spans(check_times(one.spans, 0.4, path))
    except DataError as error:
        print(f"mmsa-lib: error: {error}", file=sys.stderr)
        return 2
    return 0


def make_clips(folder):
    pytest.importorskip("av")
    write_wav(folder / "sound.wav", 0.01)  # short: damaged samples are samples, a damaged header is told
    write_video(folder / "clip.mp4", 0.4, sound=200)
    (folder / "clip.srt").write_text(SAID["srt"])


def pickled(tree):
    return lambda folder: (folder / "file.pkl").write_bytes(pickle.dumps(tree(), 4))


QUIET = "--out data/stores/new --audio none --vision none --quiet"
TARGETS = {
    "mmsa": (pickled(mmsa_tree), "file.pkl", "data import mmsa file.pkl --name new"),
    "mult": (pickled(mult), "file.pkl", "data import mult file.pkl --name new"),
    "mag": (pickled(mag), "file.pkl", "data import mag file.pkl --name new"),
    "mfn": (make_mfn, "mfn/*.h5", "data import mfn mfn --name new"),
    "table": (make_table, "table.csv", "data import table table.csv --name new"),
    "archive": (make_archive, "table.npz", "data import table table.npz --name new"),
    "folder": (make_folder, "own/**/*.*", "data import table own --name new"),
    "store": (lambda folder: write_store(record(), folder / "mine.h5"), "mine.h5", "data check mine.h5"),
    "run": (make_run, "runs/*/*", "results table runs"),
    "prediction": (make_run, "runs/*/*", "predict RUN"),
    "inputs": (make_inputs, "new.npz", "predict RUN new.npz"),
    "json": (make_joint, "words.json", "data import table words.json --name new"),
    "lines": (make_joint, "words.jsonl", "data import table words.jsonl --name new"),
    "own": (make_joint, "file.pkl", "data import table file.pkl --name new"),
    "hdf5": (make_joint, "own.h5", "data import table own.h5 --name new"),
    "masks": (make_masks, "data/masks/*.h5", "data masks mine --protocols subsets"),
    "transcripts": (make_transcripts, "clip.*", read_transcripts),
    "sound": (make_clips, "sound.wav", f"extract sound.wav {QUIET}"),
    "video": (make_clips, "clip.*", f"extract clip.mp4 --transcript clip.srt {QUIET}"),
    "results": (make_results, "results.csv", "results table results.csv"),
    "sweep": (make_sweep, "sweep.yaml", "sweep sweep.yaml --dry-run"),
    "notebook": (make_sweep, "tiny.ipynb", "sweep sweep.yaml --dry-run"),
    "registry": (make_registry, "data/registry.json", "data list"),
    "entry": (make_registry, "data/registry.json", "data info mine"),
}
"""What makes good files in a folder, which of them are changed, and the command that reads them."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def watched():
    """No hang, and no large allocation."""

    def late(*_):
        raise TimeoutError("took too long")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEMORY


def outcome(command, capfd):
    """The exit code of ``command``, which must be good, or bad in one line."""
    capfd.readouterr()
    with watched():
        code = command() if callable(command) else main(command.split())
    err = capfd.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("mmsa-lib: error: ")]
    assert "Traceback" not in err
    assert "unexpectedly" not in err, err
    assert code in (0, 2), err
    assert len(errors) == (code == 2), err
    return code


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm")
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_are_read_or_refused_in_one_line(target, place, capfd):
    make, pattern, command = TARGETS[target]
    make(place)
    if "RUN" in str(command):
        command = command.replace("RUN", next(str(path.parent) for path in place.glob("runs/*/DONE")))
    assert outcome(command, capfd) == 0
    shutil.rmtree(place / "data" / "stores", ignore_errors=True)
    files = sorted(path for path in place.glob(pattern) if path.is_file())
    generator, refused, whole = random.Random(target), 0, {path: path.read_bytes() for path in files}
    for case in range(CASES):
        path = generator.choice(files)
        changed = mutated(whole[path], generator)
        path.write_bytes(changed)
        try:
            code = outcome(command, capfd)
        except BaseException as error:
            error.add_note(f"case {case}, {path.relative_to(place)}: {changed[:200]!r}")
            raise
        refused += code == 2
        path.write_bytes(whole[path])
        left = list((place / "data" / "stores").glob("*"))
        assert not left if code == 2 and target not in ("registry", "entry") else True
        shutil.rmtree(place / "data" / "stores", ignore_errors=True)
    assert refused
