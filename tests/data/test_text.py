import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmsa_lib.data import text
from mmsa_lib.data.text import (
    DEFAULT_TEXT_MODEL,
    _needed_files,
    load_text_model,
    load_tokenizer,
    longest_input,
    quiet_transformers,
    resolve_text_model,
    sentence_features,
    special_tokens,
    text_model_fingerprint,
    tokenize,
    word_features,
    words_of,
)
from mmsa_lib.errors import ConfigError, DataError

TEXTS = ["the film wasn't good", "", "Very GREAT!", "not  bad\tat all , really", "the " * 3 + "end"]


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    return tmp_path


def slow_states(model_name, words):
    """Token states in float64 of one text, word by word tokenised; with the word of each token."""
    tokenizer, model = load_tokenizer(model_name), load_text_model(model_name).double()
    ids, owner = [tokenizer.cls_token_id], [-1]
    for number, word in enumerate(words):
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        ids += pieces
        owner += [number] * len(pieces)
    ids.append(tokenizer.sep_token_id)
    owner.append(-1)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy(), owner


def test_word_features_are_the_mean_over_the_pieces_of_each_word(tiny_text_model):
    found = word_features(TEXTS, tiny_text_model, 40)
    assert found.level == "word"
    assert found.modality == "text"
    assert found.values.dtype == np.float32
    assert found.lengths.tolist() == [4, 1, 2, 6, 4]
    start = 0
    for sample, length in zip(TEXTS, found.lengths, strict=True):
        rows = found.values[start : start + length]
        start += length
        if not sample:
            assert not rows.any()
            continue
        states, owner = slow_states(tiny_text_model, sample.split())
        for number in range(length):
            pieces = [states[i] for i in range(len(owner)) if owner[i] == number]
            np.testing.assert_allclose(rows[number], sum(pieces) / len(pieces), atol=1e-5)
    assert found.observed.tolist() == [True] * 4 + [False] + [True] * 12


def test_sentence_features_are_the_mean_over_all_tokens(tiny_text_model):
    found = sentence_features(TEXTS, tiny_text_model, 40)
    assert found.level == "utterance"
    assert found.lengths.tolist() == [1] * 5
    assert found.observed.tolist() == [True, False, True, True, True]
    assert not found.values[1].any()
    for sample in (0, 2, 3, 4):
        states, _ = slow_states(tiny_text_model, TEXTS[sample].split())
        np.testing.assert_allclose(found.values[sample], states.mean(0), atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours(tiny_text_model):
    together = word_features(TEXTS, tiny_text_model, 40)
    alone = word_features(TEXTS[2:3], tiny_text_model, 40)
    np.testing.assert_allclose(together.values[5:7], alone.values, atol=1e-6)


@pytest.mark.parametrize("compute", [word_features, sentence_features, tokenize])
def test_words_beyond_max_length_are_cut_and_counted(tiny_text_model, caplog, compute):
    texts = ["the film was good", "good film", "very very very very very very"]
    for _ in range(2):  # from the cache as well
        found = compute(texts, tiny_text_model, max_length=5)
        (record,) = caplog.records
        assert record.message.startswith("4 words of 2 transcripts")
        caplog.clear()
    if compute is not tokenize:
        assert "4 words of 2 transcripts" in found.description
    if compute is word_features:
        assert found.lengths.tolist() == [3, 2, 3]
    compute(["the film was"], tiny_text_model, max_length=5)
    assert not caplog.records


def test_chinese_characters_are_words_of_their_own():
    assert words_of("it's 很好 ok") == [(0, 4), (5, 6), (6, 7), (8, 10)]
    assert words_of(" \t") == []


def test_a_word_that_the_tokenizer_drops_gives_no_frame(tiny_text_model):
    found = word_features(["good \u200b film", "\u200b"], tiny_text_model, 40)
    assert found.lengths.tolist() == [2, 1]
    assert found.observed.tolist() == [True, True, False]


def test_tokens_are_right_padded_and_keep_the_closing_token(tiny_text_model):
    ids, valid = tokenize(["the film was very good", "", "BAD"], tiny_text_model, max_length=5)
    assert ids.tolist() == [[2, 5, 6, 7, 3], [2, 3, 0, 0, 0], [2, 9, 3, 0, 0]]
    assert (ids.dtype, valid.dtype) == (torch.int64, torch.bool)
    assert valid.sum(-1).tolist() == [5, 2, 3]
    ids, valid = tokenize([], tiny_text_model, max_length=40)
    assert ids.shape == valid.shape == (0, 0)


@pytest.mark.parametrize("length", [2, 41])
def test_an_impossible_length_is_refused(tiny_text_model, length):
    with pytest.raises(ConfigError, match="between 3 and 40"):
        tokenize(["good"], tiny_text_model, max_length=length)


@pytest.fixture
def computing(monkeypatch):
    computing = Mock(wraps=text._compute)
    monkeypatch.setattr(text, "_compute", computing)
    return computing


def test_features_are_computed_once(tiny_text_model, computing):
    first = word_features(TEXTS, tiny_text_model, 40)
    again = word_features(TEXTS, tiny_text_model, 40)
    assert computing.call_count == 1
    for name in ("values", "lengths", "observed"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert again.description == first.description
    assert again.level == "word"


def test_every_setting_has_its_own_cache_entry(tiny_text_model, computing, monkeypatch):
    word_features(TEXTS, tiny_text_model, 30)
    word_features(TEXTS, tiny_text_model, 20)
    sentence_features(TEXTS, tiny_text_model, 30)
    word_features([*TEXTS, "more"], tiny_text_model, 30)
    monkeypatch.setattr(text, "_code_fingerprint", lambda: "other code")
    word_features(TEXTS, tiny_text_model, 30)
    monkeypatch.setattr(text, "text_model_fingerprint", lambda name: "other weights")
    for texts in (TEXTS, ["ab", "c"], ["a", "bc"]):
        word_features(texts, tiny_text_model, 30)
    assert computing.call_count == 8


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_a_damaged_cache_is_rebuilt(tiny_text_model, computing, data_root, damage, caplog):
    first = word_features(TEXTS, tiny_text_model, 40)
    (file,) = (data_root / "cache" / "text").glob("*.h5")
    if damage == "flip":
        with h5py.File(file, "r+") as handle:
            handle["values"][0, 0] += 1
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"not HDF5")
    again = word_features(TEXTS, tiny_text_model, 40)
    assert computing.call_count == 2
    assert "again" in caplog.text
    np.testing.assert_array_equal(first.values, again.values)
    word_features(TEXTS, tiny_text_model, 40)
    assert computing.call_count == 2


def test_a_cache_that_cannot_be_written_costs_no_result(tiny_text_model, data_root, caplog):
    (data_root / "cache").write_text("a file where a folder should be")
    assert len(word_features(TEXTS, tiny_text_model, 40).values) == 17
    assert "not cached" in caplog.text


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

    folder = shutil.copytree(tiny_text_model, tmp_path / "model")
    config = DistilBertConfig(vocab_size=99, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    DistilBertModel(config).save_pretrained(folder)
    assert load_text_model(str(folder)).config.hidden_size == 8


def test_an_architecture_without_fused_attention_loads(tiny_text_model, tmp_path):
    from transformers import MPNetConfig, MPNetModel

    folder = shutil.copytree(tiny_text_model, tmp_path / "model")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    MPNetModel(MPNetConfig(vocab_size=99, max_position_embeddings=40, **sizes)).save_pretrained(folder)
    found = sentence_features(["good", "very bad film"], str(folder), 20).values
    np.testing.assert_allclose(found[0], sentence_features(["good"], str(folder), 20).values[0], atol=1e-6)
    assert not [name for name, _ in load_text_model(str(folder)).named_parameters() if "pool" in name]


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (["config.json"], "no config.json"),
        (["model.safetensors"], "no weights"),
        (["vocab.txt", "tokenizer.json"], "no tokenizer"),
        ([], "cannot load text model"),
    ],
)
def test_an_incomplete_or_damaged_folder_is_named_in_one_line(tiny_text_model, tmp_path, removed, said):
    folder = Path(shutil.copytree(tiny_text_model, tmp_path / "model"))
    (folder / "config.json").write_text('{"model_type": "no-such-architecture"}')
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(DataError, match=said) as caught:
        load_text_model(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_off_or_not_all_there_are_refused(tiny_text_model, tmp_path):
    folder = Path(shutil.copytree(tiny_text_model, tmp_path / "model"))
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if "layer.0." not in name}, file, {"format": "pt"})
    with pytest.raises(DataError, match=r"lacks weights: .*layer\.0\..* and \d+ more") as caught:
        load_text_model(str(folder))
    assert str(folder) in str(caught.value)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot load text model") as caught:
        load_text_model(str(folder))
    assert "\n" not in str(caught.value)


def test_code_that_a_model_brings_is_refused_and_not_asked_about(tiny_text_model, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(tiny_text_model, tmp_path / "model"))
    mark = tmp_path / "ran"
    (folder / "modeling_mine.py").write_text(f"open({str(mark)!r}, 'w')\nclass Mine: pass\n")
    known = json.loads((folder / "config.json").read_text())
    mine = {"AutoConfig": "modeling_mine.Mine", "AutoModel": "modeling_mine.Mine"}
    (folder / "config.json").write_text(json.dumps({**known, "model_type": "mine", "auto_map": mine}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked in the terminal"))
    with pytest.raises(DataError, match="cannot load text model") as caught:
        load_text_model(str(folder))
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_hub_model_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    unreachable, not_cached = Mock(side_effect=ConnectionError), Mock(side_effect=LocalEntryNotFoundError("no"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_cached)
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
    listed = ["config.json", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "tf_model.h5"]
    assert _needed_files([*listed, "model.safetensors"]) == ["model.safetensors", "config.json"]
    assert _needed_files([*listed, "vocab.txt"]) == ["pytorch_model.bin", "config.json", "vocab.txt"]


def test_the_fingerprint_follows_content_and_not_place(tiny_text_model, tmp_path):
    copy, changed = (Path(shutil.copytree(tiny_text_model, tmp_path / name)) for name in ("copy", "changed"))
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
