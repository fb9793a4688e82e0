"""Face tracks: the detections of looked-at frames joined to one path per person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datamodules.intake.face_detector import Face

SAME = 0.3
"""Share of the smaller box that consecutive boxes of one person have in common at least."""
LOST_S = 1.0
"""A face that is not seen for longer begins a new track."""
LARGE = 0.5
"""A face of at least so many times the largest one's side counts as another speaker."""


@dataclass
class FaceTrack:
    """One person's face: ``frames`` (N,) in which it was found, and ``faces`` there."""

    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    @property
    def side(self) -> float:
        """Median side of the boxes in pixels."""
        return float(np.median([f.side for f in self.faces]))

    def within(self, first: int, stop: int) -> FaceTrack:
        """The part between two frames."""
        kept = [(n, f) for n, f in zip(self.frames, self.faces, strict=True) if first <= n < stop]
        return FaceTrack([n for n, _ in kept], [f for _, f in kept])

    def centres(self, first: int, stop: int) -> NDArray[np.float64]:
        """(stop - first, 2) x and y of the box's centre in every frame, straight lines between detections."""
        at = np.arange(first, stop)
        points = np.array([((f.x0 + f.x1) / 2, (f.y0 + f.y1) / 2) for f in self.faces])
        return np.stack([np.interp(at, self.frames, points[:, c]) for c in range(2)], 1)


def link(found: Sequence[tuple[int, Sequence[Face]]], fps: float) -> list[FaceTrack]:
    """Join detections, given as (frame number, faces) in order, to tracks, the longest first."""
    tracks: list[FaceTrack] = []
    for number, faces in found:
        alive = [t for t in tracks if number - t.frames[-1] <= LOST_S * fps]
        pairs = sorted(((f.shared(t.faces[-1]), i, j) for i, t in enumerate(alive) for j, f in enumerate(faces)),
                       reverse=True)
        used: tuple[set[int], set[int]] = (set(), set())
        for shared, i, j in pairs:
            if shared >= SAME and i not in used[0] and j not in used[1]:
                used[0].add(i)
                used[1].add(j)
                alive[i].frames.append(number)
                alive[i].faces.append(faces[j])
        tracks += [FaceTrack([number], [f]) for j, f in enumerate(faces) if j not in used[1]]
    return sorted(tracks, key=lambda t: -len(t.frames))


def main_track(tracks: Sequence[FaceTrack]) -> FaceTrack | None:
    """The face that fills the most of picture and time, or None where there is none."""
    return max(tracks, key=lambda t: len(t.frames) * t.side, default=None)


def rivals(tracks: Sequence[FaceTrack], main: FaceTrack) -> int:
    """How many faces like the main one there are at once: 1 + the largest number of others, each at least half as
    large, in a frame, once what occurs in less than a tenth of the main one's frames is left out."""
    others: dict[int, int] = {}
    for track in tracks:
        if track is not main and len(track.frames) > 0.1 * len(main.frames) and track.side >= LARGE * main.side:
            for number in track.frames:
                others[number] = others.get(number, 0) + 1
    return 1 + max(others.values(), default=0)
