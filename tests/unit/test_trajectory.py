"""The student's start: where the teacher's ODE ends, and what a student is taught at its own levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.config import DmdStage, TrajectoryConfig
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.noise import NoiseKey
from streamchar.diffusion.schedule import euler_sigmas, few_step_sigmas
from streamchar.objectives.trajectory import trajectory_losses
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


def losses(student, teacher, level: float, config: DiffusionConfig = CONFIG, steps: int = 8):
    c, orchestrator = tiny.conditions(), tiny.orchestrator()
    return trajectory_losses(student, teacher, orchestrator, c, orchestrator.prefix(c), tiny.latents(), WEIGHT,
                             NoiseKey.of(0, [0, 1]), level, config, steps)


@pytest.mark.parametrize("level", few_step_sigmas(CONFIG).tolist())
def test_the_target_is_the_end_of_the_teachers_ode_at_every_level(level):
    for loss in losses(OnePoint(0.5), OnePoint(0.5), level):
        torch.testing.assert_close(loss, torch.zeros(2), atol=1e-9, rtol=0)
    for loss in losses(OnePoint(0.5), OnePoint(0.2), level):  # ends .3 away, as a velocity .3 / level
        torch.testing.assert_close(loss, torch.full((2,), (0.3 / level) ** 2), atol=1e-5, rtol=1e-4)


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
    found = losses(student, Normal(0.0), level, steps=400)
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

    video, audio = losses(Still(0.0), Conditional(0.0), 0.625, DiffusionConfig(guidance_video=2.0, guidance_audio=3.0))
    torch.testing.assert_close(video, torch.full((2,), 4.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(audio, torch.full((2,), 9.0), rtol=1e-4, atol=0)


def test_the_student_alone_gets_gradient():
    student, teacher = tiny.denoiser(1), tiny.denoiser(2)
    video, audio = losses(student, teacher, 0.625)
    (video + audio).mean().backward()
    assert student.video_in.weight.grad.abs().sum() > 0 and student.null_condition.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_surplus_audio_latents_are_not_taught():
    c, orchestrator, weight = tiny.conditions(), tiny.orchestrator(), WEIGHT.clone()
    weight[:, -1] = 0
    student = OnePoint(0.5)
    student.forward = lambda noisy, *_: Latents(noisy.video, noisy.audio + 100 * (1 - weight[..., None]))
    found = [trajectory_losses(student, OnePoint(0.2), orchestrator, c, orchestrator.prefix(c), tiny.latents(), w,
                               NoiseKey.of(0, [0, 1]), 0.625, CONFIG, 8)[1] for w in (weight, WEIGHT)]
    assert (found[0] < 20).all() and (found[1] > 100).all()


def test_a_shorter_way_takes_fewer_steps_of_the_same_kind():
    whole, rest = euler_sigmas(8, 5.0), euler_sigmas(8, 5.0, start=0.625)
    assert len(whole) == 9 and whole[0] == 1 and whole[-1] == 0
    assert len(rest) == 3 and float(rest[0]) == pytest.approx(0.625) and rest[-1] == 0
    torch.testing.assert_close(rest, whole[-3:])  # .625 is the raw level .25, two steps from the end


def test_options_that_cannot_be_are_named():
    late = DmdStage(generator_from=2, trajectory=TrajectoryConfig(steps=3)).problems("stages.dmd")
    assert late == ["stages.dmd.trajectory.steps=3 must not exceed generator_from=2: distribution matching begins "
                    "after it"]
    assert "teacher_steps" in DmdStage(trajectory=TrajectoryConfig(teacher_steps=0)).problems("stages.dmd")[0]
