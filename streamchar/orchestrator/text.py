"""Text units: words spelled from characters (small presets) or the LLM's own tokens (production)."""

from __future__ import annotations

from typing import Any

from streamchar.segmentation import unspaced

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789'"
UNKNOWN = len(ALPHABET) + 1


class SpelledWords:
    """One unit per word, ``width`` character ids each: 0 padding, 1.. the alphabet, then one id for all else.

    The vocabulary stays open: any word can be spelled. Longer words keep their first ``width`` characters.
    """

    vocabulary = UNKNOWN + 1

    def __init__(self, width: int = 12) -> None:
        self.width = width

    def encode(self, word: str) -> list[list[int]]:
        ids = [ALPHABET.index(c) + 1 if c in ALPHABET else UNKNOWN for c in word.lower()][: self.width]
        ids = ids or [UNKNOWN]
        return [ids + [0] * (self.width - len(ids))]


class TokenizerUnits:
    """Units are the tokens of a Hugging Face tokenizer; ids are shifted by one so that 0 stays padding.

    A word has a space before it, as in running text, where its script writes one.
    """

    width = 1

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = len(tokenizer) + 1

    def encode(self, word: str) -> list[list[int]]:
        ids = self.tokenizer.encode(word if unspaced(word) else " " + word, add_special_tokens=False)
        return [[i + 1] for i in ids] or [[1]]
