"""Which mouth detector fits the data, and how far it may be trusted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from datamodules.latent_shards import LatentStore
from pipelines.evaluating.devices import face_mesh_of
from pipelines.evaluating.material import Subject, mouth_lessons
from streamchar.codecs.protocol import VideoCodec
from streamchar.errors import InputError
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.face_mesh import FaceMeshMouth
from streamchar.evaluation.mouth import MouthDetector, PuppetMouth, agreement, union

log = logging.getLogger(__name__)


@dataclass
class Mouth:
    """A detector with its name, and the mean correlation with true openings per column where there is a truth."""

    detector: MouthDetector
    name: str
    agreement: dict[str, float]


def choose_mouth(cfg: EvaluateConfig, train: LatentStore | None, clips: list[Subject], video: VideoCodec | None
                 ) -> Mouth | None:
    """The detector asked for; ``auto``: the puppet's where the training clips tell their openings, else the mesh.

    ``train`` and ``video`` are None where clips are scored that no run of ours made: then only the mesh is there.
    Returns None, with one line that says so, where neither is possible: lip sync is then not measured.

    Raises:
        InputError: when a detector was asked for by name and cannot be had.
    """
    if cfg.mouth not in ("auto", "puppet", "mesh"):
        raise InputError(f"evaluate.mouth={cfg.mouth!r}: expected auto, puppet or mesh")
    if cfg.mouth != "mesh":
        frames, truth, boxes = (mouth_lessons(train.clips, video) if train is not None and video is not None
                                else ([], [], []))
        if frames:
            detector = PuppetMouth.fit(frames, truth, union(boxes))
            return Mouth(detector, f"puppet detector fitted on {len(frames)} training clips", _check(detector, clips))
        if cfg.mouth == "puppet":
            raise InputError("evaluate.mouth=puppet needs training clips whose JSON holds the true opening (mouth); "
                             "these have none: use evaluate.mouth=mesh")
    try:
        return Mouth(FaceMeshMouth(face_mesh_of(cfg.parts)), "MediaPipe face mesh", {})
    except InputError as error:
        if cfg.mouth == "mesh":
            raise
        log.warning("lip sync is not measured: %s", error)
        return None


def _check(detector: MouthDetector, clips: list[Subject]) -> dict[str, float]:
    """Mean correlation with the held-out clips' true openings, for recorded and decoded pictures."""
    scores: dict[str, list[float]] = {}
    for clip in clips:
        truth = clip.opening
        for column in ("real", "codec"):
            if truth and column in clip.renderings:
                frames = clip.renderings[column].frames[:len(truth)]
                scores.setdefault(column, []).append(agreement(detector.opening(frames), np.asarray(truth)))
    return {column: float(np.nanmean(values)) for column, values in scores.items()}
