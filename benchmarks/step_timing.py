"""Time training steps of several methods in turns, and print them side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from mmsa_lib.methods.base import Method


def milliseconds_of(step: Callable[[], object], device: str) -> float:
    """Milliseconds of one call: processor time on a CPU, wall time on a GPU."""
    on_gpu = torch.device(device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return 1e3 * (clock() - start)


def print_ratios(milliseconds: Mapping[str, list[float]], methods: Mapping[str, Method], reference: str) -> None:
    """One line per method: median, least and most milliseconds, and the median's ratio to that of ``reference``."""
    middle = {name: statistics.median(values) for name, values in milliseconds.items()}
    width = max(map(len, milliseconds)) + 2
    print(f"{'':{width}}{'ms/step':>9}{'min':>8}{'max':>8}{'ratio':>8}{'parameters':>12}")
    for name, values in milliseconds.items():
        count = sum(p.numel() for p in methods[name].parameters())
        ratio = middle[name] / middle[reference]
        print(f"{name:{width}}{middle[name]:9.1f}{min(values):8.1f}{max(values):8.1f}{ratio:8.2f}{count:12,d}")
