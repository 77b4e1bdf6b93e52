"""Which loss term moves which part of a network."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from mmsa_lib.data.batch import Batch
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import Method


def gradient_norms(method: Method, batch: Batch, parts: Sequence[str] | None = None) -> pd.DataFrame:
    """Length of the gradient of each weighted loss term with respect to each part of a method.

    A stopped gradient shows as an absent path (NaN), which is not the same as a gradient that happens to be 0.
    Gradients that the parameters already hold stay as they are.

    Args:
        method: in any mode; the terms are those of training, and the mode is put back.
        batch: the samples of one step.
        parts: prefixes of parameter names, such as ``"specific"`` or ``"routing.shared"``; by default the direct
            children of the method that have parameters.

    Returns:
        Columns ``term``, ``part`` and ``norm``: the Euclidean norm over all parameters of the part that the term
        reaches, or NaN where it reaches none of them.

    Raises:
        ConfigError: no parameter is named like a part.
    """
    named = dict(method.named_parameters())
    if parts is None:
        parts = [name for name, child in method.named_children() if any(True for _ in child.parameters())]
    members = {part: [name for name in named if name == part or name.startswith(f"{part}.")] for part in parts}
    if empty := [part for part, names in members.items() if not names]:
        raise ConfigError(f"{method.id} has no parameter below {empty[0]!r}; its parts are {_children(method)}")
    training = method.training
    method.train()
    try:
        terms = method.losses(batch, method(batch))
        gradients = {name: _gradients(term, named) for name, term in terms.items()}
    finally:
        method.train(training)
    rows = [
        {"term": term, "part": part, "norm": _norm([found[name] for name in names])}
        for term, found in gradients.items()
        for part, names in members.items()
    ]
    return pd.DataFrame(rows, columns=["term", "part", "norm"])


def _gradients(term: torch.Tensor, named: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor | None]:
    trainable = [name for name, parameter in named.items() if parameter.requires_grad]
    found: dict[str, torch.Tensor | None] = dict.fromkeys(named)
    if term.requires_grad and trainable:
        inputs = [named[name] for name in trainable]
        gradients = torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
        found.update(zip(trainable, gradients, strict=True))
    return found


def _norm(gradients: list[torch.Tensor | None]) -> float:
    reached = [g.double().square().sum() for g in gradients if g is not None]
    return float(torch.stack(reached).sum().sqrt()) if reached else float("nan")


def _children(method: Method) -> str:
    return ", ".join(name for name, child in method.named_children() if any(True for _ in child.parameters()))
