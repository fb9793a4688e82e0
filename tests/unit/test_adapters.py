"""Roles as adapters on one frozen base: what they share, what they learn, and merged = unmerged."""

from __future__ import annotations

import pytest
import torch

from streamchar.denoiser.adapter_config import AdapterConfig
from streamchar.denoiser.adapters import adapted, merged
from streamchar.denoiser.model import Denoiser
from streamchar.distributed.activations import checkpoint_activations
from streamchar.hub.pretrained import load_weights
from streamchar.types import Latents
from tests import tiny_models as tiny

CONFIG = AdapterConfig(rank=4, alpha=8.0)


def velocity(model: Denoiser) -> Latents:
    c, noisy = tiny.conditions(), tiny.latents()
    c_a = torch.randn(2, tiny.CLOCK.audio_latents, 32, generator=torch.Generator().manual_seed(5))
    return model(noisy, torch.tensor([0.3, 0.8]), c_a, model.encode_context(c), c.audio_time)


def moved(model: Denoiser, seed: int) -> Denoiser:
    """``model`` with adapters that do something, as after some updates."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.normal_(std=0.1)
    return model


def test_roles_share_the_base_and_begin_as_it() -> None:
    base = tiny.denoiser()
    with torch.no_grad():
        before = velocity(base)
    roles = [adapted(base, CONFIG, name) for name in ("student", "critic")]
    own, learn = {id(p) for p in base.parameters()}, []
    for role in roles:
        with torch.no_grad():
            assert torch.equal(velocity(role).video, before.video)
        shared = [p for p in role.parameters() if id(p) in own]
        assert len(shared) == len(own) and not any(p.requires_grad for p in shared)
        learn.append({n for n, p in role.named_parameters() if p.requires_grad})
        assert all(".lora_" in n for n in learn[-1]) and len(learn[-1]) == 2 * (4 + 4) * len(base.blocks)
    moved(roles[0], 1)
    with torch.no_grad():
        assert not torch.allclose(velocity(roles[0]).video, before.video, atol=1e-3)
        assert torch.equal(velocity(roles[1]).video, before.video) and torch.equal(velocity(base).video, before.video)


def test_a_merged_model_computes_what_the_adapters_did() -> None:
    base = tiny.denoiser()
    role = moved(adapted(base, CONFIG, "student"), 1)
    kept = {k: v.clone() for k, v in base.state_dict().items()}
    plain = tiny.denoiser(seed=7)
    load_weights(plain, merged(role), "adapters")
    with torch.no_grad():
        apart, one = velocity(role), velocity(plain)
    torch.testing.assert_close(one.video, apart.video, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.audio, apart.audio, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(one.video, velocity(base).video, atol=1e-3)
    assert all(torch.equal(v, kept[k]) for k, v in base.state_dict().items())


@pytest.mark.parametrize("mode", ["selective", "recompute"])
def test_another_role_may_run_before_activations_are_recomputed(mode: str) -> None:
    gradients = []
    for recompute in (False, True):
        base = tiny.denoiser()
        student, critic = moved(adapted(base, CONFIG, "student"), 1), moved(adapted(base, CONFIG, "critic"), 2)
        if recompute:
            checkpoint_activations(student, mode)
        out = velocity(student)
        with torch.no_grad():
            velocity(critic)
        (out.video.square().mean() + out.audio.square().mean()).backward()
        gradients.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
        assert all(p.grad is None for p in (*base.parameters(), *critic.parameters()))
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 2 * 8 * 2
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_wrong_targets_are_named() -> None:
    assert "to_q" in AdapterConfig(targets=["query"]).problems("stages.dmd.lora")[0]
    assert "rank=0" in AdapterConfig(rank=0).problems("stages.dmd.lora")[0]
