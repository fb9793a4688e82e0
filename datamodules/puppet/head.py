"""The still part of the head: skull, ears, hair, nose, cheeks; the face plays on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from datamodules.puppet.canvas import Canvas, Points, curve, glow, shade
from datamodules.puppet.identity import Identity, mix

CENTRE = (0.5, 0.47)
HEIGHT = 0.315
WIDTH = 0.238


@dataclass
class Head:
    """RGB picture and its mask (L), both ``side`` pixels; colours bleed under the mask so that edges stay clean."""

    image: Image.Image
    mask: Image.Image


def outline(who: Identity, grow: float = 1.0, steps: int = 72) -> Points:
    """The head's contour, (steps, 2): an egg with the identity's width and jaw."""
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    x, y = np.sin(angle), -np.cos(angle)
    width = WIDTH * who.face_width * (1 - who.jaw * np.clip(y, 0, 1) ** 1.5 * 1.4)
    fuller = np.sign(x) * np.abs(x) ** 0.92
    return np.stack([CENTRE[0] + fuller * width * grow, CENTRE[1] + y * HEIGHT * grow], axis=1)


def draw_head(who: Identity, side: int) -> Head:
    """Draw hair, ears, face and nose once; eyes, brows and mouth are drawn per frame."""
    canvas, mask = Canvas(side, who.hair if who.style != "bald" else who.skin), Canvas(side, 0, "L")  # type: ignore[arg-type]
    for shape in _back_hair(who):
        canvas.polygon(shape, mix(who.hair, (0, 0, 0), 0.18))
        mask.polygon(shape, 255)
    _ears(canvas, mask, who)
    face = outline(who)
    canvas.polygon(face, who.skin)
    mask.polygon(face, 255)
    _light(canvas, who)
    _nose(canvas, who)
    for shape in _front_hair(who):
        canvas.polygon(shape, who.hair)
        mask.polygon(shape, 255)
    gloss = glow(side, 0.42, 0.20, 0.10, 0.035) * 0.28
    if who.style not in ("bald", "cropped"):
        canvas.image.paste(shade(canvas.image, gloss, (255, 255, 255)))
    return Head(canvas.image, mask.image)


def _ears(canvas: Canvas, mask: Canvas, who: Identity) -> None:
    inner = mix(who.skin, (150, 50, 40), 0.25)
    for sign in (-1, 1):
        x = CENTRE[0] + sign * WIDTH * who.face_width * 1.0
        canvas.ellipse(x, 0.50, 0.034, 0.056, who.skin)
        canvas.ellipse(x + sign * 0.004, 0.50, 0.018, 0.036, inner)
        mask.ellipse(x, 0.50, 0.034, 0.056, 255)
        if who.earrings:
            canvas.ellipse(x + sign * 0.008, 0.566, 0.014, 0.014, (238, 196, 84))
            mask.ellipse(x + sign * 0.008, 0.566, 0.014, 0.014, 255)


def _light(canvas: Canvas, who: Identity) -> None:
    """Light from the upper left, shadow on the right cheek and chin, blush, stubble, freckles."""
    side = canvas.side
    face = Canvas(side, 0, "L")  # type: ignore[arg-type]
    face.polygon(outline(who), 255)
    inside = np.asarray(face.image, dtype=np.float32) / 255
    edge = 1 - glow(side, 0.45, 0.42, 0.31, 0.40)
    image = shade(canvas.image, inside * 0.42 * edge, mix(who.skin, (90, 30, 30), 0.55))
    image = shade(image, inside * 0.25 * glow(side, 0.42, 0.36, 0.13, 0.11), (255, 255, 255))
    blush = glow(side, 0.365, 0.60, 0.055, 0.045) + glow(side, 0.635, 0.60, 0.055, 0.045)
    image = shade(image, inside * 0.36 * blush, mix(who.skin, (232, 70, 80), 0.7))
    if who.beard == "stubble":
        chin = np.clip(glow(side, 0.5, 0.72, 0.30, 0.125) * 1.3 - 0.15, 0, 1)
        image = shade(image, inside * 0.38 * chin, mix(who.hair, (60, 50, 50), 0.4))
    canvas.image.paste(image)
    if who.freckles:
        for dx, dy in ((-0.15, 0.0), (-0.125, 0.022), (-0.10, 0.0), (0.10, 0.0), (0.125, 0.022), (0.15, 0.0)):
            canvas.ellipse(0.5 + dx, 0.575 + dy, 0.0065, 0.0065, mix(who.skin, (140, 70, 40), 0.5))


def _nose(canvas: Canvas, who: Identity) -> None:
    shadow = mix(who.skin, (110, 40, 34), 0.38)
    canvas.line(curve([(0.520, 0.50), (0.532, 0.555), (0.528, 0.578), (0.497, 0.587), (0.474, 0.576)]), 0.011, shadow)
    canvas.ellipse(0.492, 0.552, 0.013, 0.016, mix(who.skin, (255, 255, 255), 0.35))


def _back_hair(who: Identity) -> list[Points]:
    """Hair behind the face, over the shoulders where it is long."""
    if who.style == "bob":
        return [curve([(0.5, 0.105), (0.29, 0.18), (0.21, 0.42), (0.205, 0.66), (0.27, 0.735), (0.36, 0.70),
                       (0.64, 0.70), (0.73, 0.735), (0.795, 0.66), (0.79, 0.42), (0.71, 0.18)], closed=True)]
    if who.style == "long":
        return [curve([(0.5, 0.11), (0.30, 0.18), (0.225, 0.42), (0.20, 0.72), (0.22, 0.93), (0.33, 0.95),
                       (0.375, 0.78), (0.36, 0.6), (0.64, 0.6), (0.625, 0.78), (0.67, 0.95), (0.78, 0.93),
                       (0.80, 0.72), (0.775, 0.42), (0.70, 0.18)], closed=True)]
    if who.style == "ponytail":
        return [curve([(0.66, 0.16), (0.80, 0.20), (0.87, 0.40), (0.83, 0.66), (0.79, 0.70), (0.79, 0.50),
                       (0.73, 0.34)], closed=True)]
    if who.style == "bun":
        angle = np.linspace(0, 2 * np.pi, 40)
        return [np.stack([0.5 + 0.105 * np.sin(angle), 0.105 + 0.085 * np.cos(angle)], axis=1)]
    if who.style == "curly":
        out = []
        for a in np.linspace(-2.25, 2.25, 13):
            cx, cy = 0.5 + 0.245 * np.sin(a), 0.40 - 0.255 * np.cos(a)
            angle = np.linspace(0, 2 * np.pi, 24)
            out.append(np.stack([cx + 0.078 * np.sin(angle), cy + 0.078 * np.cos(angle)], axis=1))
        return out
    return []


def _cap(who: Identity, low: float, grow: float, hairline: list[tuple[float, float]]) -> Points:
    """Hair between the grown skull down to height ``low`` and a hairline from right to left."""
    skull = outline(who, grow)
    left, right = skull[skull[:, 0] < 0.5], skull[skull[:, 0] >= 0.5]
    left, right = left[left[:, 1] < low], right[right[:, 1] < low]
    top = np.vstack([left[np.argsort(-left[:, 1])], right[np.argsort(right[:, 1])]])
    return np.vstack([top, curve(hairline)])


def _front_hair(who: Identity) -> list[Points]:
    """Hair that frames the forehead."""
    lines = {
        "short": (0.47, 1.07, [(0.725, 0.46), (0.70, 0.36), (0.61, 0.285), (0.5, 0.27), (0.39, 0.285), (0.30, 0.36),
                               (0.275, 0.46)]),
        "side": (0.46, 1.09, [(0.725, 0.45), (0.705, 0.35), (0.66, 0.30), (0.52, 0.325), (0.38, 0.24), (0.31, 0.33),
                              (0.275, 0.45)]),
        "bob": (0.56, 1.09, [(0.735, 0.55), (0.70, 0.38), (0.64, 0.345), (0.5, 0.335), (0.36, 0.345), (0.30, 0.38),
                             (0.265, 0.55)]),
        "long": (0.60, 1.08, [(0.735, 0.60), (0.715, 0.44), (0.64, 0.30), (0.5, 0.215), (0.36, 0.30), (0.285, 0.44),
                              (0.265, 0.60)]),
        "ponytail": (0.48, 1.06, [(0.73, 0.47), (0.705, 0.36), (0.62, 0.255), (0.46, 0.285), (0.34, 0.33),
                                  (0.295, 0.39), (0.27, 0.47)]),
        "bun": (0.48, 1.06, [(0.73, 0.47), (0.70, 0.34), (0.60, 0.25), (0.5, 0.235), (0.40, 0.25), (0.30, 0.34),
                             (0.27, 0.47)]),
        "curly": (0.46, 1.08, [(0.725, 0.44), (0.69, 0.34), (0.62, 0.30), (0.56, 0.27), (0.5, 0.30), (0.44, 0.265),
                               (0.38, 0.30), (0.31, 0.34), (0.275, 0.44)]),
        "cropped": (0.44, 1.025, [(0.72, 0.43), (0.69, 0.31), (0.60, 0.255), (0.5, 0.245), (0.40, 0.255), (0.31, 0.31),
                                  (0.28, 0.43)]),
    }
    if who.style == "spiky":
        cap = _cap(who, 0.44, 1.05, [(0.72, 0.43), (0.69, 0.33), (0.60, 0.29), (0.5, 0.275), (0.40, 0.29), (0.31, 0.33),
                                     (0.28, 0.43)])
        angles = np.linspace(-1.35, 1.35, 15)
        reach = np.where(np.arange(15) % 2, 0.40, 0.29)
        return [cap, np.stack([0.5 + reach * 0.78 * np.sin(angles), 0.47 - reach * np.cos(angles)], axis=1)]
    return [_cap(who, *lines[who.style])] if who.style in lines else []
