"""All recordings of a folder, one after another or in several processes; each is kept as soon as it is finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datamodules.intake.config import IntakeConfig
from datamodules.intake.listing import Work, list_sources
from datamodules.intake.models import ModelPaths, open_models
from datamodules.intake.packing import pack
from datamodules.intake.rejection import Rejected, Rejection
from datamodules.intake.report import PUT_ASIDE, write_report
from datamodules.intake.sample import Sample
from datamodules.intake.sources import Source
from datamodules.intake.speech_take import take_speech
from datamodules.intake.spool import Spool
from datamodules.intake.staging import Records, SourceRecord, Staging
from datamodules.intake.video_take import take_video
from datamodules.orphans import end_with_parent
from datamodules.shards import ShardIndex
from streamchar.errors import DataError, InputError, StreamCharError

log = logging.getLogger(__name__)
Report = Callable[[SourceRecord, bool], None]


def take(source: Work, recipe: str, cfg: IntakeConfig, folder: Path) -> SourceRecord:
    """Make the clips of one recording (or those of a bundle) and keep them; whatever is wrong with it becomes a
    rejection. Runs in a worker.

    Raises:
        InputError: for what concerns all recordings: a model that cannot be loaded.
        OSError: a full disk.
    """
    models, staging = open_models(ModelPaths.of(cfg)), Staging(folder, recipe, cfg)
    if not isinstance(source, Source):
        return staging.keep(source, (row for one in source.sources() for row in utterance(one, cfg)))
    try:
        return staging.keep(source, (take_speech if recipe == "speech" else take_video)(source, cfg, models))
    except Exception as error:
        return staging.keep(source, [_rejection(source, error)])


def utterance(source: Source, cfg: IntakeConfig) -> list[Sample | Rejection]:
    """All of a short recording; nothing but a rejection where something is wrong with it. Runs in a worker."""
    try:
        return list(take_speech(source, cfg, open_models(ModelPaths.of(cfg))))
    except Exception as error:
        return [_rejection(source, error)]


def _rejection(source: Source, error: Exception) -> Rejection:
    """Why a recording is not used; raises ``error`` again where it is not about this recording."""
    if isinstance(error, Rejected):
        return Rejection(source.name, 0.0, None, error.reason, error.detail)
    if isinstance(error, (StreamCharError, OSError)):  # what cannot be read is rejected; this is the disk
        raise error
    # one odd file must not cost all the others
    log.warning("%s: %s", source.name, error, exc_info=error)
    return Rejection(source.name, 0.0, None, "crashed", f"{type(error).__name__}: {error}")


def produce(recipe: str, cfg: IntakeConfig, folder: Path, begin: Callable[[int], None] = lambda _: None,
            report: Report = lambda *_: None, packed: Callable[[int], None] = lambda _: None,
            ) -> tuple[ShardIndex, dict[str, Any]]:
    """Make ``shards/``, ``report.json`` and ``contact_sheet.jpg`` of all recordings in ``cfg.input``; returns the
    shards' index and the report's summary. What grows with their number lies on disk.

    Args:
        recipe: videos, grid or speech.
        folder: of the stage; ``sources/`` below it keeps what is finished.
        begin: called with the number of recordings.
        report: called with each record, and whether it was made now or kept from an earlier run.
        packed: called with the number of clips of each shard, when it is there.

    Raises:
        InputError: missing models or input, a full disk; DataError: not one clip could be made.
    """
    ModelPaths.of(cfg).check(faces=recipe != "speech")
    try:
        sources = list_sources(recipe, cfg.input, folder)
        staging = Staging(folder / "sources", recipe, cfg)
        begin(sources.count)
        keys, missing = Spool[str](folder), Spool[Work](folder)
        for source in sources:
            keys.append(source.key)
            if (record := staging.finished(source)) is None:
                missing.append(source)
            else:
                report(record, False)
        staging.clean(keys)
        for record in _records(iter(missing), recipe, cfg, staging):
            report(record, True)
        records = Records(keys, staging)
        index = pack(records, staging, folder / "shards", recipe, cfg.val_share, cfg.shard_clips, recipe == "speech",
                     packed)
        summary = write_report(records, staging, folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; free some space or choose another "
                         "root=; finished recordings are kept and the next run goes on from them") from error
    if not index.samples:
        raise DataError(f"no clip could be made of {summary['recordings']} recordings; {_reasons(summary)}; "
                        f"{folder / PUT_ASIDE} names them")
    return index, summary


def _records(sources: Iterator[Work], recipe: str, cfg: IntakeConfig, staging: Staging) -> Iterator[SourceRecord]:
    if cfg.workers < 2:
        for source in sources:
            yield take(source, recipe, cfg, staging.folder)
        return
    while suspects := (yield from _in_pool(sources, cfg.workers, recipe, cfg, staging.folder)):
        for source in suspects:  # a process died: alone, each shows whether it was the one
            if (yield from _in_pool(iter([source]), 1, recipe, cfg, staging.folder)):
                yield staging.keep(source, _one_by_one(source, cfg))


def _one_by_one(source: Work, cfg: IntakeConfig) -> Iterator[Sample | Rejection]:
    """The utterances of a bundle that tore its process down, each in a process of its own."""
    for one in source.sources():
        found: list[Sample | Rejection] = [Rejection(one.name, 0.0, None, "crashed")]
        if source is not one:
            alone = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
            with suppress(BrokenProcessPool), alone as pool:
                found = pool.submit(utterance, one, cfg).result()
        yield from found


def _in_pool(sources: Iterator[Work], workers: int, recipe: str, cfg: IntakeConfig,
             folder: Path) -> Generator[SourceRecord, None, list[Work]]:
    """Records as they are finished; where a process dies it ends early and returns what was being worked on."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)
    running: dict[Future[SourceRecord], Work] = {}
    lost: list[Work] = []
    try:
        while True:
            # No more than are worked on, so that Ctrl-C leaves nothing in the queue to wait for.
            for source in islice(sources, 0 if lost else workers - len(running)):
                try:
                    running[pool.submit(take, source, recipe, cfg, folder)] = source
                except BrokenProcessPool:
                    lost.append(source)
            if not running:
                return lost
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                source = running.pop(future)
                try:
                    record = future.result()
                except BrokenProcessPool:
                    lost.append(source)
                else:
                    yield record
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _reasons(summary: dict[str, Any]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in summary["reasons"].items())
