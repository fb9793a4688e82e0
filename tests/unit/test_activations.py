"""Recomputed activations: the same results and gradients, less kept in between."""

from __future__ import annotations

import pytest
import torch

from streamchar.distributed.activations import checkpoint_activations
from tests import tiny_models as tiny


def gradients(mode: str) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Output, gradients and elements kept for the backward pass, with c_a from the orchestrator."""
    denoiser, orchestrator = tiny.denoiser(), tiny.orchestrator()
    for model in (denoiser, orchestrator):
        checkpoint_activations(model, mode)
    c, noisy, sigma, kept = tiny.conditions(), tiny.latents(), torch.tensor([0.3, 0.7]), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        c_a = orchestrator.block(orchestrator.prefix(c), noisy.audio, sigma)
        out = denoiser(noisy, sigma, c_a, denoiser.encode_context(c), c.audio_time)
    (out.video.square().mean() + out.audio.square().mean()).backward()
    found = {f"{type(m).__name__}.{n}": p.grad for m in (denoiser, orchestrator) for n, p in m.named_parameters()
             if p.grad is not None}
    return out.video.detach(), found, sum(kept)


@pytest.mark.parametrize("mode", ["selective", "recompute"])
def test_recomputing_changes_nothing_but_what_is_kept(mode: str) -> None:
    video, wanted, most = gradients("keep")
    again, found, kept = gradients(mode)
    assert torch.equal(again, video) and found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name
    assert kept < most


def test_names_and_inference_stay_as_they_are() -> None:
    plain, model = tiny.denoiser(), tiny.denoiser()
    checkpoint_activations(model, "recompute")
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        c = tiny.conditions()
        for (k, v), (kk, vv) in zip(model.encode_context(c).keys_values, plain.encode_context(c).keys_values,
                                    strict=True):
            assert torch.equal(k, kk) and torch.equal(v, vv)
