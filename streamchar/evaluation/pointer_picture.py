"""The pointer's heat map: transcript against time, with where it stands and where the sound really is.

Colour is what the head itself computes: the share of its attention that a frame of sound gives to a word. Grey cells
are words that it was not offered. The strip below shows the share that rests where the chunk began (silence), and how
much a frame decides of its chunk's end, relative to the frame that decides most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from streamchar.evaluation.pointer_map import PointerMap

MOST_WORDS = 26
"""Words of one panel; of a longer transcript those around the path are shown."""
ROW, STRIP, WIDE = 0.19, 0.34, 6.2
"""Inches: height of a word's row and of the strip, width of a panel."""
GREY, TRUE, STANDS = "#e6e6e6", "#111111", "#d1495b"


def draw_pointer_maps(maps: list[PointerMap], path: Path, most: int = 4) -> None:
    """Write a picture of the first ``most`` maps that have frames, two beside one another.

    Raises:
        OSError: where it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [m for m in maps if m.columns and m.words][:most]
    if not shown:
        return
    across = min(len(shown), 2)
    rows = -(-len(shown) // across)
    heights = [max(max(_window(m)[1] - _window(m)[0], 6) for m in shown[i * across:(i + 1) * across]) * ROW
               for i in range(rows)]
    figure = Figure(figsize=(WIDE * across, sum(heights) + rows * (STRIP + 0.9) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, across, squeeze=False,
                           height_ratios=[h for height in heights for h in (height, STRIP)])
    for axis in axes.flat:
        axis.set_axis_off()
    heat: Any = None
    for i, found in enumerate(shown):
        above, below = axes[2 * (i // across)][i % across], axes[2 * (i // across) + 1][i % across]
        heat = _panel(above, below, found)
    bar = figure.colorbar(heat, ax=axes.ravel().tolist(), shrink=0.5, pad=0.01, aspect=30)
    bar.set_label("share of a frame's attention", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    lines = axes[0][0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=len(lines[0]), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _panel(above: Any, below: Any, found: PointerMap) -> Any:
    low, high = _window(found)
    edges = found.begin + np.arange(len(found.columns) + 1) / found.rate
    above.set_axis_on()
    above.set_facecolor(GREY)
    heat = above.pcolormesh(edges, np.arange(low, high + 1), np.ma.masked_invalid(found.shares()[low:high]), vmin=0,
                            vmax=1, cmap="Blues", rasterized=True)
    for t, _ in found.path[1:-1]:
        above.axvline(t, color="#888888", linewidth=0.6, linestyle=":")
    if found.true:
        above.plot(*zip(*found.true, strict=True), color=TRUE, linewidth=1.6, label="really said")
    above.plot(*zip(*found.path, strict=True), "o-", color=STANDS, linewidth=1.4, markersize=4.5,
               markeredgecolor="white", clip_on=False, zorder=3, label="pointer, at the chunks' ends")
    above.set_ylim(low, high)
    above.set_yticks(np.arange(low, high) + 0.5, [w[:14] for w in found.words[low:high]], fontsize=7)
    above.tick_params(axis="y", length=0)
    above.tick_params(axis="x", labelbottom=False, length=2)
    above.set_title(found.stream[:48] + ("" if found.true else " (what is really said is not known)"), fontsize=8,
                    loc="left")
    below.set_axis_on()
    weights = found.weights()
    strip = np.stack([found.rest(), weights / max(float(weights.max()), 1e-9)])
    below.pcolormesh(edges, np.arange(3), strip, vmin=0, vmax=1, cmap="Blues", rasterized=True)
    below.set_yticks([0.5, 1.5], ["at rest", "decides"], fontsize=7)
    below.tick_params(axis="y", length=0)
    below.tick_params(axis="x", labelsize=7, length=2)
    below.set_xlabel("seconds", fontsize=7, labelpad=1)
    for axis in (above, below):
        axis.set_xlim(edges[0], edges[-1])
    return heat


def _window(found: PointerMap) -> tuple[int, int]:
    """First and last word (exclusive) that are shown: all, or those around the paths, so that rows stay legible."""
    if len(found.words) <= MOST_WORDS:
        return 0, len(found.words)
    places = [at for _, at in (*found.path, *found.true)]
    low = max(int(min(places)) - 1, 0)
    high = min(max(int(max(places)) + 4, low + 6), len(found.words), low + MOST_WORDS)
    return low, high
