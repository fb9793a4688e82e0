"""The fixed validation streams of a stage: what is shown, probed and remembered, always from the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_modules.micro_batches import micro_batches
from streamchar.denoiser.model import Denoiser
from streamchar.evaluation.pointer_map import PointerMap, pointer_maps
from streamchar.evaluation.records import SampleVideo
from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import default_plan, stream_chunks
from streamchar.types import RolloutBatch

SAMPLE_CHUNKS = 3
System = tuple[Denoiser, SamplePlan, Callable[[], AbstractContextManager[None]]]
"""What makes a clip: the model, how it samples, and a context in which it has the weights that are meant."""


class FixedStreams:
    """Streams that begin with the first held-out items.

    Args:
        character: the model of the stage, with its codecs.
        seed: of the streams' noise.
    """

    def __init__(self, character: Character, seed: int) -> None:
        self.character, self.seed = character, seed
        self.batch: RolloutBatch | None = None
        self.memory: StreamMemory | None = None
        self.pointer_maps: list[PointerMap] = []

    def begin(self, batch: RolloutBatch) -> None:
        """Take the held-out prompts; the remembered streams start here unless a checkpoint restores them."""
        self.batch = batch
        self.memory = self.character.start(batch, self.seed)

    @torch.no_grad()
    def go_on(self, chunks: int = 2) -> dict[str, float]:
        """Let the remembered streams speak on from where the last validation left them.

        Returns how far the newest chunk's look is from the sink's (root mean square over channel means, in latent
        units), the streams' age in chunks, and the share that stalls; ``pointer_maps`` shows where the pointer looked.
        """
        if self.memory is None or self.batch is None:
            return {}
        memory, plan = self.memory, default_plan(self.character, 8)
        for b, words in enumerate(self.batch.words):
            if float(memory.lengths[b] - memory.pointer[b]) < self.character.window.max_todo:
                memory.append_text(b, words)
        before, made = memory.copy(), []
        for _ in range(chunks):
            result = generate_chunk(self.character, memory, plan, role="validation")
            made.append(result.latents)
        self.pointer_maps = pointer_maps(self.character.orchestrator, before, made, self.batch.keys)
        look = result.latents.video.mean(dim=(2, 3, 4)) - memory.sink.mean(dim=(2, 3, 4))
        stalled = memory.stalled >= self.character.orchestrator.config.stall_chunks
        return {"stream/sink_distance": float(look.square().mean().sqrt()), "stream/age_chunks": float(memory.chunk),
                "pointer/stalls": float(stalled.float().mean())}

    @torch.no_grad()
    def probe(self, chunks: int) -> Iterator[Any]:
        """Yield after each of ``chunks`` chunks of one stream, decoded as a user would get them."""
        if self.batch is None:
            return
        first = _first(self.batch)
        video_codec, audio_codec = self.character.codecs()
        decoder = audio_codec.decoder()
        memory = self.character.start(first, self.seed)
        for _ in range(chunks):
            result = generate_chunk(self.character, memory, default_plan(self.character))
            video_codec.decode(result.latents.video)
            decoder.push(result.latents.audio[0, :result.audio_owned])
            yield result

    @torch.no_grad()
    def sample_videos(self, systems: dict[str, System]) -> list[SampleVideo]:
        """One clip per prompt: reference and systems side by side, from the same noise, with the last one's sound."""
        if self.batch is None:
            return []
        made = {}
        for name, (denoiser, plan, weights) in systems.items():
            character = replace(self.character, denoiser=denoiser)
            with weights():
                made[name] = list(stream_chunks(character, self.batch, plan, SAMPLE_CHUNKS, self.seed, True))
        clips, (codec, _) = [], self.character.codecs()
        for b, key in enumerate(self.batch.keys):
            panels = {"reference": codec.decode(self.batch.ref[b:b + 1])[0]}
            panels |= {n: torch.cat([codec.decode(r.latents.video[b:b + 1])[0] for r in results])
                       for n, results in made.items()}
            wave = self._sound(list(made.values())[-1], b)
            clips.append(SampleVideo(f"{b:02d}_{key}", panels, wave, self.character.clock.sample_rate,
                                     self.character.clock.fps))
        return clips

    def _sound(self, results: list[Any], b: int) -> Tensor:
        owned = [r.latents.audio[b, :r.audio_owned] for r in results]
        return self.character.codecs()[1].decode(torch.cat(owned))


def _first(batch: RolloutBatch) -> RolloutBatch:
    return micro_batches(batch, len(batch))[0]
