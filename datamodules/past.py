"""What was said before a chunk: the recent sound, prolonged by the speaker's other utterances, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.latent_clip import LatentClip
from datamodules.partners import Partners
from streamchar.transcript import Word

MAX_UTTERANCES = 6


@dataclass
class Past:
    """``audio`` (T, Ca), newest last; ``words`` said up to and after the chunk's start, in the clip's seconds.

    Words of prolonging utterances stand at negative times; ``begin`` is the second at which ``audio`` begins.
    """

    audio: np.ndarray
    words: list[Word]
    begin: float


def past_of(clip: LatentClip, phase: int, before: int, wanted: int, partners: Partners,
            rng: np.random.Generator) -> Past:
    """The ``wanted`` audio latents before latent ``before`` of a phase.

    Where the phase has fewer, whole utterances of the same speaker are put before it (the last one cut at its
    start); where the speaker has no other utterance, less is returned.
    """
    rate, facts = partners.clock.audio_rate, clip.facts(partners.clock)
    origin = facts.origins[phase]  # second of the phase's first latent
    own = min(before, wanted)
    parts = [clip.audio(phase)[before - own:before]]
    words, missing, edge = facts.words[phase], wanted - own, origin
    begin = origin + (before - own) / rate
    for _ in range(MAX_UTTERANCES if missing else 0):
        earlier = partners.other(clip, "speaker", rng)
        if earlier is None or missing <= 0:
            break
        real = earlier.facts(partners.clock).real_latents
        taken = min(real, missing)
        parts.insert(0, earlier.audio(0)[real - taken:real])
        shift = edge - real / rate
        words = _moved(earlier.record.timed, shift, edge) + words
        begin, edge, missing = edge - taken / rate, shift, missing - taken
    return Past(np.concatenate(parts) if len(parts) > 1 else parts[0], words, begin)


def _moved(words: Sequence[Word], by: float, end: float) -> list[Word]:
    """The words ``by`` seconds later, as far as they begin before ``end``, the last one cut there.

    Made as the tuples they are: a named tuple's own constructor takes twice as long, for dozens of words an item.
    """
    new = tuple.__new__
    return [new(Word, (text, start + by, stop + by if stop + by < end else end)) for text, start, stop in words
            if start + by < end]
