"""Tiny random models and conditions for tests of the science."""

from __future__ import annotations

import torch

from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.evaluation.pointer_map import SpokenClip
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.orchestrator.model import Orchestrator
from streamchar.orchestrator.text import SpelledWords
from streamchar.rollout.character import Character
from streamchar.transcript import Word, pack_text
from streamchar.types import Conditions, Latents, RolloutBatch
from streamchar.window import WindowConfig

CLOCK = ChunkClock(25.0, 17, 25.0, 16000)
WINDOW = WindowConfig(sink_latents=2, motion_latents=3, past_audio_s=0.16, anchor_s=0.4, recent_s=0.8, max_spoken=4,
                      max_todo=6)
CHANNELS, AUDIO, GRID = 4, 6, 4
UNITS = SpelledWords(8)


def denoiser(seed: int = 0, clock: ChunkClock = CLOCK) -> Denoiser:
    """A denoiser whose zero-initialised parts are filled, so that every path matters."""
    torch.manual_seed(seed)
    model = Denoiser(DenoiserConfig(video_channels=CHANNELS, audio_channels=AUDIO, patch=2, width=32, layers=2, heads=2,
                                    ffn=48, audio_ffn=40), clock, WINDOW)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model


def orchestrator(seed: int = 0, clock: ChunkClock = CLOCK, **options: object) -> Orchestrator:
    torch.manual_seed(seed)
    config = OrchestratorConfig(width=32, layers=2, heads=2, ffn=48, word_width=8, pointer_dim=16,
                                **{"kv_heads": 2, **options})  # type: ignore[arg-type]
    model = Orchestrator(config, clock, AUDIO, 32)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model


def conditions(batch: int = 2, clock: ChunkClock = CLOCK, seed: int = 0) -> Conditions:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    def video(frames: int) -> torch.Tensor:
        return normal(batch, CHANNELS, frames, GRID, GRID)

    yes = torch.ones(batch, dtype=torch.bool)
    spoken = pack_text([[UNITS.encode(w)[0] for w in ("bin", "red")[: b + 1]] for b in range(batch)], WINDOW.max_spoken,
                       UNITS.width, "right")
    todo = pack_text([[UNITS.encode(w)[0] for w in ("at", "c", "nine")[: b + 2]] for b in range(batch)],
                     WINDOW.max_todo, UNITS.width, "left")
    history = WINDOW.anchor_latents(clock) + WINDOW.recent_latents(clock)
    return Conditions(video(1), yes, video(WINDOW.motion_latents), yes, video(WINDOW.sink_latents), yes,
                      normal(batch, WINDOW.past_latents(clock), AUDIO), yes, spoken, todo, yes,
                      torch.full((batch,), 0.25),
                      normal(batch, history, AUDIO), torch.ones(batch, history, dtype=torch.bool),
                      torch.tensor([WINDOW.history_time(clock, 1)]).expand(batch, -1),
                      torch.tensor([WINDOW.audio_time(clock, 1)]).expand(batch, -1))


def latents(batch: int = 2, clock: ChunkClock = CLOCK, seed: int = 1) -> Latents:
    g = torch.Generator().manual_seed(seed)
    return Latents(torch.randn(batch, CHANNELS, clock.video_latents, GRID, GRID, generator=g),
                   torch.randn(batch, clock.audio_latents, AUDIO, generator=g))


def character(clock: ChunkClock = CLOCK) -> Character:
    return Character(denoiser(clock=clock), orchestrator(clock=clock), clock, WINDOW, UNITS,
                     DiffusionConfig(teacher_steps=3), 8 * GRID, few_step=True)


def streams(words: list[list[str]], clock: ChunkClock = CLOCK, real_start: bool = False) -> RolloutBatch:
    batch, g = len(words), torch.Generator().manual_seed(3)
    recent, anchor = WINDOW.recent_latents(clock), WINDOW.anchor_latents(clock)

    def video(frames: int) -> torch.Tensor:
        return torch.randn(batch, CHANNELS, frames, GRID, GRID, generator=g)

    return RolloutBatch(
        video(1), torch.randn(batch, anchor, AUDIO, generator=g), torch.ones(batch, anchor, dtype=torch.bool), words,
        torch.full((batch,), real_start), video(WINDOW.motion_latents), video(WINDOW.sink_latents),
        torch.randn(batch, recent, AUDIO, generator=g) * real_start,
        torch.full((batch, recent), real_start), [["so"] if real_start else [] for _ in words], torch.zeros(batch),
        torch.arange(batch), [f"s{i}" for i in range(batch)])


def spoken_clip(chunks: int = 3, clock: ChunkClock = CLOCK) -> SpokenClip:
    """A clip of random sound in which a word ends every 0.3 s."""
    words = ["bin", "red", "at", "c", "nine", "now"]
    sound = torch.randn(clock.audio_start(chunks), AUDIO, generator=torch.Generator().manual_seed(5))
    timed = [Word(w, 0.3 * i, 0.3 * (i + 1)) for i, w in enumerate(words)]
    return SpokenClip(streams([words], clock), sound, timed, clock, WINDOW, UNITS)
