"""Fixtures that several folders of tests share."""

import random
import sys

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every machine and in every run; a busy machine is no failure.
settings.register_profile(
    "project", max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")

_WORDS = ["the", "film", "was", "good", "bad", "great", "not", "very"]


@pytest.fixture(autouse=True)
def _same_random_numbers_in_any_order():
    """Each test draws the same numbers, whichever tests ran before it in its process."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def tiny_text_model(tmp_path_factory):
    """Folder of a random two-layer BERT, 16 wide, whose unknown token is 1 and whose padding is 0."""
    return _random_bert(tmp_path_factory.mktemp("tiny_text_model"), positions=40)


@pytest.fixture(scope="session")
def long_text_model(tmp_path_factory):
    """The same for texts of up to 800 tokens."""
    return _random_bert(tmp_path_factory.mktemp("long_text_model"), positions=800)


def _random_bert(folder, positions):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *_WORDS, *letters, *(f"##{c}" for c in letters), "'", "!"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=positions).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=positions,
        )
        BertModel(config).save_pretrained(folder)
    return str(folder)
