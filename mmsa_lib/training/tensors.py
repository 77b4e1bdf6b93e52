"""Tensors in and out of safetensors files: whole or not at all, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmsa_lib.errors import DataError
from mmsa_lib.files import atomic_path


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` with text ``metadata`` to ``path`` atomically.

    Raises:
        DataError: the file can't be written; names it and the remedy.
    """
    # safetensors refuses tensors that are not contiguous, or share memory as tied weights do.
    separate, seen = {}, set()
    for name, value in tensors.items():
        whole = value.detach().cpu().contiguous()
        storage = whole.untyped_storage().data_ptr()
        separate[name] = whole.clone() if storage in seen else whole
        seen.add(storage)
    with atomic_path(path) as temporary:
        mode = temporary.stat().st_mode
        try:
            save_file(separate, temporary, metadata=dict(metadata))
            _sort_metadata(temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        temporary.chmod(mode)  # save_file makes a private file in the place of the one that was there


def _sort_metadata(path: Path) -> None:
    """Order the metadata of a file by name: safetensors writes them in an order that changes from call to call."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that :func:`save_tensors` wrote.

    Raises:
        DataError: the file is missing, truncated or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is no readable safetensors file ({error}); delete it and repeat the run") from error


def load_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the parameters, and those buffers that have the same shape, into ``module``.

    Buffers that only training uses (a label bank has one row per training sample) may be absent or of another size.

    Raises:
        DataError: a parameter is missing or has another shape or type; names it.
    """
    parameters = {name for name, _ in module.named_parameters()}
    own = module.state_dict()
    fitting = {k: tensors[k] for k in own if k in tensors and tensors[k].shape == own[k].shape}
    for name in own:
        if name in parameters and name not in fitting:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise DataError(f"parameter {name} should have shape {tuple(own[name].shape)}, the file holds {found}")
        if name in parameters and fitting[name].dtype != own[name].dtype:
            raise DataError(f"parameter {name} should be {own[name].dtype}, the file holds {fitting[name].dtype}")
    with torch.no_grad():
        module.load_state_dict({**own, **fitting})
