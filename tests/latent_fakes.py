"""Tiny latent shards whose values say where they come from.

Audio latent: channel 0 = second of the clip at which it starts, channel 1 = clip number. Video latent: channel 0 =
frame of the clip that its first frame is, channel 1 = clip number. So a composed item can be checked by reading it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np

from datamodules.latent_format import ClipRecord, LatentIndex, PhaseRecord
from datamodules.latent_writer import LatentShardWriter, shard_record, write_index
from streamchar.clock import ChunkClock
from streamchar.window import WindowConfig

CLOCK = ChunkClock(fps=25, chunk_frames=33, audio_rate=25, sample_rate=16000)
AWKWARD = ChunkClock(fps=24, chunk_frames=33, audio_rate=25, sample_rate=16000)
WINDOW = WindowConfig(sink_latents=3, motion_latents=5, past_audio_s=0.32, anchor_s=1.0, recent_s=2.0)
TEXT = ["bin", "blue", "at", "f", "two", "now"]
GRID = 2


def words_of(number: int, seconds: float) -> list[dict]:
    """Six words of half a second from 0.4 s on (as far as the clip goes), silence around them."""
    rows = [{"w": "sil", "start": 0.0, "end": 0.4}]
    at = 0.4
    for word in TEXT[number % 3:] + TEXT[:number % 3]:
        if at + 0.5 > seconds - 0.3:
            break
        rows.append({"w": word, "start": at, "end": at + 0.5})
        at += 0.5
    return [*rows, {"w": "sil", "start": at, "end": seconds}]


def clip(number: int, clock: ChunkClock, offsets: list[int], seconds: float = 4.0, speakers: int = 2,
         video: bool = True) -> tuple[ClipRecord, dict[str, np.ndarray]]:
    """One clip's record and tensors."""
    tensors, phases = {}, []
    for p, offset in enumerate(offsets):
        chunks = math.ceil((seconds * clock.fps - offset) / clock.chunk_frames) + 1
        latents = clock.audio_start(chunks - 1) + clock.audio_latents
        audio = np.zeros((latents, 2), np.float32)
        audio[:, 0] = offset / clock.fps + np.arange(latents) / clock.audio_rate
        audio[:, 1] = number
        tensors[f"audio.{p}"] = audio
        if video:
            frames = np.zeros((chunks, 2, clock.video_latents, GRID, GRID), np.float32)
            inside = np.concatenate([[0], 1 + 4 * np.arange(clock.video_latents - 1)])
            for j in range(chunks):
                frames[j, 0] = (offset + j * clock.chunk_frames + inside)[:, None, None]
                frames[j, 1] = number
            tensors[f"video.{p}"] = frames
        phases.append(PhaseRecord(offset, chunks, latents))
    name = f"s{number % speakers}"
    words = words_of(number, seconds)
    return ClipRecord(f"clip{number:03d}", name, name, " ".join(w["w"] for w in words[1:-1]), words, seconds, video,
                      phases, "source.tar"), tensors


def write_store(folder: Path, clips: int = 8, clock: ChunkClock = CLOCK, phases: int = 4, per_shard: int = 4,
                poison: tuple[int, ...] = (), video: bool = True, unseen: Collection[int] = (),
                **options: object) -> Path:
    """Write shards of fake clips, in ``poison`` with a NaN, in ``unseen`` without pictures. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    offsets = [p * clock.chunk_frames // phases for p in range(phases)]
    index = LatentIndex("video-codec", "audio-codec", clock.fps, clock.chunk_frames, clock.audio_rate,
                        clock.sample_rate, 2, [2, clock.video_latents, GRID, GRID] if video else None, offsets, 16)
    records = []
    for start in range(0, clips, per_shard):
        path = folder / f"latents-{start // per_shard:05d}.tar"
        with LatentShardWriter(path) as writer:
            for number in range(start, min(start + per_shard, clips)):
                record, tensors = clip(number, clock, offsets, video=video and number not in unseen,
                                       **options)  # type: ignore[arg-type]
                if number in poison:
                    tensors["audio.0"][3, 0] = np.nan
                writer.add(record, tensors)
        records.append(shard_record(path, writer, "recipe", []))
    write_index(folder, index, records)
    return folder
