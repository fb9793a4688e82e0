"""Where a recording is cut into clips: at long pauses, inside shots, never inside a word, at most ``max_s`` long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.intake.transcripts import Token
from datamodules.intake.voice_activity import Span, join


@dataclass(frozen=True)
class CutRules:
    """Seconds: longest clip, silence kept at both ends, longest pause inside."""

    max_s: float
    edge_s: float
    pause_s: float


def plan_clips(bounds: Span, speech: Sequence[Span], words: Sequence[Token], rules: CutRules) -> list[Span]:
    """Clips inside ``bounds`` (a shot, or the whole of a sound), in order, that never overlap.

    Args:
        speech: when somebody speaks, from the voice activity detector.
        words: all words of the recording; one that crosses a bound is left outside.
    """
    low, high = _without_cut_words(bounds, words)
    inside = [w for w in words if w.start >= low and w.end <= high]
    spoken = [(max(s, low), min(e, high)) for s, e in speech if e > low and s < high]
    # What the detector misses but the text knows is speech too.
    spans = join([*spoken, *((w.start, w.end) for w in inside)], gap=0.02)
    # Where there are words, speech may be cut between any two of them.
    pieces = _at_words(spans, inside)
    groups = [part for group in _groups(pieces, rules.pause_s) for part in _short_enough(group, rules.max_s)]
    return _with_edges([(g[0][0], g[-1][1]) for g in groups], (low, high), rules)


def _without_cut_words(bounds: Span, words: Sequence[Token]) -> Span:
    low, high = bounds
    for word in words:
        if word.start < low < word.end:
            low = word.end
        if word.start < high < word.end:
            high = word.start
    return low, max(high, low)


def _at_words(spans: list[Span], words: Sequence[Token]) -> list[Span]:
    """Spans divided at the middles between words that lie in the same span."""
    out = []
    for start, end in spans:
        mine = [w for w in words if w.start >= start and w.end <= end]
        borders = [start, *((a.end + b.start) / 2 for a, b in zip(mine, mine[1:], strict=False)), end]
        out += list(zip(borders, borders[1:], strict=False))
    return out


def _groups(pieces: list[Span], pause_s: float) -> list[list[Span]]:
    """Pieces of speech with shorter pauses between them."""
    groups: list[list[Span]] = []
    for piece in pieces:
        if groups and piece[0] - groups[-1][-1][1] <= pause_s:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _short_enough(group: list[Span], max_s: float) -> list[list[Span]]:
    """The group, cut at the longest pause in the second half of what fits until every part fits."""
    if group[-1][1] - group[0][0] <= max_s:
        return [group]
    fitting = sum(end - group[0][0] <= max_s for _, end in group)
    if fitting == 0:  # one piece alone is too long: nobody knows a place to cut, so cut at the limit
        start, end = group[0]
        return [[(start, start + max_s)], *_short_enough([(start + max_s, end), *group[1:]], max_s)]
    places = range(max(fitting // 2, 1), fitting + 1)
    at = max(places, key=lambda i: (group[i][0] - group[i - 1][1], i) if i < len(group) else (-1.0, i))
    return [group[:at], *_short_enough(group[at:], max_s)]


def _with_edges(spans: list[Span], bounds: Span, rules: CutRules) -> list[Span]:
    """Silence at both ends: up to ``edge_s``, half of the way to the neighbour, and what ``max_s`` leaves."""
    clips = []
    for i, (start, end) in enumerate(spans):
        before = (start - spans[i - 1][1]) / 2 if i else start - bounds[0]
        after = (spans[i + 1][0] - end) / 2 if i + 1 < len(spans) else bounds[1] - end
        lead, tail = max(min(before, rules.edge_s), 0.0), max(min(after, rules.edge_s), 0.0)
        room = max(rules.max_s - (end - start), 0.0)
        if lead + tail > room:
            lead, tail = room * lead / (lead + tail), room * tail / (lead + tail)
        clips.append((start - lead, end + tail))
    return clips


def words_within(words: Sequence[Token], clip: Span, slack: float = 0.04) -> list[Token]:
    """The words that lie in a clip, with times from its start; ``slack``: what rounding to frames may cut."""
    length = clip[1] - clip[0]
    return [Token(w.text, max(w.start - clip[0], 0.0), min(w.end - clip[0], length)) for w in words
            if w.start >= clip[0] - slack and w.end <= clip[1] + slack]
