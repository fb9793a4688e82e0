"""Noise schedule, steps and guidance: plain values, free of torch so that the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DiffusionConfig:
    """Noise schedule, steps and guidance, shared by training and sampling of all stages."""

    shift: float = 5.0
    """Warp of noise levels, k s / (1 + (k - 1) s): 5 in production, 1 to 5 in small presets."""
    logit_normal: bool = False
    """Teacher's t from sigmoid(N(-0.4, 1)), 15 % uniform (small presets), instead of uniform."""
    teacher_steps: int = 50
    """Euler steps of the teacher."""
    few_steps: list[float] = field(default_factory=lambda: [1.0, 0.75, 0.5, 0.25])
    """The student's raw steps, warped by ``few_step_shift``."""
    few_step_shift: float = 5.0
    """Warp of the student's steps."""
    few_step_sampler: str = "renoise"
    """How the student goes from level to level: ``renoise``, each clean estimate noised afresh to the next level
    (design, section 8); ``euler``, straight on along its velocity, so that a step must only know its own stretch of the
    teacher's path. What a small student cannot tell from one level blurs with the first, not with the second.
    """
    few_step_guidance: float = 1.0
    """Guidance that the student's ``c_a`` is given before the denoiser sees it, ``c_a + (w - 1)(c_a - c_a without
    text)``; 1 means none (design, section 8: the student uses no guidance). Its frozen orchestrator does not know what
    the teacher's guidance leads away from; one more condition block says so [ours]. The denoiser still runs
    once a step.
    """
    score_shift: float = 5.0
    """Warp of the noise levels at which teacher and critic score."""
    guidance_null: str = "condition"
    """What guidance leads away from: ``condition``, the learned vector in c_a's place; ``text``, c_a without text."""
    guidance_video: float = 4.0
    """Guidance weight of video; 1 means none."""
    guidance_audio: float = 4.0
    """Guidance weight of audio; 1 means none."""

    @property
    def text_null(self) -> bool:
        """Whether guidance runs the orchestrator once more, without its text."""
        return self.guidance_null == "text" and (self.guidance_video != 1.0 or self.guidance_audio != 1.0)

    @property
    def needs_untold(self) -> bool:
        """Whether teacher or student hear the orchestrator without its text: it must have learnt to be without."""
        return self.text_null or self.few_step_guidance != 1.0

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if not self.few_steps or self.few_steps[0] != 1.0 or sorted(self.few_steps, reverse=True) != self.few_steps:
            found.append(f"diffusion.few_steps={self.few_steps} must start at 1.0 and fall")
        if self.few_step_sampler not in ("renoise", "euler"):
            found.append(f"diffusion.few_step_sampler={self.few_step_sampler!r} must be 'renoise' or 'euler'")
        if self.guidance_null not in ("condition", "text"):
            found.append(f"diffusion.guidance_null={self.guidance_null!r} must be 'condition' or 'text'")
        if self.few_step_guidance < 1.0:
            found.append(f"diffusion.few_step_guidance={self.few_step_guidance:g} must be 1 (none) or more")
        if min(self.shift, self.few_step_shift, self.score_shift) <= 0:
            found.append("diffusion: shifts must be positive")
        return found
