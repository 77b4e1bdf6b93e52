"""Hierarchical adversarial learning of HRLF: a discriminator per scale tells the student from the teacher.

Source: HRLF (NeurIPS 2024), equation 9 [P]; that the discriminator maximises it and the student minimises it is said
there in words only. All functions take logits, so that ``log D`` is a log-sigmoid and never the logarithm of a 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses import at_least_float32


def hierarchical_adversarial(student_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]) -> Tensor:
    """``sum_i log(1 - D(E^s_i)) + log D(E^t_i)``, each term a mean over the batch.

    The value is never above 0 and is ``-6 ln 2`` for three undecided discriminators. The student minimises it: the
    saturating form, as printed. Its second term has no gradient for the student.

    Args:
        student_logits: per scale ``(B,)``.
        teacher_logits: per scale ``(B,)``.

    Returns:
        A scalar.

    Raises:
        ConfigError: the lists are empty or of different lengths.
    """
    _check(student_logits, teacher_logits)
    fooled = [F.logsigmoid(-at_least_float32(x)).mean() for x in student_logits]
    known = [F.logsigmoid(at_least_float32(x)).mean() for x in teacher_logits]
    return torch.stack(fooled + known).sum()


def nonsaturating_adversarial(student_logits: Sequence[Tensor]) -> Tensor:
    """``-sum_i log D(E^s_i)``: the student's usual other form [R], whose gradient stays where it loses clearly."""
    return -torch.stack([F.logsigmoid(at_least_float32(x)).mean() for x in student_logits]).sum()


def discriminator_loss(student_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]) -> Tensor:
    """Binary cross-entropy of the discriminators, teacher 1 and student 0, summed over scales: minus equation 9.

    Args and errors as :func:`hierarchical_adversarial`.
    """
    return -hierarchical_adversarial(student_logits, teacher_logits)


def _check(student_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]) -> None:
    if not student_logits or len(student_logits) != len(teacher_logits):
        raise ConfigError(
            f"the student has logits of {len(student_logits)} scales and the teacher of {len(teacher_logits)}; "
            "both need the same, one or more"
        )
