"""What the gate leaves to look at: a few mp4s, and one page of strips with what was asked for and what was heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.evaluating.material import Rendering
from pipelines.gate.judging import Heard
from pipelines.gate.material import GateClip
from pipelines.gate.speaking import Condition
from pipelines.run_directory import write_atomically
from streamchar.clock import ChunkClock
from streamchar.evaluation.strip import INK, PAPER, strip_image
from streamchar.evaluation.verdict import Line, failed
from streamchar.streaming.muxer import write_clip

LABEL = 20


def save_json(folder: Path, lines: list[Line], clips: list[GateClip], conditions: list[Condition], heard: Heard,
              facts: dict[str, Any]) -> None:
    """``gate.json``: the verdict, every line, and for every stream what was given and what was heard."""
    streams = [{"condition": c.name, "clip": clip.key, "picture": clips[c.pictures[i]].prompt.picture.name,
                "voice": clip.prompt.voice.name, "text": clips[c.texts[i]].text, "heard": heard.streams[c.name][i],
                "seconds": round(len(c.takes[i].sound) / facts["sample_rate"], 3), "pointer": c.takes[i].pointers}
               for c in conditions for i, clip in enumerate(clips)]
    floor = [{"clip": c.key, "text": c.text, "recorded": r, "codec": f}
             for c, r, f in zip(clips, heard.recorded, heard.floor, strict=True)]
    body = {"passed": not failed(lines), "facts": facts, "lines": [line.as_dict() for line in lines],
            "conditions": {c.name: {"about": c.about, "seconds": round(c.seconds, 2)} for c in conditions},
            "streams": streams, "floor": floor}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "gate.json", json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def save_pictures(folder: Path, clips: list[GateClip], conditions: list[Condition], heard: Heard, clock: ChunkClock
                  ) -> None:
    """One mp4 per condition for a clip of each of two looks, and ``strip.png`` with all of them."""
    shown = sorted({0, clips[0].partners.look})
    rows = []
    for i in shown:
        clip = clips[i]
        rows.append((f"{clip.key}, recorded: {clip.text}", clip.real))
        for condition in conditions:
            take = condition.takes[i]
            name = condition.name.replace(" ", "_")
            write_clip(folder / f"{clip.key}-{name}.mp4", take.frames, take.sound, clock.fps, clock.sample_rate)
            asked = clips[condition.texts[i]].text
            rows.append((f"{condition.name} | asked: {asked} | heard: {heard.streams[condition.name][i]}", take))
    strip_page(rows, clock.fps).save(folder / "strip.png")


def strip_page(rows: list[tuple[str, Rendering]], fps: float) -> Any:
    """A PIL image with one labelled strip per row."""
    from PIL import Image, ImageDraw

    strips = [strip_image(r.frames, r.sound, fps, height=96) for _, r in rows]
    page = Image.new("RGB", (max(s.width for s in strips), sum(s.height + LABEL for s in strips)), PAPER)
    draw, top = ImageDraw.Draw(page), 0
    for (label, _), strip in zip(rows, strips, strict=True):
        draw.text((6, top + 5), label, fill=INK)
        page.paste(strip, (0, top + LABEL))
        top += strip.height + LABEL
    return page
