"""Making the shards: clips drawn by several processes, each finished shard entered in the index at once.

Restarted, it keeps every shard whose recipe and size agree with the index and makes the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datamodules.media import encode_mp4, encode_wav
from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.recipe import ClipPlan, ShardPlan, plan_shards
from datamodules.puppet.take import describe, make_take
from datamodules.shard_writer import ShardWriter
from datamodules.shards import INDEX_NAME, ShardIndex
from streamchar.errors import DataError, InputError

Report = Callable[[int, float], None]


def make_sample(plan: ClipPlan, cfg: PrepareConfig) -> tuple[dict[str, bytes], float]:
    """One clip as the files of a sample, and its seconds. Runs in a worker process."""
    take = make_take(plan, cfg)
    meta = describe(take, cfg)
    files = {"wav": encode_wav(take.wave, cfg.sample_rate), "json": json.dumps(meta).encode()}
    if take.frames is not None:
        files = {"mp4": encode_mp4(take.frames, cfg.fps, cfg.crf), **files}
    return files, meta["frames"] / cfg.fps


def produce(cfg: PrepareConfig, folder: Path, report: Report | None = None) -> ShardIndex:
    """Make all shards of a puppet data set in ``folder``.

    Args:
        cfg: what to make.
        folder: receives ``puppet-{train,train-speech,val}-*.tar`` and ``shards.json``; tars of an older recipe are
            replaced.
        report: called with (clips, seconds of clips) as they are done, kept ones included.

    Raises:
        InputError: wrong options, espeak-ng missing, or a full disk.
    """
    plans = plan_shards(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    index = _kept(plans, folder)
    missing = [p for p in plans if p.file not in index.entries]
    for entry in index.entries.values():
        if report:
            report(entry.samples, entry.seconds)
    workers = min(cfg.workers, sum(len(p.clips) for p in missing) // 4)
    try:
        with _pool(workers) as each:
            samples = each(partial(make_sample, cfg=cfg), [c for p in missing for c in p.clips])
            for plan in missing:
                _write_shard(plan, folder, samples, index, report)
    except OSError as error:
        raise InputError(f"cannot write shards to {folder}: {error.strerror or error}; free some space or choose "
                         "another root=; finished shards are kept and the next run goes on from them") from error
    index.save(folder / INDEX_NAME)
    return index


def _write_shard(plan: ShardPlan, folder: Path, samples: Iterator[tuple[dict[str, bytes], float]], index: ShardIndex,
                 report: Report | None) -> None:
    with ShardWriter(folder / plan.file, plan.recipe) as writer:
        for clip in plan.clips:
            files, seconds = next(samples)
            writer.write(clip.key, files, seconds)
            if report:
                report(1, seconds)
    assert writer.entry is not None
    index.add(writer.entry)
    index.save(folder / INDEX_NAME)


def _kept(plans: list[ShardPlan], folder: Path) -> ShardIndex:
    """The index rows that are still good; other puppet tars in the folder are removed."""
    try:
        old = ShardIndex.load(folder / INDEX_NAME) if (folder / INDEX_NAME).is_file() else ShardIndex()
    except DataError:
        old = ShardIndex()
    index = ShardIndex()
    for plan in plans:
        entry, path = old.entries.get(plan.file), folder / plan.file
        if entry and entry.recipe == plan.recipe and path.is_file() and path.stat().st_size == entry.bytes:
            index.add(entry)
    for path in folder.glob("puppet-*.tar"):
        if path.name not in index.entries:
            path.unlink()
    return index


@contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """An ordered parallel map; a plain map with fewer than two workers."""
    if workers < 2:
        yield map
        return
    with get_context("spawn").Pool(workers) as pool:
        yield partial(pool.imap, chunksize=1)
