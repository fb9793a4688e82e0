"""When somebody speaks: spans of seconds from the detector's probabilities, with hysteresis."""

from __future__ import annotations

import torch

from datamodules.intake.silero import SAMPLE_RATE, STEP, SileroVad

Span = tuple[float, float]
"""Begin and end in seconds."""

ON, OFF = 0.5, 0.35
SHORTEST_S = 0.1
"""Shorter speech is a click."""
JOIN_S = 0.15
"""Shorter gaps lie inside a word."""


def speech_spans(vad: SileroVad, wave: torch.Tensor) -> list[Span]:
    """(S,) at 16 kHz -> spans of speech in order, apart from one another by at least ``JOIN_S``."""
    if not len(wave):
        return []
    step, spans = STEP / SAMPLE_RATE, []
    begin: float | None = None
    probabilities = vad(wave).tolist()
    for i, p in enumerate([*probabilities, 0.0]):
        if begin is None and p >= ON:
            begin = i * step
        elif begin is not None and p < OFF:
            spans.append((begin, min(i * step, len(wave) / SAMPLE_RATE)))
            begin = None
    return [s for s in join(spans, JOIN_S) if s[1] - s[0] >= SHORTEST_S]


def join(spans: list[Span], gap: float) -> list[Span]:
    """Spans in order, those that overlap or are less than ``gap`` apart made one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] < gap:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((start, end))
    return out
