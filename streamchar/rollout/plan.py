"""How a chunk is sampled: which schedule, which guidance, and where the gradient goes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.schedule import euler_sigmas, few_step_sigmas
from streamchar.types import Conditions


@dataclass(frozen=True)
class SamplePlan:
    """Sampling of one chunk.

    sigmas: noise levels from 1 down. ``renoise`` True: each clean estimate is noised to the next level with fresh noise
    (levels end before 0). False: Euler steps along the levels, which end at 0.
    fresh_noise: False re-noises with the chunk's own first noise, so that the sample is a function of it and can be
    compared with the Euler sample of the same noise. text_null: guidance leads away from c_a without text.
    guidance_condition: c_a itself is led away from c_a without text before the denoiser sees it; 1 means not [ours].
    sink_latents, motion_latents: at most so many latents of these groups are looked at [ours]; None = all.
    """

    sigmas: tuple[float, ...]
    renoise: bool
    guidance_video: float = 1.0
    guidance_audio: float = 1.0
    fresh_noise: bool = True
    text_null: bool = False
    guidance_condition: float = 1.0
    sink_latents: int | None = None
    motion_latents: int | None = None

    @property
    def needs_untold(self) -> bool:
        """Whether each step also hears the orchestrator without its text."""
        return self.text_null or self.guidance_condition != 1.0

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

    def with_steps(self, steps: int) -> SamplePlan:
        """Fewer of the same noise levels, evenly chosen: the first stays, on an Euler path the end too."""
        if steps >= self.steps:
            return self
        gaps = steps - 1 if self.renoise else steps  # between the levels that stay
        kept = [round(i * (len(self.sigmas) - 1) / max(gaps, 1)) for i in range(gaps + 1)]
        return replace(self, sigmas=tuple(self.sigmas[i] for i in kept))

    def limited(self, conditions: Conditions) -> Conditions:
        """The first ``sink_latents`` of the sink and the last ``motion_latents`` of the motion."""
        sink, motion = conditions.sink, conditions.motion
        if self.sink_latents is not None:
            sink = sink[:, :, :self.sink_latents]
        if self.motion_latents is not None:
            motion = motion[:, :, max(motion.shape[2] - self.motion_latents, 0):]
        return replace(conditions, sink=sink, motion=motion)

    def levels(self, like: Tensor, step: int) -> Tensor:
        """(B,) the noise level of ``step``."""
        return like.new_full((like.shape[0],), self.sigmas[step])


def student_plan(config: DiffusionConfig) -> SamplePlan:
    """The few-step schedule with its sampler; the denoiser is not guided, its ``c_a`` may be."""
    levels, guidance = tuple(few_step_sigmas(config).tolist()), config.few_step_guidance
    if config.few_step_sampler == "euler":
        return SamplePlan((*levels, 0.0), renoise=False, guidance_condition=guidance)
    return SamplePlan(levels, renoise=True, guidance_condition=guidance)


def teacher_plan(config: DiffusionConfig, steps: int | None = None, start: float = 1.0,
                 stop: float = 0.0) -> SamplePlan:
    """Euler with the training warp and the scoring guidance; ``steps`` of the whole way, by default the teacher's.
    ``start``, ``stop``: only the part of the way between these noise levels."""
    levels = euler_sigmas(steps or config.teacher_steps, config.shift, start, stop)
    return SamplePlan(tuple(levels.tolist()), False, config.guidance_video, config.guidance_audio,
                      text_null=config.text_null)
