"""Fine-grained representation factorization of HRLF: translate between modalities, then encode again.

Source: Li, Yang, et al., "Toward Robust Incomplete Multimodal Sentiment Analysis via Hierarchical Representation
Learning", NeurIPS 2024, equations 1 to 4 [P]. Each modality's state ``Z`` is split into a sentiment-relevant part ``Q``
and a modality-specific part ``U``. A decoder ``D_r`` that all pairs share makes the state of modality ``b`` from the
sentiment of ``a``: ``Z_ab = D_r(Q_a, U_b)``.

As printed, norms are Euclidean and not squared, expectations are means over the batch; :data:`Distance` names two
other readings [R]. Nothing in these losses alone keeps the states apart, or sentiment in ``Q``: constant states satisfy
all of them, and so does a constant ``Q`` beside a ``U`` that holds everything (docs/methods/hrlf.md, section 9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses import at_least_float32

Decoder = Callable[[Tensor, Tensor], Tensor]
"""``D_r``: sentiment rows ``(N, d_q)`` and modality-specific rows ``(N, d_u)`` to states ``(N, d)``."""

Distance = Literal["norm", "mse", "rms"]
"""Between rows of width ``d``: Euclidean norm, as printed [P]; its square over ``d``, the mean of squared errors; the
norm over ``sqrt(d)``."""

Translations = Mapping[tuple[str, str], Tensor]
"""``Z_ab`` ``(B, d)`` by ``(a, b)``: the sentiment of ``a`` as a state of ``b``."""


def translate(q: Mapping[str, Tensor], u: Mapping[str, Tensor], decoder: Decoder) -> dict[tuple[str, str], Tensor]:
    """``Z_ab = D_r(Q_a, U_b)`` for all ordered pairs, self-pairs included, in one call of the decoder.

    Args:
        q: per modality ``(B, d_q)``, sentiment-relevant.
        u: per modality ``(B, d_u)``, modality-specific.
        decoder: works row by row.

    Returns:
        By ``(a, b)``, each ``(B, d)``.
    """
    pairs = [(a, b) for a in q for b in u]
    decoded = decoder(torch.cat([q[a] for a, _ in pairs]), torch.cat([u[b] for _, b in pairs]))
    return dict(zip(pairs, decoded.chunk(len(pairs)), strict=True))


def translation_loss(
    z: Mapping[str, Tensor],
    q: Mapping[str, Tensor],
    u: Mapping[str, Tensor],
    decoder: Decoder,
    *,
    distance: Distance = "norm",
    detach_targets: bool = False,
    translations: Translations | None = None,
) -> Tensor:
    """A translated state must be the state of its target: equations 1 and 2 together, a scalar.

    Args and errors as :func:`translation_parts`.
    """
    shared = {"distance": distance, "detach_targets": detach_targets, "translations": translations}
    own, cross = translation_parts(z, q, u, decoder, **shared)
    return own + cross


def translation_parts(
    z: Mapping[str, Tensor],
    q: Mapping[str, Tensor],
    u: Mapping[str, Tensor],
    decoder: Decoder,
    *,
    distance: Distance = "norm",
    detach_targets: bool = False,
    translations: Translations | None = None,
) -> tuple[Tensor, Tensor]:
    """Equation 1, translation of a modality to itself, and equation 2, to another one.

    ``1/n sum_a E|Z_aa - Z_a|`` and ``1/(n^2 - n) sum_a sum_{b != a} E|Z_ab - Z_b|`` for ``n`` modalities.

    Args:
        z: per modality its state ``(B, d)``.
        q: per modality ``(B, d_q)``, sentiment-relevant.
        u: per modality ``(B, d_u)``, modality-specific.
        decoder: ``D_r``, called once for all pairs.
        distance: between a translated state and its target.
        detach_targets: no gradient through the targets ``Z_b``; the paper has them in the graph.
        translations: what :func:`translate` gave, where it is there already; the decoder is then not called.

    Returns:
        Two scalars.

    Raises:
        ConfigError: fewer than two modalities, or the dictionaries name different ones.
    """
    _check(z, q, u)
    translations = translate(q, u, decoder) if translations is None else translations
    own = [_distance(translations[a, a], z[a], distance, detach_targets) for a in z]
    cross = [_distance(translations[a, b], z[b], distance, detach_targets) for a in z for b in z if a != b]
    return torch.stack(own).mean(), torch.stack(cross).mean()


def reconstruction_loss(
    z: Mapping[str, Tensor],
    q: Mapping[str, Tensor],
    u: Mapping[str, Tensor],
    decoder: Decoder,
    sentiment_encoders: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    distance: Distance = "norm",
    detach_targets: bool = False,
    translations: Translations | None = None,
) -> Tensor:
    """A translated state, encoded again, must give back the target's own sentiment, whoever supplied it: equation 3.

    ``1/n^2 sum_a sum_b E|E^S_a(Z_ba) - Q_a|`` for ``n`` modalities, self-pairs included.

    Args:
        z, q, u, decoder, distance, translations: as for :func:`translation_parts`.
        sentiment_encoders: per modality ``E^S_a``, rows ``(N, d)`` to ``(N, d_q)``; each is called once.
        detach_targets: no gradient through the targets ``Q_a``; the paper has them in the graph.

    Returns:
        A scalar.

    Raises:
        ConfigError: fewer than two modalities, or the dictionaries name different ones.
    """
    _check(z, q, u)
    translations = translate(q, u, decoder) if translations is None else translations
    distances = []
    for a in q:
        encoded = sentiment_encoders[a](torch.cat([translations[b, a] for b in q]))
        distances += [_distance(again, q[a], distance, detach_targets) for again in encoded.chunk(len(q))]
    return torch.stack(distances).mean()


def _distance(x: Tensor, target: Tensor, distance: Distance, detach: bool) -> Tensor:
    """Mean distance of the rows; where two rows coincide the gradient is 0."""
    difference = at_least_float32(x) - at_least_float32(target.detach() if detach else target)
    if distance == "mse":
        return difference.square().mean()
    norm = torch.linalg.vector_norm(difference, dim=-1).mean()
    return norm / x.shape[-1] ** 0.5 if distance == "rms" else norm


def _check(z: Mapping[str, Tensor], q: Mapping[str, Tensor], u: Mapping[str, Tensor]) -> None:
    if len(z) < 2:
        raise ConfigError(f"factorization translates between modalities and needs two or more, got {', '.join(z)}")
    if not set(z) == set(q) == set(u):
        raise ConfigError(f"Z, Q and U name different modalities: {', '.join(z)}; {', '.join(q)}; {', '.join(u)}")
