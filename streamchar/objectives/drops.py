"""Options of the condition drops, plain values."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class DropConfig:
    """Probabilities and noise levels that make the model robust against its own outputs and fit for guidance."""

    ref: float = 0.1
    """Probability of dropping the reference."""
    motion: float = 0.1
    """Probability of dropping the motion latents (and the past sound with them)."""
    sink: float = 0.1
    """Probability of dropping the sink."""
    condition: float = 0.1
    """Probability of replacing c_a by the null vector."""
    text: float = 0.0
    """Probability of hiding the text from the orchestrator, which ``diffusion.guidance_null=text`` needs."""
    motion_noise: float = 0.2
    """Noise on motion latents and past sound: sigma ~ U(0, this)."""
    history_noise: float = 0.2
    """Noise on the orchestrator's history: sigma ~ U(0, this)."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        return [f"{where}.{f.name}={getattr(self, f.name)} must be between 0 and 1" for f in fields(self)
                if not 0 <= getattr(self, f.name) <= 1]
