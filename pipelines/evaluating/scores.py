"""From renderings to rows of the report: sync, identity, drift, pointer, Frechet distance; each beside its no-model."""

from __future__ import annotations

import numpy as np

from datamodules.latent_shards import LatentStore
from pipelines.evaluating.material import HeldOut, Rendering, other_looks
from pipelines.evaluating.mouths import Mouth
from pipelines.evaluating.streams import stack
from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import VideoCodec
from streamchar.evaluation.drift import drift_score
from streamchar.evaluation.frechet import chunk_features, frechet_distance
from streamchar.evaluation.identity import calibrate, identity_distance
from streamchar.evaluation.pointer_error import mean_words_per_chunk, pointer_score
from streamchar.evaluation.pointer_track import PointerTrack
from streamchar.evaluation.report import COLUMNS, Report
from streamchar.evaluation.sync import DETAIL_S, SyncScore, mean_score, sync_score
from streamchar.types import Latents


def words_per_chunk(train: LatentStore, clock: ChunkClock) -> float:
    """The training set's mean words per chunk: the pointer that needs no model."""
    records = [c.record for c in train.clips]
    return mean_words_per_chunk([r.timed for r in records], [r.seconds for r in records], float(clock.chunk_seconds))


def columns_of(clips: list[HeldOut]) -> list[str]:
    """Columns for which any clip has a rendering."""
    return [c for c in COLUMNS if any(c in clip.renderings for clip in clips)]


def sync_rows(report: Report, clips: list[HeldOut], mouth: Mouth, clock: ChunkClock, max_lag: int, main: str) -> None:
    """Lag and correlation; no model: the pictures of column ``main`` with the next stream's sound."""
    reach = 4 * max_lag
    scores: dict[str, list[SyncScore]] = {}
    details: dict[str, list[SyncScore]] = {}
    openings: list[tuple[np.ndarray, Rendering]] = []
    for clip in clips:
        for column, r in clip.renderings.items():
            if len(r.frames) < reach:
                continue
            opening = mouth.detector.opening(r.frames)
            if np.isnan(opening).mean() > 0.2:
                continue  # no face in too many frames: no signal
            opening = np.nan_to_num(opening, nan=float(np.nanmean(opening)))
            score = sync_score(opening, r.sound, clock.fps, clock.sample_rate, max_lag)
            scores.setdefault(column, []).append(score)
            details.setdefault(column, []).append(
                sync_score(opening, r.sound, clock.fps, clock.sample_rate, max_lag, DETAIL_S))
            clip_numbers(report, clip.truth.key, column, {"lag": score.lag, "r": score.best})
            if column == main:
                openings.append((opening, r))
    means, fast = _means(scores, openings, clock, max_lag, 0.0), _means(details, openings, clock, max_lag, DETAIL_S)
    other = "generated pictures with another stream's sound"
    report.add("sync", "lag", {c: m.lag for c, m in means.items()}, unit="frames",
               note="mouth after sound; of the mean correlation curve", baseline=other)
    report.add("sync", "correlation", {c: m.best for c, m in means.items()}, better="high", note=mouth.name,
               baseline=other)
    report.add("sync", "correlation at lag 0", {c: m.zero for c, m in means.items()}, better="high")
    report.add("sync", "correlation of fast movements", {c: m.best for c, m in fast.items()}, better="high",
               note=f"faster than {DETAIL_S} s: opening whenever there is sound counts for nothing", baseline=other)
    if mouth.agreement:
        report.add("sync", "detector against true opening", dict(mouth.agreement), better="high",
                   note="correlation on held-out clips")
    report.curves["mouth against sound: correlation by lag (frames)"] = {
        c: [(float(i - max_lag), v) for i, v in enumerate(m.curve)] for c, m in means.items() if m.curve}


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


def identity_rows(report: Report, clips: list[HeldOut], train: LatentStore, video: VideoCodec) -> None:
    """Distance to the reference picture, its scale, and the relative distance (0 the same face, 1 another)."""
    kept = {c: [identity_distance(k.renderings[c].frames, k.reference) for k in clips if c in k.renderings]
            for c in columns_of(clips)}
    means = {c: float(np.mean(v)) for c, v in kept.items()}
    held = {k.truth.look: k.renderings["codec"].frames for k in clips}
    scale = calibrate([*held.values(), *other_looks(train, set(held), video)])
    report.add("identity", "distance to the reference", {**means, "baseline": scale.different},
               note=f"colour layout and histogram, 0 to 1; frames of one clip differ by {scale.same:.3f}",
               baseline="another character")
    report.add("identity", "relative", {c: scale.relative(m) for c, m in means.items()} | {"baseline": 1.0},
               note="0: as near as frames of one clip, 1: another character")


def drift_rows(report: Report, renderings: dict[str, Rendering], clock: ChunkClock, window_s: float) -> None:
    """Drift of the long stream beside that of a recorded clip; a still picture has none."""
    scores = {c: drift_score(r.frames, clock.fps, window_s) for c, r in renderings.items()}
    report.add("drift", "slope per minute", {c: s.slope for c, s in scores.items()} | {"baseline": 0.0},
               note="of the distance to the first window", baseline="a still picture")
    report.add("drift", "last window minus first", {c: s.gain for c, s in scores.items()} | {"baseline": 0.0},
               baseline="a still picture")
    report.curves["drift: distance to the first window over time (s)"] = {
        c: [*s.curve] for c, s in scores.items() if s.curve}


def pointer_rows(report: Report, forced: PointerTrack, free: PointerTrack, rate: float, main: str) -> None:
    """Pointer on real sound beside the constant rate, from the true position and from its own."""
    score = pointer_score(forced.predicted, forced.true, forced.start, forced.total, rate)
    report.add("pointer", "error on real sound, words", {main: score.error, "baseline": score.guess},
               note=f"{score.chunks} held-out chunks, each from the true position; {score.ratio:.2f} of the guess",
               baseline=f"{rate:.2f} words a chunk")
    loose = pointer_score(free.predicted, free.true, free.start, free.total, rate)
    report.add("pointer", "running on by itself, words", {main: loose.error},
               note=f"from its own position, chunk after chunk; mean offset {loose.bias:+.2f}")


def frechet_rows(report: Report, chunks: dict[str, list[Latents]], real: list[Latents]) -> None:
    """Frechet distance to real chunks, over equally many chunks; no model: real chunks against other real chunks."""
    size = min([len(real) // 2, *[len(c) for c in chunks.values()]])
    if size < 4:
        return
    # even against odd: both halves hold all clips
    halves = {"baseline": real[::2][:size], **{c: v[:size] for c, v in chunks.items()}}
    target = chunk_features(*_pair(real[1::2][:size]))
    for i, name in enumerate(("video", "audio")):
        values = {c: frechet_distance(chunk_features(*_pair(v))[i], target[i]) for c, v in halves.items()}
        report.add("latents", f"Frechet distance, {name}", values, note=f"{size} chunks against {size} real ones",
                   baseline="other real chunks")


def _pair(chunks: list[Latents]) -> tuple:
    whole = stack(chunks)
    return whole.video, whole.audio


def clip_numbers(report: Report, key: str, column: str, numbers: dict[str, float]) -> None:
    """Note numbers under a clip's video."""
    for row in report.clips:
        if row.key == key:
            row.numbers.setdefault(column, {}).update(numbers)

