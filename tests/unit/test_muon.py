"""Muon by shapes does what torch's Muon does, up to the precision of its products."""

from __future__ import annotations

import pytest
import torch

from lightning_modules import batched_muon
from lightning_modules.batched_muon import BatchedMuon, orthogonalised

OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "original"}


@pytest.mark.parametrize("fast", [True, False])
def test_it_moves_weights_as_torchs_own_does(monkeypatch, fast):
    """Tall and wide matrices, and two of one shape, which are multiplied together. In bfloat16 both round."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    torch.manual_seed(0)
    shapes = [(24, 60), (60, 24), (24, 60)]
    start, gradients = [torch.randn(s) for s in shapes], [[torch.randn(s) for s in shapes] for _ in range(3)]
    found = []
    for kind in (torch.optim.Muon, BatchedMuon):
        weights = [torch.nn.Parameter(w.clone()) for w in start]
        optimizer = kind(weights, **OPTIONS)
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
        found.append(([w.detach() for w in weights], optimizer.state_dict()["state"]))
    (theirs, their_state), (ours, our_state) = found
    for number, (one, other, begun) in enumerate(zip(theirs, ours, start, strict=True)):
        assert torch.equal(their_state[number]["momentum_buffer"], our_state[number]["momentum_buffer"])
        assert float((other - one).norm()) < (0.04 if fast else 0.02) * float((one - begun).norm())


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (3, 20, 50)])
def test_the_update_is_nearly_orthogonal(shape):
    x = orthogonalised(torch.randn(shape), (3.4445, -4.775, 2.0315), 5, 1e-7, torch.float32)
    values = torch.linalg.svdvals(x)
    assert x.shape == shape
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3


def test_a_matrix_without_a_gradient_stays():
    still, moved = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    moved.grad = torch.ones(3, 4)
    BatchedMuon([still, moved], **OPTIONS).step()
    assert torch.equal(still, torch.ones(3, 4)) and not torch.equal(moved, torch.ones(3, 4))


def test_large_matrices_are_taken_apart(monkeypatch):
    """What is multiplied together is bounded, and moves as before."""
    found, products = [], []
    monkeypatch.setattr(batched_muon, "orthogonalised", lambda x, *options: (
        products.append(1 if x.ndim == 2 else len(x)), orthogonalised(x, *options))[1])
    for together, parts in ((1, [1] * 5), (2 * 12, [2, 2, 1]), (1 << 25, [5])):
        products.clear()
        monkeypatch.setattr(batched_muon, "TOGETHER", together)
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(3, 4)) for _ in range(5)]
        for weight in weights:
            weight.grad = torch.randn(3, 4)
        BatchedMuon(weights, **OPTIONS).step()
        found.append(torch.stack([w.detach() for w in weights]))
        assert products == parts
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-3, rtol=0)
