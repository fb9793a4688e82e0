"""Antialiased drawing in picture coordinates: supersampled Pillow polygons and soft light.

The drawing's coordinates run from 0 to 1, y down; :func:`place` frames them (a little closer than the whole drawing).
Shapes are drawn on an image several times larger than the final one and averaged down at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = np.ndarray  # (N, 2)

ZOOM, FOCUS = 1.10, (0.5, 0.60)
"""The picture shows the drawing enlarged about a point that stays where it is."""


def place(points: Points) -> Points:
    """(..., 2) drawing coordinates to shares of the picture."""
    return (points - FOCUS) * ZOOM + FOCUS


class Canvas:
    """An image of ``side`` pixels addressed in drawing coordinates."""

    def __init__(self, side: int, fill: Colour | Image.Image = (0, 0, 0), mode: str = "RGB") -> None:
        self.side = side
        self.image = fill if isinstance(fill, Image.Image) else Image.new(mode, (side, side), fill)
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour | int) -> None:
        """Fill a closed shape, (N, 2) points in 0..1."""
        self.draw.polygon((place(points) * self.side).ravel().tolist(), fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour | int) -> None:
        """Fill an ellipse by centre and radii."""
        s, z = self.side, self.side * ZOOM
        cx, cy = ((x - FOCUS[0]) * ZOOM + FOCUS[0]) * s, ((y - FOCUS[1]) * ZOOM + FOCUS[1]) * s
        self.draw.ellipse((cx - rx * z, cy - ry * z, cx + rx * z, cy + ry * z), fill=colour)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float, colour: Colour | int) -> None:
        """Outline of an ellipse."""
        (cx, cy), z = place(np.array([x, y])) * self.side, self.side * ZOOM
        self.draw.ellipse((cx - rx * z, cy - ry * z, cx + rx * z, cy + ry * z), outline=colour,
                          width=max(1, round(width * z)))

    def line(self, points: Points, width: float, colour: Colour | int) -> None:
        """A round line through (N, 2) points; ``width`` as the coordinates."""
        pixels = max(1, round(width * ZOOM * self.side))
        self.draw.line((place(points) * self.side).ravel().tolist(), fill=colour, width=pixels)
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, width / 2, width / 2, colour)


def curve(points: Sequence[tuple[float, float]] | Points, closed: bool = False, steps: int = 8) -> Points:
    """A smooth Catmull-Rom curve through control points, (N, 2) -> (N * steps, 2)."""
    p = np.asarray(points, dtype=float)
    around = np.vstack([p[-1], p, p[0], p[1]]) if closed else np.vstack([p[0], p, p[-1]])
    t = (np.arange(steps) / steps)[:, None]
    parts = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    out = np.vstack(parts)
    return out if closed else np.vstack([out, p[-1]])


def glow(side: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """(side, side) soft spot in 0..1 around a point: a Gaussian with the given radii."""
    axis = (np.arange(side) + 0.5) / side
    cx, cy = place(np.array([x, y]))
    return np.exp(-(((axis[:, None] - cy) / (ry * ZOOM)) ** 2)) * np.exp(-(((axis[None] - cx) / (rx * ZOOM)) ** 2))


def shade(image: Image.Image, amount: np.ndarray, colour: Colour) -> Image.Image:
    """Blend ``colour`` over an image by a (side, side) map in 0..1."""
    pixels = np.asarray(image, dtype=np.float32)
    blend = np.clip(amount, 0, 1).astype(np.float32)[..., None]
    return Image.fromarray((pixels + (np.asarray(colour, np.float32) - pixels) * blend + 0.5).clip(0, 255)
                           .astype(np.uint8))
