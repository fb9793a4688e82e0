"""Rows of the report by SyncNets: ours, trained on the run's recorded clips, and the field's where it is given."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from datamodules.clip import decode_clip
from datamodules.clip_encoder import conform_frames
from datamodules.clip_reader import iterate_shard
from datamodules.conform import fit_wave
from datamodules.latent_shards import LatentStore
from datamodules.quarantine import DamagedSample
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.errors import DataError
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.recogniser import SAMPLE_RATE
from streamchar.evaluation.report import Report
from streamchar.evaluation.syncnet import SyncNet, load_syncnet, save_syncnet, sync_distance
from streamchar.evaluation.syncnet_field import field_sync_distance
from streamchar.evaluation.syncnet_offsets import SyncNetScore
from streamchar.evaluation.syncnet_training import train_syncnet

log = logging.getLogger(__name__)

MARK = "made_of.json"
"""Beside a trained network: what it was trained on, so that another set of clips trains anew."""
LEAST_FRAMES = 25
Measure = Callable[[NDArray[np.uint8], NDArray[np.float32]], SyncNetScore]


def given_syncnet(options: EvaluateConfig) -> SyncNet | None:
    """That of ``evaluate.syncnet``, if one is given.

    Raises:
        CheckpointError: where there is none in that folder.
    """
    return load_syncnet(options.syncnet) if options.syncnet else None


def our_syncnet(folder: Path, train: LatentStore, clock: ChunkClock, size: int, most: int, seed: int, report: Report,
                bar: Progress) -> SyncNet | None:
    """The network in ``folder``, trained first where it is not there yet; None, which the report then explains, without
    recorded training clips or where these make no network.

    ``most``: clips that it is trained on (about 150 s of one core, however many).
    """
    try:
        return _trained(folder, train, clock, size, most, seed, bar)
    except DataError as error:
        told = f"ot measured: our SyncNet ({error})"
        log.warning("n%s", told)
        report.notes.append(f"N{told}.")
        return None


def _trained(folder: Path, train: LatentStore, clock: ChunkClock, size: int, most: int, seed: int,
             bar: Progress) -> SyncNet:
    records = [c.record for c in train.clips if c.record.has_video][:most]
    made_of = {"clips": [r.key for r in records], "size": size, "fps": clock.fps, "seed": seed}
    mark = folder / MARK
    if mark.is_file() and json.loads(mark.read_text()) == made_of:
        return load_syncnet(folder)
    wanted = {r.key for r in records}
    shards = sorted({r.source for r in records if Path(r.source).is_file()})
    if not shards:
        raise DataError("the recorded training clips are not there any more")
    task = bar.add_task("training our SyncNet", total=None)
    net = train_syncnet(_recorded(shards, wanted, clock, size), clock.fps, SAMPLE_RATE, seed=seed,
                        progress=lambda step, steps, _: bar.update(task, completed=step + 1, total=steps))
    save_syncnet(net, folder)
    mark.write_text(json.dumps(made_of) + "\n")
    return net


def _recorded(shards: list[str], wanted: set[str], clock: ChunkClock, size: int
              ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Frames and sound at 16 kHz of the wanted clips that can be read."""
    for shard in shards:
        try:
            for raw in iterate_shard(Path(shard)):
                if raw.key not in wanted:
                    continue
                clip = decode_clip(raw.key, raw.files, shard=shard)
                if clip.frames is not None:
                    yield (conform_frames(clip, clock, size).permute(0, 2, 3, 1).contiguous().numpy(),
                           fit_wave(clip.wave, clip.sample_rate, SAMPLE_RATE).numpy())
        except (DataError, DamagedSample) as error:
            log.warning("our SyncNet: %s is left out from here on: %s", shard, error)


def syncnet_rows(report: Report, subjects: list[Subject], ours: SyncNet | None, devices: Devices, clock: ChunkClock,
                 bar: Progress) -> None:
    """Confidence and distance of every rendering, all cut to the shortest: both depend on the length."""
    if ours is not None:
        net = ours
        _rows(report, subjects, lambda f, s: sync_distance(net, f, s, clock.fps, SAMPLE_RATE), clock,
              "SyncNet, ours:", "trained on the recorded training clips; no published number compares", bar)
    if devices.syncnet is not None:
        field = devices.syncnet
        _rows(report, subjects, lambda f, s: field_sync_distance(field, f, s, clock.fps, SAMPLE_RATE), clock,
              "SyncNet v2:", "Sync-C and Sync-D; faces are taken as cropped", bar)


def _rows(report: Report, subjects: list[Subject], measure: Measure, clock: ChunkClock, name: str, note: str,
          bar: Progress) -> None:
    found: dict[str, list[SyncNetScore]] = {}
    lengths = [len(r.frames) for s in subjects for r in s.renderings.values()]
    shortest = min((n for n in lengths if n >= LEAST_FRAMES), default=0)
    for subject in bar.track(subjects, description=name.rstrip(":")):
        for column, r in subject.renderings.items():
            if shortest and len(r.frames) >= shortest:
                sound = wave_of(r.sound, clock)[:round(shortest / clock.fps * SAMPLE_RATE)]
                found.setdefault(column, []).append(measure(r.frames[:shortest], sound.numpy()))
    report.measure("sync", f"{name} confidence", {c: [s.confidence for s in v] for c, v in found.items()},
                   better="high", note=f"{note}; {shortest} frames each")
    report.measure("sync", f"{name} distance", {c: [s.distance for s in v] for c, v in found.items()})
    report.measure("sync", f"{name} offsets within a frame",
                   {c: [100 * float(abs(s.offset) <= 1) for s in v] for c, v in found.items()}, unit="%", better="high")
