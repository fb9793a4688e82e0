"""How a chunk is sampled: which schedule, which guidance, and where the gradient goes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.schedule import euler_sigmas, few_step_sigmas


@dataclass(frozen=True)
class SamplePlan:
    """Sampling of one chunk.

    sigmas: noise levels from 1 down. ``few_step`` True: the student's schedule, each clean estimate re-noised with
    fresh noise to the next level (levels end before 0). False: Euler steps along the levels, which end at 0.
    fresh_noise: False re-noises with the chunk's own first noise, so that the sample is a function of it and can be
    compared with the Euler sample of the same noise. text_null: guidance leads away from c_a without text.
    """

    sigmas: tuple[float, ...]
    few_step: bool
    guidance_video: float = 1.0
    guidance_audio: float = 1.0
    fresh_noise: bool = True
    text_null: bool = False

    @property
    def steps(self) -> int:
        """Denoiser evaluations per branch."""
        return len(self.sigmas) if self.few_step else len(self.sigmas) - 1

    def levels(self, like: Tensor, step: int) -> Tensor:
        """(B,) the noise level of ``step``."""
        return like.new_full((like.shape[0],), self.sigmas[step])


def student_plan(config: DiffusionConfig) -> SamplePlan:
    """The few-step schedule, no guidance."""
    return SamplePlan(tuple(few_step_sigmas(config).tolist()), few_step=True)


def teacher_plan(config: DiffusionConfig, steps: int | None = None, start: float = 1.0) -> SamplePlan:
    """Euler with the training warp and the scoring guidance; ``steps`` defaults to the teacher's. ``start`` < 1: only
    the part of the way that is left from that noise level."""
    levels = euler_sigmas(steps or config.teacher_steps, config.shift, start)
    return SamplePlan(tuple(levels.tolist()), False, config.guidance_video, config.guidance_audio,
                      text_null=config.text_null)
