"""Energy distance between two conditional distributions, from two draws of each (Szekely and Rizzo 2013).

``2 E|x - y| - E|x - x'| - E|y - y'|``, zero only where both draw alike. A plain distance to one draw of the reference
is smallest for its blurred mean, so that a sampler which draws as the reference does loses to one that does not draw
at all; this distance punishes both what is off and what is blurred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.errors import InputError


def energy_distance(made: Tensor, reference: Tensor) -> Tensor:
    """(N,) distances of N conditions, unbiased: single values may be below zero.

    Args:
        made: (2, N, ...) two independent draws per condition; draw i may share its noise with draw i of ``reference``,
            since only draws of different noise are compared.
        reference: the same shape. Lengths are root mean squares over all but the first two dimensions.

    Raises:
        InputError: where the shapes differ or there are not two draws.
    """
    if made.shape != reference.shape or made.shape[0] != 2:
        raise InputError(f"energy_distance needs two draws per condition, (2, N, ...) twice, got {tuple(made.shape)} "
                         f"and {tuple(reference.shape)}")
    across = _length(made[0] - reference[1]) + _length(made[1] - reference[0])
    return across - _length(made[0] - made[1]) - _length(reference[0] - reference[1])


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1).double(), dim=1) / x[0].numel() ** 0.5
