"""The page of ``stage=inspect``: every item a card with its film, its pictures and one time axis."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from pipelines.inspecting.views import OUTSIDE, ItemView
from streamchar.evaluation.page import document

WIDTH, WAVE, TEXT = 1040, 96, 56
MARGIN, LABEL = 8, 70
OWN = """
.item{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:0 0 18px}
.item h2{margin:0 0 2px;font-size:16px}.item .facts{margin:0 0 12px}
.row{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start;margin:0 0 12px}
.row figure{max-width:none}.row video,.row img{width:auto;height:150px;border-radius:6px;background:#000;
display:block}.none{height:150px;width:110px;border:1px dashed var(--line);border-radius:6px;display:grid;
place-items:center;color:var(--soft);font-size:13px}audio{width:230px;height:34px}
.axisbox{overflow-x:auto}.axisbox svg{min-width:760px}
.wave{fill:var(--real)}.now{fill:var(--accent);opacity:.12}.spoken{fill:var(--codec)}.todo{fill:var(--accent)}
.outside{fill:var(--line)}svg text.w{fill:var(--ink);font-size:11.5px}svg text.o{fill:var(--soft)}
line.cursor{stroke:var(--codec);stroke-width:2}line.target{stroke:var(--no_sink);stroke-width:2}
svg text.target{fill:var(--no_sink)}svg text.cursor{fill:var(--codec)}
.item p.text{margin:0 0 12px}.is-spoken{color:var(--codec)}.is-todo{color:var(--accent);font-weight:600}
.is-target{color:var(--no_sink)}
.legend{color:var(--soft);font-size:13.5px;margin:10px 0 22px}.legend b{font-weight:600}
"""
LEGEND = ("Every picture and sound is decoded from the latents that training reads. <b>Film</b>: motion (the end of "
          "the previous chunk), then the chunk to be denoised, with its sound. <b>Axis</b>: recent history and the "
          "chunk (shaded), 0 = the chunk's start; below it the words where they are said: <b class=is-spoken>spoken"
          "</b> and <b class=is-todo>still to say</b> as the orchestrator reads them, grey ones lie outside of its "
          "window; <b class=is-spoken>cursor</b>: the pointer that the item is given, with its jitter; "
          "<b class=is-target>target</b>: where the pointer must stand at the chunk's end.")


def page(title: str, facts: Mapping[str, str], items: list[tuple[ItemView, dict[str, str]]]) -> str:
    """The HTML; each item comes with the relative paths of its files (film, anchor, ref, sink)."""
    told = "".join(f"<span>{escape(k)} <b>{escape(v)}</b></span>" for k, v in facts.items())
    cards = "".join(_card(view, files) for view, files in items)
    return document(title, f"<h1>{escape(title)}</h1><div class=facts>{told}</div>"
                           f"<p class=legend>{LEGEND}</p>{cards}", OWN)


def _card(view: ItemView, files: dict[str, str]) -> str:
    facts = "".join(f"<span>{escape(k)} <b>{escape(v)}</b></span>" for k, v in view.facts.items())
    film = "motion and chunk" if view.motion_frames else "the chunk" if len(view.frames) else "sound alone"
    figures = [_figure(_media(files, "film"), film), _figure(_picture(files, "ref"), "reference"),
               _figure(_picture(files, "motion"), "motion, first to last"),
               _figure(_picture(files, "sink"), "sink, first to last"),
               _figure(_media(files, "anchor"), "voice anchor")]
    return (f"<section class=item><h2>{escape(view.key)} <small class=soft>position {view.position}, "
            f"{escape(view.role)}</small></h2><div class=facts>{facts}</div><p class=text>{_text(view)}</p>"
            f"<div class=row>{''.join(figures)}</div>"
            f"<div class=axisbox>{_axis(view)}</div></section>")


def _text(view: ItemView) -> str:
    """What the orchestrator reads, the words that lie outside of its window left out."""
    spans = [f"<span class=is-{w.part}>{escape(w.text)}</span>" for w in view.words if w.part != OUTSIDE]
    return " ".join(spans) or "<span class=soft>no text</span>"


def _figure(shown: str, caption: str) -> str:
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def _media(files: dict[str, str], name: str) -> str:
    path = files.get(name, "")
    if not path:
        return "<div class=none>none</div>"
    kind = "video" if path.endswith(".mp4") else "audio"
    return f'<{kind} controls preload="metadata" src="{escape(quote(path))}"></{kind}>'


def _picture(files: dict[str, str], name: str) -> str:
    return f'<img alt="{name}" src="{escape(quote(files[name]))}">' if files.get(name) else "<div class=none>none</div>"


def _axis(view: ItemView) -> str:
    """History and chunk on one time axis: sound, words, cursor and target."""
    first, last = -view.history_s, view.chunk_s
    scale = (WIDTH - 2 * MARGIN) / (last - first)

    def x(seconds: float) -> float:
        return MARGIN + (min(max(seconds, first), last) - first) * scale

    middle, base = WAVE / 2, WAVE + 4
    parts = [f'<rect class=now x="{x(0):.1f}" y="0" width="{x(last) - x(0):.1f}" height="{base + TEXT}"/>',
             f'<path class=wave d="{_wave(view.history, x(first), x(last), middle)}"/>']
    for word in view.words:
        if word.end <= first or word.start >= last:
            continue
        left, width = x(word.start), max(x(word.end) - x(word.start) - 1, 1)
        parts.append(f'<rect class="{word.part}" x="{left:.1f}" y="{base}" width="{width:.1f}" height="5" rx="2"/>'
                     f'<text class="{"o" if word.part == OUTSIDE else "w"}" x="{left:.1f}" y="{base + 18}">'
                     f"{escape(word.text)}</text>")
    for kind, unit, row in (("cursor", view.cursor, 20), ("target", view.pointer, 8)):  # they may stand close together
        at = x(seconds_of(view, unit))
        anchor = "end" if at > WIDTH - LABEL or (kind == "cursor" and at > MARGIN + LABEL) else "start"
        parts.append(f'<line class={kind} x1="{at:.1f}" y1="0" x2="{at:.1f}" y2="{base + TEXT - 4}"/>'
                     f'<text class={kind} x="{at + (-3 if anchor == "end" else 3):.1f}" y="{base + TEXT - row}" '
                     f'text-anchor="{anchor}">{kind} {unit:.2f}</text>')
    ticks = np.arange(np.ceil(first * 2) / 2, last + 1e-6, 0.5)
    parts += [f'<text x="{x(t):.1f}" y="{base + TEXT + 10}" text-anchor="middle">{t + 0:g}</text>' for t in ticks]
    return f'<svg viewBox="0 0 {WIDTH} {base + TEXT + 14}" role="img">{"".join(parts)}</svg>'


def seconds_of(view: ItemView, unit: float) -> float:
    """When a position of the transcript is reached, in seconds from the chunk's start; past the text: the axis' end."""
    for word in view.words:
        first, end = word.units
        if unit < end:
            return word.start + max(unit - first, 0.0) / (end - first) * (word.end - word.start)
    return view.words[-1].end if view.words and unit <= view.words[-1].units[1] else view.chunk_s


def _wave(sound: NDArray[np.float32], left: float, right: float, middle: float) -> str:
    """Extremes per pixel as one closed outline."""
    columns = max(int(right - left), 1)
    if len(sound) < columns:
        return ""
    cut = sound[:len(sound) // columns * columns].reshape(columns, -1)
    loudest = max(float(np.abs(sound).max()), 1e-6)
    top = [f"{left + i:.0f} {middle - v / loudest * middle:.1f}" for i, v in enumerate(cut.max(1))]
    bottom = [f"{left + i:.0f} {middle - v / loudest * middle + .5:.1f}" for i, v in enumerate(cut.min(1))]
    return f"M{'L'.join(top)}L{'L'.join(reversed(bottom))}Z"
