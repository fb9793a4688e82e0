"""The progress-aware pointer: how far in the transcript the chunk's sound has come (design, section 6).

    alpha = softmax(q(c_a) k(H)^T / sqrt d)     pos_j = sum_n alpha_jn n
    w = softmax_j(conf(o_j))                    s_hat = clip(sum_j w_j pos_j + delta, 0, N)

Shape suffixes: B batch, N text units still to say, T audio latents of the chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor


class PointerReading(NamedTuple):
    """end (B,): the predicted end position. alpha (B, T, 1 + N): how each frame shares its attention out, first over
    resting where the chunk begins, then over the units. weight (B, T): how much each frame decides of the end."""

    end: Tensor
    alpha: Tensor
    weight: Tensor


class Pointer(nn.Module):
    """Reads transcript states and the final ``c_a`` (at t = 0) and predicts the endpoint in units from todo's first.

    Args:
        text_width: width of the transcript states H.
        audio_width: width of c_a.
        dim: width of queries and keys.
    """

    def __init__(self, text_width: int, audio_width: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(audio_width), nn.Linear(audio_width, dim))
        self.key = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, dim))
        self.value = nn.Linear(text_width, dim)
        self.nothing = nn.Parameter(torch.zeros(1, 1, dim))
        # No last bias: a softmax over frames follows, so a shift is without effect and without gradient.
        self.confidence = nn.Sequential(nn.Linear(2 * dim + 1, dim), nn.GELU(), nn.Linear(dim, 1, bias=False))
        self.offset = nn.Sequential(nn.Linear(2 * dim + 1, dim), nn.GELU(), nn.Linear(dim, 1))

    def forward(self, text_BND: Tensor, mask_BN: Tensor, c_a_BTD: Tensor, cursor: Tensor) -> PointerReading:
        """Its end lies in [0, N_b]: 0 where there is no text left.

        mask_BN: True at real units; cursor (B,): where the chunk starts, which is where the pointer rests while
        nothing is said: a frame may attend to that rest position in place of any unit.
        """
        q, k = self.query(c_a_BTD).float(), self.key(text_BND).float()
        b, n = mask_BN.shape
        k = torch.cat((self.nothing.expand(b, 1, -1), k), dim=1)
        logits = torch.einsum("btd,bnd->btn", q, k) / q.shape[-1] ** 0.5
        seen = torch.cat((torch.ones_like(mask_BN[:, :1]), mask_BN), dim=1)
        alpha = logits.masked_fill(~seen[:, None], float("-inf")).softmax(dim=-1)
        places = torch.arange(n, device=q.device, dtype=torch.float32) + 0.5
        places = torch.cat((cursor.float()[:, None], places.expand(b, -1)), dim=1)
        position_BT = torch.einsum("btn,bn->bt", alpha, places)
        value = torch.cat((self.nothing.expand(b, 1, -1), self.value(text_BND).float()), dim=1)
        time = torch.linspace(0, 1, q.shape[1], device=q.device)[None, :, None].expand(b, -1, 1)
        o = torch.cat((q, torch.einsum("btn,bnd->btd", alpha, value), time), dim=-1)
        weight_BT = self.confidence(o).squeeze(-1).softmax(dim=-1)
        delta = torch.einsum("bt,bt->b", weight_BT, self.offset(o).squeeze(-1))
        end = torch.einsum("bt,bt->b", weight_BT, position_BT) + delta
        return PointerReading(torch.minimum(end.clamp_min(0), mask_BN.sum(dim=1)), alpha, weight_BT)


def advance(position: Tensor, predicted: Tensor, rate: float, seconds: float, length: Tensor) -> Tensor:
    """The pointer after a chunk: monotone, at most ``rate * seconds`` units ahead of ``position``, within the text."""
    ahead = torch.minimum(predicted, position + rate * seconds)
    return torch.minimum(torch.maximum(ahead, position), length)
