"""Compiled parts give what eager ones give, each in one piece, under the same names."""

from __future__ import annotations

from copy import deepcopy

import torch

from streamchar.distributed.compiling import compile_parts
from tests import tiny_models as tiny


def test_an_lms_mlps_and_norms_are_captured_whole_and_change_nothing() -> None:
    plain = tiny.character().orchestrator
    ours, c = deepcopy(plain), tiny.conditions(2)
    compile_parts(ours, backend="eager", fullgraph=True)
    assert list(ours.state_dict()) == list(plain.state_dict())
    audio, sigma = tiny.latents(2).audio, torch.tensor([0.3, 0.9])
    found = []
    for model in (plain, ours):
        out = model.block(model.prefix(c), audio, sigma)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
