"""A clip at a glance: evenly spaced frames above the sound's waveform, as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAPER, INK, WAVE, FAINT = (250, 250, 248), (60, 60, 66), (46, 110, 160), (222, 222, 218)
GAP, WAVE_HEIGHT, LABEL_HEIGHT = 4, 64, 16


def strip_image(frames: NDArray[np.uint8], sound: NDArray[np.floating], fps: float, count: int = 12,
                height: int = 128) -> Any:
    """PIL image of ``count`` frames of (F, H, W, 3), each over the part of the waveform that sounds with it."""
    from PIL import Image, ImageDraw

    count = max(min(count, len(frames)), 1)
    width = round(height * frames.shape[2] / frames.shape[1])
    page = Image.new("RGB", (count * (width + GAP) + GAP, height + WAVE_HEIGHT + LABEL_HEIGHT + 3 * GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for i in range(count):
        at = int((i + 0.5) * len(frames) / count)
        x = GAP + i * (width + GAP)
        page.paste(Image.fromarray(frames[at]).resize((width, height), Image.Resampling.LANCZOS), (x, GAP))
        draw.text((x + 2, height + WAVE_HEIGHT + 2 * GAP + 2), f"{at / fps:.1f} s", fill=INK)
    _draw_wave(draw, sound, page.width, height + 2 * GAP)
    return page


def still_image(frames: NDArray[np.uint8]) -> Any:
    """PIL image of the middle frame of (F, H, W, 3)."""
    from PIL import Image

    return Image.fromarray(frames[len(frames) // 2])


def _draw_wave(draw: Any, sound: NDArray[np.floating], width: int, top: int) -> None:
    middle, half = top + WAVE_HEIGHT // 2, WAVE_HEIGHT // 2 - 2
    columns = width - 2 * GAP
    draw.line([(GAP, middle), (GAP + columns, middle)], fill=FAINT)
    if not len(sound):
        return
    peak = max(float(np.abs(sound).max()), 1e-3)
    edges = np.linspace(0, len(sound), columns + 1).astype(int)
    for c in range(columns):
        part = sound[edges[c]:max(edges[c + 1], edges[c] + 1)]
        low, high = float(part.min()) / peak, float(part.max()) / peak
        draw.line([(GAP + c, middle - round(high * half)), (GAP + c, middle - round(low * half))], fill=WAVE)


def write_strip(clip: str | Path, out: str | Path, count: int = 12, height: int = 128) -> Path:
    """Read an mp4 and write its strip as PNG.

    Raises:
        InputError: where the clip cannot be read.
    """
    from streamchar.streaming.reading import read_clip

    frames, sound, fps = read_clip(clip, 16000)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    strip_image(frames, sound, fps, count, height).save(out)
    return out
