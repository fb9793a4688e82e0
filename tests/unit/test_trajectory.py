"""The student's start: where the teacher's ODE ends, and what a student is taught at its own levels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_modules.config import DmdStage, TrajectoryConfig
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.noise import NoiseKey
from streamchar.diffusion.schedule import euler_sigmas
from streamchar.objectives.trajectory import trajectory_losses
from streamchar.rollout.denoise import denoise_chunk
from streamchar.rollout.plan import student_plan
from streamchar.types import Latents
from tests import tiny_models as tiny

CONFIG = DiffusionConfig(guidance_video=1.0, guidance_audio=1.0)
WEIGHT = torch.ones(2, tiny.CLOCK.audio_latents)


class OnePoint(nn.Module):
    """The exact model of data that is one point: its ODE ends there from anywhere."""

    def __init__(self, point: float) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(point))
        self.config, self.clock = tiny.denoiser().config, tiny.CLOCK

    def encode_context(self, conditions):
        return None

    def forward(self, noisy, sigma, c_a, context, audio_time):
        s = sigma.reshape(-1, 1, 1)
        return Latents((noisy.video - self.point) / s[..., None, None], (noisy.audio - self.point) / s)


EULER = DiffusionConfig(guidance_video=1.0, guidance_audio=1.0, few_step_sampler="euler")
LAST = 3


def losses(student, teacher, step: int, config: DiffusionConfig = CONFIG, steps: int = 8):
    c, orchestrator = tiny.conditions(), tiny.orchestrator()
    return trajectory_losses(student, teacher, orchestrator, c, orchestrator.prefix(c), tiny.latents(), WEIGHT,
                             NoiseKey.of(0, [0, 1]), student_plan(config), step, config, steps)


@pytest.mark.parametrize("step", range(4))
def test_the_target_is_the_end_of_the_teachers_ode_at_every_level(step):
    level = student_plan(CONFIG).sigmas[step]
    for loss in losses(OnePoint(0.5), OnePoint(0.5), step):
        torch.testing.assert_close(loss, torch.zeros(2), atol=1e-9, rtol=0)
    for loss in losses(OnePoint(0.5), OnePoint(0.2), step):  # ends .3 away, as a velocity .3 / level
        torch.testing.assert_close(loss, torch.full((2,), (0.3 / level) ** 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("step", range(4))
def test_on_an_euler_path_the_target_is_the_teachers_way_to_the_next_level(step):
    plan = student_plan(EULER)
    for loss in losses(OnePoint(0.5), OnePoint(0.5), step, EULER):
        torch.testing.assert_close(loss, torch.zeros(2), atol=1e-9, rtol=0)
    for loss in losses(OnePoint(0.5), OnePoint(0.2), step, EULER):  # both go straight, to points .3 apart
        torch.testing.assert_close(loss, torch.full((2,), (0.3 / plan.sigmas[step]) ** 2), atol=1e-5, rtol=1e-4)


def test_on_an_euler_path_the_teacher_begins_where_the_students_own_steps_have_come_to():
    student = Still(0.0)
    losses(student, OnePoint(0.5), 2, EULER)
    moved = student.seen.audio
    losses(student, OnePoint(0.5), 0, EULER)
    assert torch.equal(student.seen.audio, moved)  # it predicts no movement: still at its own noise
    drawn = OnePoint(0.3)
    seen = []
    forward = drawn.forward
    drawn.forward = lambda noisy, *rest: (seen.append(noisy.audio), forward(noisy, *rest))[1]
    losses(drawn, OnePoint(0.5), LAST, EULER)
    level = student_plan(EULER).sigmas[LAST]
    torch.testing.assert_close(seen[-1], level * moved + (1 - level) * 0.3)  # straight from the noise to its point
    assert len(seen) == LAST + 1


class Listening(OnePoint):
    """Its ODE depends on what it hears; ``heard`` keeps ``(audio, sigma, c_a)`` of every pass."""

    def __init__(self, point: float) -> None:
        super().__init__(point)
        self.heard = []

    def forward(self, noisy, sigma, c_a, context, audio_time):
        self.heard.append((noisy.audio, sigma, c_a))
        out = super().forward(noisy, sigma, c_a, context, audio_time)
        return Latents(out.video, out.audio + c_a.mean(-1, keepdim=True))


@pytest.mark.parametrize("sampler", ["renoise", "euler"])
@pytest.mark.parametrize("step", range(4))
def test_a_guided_condition_is_what_the_student_hears_at_every_step_and_the_teacher_at_none(sampler, step):
    config = replace(EULER, few_step_sampler=sampler, few_step_guidance=3.0)
    c, orchestrator = tiny.conditions(), tiny.orchestrator()
    told, untold = orchestrator.prefix(c), orchestrator.untold_prefix(c)
    student, teacher = Listening(0.5), Listening(0.5)
    losses(student, teacher, step, config)
    assert len(student.heard) == (1 + step if sampler == "euler" else 1) and len(teacher.heard) > 0
    for audio, sigma, c_a in student.heard:
        with_text, without = (orchestrator.block(p, audio, sigma) for p in (told, untold))
        torch.testing.assert_close(c_a, 3 * with_text - 2 * without)
        assert (with_text - without).abs().max() > 1e-4
    for audio, sigma, c_a in teacher.heard:
        torch.testing.assert_close(c_a, orchestrator.block(told, audio, sigma))
    # The student's own way leads through what it heard: the last level is reached from guided steps.
    seen, level, _ = student.heard[-1]
    plain = Listening(0.5)
    losses(plain, Listening(0.5), step, replace(config, few_step_guidance=1.0))
    assert torch.equal(plain.heard[-1][1], level)
    assert torch.equal(plain.heard[-1][0], seen) == (sampler == "renoise" or step == 0)


def test_a_student_that_learnt_its_stretches_ends_where_the_teacher_ends():
    """Exact segment velocities of a curved ODE, chained by the student's sampler, equal the teacher's fine path."""
    c, orchestrator, key = tiny.conditions(), tiny.orchestrator(), NoiseKey.of(0, [0, 1])
    prefix, plan = orchestrator.prefix(c), student_plan(EULER)

    class Stretches(Normal):
        """Standard normal data: from level s to r the ODE scales by ``sqrt(((1-r)^2 + r^2) / ((1-s)^2 + s^2))``."""

        def forward(self, noisy, sigma, c_a, context, audio_time):
            s = float(sigma[0])
            step = min(range(plan.steps), key=lambda i: abs(plan.sigmas[i] - s))
            r = plan.reach(step)
            slope = (1 - (((1 - r) ** 2 + r**2) / ((1 - s) ** 2 + s**2)) ** 0.5) / (s - r)
            return Latents(slope * noisy.video, slope * noisy.audio)

    student = Stretches(0.0)
    for step in range(4):
        for loss in losses(student, Normal(0.0), step, EULER, steps=800):
            torch.testing.assert_close(loss, torch.zeros(2), atol=2e-4, rtol=0)
    start = denoise_chunk(student, orchestrator, c, prefix, plan.until(0), key).final
    end = denoise_chunk(student, orchestrator, c, prefix, plan, key).final
    torch.testing.assert_close(end.audio, start.audio)  # unit variance at both ends
    blurred = denoise_chunk(Normal(0.0), orchestrator, c, prefix, plan, key).final
    assert float(blurred.audio.std()) < 0.95 * float(end.audio.std())


class Normal(OnePoint):
    """The exact model of standard normal data: its ODE ends at ``x_s / sqrt((1 - s)^2 + s^2)``, far from the start."""

    def forward(self, noisy, sigma, c_a, context, audio_time):
        s = float(sigma[0])
        slope = (2 * s - 1) / ((1 - s) ** 2 + s**2)
        return Latents(slope * noisy.video, slope * noisy.audio)


class Still(OnePoint):
    """Predicts no movement, so that its loss is the square of the target; ``seen`` keeps what it was given."""

    def forward(self, noisy, sigma, c_a, context, audio_time):
        self.seen = noisy
        return Latents(0 * noisy.video, 0 * noisy.audio)


def test_the_ode_begins_at_what_the_student_sees():
    student, level = Still(0.0), 0.625
    found = losses(student, Normal(0.0), LAST, steps=400)
    factor = (1 - ((1 - level) ** 2 + level**2) ** -0.5) / level
    for loss, seen in zip(found, (student.seen.video, student.seen.audio), strict=True):
        torch.testing.assert_close(loss, (seen * factor).square().flatten(1).mean(1), rtol=0.05, atol=1e-4)


def test_the_target_is_guided():
    class Conditional(Still):
        """Moves by 1 with a condition and not at all without."""

        def null_like(self, c_a):
            return torch.zeros_like(c_a)

        def forward(self, noisy, sigma, c_a, context, audio_time):
            v = float(c_a.abs().sum() > 0)
            return Latents(torch.full_like(noisy.video, v), torch.full_like(noisy.audio, v))

    video, audio = losses(Still(0.0), Conditional(0.0), LAST, DiffusionConfig(guidance_video=2.0, guidance_audio=3.0))
    torch.testing.assert_close(video, torch.full((2,), 4.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(audio, torch.full((2,), 9.0), rtol=1e-4, atol=0)


def test_the_student_alone_gets_gradient():
    student, teacher = tiny.denoiser(1), tiny.denoiser(2)
    video, audio = losses(student, teacher, LAST)
    (video + audio).mean().backward()
    assert student.video_in.weight.grad.abs().sum() > 0 and student.null_condition.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_surplus_audio_latents_are_not_taught():
    c, orchestrator, weight = tiny.conditions(), tiny.orchestrator(), WEIGHT.clone()
    weight[:, -1] = 0
    student = OnePoint(0.5)
    student.forward = lambda noisy, *_: Latents(noisy.video, noisy.audio + 100 * (1 - weight[..., None]))
    found = [trajectory_losses(student, OnePoint(0.2), orchestrator, c, orchestrator.prefix(c), tiny.latents(), w,
                               NoiseKey.of(0, [0, 1]), student_plan(CONFIG), LAST, CONFIG, 8)[1]
             for w in (weight, WEIGHT)]
    assert (found[0] < 20).all() and (found[1] > 100).all()


def test_a_shorter_way_takes_fewer_steps_of_the_same_kind():
    whole, rest = euler_sigmas(8, 5.0), euler_sigmas(8, 5.0, start=0.625)
    assert len(whole) == 9 and whole[0] == 1 and whole[-1] == 0
    assert len(rest) == 3 and float(rest[0]) == pytest.approx(0.625) and rest[-1] == 0
    torch.testing.assert_close(rest, whole[-3:])  # .625 is the raw level .25, two steps from the end
    stretch = euler_sigmas(8, 5.0, start=float(whole[2]), stop=float(whole[4]))
    torch.testing.assert_close(stretch, whole[2:5])


def test_options_that_cannot_be_are_named():
    late = DmdStage(generator_from=2, trajectory=TrajectoryConfig(steps=3)).problems("stages.dmd")
    assert late == ["stages.dmd.trajectory.steps=3 must not exceed generator_from=2: distribution matching begins "
                    "after it"]
    assert "teacher_steps" in DmdStage(trajectory=TrajectoryConfig(teacher_steps=0)).problems("stages.dmd")[0]
