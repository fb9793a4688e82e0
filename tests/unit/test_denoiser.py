"""The joint denoiser: cached context against one masked pass, gradients, positions, null branch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from streamchar.clock import ChunkClock
from streamchar.denoiser.guidance import guided_velocity
from streamchar.denoiser.model import patchify, unpatchify
from streamchar.denoiser.positions import TokenPositions
from streamchar.diffusion.noise import NoiseKey
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.denoise import denoise_chunk, start_noise
from streamchar.rollout.plan import SamplePlan, student_plan
from tests import tiny_models as tiny


def _masked_reference(model, noisy, sigma, c_a, c, monkeypatch):
    """The same weights in one pass over all tokens, with a mask that hides noisy tokens from the context."""
    from streamchar.denoiser import block as block_file

    captured = {}
    original = block_file.SelfAttention.forward

    def collect(self, x, rope, context):
        captured.setdefault(id(self), []).append((x.detach(), rope))
        q, k, v = self.qkv(x, rope)
        if context is None:
            self.first = (q, k, v)
            return original(self, x, rope, None)
        q0, k0, v0 = self.first
        q, k, v = torch.cat((q0, q), 1), torch.cat((k0, k), 1), torch.cat((v0, v), 1)
        n = q0.shape[1]
        mask = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool)
        mask[:n, n:] = False
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        return self.to_out(out.transpose(1, 2)[:, n:].flatten(-2)), None

    monkeypatch.setattr(block_file.SelfAttention, "forward", collect)
    context = model.encode_context(c)
    return model(noisy, sigma, c_a, context, c.audio_time)


def test_cached_context_equals_one_masked_pass(monkeypatch):
    model, c, noisy = tiny.denoiser(), tiny.conditions(), tiny.latents()
    sigma, c_a = torch.tensor([0.3, 0.8]), torch.randn(2, tiny.CLOCK.audio_latents, 32)
    with torch.no_grad():
        cached = model(noisy, sigma, c_a, model.encode_context(c), c.audio_time)
        whole = _masked_reference(model, noisy, sigma, c_a, c, monkeypatch)
    torch.testing.assert_close(cached.video, whole.video, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(cached.audio, whole.audio, atol=2e-5, rtol=1e-4)


def test_context_ignores_noisy_tokens_and_noisy_tokens_see_context():
    model, c, noisy = tiny.denoiser(), tiny.conditions(), tiny.latents()
    sigma, c_a = torch.tensor([0.5, 0.5]), torch.zeros(2, tiny.CLOCK.audio_latents, 32)
    with torch.no_grad():
        base = model(noisy, sigma, c_a, model.encode_context(c), c.audio_time)
        for name in ("ref", "sink", "motion", "past_audio"):
            changed = replace(c, **{name: getattr(c, name) + 1})
            other = model(noisy, sigma, c_a, model.encode_context(changed), c.audio_time)
            assert (other.video - base.video).abs().max() > 1e-5, name
            assert (other.audio - base.audio).abs().max() > 1e-5, name


def test_context_projections_get_gradient_at_the_exit_step():
    character, c = tiny.character(), tiny.conditions()
    plan = student_plan(character.diffusion)
    prefix = character.orchestrator.prefix(c)
    out = denoise_chunk(character.denoiser, character.orchestrator, c, prefix, plan,
                        NoiseKey.of(0, [0, 1]), exit_step=2)
    (out.exit.video.square().mean() + out.exit.audio.square().mean()).backward()
    d = character.denoiser
    for name in ("ref", "sink", "motion", "past_audio"):
        assert d.group_embedding[name].grad.abs().sum() > 0, name
    assert d.blocks[0].attn1.to_k.weight.grad.abs().sum() > 0
    assert not out.final.video.requires_grad


def test_guidance_weight_one_means_none_and_two_doubles_the_difference():
    model, c, noisy = tiny.denoiser(), tiny.conditions(), tiny.latents()
    sigma, c_a = torch.tensor([0.4, 0.6]), torch.randn(2, tiny.CLOCK.audio_latents, 32)
    with torch.no_grad():
        context = model.encode_context(c)
        cond = model(noisy, sigma, c_a, context, c.audio_time)
        null = model(noisy, sigma, model.null_like(c_a), context, c.audio_time)
        two = guided_velocity(model, noisy, sigma, c_a, context, c.audio_time, 1.0, 2.0)
    torch.testing.assert_close(two.video, cond.video)
    torch.testing.assert_close(two.audio, 2 * cond.audio - null.audio)
    assert (cond.audio - null.audio).abs().max() > 1e-4


@torch.no_grad()
def test_guidance_away_from_a_condition_without_text():
    character, c = tiny.character(), tiny.conditions()
    orchestrator, model = character.orchestrator, character.denoiser
    plan = SamplePlan((1.0, 0.0), renoise=False, guidance_audio=3.0, text_null=True)  # one Euler step
    key, prefix, sigma = NoiseKey.of(0, [0, 1]), orchestrator.prefix(c), torch.ones(2)
    out = denoise_chunk(model, orchestrator, c, prefix, plan, key).final
    eps = start_noise(c, model, key.at(step=0))
    told, untold = (model(eps, sigma, orchestrator.block(p, eps.audio, sigma), model.encode_context(c), c.audio_time)
                    for p in (prefix, orchestrator.prefix(c.without_text())))
    torch.testing.assert_close(out.audio, eps.audio - (3 * told.audio - 2 * untold.audio))
    torch.testing.assert_close(out.video, eps.video - told.video)
    assert (told.audio - untold.audio).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("renoise", [False, True])
def test_guidance_of_the_condition_runs_the_denoiser_once(renoise):
    character, c = tiny.character(), tiny.conditions()
    orchestrator, model = character.orchestrator, character.denoiser
    plan = SamplePlan((1.0,) if renoise else (1.0, 0.0), renoise=renoise, guidance_condition=3.0)
    key, prefix, sigma, heard = NoiseKey.of(0, [0, 1]), orchestrator.prefix(c), torch.ones(2), []
    forward = model.forward
    model.forward = lambda *a: (heard.append(a[2]), forward(*a))[1]
    out = denoise_chunk(model, orchestrator, c, prefix, plan, key).final
    model.forward = forward
    eps = start_noise(c, model, key.at(step=0))
    told, untold = (orchestrator.block(p, eps.audio, sigma) for p in (prefix, orchestrator.prefix(c.without_text())))
    torch.testing.assert_close(torch.stack(heard), (3 * told - 2 * untold)[None])
    v = model(eps, sigma, heard[0], model.encode_context(c), c.audio_time)
    torch.testing.assert_close(out.audio, eps.audio - v.audio)
    assert (told - untold).abs().max() > 1e-4


def test_patchify_is_inverted():
    x = torch.randn(2, 3, 4, 6, 6)
    torch.testing.assert_close(unpatchify(patchify(x, 3), x, 3), x)


def test_positions_are_those_of_the_design():
    clock = ChunkClock(24.0, 33, 25.0, 16000)
    p = TokenPositions(tiny.denoiser().config, clock, motion=9, sink=3)
    assert p.video_times.tolist() == list(range(9))
    assert p.motion_times[0] == -8.25 and p.motion_times[-1] == -0.25
    assert p.sink_times.max() < p.motion_times.min() and p.ref_times.max() < p.sink_times.min()
    second = p.noisy_audio(torch.tensor([[1.0]]))[0, 0, 0]
    assert abs(float(second) - (1.0 + 0.02) * 6.0) < 1e-5


def test_what_the_denoiser_sees_of_the_sink_does_not_depend_on_the_chunk_number(monkeypatch):
    character = tiny.character()
    seen = []
    original = type(character.denoiser)._rope

    def spy(self, positions, device):
        seen.append(positions.clone())
        return original(self, positions, device)

    monkeypatch.setattr(type(character.denoiser), "_rope", spy)
    memory = character.start(tiny.streams([["a"] * 30]))
    per_chunk = []
    for k in (0, 1, 7, 300):
        memory.chunk = k
        seen.clear()
        generate_chunk(character, memory, student_plan(character.diffusion))
        per_chunk.append(seen[0])
    for positions in per_chunk[1:]:
        torch.testing.assert_close(positions, per_chunk[0], atol=1e-6, rtol=0)
