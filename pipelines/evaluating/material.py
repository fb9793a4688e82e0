"""The held-out material: each clip as it was recorded, through the codecs, and the picture it is compared with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.clip import decode_clip
from datamodules.clip_encoder import conform_frames
from datamodules.clip_reader import iterate_shard
from datamodules.conform import fit_wave
from datamodules.evaluation_set import EvaluationSet, Truth
from datamodules.latent_clip import LatentClip
from datamodules.latent_shards import LatentStore
from datamodules.quarantine import DamagedSample
from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.errors import DataError
from streamchar.types import Latents, RolloutBatch

log = logging.getLogger(__name__)

SEED_MARK = "-seed"
"""Between a clip's key and the number of the seed."""


@dataclass
class Rendering:
    """Frames (F, H, W, 3) uint8 with sound (S,) of the same length; ``pointers``: words at chunk ends, if generated."""

    frames: NDArray[np.uint8]
    sound: NDArray[np.float32]
    pointers: list[float] = field(default_factory=list)

    def unseen(self) -> Rendering:
        """The sound and pointers alone."""
        return Rendering(self.frames[:0].copy(), self.sound, self.pointers)


@dataclass
class Subject:
    """What is scored together: a text, the picture and voice it was made from, and its renderings by column.

    reference: (H, W, 3) uint8, or None where nobody knows it. prompt, truth: for clips that a model streams; ``truth``
    only where the clip itself says the text. opening: true mouth opening per frame, where the data tells it. new: the
    text is a new sentence. seed: number of the noise. latents: the chunks of generated renderings.
    """

    key: str
    text: str
    reference: NDArray[np.uint8] | None
    renderings: dict[str, Rendering] = field(default_factory=dict)
    prompt: RolloutBatch | None = None
    truth: Truth | None = None
    speaker: str = ""
    look: str = ""
    opening: list[float] | None = None
    new: bool = False
    seed: int = 0
    latents: dict[str, list[Latents]] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The clip that copies with other seeds share."""
        return self.key.split(SEED_MARK)[0]

    @property
    def scored(self) -> bool:
        """Whether more than its words: it is there in every column, which new sentences and further seeds are not."""
        return self.seed == 0 and not self.new


def held_out(clips: EvaluationSet, number: int, clock: ChunkClock, video: VideoCodec, audio: AudioCodec,
             size: int) -> Subject:
    """Stream ``number`` of the evaluation set with what is known about it; ``real`` only while its shard is there."""
    truth, prompt = clips.truth(number), clips.batch(number, 1)
    renderings = {"codec": through_codecs(truth, clock, video, audio)}
    real = recorded(truth, clock, size)
    if real is not None:
        renderings = {"real": real, **renderings}
    with torch.no_grad():
        reference = to_pictures(video.decode(prompt.ref.float()))[0]
    return Subject(truth.key, truth.text, reference, renderings, prompt, truth, truth.speaker, truth.look,
                   truth.meta.get("mouth"))


def to_pictures(frames: torch.Tensor) -> NDArray[np.uint8]:
    """(B, F, 3, H, W) in [0, 1] -> (B F, H, W, 3) uint8."""
    flat = frames.flatten(0, 1).permute(0, 2, 3, 1)
    return (flat.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@torch.no_grad()
def through_codecs(truth: Truth, clock: ChunkClock, video: VideoCodec, audio: AudioCodec) -> Rendering:
    """The best that any model of these latents can show: the clip's own latents, decoded."""
    count = int(truth.seconds * clock.fps + 1e-6)
    frames = to_pictures(video.decode(truth.video))[:count]
    sound = audio.decode(truth.audio).float().cpu().numpy()
    size = int(len(frames) / clock.fps * audio.sample_rate)
    return Rendering(frames, np.pad(sound[:size], (0, max(size - len(sound), 0))))


def recorded(truth: Truth, clock: ChunkClock, size: int) -> Rendering | None:
    """The clip as it lies in its shard, brought to the run's size and rates; None where the shard is gone."""
    path = Path(truth.shard)
    if not path.is_file():
        return None
    try:
        raw = next((s for s in iterate_shard(path) if s.key == truth.key), None)
        clip = decode_clip(raw.key, raw.files, shard=str(path)) if raw is not None else None
    except (DataError, DamagedSample) as error:
        log.warning("the recording of %s cannot be read any more: %s", truth.key, error)
        return None
    if clip is None or clip.frames is None:
        return None
    frames = conform_frames(clip, clock, size).permute(0, 2, 3, 1).contiguous().numpy()
    return Rendering(frames, fit_wave(clip.wave, clip.sample_rate, clock.sample_rate).numpy())


@torch.no_grad()
def mouth_lessons(clips: Sequence[LatentClip], video: VideoCodec, count: int = 24
                  ) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float64]], list[list[float]]]:
    """Decoded frames, true openings and mouth boxes of up to ``count`` clips whose JSON has them (the puppet's)."""
    frames, truth, boxes = [], [], []
    for clip in clips:
        opening = clip.record.meta.get("mouth")
        if not opening or not clip.has_video:
            continue
        pictures = to_pictures(video.decode(torch.from_numpy(clip.video(0).astype(np.float32))))
        size = min(len(pictures), len(opening))
        frames.append(pictures[:size])
        truth.append(np.asarray(opening[:size], np.float64))
        boxes += [clip.record.meta["mouth_box"]] if "mouth_box" in clip.record.meta else []
        if len(frames) == count:
            break
    return frames, truth, boxes


@torch.no_grad()
def other_looks(train: LatentStore, known: set[str], video: VideoCodec, count: int = 6) -> list[NDArray[np.uint8]]:
    """Decoded frames of up to ``count`` training characters that are none of ``known``: the others to be told apart."""
    looks: dict[str, LatentClip] = {}
    for clip in train.clips:
        if clip.has_video and clip.record.look not in known:
            looks.setdefault(clip.record.look, clip)
    return [to_pictures(video.decode(torch.from_numpy(clip.video(0)[:2].astype(np.float32))))
            for clip in list(looks.values())[:count]]
