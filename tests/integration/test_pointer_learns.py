"""A pointer trained on a toy language follows the sound: silence does not move it, slow speech slows it, other sound
moves it with the sound. Each word of the toy language is a latent vector that lasts as long as the word."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamchar.objectives.speech import pointer_loss
from streamchar.transcript import Transcript, pack_text, split_transcript
from streamchar.types import ChunkBatch, Latents
from tests import tiny_models as tiny

WORDS = ["bin", "lay", "place", "set", "red", "blue"]
SOUNDS = torch.randn(len(WORDS), tiny.AUDIO, generator=torch.Generator().manual_seed(9)) * 2


def say(words: list[int], lengths: list[float], pause: int) -> tuple[torch.Tensor, float]:
    """One chunk of sound that starts with ``pause`` quiet latents, and how many words end up said."""
    frames = tiny.CLOCK.audio_latents
    audio, said, at = torch.zeros(frames, tiny.AUDIO), 0.0, float(pause)
    for word, length in zip(words, lengths, strict=True):
        first, last = round(at), min(round(at + length), frames)
        audio[first:last] = SOUNDS[word]
        said += max(0.0, min(1.0, (frames - at) / length))
        at += length
        if at >= frames:
            break
    return audio + 0.05 * torch.randn(frames, tiny.AUDIO), said


def texts(size: int) -> list[list[int]]:
    return [torch.randperm(len(WORDS)).tolist() for _ in range(size)]


def batch(words: list[list[int]], length: tuple[float, float], pause: int | None = None) -> ChunkBatch:
    """Chunks that say ``words`` at a pace drawn from ``length`` (latents per word), after a drawn or given pause."""
    size = len(words)
    c = tiny.conditions(size)
    audio, ends = [], []
    for w in words:
        quiet = max(0, int(torch.randint(-12, 18, ()))) if pause is None else pause
        pace = length[0] + (length[1] - length[0]) * float(torch.rand(()))  # a speaker keeps a pace, nearly
        lengths = (pace * (0.9 + 0.2 * torch.rand(6))).tolist()
        sound, said = say(w, lengths, quiet)
        audio.append(sound)
        ends.append(said)
    todo = [split_transcript(Transcript([WORDS[i] for i in w], tiny.UNITS), 0, 0, 4, 6).todo for w in words]
    c = replace(c, todo=pack_text(todo, tiny.WINDOW.max_todo, tiny.UNITS.width, "left"), cursor=torch.zeros(size),
                history=c.history * 0, spoken=replace(c.spoken, mask=c.spoken.mask & False))
    sound = torch.stack(audio)
    return ChunkBatch(c, Latents(torch.zeros(size, 1), sound), torch.ones(size, sound.shape[1]),
                      torch.zeros(size, dtype=torch.bool), torch.tensor(ends), torch.arange(size), [""] * size)


@pytest.fixture(scope="module")
def pointer():
    """An orchestrator whose pointer was trained for some seconds; returns (batch -> predicted ends)."""
    model = tiny.orchestrator(unit_seconds=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    torch.manual_seed(1)
    for step in range(260):
        items = batch(texts(48), (3.0, 9.0))
        loss, _ = pointer_loss(model, model.prefix(items.conditions), items)
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 260)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    @torch.no_grad()
    def predict(items: ChunkBatch) -> torch.Tensor:
        return model.point(model.prefix(items.conditions), items.target.audio)

    return predict


def test_it_beats_the_constant_guess_by_far(pointer):
    items = batch(texts(128), (3.0, 9.0))
    error = (pointer(items) - items.pointer).abs().mean()
    guess = (items.pointer - items.pointer.median()).abs().mean()
    assert error < 0.4 * guess, f"pointer {error:.2f}, constant guess {guess:.2f} words"


def test_silence_does_not_advance_it(pointer):
    items = batch(texts(64), (5.0, 5.0), pause=0)
    quiet = replace(items, target=Latents(items.target.video, 0.05 * torch.randn_like(items.target.audio)))
    assert pointer(quiet).mean() < 0.2 < pointer(items).mean() / 5


def test_slow_speech_slows_it(pointer):
    words = texts(64)
    fast, slow = batch(words, (3.5, 3.5), pause=0), batch(words, (8.5, 8.5), pause=0)
    ratio = float(pointer(slow).mean() / pointer(fast).mean())
    assert ratio < 0.65, f"slow speech at {ratio:.2f} of fast speech's advance, true {3.5 / 8.5:.2f}"


def test_it_follows_swapped_sound_not_the_text_alone(pointer):
    words = texts(64)
    far, near = batch(words, (4.0, 4.0), pause=0), batch(words, (4.0, 4.0), pause=12)  # mostly silence, then a word
    swapped = pointer(replace(far, target=near.target)), pointer(replace(near, target=far.target))
    assert (swapped[0] - near.pointer).abs().mean() < 0.5 and (swapped[1] - far.pointer).abs().mean() < 0.5
