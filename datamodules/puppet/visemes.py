"""Mouth shapes from phones: a table of visemes and the smooth path between them (coarticulation by dominance).

Every phone pulls the mouth towards its shape with a strength that decays with the distance in time (Cohen and Massaro's
dominance functions); lips that must close (p b m) or touch the teeth (f v) pull hardest, unstressed sounds least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.puppet.speech import Span


@dataclass(frozen=True)
class Viseme:
    """A mouth shape: opening 0..1, spread -1..1 (wide is +), rounding 0..1, teeth 0..1, tongue 0..1, pull > 0."""

    opening: float
    spread: float = 0.0
    rounding: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0
    pull: float = 1.0


REST = Viseme(0.0, 0.12, 0.0, pull=0.8)
_V = Viseme
TABLE: dict[str, Viseme] = {
    **dict.fromkeys("pbm", _V(0.0, 0.0, 0.1, pull=3.2)),
    **dict.fromkeys("fv", _V(0.09, 0.15, 0.0, teeth=1.0, pull=2.8)),
    **dict.fromkeys("θð", _V(0.22, 0.15, 0.0, teeth=0.7, tongue=1.0, pull=1.6)),
    **dict.fromkeys("tdnɾ", _V(0.20, 0.2, 0.0, teeth=0.8, tongue=0.5, pull=1.0)),
    **dict.fromkeys("szʔ", _V(0.12, 0.4, 0.0, teeth=1.0, pull=1.8)),
    **dict.fromkeys("ʃʒ", _V(0.22, -0.2, 0.65, teeth=0.9, pull=2.0)),
    **dict.fromkeys("kɡgŋxh", _V(0.30, 0.1, 0.0, teeth=0.3, pull=0.6)),
    "l": _V(0.32, 0.15, 0.0, teeth=0.4, tongue=1.0, pull=1.2),
    **dict.fromkeys("ɹr", _V(0.24, -0.2, 0.5, teeth=0.3, pull=1.2)),
    "w": _V(0.12, -0.6, 1.0, pull=2.4),
    "j": _V(0.20, 0.6, 0.0, teeth=0.6, pull=1.2),
    **dict.fromkeys("iɪ", _V(0.34, 0.95, 0.0, teeth=0.7, pull=1.6)),
    **dict.fromkeys("eɛ", _V(0.62, 0.65, 0.0, teeth=0.5, pull=1.6)),
    "æ": _V(0.85, 0.6, 0.0, teeth=0.5, pull=1.6),
    **dict.fromkeys("aɑ", _V(1.0, 0.15, 0.0, teeth=0.4, pull=1.8)),
    **dict.fromkeys("ʌɐ", _V(0.68, 0.1, 0.0, teeth=0.4, pull=1.3)),
    **dict.fromkeys("əɜ", _V(0.42, 0.05, 0.1, teeth=0.3, pull=0.9)),
    **dict.fromkeys("ɔɒ", _V(0.78, -0.35, 0.65, pull=1.7)),
    "o": _V(0.58, -0.5, 0.85, pull=1.8),
    **dict.fromkeys("uʊ", _V(0.30, -0.75, 1.0, pull=2.0)),
}
"""By first IPA letter of each part of a phone; lengths and marks are ignored."""

REACH_S = 0.055
CHANNELS = ("opening", "spread", "rounding", "teeth", "tongue")


def phone_shapes(name: str) -> list[Viseme]:
    """The shapes a phone passes through: one for a plain sound, two for a diphthong or an affricate."""
    shapes = [TABLE[c] for c in name if c in TABLE]
    stressed = "ˈ" in name
    if not stressed:
        shapes = [_V(s.opening * 0.85, s.spread, s.rounding, s.teeth, s.tongue, s.pull * 0.9) for s in shapes]
    return shapes[:3]


def mouth_track(phones: Sequence[Span], frames: int, fps: float, oversample: int = 4) -> np.ndarray:
    """Mouth shape of every frame.

    Args:
        phones: with times in seconds, in order.
        frames: how many.
        fps: frames per second.
        oversample: points in time per frame that are averaged.

    Returns:
        (frames, 5): opening in [0, 1], spread, rounding, teeth, tongue (see :data:`CHANNELS`), each the mean over the
        time that the frame is shown; a lip closure within that time shuts the frame's mouth.
    """
    times = (np.arange(frames * oversample) + 0.5) / (fps * oversample)
    targets, begins, ends, pulls = _targets(phones, frames / fps)
    middle, half = (begins + ends) / 2, (ends - begins) / 2
    outside = np.maximum(np.abs(times[:, None] - middle) - half * 0.5, 0.0)
    weight = pulls * np.exp(-outside / REACH_S)
    # Only the phone that sounds (and its close neighbours) decides: squaring sharpens without corners.
    weight = weight**2 + 1e-9
    track = weight @ targets / weight.sum(1, keepdims=True)
    per_frame = track.reshape(frames, oversample, -1)
    out = per_frame.mean(1)
    closed = per_frame[..., 0].min(1)
    shut = closed < 0.06
    out[shut, 0] = np.minimum(out[shut, 0], closed[shut] + 0.25 * (out[shut, 0] - closed[shut]))
    out[:, 0] = np.clip(out[:, 0], 0.0, 1.0)
    return out


def _targets(phones: Sequence[Span], seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shapes in time, silence filled with rest: (P, 5) values, (P,) begins, ends and pulls."""
    rows: list[tuple[Viseme, float, float]] = []
    last = 0.0
    for phone in phones:
        if phone.start - last > 0.06:
            rows.append((REST, last, phone.start))
        shapes = phone_shapes(phone.name)
        step = (phone.end - phone.start) / max(len(shapes), 1)
        rows += [(s, phone.start + i * step, phone.start + (i + 1) * step) for i, s in enumerate(shapes)]
        last = phone.end
    if seconds > last or not rows:
        rows.append((REST, last, max(seconds, last + 0.01)))
    values = np.array([[getattr(s, c) for c in CHANNELS] for s, _, _ in rows])
    return values, np.array([b for _, b, _ in rows]), np.array([e for _, _, e in rows]), \
        np.array([s.pull for s, _, _ in rows])
