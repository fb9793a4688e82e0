"""RMS norm: torch's own in float32, within rounding of it in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from streamchar.nn.norm import RMSNorm


def both(width: int = 96) -> tuple[RMSNorm, nn.RMSNorm]:
    ours, plain = RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
    with torch.no_grad():
        ours.weight.copy_(1 + 0.3 * torch.randn(width, generator=torch.Generator().manual_seed(1)))
        plain.weight.copy_(ours.weight)
    return ours, plain


def run(norm: nn.RMSNorm, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Output, gradient of the input, gradient of the weight."""
    norm.weight.grad, x = None, x.clone().requires_grad_()
    out = norm(x)
    (out.float() * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
    assert x.grad is not None
    return out, x.grad, norm.weight.grad


def test_in_float32_it_is_torchs_own_to_the_bit() -> None:
    x = torch.randn(4, 7, 96, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(run(both()[0], x), run(both()[1], x), strict=True))


def test_in_bfloat16_it_is_one_type_and_within_rounding() -> None:
    x = torch.randn(4, 7, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, plain = both()
    out, to_input, to_weight = run(ours, x)
    wanted = run(plain, x.float())
    assert out.dtype == torch.bfloat16 and to_weight is not None and to_weight.dtype == torch.float32
    for found, exact in zip((out, to_input, to_weight), wanted, strict=True):
        assert float((found.detach().float() - exact.detach()).norm() / exact.detach().norm()) < 2**-8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")
def test_on_a_gpu_it_stays_within_rounding_and_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    ours, plain = both()
    x = torch.randn(4, 7, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    wanted = plain(x.float())
    with torch.autocast("cuda", torch.bfloat16):
        out = ours.cuda()(x.cuda())
    assert out.dtype == torch.bfloat16 and not [w for w in recwarn if "Mismatch dtype" in str(w.message)]
    assert float((out.detach().float().cpu() - wanted.detach()).norm() / wanted.detach().norm()) < 2**-8
