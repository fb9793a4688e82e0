"""What a model is made of, as plain data: enough to build it again anywhere; config.json of an export holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.errors import CheckpointError
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.orchestrator.model import Orchestrator
from streamchar.orchestrator.text import SpelledWords, TokenizerUnits
from streamchar.transcript import TextUnits
from streamchar.window import WindowConfig

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Others' folders are read as weights and plain values; code in them is never run."""


@dataclass
class ModelSpec:
    """Sizes of denoiser and orchestrator, the clock, the window, the noise schedule, the side of pictures in pixels."""

    denoiser: DenoiserConfig
    orchestrator: OrchestratorConfig
    clock: ChunkClock
    window: WindowConfig
    diffusion: DiffusionConfig
    size: int
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: if parts are missing or unknown, as in a file of another version.
        """
        try:
            return cls(DenoiserConfig(**values["denoiser"]), OrchestratorConfig(**values["orchestrator"]),
                       ChunkClock(**values["clock"]), WindowConfig(**values["window"]),
                       DiffusionConfig(**values["diffusion"]), int(values["size"]), dict(values.get("extra", {})))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"config.json does not describe a StreamChar model of this version ({error}); "
                                  "export it again with stage=export") from error

    def units(self) -> TextUnits:
        """How words become text units."""
        if self.orchestrator.tokenizer == "spelled":
            return SpelledWords(self.orchestrator.word_width)
        from transformers import AutoTokenizer

        return TokenizerUnits(AutoTokenizer.from_pretrained(self.orchestrator.pretrained, **_LOCAL))

    def build_denoiser(self) -> Denoiser:
        """A denoiser with fresh weights."""
        return Denoiser(self.denoiser, self.clock, self.window)

    def build_orchestrator(self, load_llm: bool = True) -> Orchestrator:
        """An orchestrator in float32. load_llm: with the weights of ``orchestrator.pretrained``, if that is given."""
        llm = None
        if self.orchestrator.pretrained:
            from transformers import AutoConfig, AutoModel

            folder = self.orchestrator.pretrained
            # Whatever they are stored as: updates are too small for bfloat16.
            llm = (AutoModel.from_pretrained(folder, dtype=torch.float32, **_LOCAL) if load_llm
                   else AutoModel.from_config(AutoConfig.from_pretrained(folder, **_LOCAL), dtype=torch.float32))
        return Orchestrator(self.orchestrator, self.clock, self.denoiser.audio_channels, self.denoiser.width, llm,
                            SpelledWords.vocabulary)
