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
    flows through the votes of the last sum, never through the coefficients. Votes are linear, so they are never formed:
    ``sum_t c_tk W_k^T h_t = W_k^T sum_t c_tk h_t`` needs less time and no memory per step and capsule.

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
        self.iterations = iterations
        self.activation = squash_norm if squash == "squash" else torch.tanh
        self.weight = nn.Parameter(torch.randn(capsules, in_dim, capsule_dim) * in_dim**-0.5)

    def forward(self, h: Tensor, valid: Tensor, return_coupling: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Route. Computed in float32, also under autocast.

        Args:
            h: ``(B, T, in_dim)``.
            valid: ``(B, T)`` bool; steps that are not valid vote for nothing.
            return_coupling: also return the last coefficients.

        Returns:
            Capsules ``(B, K, d_c)``, zeros for a sample without a valid step; with ``return_coupling`` also
            ``(B, T, K)``, which sums to 1 over K at valid steps and is 0 elsewhere.
        """
        with torch.autocast(h.device.type, enabled=False):
            h = (h if h.dtype == torch.float64 else h.float()).masked_fill(~valid.unsqueeze(-1), 0)
            coupling = self._coupling(h, valid)
            capsules = self._collect(h, coupling)
        return (capsules, coupling.transpose(1, 2)) if return_coupling else capsules

    def _collect(self, h: Tensor, coupling: Tensor) -> Tensor:
        """Capsules ``(B, K, d_c)`` of votes weighted by ``(B, K, T)``."""
        return self.activation(torch.einsum("bki,kic->bkc", coupling @ h, self.weight))

    @torch.no_grad()
    def _coupling(self, h: Tensor, valid: Tensor) -> Tensor:
        """Coefficients ``(B, K, T)`` of the last round."""
        agreement = h.new_zeros(len(h), len(self.weight), h.shape[1])
        coupling = agreement.softmax(dim=1) * valid.unsqueeze(1)
        for _ in range(self.iterations - 1):
            # The scalar product of capsule and vote, <v_k, W_k^T h_t> = <W_k v_k, h_t>.
            directions = torch.einsum("bkc,kic->bki", self._collect(h, coupling), self.weight)
            agreement = agreement + directions @ h.mT
            coupling = agreement.softmax(dim=1) * valid.unsqueeze(1)
        return coupling
