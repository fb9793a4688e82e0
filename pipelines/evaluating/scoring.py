"""All measures over a set of clips, in the order of the table."""

from __future__ import annotations

from dataclasses import dataclass

from rich.progress import Progress

from pipelines.evaluating.devices import Devices
from pipelines.evaluating.distributions import deep_rows
from pipelines.evaluating.lips import sync_rows
from pipelines.evaluating.looks import Frames, face_rows, identity_rows, picture_rows
from pipelines.evaluating.material import Subject
from pipelines.evaluating.mouths import Mouth
from pipelines.evaluating.syncnets import syncnet_rows
from pipelines.evaluating.voices import quality_rows, voice_rows
from pipelines.evaluating.words import word_rows
from streamchar.clock import ChunkClock
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.report import Report
from streamchar.evaluation.syncnet import SyncNet


@dataclass
class Means:
    """What the measures need beside the clips: devices, the mouth detector, training texts (the recogniser's language),
    frames of other characters (the scale of identity), and our SyncNet where it is wanted."""

    devices: Devices
    mouth: Mouth | None
    texts: list[str]
    others: list[Frames]
    syncnet: SyncNet | None = None


def score(report: Report, subjects: list[Subject], means: Means, cfg: EvaluateConfig, clock: ChunkClock, main: str,
          bar: Progress) -> None:
    """Add every row that can be measured; ``main``: the column in question.

    Words are of all ``subjects``; everything else is of the clips that are there in every column: the first seed, and
    no new sentences, beside which nothing was recorded.
    """
    clips = [s for s in subjects if s.scored]
    if cfg.words and any(s.text for s in subjects):
        word_rows(report, subjects, means.texts, means.devices, clock, main, cfg.seed, bar)
    if means.mouth is not None:
        sync_rows(report, clips, means.mouth, clock, cfg.max_lag, main)
    syncnet_rows(report, clips, means.syncnet, means.devices, clock, bar)
    identity_rows(report, clips, means.others)
    face_rows(report, clips, means.devices)
    picture_rows(report, clips)
    voice_rows(report, clips, means.devices, clock, bar)
    quality_rows(report, clips, means.devices, clock, cfg.quality_clips, bar)
    deep_rows(report, clips, means.devices)
    if means.devices.missing:
        report.notes.append("Not measured, for want of a file in evaluate.parts: "
                            + "; ".join(f"{what} ({name})" for what, name in means.devices.missing.items()) + ".")
