"""The gate's streams: many at once through the stream path, each from its own picture, voice and text files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil

import torch

from pipelines.evaluating.material import Rendering
from pipelines.evaluating.streams import speak
from pipelines.gate.material import GateClip
from streamchar.evaluation.muted import MutedOrchestrator
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan
from streamchar.streaming.decoding import device_of
from streamchar.streaming.prompt import build_prompt, read_picture, read_voice
from streamchar.types import RolloutBatch

SLACK_CHUNKS = 2


@dataclass
class Condition:
    """One way of asking for all clips: whose picture and whose text each stream gets (clip numbers), and its result.

    mute: ``null`` or ``zero`` where c_a is replaced by the learned null vector or by zeros. takes, seconds: the streams
    in the clips' order and how long they took together.
    """

    name: str
    about: str
    pictures: list[int]
    texts: list[int]
    mute: str = ""
    takes: list[Rendering] = field(default_factory=list)
    seconds: float = 0.0


def conditions_of(clips: list[GateClip]) -> list[Condition]:
    """As learnt, texts swapped, references swapped, and without c_a in two forms."""
    own = list(range(len(clips)))
    return [
        Condition("streams", "own prompt, own text", own, own),
        Condition("texts swapped", "own prompt, another clip's text", own, [c.partners.text for c in clips]),
        Condition("references swapped", "another look's picture, own voice and text", [c.partners.look for c in clips],
                  own),
        Condition("c_a null", "own prompt and text, c_a replaced by the learned null vector", own, own, "null"),
        Condition("c_a zero", "own prompt and text, c_a replaced by zeros", own, own, "zero"),
    ]


def prompts_of(condition: Condition, clips: list[GateClip], character: Character, size: int) -> RolloutBatch:
    """The streams' beginnings, from the prompts' files; voices are always the clips' own."""
    video, audio = character.codecs()
    texts = [clips[j].prompt.text.read_text(encoding="utf-8") for j in condition.texts]
    pictures = [read_picture(clips[j].prompt.picture, (size, size)) for j in condition.pictures]
    voices = [read_voice(c.prompt.voice, audio.sample_rate, character.window.anchor_s) for c in clips]
    return build_prompt(texts, list(pictures), list(voices), video_codec=video, audio_codec=audio,
                        clock=character.clock, window=character.window, size=(size, size), units=character.units)


def speak_together(condition: Condition, clips: list[GateClip], character: Character, plan: SamplePlan, size: int,
                   seed: int, step: Callable[[], None] = lambda: None) -> None:
    """Fill ``condition.takes``; ``step`` is called after each chunk of all streams."""
    began = time.perf_counter()
    batch = prompts_of(condition, clips, character, size).to(device_of(character.denoiser))
    if condition.mute:
        null = character.denoiser.null_condition
        vector = null if condition.mute == "null" else torch.zeros_like(null)
        character = replace(character, orchestrator=MutedOrchestrator(character.orchestrator, vector))
        # away from the null branch leads nowhere now
        plan = replace(plan, guidance_video=1.0, guidance_audio=1.0, text_null=False, guidance_condition=1.0)
    seconds = chunk_limit(clips, character) * float(character.clock.chunk_seconds)
    condition.takes, _, _ = speak(character, batch, plan, seconds, seed, step)
    condition.seconds = time.perf_counter() - began


def chunk_limit(clips: list[GateClip], character: Character) -> int:
    """Chunks after which a stream whose pointer stalls is cut off."""
    return ceil(max(c.seconds for c in clips) / float(character.clock.chunk_seconds)) + SLACK_CHUNKS
