"""One video becomes clips of a face that speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from datamodules.intake.config import IntakeConfig
from datamodules.intake.containers import Pictures, Recording, probe
from datamodules.intake.crop import CropPath, cut, plan_crop
from datamodules.intake.cutting import CutRules
from datamodules.intake.face_detector import Face
from datamodules.intake.face_track import FaceTrack, link, main_track, rivals
from datamodules.intake.hearing import Heard, hear
from datamodules.intake.models import Models
from datamodules.intake.rejection import Rejected, Rejection
from datamodules.intake.sample import Sample, checked_sound, make_sample
from datamodules.intake.sharpness import sharpness
from datamodules.intake.shots import ShotDetector
from datamodules.intake.sources import Source
from streamchar.evaluation.sync import DETAIL_S, sync_score

LOOK_PX = 640
"""Longer side of the pictures in which shots and faces are looked for."""
LOOKS_PER_S = 5
MAX_LAG = 10
"""Frames of lag that are searched, each way."""


@dataclass
class Seen:
    """What a look through a video finds: shots as frame ranges, faces (in full-size pixels) of the looked-at frames,
    and what stopped the look before the end, if anything did."""

    shots: list[tuple[int, int]]
    faces: list[tuple[int, list[Face]]]
    damage: str


def take_video(source: Source, cfg: IntakeConfig, models: Models) -> Iterator[Sample | Rejection]:
    """All clips of a video, one after another, and what of it is not used.

    Raises:
        Rejected: where nothing of it can be used.
    """
    recording = probe(source.path)
    if not recording.has_video:
        raise Rejected("no video", "the file has no pictures")
    heard = hear(source, recording, cfg, models)
    seen = look_through(recording, cfg, models)
    if not seen.shots:
        raise Rejected("unreadable", seen.damage or "no picture can be decoded")
    made = 0
    yield from heard.lost
    if seen.damage:
        yield Rejection(source.name, seen.shots[-1][1] / cfg.fps, None, "unreadable", seen.damage)
    for first, stop in _clips(heard, seen, cfg):
        try:
            sample = _take_clip(source, made, recording, heard, seen, (first, stop), cfg, models)
        except Rejected as no:
            yield Rejection(source.name, first / cfg.fps, stop / cfg.fps, no.reason, no.detail)
            continue
        made += 1
        yield sample


def look_through(recording: Recording, cfg: IntakeConfig, models: Models) -> Seen:
    """Shots of all frames, faces of some."""
    pictures = Pictures(recording, cfg.fps, longest=LOOK_PX)
    shots, faces = ShotDetector(cfg.shot_threshold), []
    every = max(round(cfg.fps / LOOKS_PER_S), 1)
    scale = max(recording.width, recording.height) / min(LOOK_PX, max(recording.width, recording.height))
    for number, frame in enumerate(pictures):
        shots.see(frame)
        if number % every == 0:
            faces.append((number, [Face(scale * f.x0, scale * f.y0, scale * f.x1, scale * f.y1, f.score)
                                   for f in models.detector.find(frame)]))
    return Seen(shots.shots(), faces, pictures.damage)


def _clips(heard: Heard, seen: Seen, cfg: IntakeConfig) -> list[tuple[int, int]]:
    """Clips in frames, inside shots and as far as there is sound."""
    rules = CutRules(cfg.max_s, cfg.edge_s, cfg.pause_s)
    ranges = []
    for first, stop in seen.shots:
        end = min(stop, int(np.ceil(heard.seconds * cfg.fps)))
        for start_s, end_s in heard.clips((first / cfg.fps, end / cfg.fps), rules):
            begin = max(int(start_s * cfg.fps + 1e-6), first)
            last = min(int(np.ceil(end_s * cfg.fps - 1e-6)), end, begin + int(cfg.max_s * cfg.fps))
            ranges.append((begin, last))
    return ranges


def _take_clip(source: Source, number: int, recording: Recording, heard: Heard, seen: Seen, clip: tuple[int, int],
               cfg: IntakeConfig, models: Models) -> Sample:
    """Check, crop and encode one clip.

    Raises:
        Rejected: the first filter that it does not pass, cheap ones first.
    """
    first, stop = clip
    wave, loud = checked_sound(_sound(heard, clip, cfg.fps), cfg)
    measured: dict[str, Any] = {**loud}
    words = heard.words_of((first / cfg.fps, stop / cfg.fps))
    face, looks = one_face(seen, clip, cfg)
    path = plan_crop(face, first, stop, cfg.fps, cfg.crop_scale, recording.width, recording.height)
    frames = _cropped(recording, path, clip, cfg)
    measured |= {"face_px": round(face.side, 1), "face_share": round(len(face.frames) / looks, 3)}
    opening = models.mouth.opening(frames)
    measured |= _checked_face(frames, opening, cfg)
    judged = words[-1].end - words[0].start >= cfg.min_judged_s
    measured |= _checked_sync(opening, wave, cfg) if judged else {"sync": None, "lag": None}
    x, y = (round(float(v), 1) for v in np.median(path.corners, axis=0))
    more: dict[str, Any] = {
        "source": {"file": source.file_name, "start": round(first / cfg.fps, 3), "end": round(stop / cfg.fps, 3)},
        "crop": {"x": x, "y": y, "side": round(path.side, 1), "moves": path.moves}, "measured": measured}
    return make_sample(source, number, heard, words, wave, cfg, frames, more)


def _sound(heard: Heard, clip: tuple[int, int], fps: float) -> Tensor:
    """The clip's samples, exactly as long as its frames (what the sound lacks at its very end is silence)."""
    first, stop = (round(n / fps * heard.rate) for n in clip)
    part = heard.wave[first:stop]
    return pad(part, (0, stop - first - len(part)))


def one_face(seen: Seen, clip: tuple[int, int], cfg: IntakeConfig) -> tuple[FaceTrack, int]:
    """The clip's face, and in how many frames it was looked for.

    Raises:
        Rejected: ``no face``, ``several faces`` or ``small face``.
    """
    looks = [(n, faces) for n, faces in seen.faces if clip[0] <= n < clip[1]]
    tracks = link(looks, cfg.fps)
    main = main_track(tracks)
    share = len(main.frames) / len(looks) if main else 0.0
    if main is None or share < cfg.min_face_share:
        raise Rejected("no face", f"found in {share:.0%} of the frames")
    count = rivals(tracks, main)
    if count > cfg.max_faces:
        raise Rejected("several faces", f"{count} of similar size")
    if main.side < cfg.min_face_px:
        raise Rejected("small face", f"{main.side:.0f} pixels")
    return main, len(looks)


def _cropped(recording: Recording, path: CropPath, clip: tuple[int, int], cfg: IntakeConfig) -> NDArray[np.uint8]:
    """(F, size, size, 3): the clip's frames, cut out while they are decoded."""
    pictures = Pictures(recording, cfg.fps, *clip)
    frames = [cut(frame, corner, path.side, cfg.size) for frame, corner in zip(pictures, path.corners, strict=False)]
    if len(frames) < clip[1] - clip[0]:
        raise Rejected("unreadable", f"{len(frames)} of {clip[1] - clip[0]} frames can be decoded again: "
                                     f"{pictures.damage or 'the file ends early'}")
    return np.stack(frames)


def _checked_face(frames: NDArray[np.uint8], opening: NDArray[np.float64], cfg: IntakeConfig) -> dict[str, float]:
    """What the cropped pictures show.

    Raises:
        Rejected: ``blur`` or ``no face``.
    """
    sharp = float(np.median([sharpness(f) for f in frames[::5]]))
    if sharp < cfg.min_sharpness:
        raise Rejected("blur", f"detail {sharp:.4f}")
    unseen = np.isnan(opening).mean()
    if unseen > 1 - cfg.min_face_share:
        raise Rejected("no face", f"no mouth in {unseen:.0%} of the frames")
    return {"sharpness": round(sharp, 4)}


def _checked_sync(opening: NDArray[np.float64], wave: Tensor, cfg: IntakeConfig) -> dict[str, float]:
    """How well mouth and sound go together.

    Raises:
        Rejected: ``off-screen voice``.
    """
    known = np.flatnonzero(np.isfinite(opening))
    opening = np.interp(np.arange(len(opening)), known, opening[known])
    reach = min(MAX_LAG, len(opening) // 4)
    score = sync_score(opening, wave.numpy(), cfg.fps, cfg.sample_rate, reach, DETAIL_S)
    middle = min(cfg.max_lag, reach)
    near = max(score.curve[reach - middle:reach + middle + 1])
    if not near >= cfg.min_sync:  # nan: a mouth that does not move at all
        raise Rejected("off-screen voice", f"correlation {near:.2f} within {cfg.max_lag} frames, "
                                           f"{score.best:.2f} at lag {score.lag:+.0f}")
    return {"sync": round(near, 3), "lag": score.lag}
