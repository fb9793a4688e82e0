"""Size and text units of the orchestrator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OrchestratorConfig:
    """A causal LM of the Qwen2 family between text, history and the denoiser's audio tokens."""

    pretrained: str | None = None
    """Local folder of a Qwen2-family model; None builds a small random one of the size below."""
    tokenizer: str = "spelled"
    """``spelled``: one unit per word, from its characters; ``pretrained``: the tokenizer in ``pretrained``."""
    vocabulary: int = 151936
    """Token vocabulary of the LM where no folder is given (dry run of production sizes)."""
    width: int = 256
    """Hidden width of the LM."""
    layers: int = 4
    """Layers of the LM."""
    heads: int = 4
    """Attention heads of the LM."""
    kv_heads: int = 4
    """Key-value heads of the LM."""
    ffn: int = 768
    """Hidden width of the LM's gated MLP."""
    rope_theta: float = 10000.0
    """Base of the LM's rotary frequencies."""
    positions: str = "time"
    """``time``: position ids in audio latents of real time, text at ``unit_seconds`` a unit; ``index``: 0, 1, 2, ..."""
    unit_seconds: float = 0.25
    """Time that one text unit is laid out over when ``positions=time``."""
    word_width: int = 12
    """Characters kept per word where words are spelled."""
    pointer_dim: int = 64
    """Width of the pointer's queries and keys."""
    pointer_rate: float = 6.0
    """Largest advance of the pointer in units per second (r_max): one overshoot must not skip words for ever."""
    stall_chunks: int = 4
    """Chunks without advance, while text remains, that count as a stall."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.tokenizer not in ("spelled", "pretrained"):
            found.append(f"orchestrator.tokenizer={self.tokenizer!r} must be 'spelled' or 'pretrained'")
        if self.positions not in ("time", "index"):
            found.append(f"orchestrator.positions={self.positions!r} must be 'time' or 'index'")
        if self.width % self.heads or self.heads % self.kv_heads:
            found.append(f"orchestrator: heads={self.heads} must divide width={self.width}, "
                         f"kv_heads={self.kv_heads} must divide heads")
        return found
