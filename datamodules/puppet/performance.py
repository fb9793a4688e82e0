"""How the puppet moves while it speaks: mouth, blinks, gaze, brows and head sway, per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.puppet.speech import Span
from datamodules.puppet.visemes import mouth_track


@dataclass
class Performance:
    """Tracks over F frames.

    Attributes:
        mouth: (F, 5) mouth shapes (:data:`visemes.CHANNELS`); column 0 is the opening in [0, 1].
        eyes: (F,) openness of the eyes in [0, 1].
        gaze: (F, 2) pupil offset in eye radii.
        brows: (F,) lift in [-1, 1].
        head: (F, 4) x and y shift (shares of the picture), rotation (radians), scale.
    """

    mouth: np.ndarray
    eyes: np.ndarray
    gaze: np.ndarray
    brows: np.ndarray
    head: np.ndarray


def perform(phones: Sequence[Span], frames: int, fps: float, rng: np.random.Generator) -> Performance:
    """Move to a clip's phones; everything but the mouth is drawn from ``rng``."""
    times = (np.arange(frames) + 0.5) / fps
    mouth = mouth_track(phones, frames, fps)
    stress = np.zeros(frames)
    for phone in phones:
        if "ˈ" in phone.name and rng.random() < 0.45:
            stress += rng.uniform(0.4, 1.0) * np.exp(-(((times - (phone.start + phone.end) / 2) / 0.16) ** 2))
    eyes, gaze = _blinks(times, rng), _gaze(times, rng)
    brows = np.clip(stress + 0.15 * _drift(times, rng, 0.5), -1, 1)
    return Performance(mouth, eyes, gaze, brows, _head(times, stress, rng))


def _drift(times: np.ndarray, rng: np.random.Generator, fastest: float) -> np.ndarray:
    """A slow wander in about -1..1: three sines below ``fastest`` Hz."""
    hertz = fastest * np.array([0.31, 0.62, 1.0]) * rng.uniform(0.8, 1.2, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    return (np.array([0.55, 0.3, 0.15])[:, None] * np.sin(2 * np.pi * hertz[:, None] * times + phase[:, None])).sum(0)


def _head(times: np.ndarray, stress: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    nod = 0.006 * np.clip(stress, 0, 1.2)
    return np.stack([0.016 * _drift(times, rng, 0.5), 0.008 * _drift(times, rng, 0.6) + nod,
                     0.050 * _drift(times, rng, 0.4), 1 + 0.012 * _drift(times, rng, 0.3)], axis=1)


def _blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    eyes = np.ones(len(times))
    at = rng.uniform(0.4, 2.5)
    while at < times[-1]:
        eyes = np.minimum(eyes, np.clip(np.abs(times - at) / 0.09 - 0.35, 0, 1))
        at += rng.uniform(1.6, 4.5)
    return eyes


def _gaze(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gaze = np.zeros((len(times), 2))
    at, where = 0.0, np.zeros(2)
    while at < times[-1]:
        gaze[times >= at] = where
        at += rng.uniform(0.7, 2.4)
        where = np.zeros(2) if rng.random() < 0.55 else rng.uniform((-0.3, -0.18), (0.3, 0.18))
    return gaze
