"""When each chunk was ready and where its time went: the numbers by which "real time" is judged.

Terms: *ready*: pictures and sound are decoded and handed to the sink, which has finished the chunk before. *Playback
clock*: playing starts when the first chunk is ready and never pauses; chunk k is due k chunk lengths later, and is a
*deadline miss* when it is ready after that. The latest of all (``worst_late_s``) is the buffer, in seconds, with which
playback would not have stopped. *Real-time factor*: seconds of work per second of playback over all chunks; below 1
keeps up; where chunks overlap, the slowest of generating, decoding and writing counts. Several streams generated as one
batch share their time: the factor is per batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COMPONENTS = ("generate", "decode_video", "decode_audio", "mux")


@dataclass
class ChunkTiming:
    """One chunk: seconds per component, and when it was ready in seconds since the stream was asked for."""

    generate: float
    decode_video: float
    decode_audio: float
    mux: float
    ready: float
    overlapped: bool = False

    @property
    def total(self) -> float:
        """Seconds of work on this chunk; where its parts run beside those of other chunks: of the slowest."""
        decode = self.decode_video + self.decode_audio
        return max(self.generate, decode, self.mux) if self.overlapped else self.generate + decode + self.mux


@dataclass
class TimingRecord:
    """The record of one session.

    chunk_s: playback seconds per chunk, ``first_s`` of the first one where that is shorter. prompt_s: preparing
    picture and voice.
    """

    chunk_s: float
    streams: int = 1
    first_s: float | None = None
    prompt_s: float = 0.0
    chunks: list[ChunkTiming] = field(default_factory=list)

    def add(self, timing: ChunkTiming) -> None:
        self.chunks.append(timing)

    def summary(self) -> dict[str, float]:
        """The figures of the table; empty when no chunk was made."""
        if not self.chunks:
            return {}
        totals = np.array([c.total for c in self.chunks])
        first = self.chunks[0].ready
        shorter = self.chunk_s - (self.chunk_s if self.first_s is None else self.first_s)
        playback = len(totals) * self.chunk_s - shorter
        due = [first + k * self.chunk_s - shorter * (k > 0) for k in range(len(totals))]
        late = np.array([c.ready - d for c, d in zip(self.chunks, due, strict=True)])
        out = {"chunks": len(totals), "streams": self.streams, "playback_s": playback,
               "first_chunk_s": first, "chunk_p50_s": float(np.percentile(totals, 50)),
               "chunk_p95_s": float(np.percentile(totals, 95)),
               "chunk_p99_s": float(np.percentile(totals, 99)), "chunk_budget_s": self.chunk_s,
               "real_time_factor": float(totals.sum() / playback),
               "deadline_misses": int((late > 1e-6).sum()), "worst_late_s": max(float(late.max()), 0.0),
               "prompt_s": self.prompt_s}
        for name in COMPONENTS:
            values = [getattr(c, name) for c in self.chunks]
            out[f"{name}_p50_s"] = float(np.percentile(values, 50))
            out[f"{name}_p95_s"] = float(np.percentile(values, 95))
        return out

    def to_json(self) -> dict[str, Any]:
        """Summary and every chunk's times, as written to ``timing.json``."""
        rows = [{**{n: round(getattr(c, n), 6) for n in COMPONENTS}, "total": round(c.total, 6),
                 "ready": round(c.ready, 6)} for c in self.chunks]
        return {"summary": {k: round(v, 6) for k, v in self.summary().items()}, "chunks": rows}

    def save(self, path: Path, facts: dict[str, Any] | None = None) -> None:
        """Write ``timing.json``; ``facts``: what made the stream (device, threads, steps, ...)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"facts": facts or {}, **self.to_json()}, indent=1) + "\n")

    def table(self) -> Any:
        """A rich table: one row per component with p50, p95 and share, and a caption with the verdict."""
        from rich.table import Table

        s = self.summary()
        if not s:
            return Table(title="Timing: no chunk was finished")
        whole = sum(getattr(c, name) for c in self.chunks for name in COMPONENTS)
        verdict = (f"first chunk after {s['first_chunk_s']:.2f} s | real-time factor {s['real_time_factor']:.3f} | "
                   f"deadline misses {s['deadline_misses']} of {s['chunks']} (worst {s['worst_late_s']:.2f} s late)")
        table = Table(title=f"Timing of {s['chunks']} chunks of {self.chunk_s:.2f} s", caption=verdict,
                      caption_justify="left", min_width=len(verdict))
        for heading in ("per chunk", "p50 s", "p95 s", "share"):
            table.add_column(heading, justify="left" if heading == "per chunk" else "right")
        for name in COMPONENTS:
            part = sum(getattr(c, name) for c in self.chunks)
            table.add_row(name.replace("_", " "), f"{s[name + '_p50_s']:.3f}", f"{s[name + '_p95_s']:.3f}",
                          f"{100 * part / whole:.0f} %" if whole else "-")
        table.add_row("all", f"{s['chunk_p50_s']:.3f}", f"{s['chunk_p95_s']:.3f}", "100 %", end_section=True)
        return table
