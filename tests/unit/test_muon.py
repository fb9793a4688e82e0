"""Muon on a CPU does what torch's Muon does, up to the precision of its products."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.config import OptimizerConfig
from lightning_modules.cpu_muon import CpuMuon, orthogonalised
from lightning_modules.optimizers import build_optimizer

OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "original"}


@pytest.mark.parametrize("fast", [True, False])
def test_it_moves_weights_as_torchs_own_does(monkeypatch, fast):
    """Tall and wide matrices, and two of one shape, which are multiplied together. In bfloat16 both round."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    torch.manual_seed(0)
    shapes = [(24, 60), (60, 24), (24, 60)]
    start, gradients = [torch.randn(s) for s in shapes], [[torch.randn(s) for s in shapes] for _ in range(3)]
    found = []
    for kind in (torch.optim.Muon, CpuMuon):
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
    CpuMuon([still, moved], **OPTIONS).step()
    assert torch.equal(still, torch.ones(3, 4)) and not torch.equal(moved, torch.ones(3, 4))


def test_on_a_cpu_it_is_chosen():
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3)])
    assert type(build_optimizer([(module, 1.0)], OptimizerConfig(kind="muon")).muon) is CpuMuon
