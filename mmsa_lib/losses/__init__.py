"""Loss functions: pure functions on tensors, computed in float32 at least, also under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` as float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
