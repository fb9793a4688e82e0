"""A probe's stream as a picture: a bar for every chunk, and the line under which it keeps up with playback."""

from __future__ import annotations

from collections.abc import Sequence

BAR, GAP, LEFT, TOP, HEIGHT, BELOW = 34, 14, 54, 34, 180, 40
KEEPS_UP, LATE = "#3a7ca5", "#d1495b"


def playback_bars(seconds: Sequence[float], budget: float, title: str = "") -> str:
    """An SVG picture.

    Args:
        seconds: of each chunk of the stream, decoded; the first one is what a user waits for.
        budget: seconds that a chunk lasts when it is played.
        title: a line above it; plain text without markup.

    Raises:
        ValueError: without a chunk.
    """
    if not seconds:
        raise ValueError("playback_bars: no chunk was timed; the probe must make at least one")
    top = 1.15 * max(*seconds, budget)
    width, bottom = LEFT + len(seconds) * (BAR + GAP) + GAP + 70, TOP + HEIGHT
    line = bottom - budget / top * HEIGHT
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + BELOW}" '
             f'viewBox="0 0 {width} {bottom + BELOW}" font-family="sans-serif" font-size="12">',
             f'<rect width="100%" height="100%" fill="white"/><text x="8" y="18">{title}</text>']
    for i, took in enumerate(seconds):
        x, tall = LEFT + GAP + i * (BAR + GAP), took / top * HEIGHT
        parts.append(f'<rect x="{x}" y="{bottom - tall:.1f}" width="{BAR}" height="{tall:.1f}" '
                     f'fill="{LATE if took > budget else KEEPS_UP}"/>'
                     f'<text x="{x + BAR / 2:g}" y="{bottom - tall - 4:.1f}" text-anchor="middle">{took:.3g}</text>'
                     f'<text x="{x + BAR / 2:g}" y="{bottom + 16}" text-anchor="middle">{i}</text>')
    end = width - 70
    parts.append(f'<line x1="{LEFT}" y1="{line:.1f}" x2="{end}" y2="{line:.1f}" stroke="black" stroke-dasharray="5 4"/>'
                 f'<text x="{end + 4}" y="{line + 4:.1f}">{budget:.3g} s</text>'
                 f'<line x1="{LEFT}" y1="{bottom}" x2="{end}" y2="{bottom}" stroke="black"/>'
                 f'<text x="{LEFT}" y="{bottom + 34}">chunk; dashed: what it may take</text>'
                 f'<text x="8" y="{TOP + 12}">seconds</text></svg>')
    return "".join(parts)
