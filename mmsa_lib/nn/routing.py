"""Dynamic routing of a sequence into a few capsules.

Source: Sabour, Frosst, Hinton, "Dynamic Routing Between Capsules", 2017; on sequences with detached votes in the loop:
GraphCAGE and MODS (arXiv 2511.06328) [P]. One matrix per capsule, shared over time, is ours [R]: masks and any length
then work.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmsa_lib.errors import ConfigError, unknown_name

Squash = Literal["squash", "tanh"]


def squash_norm(s: Tensor, epsilon: float = 1e-8) -> Tensor:
    """``|s|^2 / (1 + |s|^2) * s / sqrt(|s|^2 + epsilon)`` over the last dimension: same direction, length below 1."""
    square = s.square().sum(-1, keepdim=True)
    return square / (1 + square) * s / (square + epsilon).sqrt()


class DynamicRouting(nn.Module):
    """Cluster the time steps of each sample into ``capsules`` vectors by agreement.

    Step t votes for capsule k with ``W_k^T h_t``. Coupling coefficients are a softmax over the capsules; in each round
    a capsule is the squashed weighted sum of its votes, and the votes that agree with it gain weight. The gradient
    flows through the votes of the last sum, never through the coefficients.

    Args:
        in_dim: width of a step.
        capsules: their number K.
        capsule_dim: their width d_c.
        iterations: how often coefficients are computed, one more than they are updated.
        squash: ``"squash"`` (Sabour) or ``"tanh"`` (GraphCAGE) on each capsule.

    Raises:
        ConfigError: a size is below 1.
        UnknownNameError: no such squash.
    """

    def __init__(self, in_dim: int, capsules: int, capsule_dim: int, iterations: int = 3, squash: Squash = "squash"):
        super().__init__()
        if min(in_dim, capsules, capsule_dim, iterations) < 1:
            raise ConfigError(
                f"routing needs sizes of 1 or more, got in_dim={in_dim}, capsules={capsules}, "
                f"capsule_dim={capsule_dim}, iterations={iterations}"
            )
        if squash not in get_args(Squash):
            raise unknown_name("squash", squash, get_args(Squash))
        self.capsules, self.capsule_dim, self.iterations = capsules, capsule_dim, iterations
        self.activation = squash_norm if squash == "squash" else torch.tanh
        self.vote = nn.Linear(in_dim, capsules * capsule_dim, bias=False)
        nn.init.normal_(self.vote.weight, std=in_dim**-0.5)

    def forward(self, h: Tensor, valid: Tensor, return_coupling: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Route. Computed in float32 after the votes, also under autocast.

        Args:
            h: ``(B, T, in_dim)``.
            valid: ``(B, T)`` bool; steps that are not valid vote for nothing.
            return_coupling: also return the last coefficients.

        Returns:
            Capsules ``(B, K, d_c)``, zeros for a sample without a valid step; with ``return_coupling`` also
            ``(B, T, K)``, which sums to 1 over K at valid steps and is 0 elsewhere.
        """
        votes = self.vote(h.masked_fill(~valid.unsqueeze(-1), 0)).unflatten(-1, (self.capsules, self.capsule_dim))
        with torch.autocast(h.device.type, enabled=False):
            # (B, K, T, d_c): sums over steps become matrix products.
            votes = (votes if votes.dtype == torch.float64 else votes.float()).transpose(1, 2)
            coupling = self._coupling(votes.detach(), valid)
            routed = self.activation((coupling.unsqueeze(2) @ votes).squeeze(2))
        return (routed, coupling.transpose(1, 2)) if return_coupling else routed

    def _coupling(self, votes: Tensor, valid: Tensor) -> Tensor:
        """Coefficients ``(B, K, T)`` of the last round."""
        agreement = votes.new_zeros(votes.shape[:3])
        coupling = agreement.softmax(dim=1) * valid.unsqueeze(1)
        for _ in range(self.iterations - 1):
            capsules = self.activation((coupling.unsqueeze(2) @ votes).squeeze(2))
            agreement = agreement + (votes @ capsules.unsqueeze(-1)).squeeze(-1)
            coupling = agreement.softmax(dim=1) * valid.unsqueeze(1)
        return coupling
