"""One place that seeds every random source and that saves and restores their states."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mmsa_lib.errors import ConfigError


def seed_everything(seed: int) -> dict[str, Any]:
    """Seed python, numpy and torch (all devices) and ask cuDNN for deterministic kernels.

    CPU results are then equal from run to run for the same number of threads (:mod:`mmsa_lib.threads`). On CUDA some
    scatter operations stay non-deterministic; the flags that are returned go into a run's ``environment.json``.

    Raises:
        ConfigError: the seed is not in 0 … 2**32 - 1, the range that numpy accepts.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed} is out of range; choose a whole number from 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries that draw from numpy's global state are to be covered too)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return determinism_flags()


def derived_seed(seed: int, purpose: str) -> int:
    """Another seed for a second stream of the same run, 32 bits wide: torch's CPU generator reads no more of a seed."""
    return int(hashlib.sha256(f"{purpose} {seed}".encode()).hexdigest()[:8], 16)


def determinism_flags() -> dict[str, Any]:
    """Everything that decides whether equal seeds give equal numbers on this machine."""
    return {
        "threads": torch.get_num_threads(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }


def random_states(generators: Mapping[str, torch.Generator]) -> dict[str, Any]:
    """States of torch, CUDA, numpy, python and of the named ``generators``, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # asking would start CUDA
        "numpy": (kind, keys.tolist(), *rest),
        "python": random.getstate(),
        "generators": {name: generator.get_state() for name, generator in generators.items()},
    }


def restore_random_states(states: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> None:
    """Put back what :func:`random_states` returned."""
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
    for name, generator in generators.items():
        generator.set_state(states["generators"][name])
