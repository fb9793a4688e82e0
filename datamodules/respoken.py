"""Further clips of speech alone out of a shard's own: its words in new sentences, at several speeds.

What a small set lacks is not sentences but sounds of each word beside ever other neighbours and voices: without them an
orchestrator learns the clips by heart.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from datamodules.clip import Clip
from datamodules.config import RespokenConfig
from datamodules.latent_format import WORDS_OF
from datamodules.splice import Utterance, at_speed, in_a_row, spliced
from streamchar.segmentation import join_written, normalise_words

TRIES = 20
"""Sentences drawn in the place of one that may not be said."""
TOGETHER = 200
"""Clips in a row, held in memory, among which words are exchanged."""
UNSEEN = "unseen"
"""The look of all new clips: not that of their words' clips, among which references and sinks are sought."""

Spoken = tuple[Clip, Utterance]


def respoken(clips: Iterable[Clip], cfg: RespokenConfig, avoid: Collection[str], shard: str) -> Iterator[Clip]:
    """``cfg.times`` new clips for every one of ``clips`` whose words can be cut apart, each beginning with its first
    word, of one to ``cfg.sentences`` sentences; a function of the arguments alone.

    Args:
        clips: of one shard; their pictures are not looked at.
        avoid: sentences that must not be said, as :func:`spelled` gives them.
        shard: its file's name, which seeds the draws.
    """
    source = iter(clips)
    while group := list(islice(source, TOGETHER)):
        said = [(clip, Utterance(clip.wave.numpy(), clip.words)) for clip in group]
        said = [(clip, utterance) for clip, utterance in said if utterance.can_be_cut(clip.sample_rate)]
        alike: dict[tuple[str, int, int], list[Spoken]] = {}
        for spoken in said:
            alike.setdefault(_kind(spoken[0]), []).append(spoken)
        for spoken in said:
            for number in range(cfg.times):
                rng = np.random.default_rng([zlib.crc32(shard.encode()), zlib.crc32(spoken[0].key.encode()), number])
                speed = float(rng.choice(cfg.speeds))
                others = alike[_kind(spoken[0])]
                more = rng.integers(cfg.sentences)
                begins = [spoken, *(others[rng.integers(len(others))] for _ in range(more))]
                rows = [_sources(begin, others, cfg.switch_p, avoid, rng) for begin in begins]
                if all(rows):
                    yield _clip(rows, number, speed, rng.uniform(0.0, cfg.pause_s, len(rows) - 1).tolist())


def spelled(words: Iterable[str]) -> str:
    """A sentence as it is compared with others."""
    return " ".join(normalise_words(" ".join(words)))


def _kind(clip: Clip) -> tuple[str, int, int]:
    """What clips must share for their words to be exchanged; one whose speaker is not named is alone."""
    return str(clip.meta.get("speaker", f"of {clip.key}")), len(clip.words), clip.sample_rate


def _sources(first: Spoken, others: list[Spoken], switch_p: float, avoid: Collection[str],
             rng: np.random.Generator) -> list[Spoken]:
    """Who says each word; empty where no sentence is found that may be said."""
    for _ in range(TRIES):
        chosen = [first]
        for _ in first[1].words[1:]:
            chosen.append(others[rng.integers(len(others))] if rng.random() < switch_p else chosen[-1])
        if spelled(utterance.words[place].text for place, (_, utterance) in enumerate(chosen)) not in avoid:
            return chosen
    return []


def _clip(rows: list[list[Spoken]], number: int, speed: float, pauses: Sequence[float]) -> Clip:
    first = rows[0][0][0]
    sentences = [spliced([utterance for _, utterance in row], first.sample_rate) for row in rows]
    said = at_speed(in_a_row(sentences, pauses, first.sample_rate), speed)
    # A voice of its own at every speed, 1 too: what was recorded finds its history and prompts in what was recorded.
    meta = {"text": join_written(w.text for w in said.words), "speaker": f"{first.speaker} x {speed:g}", "look": UNSEEN,
            "speed": speed, WORDS_OF: [clip.key for row in rows for clip, _ in row],
            "source": first.meta.get("source", first.shard)}
    return Clip(f"{first.key}+{number}", None, torch.from_numpy(said.wave), first.sample_rate, 0.0, said.words, meta,
                first.shard)
