"""What does not move: the wall behind the puppet, its neck and its clothes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from datamodules.puppet.canvas import Canvas, curve, glow, shade
from datamodules.puppet.identity import Identity, mix


def draw_stage(who: Identity, side: int) -> Image.Image:
    """Background, shoulders and neck as an RGB image of ``side`` pixels."""
    image = _wall(who, side)
    canvas = Canvas(side, image)
    _body(canvas, who)
    light = glow(side, 0.5, 0.80, 0.17, 0.06) * 0.35
    return shade(canvas.image, light, mix(who.skin, (60, 20, 20), 0.6))


def _wall(who: Identity, side: int) -> Image.Image:
    canvas = Canvas(side, who.wall)
    pale, deep = mix(who.wall, (255, 255, 255), 0.35), mix(who.wall, (40, 40, 70), 0.22)
    if who.backdrop == "sun":
        canvas.ellipse(0.5, 0.46, 0.44, 0.44, pale)
    elif who.backdrop == "stripes":
        for x in np.arange(-0.05, 1.0, 0.25):
            canvas.polygon(np.array([(x, 0), (x + 0.125, 0), (x + 0.125, 1), (x, 1)]), pale)
    elif who.backdrop == "hills":
        canvas.polygon(np.vstack([curve([(0, 0.62), (0.2, 0.52), (0.5, 0.66), (0.8, 0.5), (1, 0.6)]),
                                  [(1, 1), (0, 1)]]), deep)
    elif who.backdrop == "window":
        canvas.polygon(np.array([(0.04, 0.06), (0.30, 0.06), (0.30, 0.52), (0.04, 0.52)]), pale)
        canvas.line(np.array([(0.17, 0.06), (0.17, 0.52)]), 0.018, who.wall)
        canvas.line(np.array([(0.04, 0.29), (0.30, 0.29)]), 0.018, who.wall)
    return shade(canvas.image, 0.42 * (1 - glow(side, 0.42, 0.38, 0.85, 0.95)), deep)


def _body(canvas: Canvas, who: Identity) -> None:
    dark, pale = mix(who.shirt, (20, 20, 40), 0.28), mix(who.shirt, (255, 255, 255), 0.55)
    wide = 0.40 if who.kind == "man" else 0.35
    shoulders = np.vstack([curve([(0.5 - wide, 1.02), (0.5 - wide + 0.03, 0.93), (0.40, 0.855), (0.5, 0.85),
                                  (0.60, 0.855), (0.5 + wide - 0.03, 0.93), (0.5 + wide, 1.02)]), [(0.5, 1.05)]])
    canvas.polygon(shoulders, who.shirt)
    if who.clothes == "stripes":
        for y in (0.915, 0.965):
            canvas.line(curve([(0.5 - wide + 0.035 - (y - 0.915) * 0.3, y + 0.018), (0.5, y - 0.02),
                               (0.5 + wide - 0.035 + (y - 0.915) * 0.3, y + 0.018)]), 0.02, pale)
    elif who.clothes == "dots":
        for x, y in ((0.25, 0.96), (0.35, 0.92), (0.45, 0.965), (0.56, 0.965), (0.66, 0.92), (0.75, 0.96)):
            canvas.ellipse(x, y, 0.013, 0.013, pale)
    neck = mix(who.skin, (120, 50, 40), 0.12)
    canvas.polygon(curve([(0.425, 0.70), (0.425, 0.83), (0.395, 0.87), (0.5, 0.915), (0.605, 0.87), (0.575, 0.83),
                          (0.575, 0.70)], closed=True), neck)
    if who.clothes == "collar":
        for sign in (-1, 1):
            canvas.polygon(np.array([(0.5 + sign * 0.105, 0.845), (0.5 + sign * 0.02, 0.915),
                                     (0.5 + sign * 0.11, 0.96), (0.5 + sign * 0.15, 0.88)]), pale)
    elif who.clothes == "vneck":
        canvas.polygon(np.array([(0.41, 0.865), (0.5, 0.985), (0.59, 0.865)]), neck)
        canvas.line(np.array([(0.40, 0.865), (0.5, 0.99), (0.60, 0.865)]), 0.014, dark)
    else:
        canvas.line(curve([(0.395, 0.868), (0.5, 0.918), (0.605, 0.868)]), 0.016, dark)
