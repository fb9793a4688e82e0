"""Further clips of speech alone out of a shard's own: its words in new sentences, at several speeds.

What a small set lacks is not sentences but sounds of each word beside ever other neighbours and voices: without them an
orchestrator learns the clips by heart.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import torch

from datamodules.clip import Clip
from datamodules.config import RespokenConfig
from datamodules.splice import Utterance, at_speed, spliced
from streamchar.segmentation import normalise_words

TRIES = 20
"""Sentences drawn in the place of one that may not be said."""
UNSEEN = "unseen"
"""The look of all new clips: not that of their words' clips, among which references and sinks are sought."""


def respoken(clips: Iterable[Clip], cfg: RespokenConfig, avoid: Collection[str], shard: str) -> Iterator[Clip]:
    """``cfg.times`` new clips for every one of ``clips`` that says something; a function of the arguments alone.

    Args:
        clips: of one shard; their sound is held in memory, their pictures are not looked at.
        avoid: sentences that must not be said, their words joined by single spaces.
        shard: its file's name, which seeds the draws.
    """
    said = [(clip, Utterance(clip.wave.numpy(), clip.words)) for clip in clips if clip.words]
    alike: dict[tuple[str, int, int], list[Utterance]] = {}
    for clip, utterance in said:
        alike.setdefault(_kind(clip), []).append(utterance)
    for clip, _ in said:
        for number in range(cfg.times):
            rng = np.random.default_rng([zlib.crc32(shard.encode()), zlib.crc32(clip.key.encode()), number])
            new = _sentence(alike[_kind(clip)], cfg.switch_p, avoid, clip.sample_rate, rng)
            speed = float(rng.choice(cfg.speeds))
            if new is not None:
                yield _clip(clip, number, at_speed(new, speed, clip.sample_rate), speed)


def _kind(clip: Clip) -> tuple[str, int, int]:
    """What clips must share for their words to be exchanged."""
    return clip.speaker, len(clip.words), clip.sample_rate


def _sentence(sources: list[Utterance], switch_p: float, avoid: Collection[str], rate: int,
              rng: np.random.Generator) -> Utterance | None:
    """None where none is found that may be said."""
    for _ in range(TRIES):
        chosen = [sources[rng.integers(len(sources))]]
        for _ in chosen[0].words[1:]:
            chosen.append(sources[rng.integers(len(sources))] if rng.random() < switch_p else chosen[-1])
        if spelled(source.words[place].text for place, source in enumerate(chosen)) not in avoid:
            return spliced(chosen, rate)
    return None


def spelled(words: Iterable[str]) -> str:
    """A sentence as it is compared with others."""
    return " ".join(normalise_words(" ".join(words)))


def _clip(clip: Clip, number: int, said: Utterance, speed: float) -> Clip:
    voice = clip.speaker if speed == 1 else f"{clip.speaker} x {speed:g}"
    meta = {"text": " ".join(w.text for w in said.words), "speaker": voice, "look": UNSEEN, "speed": speed,
            "source": f"words of {clip.shard}"}
    return Clip(f"{clip.key}-again-{number}", None, torch.from_numpy(said.wave), clip.sample_rate, 0.0, said.words,
                meta, clip.shard)
