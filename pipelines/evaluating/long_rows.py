"""Rows of the report of the long protocol: words, sync, drift and constancy over stream time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from pipelines.evaluating.lips import over_clips
from pipelines.evaluating.long_figures import Gauge, SpokenStream, StreamFigures, score_against, slope_of_times
from streamchar.evaluation.report import TITLES, Report
from streamchar.evaluation.stream_words import words_passed
from streamchar.evaluation.sync import mean_score

SETTLED = 8
"""Chunks after which memory has reached its size."""


@dataclass
class Findings:
    """Per column a value per stream: figures of generated streams; words of these and of joined clips; word errors of
    noise in the place of the first generated column."""

    figures: dict[str, list[StreamFigures]] = field(default_factory=dict)
    spoken: dict[str, list[SpokenStream]] = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)


def _row(report: Report, group: str, name: str, values: Mapping[str, Sequence[float]],
         beside: Mapping[str, float] | None = None, note: str = "", lost: str = "could be measured",
         **more: str) -> None:
    """A row of means over streams that says how many streams are in them, where some have no value."""
    kept = {column: sum(map(isfinite, found)) for column, found in values.items()}
    some = [f"{TITLES[c]}: {kept[c]} of {len(found)} streams" for c, found in values.items() if kept[c] < len(found)]
    remark = "; ".join(part for part in (note, ", ".join(some) + f" {lost}" if some else "") if part)
    report.measure(group, name, values, beside, note=remark, **more)


def long_word_rows(report: Report, found: Findings, main: str, seconds: float, gauge: Gauge) -> None:
    """Word errors over stream time, beside clips, shuffled transcripts and noise; the pointer against the sound."""
    if not found.spoken:
        return

    def row(name: str, value: Callable[[SpokenStream], float], beside: Mapping[str, float] | None = None, *,
            unit: str = "%", note: str = "", baseline: str = "") -> None:
        _row(report, "words", name, {c: [value(s) for s in spoken] for c, spoken in found.spoken.items()}, beside,
             unit=unit, note=note, baseline=baseline)

    last = gauge.windows - 1
    row("word errors", lambda s: 100 * s.words.wer, _shuffled(found.spoken[main], gauge), note=_dead(found.spoken),
        baseline="another stream's transcript")
    row("first window", lambda s: 100 * s.words.window(0))
    row("last window", lambda s: 100 * s.words.window(last))
    row("last less first", lambda s: 100 * (s.words.window(last) - s.words.window(0)),
        note="at most 5 points are asked for")
    row("windows without a word", lambda s: 100 * s.words.stalled,
        note="the pointer stood still; each counts as 100 % of word errors")
    row("wrong in the first third of a chunk", lambda s: 100 * s.words.thirds[0],
        note="of the words due there; of joined clips: of their pieces of a chunk's length")
    row("wrong in the last third of a chunk", lambda s: 100 * s.words.thirds[2])
    row("never heard", lambda s: 100 * s.words.missed, note="words that the pointer passed and nobody heard")
    row("repeated words", lambda s: 100 * s.repeats.repeated, note="per word that was due")
    row("inserted words", lambda s: 100 * s.repeats.inserted)
    row("words due", lambda s: float(s.words.words), unit="", note="per stream")
    if found.noise:
        report.add("words", "word errors of noise", {"baseline": float(np.mean(found.noise))}, unit="%",
                   baseline=f"white noise as loud as the streams of the column {TITLES[main]}, in their place")
    _row(report, "pointer", "against alignment of its own sound, words",
         {c: [f.pointer[0] for f in figures] for c, figures in found.figures.items()}, _guess(found.figures[main]),
         note="read beside the word errors: alignment places words in babble too", lost="could be aligned",
         baseline="constant rate from the true position")
    report.curves["word errors, %, over stream time (s)"] = {
        c: [((k + 0.5) * seconds / gauge.windows, float(np.mean([100 * s.words.window(k) for s in spoken])))
            for k in range(gauge.windows)] for c, spoken in found.spoken.items()}


def long_picture_rows(report: Report, found: dict[str, list[StreamFigures]]) -> None:
    """Lip sync, drift and constancy of the generated streams."""

    def row(group: str, name: str, value: Callable[[StreamFigures], float], unit: str = "", better: str = "low",
            note: str = "") -> None:
        _row(report, group, name, {c: [value(f) for f in figures] for c, figures in found.items()}, unit=unit,
             better=better, note=note)

    for name, window in (("first", 0), ("last", -1)):
        _sync_rows(report, found, name, window)
    row("sync", "sound longer than picture, frames", lambda f: f.surplus_frames, note="at the stream's end")
    row("drift", "slope per minute", lambda f: f.drift.slope, note="distance to the first window")
    row("drift", "last window from first", lambda f: f.drift.last)
    row("drift", "last window from the reference", lambda f: f.identity)
    row("constancy", "time per chunk, late over early", lambda f: slope_of_times(f.chunk_s))
    row("constancy", "stream memory, late over early", lambda f: f.memory[1] / max(f.memory[0], 1),
        note=f"bytes of the stream's own state (StreamMemory) alone, at the end over after {SETTLED + 1} chunks; not "
             "the process's memory")
    report.curves["distance to the first window over time (s)"] = {
        c: _mean_curve([f.drift.curve for f in figures if f.drift.curve]) for c, figures in found.items()}
    report.curves["seconds of work per chunk"] = {
        c: [(float(k), s) for k, s in enumerate(figures[0].chunk_s)] for c, figures in found.items()}


def _sync_rows(report: Report, found: dict[str, list[StreamFigures]], name: str, window: int) -> None:
    """Lag and correlation in one window, of the streams' mean curve: a single stream's curve is flat and its best lag
    chance where it speaks without a pause."""
    scores = {column: [f.sync[window] for f in figures if f.sync] for column, figures in found.items()}
    means = {column: mean_score(of_column) for column, of_column in scores.items()}
    for figure, what, unit, better in (("lag", "lag", "frames", "low"), ("correlation", "best", "", "high")):
        report.add("sync", f"{figure}, {name} window", {c: getattr(m, what) for c, m in means.items()},
                   over_clips(scores, what), unit=unit, better=better, note="of the streams' mean correlation curve")


def _mean_curve(curves: list[tuple[tuple[float, float], ...]]) -> list[tuple[float, float]]:
    """Point by point, at the first curve's times; empty without curves."""
    return [(points[0][0], float(np.mean([y for _, y in points]))) for points in zip(*curves, strict=False)]


def _shuffled(streams: list[SpokenStream], gauge: Gauge) -> dict[str, float]:
    """Mean word errors of streams against the next one's transcript; nothing where all texts are equal."""
    pairs = [(mine, streams[(i + 1) % len(streams)].transcript) for i, mine in enumerate(streams)]
    errors = [score_against(other, mine.heard, mine.pointers, gauge).wer for mine, other in pairs
              if other[:mine.words.words] != mine.transcript[:mine.words.words]]
    return {"baseline": 100 * float(np.mean(errors))} if errors else {}


def _dead(spoken: dict[str, list[SpokenStream]]) -> str:
    """How word errors are to be read, and how many streams of which column passed no word."""
    dead = {c: sum(not words_passed(s.pointers) for s in streams) for c, streams in spoken.items()}
    told = [f"{TITLES[c]}: {n} of {len(spoken[c])} streams" for c, n in dead.items() if n]
    return "of the words that the pointer has passed" + (
        f"; it passed none in {', '.join(told)}: all missed that the constant rate made due" if told else "")


def _guess(figures: list[StreamFigures]) -> dict[str, float]:
    """The constant rate's error on the model's own streams; nothing where none could be aligned."""
    guesses = [f.pointer[1] for f in figures if isfinite(f.pointer[1])]
    return {"baseline": float(np.mean(guesses))} if guesses else {}
