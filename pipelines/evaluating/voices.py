"""Rows of the report on the sound: whose voice it is, and how good it sounds."""

from __future__ import annotations

import numpy as np
import torch
from rich.progress import Progress

from datamodules.conform import fit_wave
from pipelines.evaluating.cheats import source
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from streamchar.clock import ChunkClock
from streamchar.evaluation.recogniser import SAMPLE_RATE
from streamchar.evaluation.report import Report
from streamchar.evaluation.voice_identity import similarity

SILENT = 1e-4
"""Root mean square below which a sound is silence: DNSMOS would praise it."""


def voice_rows(report: Report, subjects: list[Subject], devices: Devices, clock: ChunkClock, bar: Progress) -> None:
    """Cosine of each voice with the speaker's in other recorded clips; no model: with other speakers'."""
    if devices.voice is None:
        return
    network = devices.voice
    task = bar.add_task("voices", total=sum(len(s.renderings) for s in subjects))
    known = [(s, network.embed(wave_of(r.sound, clock))) for s in subjects if (r := source(s)) is not None]
    found: dict[str, list[float]] = {}
    strangers: list[float] = []
    for subject in subjects:
        # another seed's copy of a clip has its text, and is not compared with that clip either
        own = [e for s, e in known if s.speaker == subject.speaker and s.key != subject.key
               and (not s.text or s.text != subject.text)]
        for column, r in subject.renderings.items():
            bar.advance(task)
            if not own or not len(r.sound):
                continue
            mine = network.embed(wave_of(r.sound, clock))
            found.setdefault(column, []).append(float(np.nanmean([similarity(mine, e) for e in own])))
            if column == "real":
                strangers += [similarity(mine, e) for s, e in known if s.speaker != subject.speaker]
    if found:
        report.measure("voice", "similarity to the speaker", found,
                       {"baseline": float(np.nanmean(strangers))} if strangers else {}, better="high",
                       note="cosine of GE2E embeddings with the speaker's other recorded clips",
                       baseline="another speaker")


def quality_rows(report: Report, subjects: list[Subject], devices: Devices, clock: ChunkClock, most: int,
                 bar: Progress) -> None:
    """DNSMOS of up to ``most`` clips per column; silence counts as 1, the worst."""
    if devices.quality is None:
        return
    network = devices.quality
    found: dict[str, list[tuple[float, float]]] = {}
    task = bar.add_task("speech quality", total=None)
    for subject in subjects:
        for column, r in subject.renderings.items():
            taken = found.setdefault(column, [])
            if len(taken) >= most or not len(r.sound):
                continue
            bar.advance(task)
            if float(np.sqrt(np.mean(r.sound**2))) < SILENT:
                taken.append((1.0, 1.0))
                continue
            score = network.score(wave_of(r.sound, clock))
            taken.append((score.overall, score.p808))
    report.measure("voice", "DNSMOS overall", {c: [v for v, _ in s] for c, s in found.items()}, better="high",
                   note=f"P.835, 1 to 5; up to {most} clips")
    report.measure("voice", "DNSMOS P.808", {c: [v for _, v in s] for c, s in found.items()}, better="high")


def wave_of(sound: np.ndarray, clock: ChunkClock) -> torch.Tensor:
    """(S,) at the clock's rate -> (S,) at 16 kHz."""
    return fit_wave(torch.from_numpy(np.ascontiguousarray(sound, np.float32)), clock.sample_rate, SAMPLE_RATE)
