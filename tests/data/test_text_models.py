import json
import shutil
from pathlib import Path

import pytest
import torch

from mmsa_lib.data.text import (
    DEFAULT_TEXT_MODEL,
    _needed_files,
    load_text_model,
    load_tokenizer,
    longest_input,
    quiet_transformers,
    resolve_text_model,
    special_tokens,
    text_model_fingerprint,
)
from mmsa_lib.errors import DataError


def test_the_packaged_model_is_complete_and_384_wide():
    folder = Path(resolve_text_model(DEFAULT_TEXT_MODEL))
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    assert special_tokens(DEFAULT_TEXT_MODEL) == (0, 100)
    assert longest_input(DEFAULT_TEXT_MODEL) == 512


def test_a_folder_is_a_model_without_pooling_layer_in_float32(tiny_text_model):
    model = load_text_model(tiny_text_model)
    assert not model.training
    assert model.config.hidden_size == 16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not [name for name, _ in model.named_parameters() if "pool" in name]
    assert special_tokens(tiny_text_model) == (0, 1)
    assert longest_input(tiny_text_model) == 40


def test_an_architecture_without_pooling_option_loads(tiny_text_model, tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(Path(tiny_text_model) / file, tmp_path)
    size = len((tmp_path / "vocab.txt").read_text().split())
    DistilBertModel(DistilBertConfig(vocab_size=size, dim=8, n_layers=1, n_heads=2, hidden_dim=8)).save_pretrained(
        tmp_path
    )
    assert load_text_model(str(tmp_path)).config.hidden_size == 8


@pytest.mark.parametrize(
    ("removed", "named"), [("config.json", "config.json"), ("model.safetensors", "weights"), ("vocab.txt", "tokenizer")]
)
def test_an_incomplete_folder_is_named_with_what_it_lacks(tiny_text_model, tmp_path, removed, named):
    folder = tmp_path / "model"
    shutil.copytree(tiny_text_model, folder)
    (folder / removed).unlink()
    if named == "tokenizer":
        (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=f"no {named}") as caught:
        load_text_model(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(tiny_text_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_text_model, folder)
    (folder / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(DataError, match="cannot load text model") as caught:
        load_text_model(str(folder))
    assert "\n" not in str(caught.value)


def test_a_hub_model_that_cannot_be_fetched_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", _not_cached)
    with pytest.raises(DataError, match=r"'somebody/some-model'.*connect to the network once") as caught:
        load_tokenizer("somebody/some-model")
    assert "\n" not in str(caught.value)


def test_a_cached_hub_model_needs_no_network(monkeypatch, tiny_text_model):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, local_files_only=False: tiny_text_model)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_: pytest.fail("asked the network"))
    assert load_text_model("somebody/cached-model").config.hidden_size == 16


def test_an_impossible_name_is_refused():
    with pytest.raises(DataError, match="no text model '/no/such/folder'"):
        resolve_text_model("/no/such/folder")


def test_only_one_format_of_weights_is_fetched():
    listed = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "tf_model.h5",
    ]
    assert _needed_files(listed) == ["model.safetensors", "config.json"]
    assert _needed_files(["config.json", "pytorch_model.bin", "vocab.txt"]) == [
        "pytorch_model.bin",
        "config.json",
        "vocab.txt",
    ]


def test_the_fingerprint_follows_content_and_not_place(tiny_text_model, tmp_path):
    copy, changed = tmp_path / "copy", tmp_path / "changed"
    shutil.copytree(tiny_text_model, copy)
    shutil.copytree(tiny_text_model, changed)
    with (changed / "vocab.txt").open("a") as handle:
        handle.write("\nmore")
    assert text_model_fingerprint(str(copy)) == text_model_fingerprint(tiny_text_model)
    assert text_model_fingerprint(str(changed)) != text_model_fingerprint(tiny_text_model)


def test_loading_is_silent_and_leaves_the_settings_of_transformers(tiny_text_model, capfd):
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    load_text_model(tiny_text_model)
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()
    logging.set_verbosity_warning()
    with quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR


def _not_cached(*_, **__):
    from huggingface_hub.errors import LocalEntryNotFoundError

    raise LocalEntryNotFoundError("not cached")
