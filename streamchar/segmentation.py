"""Where a word begins and ends, in any script.

Where words are written apart, marks and spaces divide them. **Scripts written without spaces** (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) have one word per character, a letter with the marks that stand on it: so their recognisers
are scored, and it needs no dictionary. Everything that counts in words (times, pointer, word errors) counts these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

_UNSPACED = (
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"  # Han, rarer
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # Hiragana, Katakana
    "\u3100-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff")  # Khmer


def _marks() -> str:
    """All combining marks, and the joiners that stand inside words, for a character class."""
    found = [c for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M"]
    starts = [c for before, c in pairwise([-1, *found]) if c != before + 1]
    ends = [c for c, after in pairwise([*found, -1]) if after != c + 1]
    ranges = "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))
    return "\u200c\u200d\U000e0100-\U000e01ef" + ranges  # the last: variants of Han characters


_MARKS = _marks()
_LETTER = rf"(?:(?![{_UNSPACED}])[^\W_][{_MARKS}]*)"
_WORD = re.compile(rf"(?=[^\W_])[{_UNSPACED}][{_MARKS}]*|{_LETTER}+(?:'{_LETTER}+)*")
_FIRST = re.compile(f"[{_UNSPACED}]")


def normalise_words(text: str) -> list[str]:
    """Words as the recogniser and the speller see them: lower case, apostrophes kept, other marks dropped."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def unspaced(word: str) -> bool:
    """Whether a word is a character of a script without spaces."""
    return _FIRST.match(word) is not None


def written_words(text: str) -> list[tuple[str, list[str]]]:
    """The words as they are written, each with its normalised parts.

    A mark belongs to the word before it (a first one to the word it is written to; alone it is dropped), and
    ``twenty-one`` is one word of two parts; but no word holds a character of a script without spaces beside another
    part.
    """
    rows: list[tuple[str, list[str]]] = []
    for token in unicodedata.normalize("NFC", text).split():
        found = list(_WORD.finditer(token))
        if not found and rows:
            rows[-1] = f"{rows[-1][0]} {token}", rows[-1][1]
        cuts = [b.start() for a, b in pairwise(found) if unspaced(a[0]) or unspaced(b[0])]
        pieces = [token[a:b] for a, b in pairwise([0, *cuts, len(token)])] if found else []
        rows += [(piece, normalise_words(piece)) for piece in pieces]
    return rows


def join_written(words: Iterable[str]) -> str:
    """Written words as one text: with spaces, but none beside a character of a script without them."""
    text, last = "", ""
    for word in words:
        parts: Sequence[str] = normalise_words(word) or [last]
        text += word if not text or unspaced(last) or unspaced(parts[0]) else f" {word}"
        last = parts[-1]
    return text
