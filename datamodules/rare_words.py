"""What the sound of rare words weighs in the orchestrator's loss.

A word's share of the loss is its share of the sound, most of which is quiet and long, common words. What is short and
rare is learnt last: in sentences of a grammar the letters, in free speech names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.latent_shards import LatentStore
from streamchar.errors import DataError
from streamchar.segmentation import normalise_words
from streamchar.transcript import Word

COUNTED = 2000
"""Clips at most whose words are counted."""
SHORTEST = 0.02
"""Seconds that a word sounds at least, whatever its marks say."""
LARGEST = 8.0
"""Weight at most: in an open vocabulary most words are hardly ever said."""


class RareWords:
    """``(seconds in which the commonest word sounds / those of this one) ** exponent``, at most :data:`LARGEST`.

    Args:
        store: whose words are counted, in clips evenly spread over it; over its first shard where it lies far away.
        exponent: 0: all alike; 1: all words share the loss alike, but for the largest weight, and that every
            chunk counts the same, whatever its words.
    """

    def __init__(self, store: LatentStore, exponent: float) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        for word in _some(store):
            self.seconds[_plain(word.text)] += max(word.end - word.start, SHORTEST)
        most = max(self.seconds.values(), default=0.0)
        self._weights = {word: min((most / own) ** exponent, LARGEST) for word, own in self.seconds.items()}
        self._unmet = max(self._weights.values(), default=1.0)
        self._plain: dict[str, str] = {}

    def weight(self, word: str) -> float:
        """At least 1; one that was not met in counting weighs as the rarest that was."""
        plain = self._plain.get(word)
        if plain is None:
            plain = self._plain[word] = _plain(word)
        return self._weights.get(plain, self._unmet)

    def over(self, words: Sequence[Word], begin: float, rate: float, latents: int) -> NDArray[np.float32]:
        """(latents,) weights of audio latents from second ``begin`` on, ``rate`` a second: each has that of the rarest
        word in it, quiet that of the commonest word, 1."""
        found = np.ones(latents, np.float32)
        for word in words:
            first = max(math.floor((word.start - begin) * rate + 1e-6), 0)
            end = min(math.ceil((word.end - begin) * rate - 1e-6), latents)
            if first < end:
                np.maximum(found[first:end], self.weight(word.text), out=found[first:end])
        return found


def _some(store: LatentStore) -> Iterator[Word]:
    clips = int(store.table.bounds[1]) if store.maps.remote else len(store.clips)
    for number in np.unique(np.linspace(0, clips - 1, min(clips, COUNTED)).astype(int)):
        try:
            yield from store.clips[number].record.timed
        except DataError:  # told and counted where the clip is used
            continue


def _plain(word: str) -> str:
    return " ".join(normalise_words(word))
