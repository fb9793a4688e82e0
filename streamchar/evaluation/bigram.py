"""A bigram language model of given sentences in the ARPA format: absolute discounting, backed off to word counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log10

import numpy as np

ROW, ORDERS = 10, 4
"""Sentences that are said in a row, and in how many drawn orders."""
DISCOUNT = 0.5
BEGIN, END = "<s>", "</s>"


def bigram_arpa(sentences: Sequence[Sequence[str]]) -> str:
    """The model's text; deterministic, with sentence marks, any word able to follow any other."""
    pairs: Counter[tuple[str, str]] = Counter()
    words: Counter[str] = Counter()
    for sentence in sentences:
        marked = [BEGIN, *sentence, END]
        words.update(marked[1:])
        pairs.update(zip(marked, marked[1:], strict=False))
    total = sum(words.values())
    chance = {w: n / total for w, n in words.items()}
    starts: Counter[str] = Counter()
    for (first, _), n in pairs.items():
        starts[first] += n
    followers: dict[str, list[str]] = {}
    for first, second in pairs:
        followers.setdefault(first, []).append(second)

    lines = ["\\data\\", f"ngram 1={len(words) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    for word in sorted([*words, BEGIN]):
        own = -99.0 if word == BEGIN else log10(chance[word])
        lines.append(f"{own:.4f} {word} {_backoff(word, followers, starts, chance):.4f}")
    lines += ["", "\\2-grams:"]
    for (first, second), n in sorted(pairs.items()):
        lines.append(f"{log10((n - DISCOUNT) / starts[first]):.4f} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


def in_rows(sentences: Sequence[str]) -> list[str]:
    """The language of a long stream: the sentences one after another, ``ROW`` at a time, in ``ORDERS`` drawn orders.

    Of sentences that stand alone a model learns that nothing follows their last words, and where something does, those
    are the words that a recogniser leaves out. Deterministic.
    """
    drawn = np.random.default_rng(0)
    rows = []
    for _ in range(ORDERS):
        order = [sentences[i] for i in drawn.permutation(len(sentences))]
        rows += [" ".join(order[i:i + ROW]) for i in range(0, len(order), ROW)]
    return rows


def _backoff(word: str, followers: dict[str, list[str]], starts: Counter[str], chance: dict[str, float]) -> float:
    """log10 of the weight that ``word`` gives to the plain word counts of what never followed it."""
    seen = followers.get(word)
    if not seen:
        return 0.0
    left = DISCOUNT * len(seen) / starts[word]
    unseen = 1 - sum(chance[s] for s in seen)
    return log10(left / unseen) if unseen > 1e-6 else -6.0
