"""Rows of the report on lip sync: mouth opening against sound; no model: the pictures with another stream's sound."""

from __future__ import annotations

import numpy as np

from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.mouths import Mouth
from streamchar.clock import ChunkClock
from streamchar.evaluation.bootstrap import interval
from streamchar.evaluation.report import Report
from streamchar.evaluation.sync import DETAIL_S, SyncScore, curve_score, mean_score, sync_score


def sync_rows(report: Report, subjects: list[Subject], mouth: Mouth, clock: ChunkClock, max_lag: int,
              main: str) -> None:
    """Lag and correlation per column; no model: the pictures of column ``main`` with the next stream's sound."""
    reach = 4 * max_lag
    scores: dict[str, list[SyncScore]] = {}
    details: dict[str, list[SyncScore]] = {}
    lost: dict[str, list[float]] = {}
    openings: list[tuple[np.ndarray, Rendering]] = []
    for subject in subjects:
        for column, r in subject.renderings.items():
            if len(r.frames) < reach:
                continue
            opening = mouth.detector.opening(r.frames)
            lost.setdefault(column, []).append(100 * float(np.isnan(opening).mean()))
            if np.isnan(opening).mean() > 0.2:
                continue  # no face in too many frames: no signal
            opening = np.nan_to_num(opening, nan=float(np.nanmean(opening)))
            score = sync_score(opening, r.sound, clock.fps, clock.sample_rate, max_lag)
            scores.setdefault(column, []).append(score)
            details.setdefault(column, []).append(
                sync_score(opening, r.sound, clock.fps, clock.sample_rate, max_lag, DETAIL_S))
            report.note(subject.key, column, {"lag": score.lag, "r": score.best})
            if column == main:
                openings.append((opening, r))
    means, fast = _means(scores, openings, clock, max_lag, 0.0), _means(details, openings, clock, max_lag, DETAIL_S)
    other = "its pictures with another's sound"
    report.add("sync", "lag", {c: m.lag for c, m in means.items()}, over_clips(scores, "lag"), unit="frames",
               note="mouth after sound; of the mean correlation curve", baseline=other)
    report.measure("sync", "correlation at lag 0", {c: [v.zero for v in s] for c, s in scores.items()},
                   {"baseline": means["baseline"].zero} if "baseline" in means else {}, better="high", note=mouth.name)
    report.add("sync", "correlation", {c: m.best for c, m in means.items()}, over_clips(scores, "best"), better="high",
               note="the mean curve's, at its lag")
    report.add("sync", "correlation of fast movements", {c: m.best for c, m in fast.items()},
               over_clips(details, "best"), better="high",
               note=f"faster than {DETAIL_S} s: opening whenever there is sound counts for nothing")
    if any(v > 0 for values in lost.values() for v in values):
        report.measure("sync", "frames without a face", lost, unit="%",
                       note="clips with more than 20 % are left out above: read this row first")
    if mouth.agreement:
        report.add("sync", "detector against true opening", dict(mouth.agreement), better="high",
                   note="correlation on held-out clips")
    report.curves["mouth against sound: correlation by lag (frames)"] = {
        c: [(float(i - max_lag), v) for i, v in enumerate(m.curve)] for c, m in means.items() if m.curve}


def over_clips(scores: dict[str, list[SyncScore]], what: str) -> dict[str, tuple[float, float]]:
    """Interval of a figure of the mean curve, ``lag`` or ``best``, when clips or streams are drawn anew."""
    curves = {c: np.array([s.curve for s in found if np.isfinite(s.curve).all()]) for c, found in scores.items()}
    return {c: interval(rows, lambda drawn: float(getattr(curve_score(drawn.mean(0)), what)))
            for c, rows in curves.items() if len(rows) > 1}


def _means(scores: dict[str, list[SyncScore]], openings: list[tuple[np.ndarray, Rendering]], clock: ChunkClock,
           max_lag: int, detail_s: float) -> dict[str, SyncScore]:
    """Scores of the columns' mean curves; ``baseline``: each stream's pictures with the next one's sound."""
    out = []
    for i, (opening, _) in enumerate(openings):
        sound = openings[(i + 1) % len(openings)][1].sound
        frames = min(len(opening), int(len(sound) / clock.sample_rate * clock.fps))
        if len(openings) > 1 and frames >= 4 * max_lag:
            out.append(sync_score(opening[:frames], sound, clock.fps, clock.sample_rate, max_lag, detail_s))
    return {c: mean_score(s) for c, s in scores.items()} | ({"baseline": mean_score(out)} if out else {})
