"""A small SVG plot of a few lines, for pages that fetch nothing: axis box, end values, a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Line = Sequence[tuple[float, float]]


def plot(name: str, lines: Mapping[str, Line], titles: Mapping[str, str], colours: Mapping[str, str], *,
         limits: tuple[float, float] | None = None, note: str = "", width: int = 420, height: int = 190) -> str:
    """One plot with its heading; empty where no line has a point. A line of one point is a dot; nan is left out.

    Args:
        name: the heading.
        lines: points (x, y) by line.
        titles: what the key calls each line.
        colours: a CSS colour for each line.
        limits: lowest and highest y of the box, on whose edge lies what is beyond; None: all points, from 0.
        note: a remark behind the key.
    """
    kept = {c: [p for p in line if p[0] == p[0] and p[1] == p[1]] for c, line in lines.items()}
    points = [p for line in kept.values() for p in line]
    if not points:
        return ""
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*points, strict=True))
    y0, y1 = limits or (min(y0, 0.0), max(y1, y0 + 1e-6))
    left, top, right, bottom = 44, 8, width - 8, height - 22

    def place(x: float, y: float) -> tuple[float, float]:
        share = (min(max(y, y0), y1) - y0) / max(y1 - y0, 1e-9)
        return left + (x - x0) / max(x1 - x0, 1e-9) * (right - left), bottom - share * (bottom - top)

    def draw(line: str) -> str:
        at = [place(*p) for p in kept[line]]
        title, colour = f"<title>{escape(titles[line])}</title>", escape(colours[line])
        if len(at) == 1:
            return f'<circle cx="{at[0][0]:.1f}" cy="{at[0][1]:.1f}" r="3.5" style="fill:{colour}">{title}</circle>'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        return f'<polyline fill="none" stroke-width="2" style="stroke:{colour}" points="{path}">{title}</polyline>'

    marks = (f'<line class=axis x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
             f'<line class=axis x1="{left}" y1="{top}" x2="{left}" y2="{bottom}"/>'
             f'<text x="{left - 5}" y="{top + 8}" text-anchor="end">{_tick(y1)}</text>'
             f'<text x="{left - 5}" y="{bottom}" text-anchor="end">{_tick(y0)}</text>'
             f'<text x="{left}" y="{height - 6}">{x0:.3g}</text>'
             f'<text x="{right}" y="{height - 6}" text-anchor="end">{x1:.3g}</text>')
    key = "".join(f'<span><i style="background:{escape(colours[c])}"></i>{escape(titles[c])}</span>' for c in lines)
    said = f" <span>{escape(note)}</span>" if note else ""
    return (f'<div class=curve><h3>{escape(name)}</h3><svg viewBox="0 0 {width} {height}" role="img">{marks}'
            f'{"".join(draw(c) for c in kept if kept[c])}</svg><div class=key>{key}{said}</div></div>')


def _tick(value: float) -> str:
    """Three digits where they fit beside the axis."""
    text = f"{value:.3g}"
    return text if len(text) <= 6 else f"{value:.0e}"
