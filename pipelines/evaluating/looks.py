"""Rows of the report on the picture: whose face it is, colour, sharpness, liveliness, drift."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Rendering, Subject
from streamchar.clock import ChunkClock
from streamchar.evaluation.bootstrap import interval
from streamchar.evaluation.drift import drift_score, slope_per_minute
from streamchar.evaluation.face_identity import face_distance
from streamchar.evaluation.identity import calibrate, identity_distance
from streamchar.evaluation.motion import dynamic_share, motion_energy
from streamchar.evaluation.picture_quality import colour_shift, sharpness_ratio
from streamchar.evaluation.report import Report

FACES_EVERY = 5
"""Every so many frames the face is embedded."""
LEAST_WINDOWS = 10
"""Windows after the first below which a stream's slope has no interval."""
Frames = NDArray[np.uint8]


def identity_rows(report: Report, subjects: list[Subject], others: list[Frames]) -> None:
    """Distance to the reference picture, its scale, and the relative distance (0 the same face, 1 another).

    ``others``: frames of further characters, to be told apart.
    """
    kept = against_reference(subjects, identity_distance)
    looks = {s.look: s.renderings["codec"].frames for s in subjects if "codec" in s.renderings}
    scale = calibrate([*looks.values(), *others])
    other = np.isfinite(scale.different)
    report.measure("identity", "distance to the reference", kept, {"baseline": scale.different} if other else {},
                   note="colour layout and histogram, 0 to 1"
                        + (f"; frames of one clip differ by {scale.same:.3f}" if np.isfinite(scale.same) else ""),
                   baseline="another character")
    if not other:
        return  # one character only: there is no other to be far from
    report.measure("identity", "relative", {c: [scale.relative(v) for v in d] for c, d in kept.items()},
                   {"baseline": 1.0}, note="0: as near as frames of one clip, 1: another character")


def face_rows(report: Report, subjects: list[Subject], devices: Devices) -> None:
    """dlib's distance of the face to the reference's; real faces only."""
    if devices.face is None:
        return
    network, lost = devices.face, dict[str, list[float]]()

    def measure(frames: Frames, reference: Frames) -> float:
        found = face_distance(network.embed(frames[::FACES_EVERY]), network.embed(reference[None])[0])
        missed.append(100 * float(np.isnan(found).mean()))
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")

    distances: dict[str, list[float]] = {}
    for subject in subjects:
        for column, r in subject.renderings.items():
            if subject.reference is None or not len(r.frames):
                continue
            missed: list[float] = []
            distances.setdefault(column, []).append(measure(r.frames, subject.reference))
            lost.setdefault(column, []).append(missed[0])
    report.measure("identity", "distance of the face", distances,
                   note="dlib embedding; below .6 the same person; the reference is another clip's, where there is one")
    report.measure("identity", "frames without a face", lost, unit="%")


def picture_rows(report: Report, subjects: list[Subject]) -> None:
    """Colour and sharpness beside the reference, motion beside the real clips."""
    report.measure("picture", "colour shift", against_reference(subjects, colour_shift),
                   note="CIE Lab distance of mean colours to the reference; about 2 is seen")
    report.measure("picture", "sharpness", against_reference(subjects, sharpness_ratio), better="high",
                   note="against the reference; 1: as sharp")
    energy: dict[str, list[float]] = {}
    for subject in subjects:
        for column, r in subject.renderings.items():
            energy.setdefault(column, []).append(motion_energy(r.frames).whole)
    report.measure("picture", "motion", energy, better="high", note="grey levels per frame")
    real = [v for v in energy.get("real") or energy.get("codec") or [] if np.isfinite(v)]
    if not real:
        return
    goal = float(np.mean(real))
    report.measure("picture", "dynamic", {c: [dynamic_share(v, goal) for v in e] for c, e in energy.items()},
                   better="high", note="motion as a share of the real clips', at most 1; 0: frozen")


def against_reference(subjects: list[Subject], measure: Callable[[Frames, Frames], float]) -> dict[str, list[float]]:
    """Column -> a value per clip that has a reference."""
    out: dict[str, list[float]] = {}
    for subject in subjects:
        for column, r in subject.renderings.items():
            if subject.reference is not None and len(r.frames):
                out.setdefault(column, []).append(measure(r.frames, subject.reference))
    return out


def drift_rows(report: Report, renderings: dict[str, Rendering], clock: ChunkClock, window_s: float) -> None:
    """Drift of the long stream beside that of a recorded clip; a still picture has none."""
    scores = {c: drift_score(r.frames, clock.fps, window_s) for c, r in renderings.items()}
    report.add("drift", "slope per minute", {c: s.slope for c, s in scores.items()} | {"baseline": 0.0},
               {c: interval(np.array(s.curve), slope_per_minute) for c, s in scores.items()
                if len(s.curve) >= LEAST_WINDOWS},
               note="of the distance to the first window; the interval is over this stream's windows",
               baseline="a still picture")
    report.add("drift", "last window minus first", {c: s.gain for c, s in scores.items()} | {"baseline": 0.0},
               baseline="a still picture")
    report.curves["drift: distance to the first window over time (s)"] = {
        c: [*s.curve] for c, s in scores.items() if s.curve}
