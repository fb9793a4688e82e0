"""Fused attention on a GPU against PyTorch's own, forward and backward."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from streamchar.nn import attention

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees"),
    pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="needs flash-attn (pip install "
                                                                              "--no-build-isolation '.[flash-attn]')")]


def run(kind: str, monkeypatch: pytest.MonkeyPatch, queries: int, keys: int) -> list[torch.Tensor]:
    """Output and gradients of queries, keys and values in bf16."""
    monkeypatch.setattr(attention, "backend", lambda *_: kind)
    g = torch.Generator("cuda").manual_seed(0)
    inputs = [torch.randn(2, length, 12, 128, generator=g, device="cuda", dtype=torch.bfloat16, requires_grad=True)
              for length in (queries, keys, keys)]
    out = attention.attend(*inputs)
    out.backward(torch.randn(out.shape, generator=g, device="cuda", dtype=torch.bfloat16))
    return [out.detach(), *(x.grad for x in inputs if x.grad is not None)]


@pytest.mark.parametrize("queries, keys", [(64, 64), (2339, 5700), (1, 7)])
def test_flash_attention_equals_sdpa_forward_and_backward(queries: int, keys: int,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    flash, sdpa = (run(kind, monkeypatch, queries, keys) for kind in ("flash", "sdpa"))
    assert len(flash) == len(sdpa) == 4
    for ours, theirs in zip(flash, sdpa, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
