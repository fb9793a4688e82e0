"""Muon in float32 does what torch's Muon does, up to the bfloat16 of its products."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.config import OptimizerConfig
from lightning_modules.float32_muon import Float32Muon, orthogonalised
from lightning_modules.optimizers import build_optimizer

OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "original"}


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_it_moves_weights_as_torchs_own_does(shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    found = []
    for kind in (torch.optim.Muon, Float32Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], **OPTIONS)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        found.append((weight.detach(), optimizer.state_dict()["state"][0]["momentum_buffer"]))
    (theirs, their_state), (ours, our_state) = found
    assert torch.equal(their_state, our_state)
    moved = (theirs - start).norm()
    assert float((ours - theirs).norm()) < 0.02 * float(moved)


def test_the_update_is_nearly_orthogonal():
    x = orthogonalised(torch.randn(20, 50), (3.4445, -4.775, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(x)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3


@pytest.mark.parametrize(("fast", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_the_cpu_decides(monkeypatch, fast, kind):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3)])
    assert type(build_optimizer([(module, 1.0)], OptimizerConfig(kind="muon")).muon) is kind
