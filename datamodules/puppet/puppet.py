"""The renderer: an identity and a performance to frames."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from datamodules.puppet.canvas import Canvas, place
from datamodules.puppet.features import MOUTH_GAP, MOUTH_HALF, MOUTH_Y, draw_eyes, draw_mouth
from datamodules.puppet.head import Head, draw_head
from datamodules.puppet.identity import Identity
from datamodules.puppet.performance import Performance
from datamodules.puppet.stage_set import draw_stage

PIVOT = (0.5, 0.82)
"""The head turns about the neck."""
HEAD_BOX = (0.06, 0.0, 0.94, 0.97)
"""The part of the picture that a head, with its hair and in any pose, can cover: the only part that is moved."""


def supersampling(size: int) -> int:
    """How many times larger the drawing is than the picture: 4 for small pictures, 3 for large ones."""
    return 4 if size <= 128 else 3


@lru_cache(maxsize=32)
def _still_parts(who: Identity, side: int) -> tuple[Image.Image, Head]:
    return draw_stage(who, side), draw_head(who, side)


def render(who: Identity, play: Performance, size: int) -> np.ndarray:
    """Draw all frames, (F, size, size, 3) uint8 RGB."""
    factor = supersampling(size)
    stage, head = _still_parts(who, size * factor)
    out = np.empty((len(play.mouth), size, size, 3), np.uint8)
    drawn: tuple[float, ...] | None = None
    for i in range(len(out)):
        eyes = _eye_state(play, i)
        if eyes != drawn:
            face, drawn = Canvas(stage.width, head.image.copy()), eyes
            draw_eyes(face, who, eyes[0], (eyes[1], eyes[2]), eyes[3])
        out[i] = np.asarray(_frame(who, play, i, stage, face.image, head.mask, factor))
    return out


def _eye_state(play: Performance, i: int) -> tuple[float, ...]:
    """Openness, gaze and brows in steps too small to see, so that frames in a row can share their eyes."""
    return (round(float(play.eyes[i]), 2), round(float(play.gaze[i, 0]), 2), round(float(play.gaze[i, 1]), 2),
            round(float(play.brows[i]) * 12) / 12)


def _frame(who: Identity, play: Performance, i: int, stage: Image.Image, face: Image.Image, head_mask: Image.Image,
           factor: int) -> Image.Image:
    side = stage.width
    canvas = Canvas(side, face.copy())
    draw_mouth(canvas, who, play.mouth[i])
    # Nearest neighbour on the large drawing: averaging down smooths it, at a sixth of the time of interpolation.
    left, top, right, low = (round(v * side) for v in HEAD_BOX)
    inverse = head_transform(play.head[i], side, (left, top))
    box = (right - left, low - top)
    moved = canvas.image.transform(box, Image.Transform.AFFINE, inverse, Image.Resampling.NEAREST)
    mask = head_mask.transform(box, Image.Transform.AFFINE, inverse, Image.Resampling.NEAREST)
    whole = stage.copy()
    whole.paste(moved, (left, top), mask)
    return whole.reduce(factor)


def head_transform(pose: np.ndarray, side: int, corner: tuple[int, int] = (0, 0)) -> tuple[float, ...]:
    """Pillow's affine coefficients (output to input) of a pose ``x, y, rotation, scale``.

    ``corner`` is the place in the picture, in pixels, where the output begins.
    """
    x, y, angle, scale = (float(v) for v in pose)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    px, py = place(np.array(PIVOT)) * side
    ox, oy = px + x * side - corner[0], py + y * side - corner[1]
    return (c, s, px - c * ox - s * oy, -s, c, py + s * ox - c * oy)


def mouth_box(play: Performance) -> list[float]:
    """x0, y0, x1, y1 (shares of the picture) of a box that holds the mouth in every frame of a clip."""
    corners = place(np.array([(0.5 + sx * MOUTH_HALF * 1.25, MOUTH_Y + dy)
                        for sx in (-1, 1) for dy in (-0.36 * MOUTH_GAP - 0.04, 0.64 * MOUTH_GAP + 0.045)]))
    moved, pivot = [], place(np.array(PIVOT))
    for x, y, angle, scale in play.head:
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
        moved.append((corners - pivot) @ rotate.T + pivot + (x, y))
    points = np.concatenate(moved)
    return [round(float(v), 4) for v in (*points.min(0), *points.max(0))]
