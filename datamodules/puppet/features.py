"""What plays on the face in every frame: eyes, brows and mouth."""

from __future__ import annotations

import numpy as np

from datamodules.puppet.canvas import Canvas, curve
from datamodules.puppet.identity import Identity, mix

EYE_Y, EYE_DX, EYE_RX, EYE_RY = 0.475, 0.098, 0.056, 0.043
MOUTH_Y, MOUTH_HALF, MOUTH_GAP = 0.660, 0.108, 0.128
"""Mouth line, half width and full opening, as shares of the picture's side."""


def draw_eyes(canvas: Canvas, who: Identity, openness: float, gaze: tuple[float, float], brow: float) -> None:
    """Eyes and brows.

    Args:
        canvas: the head's picture.
        who: colours and proportions.
        openness: 1 open, 0 closed.
        gaze: pupil offset in eye radii, about -0.4 to 0.4.
        brow: lift of the brows, -1 to 1.
    """
    for sign in (-1, 1):
        x = 0.5 + sign * EYE_DX * who.eye_gap
        _eye(canvas, who, x, openness, gaze)
        y = EYE_Y - 0.078 - 0.017 * brow
        ends = [(x - sign * 0.058, y + 0.010 - 0.004 * brow), (x, y - 0.008), (x + sign * 0.058, y + 0.012)]
        arc = curve(ends, steps=4)
        canvas.line(arc, 0.0145 * who.brow, mix(who.hair, (40, 24, 20), 0.45))
        if who.glasses:
            canvas.ring(x, EYE_Y + 0.004, 0.078, 0.066, 0.010, (50, 46, 60))
    if who.glasses:
        canvas.line(curve([(0.5 - 0.03, EYE_Y), (0.5, EYE_Y - 0.008), (0.5 + 0.03, EYE_Y)]), 0.010, (50, 46, 60))


def _eye(canvas: Canvas, who: Identity, x: float, openness: float, gaze: tuple[float, float]) -> None:
    rx, ry = EYE_RX * who.eye_size, EYE_RY * who.eye_size
    lid = mix(who.skin, (120, 50, 44), 0.22)
    canvas.ellipse(x, EYE_Y, rx * 1.06, ry * 1.12, lid)
    angle = np.linspace(-np.pi, np.pi, 29)
    lift = ry * max(openness, 0.02)
    low = EYE_Y + ry * (1 - openness) * 0.55

    def inside(points: np.ndarray) -> np.ndarray:
        """Clip to the open part of the eye."""
        room = lift * np.sqrt(np.clip(1 - ((points[:, 0] - x) / rx) ** 2, 0, 1))
        return np.stack([points[:, 0].clip(x - rx, x + rx), points[:, 1].clip(low - room, low + room)], axis=1)

    white = np.stack([x + rx * np.cos(angle), low + lift * np.sin(angle)], axis=1)
    canvas.polygon(white, (252, 252, 250))
    ix, iy = x + gaze[0] * rx, EYE_Y + 0.004 + gaze[1] * ry
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for radius, colour in ((0.034, mix(who.eye, (0, 0, 0), 0.35)), (0.028, who.eye), (0.0165, (22, 18, 22))):
        canvas.polygon(inside(np.array([ix, iy]) + circle * radius * who.eye_size), colour)
    if openness > 0.5:
        canvas.ellipse(ix - 0.010, iy - 0.012, 0.0085, 0.0085, (255, 255, 255))
    bow = np.linspace(-1, 1, 11)
    lash = np.stack([x + bow * rx * 1.04, low - lift * np.sqrt(np.clip(1 - bow**2, 0, 1))
                     + (0.006 if openness < 0.15 else 0.0) * (1 - bow**2)], axis=1)
    canvas.line(lash, 0.0155 if who.kind == "woman" else 0.0115, (48, 32, 32))


def draw_mouth(canvas: Canvas, who: Identity, shape: np.ndarray) -> None:
    """The mouth of one frame; ``shape`` is a row of :func:`visemes.mouth_track`."""
    opening, spread, rounding, teeth, tongue = (float(v) for v in shape)
    half = MOUTH_HALF * who.mouth_width * (1 + 0.20 * spread - 0.40 * rounding - 0.06 * opening)
    gap = MOUTH_GAP * opening
    u = np.linspace(-1, 1, 25)
    arch = (1 - u**2) ** (0.62 + 0.2 * (1 - rounding))
    smile = -0.024 * (1 - rounding) * (1 - 0.4 * opening) * u**2 + 0.004
    x = 0.5 + u * half
    upper = MOUTH_Y + smile - 0.36 * gap * arch
    lower = MOUTH_Y + smile + 0.64 * gap * arch
    full = (1 + 0.35 * rounding) * who.lips
    bow = (0.021 - 0.0065 * np.exp(-((u / 0.18) ** 2))) * full * (1 - u**2) ** 0.75 * (1 - 0.2 * opening)
    pout = 0.027 * full * (1 - u**2) ** 0.7 * (1 - 0.15 * opening)
    if who.beard == "moustache":
        _moustache(canvas, who, x, upper - bow)
    canvas.polygon(_ring_shape(x, upper - bow, lower + pout), who.lip)
    shine = mix(who.lip, (255, 255, 255), 0.32)
    canvas.line(np.stack([x[8:17], (lower + pout * 0.55)[8:17]], axis=1), 0.008, shine)
    if gap < 0.006:
        canvas.line(np.stack([x[1:-1], ((upper + lower) / 2)[1:-1]], axis=1), 0.009, mix(who.lip, (60, 10, 20), 0.65))
        return
    canvas.polygon(_ring_shape(x, upper, lower), (74, 18, 28))
    if tongue > 0.2 or opening > 0.45:
        rise = gap * (0.30 + 0.34 * tongue)
        top = np.maximum(lower - rise * (1 - u**2) ** 0.8, upper)
        canvas.polygon(_ring_shape(x, top, lower), (206, 92, 98))
    if teeth > 0.15:
        edge = np.minimum(upper + min(0.030, 0.55 * gap) * min(teeth * 1.6, 1.0) * (1 - u**4), lower)
        canvas.polygon(_ring_shape(x, upper, edge), (250, 247, 240))


def _ring_shape(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.vstack([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])


def _moustache(canvas: Canvas, who: Identity, x: np.ndarray, lip: np.ndarray) -> None:
    u = np.linspace(-1, 1, len(x))
    width = 0.5 + u * MOUTH_HALF * 1.12
    thick = 0.034 * (1 - np.abs(u) ** 1.6) * (1 - 0.45 * np.exp(-((u / 0.12) ** 2)))
    base = np.minimum(lip, lip[len(lip) // 2] + 0.012) + 0.003
    canvas.polygon(_ring_shape(width, base - thick, base), mix(who.hair, (30, 20, 20), 0.15))
