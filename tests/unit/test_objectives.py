"""Objectives: the distribution-matching gradient on a hand case, surplus latents, schedules, counted noise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.teacher_module import NO_DROPS
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import add_noise, clean_from_velocity
from streamchar.diffusion.noise import NoiseKey, _seed, scalar
from streamchar.diffusion.schedule import euler_sigmas, few_step_sigmas, score_sigmas
from streamchar.objectives.conditioning import perturb
from streamchar.objectives.distribution_matching import generator_losses, normalised_gradient, renoise, surrogate
from streamchar.objectives.drops import DropConfig
from streamchar.objectives.joint import joint_losses
from streamchar.objectives.per_sample import audio_mean, batch_mean
from streamchar.objectives.speech import pointer_error, pointer_samples, speech_losses
from streamchar.types import ChunkBatch, Latents
from tests import tiny_models as tiny


def test_dmd_gradient_equals_lambda_g_over_numel():
    x = torch.tensor([[[[[1.0, 2.0], [0.0, -1.0]]]]], requires_grad=True)
    fake, real = torch.full_like(x, 0.5), torch.tensor([[[[[0.0, 1.0], [1.0, 0.0]]]]])
    # |x - real| = 1 everywhere, so g = fake - real = .5, -.5, -.5, .5
    g = normalised_gradient(fake, real, x.detach())
    assert g.flatten().tolist() == [0.5, -0.5, -0.5, 0.5]
    weight = 3.0
    (weight * surrogate(x, g)).sum().backward()
    torch.testing.assert_close(x.grad, weight * g / x.numel())


def test_gradient_is_scaled_per_sample_and_nan_becomes_zero():
    x = torch.stack((torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2)))
    real = torch.zeros_like(x)
    g = normalised_gradient(torch.ones_like(x), real, x)
    assert (g[0] == 0.5).all() and (g[1] == 0).all()


def test_surplus_audio_latents_carry_no_gradient():
    x = torch.randn(1, 4, 3, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    g = normalised_gradient(torch.randn(1, 4, 3), torch.randn(1, 4, 3), x.detach(), weight)
    surrogate(x, g, weight).sum().backward()
    assert (x.grad[0, 3] == 0).all() and (x.grad[0, :3] != 0).all()
    torch.testing.assert_close(x.grad[0, :3], g[0, :3] / 9)
    assert float(audio_mean(torch.ones(1, 4, 3), weight)) == 1.0


def test_pictures_that_a_sample_does_not_have_give_no_loss_and_no_gradient():
    """Nor does their absence: a batch of sound alone has a loss of 0 in pictures, whose gradient is 0, not absent."""
    for has in ([True, False], [False, False]):
        denoiser, has_video = tiny.denoiser(), torch.tensor(has)
        batch = ChunkBatch(tiny.conditions(), tiny.latents(), torch.ones(2, tiny.CLOCK.audio_latents), has_video,
                           torch.full((2,), 1.5), torch.arange(2), ["a", "b"])
        made = []
        denoiser.video_out.register_forward_hook(lambda module, given, out, made=made: made.append(out))
        losses = joint_losses(denoiser, tiny.orchestrator(), batch, NoiseKey.of(0, [0, 1]), DiffusionConfig(), NO_DROPS)
        made[0].retain_grad()
        video = batch_mean(losses.video, has_video)
        (video + losses.audio.mean()).backward()
        assert made[0].grad.flatten(1).any(dim=1).tolist() == has
        assert torch.equal(video, losses.video[0] if any(has) else torch.zeros(()))
        assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.video_out.parameters())
        assert denoiser.audio_out.weight.grad.any()


def test_noise_levels_drawn_on_one_prefix_give_the_gradient_of_passes_of_their_own():
    batch = ChunkBatch(tiny.conditions(), tiny.latents(), torch.ones(2, tiny.CLOCK.audio_latents),
                       torch.zeros(2, dtype=torch.bool), torch.full((2,), 1.5), torch.arange(2), ["a", "b"])
    key, found, sigmas = NoiseKey.of(0, [0, 1]), [], []
    for keys, draws in (([key], 3), ([key, key.at(step=1), key.at(step=2)], 1)):
        model = tiny.orchestrator()
        each = [speech_losses(model, batch, k, DiffusionConfig(), draws=draws) for k in keys]
        sum(x.flow.mean() / len(each) + x.pointer.mean() / len(each) for x in each).backward()
        sigmas.append(torch.cat([x.sigma for x in each]))
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert torch.equal(*sigmas) and len(sigmas[0].unique()) == 6
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_mean_over_the_samples_that_have_a_loss_is_that_of_its_parts():
    x, has = torch.tensor([1.0, 2.0, 3.0, 9.0, 5.0, 7.0]), torch.tensor([True, False, False, False, True, True])
    share = has.sum() / len(has)
    parts = [float(batch_mean(x[i:i + 2], has[i:i + 2], share)) for i in (0, 2, 4)]
    assert parts[1] == 0.0 and sum(parts) / 3 == pytest.approx(13 / 3) == float(batch_mean(x, has))
    assert float(batch_mean(x, ~has & has, 0 * share)) == 0.0


def test_generator_gradient_reaches_the_student_only():
    c, orchestrator = tiny.conditions(), tiny.orchestrator()
    teacher, critic = tiny.denoiser(1), tiny.denoiser(2)
    sample = tiny.latents()
    sample = Latents(sample.video.requires_grad_(), sample.audio.requires_grad_())
    prefix = orchestrator.prefix(c)
    config = DiffusionConfig()
    scored = renoise(sample, orchestrator, prefix, NoiseKey.of(0, [0, 1]), config)
    weight = torch.ones(2, tiny.CLOCK.audio_latents)
    losses = generator_losses(sample, scored, teacher, critic, c, weight, config)
    (losses.video + losses.audio).mean().backward()
    assert sample.video.grad.abs().sum() > 0 and sample.audio.grad.abs().sum() > 0
    assert all(p.grad is None for m in (teacher, critic, orchestrator) for p in m.parameters())


def test_the_teachers_score_is_guided_away_from_no_text():
    c, orchestrator = tiny.conditions(), tiny.orchestrator()
    teacher, sample, weight = tiny.denoiser(1), tiny.latents(), torch.ones(2, tiny.CLOCK.audio_latents)
    config = DiffusionConfig(guidance_null="text", guidance_audio=3.0)
    assert config.text_null and not replace(config, guidance_video=1.0, guidance_audio=1.0).text_null
    key, prefix = NoiseKey.of(0, [0, 1]), orchestrator.prefix(c)

    def gradient(untold):
        scored = renoise(sample, orchestrator, prefix, key, config, untold)
        return generator_losses(sample, scored, teacher, teacher, c, weight, config).gradient_audio

    with torch.no_grad():
        same, away = gradient(prefix), gradient(orchestrator.prefix(c.without_text()))
    # critic = teacher: without a difference between the branches guidance has no effect, and nothing is left
    assert same.abs().max() < 1e-5 and away.min() > 1e-3


def test_text_is_dropped_at_its_rate_and_by_sample():
    c, index = tiny.conditions(64), list(range(64))
    told = perturb(c, NoiseKey.of(0, index), DropConfig(text=0.25)).has_text
    assert 40 <= int(told.sum()) <= 56
    assert perturb(c, NoiseKey.of(0, index), DropConfig()).has_text.all()
    part = perturb(tiny.conditions(32), NoiseKey.of(0, index[32:]), DropConfig(text=0.25)).has_text
    assert torch.equal(part, told[32:])


def test_flow_conventions():
    x, eps, sigma = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0.0, 0.5, 1.0])
    noisy = add_noise(x, eps, sigma)
    torch.testing.assert_close(noisy[0], x[0])
    torch.testing.assert_close(noisy[2], eps[2])
    torch.testing.assert_close(clean_from_velocity(noisy, eps - x, sigma), x)


def test_schedules_are_those_of_the_design():
    torch.testing.assert_close(few_step_sigmas(DiffusionConfig()), torch.tensor([1.0, 0.9375, 0.8333333, 0.625]))
    levels = euler_sigmas(50, 5.0)
    assert levels[0] == 1 and levels[-1] == 0 and (levels.diff() < 0).all()
    scores = score_sigmas(torch.linspace(0, 1, 100), DiffusionConfig())
    assert abs(float(scores.min()) - 0.02) < 1e-6 and abs(float(scores.max()) - 0.98) < 1e-6


def test_noise_depends_on_the_sample_not_on_its_place_in_a_batch():
    whole = NoiseKey.of(3, [10, 11, 12], "student", 5).at(chunk=2, step=1)
    part = NoiseKey.of(3, [12], "student", 5).at(chunk=2, step=1)
    torch.testing.assert_close(whole.normal((4,))[2], part.normal((4,))[0], rtol=0, atol=0)
    for other in (part.at(step=2), part.at(chunk=3), part.at(iteration=6), part.at(role="critic"), part.at(seed=4)):
        assert (other.normal((4,)) != part.normal((4,))).all()
    assert 0 <= scalar(0, 1, "exit") < 1 and scalar(0, 1, "exit") != scalar(0, 2, "exit")


def test_a_draw_is_that_of_a_generator_seeded_for_its_sample():
    key = NoiseKey.of(3, torch.tensor([10, 11]), "student", 5)
    for shape in ((), (4,), (33, 9)):
        wanted = [torch.rand(shape, generator=torch.Generator().manual_seed(_seed(3, 5, "student", i, 0, 0, "t")))
                  for i in key.index]
        assert torch.equal(key.uniform(shape, "t"), torch.stack(wanted))


def test_the_pointers_samples_are_the_same_in_one_batch_and_in_parts():
    def of(index):
        return SimpleNamespace(index=index, pointer=index)

    def due_of(part):
        rows, due = pointer_samples(part, 0.25)
        return part.index[rows[due]]

    whole = of(torch.arange(64, 192))
    seen = due_of(whole)
    assert abs(len(seen) - 32) <= 2 and pointer_samples(whole, 1.0)[0] is None
    for parts in ([whole.index[i::4] for i in range(4)], whole.index.chunk(8)):  # ranks, parts
        held = [due_of(of(p)) for p in parts]
        assert torch.equal(torch.cat(held).sort().values, seen)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_batches_of_one_size_have_one_number_of_rows_for_the_pointers_loss(ranks):
    index = torch.arange(48 * ranks * 200)
    parts = [part for rank in range(ranks) for part in index[rank::ranks].chunk(200)]
    found = [pointer_samples(SimpleNamespace(index=part, pointer=part), 0.25) for part in parts]
    assert {len(rows) for rows, _ in found} == {14}
    assert len({int(due.sum()) for _, due in found}) > 1


def test_rows_that_are_not_due_weigh_nothing_in_the_pointers_loss():
    batch = ChunkBatch(tiny.conditions(), tiny.latents(), torch.ones(2, tiny.CLOCK.audio_latents),
                       torch.zeros(2, dtype=torch.bool), torch.full((2,), 1.5), torch.arange(2), ["a", "b"])
    model, due = tiny.orchestrator(), pointer_samples(batch, 0.25)[1]
    losses = speech_losses(model, batch, NoiseKey.of(0, [0, 1]), DiffusionConfig(), 0.25)
    assert due.tolist() == [True, False, False] and batch.conditions.has_text.any()
    assert losses.pointer[0] > 0 and not losses.pointer[1:].any()
    wanted = (losses.predicted[0] - 1.5).abs() if batch.conditions.has_text[0] else torch.zeros(())
    assert torch.equal(pointer_error(losses.predicted, batch, 0.25), wanted)
