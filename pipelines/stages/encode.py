"""``stage=encode``: codecs fitted (or loaded from local files), every clip cut into latents at all phase offsets.

Any number of processes, ranks and machines may be started with the same command on one shared folder: each takes
shards that nobody else has claimed, waits for the last ones of the others, and writes the same index.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.atomic_file import write_atomic
from datamodules.claims import claimed
from datamodules.clip import checked_words, read_meta
from datamodules.clip_encoder import conform_frames, phase_offsets
from datamodules.clip_reader import iterate_shard
from datamodules.clip_table import ClipTable, table_path
from datamodules.config import AGAIN, RECORDED, RespokenConfig
from datamodules.conform import fit_wave
from datamodules.latent_format import INDEX_NAME, LatentIndex
from datamodules.latent_writer import write_index
from datamodules.quarantine import DamagedSample, Quarantine
from datamodules.respoken import spelled
from datamodules.shard_encoding import (
    EncodeJob,
    EncodeSettings,
    Respeaking,
    begin_worker,
    clips_of,
    encode_if_free,
    identity,
)
from datamodules.shards import RemoteShard, Shard, count_samples, expand_shards, split_shards
from pipelines.config.schema import TRAINING, RunConfig
from pipelines.origins import check_codecs, codec_kinds, codec_prints, init_export
from pipelines.run_directory import RunDirectory
from pipelines.stored_latents import adopt, adopted_prints
from streamchar.clock import ChunkClock
from streamchar.codecs.no_pictures import NoPictures
from streamchar.codecs.protocol import AudioCodec
from streamchar.codecs.store import Codecs, fit_codecs, load_codec, save_codec
from streamchar.errors import CheckpointError, DataError, InputError, StreamCharError
from streamchar.hub import Exported

MADE_FROM = "made_from.json"
SHARD_NAME = "latents-{}.tar"
FIT_CHUNKS = 2
"""Chunks from the middle of every sampled clip whose pictures the video codec is fitted on."""
SMALL_SET = 4_000_000
"""Bytes of shards that one process encodes sooner than several are started."""
FIT_RATE = 16000
"""Sample rate of the sound that codecs are fitted on (that of all our codecs)."""
LOOK_AGAIN_S = 1.0
"""Between looks at work that other processes have claimed."""
TOGETHER = 0.5
"""Share of clips with a partner in their shard below which a large set's items miss history and references."""


def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``encode/codecs/{video,audio}`` and ``encode/latents/{train,val}``; finished shards are kept.

    Raises:
        DataError: no or empty shards, no validation shards, too many damaged clips, storage that is gone.
        InputError: a codec's files are missing, or the disk is full.
    """
    console = Console(highlight=False)
    if torch.cuda.is_available():
        torch.cuda.set_device(_local_rank() % torch.cuda.device_count())
    folder = directory.stage("encode")
    folder.mkdir(parents=True, exist_ok=True)
    export = init_export(cfg)
    if cfg.data.latents:
        adopt(cfg, folder, console)
        if export is not None:
            check_codecs(cfg, export, directory)
        return
    splits, groups = mixed_shards(cfg) if cfg.data.mix else (source_shards(cfg, directory), {})
    codecs = _codecs(cfg, export, splits["train"], folder / "codecs", console)
    clock = cfg.clock.chunk_clock(codecs.audio.latent_rate, codecs.audio.sample_rate)
    settings = EncodeSettings(folder / "codecs", (codecs.video.fingerprint, codecs.audio.fingerprint), clock,
                              cfg.data.size, tuple(phase_offsets(clock, cfg.data.phases)), cfg.data.latent_dtype,
                              "cuda" if torch.cuda.is_available() else "cpu")
    damaged: list[dict[str, str]] = []
    for split, shards in splits.items():
        target = folder / "latents" / split
        target.mkdir(parents=True, exist_ok=True)
        jobs = _jobs(shards, target, settings, cfg.data.max_clips, groups)
        if split == "train" and cfg.data.respoken.times:
            jobs = _with_respoken(jobs, cfg.data.respoken, splits["val"])
        records = _encode(jobs, cfg.data.encode_workers, split, console)
        index = _index(codecs, clock, settings)
        damaged += [row for record in records for row in record["quarantined"]]
        write_atomic(folder / "quarantine.jsonl", "".join(json.dumps(row) + "\n" for row in damaged).encode())
        _check(records, Quarantine(max_rate=cfg.data.max_bad_share))
        table = write_index(target, index, records)
        _remove_stale(target, records)
        _tell_scattered(table, split, console)
        again = sum(r["clips"] for r in records if not r["recorded"])
        console.print(f"{split}: {sum(r['clips'] for r in records) - again} clips, "
                      + (f"{again} more of their words, " if cfg.data.respoken.times and split == "train" else "")
                      + f"{sum(r['seconds'] for r in records):.0f} s, {len(index.quarantined)} quarantined, "
                      f"{sum(r['bytes'] for r in records) / 1e6:.0f} MB")


def source_shards(cfg: RunConfig, directory: RunDirectory) -> dict[str, list[Shard]]:
    """Tars of ``train`` and ``val``.

    Raises:
        DataError: if a split has none.
    """
    given: Any = cfg.data.shards if cfg.data.shards is not None else directory.input("prepare", "shards")
    train, val = split_shards(expand_shards(given))
    if cfg.data.val_shards is not None:
        val = expand_shards(cfg.data.val_shards)
    if not val and cfg.data.overfit_clips:
        val = train
    if cfg.data.speech_shards is not None:
        train += [p for p in split_shards(expand_shards(cfg.data.speech_shards))[0] if p not in train]
    for split, found, option in (("train", train, "data.shards"), ("val", val, "data.val_shards")):
        if not found:
            raise DataError(f"{option}: no {split} shard in {given}; give {option}, or name validation tars "
                            f"...-val-00000.tar and the others ...-train-00000.tar")
    return {"train": train, "val": val}


def mixed_shards(cfg: RunConfig) -> tuple[dict[str, list[Shard]], dict[Shard, str]]:
    """Tars of ``train`` and ``val`` of all sets of ``data.mix``, one set after the other, and the set of each.

    Raises:
        DataError: if there are no validation shards, or a shard belongs to two sets.
    """
    splits: dict[str, list[Shard]] = {"train": [], "val": []}
    groups: dict[Shard, str] = {}
    for name, given in cfg.data.mix.items():
        found = expand_shards(given["shards"])
        twice = next((s for s in found if s in groups), None)
        if twice is not None:
            raise DataError(f"data.mix: {twice} is in {groups[twice]} and in {name}; a shard belongs to one set")
        groups.update(dict.fromkeys(found, str(name)))
        train, val = split_shards(found)
        splits["train"] += train
        splits["val"] += val
    if cfg.data.val_shards is not None:
        splits["val"] = expand_shards(cfg.data.val_shards)
    for split, shards in splits.items():
        if not shards:
            raise DataError(f"data.mix: no {split} shard in any set; name validation tars ...-val-00000.tar and the "
                            f"others ...-train-00000.tar, or give data.val_shards")
    return splits, groups


def check_kept(cfg: RunConfig, directory: RunDirectory) -> None:
    """Refuse to replace codecs in whose latents models of this run have learnt, before anything of it is touched:
    no later stage could go on from them. ``trainer.resume=never`` begins the models afresh, and may.

    Raises:
        InputError: naming the codecs that were and those that would be.
    """
    trained = [stage for stage in TRAINING if directory.has(stage, "checkpoints")]
    index = directory.stage("encode") / "latents" / "train" / INDEX_NAME
    if not trained or cfg.trainer.resume == "never" or not index.exists():
        return
    had = LatentIndex.from_json(index.read_bytes(), str(index))
    kinds = {"audio": had.audio_codec} | ({} if trained == ["orchestrator"] else {"video": had.video_codec})
    new = _coming_prints(cfg, directory)
    if found := [f"{kind} {was[:12]}, now {new[kind][:12]}" for kind, was in kinds.items() if new[kind] != was]:
        raise InputError(f"{', '.join(trained)} of the run {cfg.name!r} learnt with other codecs than those that these "
                         f"settings and shards make ({'; '.join(found)}), and could not go on: give the settings that "
                         f"{directory.stage('encode') / 'config.yaml'} has, or another name=, or trainer.resume=never, "
                         "which begins the models afresh")


def _coming_prints(cfg: RunConfig, directory: RunDirectory) -> dict[str, str]:
    """Fingerprints of the codecs that ``stage=encode`` will leave, fitted for it where it would fit them."""
    if cfg.data.latents:
        return adopted_prints(cfg)
    console, folder, export = Console(highlight=False), directory.stage("encode") / "codecs", init_export(cfg)
    if export is not None and cfg.init:
        return codec_prints(export)
    shards = (mixed_shards(cfg)[0] if cfg.data.mix else source_shards(cfg, directory))["train"]
    codecs = _fitted_before(folder, _made_from(cfg, export, shards), console)
    codecs = codecs or _fit(cfg, shards, console, export.codec("audio") if export is not None else None)
    return {"video": codecs.video.fingerprint, "audio": codecs.audio.fingerprint}


def _made_from(cfg: RunConfig, export: Exported | None, shards: list[Shard]) -> str:
    """All that the codecs are a function of."""
    given = codec_prints(export, codec_kinds(cfg)) if export is not None else {}
    fitted = [asdict(cfg.codec), cfg.data.size, cfg.data.codec_clips, asdict(cfg.clock),
              [identity(p)[:2] for p in shards]]
    return json.dumps(given if cfg.init else [*fitted, given] if given else fitted, sort_keys=True)


def _codecs(cfg: RunConfig, export: Exported | None, shards: list[Shard], folder: Path, console: Console) -> Codecs:
    """The codecs: an export's, or fitted by one process where none were made from the same settings and shards before.
    """
    made_from = _made_from(cfg, export, shards)
    if cfg.init and export is not None and (held := _held(folder, codec_prints(export))) is not None:
        return held  # and the note stays, by which they are known without the export too
    while (codecs := _fitted_before(folder, made_from, console)) is None:
        with claimed(folder, made_from) as ours:
            if ours and not _is_made_from(folder, made_from):
                audio: AudioCodec | None = export.codec("audio") if export is not None else None
                codecs = (Codecs(export.codec("video"), audio) if export is not None and audio is not None and cfg.init
                          else _fit(cfg, shards, console, audio))
                save_codec(codecs.video, folder / "video")
                save_codec(codecs.audio, folder / "audio")
                write_atomic(folder / MADE_FROM, made_from.encode())
        if not ours:
            time.sleep(LOOK_AGAIN_S)
    return codecs


def _held(folder: Path, prints: dict[str, str]) -> Codecs | None:
    """The run's codecs, if they are those of ``prints``."""
    try:
        codecs = Codecs(load_codec(folder / "video"), load_codec(folder / "audio"))
    except CheckpointError:
        return None
    return codecs if prints == {"video": codecs.video.fingerprint, "audio": codecs.audio.fingerprint} else None


def _is_made_from(folder: Path, made_from: str) -> bool:
    note = folder / MADE_FROM
    return note.exists() and note.read_text() == made_from


def _fitted_before(folder: Path, made_from: str, console: Console) -> Codecs | None:
    if not _is_made_from(folder, made_from):
        return None
    try:
        return Codecs(load_codec(folder / "video"), load_codec(folder / "audio"))
    except CheckpointError as error:
        console.print(f"[yellow]{error}[/]: fitted again")
        (folder / MADE_FROM).unlink(missing_ok=True)
        return None


def _fit(cfg: RunConfig, shards: list[Shard], console: Console, audio: AudioCodec | None) -> Codecs:
    """Both codecs, or ``audio`` and the one that fits the pictures."""
    with console.status("fitting codecs"):
        sample = list(_sample(cfg, shards))
        if cfg.codec.video.kind != "none" and all(frames is None for frames, _ in sample):
            raise DataError(f"none of {len(sample)} sampled clips has pictures to fit the video codec on: give paired "
                            "clips as data.shards and these as data.speech_shards, or train the orchestrator on sound "
                            "alone with codec.video.kind=none")
        codecs = fit_codecs(cfg.codec, sample, audio)
    console.print(f"codecs on {len(sample)} clips: video {codecs.video.fingerprint[:12]} "
                  f"({codecs.video.channels} channels), audio{' of the export' if audio is not None else ''} "
                  f"{codecs.audio.fingerprint[:12]} "
                  f"({codecs.audio.channels} channels, {codecs.audio.latent_rate:g} Hz)")
    return codecs


def _sample(cfg: RunConfig, shards: list[Shard]) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
    """Pictures and sound of the first clips of every train shard, ``data.codec_clips`` in all."""
    clock = cfg.clock.chunk_clock(25.0, FIT_RATE)  # only the pictures' rate matters here
    limit = FIT_CHUNKS * clock.chunk_frames
    per_shard = -(-cfg.data.codec_clips // len(shards))
    quarantine = Quarantine(max_rate=1.0)
    found = 0
    for shard in shards:
        for clip in clips_of(shard, quarantine, min(per_shard, cfg.data.codec_clips - found)):
            frames = None
            if clip.frames is not None:
                frames = conform_frames(clip, clock, cfg.data.size)
                frames = frames[max(len(frames) - limit, 0) // 2:][:limit]
            yield frames, fit_wave(clip.wave, clip.sample_rate, FIT_RATE)
            found += 1
        if found >= cfg.data.codec_clips:
            return
    if not found:
        raise DataError(f"no usable clip in {shards[0]} and {len(shards) - 1} more; check data.shards or run "
                        f"stage=prepare")


def _jobs(shards: list[Shard], target: Path, settings: EncodeSettings, most: int,
          groups: dict[Shard, str]) -> list[EncodeJob]:
    counts = [count_samples(p) for p in shards] if most else [0] * len(shards)
    jobs, left = [], most
    for number, (source, count) in enumerate(zip(shards, counts, strict=True)):
        if most and left <= 0:
            break
        jobs.append(EncodeJob(source, target / SHARD_NAME.format(f"{number:05d}"), settings, min(left, count),
                              groups.get(source, "")))
        left -= count
    return jobs


def _with_respoken(jobs: list[EncodeJob], config: RespokenConfig, held_out: list[Shard]) -> list[EncodeJob]:
    """``jobs``, and those that encode new clips made of their words, none a held-out sentence; sets in a row."""
    avoid = sorted({spelled([text]) for text in _texts(held_out)})
    respeaking = Respeaking(config, frozenset(avoid), hashlib.sha256("\n".join(avoid).encode()).hexdigest()[:16])
    found = [replace(job, group=job.group or RECORDED) for job in jobs]
    found += [replace(job, group=job.group or AGAIN, respeaking=respeaking,
                      target=job.target.with_name(SHARD_NAME.format(f"again-{number:05d}")))
              for number, job in enumerate(jobs)]
    first: dict[str, int] = {}
    for number, job in enumerate(found):
        first.setdefault(job.group, number)
    return sorted(found, key=lambda job: first[job.group])


def _texts(shards: list[Shard]) -> Iterator[str]:
    """What is said in shards; nothing is decoded."""
    for shard in shards:
        for raw in iterate_shard(shard, Quarantine(max_rate=1.0, quiet=True)):
            with suppress(DamagedSample):
                yield " ".join(word.text for word in checked_words(read_meta(raw.files)))


def _encode(jobs: list[EncodeJob], workers: int, split: str, console: Console) -> list[dict[str, Any]]:
    """Records of all jobs, in order, whoever made them; our share in this process, or in ``workers`` others."""
    columns = (TextColumn("encode {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("shards"),
               TextColumn("{task.fields[clips]} clips, {task.fields[rate]:.1f}/s"), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(split, total=len(jobs), clips=0, rate=0.0)
        clips = 0

        def count(more: int = 1) -> None:
            nonlocal clips
            clips += more
            seconds = progress.tasks[task].elapsed or 1e-9
            progress.update(task, clips=clips, rate=clips / seconds)

        records: dict[Path, dict[str, Any]] = {}
        for job, record in _records(jobs, workers, count):
            records[job.target] = record
            progress.advance(task)
        return [{**records[job.target], **({"set": job.group} if job.group else {}),
                 "recorded": job.respeaking is None} for job in jobs]


def _records(jobs: list[EncodeJob], workers: int, count: Any) -> Iterator[tuple[EncodeJob, dict[str, Any]]]:
    """Round after round over what is not finished, until others have finished theirs, or left it to us."""
    workers = min(workers or _worth_starting(jobs), len(jobs))
    left = jobs
    with _encoders(workers) as encode:
        while left:
            busy = []
            for job, record in encode(left, count):
                if record is None:
                    busy.append(job)
                else:
                    yield job, record
            if len(busy) == len(left):
                time.sleep(LOOK_AGAIN_S)
            left = busy


Encode = Callable[[list[EncodeJob], Any], Iterator[tuple[EncodeJob, dict[str, Any] | None]]]


@contextmanager
def _encoders(workers: int) -> Iterator[Encode]:
    """What goes over jobs once: in this process, or in ``workers`` others, which end when this one does."""
    if workers <= 1:
        yield lambda jobs, count: ((job, encode_if_free(job, count)) for job in jobs)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker,
                             initargs=(context.Value("i", _local_rank() * workers),)) as pool:

        def encode(jobs: list[EncodeJob], count: Any) -> Iterator[tuple[EncodeJob, dict[str, Any] | None]]:
            waiting = iter(jobs)
            running: dict[Future[dict[str, Any] | None], EncodeJob] = {}
            while True:
                # No more than are worked on: Ctrl-C waits for all that are in the queue.
                running |= {pool.submit(encode_if_free, job): job for job in islice(waiting, workers - len(running))}
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    try:
                        record = future.result()
                    except BrokenProcessPool as error:
                        raise StreamCharError(_died([job.source for job in running.values()])) from error
                    job = running.pop(future)
                    count(record["clips"] if record else 0)
                    yield job, record

        yield encode


def _died(sources: list[Shard]) -> str:
    return (f"a process that encoded was killed while {', '.join(map(str, sources))} were worked on: nearly always for "
            "want of memory (dmesg tells); give data.encode_workers= fewer, or the job more memory, and say the same "
            "command again: finished shards are kept")


def _local_rank() -> int:
    """This process's number on its machine, so that ranks take different GPUs."""
    return next((int(os.environ[k]) for k in ("LOCAL_RANK", "SLURM_LOCALID") if os.environ.get(k, "").isdigit()), 0)


def _worth_starting(jobs: list[EncodeJob]) -> int:
    """A process per core where there is enough left to encode to repay their start."""
    left = [SMALL_SET if isinstance(job.source, RemoteShard) else job.source.stat().st_size
            for job in jobs if job.finished() is None]
    return len(os.sched_getaffinity(0)) if sum(left) > SMALL_SET and len(left) > 1 else 1


def _index(codecs: Codecs, clock: ChunkClock, settings: EncodeSettings) -> LatentIndex:
    grid = settings.size // codecs.video.spatial_stride
    chunk = None if isinstance(codecs.video, NoPictures) else [codecs.video.channels, clock.video_latents, grid, grid]
    return LatentIndex(*settings.fingerprints, clock.fps, clock.chunk_frames, clock.audio_rate, clock.sample_rate,
                       codecs.audio.channels, chunk, list(settings.offsets), settings.size)


def _check(records: list[dict[str, Any]], quarantine: Quarantine) -> None:
    """Stop with the list of damaged clips if they are too many."""
    quarantine.good = sum(r["clips"] for r in records if r["recorded"])
    for row in (row for record in records for row in record["quarantined"]):
        quarantine.add(row["key"], row["reason"], row["file"])
    quarantine.finish()


def _tell_scattered(table: ClipTable, split: str, console: Console) -> None:
    """In sets too large to be shuffled as a whole, partners come from the clip's own shard."""
    share = table.share_with_partner("speaker")
    if len(table.bounds) > 2 and share < TOGETHER:
        console.print(f"[yellow]{split}: only {100 * share:.0f} % of the clips share their shard with another clip of "
                      "their speaker[/]; a large set needs a speaker's clips in one shard, or its items have no "
                      "history and no other reference")


def _remove_stale(target: Path, records: list[dict[str, Any]]) -> None:
    """Remove latent shards of an earlier, larger set: nothing lists them any more; and claims on what is finished,
    which are left where a process was killed in between."""
    for claim in target.glob("latents-*.tar.claim"):
        claim.unlink(missing_ok=True)
    kept = {r["file"] for r in records}
    for path in target.glob("latents-*.tar"):
        if path.name not in kept:
            for stale in (path, path.with_suffix(".json"), table_path(path)):
                stale.unlink(missing_ok=True)
