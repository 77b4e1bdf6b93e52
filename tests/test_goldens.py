"""What every method, command and public name gave before the code was rearranged: tests/goldens.json.

To the bit on a processor and with libraries like those that wrote the file, else to the tolerances below.
``python tests/test_goldens.py`` writes it anew: only in a commit that is meant to change a number and says so.
"""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import math
import os
import platform
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmsa_lib.cli import main
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments import RunConfig, run
from mmsa_lib.methods import METHODS

GOLDENS = Path(__file__).with_name("goldens.json")
ELSEWHERE = {"rtol": 2e-3, "atol": 2e-3}
"""After 16 steps of training, as other processors round (tools/processor.sh): at most 4e-4 was seen."""

LISTED = {"name", "id", "setting", "figure", "method"}
"""Keys that tell one entry of a list from the others."""

ADDED = r"steps$|share/|gradient/"
"""Rows of a history that measure without changing the training; they came after the goldens, which leave them out."""

SMALL = {"samples": [24, 12, 12], "dims": [10, 9, 8], "length": 5, "speaker_size": 6}
SETTINGS = {"max_epochs": 2, "batch_size": 3}
OWN_MISSING = {name for name, cls in METHODS.items() if cls.own_missing}
KINDS = {
    "regression": {"data": SMALL},
    "incomplete": {"data": SMALL, "missing": "stochastic", "protocols": ["frames", "subsets"]},
    "emotions": {"data": {**SMALL, "task": "emotions"}},
    "two_modalities": {"data": {**SMALL, "vision": None}},
    "own_sims": {"dataset": "own_sims"},
    "own_classes": {"dataset": "own_classes"},
    "own_streamed": {"dataset": "own_sims", "data": {"in_memory": False}},
}
CASES = [(kind, method) for kind in KINDS for method in METHODS]
TOKENS = [("tokens", method) for method in ("self_mm", "text_only", "hrlf")]

PINNED = """
mmsa_lib.losses.contrastive modulated_supcon z categories temperature gamma modulation
mmsa_lib.losses.contrastive cross_modal_decoupled u temperature gamma decouple
mmsa_lib.losses.coral covariance_alignment x y
mmsa_lib.losses.mutual_information jsd_mutual_information joint_scores marginal_scores
mmsa_lib.losses.factorization translation_loss
mmsa_lib.losses.factorization reconstruction_loss
mmsa_lib.losses.adversarial hierarchical_adversarial student_logits teacher_logits
mmsa_lib.nn.routing DynamicRouting in_dim capsules capsule_dim iterations squash
mmsa_lib.methods.collaborative_mmcl decouple z valid variant temperature
mmsa_lib.methods.collaborative_mmcl joint_reward prediction labels task variant
mmsa_lib.methods.self_mm UnimodalLabelBank size dims bound exclude_zero
mmsa_lib.methods create method_id dims task config
mmsa_lib.methods METHODS
mmsa_lib.methods provenance
mmsa_lib.data load name fold
mmsa_lib.data Batch features valid observed labels index ids
mmsa_lib.data MODALITIES
mmsa_lib.data.missing frame_mask valid rate generator
mmsa_lib.data.missing subset_mask valid available
mmsa_lib.data.missing rate_mask valid_by_modality missing_rate generator
mmsa_lib.data.missing stochastic_missing batch generator
mmsa_lib.data.sources.safe_pickle load path
mmsa_lib.evaluation.metrics sentiment_metrics prediction label scale
mmsa_lib.evaluation.metrics emotion_metrics scores labels names
mmsa_lib.evaluation.protocols auilc levels values normalised
mmsa_lib.training fit method train valid task settings seed
mmsa_lib.experiments RunConfig method config dataset fold data missing protocols settings seed
mmsa_lib.experiments run config folder
mmsa_lib.experiments sweep file executor
mmsa_lib.experiments collect folder
"""

TABLE = "id,split,group,label,text,audio:0,audio:1,vision:0,vision:1,vision:2"
WORDS = [
    "good film",
    "bad film",
    "not good",
    "great",
    "very bad film",
    "the film was good",
    "not bad",
    "great film was very good",
]


def machine() -> dict[str, str]:
    """What decides about the last bits: libraries, processor, and the settings that name another one."""
    with contextlib.suppress(OSError):
        cpu = sorted(set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split()))
        return {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "processor": hashlib.sha256(" ".join(cpu).encode()).hexdigest()[:12],
            "used": torch.backends.cpu.get_cpu_capability(),
            "settings": " ".join(
                f"{k}={v}" for k, v in sorted(os.environ.items()) if re.match("ONEDNN|ATEN_C|MKL_C|OPENBLAS_C|NPY_D", k)
            ),
        }
    return {"machine": platform.platform()}


@pytest.fixture(scope="module")
def goldens():
    return json.loads(GOLDENS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with two imported tables of one's own; data and runs go there."""
    folder = tmp_path_factory.mktemp("goldens")
    with pytest.MonkeyPatch.context() as patch:
        yield prepare(folder, patch)


def prepare(folder, patch):
    patch.setenv("MMSA_LIB_DATA", str(folder / "data"))
    patch.setenv("MMSA_LIB_RUNS", str(folder / "runs"))
    patch.chdir(folder)
    draw = np.random.default_rng(5)
    for name, labels in (("own_sims", np.round(draw.uniform(-1, 1, 20), 1)), ("own_classes", np.arange(20) % 3)):
        splits = np.repeat(["train", "valid", "test"], [12, 4, 4])
        rows = [
            [
                f"v{i // 2}_{i}",
                splits[i],
                f"v{i // 2}",
                labels[i],
                WORDS[i % len(WORDS)],
                *np.round(draw.normal(size=5), 3),
            ]
            for i in range(20)
        ]
        (folder / f"{name}.csv").write_text("\n".join([TABLE, *(",".join(map(str, row)) for row in rows)]) + "\n")
    for name, option in (("own_sims", ["--range", "-1", "1"]), ("own_classes", ["--classes", "sad", "calm", "happy"])):
        assert command("data", "import", "table", f"{name}.csv", "--name", name, *option)[0] == 0
    return folder


def command(*line) -> tuple[int, str]:
    """Exit code and standard output of a command line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(list(line))
    return code, said.getvalue()


def trained(kind, method, tiny=None) -> dict:
    """History, predictions and weights of one run of two epochs."""
    values = dict(KINDS["own_sims" if kind == "tokens" else kind])
    if method in OWN_MISSING:
        values.pop("missing", None)
    if kind == "tokens":
        values["config"] = {"text_encoder": "bert", "text_model": tiny}
        values["data"] = {"max_length": 16}
    try:
        result = run(RunConfig(method=method, settings=SETTINGS, seed=1111, **values), progress="none")
    except ConfigError:
        return {"refused": True}
    folder = Path(os.environ["MMSA_LIB_RUNS"]) / result.run_id
    history = pd.read_csv(folder / "history.csv")
    history = history[~history["name"].str.match(ADDED)]
    arrays = {}
    with h5py.File(folder / "predictions.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if name.endswith("predictions") else None)
    weights = load_file(folder / "model.safetensors")
    return {
        "history": digest(history.to_csv(index=False).encode()),
        "weights": digest(*(f"{name}".encode() + weights[name].numpy().tobytes() for name in sorted(weights))),
        "all predictions": digest(*(name.encode() + arrays[name].tobytes() for name in sorted(arrays))),
        "losses": history["value"][(history["split"] == "valid") & (history["name"] == "loss/task")].round(6).tolist(),
        "predictions": np.round(arrays["complete/0.0/test/predictions"].astype(float), 6).ravel().tolist(),
    }  # fmt: skip


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def compare(found: dict, golden: dict, written_on: dict) -> None:
    if written_on == machine():
        assert found == golden
    assert found.keys() == golden.keys()
    for name in {"losses", "predictions"} & golden.keys():
        np.testing.assert_allclose(found[name], golden[name], **ELSEWHERE)


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_a_run_is_what_it_was(place, goldens, kind, method):
    compare(trained(kind, method), goldens["runs"][f"{kind}/{method}"], goldens["machine"])


@pytest.mark.parametrize(("kind", "method"), TOKENS)
def test_a_fine_tuned_encoder_is_what_it_was(place, goldens, tiny_text_model, kind, method):
    golden = goldens["runs"][f"{kind}/{method}"]
    compare(trained(kind, method, tiny_text_model), golden, goldens["machine"])


def commands() -> dict[str, list[str]]:
    """Each verb that prints JSON."""
    small = ["samples=[24,12,12]", "dims=[10,9,8]", "length=5", "speaker_size=6", "max_epochs=2", "batch_size=8"]
    train = ["--seeds", "1111", "1112", "--set", *small, "--runs", "trained", "--quiet", "--json"]
    return {
        "data list": ["data", "list", "--json"],
        "data info synthetic": ["data", "info", "synthetic", "--json"],
        "data info own_sims": ["data", "info", "own_sims", "--json"],
        "data check": ["data", "check", "own_classes", "--json"],
        "data import": ["data", "import", "table", "own_sims.csv", "--name", "again", "--range", "-1", "1", "--json"],
        "methods list": ["methods", "list", "--json"],
        **{f"methods info {name}": ["methods", "info", name, "--dataset", "mosi", "--json"] for name in METHODS},
        "train": ["train", "early_fusion", *train],
        "train other": ["train", "text_only", *train],
        "results table": ["results", "table", "trained", "--resamples", "200", "--json"],
        "results compare": [
            "results",
            "compare",
            "trained",
            "--reference",
            "text_only",
            "--resamples",
            "200",
            "--json",
        ],
        "figures list": ["figures", "list", "--json"],
        "doctor": ["doctor", "--json"],
    }


SAID_ANEW = {
    *("variant", "label", "changes", "data_options", "title", "notes", "description", "source", "sources"),
    *("reference_variant", "reference_label", "reference_changes", "reference_data_options"),
    *("found", "threads", "seconds"),
    "phases",
}
"""Keys of the answers whose values are words, or differ between machines, or which came after the goldens."""


def plain(value, folder=""):
    """A JSON value without what differs between machines and versions: folders, ids of runs, times, last digits."""
    if isinstance(value, dict):
        return {k: plain(v, folder) for k, v in value.items() if k not in SAID_ANEW}
    if isinstance(value, list):
        return [plain(v, folder) for v in value]
    if isinstance(value, float):
        return value if math.isnan(value) else float(f"{value:.4g}")
    if isinstance(value, str):
        return re.sub(r"\b[0-9a-f]{12}\b", "<run>", value.replace(str(folder), "<folder>"))
    return value


def answers(folder) -> dict[str, dict]:
    found = {}
    for name, line in commands().items():
        code, said = command(*line)
        assert code == 0, name
        found[name] = plain(json.loads(said), folder)
    return found


def test_commands_answer_what_they_answered(place, goldens):
    found = answers(place)
    assert found.keys() == goldens["commands"].keys()
    for name, golden in goldens["commands"].items():
        new, old = leaves(found[name]), leaves(golden)
        assert not old.keys() - new.keys(), name  # answers may grow
        for key, value in old.items():
            if isinstance(value, float) and isinstance(new[key], float):
                assert math.isclose(new[key], value, rel_tol=5e-3, abs_tol=5e-3), (name, key)
            else:
                assert new[key] == value, (name, key)


def leaves(value, path="") -> dict:
    """Every leaf under its path; what is listed stands under its name, so that more may be listed."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        names = [next((v[key] for key in v if key in LISTED), None) for v in value]
        items = zip(names, value, strict=True) if len({*names} - {None}) == len(value) else items
    return {key: leaf for k, v in items for key, leaf in leaves(v, f"{path}/{k}").items()}


@pytest.mark.parametrize("line", PINNED.strip().splitlines())
def test_public_names_take_what_they_took(line):
    module, name, *arguments = line.split()
    found = getattr(importlib.import_module(module), name)
    taken = inspect.signature(found).parameters if callable(found) else {}
    if isinstance(found, type) and hasattr(found, "model_fields"):
        taken = found.model_fields
    assert [a for a in arguments if a not in taken] == []
    positions = [list(taken).index(a) for a in arguments]
    assert positions == sorted(positions)


def _lines(values: dict) -> str:
    """JSON with a line per entry, so that a change shows."""
    return (
        "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in values.items()) + "\n}"
    )


def _write() -> None:
    import tempfile

    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import _random_bert

    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        folder = prepare(Path(temporary).resolve(), patch)
        (folder / "tiny").mkdir()
        tiny = _random_bert(folder / "tiny", positions=40)
        runs = {f"{kind}/{method}": trained(kind, method, tiny) for kind, method in CASES + TOKENS}
        content = {"machine": machine(), "runs": runs, "commands": answers(folder)}
    text = ",\n".join(f"{json.dumps(k)}: {_lines(v)}" for k, v in content.items())
    GOLDENS.write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
