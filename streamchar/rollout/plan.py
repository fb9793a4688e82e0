"""How a chunk is sampled: which schedule, which guidance, and where the gradient goes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.schedule import euler_sigmas, few_step_sigmas


@dataclass(frozen=True)
class SamplePlan:
    """Sampling of one chunk.

    sigmas: noise levels from 1 down. ``renoise`` True: each clean estimate is noised to the next level with fresh noise
    (levels end before 0). False: Euler steps along the levels, which end at 0.
    fresh_noise: False re-noises with the chunk's own first noise, so that the sample is a function of it and can be
    compared with the Euler sample of the same noise. text_null: guidance leads away from c_a without text.
    """

    sigmas: tuple[float, ...]
    renoise: bool
    guidance_video: float = 1.0
    guidance_audio: float = 1.0
    fresh_noise: bool = True
    text_null: bool = False

    @property
    def steps(self) -> int:
        """Denoiser evaluations per branch."""
        return len(self.sigmas) if self.renoise else len(self.sigmas) - 1

    def reach(self, step: int) -> float:
        """The noise level to which the velocity of ``step`` must lead: the next one, or 0 where it is re-noised."""
        return 0.0 if self.renoise else self.sigmas[step + 1]

    def until(self, step: int) -> SamplePlan:
        """Only the Euler steps before ``step``, none for 0."""
        return replace(self, sigmas=self.sigmas[:step + 1])

    def levels(self, like: Tensor, step: int) -> Tensor:
        """(B,) the noise level of ``step``."""
        return like.new_full((like.shape[0],), self.sigmas[step])


def student_plan(config: DiffusionConfig) -> SamplePlan:
    """The few-step schedule with its sampler, no guidance."""
    levels = tuple(few_step_sigmas(config).tolist())
    if config.few_step_sampler == "euler":
        return SamplePlan((*levels, 0.0), renoise=False)
    return SamplePlan(levels, renoise=True)


def teacher_plan(config: DiffusionConfig, steps: int | None = None, start: float = 1.0,
                 stop: float = 0.0) -> SamplePlan:
    """Euler with the training warp and the scoring guidance; ``steps`` of the whole way, by default the teacher's.
    ``start``, ``stop``: only the part of the way between these noise levels."""
    levels = euler_sigmas(steps or config.teacher_steps, config.shift, start, stop)
    return SamplePlan(tuple(levels.tolist()), False, config.guidance_video, config.guidance_audio,
                      text_null=config.text_null)
